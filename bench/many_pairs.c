/* bench/many_pairs.c: whether a checkout and checkin cost the same however many pools and workers there are.
 *
 * One pinned thread, on a runtime of one shard. It walks over the pools in an order drawn at random, a pair in each; over
 * the workers of one pool in two ways: by FIFO, and by having all of them out at once and giving them back in such an
 * order. A walk over much memory is slow by itself, as what it touches leaves the caches. So each step also times the floor:
 * the same walk over plain memory of as many lines, as far apart, written where a pair writes. What a pair takes above its
 * floor is the pool's doing.
 *
 * Figures are CPU time, medians over the rounds; every pair must have been a shelf hit. */
#include "many.h"

#include <string.h>

#include "bench.h"

#define STEPS_MAX 8
/* Of one timing at least; a walk is repeated until there are so many. */
#define PAIRS 200000

/* --- orders --- */

static uint64_t seed = 1;

/* xorshift64*: the same order in every run. */
static uint64_t draw(uint64_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (seed * UINT64_C(0x2545F4914F6CDD1D) >> 32) % below;
}

static uint32_t *draw_order(unsigned count)
{
    uint32_t *order = calloc(count, sizeof *order);
    BENCH_REQUIRE(order, "no memory for an order of %u", count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)draw(i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    return order;
}

static unsigned walks(unsigned count)
{
    return (PAIRS + count - 1) / count;
}

/* --- the floor of pools: what a pair touches of one --- */

struct line {
    void *next;
    uint64_t written;
} __attribute__((aligned(64)));

/* Two lines are read to find the slice. */
struct floor_pool {
    struct line head;
    struct line unread;
    struct line table;
};

/* Three are read, one to find the next, and written: shelf, ring and slot, in a block of two KiB. */
struct floor_slice {
    struct line shelf;
    struct line unread[20];
    struct line slot;
    struct line unread_too[2];
    struct line ring;
    struct line rest[7];
};

struct floor_pools {
    struct floor_pool **order;
    struct floor_pool *pools;
    struct floor_slice *slices;
};

static struct floor_pools open_floor(unsigned count)
{
    struct floor_pools floor = {calloc(count, sizeof *floor.order), aligned_alloc(64, count * sizeof *floor.pools),
                                aligned_alloc(64, count * sizeof *floor.slices)};
    uint32_t *order = draw_order(count);
    BENCH_REQUIRE(floor.order && floor.pools && floor.slices, "no memory for a floor");
    memset(floor.pools, 0, count * sizeof *floor.pools);
    memset(floor.slices, 0, count * sizeof *floor.slices);
    for (unsigned i = 0; i < count; i++) {
        struct floor_slice *slice = &floor.slices[i];
        floor.order[i] = &floor.pools[order[i]];
        floor.pools[i].table.next = slice;
        slice->shelf.next = &slice->ring;
        slice->ring.next = &slice->slot;
    }
    free(order);
    return floor;
}

static void close_floor(struct floor_pools *floor)
{
    free(floor->order);
    free(floor->pools);
    free(floor->slices);
}

static double time_floor(const struct floor_pools *floor, unsigned count)
{
    unsigned times = walks(count);
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++)
        for (unsigned i = 0; i < count; i++) {
            struct floor_pool *pool = floor->order[i];
            BENCH_REQUIRE(pool->head.written == 0, "a floor was written");
            struct line *shelf = pool->table.next, *ring = shelf->next, *slot = ring->next;
            shelf->written++;
            ring->written++;
            slot->written++;
        }
    int64_t ns = bench_cpu_ns() - begin;
    for (unsigned i = 0; i < count; i++)
        BENCH_REQUIRE(floor->slices[i].slot.written % times == 0, "the floor was not walked as it should be");
    return (double)ns / ((double)times * count);
}

/* --- pools --- */

struct step {
    unsigned count;
    double pair[MANY_ROUNDS_MAX], floor[MANY_ROUNDS_MAX];
    double all_out[MANY_ROUNDS_MAX], all_out_floor[MANY_ROUNDS_MAX]; /* workers only */
};

static corepool_runtime_t *runtime;

static void pair(corepool_pool_t pool)
{
    corepool_lease_t lease;
    many_require(corepool_checkout(pool, NULL, &lease), "checkout");
    many_require(corepool_checkin(&lease), "checkin");
}

