/* front/pool.c: opening and closing pools, and looking inside.
 *
 * A pool is a table of slices; the slices belong to their shards and are made, opened and released there. Opening is all or
 * nothing. Closing begins with the generation: from then on no checkout succeeds, and no slice's block is used
 * again before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/condition.h"
#include "base/error.h"
#include "front/policy.h"
#include "front/watchdog.h"
#include "machine/cpus.h"
#include "machine/probe.h"
#include "shard/visit.h"

int cp_pool_check_handle(corepool_pool_t pool)
{
    if (!pool.impl)
        return cp_fail(COREPOOL_EINVAL, "pool: the zero value is no pool");
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    if (pool.shard < COREPOOL_SHARD_LOCAL || (pool.shard >= 0 && (unsigned)pool.shard >= pool.impl->runtime->shards))
        return cp_fail(COREPOOL_EINVAL, "pool.shard: %d is no shard", (int)pool.shard);
    return COREPOOL_OK;
}

/* --- quotas --------------------------------------------------------------------------------------------------------- */

/* With at least one for each: even shares, the first take the remainder. With fewer: as many as there are get one each, spread
 * evenly. The sum is `size`. */
uint32_t cp_pool_quota_of(unsigned rank, unsigned of, unsigned size)
{
    if (size >= of)
        return size / of + (rank < size % of);
    return (uint64_t)(rank + 1) * size / of - (uint64_t)rank * size / of;
}

/* --- open ------------------------------------------------------------------------------------------------------------- */

static void on_slice_finished(struct cp_slice *slice, void *context);
static void on_stop_wanted(struct cp_slice *slice, void *context, corepool_reason_t reason);
static struct cp_slice *find_sibling(void *context, unsigned shard, uint64_t *epoch);

struct opening {
    struct cp_slice *slice;
    struct cp_slice_config config;
};

static int open_on_shard(struct corepool_shard *shard, void *arg)
{
    struct opening *opening = arg;
    opening->slice = cp_slice_create(shard, opening->config.core.quota);
    if (!opening->slice)
        return cp_fail(COREPOOL_ENOMEM, "no memory for %u workers on shard %u", opening->config.core.quota, shard->index);
    int status = cp_slice_open(opening->slice, &opening->config);
    if (status != COREPOOL_OK) {
        cp_watchdog_pass(shard->runtime);
        cp_slice_release(opening->slice);
        opening->slice = NULL;
    }
    return status;
}

static int close_on_shard(struct corepool_shard *shard, void *arg)
{
    (void)shard;
    cp_slice_close(arg, COREPOOL_REASON_STOP);
    return COREPOOL_OK;
}

/* The memory behind a handle: a spare one, or new. */
static struct corepool_pool_impl *take_impl(struct corepool_runtime *runtime)
{
    struct corepool_pool_impl *impl = NULL;
    pthread_mutex_lock(&runtime->lock);
    if (!cp_list_is_empty(&runtime->spare_pools)) {
        impl = cp_container(runtime->spare_pools.next, struct corepool_pool_impl, link);
        cp_list_unlink(&impl->link);
    }
    pthread_mutex_unlock(&runtime->lock);
    if (impl)
        return impl;
    /* All that there may be, also where the topology is not the machine's: the usual path looks up whichever CPU it is on. */
    uint32_t cpus = corepool_topology_possible_cpus(runtime->topology);
    if (cpus < cp_cpus_of_kernel())
        cpus = cp_cpus_of_kernel();
    size_t bytes = offsetof(struct corepool_pool_impl, by_cpu) + cpus * sizeof impl->by_cpu[0] +
                   runtime->shards * (sizeof impl->by_shard[0] + sizeof impl->own[0] + sizeof impl->homes[0]);
    impl = aligned_alloc(CP_CACHE_LINE, (bytes + CP_CACHE_LINE - 1) & ~(size_t)(CP_CACHE_LINE - 1));
    if (!impl)
        return NULL;
    memset(impl, 0, bytes);
    cp_list_init(&impl->link);
    impl->runtime = runtime;
    impl->possible_cpus = cpus;
    impl->nowhere = &cp_no_shelf;
    impl->is_cpu_known = cp_probe_cpu();
    impl->local = COREPOOL_SHARD_LOCAL;
    impl->by_shard = impl->by_cpu + cpus;
    impl->own = (struct cp_slice **)(void *)(impl->by_shard + runtime->shards);
    impl->homes = (_Atomic uint32_t *)(void *)(impl->own + runtime->shards);
    return impl;
}

