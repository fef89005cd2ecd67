/* front/reclaim.c: what a thread leaves behind when it ends: leases are reclaimed with reason DOWN, requests forgotten.
 *
 * Leases are counted per thread and not listed; a thread that did not end all of its own has all slots of all pools
 * looked through when it ends. That costs nothing for a thread that does. */
#include "front/runtime.h"

static void reclaim_slot(struct cp_slice *slice, cp_slot *slot, struct cp_thread *thread)
{
    uint64_t stamp = atomic_load_explicit(&slot->item.stamp, memory_order_acquire); /* pairs with cp_slot_set_stamp */
    if (cp_stamp_tag(stamp) != CP_TAG_LEASED ||
        atomic_load_explicit(&slot->holder, memory_order_relaxed) != thread)
        return;
    /* If the stamp is still the one read, the holder read belongs to it. */
    uint64_t removed = cp_stamp_passed(stamp, CP_TAG_REMOVED);
    if (!cp_shelf_claim(&slice->shelf, &slot->item, stamp, removed))
        return;
    atomic_store_explicit(&slot->reason, COREPOOL_REASON_DOWN, memory_order_relaxed);
    atomic_fetch_add_explicit(&slice->reclaimed, 1, memory_order_relaxed);
    cp_slice_return(slot, true);
}

static void reclaim_slice(struct cp_slice *slice, void *thread)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        reclaim_slot(slice, slot, thread);
}

static void reclaim_runtime(struct corepool_runtime *runtime, void *thread)
{
    pthread_mutex_lock(&runtime->lock);
    for (struct cp_list *at = runtime->pools.next; at != &runtime->pools; at = at->next)
        cp_pool_each_slice(cp_container(at, struct corepool_pool_impl, link), reclaim_slice, thread);
    pthread_mutex_unlock(&runtime->lock);
}

static void on_thread_exit(struct cp_thread *thread)
{
    cp_async_thread_ended(thread);
    if (thread->taken != thread->ended)
        cp_each_runtime(reclaim_runtime, thread);
    while (!cp_list_is_empty(&thread->requests)) {
        struct cp_request *request = cp_container(thread->requests.next, struct cp_request, owner_link);
        cp_list_unlink(&request->owner_link);
        cp_request_disown(request);
    }
}

void cp_reclaim_install(void)
{
    cp_thread_on_exit(on_thread_exit);
}
