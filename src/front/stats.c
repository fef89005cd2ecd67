/* front/stats.c: statistics, and the names of what happens. Reads counters, stops nobody.
 *
 * What L1 adds up is read as of one moment: of each slice (cp_core_snapshot), and of a pool's slices together, as nothing
 * had moved between them when they had all been read. Leased and idle slots are told apart by stamps, which callers swap
 * meanwhile, so only their sum is exact. */
#include <sched.h>

#include "base/error.h"
#include "front/runtime.h"

/* A manager in the midst of a change is done within nanoseconds, unless it is preempted there: then it gets the CPU. */
#define TRIES_BEFORE_YIELD 64

const char *corepool_event_text(corepool_event_kind_t kind)
{
    switch (kind) {
#define EVENT_TEXT(name, text) \
    case COREPOOL_EVENT_##name: return text;
        COREPOOL_EVENT_TABLE(EVENT_TEXT)
#undef EVENT_TEXT
    }
    return "unknown event";
}

/* --- times --------------------------------------------------------------------------------------------------------- */

struct times {
    uint64_t counts[CP_HISTOGRAM_BUCKETS];
    uint64_t highest;
};

static void add_times(struct times *sum, _Atomic(struct cp_histogram *) *from)
{
    /* Acquire: pairs with the store of the histogram when it was made. */
    uint64_t highest = cp_histogram_sum(atomic_load_explicit(from, memory_order_acquire), sum->counts);
    sum->highest = highest > sum->highest ? highest : sum->highest;
}

/* A bucket's limit may lie above all that was seen. */
static uint64_t quantile(const struct times *sum, uint64_t zeros, double part)
{
    uint64_t limit = cp_histogram_quantile(sum->counts, zeros, part);
    return limit < sum->highest ? limit : sum->highest;
}

static corepool_times_t describe(const struct times *sum, uint64_t zeros)
{
    uint64_t count = zeros;
    for (unsigned i = 0; i < CP_HISTOGRAM_BUCKETS; i++)
        count += sum->counts[i];
    return (corepool_times_t){.count = count,
                              .p50_us = quantile(sum, zeros, 0.50),
                              .p90_us = quantile(sum, zeros, 0.90),
                              .p99_us = quantile(sum, zeros, 0.99),
                              .p999_us = quantile(sum, zeros, 0.999),
                              .p9999_us = quantile(sum, zeros, 0.9999),
                              .max_us = sum->highest};
}

/* --- sums ---------------------------------------------------------------------------------------------------------- */

struct sum {
    corepool_stats_t stats;
    struct times waits, opens, holds;
};

static struct cp_core_counts counts_of(const struct cp_core *core)
{
    struct cp_core_counts counts;
    for (unsigned tries = 1; !cp_core_snapshot(core, &counts); tries++)
        if (tries % TRIES_BEFORE_YIELD == 0)
            sched_yield();
    return counts;
}

/* L1: the groups of slots, and what moves them from one to the other. Live ones count as idle, so far. */
static void add_slots(struct cp_slice *slice, void *sum)
{
    corepool_stats_t *stats = sum;
    struct cp_core_counts counts = counts_of(&slice->core);
    stats->quota += counts.quota;
    stats->vacant += counts.vacant;
    stats->opening += counts.opening;
    stats->idle += counts.live;
    stats->closing += counts.closing;
    stats->opens += counts.opens;
    stats->open_failures += counts.open_failures;
    stats->terminated += counts.terminated;
    stats->stolen += counts.stolen;
    stats->given += counts.given;
}

static void add_moves(struct cp_slice *slice, void *sum)
{
    struct cp_core_counts counts = counts_of(&slice->core);
    *(uint64_t *)sum += counts.stolen + counts.given;
}

static void add_leased(struct cp_slice *slice, void *sum)
{
    *(uint64_t *)sum += cp_slice_leased(slice);
}

