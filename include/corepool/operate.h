/* corepool/operate.h: operations on pools that run: resize, flush, pause, drain, warm; taking a worker out for good.
 *
 * Thread default of this header: control (any thread that is not a shard); exceptions are marked. Operations may be called
 * at once by several threads, also while the pool is closed or the runtime is stopped: those of one pool change its slices
 * one after the other. A handle for one shard stands for its whole pool here. All return COREPOOL_OK or, unless more is
 * said: COREPOOL_EINVAL (the detail names the argument), COREPOOL_ECLOSED (the pool closes or is gone; a call that waits ends
 * with it at once), COREPOOL_EDEADLK (on a shard), COREPOOL_EFORKED, COREPOOL_ESYSTEM (a shard has lost its CPU, and the
 * kernel does not let it exclude the callers there: repeat the call). */
#ifndef COREPOOL_OPERATE_H
#define COREPOOL_OPERATE_H

#include <corepool/checkout.h>
#include <corepool/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sets the pool's size, as at open: for the whole pool, or per shard with COREPOOL_POOL_PER_SHARD. The pool keeps the slices
 * that it was opened with, on the same shards. Where workers have gone from one to another (COREPOOL_POLICY_LOCAL) the
 * smallest shares grow, or the largest shrink, until they are even; else all are. Larger takes effect before the call
 * returns (workers then open as ever). Smaller: each slice's quota falls as its slots become vacant, idle workers are
 * terminated at once (reason RESIZED), leased ones as they come back, before any request gets them; until then the quotas
 * sum to more than the size. Blocks until every slice knows. Also COREPOOL_EINVAL for a size below the number of slices, and
 * COREPOOL_ENOMEM: nothing has changed. */
COREPOOL_PUBLIC int corepool_pool_resize(corepool_pool_t pool, unsigned size);

typedef enum corepool_flush {
    COREPOOL_FLUSH_GENTLY = 0, /* idle workers one per slice at a time: the next goes when the last has been replaced */
    COREPOOL_FLUSH_NOW,        /* all idle workers at once */
} corepool_flush_t;

/* Has every worker replaced whose init had begun before the call (reason FLUSHED); those that are leased go at their
 * checkin, whatever `how`. Blocks until every slice knows; the replacing goes on afterwards. Gently, a slice that
 * cannot open new workers keeps the old ones. A second call covers the workers that were opened since the first. */
COREPOOL_PUBLIC int corepool_pool_flush(corepool_pool_t pool, corepool_flush_t how);

/* After it returns no checkout is granted: they wait, until their timeouts (corepool_checkout_try: COREPOOL_EEMPTY).
 * Checkins are accepted, workers are opened and replaced as ever. Idempotent. Blocks until every slice knows. */
COREPOOL_PUBLIC int corepool_pool_pause(corepool_pool_t pool);

/* Takes a paused or drained pool back into service: who waits is served, in order. Idempotent. */
COREPOOL_PUBLIC int corepool_pool_resume(corepool_pool_t pool);

/* Takes the pool out of service, to be closed or resumed: new checkouts are COREPOOL_ECLOSED ("draining"), those that wait
 * are still served (not while the pool is paused). Blocks up to `timeout_ms`. COREPOOL_OK: nothing waits and nothing is
 * leased. COREPOOL_EBUSY: not yet, the detail names leases that are out; the pool stays as it is, the call may be repeated.
 * COREPOOL_ECANCELED: another thread resumed the pool meanwhile. */
COREPOOL_PUBLIC int corepool_pool_drain(corepool_pool_t pool, int64_t timeout_ms);

/* Has at least n workers open, in a lazy pool too; n ≥ 1, at most the pool's size. Each slice opens its part, by its share of
 * the size, once: it does not keep them open. Blocks up to `timeout_ms`. COREPOOL_OK: so many are open, leased ones included.
 * COREPOOL_ETIMEDOUT: not yet, the detail has the last open error; opening goes on. */
COREPOOL_PUBLIC int corepool_pool_warm(corepool_pool_t pool, unsigned n, int64_t timeout_ms);

/* Ends the lease and takes its worker out of the pool: *resource, what its init made, is the caller's; its terminate does
 * not run. The slot gets a new worker. If the class has a detach callback that runs first, on the worker's shard. Thread:
 * any but a shard that is not the worker's own. Blocks until that shard has run it; on that shard never. Returns COREPOOL_OK
 * with *lease zeroed; else the lease is as it was and *resource is NULL: COREPOOL_ENOTSUP (the class has a terminate but no
 * detach), COREPOOL_EDEADLK (another shard's thread), COREPOOL_ESTALE (it was not held), COREPOOL_EINVAL, COREPOOL_ENOMEM,
 * COREPOOL_EFORKED. For corepool_stream_class it is corepool_stream_detach that is of use. */
COREPOOL_PUBLIC int corepool_detach(corepool_lease_t *lease, void **resource);

/* The same for a worker of corepool_stream_class that no corepool_stream_watch of the caller's is on: *fd, non-blocking, is
 * the caller's to close. Also COREPOOL_EINVAL for a lease of another class. On failure *fd is -1. */
COREPOOL_PUBLIC int corepool_stream_detach(corepool_lease_t *lease, int *fd);

#ifdef __cplusplus
}
#endif
#endif