static uint64_t wait_until_open(corepool_pool_t pool)
{
    corepool_stats_t stats;
    const struct timespec moment = {.tv_nsec = 100000};
    for (;;) {
        many_require(corepool_pool_stats(pool, &stats), "stats");
        if (stats.idle == stats.quota)
            return stats.shelf_hits;
        nanosleep(&moment, NULL);
    }
}

static corepool_pool_t open_pool(unsigned workers, unsigned flags)
{
    const corepool_pool_options_t options = {.flags = flags};
    corepool_pool_t pool;
    many_require(corepool_pool_open(runtime, &many_class, NULL, workers, &options, &pool), "open");
    wait_until_open(pool);
    return pool;
}

static corepool_pool_t *open_pools(unsigned count)
{
    corepool_pool_t *pools = calloc(count, sizeof *pools);
    uint32_t *order = draw_order(count);
    BENCH_REQUIRE(pools, "no memory for %u pools", count);
    for (unsigned i = 0; i < count; i++)
        pools[order[i]] = open_pool(1, 0);
    free(order);
    return pools;
}

static void close_pools(corepool_pool_t *pools, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        many_require(corepool_pool_close(pools[i], COREPOOL_INFINITE), "close");
    free(pools);
}

static double time_pools(const corepool_pool_t *pools, unsigned count)
{
    unsigned times = walks(count);
    uint64_t hits = 0;
    for (unsigned i = 0; i < count; i++)
        hits -= wait_until_open(pools[i]);
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++)
        for (unsigned i = 0; i < count; i++)
            pair(pools[i]);
    int64_t ns = bench_cpu_ns() - begin;
    for (unsigned i = 0; i < count; i++)
        hits += wait_until_open(pools[i]);
    BENCH_REQUIRE(hits == (uint64_t)times * count, "%llu shelf hits of %llu pairs", (unsigned long long)hits,
                  (unsigned long long)times * count);
    return (double)ns / ((double)times * count);
}

static void measure_pools(struct step *step, unsigned rounds)
{
    corepool_pool_t *pools = open_pools(step->count);
    struct floor_pools floor = open_floor(step->count);
    for (unsigned round = 0; round < rounds; round++) {
        step->pair[round] = time_pools(pools, step->count);
        step->floor[round] = time_floor(&floor, step->count);
    }
    close_floor(&floor);
    close_pools(pools, step->count);
}

/* --- workers --- */

/* As far apart as slots. */
struct floor_slot {
    struct line line, rest[2];
};

struct floor_slots {
    struct floor_slot *slots, **order;
};

static struct floor_slots open_slots(unsigned count)
{
    struct floor_slots floor = {aligned_alloc(64, count * sizeof *floor.slots), calloc(count, sizeof *floor.order)};
    uint32_t *order = draw_order(count);
    BENCH_REQUIRE(floor.slots && floor.order, "no memory for a floor");
    memset(floor.slots, 0, count * sizeof *floor.slots);
    for (unsigned i = 0; i < count; i++)
        floor.order[i] = &floor.slots[order[i]];
    free(order);
    return floor;
}

static void close_slots(struct floor_slots *floor)
{
    free(floor->slots);
    free(floor->order);
}

/* passes: over all of them, for one pair each. */
static double time_slots(const struct floor_slots *floor, unsigned count, unsigned passes)
{
    unsigned times = walks(count);
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times * passes; n++)
        for (unsigned i = 0; i < count; i++) {
            floor->order[i]->line.written++;
            __asm__ volatile("" ::: "memory");
        }
    return (double)(bench_cpu_ns() - begin) / ((double)times * count);
}

static void take_all(corepool_pool_t pool, corepool_lease_t *leases, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        many_require(corepool_checkout(pool, NULL, &leases[i]), "checkout");
}

static void give_all(corepool_lease_t *leases, const uint32_t *order, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        many_require(corepool_checkin(&leases[order[i]]), "checkin");
}

static double time_fifo(corepool_pool_t pool, unsigned count)
{
    unsigned times = walks(count);
    uint64_t hits = wait_until_open(pool);
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times * count; n++)
        pair(pool);
    int64_t ns = bench_cpu_ns() - begin;
    BENCH_REQUIRE(wait_until_open(pool) - hits == times * count, "not every pair was a shelf hit");
    return (double)ns / ((double)times * count);
}