/* Moves only ever become more: if there were none in between, what was read of each slice was so at that moment. The slots'
 * stamps are looked at afterwards: they may be very many, and moves would always come in between. */
static void read_slots(corepool_pool_t pool, corepool_stats_t *stats)
{
    uint64_t moves, leased = 0;
    do {
        *stats = (corepool_stats_t){0};
        cp_pool_each_slice_of(pool, add_slots, stats);
        moves = 0;
        cp_pool_each_slice_of(pool, add_moves, &moves);
    } while (moves != stats->stolen + stats->given);
    cp_pool_each_slice_of(pool, add_leased, &leased);
    stats->leased = leased < stats->idle ? leased : stats->idle;
    stats->idle -= stats->leased;
    if (pool.shard < 0)
        stats->moving = stats->given - stats->stolen;
}

bool cp_pool_is_whole(struct corepool_pool_impl *impl, bool shrinks)
{
    corepool_stats_t stats;
    read_slots((corepool_pool_t){.impl = impl, .shard = COREPOOL_SHARD_LOCAL}, &stats);
    return stats.quota + stats.moving == impl->size || (shrinks && stats.quota + stats.moving > impl->size);
}

static void add_requests(corepool_stats_t *stats, const struct cp_slice *slice)
{
    uint64_t grants = atomic_load(&slice->core.grants), leases = cp_slice_leases(slice);
    stats->waiting += atomic_load(&slice->core.waiting);
    stats->checkouts += leases;
    stats->grants += grants;
    stats->shelf_hits += leases > grants ? leases - grants : 0;
    stats->timeouts += atomic_load(&slice->core.timeouts);
    stats->cancels += atomic_load(&slice->core.cancels);
    stats->skips += atomic_load(&slice->skips);
    stats->asks += atomic_load(&slice->core.asks);
    stats->sheds += atomic_load(&slice->core.sheds) + atomic_load(&slice->refused);
}

static void add_ends(corepool_stats_t *stats, const struct cp_slice *slice)
{
    for (unsigned i = 0; i < COREPOOL_REASONS; i++)
        stats->removed[i] += atomic_load(&slice->ended[i]);
    stats->removed[COREPOOL_REASON_USER] += atomic_load(&slice->ended[COREPOOL_REASONS]);
    stats->reclaimed += atomic_load(&slice->reclaimed);
    stats->overdue += atomic_load(&slice->overdue);
}

static void add_shelf(corepool_stats_t *stats, const struct cp_slice *slice)
{
    stats->slices++;
    stats->portable += (atomic_load_explicit(&slice->shelf.flags, memory_order_relaxed) & CP_SHELF_PORTABLE) != 0;
}

static void add_slice(struct cp_slice *slice, void *arg)
{
    struct sum *sum = arg;
    add_requests(&sum->stats, slice);
    add_ends(&sum->stats, slice);
    add_shelf(&sum->stats, slice);
    add_times(&sum->waits, &slice->core.waits);
    add_times(&sum->opens, &slice->opens);
    add_times(&sum->holds, &slice->holds);
}

int corepool_pool_stats(corepool_pool_t pool, corepool_stats_t *stats)
{
    struct sum sum = {0};
    int status = cp_pool_check_handle(pool);
    if (status == COREPOOL_OK && !stats)
        status = cp_fail(COREPOOL_EINVAL, "stats: NULL");
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&pool.impl->runtime->lock);
    if (!cp_pool_is_known(pool)) {
        status = cp_fail(COREPOOL_ECLOSED, "the pool is closed");
    } else {
        read_slots(pool, &sum.stats);
        cp_pool_each_slice_of(pool, add_slice, &sum);
    }
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    if (status != COREPOOL_OK)
        return status;
    sum.stats.wait = describe(&sum.waits, sum.stats.shelf_hits);
    sum.stats.open = describe(&sum.opens, 0);
    sum.stats.hold = describe(&sum.holds, 0);
    *stats = sum.stats;
    return COREPOOL_OK;
}
