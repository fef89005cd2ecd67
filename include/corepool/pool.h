/* corepool/pool.h: pools and their slices: open, close, look inside.
 *
 * Thread default of this header: control (any thread that is not a shard); exceptions are marked. */
#ifndef COREPOOL_POOL_H
#define COREPOOL_POOL_H

#include <corepool/event.h>
#include <corepool/worker.h>

#ifdef __cplusplus
extern "C" {
#endif

struct corepool_pool_impl;

/* A pool handle: a small value, to be copied freely. Once the pool is closed every use is COREPOOL_ECLOSED;
 * it must not be used after corepool_runtime_destroy. The zero value is no pool: COREPOOL_EINVAL. */
typedef struct corepool_pool {
    struct corepool_pool_impl *impl;
    uint32_t generation;
    int32_t shard; /* COREPOOL_SHARD_LOCAL, or the one shard this handle is for */
} corepool_pool_t;

/* Dispatch to the shard of the CPU that the caller runs on. */
#define COREPOOL_SHARD_LOCAL ((int32_t)-1)

/* NimblePool's default size. */
#define COREPOOL_SIZE_DEFAULT 10u
/* Largest size of a pool: far above any use, and what a misspelt number may cost in memory. */
#define COREPOOL_SIZE_MAX 1000000u

#define COREPOOL_POOL_LAZY 0x1u      /* open workers when requests want them; default: all at once */
#define COREPOOL_POOL_PER_SHARD 0x2u /* `size` counts per shard; default: for the whole pool */
#define COREPOOL_POOL_FIFO 0x4u      /* hand out the worker that was idle longest; default: the last one used */
#define COREPOOL_POOL_MANAGED 0x8u   /* no shelf: every checkout and checkin goes through the shard's manager,
                                      * as in NimblePool; made for comparison */
#define COREPOOL_POOL_SERIALISED 0x10u /* NimblePool's model: enqueue, checkout and checkin callbacks run on the
                                      * shard's thread, with the pool state; checkin's when the worker has come back
                                      * there. Implies COREPOOL_POOL_MANAGED */
#define COREPOOL_POOL_TIME_LEASES 0x20u /* measure how long each lease is held, from when its worker was taken; costs two
                                      * clock readings a lease */

/* Which slice serves a caller. A policy that takes workers on other CPUs than the caller's cannot use restartable
 * sequences: such pools have the portable shelf. A checkout that has to wait waits at the slice that was chosen; a handle of
 * corepool_pool_at overrides the policy. `idle` means on the shelf; a COREPOOL_POOL_MANAGED pool has none. */
#define COREPOOL_POLICY_TABLE(X)                                                                             \
    X(LOCAL, "local")               /* that of the CPU that the caller runs on (default) */                  \
    X(LOCAL_ONLY, "local-only")     /* the same; no worker is handed over to another shard */                \
    X(ROUND_ROBIN, "round-robin")   /* each thread goes round all slices */                                  \
    X(RANDOM, "random")             /* any, all equally likely */                                            \
    X(TWO_CHOICES, "two-choices")   /* of two different ones at random the less loaded: idle minus waiting */ \
    X(LEAST_LOADED, "least-loaded") /* the least loaded of all; the caller's own, if none is less */         \
    X(HASH, "hash")                 /* by the checkout's key: the same as long as the pool is open */        \
    X(SINGLE, "single")             /* one slice, on shard 0, with all workers, for all callers */           \
    X(CUSTOM, "custom")             /* as `choose` says */
typedef enum corepool_policy {
#define COREPOOL_POLICY_ENUM(name, text) COREPOOL_POLICY_##name,
    COREPOOL_POLICY_TABLE(COREPOOL_POLICY_ENUM)
#undef COREPOOL_POLICY_ENUM
} corepool_policy_t;

/* "local", "two-choices"…; "unknown" for no policy. Static storage. Thread: any. */
COREPOOL_PUBLIC const char *corepool_policy_name(corepool_policy_t policy);

/* A checkout whose slice is to be chosen. */
typedef struct corepool_choice {
    unsigned shards; /* of the runtime */
    unsigned local;  /* the shard of the CPU that the caller runs on */
    uint64_t key;    /* the checkout's */
    const struct corepool_pool_impl *impl; /* for corepool_choice_load */
} corepool_choice_t;

/* An own policy: returns the shard (below choice->shards) whose callers' slice is to be asked; any other number makes the
 * checkout COREPOOL_EINVAL. Once per checkout. Thread: the caller's, on several at once; must not block. */
typedef unsigned (*corepool_choose_cb)(const corepool_choice_t *choice, void *arg);

/* How loaded the slice is that serves that shard's callers: requests that wait minus idle workers, at about this moment. An
 * unknown shard is INT64_MAX. In a corepool_choose_cb only. Thread: any. */
COREPOOL_PUBLIC int64_t corepool_choice_load(const corepool_choice_t *choice, unsigned shard);

/* For max_idle_pings: no pings at all. For lifetime_jitter_percent: none. */
#define COREPOOL_NONE (~0u)

/* Zero means the default in every field. Times of idle workers are measured by the slice's manager when it looks at them,
 * eight times in the shortest of those that are set (validate_after_ms counts only if the class has validate), but not more
 * often than each millisecond: what is to happen after such a time happens then or up to one look later. Without such times,
 * and while it has no workers, a pool is not looked at. Times are at most ten years, where a field does not say less. */
typedef struct corepool_pool_options {
    const char *name;        /* for messages; default: the class's name; copied, cut at 31 bytes */
    unsigned flags;          /* COREPOOL_POOL_…; default 0 */
    /* Dispatch. */
    corepool_policy_t policy;  /* default COREPOOL_POLICY_LOCAL */
    corepool_choose_cb choose; /* for COREPOOL_POLICY_CUSTOM, and only there; must outlive the pool, as its argument */
    void *choose_arg;          /* default NULL */
    /* Opening. */
    unsigned max_opening;    /* workers of one slice that may be opening at once; default 8 */
    int64_t backoff_min_ms;  /* wait after a first failed init; at most a day; default 20 */
    int64_t backoff_max_ms;  /* the wait doubles up to this; at most a day; default 2000; jitter takes off up to half */
    unsigned warm;           /* workers to keep open though the pool is lazy, or idle_close_ms would end them; shared out
                              * like the size (so many for each shard with COREPOOL_POOL_PER_SHARD), and at most `size`;
                              * default 0 */
    /* Idle workers. */
    int64_t idle_timeout_ms; /* NimblePool's worker_idle_timeout: every so often, workers idle for that long are pinged, from
                              * the oldest, up to the first that is not; they keep their order and their age; default:
                              * never. Without a ping callback: a COREPOOL_EVENT_WARNING, and no timer */
    unsigned max_idle_pings; /* of one slice each time; the next time goes on with those that had no turn; default: no
                              * limit; COREPOOL_NONE: no pings */
    int64_t idle_close_ms;   /* a worker idle for that long is terminated, above `warm`, and opened again only when requests
                              * want it; default: never */
    int64_t max_lifetime_ms; /* a worker that was opened so long ago is replaced once it is not leased; default: never */
    unsigned lifetime_jitter_percent; /* up to so much is taken off each worker's lifetime, drawn once when it is opened, so
                              * that those opened together do not end together; 1 to 100, default 10; COREPOOL_NONE: none */
    int64_t validate_after_ms; /* the class's validate, if it has one, runs at the checkout of a worker idle for that long;
                              * default 500 */
    /* Waiting. */
    unsigned max_waiting;    /* requests that may wait on one shard; one more is COREPOOL_EOVERLOAD; default: no limit */
    unsigned barging_us;     /* a thread that has waited for its turn may, for so long from then on, take a worker that it gives
                              * back again before those who wait: fewer switches between threads, and waits that are longer,
                              * by at most this for each request ahead. A worker that its thread does not come back for goes
                              * to who waits after this time, or a millisecond if that is longer. At most 1,000,000; not with
                              * COREPOOL_POOL_MANAGED; default: none, first come, first served */
    int64_t shed_target_ms;  /* requests are shed (COREPOOL_ESHED) by CoDel's rule once all have waited longer than this */
    int64_t shed_interval_ms; /* … for this long, while more than one waits; default: never, and 100; both at most a day */
    /* Leases. */
    int64_t lease_report_ms; /* a lease held for that long is a COREPOOL_EVENT_OVERDUE, and again each time that its
                              * age has doubled; default: never */
    int64_t lease_limit_ms;  /* after so long its worker is not used again: terminated when the lease ends (reason
                              * TIMEOUT, unless the client gives another); default: never */
    unsigned backtrace_every; /* every n'th checkout of a thread notes its backtrace, for reports; default: none */
    /* Told of what happens; see corepool/event.h. */
    corepool_event_cb on_event; /* default none */
    void *event_arg;
} corepool_pool_options_t;

/* Opens a pool of `size` workers (1 … COREPOOL_SIZE_MAX) of class `cls`, whose callbacks get `arg`; both
 * must outlive the pool. The quotas of its slices, with those that are on their way from one to another, sum to `size` (times
 * the shards with COREPOOL_POOL_PER_SHARD). A pool with fewer workers than shards has slices on some of them, each serving the
 * CPUs that are together under a core, cache, NUMA node or package, from the portable shelf: see corepool_topology_slices.
 * Slices have even shares, the first ones take what is left over. Blocks until every slice's pool_init has returned; workers
 * open in the background. All or nothing. Returns COREPOOL_OK with *pool set; COREPOOL_EINVAL (the detail names the
 * argument), COREPOOL_ENOMEM, pool_init's code, COREPOOL_ECLOSED (runtime stopping), COREPOOL_EDEADLK; COREPOOL_IGNORE
 * (pool_init's): *pool is zero, and nothing failed. */
COREPOOL_PUBLIC int corepool_pool_open(corepool_runtime_t *runtime, const corepool_class_t *cls, void *arg,
                                       unsigned size, const corepool_pool_options_t *options, corepool_pool_t *pool);

/* Closes: no more checkouts; waiting requests end with COREPOOL_ECLOSED; idle workers are terminated, leased
 * ones at their checkin; then pool_terminate. Blocks up to `timeout_ms`. COREPOOL_OK: all gone. COREPOOL_EBUSY:
 * workers are left (the detail names leases still out); closing goes on and the call may be repeated to
 * wait on. COREPOOL_ECLOSED: was gone already. COREPOOL_EINVAL, COREPOOL_EDEADLK. */
COREPOOL_PUBLIC int corepool_pool_close(corepool_pool_t pool, int64_t timeout_ms);

/* Has the class's info callback run with `message` for every worker that is idle at this moment, once, on its shard; never
 * for one that is leased. Returns after the last; message: caller keeps. Thread: any but a shard, where it is allowed for
 * that shard's own handle (corepool_pool_at), and not in a callback of the pool (COREPOOL_EDEADLK). Blocks. COREPOOL_OK;
 * COREPOOL_ENOTSUP (the class has no info callback), COREPOOL_EINVAL, COREPOOL_ECLOSED, COREPOOL_ENOMEM, COREPOOL_EDEADLK. */
COREPOOL_PUBLIC int corepool_pool_info(corepool_pool_t pool, void *message);

/* The same pool, for one shard only: whatever CPU the caller is on, that shard's slice is asked. With an unknown
 * shard the result is the zero value. Thread: any. */
COREPOOL_PUBLIC corepool_pool_t corepool_pool_at(corepool_pool_t pool, unsigned shard);

/* Calls fn for every lease that is out at this moment, under a lock that opens, closes and other looks at the runtime's pools
 * wait for: fn must neither block nor call back into the library. Thread: any; blocks while another has that lock, for
 * moments. Returns the number of leases; COREPOOL_EINVAL (no fn, or the handle is none), COREPOOL_ECLOSED. */
COREPOOL_PUBLIC int corepool_pool_leases(corepool_pool_t pool, void (*fn)(const corepool_lease_info_t *, void *),
                                         void *arg);

/* How long something took, in microseconds: `part` of all cases took at most so long; up to 25 % too high, never above the
 * longest. 0 where nothing was counted. */
typedef struct corepool_times {
    uint64_t count;
    uint64_t p50_us, p90_us, p99_us, p999_us, p9999_us, max_us;
} corepool_times_t;

/* Counts of a slice or a pool, since it was opened. */
typedef struct corepool_stats {
    uint64_t quota;      /* vacant + opening + idle + leased + closing, at any time (law L1) */
    uint64_t vacant, opening, idle, leased, closing;
    uint64_t waiting;
    uint64_t checkouts;  /* shelf_hits + grants */
    uint64_t shelf_hits; /* served without the manager */
    uint64_t grants;     /* served by the manager after waiting */
    uint64_t timeouts, cancels;
    uint64_t skips;      /* checkouts that the class skipped */
    uint64_t sheds;      /* checkouts that were refused as overload */
    uint64_t opens, open_failures, terminated;
    uint64_t removed[COREPOOL_REASON_USER + 1]; /* of `terminated`, by corepool_reason_t; the program's own in the last */
    uint64_t reclaimed;  /* leases taken back from threads that had ended */
    uint64_t stolen;     /* workers, and places without one, that came from other shards … */
    uint64_t given;      /* … and went there */
    uint64_t asks;       /* requests for them that were sent to other shards */
    uint64_t moving;     /* of the whole pool: on their way, so that quota + moving is its size; 0 for one shard */
    uint64_t overdue;    /* leases reported as such, see lease_report_ms */
    uint64_t slices;     /* that there are at this moment */
    uint64_t portable;   /* of them, on the portable shelf: always, or because their shard is away from its CPU */
    corepool_times_t wait; /* of all checkouts; a shelf hit waits 0 */
    corepool_times_t open; /* of each worker's init until it was ready */
    corepool_times_t hold; /* of all leases that have ended; with COREPOOL_POOL_TIME_LEASES only */
} corepool_stats_t;

/* Fills *stats for the handle's shard, or summed over the pool for COREPOOL_SHARD_LOCAL (the times are then those of all
 * slices together). Thread: any; does not wait for shards and stops nobody: each slice's quota, its parts and its opens are
 * of one moment (of leased and idle only the sum, while callers take and give), the rest is of nearly the same. Blocks while
 * another looks at the runtime's pools, for moments.
 * COREPOOL_OK, COREPOOL_EINVAL, COREPOOL_ECLOSED. */
COREPOOL_PUBLIC int corepool_pool_stats(corepool_pool_t pool, corepool_stats_t *stats);

#ifdef __cplusplus
}
#endif
#endif
