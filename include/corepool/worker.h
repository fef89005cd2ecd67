/* corepool/worker.h: worker classes: how a resource is opened, validated and terminated.
 *
 * Thread default of this header: shard, that is the thread of the slice that the worker belongs to;
 * exceptions are marked. The words are NimblePool's: init_pool, init_worker, handle_checkout,
 * handle_checkin, terminate_worker, terminate_pool. */
#ifndef COREPOOL_WORKER_H
#define COREPOOL_WORKER_H

#include <corepool/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One slot as its class sees it; the same address for every worker that the slot holds in turn. */
typedef struct corepool_worker corepool_worker_t;

/* Why a worker or a slice of a pool ends. */
#define COREPOOL_REASON_TABLE(X)                                          \
    X(NONE, "none")                                                       \
    X(STOP, "the pool was closed")                                        \
    X(DOWN, "the client's thread ended with the lease")                   \
    X(FAILED, "the client gave up on the worker")                         \
    X(REMOVED, "removed by the client")                                   \
    X(CHECKOUT, "removed by the checkout callback")                       \
    X(CHECKIN, "removed by the checkin callback")                         \
    X(EVICTED, "evicted by its class")                                    \
    X(HANGUP, "the peer hung up")                                         \
    X(VALIDATE, "found bad after it had been idle")                       \
    X(PING, "removed by the ping callback")                               \
    X(INFO, "removed by the info callback")                               \
    X(UPDATE, "removed by the update callback")                               \
    X(IDLE, "idle for too long")                                          \
    X(EXPIRED, "at the end of its lifetime")                              \
    X(TIMEOUT, "leased for too long")                                     \
    X(FLUSHED, "the pool was flushed")                                    \
    X(RESIZED, "the pool became smaller")                                 \
    X(DETACHED, "taken out of the pool by a client")                      \
    X(MOVED, "its place was wanted on another shard")
typedef enum corepool_reason {
#define COREPOOL_REASON_ENUM(name, text) COREPOOL_REASON_##name,
    COREPOOL_REASON_TABLE(COREPOOL_REASON_ENUM)
#undef COREPOOL_REASON_ENUM
    COREPOOL_REASONS,            /* how many of them there are */
    COREPOOL_REASON_USER = 64, /* from here to COREPOOL_REASON_MAX: the program's own */
    COREPOOL_REASON_MAX = 255,
} corepool_reason_t;

/* COREPOOL_REMOVE and COREPOOL_STOP with a reason of the program's own (COREPOOL_REASON_USER to COREPOOL_REASON_MAX), for any
 * callback that may return those. Where a callback may return COREPOOL_REMOVE, a value that its documentation does not
 * name counts as that, and is a COREPOOL_EVENT_WARNING. */
#define COREPOOL_REMOVE_BECAUSE(reason) (0x100 + (reason))
#define COREPOOL_STOP_BECAUSE(reason) (0x200 + (reason))

/* The text of a reason. Static storage. Thread: any. */
COREPOOL_PUBLIC const char *corepool_reason_text(corepool_reason_t reason);

/* init and terminate run on libuv's thread pool instead of the shard, so they may block. The worker
 * functions below marked *shard* must not be called from there. */
#define COREPOOL_CLASS_BLOCKING 0x1u

/* Workers are bound to no shard: an idle one may be handed to another shard's slice for good, where its callbacks then run,
 * with that slice's pool state and another corepool_worker_t. So the class keeps neither, nor handles of the shard's loop;
 * what corepool_worker_watch watches is watched there. Without this only the places of workers move: one that has long been
 * idle may be terminated (reason MOVED) for its place. */
#define COREPOOL_CLASS_MOVABLE 0x2u

/* When the cancelled callback's request ended. */
typedef enum corepool_cancelled {
    COREPOOL_CANCELLED_QUEUED, /* while it waited */
    COREPOOL_CANCELLED_LEASED, /* with the lease */
} corepool_cancelled_t;

/* A worker class. Static data of the program or library that offers it: must outlive every pool of it.
 * All callbacks but init are optional. None may block, unless COREPOOL_CLASS_BLOCKING says so for init and
 * terminate. */
