/* front/keyed_set.c: opening and closing sets of keyed pools. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/condition.h"
#include "base/error.h"
#include "front/keyed.h"

/* --- open --- */

static int check_open(corepool_runtime_t *runtime, const corepool_keyed_options_t *options,
                      const corepool_pool_options_t *pool_options)
{
    if (options->max_pools > COREPOOL_KEYED_POOLS_MAX)
        return cp_fail(COREPOOL_EINVAL, "max_pools: %u: at most %u", options->max_pools,
                       COREPOOL_KEYED_POOLS_MAX);
    if (options->reap_after_ms < 0 || options->reap_after_ms > COREPOOL_KEYED_REAP_MAX_MS)
        return cp_fail(COREPOOL_EINVAL, "reap_after_ms: %lld: 0 (never) to a year",
                       (long long)options->reap_after_ms);
    return cp_pool_check_open(runtime, options->cls, options->size, pool_options);
}

static void free_impl(struct corepool_keyed_impl *impl)
{
    cp_keys_finish(&impl->keys);
    pthread_cond_destroy(&impl->made);
    pthread_mutex_destroy(&impl->lock);
    free(impl);
}

static int draw_seed(uint64_t seed[2])
{
    size_t bytes = 2 * sizeof seed[0];
    return getrandom(seed, bytes, 0) == (ssize_t)bytes
               ? COREPOOL_OK
               : cp_fail(COREPOOL_ESYSTEM, "getrandom: %s", strerror(errno));
}

static int create_impl(struct corepool_runtime *runtime, uint32_t max_pools, struct corepool_keyed_impl **out)
{
    struct corepool_keyed_impl *impl = aligned_alloc(CP_CACHE_LINE, sizeof *impl);
    if (!impl)
        return cp_fail(COREPOOL_ENOMEM, "no memory for keyed pools");
    *impl = (struct corepool_keyed_impl){.runtime = runtime, .max_pools = max_pools};
    cp_list_init(&impl->link);
    int status = draw_seed(impl->seed);
    if (status == COREPOOL_OK && !cp_keys_init(&impl->keys, max_pools))
        status = cp_fail(COREPOOL_ENOMEM, "no memory for %u keys", max_pools);
    if (status != COREPOOL_OK) {
        free(impl);
        return status;
    }
    pthread_mutex_init(&impl->lock, NULL); /* neither fails on Linux */
    pthread_cond_init(&impl->made, NULL);
    *out = impl;
    return COREPOOL_OK;
}

/* Under the runtime's lock: one that is gone and has room for just so many. */
static struct corepool_keyed_impl *find_spare(struct corepool_runtime *runtime, uint32_t max_pools)
{
    for (struct cp_list *at = runtime->keyed.next; at != &runtime->keyed; at = at->next) {
        struct corepool_keyed_impl *impl = cp_container(at, struct corepool_keyed_impl, link);
        if (impl->known == 0 && impl->max_pools == max_pools)
            return impl;
    }
    return NULL;
}

/* Under the lock: the timer of its last use may still come once, and does not count as one of this. */
static void describe(struct corepool_keyed_impl *impl, const corepool_keyed_options_t *options,
                     const corepool_pool_options_t *pool_options)
{
    impl->options = *options;
    impl->pool_options = *pool_options;
    snprintf(impl->name, sizeof impl->name, "%s", options->name ? options->name : options->cls->name);
    impl->options.pool = NULL; /* the caller's */
    impl->options.name = impl->pool_options.name = NULL;
    impl->opened = impl->reaped = 0;
    impl->armed = false;
}

/* Under the runtime's lock: a set that is known from now on, by the handles that it will have. */
static int take_impl(struct corepool_runtime *runtime, uint32_t max_pools, struct corepool_keyed_impl **out)
{
    if (runtime->state != CP_RUNNING)
        return cp_fail(COREPOOL_ECLOSED, "the runtime is stopping");
    struct corepool_keyed_impl *impl = find_spare(runtime, max_pools);
    int status = impl ? COREPOOL_OK : create_impl(runtime, max_pools, &impl);
    if (status != COREPOOL_OK)
        return status;
    if (cp_list_is_empty(&impl->link)) {
        cp_list_push_back(&runtime->keyed, &impl->link);
        impl->shard = &runtime->shard[runtime->keyed_made++ % runtime->shards]; /* timers are spread, too */
    }
    impl->known = atomic_load(&impl->generation) + 1;
    *out = impl;
    return COREPOOL_OK;
}

