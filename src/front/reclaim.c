/* front/reclaim.c: whose lease it is: another thread may adopt it; what a thread leaves behind when it ends is reclaimed
 * with reason DOWN, and its requests are forgotten.
 *
 * A thread remembers which workers it has taken, as long as they are few: these are looked at when it ends. Else all slots of all
 * pools are: a thread that lives long enough to take many does not often end. */
#include "base/error.h"
#include "front/runtime.h"
#include "shard/lease.h"

int corepool_adopt(const corepool_lease_t *lease)
{
    int code;
    if (!lease)
        return cp_fail(COREPOOL_EINVAL, "lease: NULL");
    struct cp_thread *self = cp_thread_self(&code);
    if (!self)
        return code;
    cp_slot *slot = lease->worker;
    if (!slot || cp_slot_stamp(slot) != lease->generation)
        return cp_fail(COREPOOL_ESTALE, "the lease was ended before, or never filled by a checkout");
    char *mine = atomic_load_explicit(&self->area, memory_order_relaxed);
    char *holder = atomic_load_explicit(&slot->holder, memory_order_relaxed);
    if (holder == mine)
        return COREPOOL_OK;
    /* The lease may be ended at the same time through a copy, and the slot be another's: then nothing has happened. */
    if (!atomic_compare_exchange_strong(&slot->holder, &holder, mine))
        return cp_fail(COREPOOL_ESTALE, "the lease has just been ended or adopted by another thread");
    if (cp_slot_stamp(slot) != lease->generation) {
        atomic_compare_exchange_strong(&slot->holder, &mine, holder);
        return cp_fail(COREPOOL_ESTALE, "the lease has just been ended by another thread");
    }
    cp_thread_note(self, slot);
    return COREPOOL_OK;
}

static void reclaim_lease(struct cp_slice *slice, cp_slot *slot, const char *area)
{
    uint64_t stamp = atomic_load_explicit(&slot->item.stamp, memory_order_acquire); /* pairs with cp_slot_set_stamp */
    if (cp_stamp_tag(stamp) != CP_TAG_LEASED ||
        atomic_load_explicit(&slot->holder, memory_order_relaxed) != area)
        return;
    /* If the stamp is still the one read, the holder read belongs to it. */
    uint64_t removed = cp_stamp_passed(stamp, CP_TAG_REMOVED);
    if (!cp_shelf_claim(&slice->shelf, &slot->item, stamp, removed))
        return;
    atomic_store_explicit(&slot->reason, COREPOOL_REASON_DOWN, memory_order_relaxed);
    atomic_fetch_add_explicit(&slice->reclaimed, 1, memory_order_relaxed);
    cp_lease_count_hold(slot, stamp);
    cp_slice_return(slot, true);
}

/* A later thread with the same area is to be told of the worker again. */
static void reclaim_slot(struct cp_slice *slice, cp_slot *slot, char *area)
{
    reclaim_lease(slice, slot, area);
    if (atomic_load_explicit(&slot->holder, memory_order_relaxed) == area)
        atomic_compare_exchange_strong(&slot->holder, &area, NULL);
}

static void reclaim_slice(struct cp_slice *slice, void *area)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        reclaim_slot(slice, slot, area);
}

static void reclaim_seen(struct cp_thread *thread)
{
    for (unsigned i = 0; i < CP_THREAD_SEEN && thread->seen[i]; i++)
        reclaim_slot(thread->seen[i]->slice, thread->seen[i], atomic_load(&thread->area));
}

static void reclaim_runtime(struct corepool_runtime *runtime, void *context)
{
    struct cp_thread *thread = context;
    if (cp_thread_remembers(thread)) {
        reclaim_seen(thread); /* of whichever runtimes: a second time there is nothing left to do */
        return;
    }
    pthread_mutex_lock(&runtime->lock);
    for (struct cp_list *at = runtime->pools.next; at != &runtime->pools; at = at->next)
        cp_pool_each_slice(cp_container(at, struct corepool_pool_impl, link), reclaim_slice,
                           atomic_load(&thread->area));
    pthread_mutex_unlock(&runtime->lock);
}

static void on_thread_exit(struct cp_thread *thread)
{
    cp_async_thread_ended(thread);
    if (thread->seen[0])
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
