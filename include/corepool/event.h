/* corepool/event.h: what a pool tells the program while it runs: for logs, metrics and alarms. */
#ifndef COREPOOL_EVENT_H
#define COREPOOL_EVENT_H

#include <corepool/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

/* kind, text; what an event of that kind says beside pool and shard. */
#define COREPOOL_EVENT_TABLE(X)                                                                                      \
    X(OPENED, "worker ready")       /* a worker; duration_ms since its init began */                                 \
    X(OPEN_FAILED, "open failed")   /* a worker; `text`: why; code: init's; duration_ms as above */                  \
    X(CLOSED, "worker terminated")  /* a worker; reason; duration_ms since it was ready */                           \
    X(WAITED, "granted")            /* a request was granted, that worker, after it had waited duration_ms */        \
    X(TIMEOUT, "timed out")         /* a request timed out after duration_ms; code */                                \
    X(SHED, "refused as overload")  /* a request that had reached the shard; code EOVERLOAD or ESHED; duration_ms */  \
    X(OVERDUE, "lease overdue")     /* `lease` is held for duration_ms by now */                                     \
    X(STALL, "callback stalls")     /* callback `text` of this pool has run for duration_ms by now; see stall_ms */  \
    X(WARNING, "warning")           /* `text`: an option that has no effect, a callback that returned nonsense; code: \
                                     * what it returned, where that is known */

typedef enum corepool_event_kind {
#define COREPOOL_EVENT_ENUM(name, text) COREPOOL_EVENT_##name,
    COREPOOL_EVENT_TABLE(COREPOOL_EVENT_ENUM)
#undef COREPOOL_EVENT_ENUM
} corepool_event_kind_t;

/* How many return addresses a lease's backtrace has at most. */
#define COREPOOL_BACKTRACE_MAX 16

/* One lease that is out. */
typedef struct corepool_lease_info {
    const char *pool;
    unsigned shard;
    int cpu;           /* of the shard */
    unsigned worker;   /* corepool_worker_number */
    uint64_t checkout; /* the slot's how-many'th lease */
    int64_t thread_id; /* kernel thread id of the holder, as in gettid() */
    char thread_name[16];
    int64_t age_ms;    /* -1 unless the pool has COREPOOL_POOL_TIME_LEASES (then exact), lease_report_ms or lease_limit_ms
                        * (then up to an eighth of the shorter too low, and -1 until the first look) */
    unsigned backtrace_length; /* 0: this checkout was not one of the sample, see backtrace_every */
    void *backtrace[COREPOOL_BACKTRACE_MAX]; /* return addresses, innermost first, for backtrace_symbols(3) */
} corepool_lease_info_t;

/* Pointers are valid during the callback; what a kind does not name is zero. */
typedef struct corepool_event {
    corepool_event_kind_t kind;
    const char *pool;
    unsigned shard;
    unsigned worker; /* corepool_worker_number, where there is one */
    int code;
    corepool_reason_t reason;
    int64_t duration_ms;
    const char *text;
    const corepool_lease_info_t *lease;
} corepool_event_t;

/* Told on the shard where it happens, in the order in which it happens there; statistics count it already, and nobody
 * has been woken for it yet (a caller that times out knows first, and so does one whose enqueue callback
 * returned nonsense on its own thread). Thread: the shard's; COREPOOL_EVENT_STALL: the watchdog's; a WARNING about
 * options: that of corepool_pool_open. Must not block; may call what a shard's code may call. */
typedef void (*corepool_event_cb)(const corepool_event_t *event, void *arg);

/* The text of a kind; "unknown event" for a value that is none. Static storage. Thread: any. */
COREPOOL_PUBLIC const char *corepool_event_text(corepool_event_kind_t kind);

#ifdef __cplusplus
}
#endif
#endif
