/* front/look.c: looking into pools that run: leases that are out. Reads stamps, stops nobody. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "front/runtime.h"
#include "shard/lease.h"

/* --- leases ------------------------------------------------------------------------------------------------------- */

struct visit {
    void (*fn)(const corepool_lease_info_t *, void *);
    void *arg;
    int leases;
};

static void visit_slot(const cp_slot *slot, struct visit *visit)
{
    corepool_lease_info_t info;
    if (!cp_lease_describe(slot, cp_now_ns(), &info))
        return;
    visit->leases++;
    visit->fn(&info, visit->arg);
}

static void visit_slice(struct cp_slice *slice, void *arg)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        visit_slot(slot, arg);
}

int corepool_pool_leases(corepool_pool_t pool, void (*fn)(const corepool_lease_info_t *, void *), void *arg)
{
    int status = cp_pool_check_handle(pool);
    if (status == COREPOOL_OK && !fn)
        status = cp_fail(COREPOOL_EINVAL, "fn: NULL");
    if (status != COREPOOL_OK)
        return status;
    struct visit visit = {.fn = fn, .arg = arg};
    pthread_mutex_lock(&pool.impl->runtime->lock);
    if (!cp_pool_is_known(pool))
        status = cp_fail(COREPOOL_ECLOSED, "the pool is closed");
    else
        cp_pool_each_slice_of(pool, visit_slice, &visit);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return status < 0 ? status : visit.leases;
}

struct words {
    char *text;
    size_t bytes;
    unsigned leases;
};

/* So many are named; the rest is counted. */
#define NAMED_LEASES 3

static void put_lease(const corepool_lease_info_t *info, void *arg)
{
    struct words *words = arg;
    size_t length = strlen(words->text);
    if (words->leases++ < NAMED_LEASES)
        snprintf(words->text + length, words->bytes - length, "%s worker %u of shard %u by thread %lld (%s)",
                 words->leases > 1 ? "," : " leased:", info->worker, info->shard, (long long)info->thread_id,
                 info->thread_name);
}

struct unfinished {
    uint64_t opening, closing;
};

static void count_unfinished(struct cp_slice *slice, void *arg)
{
    struct unfinished *sum = arg;
    sum->opening += atomic_load(&slice->core.opening);
    sum->closing += atomic_load(&slice->core.closing);
}

void cp_pool_describe_leases(struct corepool_pool_impl *impl, char *text, size_t bytes)
{
    if (bytes < 2)
        return;
    struct words words = {.text = text, .bytes = bytes};
    struct visit visit = {.fn = put_lease, .arg = &words};
    struct unfinished sum = {0};
    snprintf(text, bytes, "pool %s", impl->name);
    cp_pool_each_slice(impl, visit_slice, &visit);
    cp_pool_each_slice(impl, count_unfinished, &sum);
    size_t length = strlen(text);
    snprintf(text + length, bytes - length, " (%d leased, %llu opening, %llu terminating) ", visit.leases,
             (unsigned long long)sum.opening, (unsigned long long)sum.closing);
}
