/* bench/command/subject.c: opens, checks and closes. */
#include "subject.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "fail.h"

/* For opening the workers, which do nothing at all. */
#define OPEN_TIMEOUT_NS INT64_C(60000000000)

/* Once per slice. */
static int note_slice(void *arg, corepool_shard_t *shard, void **pool_state)
{
    struct subject *subject = arg;
    subject->has_slice[corepool_shard_index(shard)] = true;
    *pool_state = subject;
    return COREPOOL_OK;
}

static int open_resource(corepool_worker_t *worker, void *pool_state, void **resource)
{
    struct subject *subject = pool_state;
    struct peer_resource *made = aligned_alloc(_Alignof(struct peer_resource), sizeof *made);
    (void)worker;
    if (made == NULL)
        return COREPOOL_ENOMEM;
    *made = (struct peer_resource){0};
    atomic_fetch_add(&subject->opened, 1);
    *resource = made;
    return COREPOOL_OK;
}

static int close_resource(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    struct subject *subject = pool_state;
    const struct peer_resource *made = resource;
    (void)worker, (void)reason;
    atomic_fetch_add(&subject->touched, made->touched);
    free(resource);
    return COREPOOL_OK;
}

static const corepool_class_t resource_class = {
    .name = "resource",
    .flags = COREPOOL_CLASS_MOVABLE,
    .pool_init = note_slice,
    .init = open_resource,
    .terminate = close_resource,
};

static void await_idle(const struct subject *subject, unsigned size)
{
    corepool_stats_t stats;
    for (int64_t end = clock_ns() + OPEN_TIMEOUT_NS;;) {
        REQUIRE_OK(corepool_pool_stats(subject->pool, &stats));
        if (stats.idle == size)
            return;
        REQUIRE(clock_ns() < end, "of %u workers only %llu opened", size, (unsigned long long)stats.idle);
        sleep_until(clock_ns() + 1000000);
    }
}

static void open_pool(struct subject *subject, const struct options *options, const struct cell *cell)
{
    const corepool_runtime_options_t runtime_options = {.shelf = options->shelf,
                                                        .synthetic = options->synthetic};
    const corepool_pool_options_t pool_options = {.flags = cell->contender->pool_flags,
                                                  .policy = cell->contender->policy};
    REQUIRE_OK(corepool_runtime_start(&runtime_options, &subject->runtime));
    subject->shards = corepool_runtime_shards(subject->runtime);
    subject->has_slice = calloc(subject->shards, sizeof *subject->has_slice);
    REQUIRE(subject->has_slice != NULL, "out of memory");
    REQUIRE_OK(corepool_pool_open(subject->runtime, &resource_class, subject, cell->size, &pool_options,
                                  &subject->pool));
    await_idle(subject, cell->size);
}

bool subject_open(struct subject *subject, const struct options *options, const struct cell *cell,
                  const char **why)
{
    *subject = (struct subject){.peer = cell->contender->peer};
    if (subject->peer != NULL)
        return subject->peer->open(cell->size, cell->threads, why);
    open_pool(subject, options, cell);
    return true;
}

void subject_count(const struct subject *subject, uint64_t *checkouts)
{
    corepool_stats_t stats;
    for (unsigned shard = 0; shard < subject->shards; shard++)
        if (subject->has_slice[shard]) {
            REQUIRE_OK(corepool_pool_stats(corepool_pool_at(subject->pool, shard), &stats));
            checkouts[shard] = stats.checkouts;
        }
}

/* What was given back on another CPU is on its way until that shard has collected it. */
static void await_return(const struct subject *subject, corepool_stats_t *stats)
{
    int64_t end = clock_ns() + OPEN_TIMEOUT_NS;
    do
        REQUIRE_OK(corepool_pool_stats(subject->pool, stats));
    while (stats->leased > 0 && clock_ns() < end);
}

static corepool_stats_t close_pool(struct subject *subject, uint64_t pairs)
{
    corepool_stats_t stats;
    await_return(subject, &stats);
    REQUIRE(stats.leased == 0 && stats.waiting == 0, "%llu workers did not come back, %llu requests wait",
            (unsigned long long)stats.leased, (unsigned long long)stats.waiting);
    REQUIRE(stats.checkouts == pairs, "%llu pairs run, %llu checkouts counted by the pool",
            (unsigned long long)pairs, (unsigned long long)stats.checkouts);
    REQUIRE_OK(corepool_runtime_audit(subject->runtime));
    REQUIRE_OK(corepool_runtime_stop(subject->runtime, COREPOOL_INFINITE));
    REQUIRE_OK(corepool_runtime_destroy(subject->runtime));
    return stats;
}

corepool_stats_t subject_close(struct subject *subject, uint64_t pairs)
{
    corepool_stats_t stats = {0};
    uint64_t touched;
    if (subject->peer != NULL) {
        touched = subject->peer->close();
    } else {
        stats = close_pool(subject, pairs);
        touched = atomic_load(&subject->touched);
    }
    REQUIRE(touched == pairs, "%llu pairs run, resources touched %llu times", (unsigned long long)pairs,
            (unsigned long long)touched);
    return stats;
}
