/* corepool/error.h: outcome codes and the detail text of the last failure.
 *
 * Every call that can fail returns an int: COREPOOL_OK, a positive outcome that its documentation names, or a negative code
 * from the table below. In a child that fork has made every call about its parent's runtime, pools, leases and loops is
 * COREPOOL_EFORKED (or what else says that there is none, such as -1 for a descriptor), and does nothing. Nothing in the
 * library prints or aborts. Thread: any. Never blocks. */
#ifndef COREPOOL_ERROR_H
#define COREPOOL_ERROR_H

#include <corepool/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, text. One table keeps codes and texts together. */
#define COREPOOL_ERROR_TABLE(X)                                                  \
    X(EINVAL, -1, "invalid argument")                                            \
    X(ENOMEM, -2, "out of memory")                                               \
    X(ESYSTEM, -3, "the operating system refused")                               \
    X(ETIMEDOUT, -4, "timed out")                                                \
    X(ECANCELED, -5, "cancelled")                                                \
    X(ECLOSED, -6, "closed")                                                     \
    X(EEMPTY, -7, "no worker is idle")                                           \
    X(ESTALE, -8, "the lease is no longer held")                                 \
    X(EDEADLK, -9, "would wait for its own thread")                              \
    X(ETHREAD, -10, "called on the wrong thread")                                \
    X(EBUSY, -11, "still in use")                                                \
    X(EFORKED, -12, "the runtime belongs to the parent process")                 \
    X(ESKIPPED, -13, "skipped by the worker class")                              \
    X(ELAW, -14, "a conservation law is broken")                                 \
    X(EPEER, -15, "the peer closed or broke the connection")                     \
    X(EPROTO, -16, "the peer broke the protocol")                                \
    X(ELIMIT, -17, "a limit was exceeded")                                       \
    X(EOPEN, -18, "a worker could not be opened")                                \
    X(ENOTSUP, -19, "not supported here")                                        \
    X(EOVERLOAD, -20, "too many requests wait")                                  \
    X(ESHED, -21, "shed: requests have waited too long for some time")

enum {
    COREPOOL_OK = 0,
    /* Outcome of an init or terminate callback: it finishes later (corepool/worker.h). */
    COREPOOL_PENDING = 1,
    /* Outcome of a callback about a worker: it is to be terminated and replaced. */
    COREPOOL_REMOVE = 2,
    /* Outcome of an enqueue or checkout callback: the caller gets COREPOOL_ESKIPPED, the worker stays. */
    COREPOOL_SKIP = 3,
    /* Outcome of pool_init, and then of corepool_pool_open: there is to be no pool, and that is no failure. */
    COREPOOL_IGNORE = 4,
    /* Outcome of a ping callback: the worker is terminated, and the whole pool closes, on every shard. */
    COREPOOL_STOP = 5,
#define COREPOOL_ERROR_ENUM(name, value, text) COREPOOL_##name = (value),
    COREPOOL_ERROR_TABLE(COREPOOL_ERROR_ENUM)
#undef COREPOOL_ERROR_ENUM
};

/* The text of a code; "unknown code" for a value that is none of ours. Static storage. */
COREPOOL_PUBLIC const char *corepool_error_text(int code);

/* The name of a code ("ETIMEDOUT"), without its prefix. Static storage. */
COREPOOL_PUBLIC const char *corepool_error_name(int code);

/* What exactly went wrong in the last corepool call that failed on the calling thread: names the field, the
 * value, the system error. Before an asynchronous callback reports a failure it is set for that failure.
 * Never NULL; valid until the next failing call on this thread. A call that succeeds leaves it as it was. */
COREPOOL_PUBLIC const char *corepool_error_detail(void);

#ifdef __cplusplus
}
#endif
#endif
