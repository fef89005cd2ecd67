/* corepool/checkout.h: requests and leases.
 *
 * Thread default of this header: any; exceptions are marked. */
#ifndef COREPOOL_CHECKOUT_H
#define COREPOOL_CHECKOUT_H

#include <corepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A worker in the caller's hands. Ended once: by a checkin of whatever kind, by detach, or by the end of its holder (reason
 * DOWN), the thread that took it. `worker` and `generation` are not to be changed. A second ending, also through a copy, is
 * COREPOOL_ESTALE and harms nothing. May be handed to another thread together with whatever orders the two threads; the
 * thread that took it must then outlive the lease, or the other one adopts it. */
typedef struct corepool_lease {
    void *resource; /* the worker, or what its class's checkout callback made of it */
    corepool_worker_t *worker;
    uint64_t generation;
} corepool_lease_t;

/* NimblePool's default for waiting: 5 s. */
#define COREPOOL_TIMEOUT_DEFAULT_MS 5000

/* Zero means the default in every field; a NULL pointer to it means all defaults. */
typedef struct corepool_checkout_options {
    int64_t timeout_ms; /* for waiting only; default COREPOOL_TIMEOUT_DEFAULT_MS; COREPOOL_INFINITE allowed */
    void *command;      /* handed to the class's enqueue and checkout callbacks, before the checkout ends or times out;
                         * default NULL */
    uint64_t key;       /* for COREPOOL_POLICY_HASH, and own policies; default 0 */
} corepool_checkout_options_t;

/* Takes a worker: at once when one is idle on the caller's CPU, or where the policy says; else waits its turn. Blocks up to
 * options->timeout_ms. Returns COREPOOL_OK with *lease filled; else *lease is zeroed: COREPOOL_ETIMEDOUT (the detail says
 * how many were waiting, how many opening and leased, and the last open error), COREPOOL_ESKIPPED, COREPOOL_ECLOSED (also
 * while the pool is drained, see corepool/operate.h), COREPOOL_EOVERLOAD (more than max_waiting would wait; the detail says
 * how many do), COREPOOL_ESHED, COREPOOL_EINVAL, COREPOOL_ENOMEM, COREPOOL_EFORKED; COREPOOL_EDEADLK on a shard's thread,
 * which would wait for itself: use corepool_checkout_async there. */
COREPOOL_PUBLIC COREPOOL_CALLED_OFTEN int corepool_checkout(corepool_pool_t pool,
                                                            const corepool_checkout_options_t *options,
                                                            corepool_lease_t *lease);

/* The same without waiting: COREPOOL_EEMPTY when none is idle on the caller's shard, or on the one that the policy chose
 * (nothing is opened for it), or when that shelf is out of the caller's reach: on a CPU that no shard stands for, or with a
 * handle for another shard. COREPOOL_ENOTSUP for a pool with COREPOOL_POOL_MANAGED, which has no shelf. Never blocks;
 * allowed on a shard's thread. */
COREPOOL_PUBLIC int corepool_checkout_try(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                          corepool_lease_t *lease);

/* Gets the outcome of an asynchronous checkout, once: status as corepool_checkout's. On COREPOOL_OK `*lease` is
 * to be copied, it is valid during the call only; else lease is NULL. */
typedef void (*corepool_checkout_cb)(int status, const corepool_lease_t *lease, void *arg);

/* Names an asynchronous checkout that waits, for corepool_request_cancel. Zero: it did not wait. */
typedef struct corepool_request {
    void *impl;
    uint64_t generation;
} corepool_request_t;

/* Asks for a worker and returns. Thread: a shard, or a thread whose loop is attached; the callback runs on that
 * same thread. When a worker is idle (or the checkout fails at once after this call accepted it) the callback
 * runs before this call returns; else from the loop, once, within options->timeout_ms. Callbacks that wait for a worker
 * and ask for the next when they have got it do not nest, and many of them run in one turn of the loop, but not without end.
 * request may be NULL.
 * Returns COREPOOL_OK: the callback ran or will run; COREPOOL_ETHREAD on any other thread, COREPOOL_EINVAL (also for a
 * pool of another runtime than the loop's),
 * COREPOOL_ECLOSED, COREPOOL_EOVERLOAD, COREPOOL_ENOMEM: the callback will not run. */