int corepool_keyed_open(corepool_runtime_t *runtime, const corepool_keyed_options_t *given,
                        corepool_keyed_t *keyed)
{
    static const corepool_pool_options_t lazy = {.flags = COREPOOL_POOL_LAZY};
    if (!keyed)
        return cp_fail(COREPOOL_EINVAL, "keyed: NULL");
    *keyed = (corepool_keyed_t){0};
    if (!given)
        return cp_fail(COREPOOL_EINVAL, "options: NULL: keyed pools need a class");
    corepool_keyed_options_t options = *given;
    const corepool_pool_options_t *pool_options = options.pool ? options.pool : &lazy;
    options.size = options.size ? options.size : COREPOOL_SIZE_DEFAULT;
    options.max_pools = options.max_pools ? options.max_pools : COREPOOL_KEYED_POOLS_DEFAULT;
    int status = check_open(runtime, &options, pool_options);
    if (status != COREPOOL_OK)
        return status;
    struct corepool_keyed_impl *impl = NULL;
    pthread_mutex_lock(&runtime->lock);
    status = take_impl(runtime, options.max_pools, &impl);
    pthread_mutex_unlock(&runtime->lock);
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&impl->lock);
    describe(impl, &options, pool_options);
    *keyed = (corepool_keyed_t){.impl = impl, .generation = atomic_fetch_add(&impl->generation, 1) + 1};
    pthread_mutex_unlock(&impl->lock);
    return COREPOOL_OK;
}

/* --- close --- */

/* Under the lock. Those that are being opened are closed by who opens them. */
static void begin_close(struct corepool_keyed_impl *impl)
{
    atomic_fetch_add(&impl->generation, 1);
    while (impl->order.least) {
        struct cp_key_entry *entry = cp_container(impl->order.least, struct cp_key_entry, order);
        cp_keyed_close_pool(impl, cp_key_pool(entry));
        cp_keyed_forget(impl, entry);
    }
}

/* Under the runtime's lock: in words what is left. */
static int report_left(const struct corepool_keyed_impl *impl)
{
    char text[160] = "";
    struct cp_list *pools = &impl->runtime->pools;
    for (struct cp_list *at = pools->next; at != pools && !*text; at = at->next) {
        struct corepool_pool_impl *pool = cp_container(at, struct corepool_pool_impl, link);
        if (pool->owner.context == impl)
            cp_pool_describe_leases(pool, text, sizeof text);
    }
    return cp_fail(COREPOOL_EBUSY, "still in use: %u keyed pools of %s: %s", impl->left, impl->name, text);
}

/* Under the runtime's lock. */
static int wait_until_gone(corepool_keyed_t keyed, int64_t timeout_ms)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    if (impl->known != keyed.generation)
        return cp_keyed_closed();
    while (impl->known == keyed.generation && impl->left) {
        bool late = !cp_condition_wait(&impl->runtime->changed, &impl->runtime->lock, deadline);
        if (late && impl->known == keyed.generation && impl->left)
            return report_left(impl);
    }
    if (impl->known == keyed.generation) /* else another closer was first */
        impl->known = 0;
    return COREPOOL_OK;
}

int corepool_keyed_close(corepool_keyed_t keyed, int64_t timeout_ms)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    int status = cp_check_control("corepool_keyed_close");
    if (status == COREPOOL_OK && !impl)
        status = cp_fail(COREPOOL_EINVAL, "keyed: the zero value is no set of pools");
    if (status == COREPOOL_OK)
        status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&impl->lock);
    if (cp_keyed_is_open(keyed))
        begin_close(impl);
    pthread_mutex_unlock(&impl->lock);
    pthread_mutex_lock(&impl->runtime->lock);
    status = wait_until_gone(keyed, timeout_ms);
    pthread_mutex_unlock(&impl->runtime->lock);
    return status;
}

void cp_keyed_free(struct corepool_runtime *runtime)
{
    while (!cp_list_is_empty(&runtime->keyed)) {
        struct corepool_keyed_impl *impl = cp_container(runtime->keyed.next, struct corepool_keyed_impl, link);
        cp_list_unlink(&impl->link);
        free_impl(impl);
    }
}

int corepool_keyed_stats(corepool_keyed_t keyed, corepool_keyed_counts_t *stats)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    if (!impl || !stats)
        return cp_fail(COREPOOL_EINVAL, impl ? "stats: NULL" : "keyed: the zero value is no set of pools");
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    pthread_mutex_lock(&impl->lock);
    int status = cp_keyed_is_open(keyed) ? COREPOOL_OK : cp_keyed_closed();
    if (status == COREPOOL_OK)
        *stats =
            (corepool_keyed_counts_t){.pools = impl->keys.used, .opened = impl->opened, .reaped = impl->reaped};
    pthread_mutex_unlock(&impl->lock);
    return status;
}