static double time_all_out(corepool_pool_t pool, corepool_lease_t *leases, const uint32_t *order, unsigned count)
{
    unsigned times = walks(count);
    uint64_t hits = wait_until_open(pool);
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++) {
        take_all(pool, leases, count);
        give_all(leases, order, count);
    }
    int64_t ns = bench_cpu_ns() - begin;
    BENCH_REQUIRE(wait_until_open(pool) - hits == times * count, "not every pair was a shelf hit");
    return (double)ns / ((double)times * count);
}

static void measure_workers(struct step *step, unsigned rounds)
{
    corepool_pool_t fifo = open_pool(step->count, COREPOOL_POOL_FIFO), lifo = open_pool(step->count, 0);
    corepool_lease_t *leases = calloc(step->count, sizeof *leases);
    uint32_t *order = draw_order(step->count);
    struct floor_slots floor = open_slots(step->count);
    BENCH_REQUIRE(leases, "no memory for %u leases", step->count);
    take_all(fifo, leases, step->count); /* from here on its shelf has that order */
    give_all(leases, order, step->count);
    for (unsigned round = 0; round < rounds; round++) {
        step->pair[round] = time_fifo(fifo, step->count);
        step->floor[round] = time_slots(&floor, step->count, 1);
        step->all_out[round] = time_all_out(lifo, leases, order, step->count);
        step->all_out_floor[round] = time_slots(&floor, step->count, 2);
    }
    close_slots(&floor);
    free(order);
    free(leases);
    many_require(corepool_pool_close(fifo, COREPOOL_INFINITE), "close");
    many_require(corepool_pool_close(lifo, COREPOOL_INFINITE), "close");
}

/* --- tables --- */

/* least, ten times that …, most. */
static unsigned lay_steps(struct step *steps, unsigned least, unsigned most)
{
    unsigned count = 0;
    for (uint64_t size = least; size <= most && count < STEPS_MAX; size *= 10)
        steps[count++].count = (unsigned)size;
    return count;
}

static void print_column(double *pair, double *floor, unsigned rounds, double first)
{
    double ns = bench_median(pair, rounds), memory = bench_median(floor, rounds);
    printf(" %9.1f %9.1f %9.1f %7.2f", ns, memory, ns - memory, (ns - memory) / first);
}

/* A pair's ns above its floor. */
static double above(double *pair, double *floor, unsigned rounds)
{
    return bench_median(pair, rounds) - bench_median(floor, rounds);
}

void many_print_pairs(unsigned pools, unsigned rounds)
{
    static struct step steps[STEPS_MAX];
    char cpu[16];
    snprintf(cpu, sizeof cpu, "%d", bench_usable_cpu(0));
    many_require(corepool_runtime_start(&(corepool_runtime_options_t){.cpus = cpu}, &runtime), "start");
    bench_pin(bench_usable_cpu(0));
    unsigned count = lay_steps(steps, 1, pools);
    for (unsigned i = 0; i < count; i++)
        measure_pools(&steps[i], rounds);
    printf("  one thread; ns of CPU of a pair, of its floor in plain memory, and above it\n");
    printf("  %8s %9s %9s %9s %7s\n", "pools", "pair", "floor", "above", "to 1");
    for (unsigned i = 0; i < count; i++) {
        printf("  %8u", steps[i].count);
        print_column(steps[i].pair, steps[i].floor, rounds, above(steps[0].pair, steps[0].floor, rounds));
        printf("\n");
    }
    count = lay_steps(steps, 10, 10 * pools < COREPOOL_SIZE_MAX ? 10 * pools : COREPOOL_SIZE_MAX);
    for (unsigned i = 0; i < count; i++)
        measure_workers(&steps[i], rounds);
    printf("  %8s %9s %9s %9s %7s %9s %9s %9s %7s\n", "workers", "FIFO", "floor", "above", "to 10", "all out", "floor",
           "above", "to 10");
    for (unsigned i = 0; i < count; i++) {
        printf("  %8u", steps[i].count);
        print_column(steps[i].pair, steps[i].floor, rounds, above(steps[0].pair, steps[0].floor, rounds));
        print_column(steps[i].all_out, steps[i].all_out_floor, rounds,
                     above(steps[0].all_out, steps[0].all_out_floor, rounds));
        printf("\n");
    }
    many_require(corepool_runtime_audit(runtime), "audit");
    many_require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    many_require(corepool_runtime_destroy(runtime), "destroy");
}