typedef struct corepool_class {
    const char *name;   /* for messages; required */
    unsigned flags;     /* COREPOOL_CLASS_…; default 0 */

    /* Once per slice when the pool opens, before any worker: sets *pool_state (default: the pool's class
     * argument). COREPOOL_IGNORE: there is to be no pool, on any shard, and that is no failure. Negative: the pool does
     * not open. corepool_pool_open returns either. */
    int (*pool_init)(void *arg, corepool_shard_t *shard, void **pool_state);
    /* Last, after every worker's terminate; runs once for each pool_init that succeeded. */
    void (*pool_terminate)(void *pool_state, corepool_reason_t reason);

    /* Opens a worker. COREPOOL_OK with *resource set; COREPOOL_PENDING, and later exactly one of
     * corepool_worker_ready or corepool_worker_failed; or a negative code, best after
     * corepool_worker_explain. A failure is retried with back-off. */
    int (*init)(corepool_worker_t *worker, void *pool_state, void **resource);
    /* The pool closes while init is pending: bring it to its end soon (corepool_worker_failed with
     * COREPOOL_ECANCELED, or ready after all). Without it, closing waits for init to end by itself. */
    void (*init_cancel)(corepool_worker_t *worker, void *pool_state);

    /* enqueue, checkout and checkin: thread: the caller's, with pool_state NULL; in a pool with COREPOOL_POOL_SERIALISED
     * the shard's, with the slice's pool state. */

    /* Each request, before anything else is done for it, also when a worker is idle. *wrapped: what checkout and
     * cancelled get as the command; preset to the command. COREPOOL_OK or COREPOOL_SKIP (the caller gets
     * COREPOOL_ESKIPPED; any other value counts as that, is named by the detail, and is a COREPOOL_EVENT_WARNING). Not
     * again when the same request tries the next worker. corepool_checkout_try: only once there is a worker for it. */
    int (*enqueue)(void *pool_state, void *command, void **wrapped);
    /* At each checkout, before the caller has it. *client: what the caller gets as
     * lease->resource; preset to the resource. COREPOOL_OK; COREPOOL_REMOVE (terminated with reason
     * CHECKOUT, the same request tries the next); COREPOOL_SKIP (the caller gets COREPOOL_ESKIPPED, the worker stays
     * idle). */
    int (*checkout)(void *pool_state, void *resource, void *command, void **client);
    /* At each corepool_checkin, with lease->resource as the client left it. COREPOOL_OK or
     * COREPOOL_REMOVE (reason CHECKIN). */
    int (*checkin)(void *pool_state, void *resource, void *client);
    /* QUEUED: a request ended while it waited: it timed out, was cancelled or refused, the pool closed, or its thread ended.
     * LEASED: the client's thread ended with the lease, or the client ended it with corepool_checkin_fail; runs
     * before that worker's terminate. wrapped: what enqueue made of the command; NULL without an enqueue callback,
     * as the client's own memory may be gone. So what enqueue has made goes to one end, a checkout that returned
     * COREPOOL_OK or COREPOOL_SKIP or a cancelled QUEUED; but for a request that comes when the pool has closed. */
    void (*cancelled)(void *pool_state, corepool_cancelled_t how, void *wrapped);
    /* corepool_update: changes the worker, or replaces it by corepool_worker_set_resource. COREPOOL_OK; or COREPOOL_REMOVE
     * (reason UPDATE): terminated when the lease ends. */
    int (*update)(corepool_worker_t *worker, void *pool_state, void *resource, void *message);
    /* corepool_pool_info: each worker that is idle at that moment, once. COREPOOL_OK or COREPOOL_REMOVE (reason INFO). While
     * info and ping run, no caller can have the worker. */
    int (*info)(corepool_worker_t *worker, void *pool_state, void *resource, void *message);
    /* A worker idle for idle_timeout_ms; see corepool_pool_options_t. COREPOOL_OK; COREPOOL_REMOVE (reason PING);
     * COREPOOL_STOP (reason STOP, or its own): no more pings; the pool closes, on every shard, and all workers are
     * terminated for that reason. */
    int (*ping)(corepool_worker_t *worker, void *pool_state, void *resource);
    /* At the checkout of a worker that was idle for validate_after_ms, before checkout. Thread: the caller's; the shard's in
     * a pool with COREPOOL_POOL_SERIALISED. COREPOOL_OK or COREPOOL_REMOVE (reason VALIDATE; the same request tries the
     * next). */
    int (*validate)(void *resource);
    /* corepool_detach: forgets the resource, which is the client's from now on; terminate does not run. COREPOOL_OK;
     * or COREPOOL_PENDING, and later exactly one corepool_worker_gone. A negative code is a COREPOOL_EVENT_WARNING, and
     * otherwise as OK. */
    int (*detach)(corepool_worker_t *worker, void *pool_state, void *resource);

    /* Ends a worker that was initialised: exactly once, with its newest resource. COREPOOL_OK; or COREPOOL_PENDING, and
     * later exactly one corepool_worker_gone. A negative code is a COREPOOL_EVENT_WARNING, and otherwise as OK. */
    int (*terminate)(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason);
} corepool_class_t;