static void give_impl(struct corepool_pool_impl *impl)
{
    pthread_mutex_lock(&impl->runtime->lock);
    cp_list_push_back(&impl->runtime->spare_pools, &impl->link);
    pthread_mutex_unlock(&impl->runtime->lock);
}

/* Which slices there are to be, and for each shard where its callers' is. */
static void plan_slices(struct corepool_pool_impl *impl, unsigned size, unsigned *of_shard)
{
    struct corepool_runtime *runtime = impl->runtime;
    unsigned slices = 1;
    if (atomic_load(&impl->policy) == COREPOOL_POLICY_SINGLE)
        memset(of_shard, 0, runtime->shards * sizeof *of_shard);
    else
        slices = corepool_topology_slices(runtime->topology, size, of_shard);
    atomic_store(&impl->slices, slices);
    for (unsigned i = 0, rank = 0; i < runtime->shards; i++)
        if (of_shard[i] == i)
            atomic_store(&impl->homes[rank++], i);
}

/* Whether callers from several CPUs come to this shard's slice. */
static bool is_portable(const struct corepool_pool_impl *impl, const struct corepool_shard *shard)
{
    const struct corepool_runtime *runtime = impl->runtime;
    uint32_t policy = atomic_load(&impl->policy);
    return runtime->shelf == COREPOOL_SHELF_PORTABLE || atomic_load(&impl->slices) < runtime->shards ||
           !cp_policy_is_local(policy) || !shard->single_cpu || !shard->pinned;
}

/* Fills `own`, at the slices' homes. */
static int open_slices(struct corepool_pool_impl *impl, const struct cp_slice_config *base, unsigned size)
{
    struct corepool_runtime *runtime = impl->runtime;
    unsigned slices = atomic_load(&impl->slices);
    for (unsigned rank = 0; rank < slices; rank++) {
        unsigned home = atomic_load(&impl->homes[rank]);
        struct opening opening = {.config = *base};
        opening.config.core.quota = cp_pool_quota_of(rank, slices, size);
        opening.config.core.most = size;
        opening.config.core.steals = base->core.steals && slices > 1;
        opening.config.core.warm = cp_pool_quota_of(rank, slices, base->core.warm);
        opening.config.core.seed = (uint64_t)cp_now_ns() + home * UINT64_C(0x9E3779B97F4A7C15);
        opening.config.portable = is_portable(impl, &runtime->shard[home]);
        opening.config.shared = slices < runtime->shards;
        if (!opening.config.portable)
            impl->cpus = impl->possible_cpus;
        int status = cp_shard_call(&runtime->shard[home], open_on_shard, &opening);
        if (status != COREPOOL_OK)
            return status;
        pthread_mutex_lock(&runtime->lock);
        impl->own[home] = opening.slice;
        impl->slices_left++;
        pthread_mutex_unlock(&runtime->lock);
    }
    return COREPOOL_OK;
}

/* Fills the tables that callers look up. Their entries are never taken back, only replaced when the pool is another. */
static void fill_tables(struct corepool_pool_impl *impl, const unsigned *of_shard)
{
    struct corepool_runtime *runtime = impl->runtime;
    for (unsigned i = 0; i < runtime->shards; i++)
        atomic_store(&impl->by_shard[i], impl->own[of_shard[i]]);
    for (uint32_t cpu = 0; cpu < impl->possible_cpus; cpu++)
        atomic_store(&impl->by_cpu[cpu],
                     atomic_load(&impl->by_shard[corepool_topology_shard_of(runtime->topology, cpu)]));
}

static void undo_open(struct corepool_pool_impl *impl)
{
    struct corepool_runtime *runtime = impl->runtime;
    char detail[256];
    snprintf(detail, sizeof detail, "%s", corepool_error_detail());
    for (unsigned i = 0; i < runtime->shards; i++) /* nobody else knows of them */
        if (impl->own[i])
            cp_shard_call(&runtime->shard[i], close_on_shard, impl->own[i]);
    pthread_mutex_lock(&runtime->lock);
    while (impl->slices_left)
        cp_condition_wait(&runtime->changed, &runtime->lock, CP_NEVER);
    pthread_mutex_unlock(&runtime->lock);
    cp_fail(COREPOOL_EOPEN, "%s", detail); /* the words again, for the caller; it has the code */
}

