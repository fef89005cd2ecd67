/* front/update.c: corepool_update: brings a message to the worker's own shard, where its class may change it. Thread:
 * any but another shard. */
#include "base/error.h"
#include "core/verdict.h"
#include "front/runtime.h"

struct update {
    const corepool_lease_t *lease;
    void *message;
};

static int stale(void)
{
    return cp_fail(COREPOOL_ESTALE, "the lease was ended before: checked in, or reclaimed");
}

/* All that ends workers happens on this thread, so one that is leased now lives until this returns. */
static int update_on_shard(struct corepool_shard *shard, void *arg)
{
    const struct update *update = arg;
    cp_slot *slot = update->lease->worker;
    struct cp_slice *slice = slot->slice;
    const corepool_class_t *cls = slice->cls;
    if (atomic_load_explicit(&slot->item.stamp, memory_order_acquire) != update->lease->generation)
        return stale();
    if (!cls->update)
        return cp_fail(COREPOOL_ENOTSUP, "class %s has no update callback", cls->name);
    CP_MARKED(shard, slice, CP_CALLS_UPDATE);
    int verdict = cls->update(slot, slice->pool_state, atomic_load(&slot->resource), update->message);
    uint32_t reason = cp_verdict(verdict, COREPOOL_REASON_UPDATE);
    if (reason & CP_VERDICT_NONSENSE)
        cp_slice_warn(slice, slot, verdict, "update returned a value that means nothing, which counts as COREPOOL_REMOVE");
    if (reason != COREPOOL_REASON_NONE)
        corepool_worker_evict(slot, (uint8_t)reason);
    return COREPOOL_OK;
}

int corepool_update(const corepool_lease_t *lease, void *message)
{
    struct update update = {.lease = lease, .message = message};
    if (!lease)
        return cp_fail(COREPOOL_EINVAL, "lease: NULL");
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    if (!lease->worker)
        return cp_fail(COREPOOL_ESTALE, "the lease is zero: ended before, or never filled by a checkout");
    struct corepool_shard *shard = lease->worker->slice->shard;
    if (cp_on_shard(shard))
        return update_on_shard(shard, &update);
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "corepool_update: called on another shard's thread than the worker's");
    int status = cp_check_waits("corepool_update");
    if (status == COREPOOL_OK)
        status = cp_shard_call(shard, update_on_shard, &update);
    return status == COREPOOL_ECLOSED ? stale() : status; /* a shard that has stopped has no worker */
}
