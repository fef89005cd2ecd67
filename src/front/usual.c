/* front/usual.c: checkouts that take a worker at once: the usual one by corepool/layout.h's step, and what takes little more,
 * where the shelf is another's, portable, bound by the handle or chosen by the policy.
 *
 * None of it waits, looks at returned lists or calls a class (a policy's choose may be called): what asks for that has a flag on
 * its shelf, and is left to front/checkout.c. */
#include "front/checkout.h"

#include "base/error.h"
#include "front/deep.h"
#include "front/policy.h"

/* --- from one slice ---------------------------------------------------------------------------------------------------- */

/* A worker that nobody else has; false: it cannot be used, and is handed on. */
static inline __attribute__((always_inline)) bool lease_taken(corepool_pool_t pool, struct cp_item *item,
                                                              corepool_lease_t *lease)
{
    if (cp_unlikely(!cp_pool_is_open(pool) || atomic_load_explicit(&item->doomed, memory_order_relaxed))) {
        cp_slot_hand_over(cp_slot_of(item), CP_TAG_RETURNED, COREPOOL_REASON_NONE);
        return false;
    }
    cp_checkout_lease(cp_slot_of(item), cp_self, lease);
    return true;
}

/* An rseq shelf on the caller's CPU where only a checkin has something to look at, or the order is all that a checkout has to
 * look at. */
__attribute__((noinline)) static bool take_here(corepool_pool_t pool, struct cp_shelf *shelf, uint32_t flags,
                                                corepool_lease_t *lease)
{
    struct cp_item *item = NULL;
    if (!(flags & ~(uint32_t)CP_SHELF_LOOK_GIVE))
        (void)cp_rseq_take_newest(shelf, &item, CP_SHELF_STOP_TAKE | CP_SHELF_LOOK_TAKE);
    else if (!(flags & ~(uint32_t)(CP_SHELF_LOOK_TAKE | CP_SHELF_LOOK_GIVE)) && cp_shelf_is(shelf, CP_TRAIT_ORDERED))
        (void)cp_rseq_take_oldest(shelf, &item, CP_SHELF_STOP_TAKE);
    return item && lease_taken(pool, item, lease);
}

/* A portable shelf whose lock is free; without calls but at its end. */
static inline __attribute__((always_inline)) bool take_portable(corepool_pool_t pool, struct cp_shelf *shelf,
                                                                corepool_lease_t *lease)
{
    struct cp_item *item;
    if (cp_unlikely(!cp_lock_try(&shelf->lock)))
        return false;
    enum cp_shelf_outcome outcome = cp_shelf_take_locked(shelf, CP_NEWEST, &item);
    bool wake = cp_lock_drop(&shelf->lock);
    if (cp_unlikely(wake))
        cp_lock_wake(&shelf->lock);
    return cp_likely(outcome == CP_SHELF_DONE) && lease_taken(pool, item, lease);
}

/* As the usual step, of a slice that the handle or the policy has chosen. */
static bool take_known(corepool_pool_t pool, const struct cp_shelf *shelf, corepool_lease_t *lease)
{
    struct corepool_layout_slot *slot;
    uint64_t stamp;
    bool taken = cp_take_known((const struct corepool_layout_pool *)(const void *)pool.impl, corepool_layout_handle(pool),
                               (const struct corepool_layout_shelf *)(const void *)shelf, cp_area, &slot, &stamp) ==
                 COREPOOL_LAYOUT_DONE;
    if (taken)
        corepool_layout_fill(lease, slot, stamp);
    return taken;
}

/* What keeps its shelf from the usual path may be of no concern to this side of it. */
static inline __attribute__((always_inline)) bool take_from(corepool_pool_t pool, struct cp_slice *slice,
                                                            corepool_lease_t *lease)
{
    struct cp_shelf *shelf = &slice->shelf;
    uint32_t flags = atomic_load_explicit(&shelf->flags, memory_order_relaxed);
    if (cp_unlikely(!(flags & CP_SHELF_PORTABLE)))
        return take_here(pool, shelf, flags, lease);
    return cp_likely(!(flags & CP_SHELF_LOOK_TAKE)) && take_portable(pool, shelf, lease);
}

/* --- from whichever slice it is ---------------------------------------------------------------------------------------- */

/* That of a bound handle, else NULL; of an open pool. */
static struct cp_slice *bound_slice(corepool_pool_t pool)
{
    const struct corepool_pool_impl *impl = pool.impl;
    return (uint32_t)pool.shard < impl->runtime->shards
               ? atomic_load_explicit(&impl->by_shard[pool.shard], memory_order_relaxed)
               : NULL;
}

/* That of the caller's CPU, of an open pool, where the table alone decides; else NULL. */
static inline struct cp_slice *slice_of_cpu(corepool_pool_t pool)
{
    if (!cp_thread_may_block() || !cp_pool_is_local(pool))
        return NULL;
    uint32_t cpu = cp_rseq_cpu();
    return cpu < atomic_load_explicit(&pool.impl->portable_cpus, memory_order_relaxed)
               ? atomic_load_explicit(&pool.impl->by_cpu[cpu], memory_order_relaxed)
               : NULL;
}