/* Ends a pending init with success. Its slot is idle, or granted, at once. */
COREPOOL_PUBLIC void corepool_worker_ready(corepool_worker_t *worker, void *resource);

/* Ends a pending init with failure `code` (negative); call corepool_worker_explain first. */
COREPOOL_PUBLIC void corepool_worker_failed(corepool_worker_t *worker, int code);

/* Ends a pending terminate. The worker must not be used afterwards. */
COREPOOL_PUBLIC void corepool_worker_gone(corepool_worker_t *worker);

/* Says in words why init is about to fail; a caller that times out is told. printf-like, cut at 127 bytes.
 * Thread: shard, or the thread that runs a COREPOOL_CLASS_BLOCKING init. */
COREPOOL_PUBLIC void corepool_worker_explain(corepool_worker_t *worker, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* This initialised worker has gone bad: it is terminated (with reason `reason`: HANGUP or EVICTED) at once if
 * it is idle, at its checkin if it is leased. May be called more than once; after terminate has begun it
 * does nothing. */
COREPOOL_PUBLIC void corepool_worker_evict(corepool_worker_t *worker, corepool_reason_t reason);

/* Names the worker's descriptor (a socket or a pipe): from now on the shard's loop watches it for the peer's hang-up, once
 * and for the worker's life, at no cost per checkout; then the worker is evicted with reason HANGUP. The descriptor stays
 * the class's; the watch is over before terminate or detach runs, or before an init's failure is told, and only then may it
 * be closed. Thread: the shard's, from init on; or the one that runs a COREPOOL_CLASS_BLOCKING init, where what the system
 * refuses becomes a COREPOOL_EVENT_WARNING. COREPOOL_OK; COREPOOL_EBUSY (one is named already), COREPOOL_EINVAL,
 * COREPOOL_ETHREAD, COREPOOL_ENOMEM, COREPOOL_ESYSTEM (a regular file, or another handle of the loop watches it). */
COREPOOL_PUBLIC int corepool_worker_watch(corepool_worker_t *worker, int fd);

/* Puts another resource in the place of the worker's, for all callbacks from now on and for leases after this one: for
 * an update callback. */
COREPOOL_PUBLIC void corepool_worker_set_resource(corepool_worker_t *worker, void *resource);

/* Whether a client holds it at this moment. */
COREPOOL_PUBLIC bool corepool_worker_is_leased(const corepool_worker_t *worker);

/* The shard it lives on, and that shard's loop. Thread: any. */
COREPOOL_PUBLIC corepool_shard_t *corepool_worker_shard(const corepool_worker_t *worker);
COREPOOL_PUBLIC uv_loop_t *corepool_worker_loop(const corepool_worker_t *worker);

/* Number of the slot within its pool and shard, from 0; stable. Thread: any. */
COREPOOL_PUBLIC unsigned corepool_worker_number(const corepool_worker_t *worker);

/* A place of the class's own while init is pending (before there is a resource). Initially NULL for every init. */
COREPOOL_PUBLIC void corepool_worker_set_context(corepool_worker_t *worker, void *context);
COREPOOL_PUBLIC void *corepool_worker_context(const corepool_worker_t *worker);

#ifdef __cplusplus
}
#endif
#endif
