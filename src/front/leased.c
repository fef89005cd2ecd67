/* front/leased.c: what is done with a leased worker on its own shard, for the one who has it: corepool_update brings a message to
 * its class, corepool_detach takes it out of the pool. Thread: any but another shard.
 *
 * All that ends workers happens on that shard's thread, so one that is leased when it is looked at there lives until the look is
 * over. */
#include <corepool/operate.h>

#include "base/error.h"
#include "core/verdict.h"
#include "front/checkout.h"
#include "shard/lease.h"

static int stale(void)
{
    return cp_fail(COREPOOL_ESTALE, "the lease was ended before: checked in, or reclaimed");
}

static bool is_stale(const corepool_lease_t *lease)
{
    return atomic_load_explicit(&lease->worker->item.stamp, memory_order_acquire) != lease->generation;
}

/* Runs fn(shard, arg) on the worker's shard: here, if the caller is that. */
static int call_home(const corepool_lease_t *lease, const char *what, int (*fn)(struct corepool_shard *, void *), void *arg)
{
    struct corepool_shard *shard = lease->worker->slice->shard;
    if (cp_on_shard(shard))
        return fn(shard, arg);
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "%s: called on another shard's thread than the worker's", what);
    int status = cp_check_waits(what);
    if (status == COREPOOL_OK)
        status = cp_shard_call(shard, fn, arg);
    return status == COREPOOL_ECLOSED ? stale() : status; /* a shard that has stopped has no worker */
}

/* --- update ---------------------------------------------------------------------------------------------------------- */

struct update {
    const corepool_lease_t *lease;
    void *message;
};

static int update_on_shard(struct corepool_shard *shard, void *arg)
{
    const struct update *update = arg;
    cp_slot *slot = update->lease->worker;
    struct cp_slice *slice = slot->slice;
    const corepool_class_t *cls = slice->cls;
    if (is_stale(update->lease))
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
    if (lease && cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    int status = cp_lease_check(lease);
    return status == COREPOOL_OK ? call_home(lease, "corepool_update", update_on_shard, &update) : status;
}

/* --- detach ---------------------------------------------------------------------------------------------------------- */

struct detach {
    const corepool_lease_t *lease;
    void *resource;
};

static int detach_on_shard(struct corepool_shard *shard, void *arg)
{
    struct detach *detach = arg;
    cp_slot *slot = detach->lease->worker;
    cp_shard_enter(shard);
    if (is_stale(detach->lease))
        return stale();
    const corepool_class_t *cls = slot->slice->cls;
    if (cls->terminate && !cls->detach)
        return cp_fail(COREPOOL_ENOTSUP, "class %s has no detach callback", cls->name);
    int status = cp_slice_detach(slot, detach->lease->generation, &detach->resource);
    if (status == COREPOOL_OK)
        cp_lease_count_hold(slot, detach->lease->generation);
    return status == COREPOOL_ESTALE ? stale() : status;
}

int corepool_detach(corepool_lease_t *lease, void **resource)
{
    struct detach detach = {.lease = lease};
    int status = cp_lease_check(lease), code;
    if (resource)
        *resource = NULL;
    else if (lease)
        return cp_fail(COREPOOL_EINVAL, "resource: NULL");
    if (status != COREPOOL_OK)
        return status;
    if (!cp_thread_self(&code))
        return code;
    status = call_home(lease, "corepool_detach", detach_on_shard, &detach);
    if (status != COREPOOL_OK)
        return status;
    *resource = detach.resource;
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}
