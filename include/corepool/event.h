/* corepool/event.h: what a pool tells the program while it runs: for logs, metrics and alarms. */
#ifndef COREPOOL_EVENT_H
#define COREPOOL_EVENT_H

#include <corepool/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum corepool_event_kind {
    COREPOOL_EVENT_OPENED,      /* a worker is ready; duration_ms since its init began */
    COREPOOL_EVENT_OPEN_FAILED, /* `text`: why; code: init's */
    COREPOOL_EVENT_CLOSED,      /* a worker was terminated; reason; duration_ms since it was ready */
    COREPOOL_EVENT_WAITED,      /* a request was granted after it had waited duration_ms */
    COREPOOL_EVENT_TIMEOUT,     /* a request timed out after duration_ms */
    COREPOOL_EVENT_SHED,        /* a request was refused as overload: code EOVERLOAD or ESHED */
    COREPOOL_EVENT_OVERDUE,     /* `lease` is held for duration_ms by now */
    COREPOOL_EVENT_STALL,       /* callback `text` of this pool has run for duration_ms by now; see stall_ms */
    COREPOOL_EVENT_WARNING,     /* `text`: an option that has no effect, a callback that returned nonsense */
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
    int64_t age_ms;    /* -1 unless the pool has lease_report_ms or lease_limit_ms; else at most an eighth of it too low */
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

/* Thread: the shard's; COREPOOL_EVENT_STALL: the watchdog's; a WARNING about options: that of corepool_pool_open. Must not
 * block; may call what a shard's code may call. */
typedef void (*corepool_event_cb)(const corepool_event_t *event, void *arg);

#ifdef __cplusplus
}
#endif
#endif
