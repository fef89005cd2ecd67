/* front/checkout.h: the steps that blocking and asynchronous checkout share. Thread: any. */
#ifndef CP_FRONT_CHECKOUT_H
#define CP_FRONT_CHECKOUT_H

#include "front/runtime.h"

/* One checkout under way. */
struct cp_checkout {
    corepool_pool_t pool;
    struct cp_thread *self;
    void *command;
    int64_t since, deadline; /* absolute; of the waiting */
    bool again;       /* has had a worker that was refused: keeps its place in the queue */
    bool enqueued;    /* command is what the class's enqueue callback made of it */
    struct cp_slice *slice; /* where it missed */
    uint64_t epoch;         /* of the slice, while it was this pool's */
    bool holds;             /* stop is to wait while it looks further, though it has neither a lease nor a request that waits */
    struct corepool_shard *held; /* then by cp_shard_hold; NULL: a lease keeps the shard, or nothing does yet */
};

/* What keeps a checkout's shard from stopping: from before its request is sent, or before a lease is ended that the class has
 * refused, until it has another lease or has returned. Never across a callback, in which the thread might end, or stop the
 * runtime. */
static inline void cp_checkout_hold(struct cp_checkout *checkout, struct corepool_shard *shard)
{
    if (!checkout->holds || checkout->held)
        return;
    cp_shard_hold(shard);
    checkout->held = shard;
}

static inline void cp_checkout_let_go(struct cp_checkout *checkout)
{
    if (checkout->held)
        cp_shard_let_go(checkout->held);
    checkout->held = NULL;
}

/* The slice that serves the CPU that the caller is on, by rseq or, where that does not tell the CPU (valgrind,
 * GLIBC_TUNABLES), by the C library. */
struct cp_slice *cp_slice_of_cpu(struct corepool_pool_impl *impl);

/* The same, inline where there are rseq shelves. */
static inline struct cp_slice *cp_slice_here(struct corepool_pool_impl *impl)
{
    uint32_t cpu = cp_rseq_cpu();
    return cp_likely(cpu < impl->cpus) ? atomic_load_explicit(&impl->by_cpu[cpu], memory_order_relaxed)
                                       : cp_slice_of_cpu(impl);
}

/* The slice that serves this caller, by its CPU or by the handle. */
static inline struct cp_slice *cp_slice_for(corepool_pool_t pool)
{
    struct corepool_pool_impl *impl = pool.impl;
    return pool.shard >= 0 ? atomic_load_explicit(&impl->by_shard[pool.shard], memory_order_relaxed) : cp_slice_here(impl);
}

/* Whether the arguments of a checkout are such that cp_checkout_at_once may be asked. */
static inline bool cp_checkout_is_plain(corepool_pool_t pool, const corepool_checkout_options_t *options)
{
    return pool.impl && (!options || options->timeout_ms >= COREPOOL_INFINITE);
}

/* The usual checkout, from whichever slice serves the caller: OK with *lease. COREPOOL_EEMPTY, without detail: nothing has
 * happened, it is to be tried in full, with *pool, for which the policy may have chosen a shard. Or that policy's error,
 * with *lease zeroed. */
int cp_checkout_at_once(corepool_pool_t *pool, const corepool_checkout_options_t *options, corepool_lease_t *lease);

/* A blocking checkout in full. */
int cp_checkout_slowly(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease);

/* Binds an unbound handle to the shard that is to serve this checkout, by the policy or because it is the caller; it may stay
 * unbound. OK, or as cp_policy_bind. */
int cp_checkout_choose(corepool_pool_t *pool, const corepool_checkout_options_t *options, struct cp_thread *self);

/* Takes an idle worker without waiting: DONE with *slot, which the caller owns and no one knows of yet; EMPTY: it has to
 * wait (checkout->slice and epoch are set); CLOSED_NOW. */
enum cp_shelf_outcome cp_checkout_take(struct cp_checkout *checkout, cp_slot **slot);

/* Whose lease the slot becomes or is. Thread: `self`. */
static inline void cp_slot_is_held_by(cp_slot *slot, struct cp_thread *self)
{
    atomic_store_explicit(&slot->holder, atomic_load_explicit(&self->area, memory_order_relaxed), memory_order_relaxed);
    cp_thread_note(self, slot);
}

/* The owned slot becomes a lease of `self`. */
static inline void cp_checkout_lease(cp_slot *slot, struct cp_thread *self, corepool_lease_t *lease)
{
    uint64_t stamp = cp_stamp_next_lease(cp_slot_stamp(slot));
    cp_slot_is_held_by(slot, self);
    cp_slot_set_stamp(slot, stamp);
    lease->resource = atomic_load_explicit(&slot->resource, memory_order_relaxed);
    lease->worker = slot;
    lease->generation = stamp;
}

/* Runs the class's checkout callback on a fresh lease. OK; ESKIPPED (with detail, lease given back and zeroed); or
 * COREPOOL_REMOVE: the worker is gone, the lease zeroed, the next is to be tried. */
int cp_checkout_validate(struct cp_checkout *checkout, corepool_lease_t *lease);

/* The class, if it has an enqueue callback that runs on callers' threads, else NULL. */
const corepool_class_t *cp_checkout_enqueuer(const struct cp_checkout *checkout);

/* Runs it. OK, or ESKIPPED with detail. request: one that is free, and carries a warning if there is one; out of reach of
 * what the callback itself checks out, and free again afterwards or when the manager has been told. */
int cp_checkout_enqueue(struct cp_checkout *checkout, const corepool_class_t *cls, struct cp_request *request);

/* What the waiting checkout's request is about. */
void cp_checkout_fill(const struct cp_checkout *checkout, struct cp_request *request);

/* A worker that was granted to a waiting checkout: lease and validation in one. client: the request's. */
int cp_checkout_granted(struct cp_checkout *checkout, cp_slot *slot, uint64_t stamp, void *client,
                        corepool_lease_t *lease);

/* Before it waits: OK, or an error that is certain already. What enqueue has seen is left to the manager, who tells the class. */
int cp_checkout_admit(const struct cp_checkout *checkout);

/* The error of a request that the manager did not grant. */
int cp_checkout_refused(const struct cp_checkout *checkout, const struct cp_request *request);

/* The caller owns the slot without a lease: to the manager, as returned or, with a reason, as removed. */
void cp_slot_hand_over(cp_slot *slot, uint32_t tag, corepool_reason_t reason);

/* Ends a lease: back to use, or to be terminated for `reason` (as from cp_verdict) if that is not NONE. OK or ESTALE. */
int cp_lease_end(corepool_lease_t *lease, struct cp_thread *self, uint32_t reason);

/* ETIMEDOUT with a detail that says what it waited for. */
int cp_checkout_timed_out(const struct cp_checkout *checkout, int64_t timeout_ms);

/* Handle, timeout and thread; fills in checkout. */
int cp_checkout_begin(struct cp_checkout *checkout, corepool_pool_t pool, const corepool_checkout_options_t *options);

/* OK, or EINVAL and ESTALE for what is no lease at all, with detail. Thread: any. */
int cp_lease_check(const corepool_lease_t *lease);

#endif