static void describe(struct cp_slice_config *base, struct corepool_pool_impl *impl, const corepool_class_t *cls, void *arg,
                     const corepool_pool_options_t *options)
{
    snprintf(impl->name, sizeof impl->name, "%s", options->name ? options->name : cls->name);
    impl->cls = cls;
    impl->stop_early = COREPOOL_REASON_NONE;
    impl->flags = options->flags;
    atomic_store(&impl->draining, 0);
    atomic_store(&impl->max_waiting, options->max_waiting);
    impl->cpus = 0; /* until a slice has an rseq shelf */
    cp_policy_set(impl, options);
    cp_pool_configure(base, cls, arg, options, impl->name, impl->runtime->shards);
    base->finished = on_slice_finished;
    base->changed = cp_pool_changed;
    base->stop = on_stop_wanted;
    base->sibling = find_sibling;
    base->context = impl;
}

/* Under the lock: the pool is known from here on, unless the runtime is stopping. */
static int publish(struct corepool_pool_impl *impl, corepool_pool_t *pool)
{
    struct corepool_runtime *runtime = impl->runtime;
    int status = COREPOOL_OK;
    pthread_mutex_lock(&runtime->lock);
    if (runtime->state != CP_RUNNING) {
        status = cp_fail(COREPOOL_ECLOSED, "the runtime is stopping");
    } else {
        cp_list_push_back(&runtime->pools, &impl->link);
        uint32_t generation = atomic_fetch_add(&impl->generation, 1) + 1;
        impl->known = generation;
        *pool = (corepool_pool_t){.impl = impl, .generation = generation, .shard = COREPOOL_SHARD_LOCAL};
        if (impl->stop_early != COREPOOL_REASON_NONE)
            cp_pool_begin_close(impl, impl->stop_early);
    }
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

/* While a call is under way the runtime does not stop under it. */
static int begin_open(corepool_runtime_t *runtime)
{
    pthread_mutex_lock(&runtime->lock);
    bool running = runtime->state == CP_RUNNING;
    runtime->calls += running;
    pthread_mutex_unlock(&runtime->lock);
    return running ? COREPOOL_OK : cp_fail(COREPOOL_ECLOSED, "the runtime is stopping");
}

static void end_open(corepool_runtime_t *runtime)
{
    pthread_mutex_lock(&runtime->lock);
    runtime->calls--;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->lock);
}

static int open_pool(struct corepool_pool_impl *impl, const struct cp_slice_config *base, unsigned size,
                     corepool_pool_t *pool)
{
    unsigned *of_shard = calloc(impl->runtime->shards, sizeof *of_shard);
    if (!of_shard) {
        give_impl(impl);
        return cp_fail(COREPOOL_ENOMEM, "no memory to open a pool");
    }
    impl->size = size;
    plan_slices(impl, size, of_shard);
    int status = open_slices(impl, base, size);
    if (status == COREPOOL_OK) {
        fill_tables(impl, of_shard);
        status = publish(impl, pool);
    }
    if (status != COREPOOL_OK) {
        undo_open(impl);
        give_impl(impl);
    }
    free(of_shard);
    return status;
}

int cp_pool_open(corepool_runtime_t *runtime, const corepool_class_t *cls, void *arg, unsigned size,
                 const corepool_pool_options_t *options, struct cp_pool_owner owner, corepool_pool_t *pool)
{
    struct cp_slice_config base;
    int status = begin_open(runtime);
    if (status != COREPOOL_OK)
        return status;
    struct corepool_pool_impl *impl = take_impl(runtime);
    if (impl) {
        describe(&base, impl, cls, arg, options);
        impl->owner = owner;
        status = open_pool(impl, &base, options->flags & COREPOOL_POOL_PER_SHARD ? size * runtime->shards : size, pool);
    } else {
        status = cp_fail(COREPOOL_ENOMEM, "no memory for a pool");
    }
    end_open(runtime);
    return status;
}

int corepool_pool_open(corepool_runtime_t *runtime, const corepool_class_t *cls, void *arg, unsigned size,
                       const corepool_pool_options_t *options, corepool_pool_t *pool)
{
    static const corepool_pool_options_t defaults;
    if (!pool)
        return cp_fail(COREPOOL_EINVAL, "pool: NULL");
    *pool = (corepool_pool_t){0};
    options = options ? options : &defaults;
    int status = cp_pool_check_open(runtime, cls, size, options);
    return status == COREPOOL_OK ? cp_pool_open(runtime, cls, arg, size, options, (struct cp_pool_owner){0}, pool) : status;
}

/* --- close -------------------------------------------------------------------------------------------------------------- */