COREPOOL_PUBLIC int corepool_checkout_async(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                            corepool_checkout_cb cb, void *arg, corepool_request_t *request);

/* Cancels a waiting request; its callback runs before this returns, with COREPOOL_ECANCELED. Thread: the one
 * that asked, else COREPOOL_ETHREAD. COREPOOL_OK; COREPOOL_ESTALE: it has completed, or its grant is already on its way and
 * the callback will bring it. */
COREPOOL_PUBLIC int corepool_request_cancel(corepool_request_t request);

/* The calling thread becomes the lease's holder: from here on the lease is reclaimed at this thread's end, and no longer at
 * the end of the one that took it, which must live until this returns. *lease and its copies stay good. To be called
 * together with whatever orders the two threads. COREPOOL_OK, also when the caller holds it already; COREPOOL_ESTALE (it has
 * ended, or is zero); COREPOOL_EINVAL (NULL), COREPOOL_ENOMEM, COREPOOL_EFORKED. Never blocks. */
COREPOOL_PUBLIC int corepool_adopt(const corepool_lease_t *lease);

/* Ends the lease; the worker is idle again, or goes to the request that waits longest. Zeroes *lease. Never blocks.
 * COREPOOL_OK; COREPOOL_ESTALE (ended before, reclaimed, or zero); COREPOOL_EINVAL (NULL). */
COREPOOL_PUBLIC COREPOOL_CALLED_OFTEN int corepool_checkin(corepool_lease_t *lease);

/* Ends the lease and has the worker terminated and replaced: corepool_checkin_remove with reason REMOVED, when the
 * work is done but the worker is not to be used again; corepool_checkin_fail with reason FAILED, when the work
 * failed; corepool_checkin_because with a reason of the program's own (COREPOOL_REASON_USER to COREPOOL_REASON_MAX, else
 * COREPOOL_EINVAL and nothing is done). The checkin callback does not run. All zero *lease and return as
 * corepool_checkin. */
COREPOOL_PUBLIC int corepool_checkin_remove(corepool_lease_t *lease);
COREPOOL_PUBLIC int corepool_checkin_fail(corepool_lease_t *lease);
COREPOOL_PUBLIC int corepool_checkin_because(corepool_lease_t *lease, corepool_reason_t reason);

/* Runs the class's update callback for the leased worker, with `message`, on the worker's shard. Blocks until it has run;
 * on the worker's own shard it runs at once. lease: caller keeps. COREPOOL_OK; COREPOOL_ENOTSUP (no such callback),
 * COREPOOL_ESTALE, COREPOOL_EINVAL, COREPOOL_EFORKED; COREPOOL_EDEADLK on another shard's thread, which must not wait. */
COREPOOL_PUBLIC int corepool_update(const corepool_lease_t *lease, void *message);

/* A program's own libuv loop, made able to receive asynchronous checkouts. */
typedef struct corepool_attachment corepool_attachment_t;

/* Attaches the calling thread's loop; one at a time per thread. Thread: the one that runs `loop`, not a shard.
 * The attachment does not keep the loop alive while no request waits. COREPOOL_OK, COREPOOL_EINVAL,
 * COREPOOL_ETHREAD (a shard, or a loop is attached already), COREPOOL_ENOMEM, COREPOOL_ESYSTEM. */
COREPOOL_PUBLIC int corepool_loop_attach(corepool_runtime_t *runtime, uv_loop_t *loop,
                                         corepool_attachment_t **attachment);

/* Detaches: requests that still wait are cancelled, each callback running before this returns; grants on their
 * way are given back. The loop must run once more to close the attachment's handles, before
 * corepool_runtime_destroy, which else returns COREPOOL_EBUSY. Thread: the one that attached; not from a worker class's
 * callback. NULL is allowed. A thread that ends without it loses what it waited for, untold. */
COREPOOL_PUBLIC void corepool_loop_detach(corepool_attachment_t *attachment);

#ifdef __cplusplus
}
#endif
#endif