/* By a handle that is bound, or that the policy binds. */
__attribute__((noinline)) static int take_bound(corepool_pool_t *pool, const corepool_checkout_options_t *options,
                                                corepool_lease_t *lease)
{
    if (pool->shard == COREPOOL_SHARD_LOCAL) {
        int status = cp_checkout_choose(pool, options, cp_self);
        if (cp_unlikely(status != COREPOOL_OK)) {
            *lease = (corepool_lease_t){0};
            return status;
        }
    }
    struct cp_slice *slice = bound_slice(*pool);
    bool taken = slice && (take_known(*pool, &slice->shelf, lease) || take_from(*pool, slice, lease));
    return taken ? COREPOOL_OK : COREPOOL_EEMPTY;
}

/* The usual step found nothing. */
static inline __attribute__((always_inline)) int take_otherwise(corepool_pool_t *pool,
                                                                const corepool_checkout_options_t *options,
                                                                corepool_lease_t *lease)
{
    struct cp_slice *slice = slice_of_cpu(*pool);
    if (slice)
        return take_from(*pool, slice, lease) ? COREPOOL_OK : COREPOOL_EEMPTY;
    if (cp_self == &cp_nobody || !cp_pool_is_open(*pool))
        return COREPOOL_EEMPTY;
    return take_bound(pool, options, lease);
}

/* What is on top of the shelf is not idle, or was another thread's: as usual, but this thread's record is told. */
static enum corepool_layout_outcome take_deep(corepool_pool_t pool, corepool_lease_t *lease)
{
    struct corepool_layout_slot *slot;
    enum corepool_layout_outcome outcome =
        cp_take_deep((const struct corepool_layout_pool *)(const void *)pool.impl, corepool_layout_handle(pool),
                     COREPOOL_LAYOUT_CLIENT, &slot);
    if (cp_likely(outcome == COREPOOL_LAYOUT_DONE))
        cp_checkout_lease((cp_slot *)(void *)slot, cp_self, lease);
    return outcome;
}

int cp_checkout_at_once(corepool_pool_t *pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    enum corepool_layout_outcome outcome = corepool_layout_checkout(*pool, COREPOOL_LAYOUT_CLIENT, lease);
    if (outcome == COREPOOL_LAYOUT_DEEP)
        outcome = take_deep(*pool, lease);
    if (cp_likely(outcome == COREPOOL_LAYOUT_DONE))
        return COREPOOL_OK;
    if (outcome != COREPOOL_LAYOUT_RESTARTED)
        return take_otherwise(pool, options, lease);
    cp_rseq_aborted();
    return COREPOOL_EEMPTY;
}

/* --- public ------------------------------------------------------------------------------------------------------------ */

__attribute__((noinline)) static int checkout_restarted(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                                        corepool_lease_t *lease)
{
    cp_rseq_aborted();
    return cp_checkout_slowly(pool, options, lease);
}

/* A shard may not ask like this, even if it need not wait. */
__attribute__((noinline)) static int checkout_bound(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                                    corepool_lease_t *lease)
{
    int status = COREPOOL_EEMPTY;
    if (cp_thread_may_block() && cp_pool_is_open(pool))
        status = take_bound(&pool, options, lease);
    return status == COREPOOL_EEMPTY ? cp_checkout_slowly(pool, options, lease) : status;
}

/* Most often a portable shelf: without a frame of its own. */
__attribute__((noinline)) static int checkout_unusually(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                                        corepool_lease_t *lease)
{
    struct cp_slice *slice = slice_of_cpu(pool);
    if (cp_unlikely(!slice))
        return checkout_bound(pool, options, lease);
    return cp_likely(take_from(pool, slice, lease)) ? COREPOOL_OK : cp_checkout_slowly(pool, options, lease);
}

__attribute__((noinline)) static int checkout_deep(corepool_pool_t pool, const corepool_checkout_options_t *options,
                                                   corepool_lease_t *lease)
{
    enum corepool_layout_outcome outcome = take_deep(pool, lease);
    if (cp_likely(outcome == COREPOOL_LAYOUT_DONE))
        return COREPOOL_OK;
    return outcome == COREPOOL_LAYOUT_RESTARTED ? checkout_restarted(pool, options, lease)
                                                : checkout_unusually(pool, options, lease);
}

/* The usual case, an idle worker on the caller's CPU and a class without a checkout callback, is kept free of calls. */
cp_hot int corepool_checkout(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    if (cp_unlikely(!pool.impl))
        return cp_checkout_slowly(pool, options, lease);
    cp_apart();
    if (cp_unlikely(!lease) || (cp_unlikely(options != NULL) && cp_unlikely(options->timeout_ms < COREPOOL_INFINITE)))
        return cp_checkout_slowly(pool, options, lease);
    enum corepool_layout_outcome outcome = corepool_layout_checkout(pool, COREPOOL_LAYOUT_CLIENT, lease);
    if (cp_likely(outcome == COREPOOL_LAYOUT_DONE))
        return COREPOOL_OK;
    if (cp_unlikely(outcome == COREPOOL_LAYOUT_RESTARTED))
        return checkout_restarted(pool, options, lease);
    return outcome == COREPOOL_LAYOUT_DEEP ? checkout_deep(pool, options, lease) : checkout_unusually(pool, options, lease);
}