/* On the slice's shard. The last one ends the pool. */
static void on_slice_finished(struct cp_slice *slice, void *context)
{
    struct corepool_pool_impl *impl = context;
    struct corepool_runtime *runtime = impl->runtime;
    struct cp_pool_owner owner = {0};
    void *arg = slice->config.arg;
    cp_watchdog_pass(runtime);
    pthread_mutex_lock(&runtime->lock);
    impl->own[slice->shard->index] = NULL;
    cp_slice_release(slice);
    if (--impl->slices_left == 0) {
        impl->known = 0;
        if (!cp_list_is_empty(&impl->link)) { /* it had been published */
            owner = impl->owner;
            cp_list_unlink(&impl->link);
            cp_list_push_back(&runtime->spare_pools, &impl->link);
        }
        pthread_cond_broadcast(&runtime->changed);
    }
    pthread_mutex_unlock(&runtime->lock);
    if (owner.gone) /* the runtime joins this thread before it is destroyed */
        owner.gone(owner.context, arg);
}

/* Under the lock it has not finished, or its epoch says so: then it is no other pool's. All are there once the pool is known. */
static struct cp_slice *find_sibling(void *context, unsigned shard, uint64_t *epoch)
{
    struct corepool_pool_impl *impl = context;
    pthread_mutex_lock(&impl->runtime->lock);
    struct cp_slice *slice = impl->known ? impl->own[shard] : NULL;
    *epoch = slice ? atomic_load(&slice->epoch) : 0;
    pthread_mutex_unlock(&impl->runtime->lock);
    return *epoch ? slice : NULL;
}

static void deliver_close(struct cp_message *message)
{
    struct cp_slice *slice = cp_container(message, struct cp_slice, close_message);
    const struct corepool_pool_impl *impl = slice->config.context;
    cp_slice_close(slice, (corepool_reason_t)atomic_load(&impl->close_reason));
}

static void close_slice(struct cp_slice *slice, void *arg)
{
    (void)arg;
    slice->close_message.deliver = deliver_close;
    cp_shard_send(slice->shard, &slice->close_message); /* the shard runs as long as it has a slice */
}

void cp_pool_each_slice(struct corepool_pool_impl *impl, void (*fn)(struct cp_slice *, void *), void *arg)
{
    for (unsigned i = 0; i < impl->runtime->shards; i++)
        if (impl->own[i])
            fn(impl->own[i], arg);
}

void cp_pool_each_slice_of(corepool_pool_t pool, void (*fn)(struct cp_slice *, void *), void *arg)
{
    if (pool.shard < 0) {
        cp_pool_each_slice(pool.impl, fn, arg);
        return;
    }
    struct cp_slice *slice = atomic_load(&pool.impl->by_shard[pool.shard]);
    if (pool.impl->own[slice->shard->index] == slice) /* else it has finished */
        fn(slice, arg);
}

void cp_pool_begin_close(struct corepool_pool_impl *impl, corepool_reason_t reason)
{
    uint32_t generation = atomic_load(&impl->generation);
    if (generation % 2 == 0)
        return;
    atomic_store(&impl->close_reason, reason);
    atomic_store(&impl->generation, generation + 1);
    cp_pool_each_slice(impl, close_slice, NULL);
    pthread_cond_broadcast(&impl->runtime->changed); /* who waits for the pool waits no longer */
}

int cp_pool_closed(corepool_pool_t pool)
{
    corepool_reason_t reason = (corepool_reason_t)atomic_load(&pool.impl->close_reason);
    if (atomic_load(&pool.impl->generation) != pool.generation + 1 || reason == COREPOOL_REASON_STOP)
        return cp_fail(COREPOOL_ECLOSED, "the pool is closed");
    return cp_fail(COREPOOL_ECLOSED, "the pool is closed: reason %u: %s", (unsigned)reason, corepool_reason_text(reason));
}

/* From a ping, on any of its shards: the first closes the pool, or has it closed as soon as it is open. */
static void on_stop_wanted(struct cp_slice *slice, void *context, corepool_reason_t reason)
{
    struct corepool_pool_impl *impl = context;
    (void)slice;
    pthread_mutex_lock(&impl->runtime->lock);
    if (impl->known)
        cp_pool_begin_close(impl, reason);
    else if (impl->stop_early == COREPOOL_REASON_NONE)
        impl->stop_early = (uint8_t)reason;
    pthread_mutex_unlock(&impl->runtime->lock);
}

int corepool_pool_close(corepool_pool_t pool, int64_t timeout_ms)
{
    int status = cp_check_control("corepool_pool_close");
    if (status == COREPOOL_OK)
        status = cp_pool_check_handle(pool);
    if (status == COREPOOL_OK)
        status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status != COREPOOL_OK)
        return status;
    struct corepool_pool_impl *impl = pool.impl;
    struct corepool_runtime *runtime = impl->runtime;
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    char text[200] = "";
    pthread_mutex_lock(&runtime->lock);
    if (!cp_pool_is_known(pool))
        status = cp_fail(COREPOOL_ECLOSED, "the pool is closed");
    else if (cp_pool_is_open(pool))
        cp_pool_begin_close(impl, COREPOOL_REASON_STOP);
    while (status == COREPOOL_OK && cp_pool_is_known(pool)) {
        if (!cp_condition_wait(&runtime->changed, &runtime->lock, deadline) && cp_pool_is_known(pool)) {
            cp_pool_describe_leases(impl, text, sizeof text);
            status = cp_fail(COREPOOL_EBUSY, "still in use: %s", text);
        }
    }
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

/* --- calls to the slices ------------------------------------------------------------------------------------------------- */

struct slice_call {
    struct cp_slice *slice;
    uint64_t epoch; /* as it was when the slice was this pool's */
    int (*fn)(struct cp_slice *, void *);
    void *arg;
};

static int call_slice(struct corepool_shard *shard, void *arg)
{
    const struct slice_call *call = arg;
    cp_shard_enter(shard);
    if (atomic_load(&call->slice->epoch) != call->epoch) /* it has finished meanwhile */
        return COREPOOL_OK;
    return call->fn(call->slice, call->arg);
}

struct slice_calls {
    struct slice_call *call;
    unsigned count;
};

static void note_slice(struct cp_slice *slice, void *arg)
{
    struct slice_calls *calls = arg;
    calls->call[calls->count].slice = slice;
    calls->call[calls->count++].epoch = atomic_load(&slice->epoch);
}

/* Under the lock only as long as it takes to note them: the shards may want it. */
static int note_slices(corepool_pool_t pool, struct slice_calls *calls)
{
    struct corepool_runtime *runtime = pool.impl->runtime;
    pthread_mutex_lock(&runtime->lock);
    bool open = cp_pool_is_open(pool);
    if (open)
        cp_pool_each_slice_of(pool, note_slice, calls);
    pthread_mutex_unlock(&runtime->lock);
    return open ? COREPOOL_OK : cp_fail(COREPOOL_ECLOSED, "the pool is closed");
}

/* A shard cannot wait for another: that one might wait for it. */
static int check_caller(const struct slice_calls *calls)
{
    const struct corepool_shard *self = corepool_shard_current();
    for (unsigned i = 0; self && i < calls->count; i++)
        if (calls->call[i].slice->shard != self)
            return cp_fail(COREPOOL_EDEADLK, "on a shard's thread, only for that shard: see corepool_pool_at");
    return COREPOOL_OK;
}

static int call_noted(const struct slice_calls *calls, int (*fn)(struct cp_slice *, void *), void *arg)
{
    int status = check_caller(calls);
    for (unsigned i = 0; status >= 0 && i < calls->count; i++) {
        struct slice_call *call = &calls->call[i];
        call->fn = fn;
        call->arg = arg;
        status = corepool_shard_current() ? call_slice(call->slice->shard, call)
                                          : cp_shard_call(call->slice->shard, call_slice, call);
    }
    return status;
}

int cp_pool_call_slices(corepool_pool_t pool, int (*fn)(struct cp_slice *, void *), void *arg)
{
    int status = cp_pool_check_handle(pool);
    if (status == COREPOOL_OK)
        status = cp_check_waits("corepool_pool_info");
    if (status != COREPOOL_OK)
        return status;
    struct slice_calls calls = {.call = calloc(pool.impl->runtime->shards, sizeof *calls.call)};
    if (!calls.call)
        return cp_fail(COREPOOL_ENOMEM, "no memory to call the shards");
    status = note_slices(pool, &calls);
    if (status == COREPOOL_OK)
        status = call_noted(&calls, fn, arg);
    free(calls.call);
    return status;
}

int corepool_pool_info(corepool_pool_t pool, void *message)
{
    return cp_pool_call_slices(pool, cp_slice_tell_idle, message);
}

corepool_pool_t corepool_pool_at(corepool_pool_t pool, unsigned shard)
{
    if (!pool.impl || shard >= pool.impl->runtime->shards)
        return (corepool_pool_t){0};
    pool.shard = (int32_t)shard;
    return pool;
}
