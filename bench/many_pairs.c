/* bench/many_pairs.c: whether a checkout and checkin cost the same however many pools and workers there are.
 *
 * One pinned thread, on a runtime of one shard. It walks over the pools in an order drawn at random, a pair in each; over
 * the workers of one pool in two ways: by FIFO, and by having all of them out at once and giving them back in such an
 * order. Each pair writes to its resource, which is a line of its own. A walk over much memory is slow by itself, as what it
 * touches leaves the caches. So each step also times the floor: the same walk, written to the same lines of as many resources,
 * over free lists that do nothing else: one line for a list's head, one for an object that knows its resource, the pointers
 * to idle objects side by side. How many floors a pair takes tells what of it is the pool's doing. Where there are many pools
 * one of them is also used alone, and where there are many workers the one that was given back last, as is usual: that the
 * others exist must cost nothing.
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

/* --- resources --- */

/* One line each: what the workers of a walk are for. */
struct resource {
    uint64_t touched;
} __attribute__((aligned(64)));

static struct resource *resources;
static unsigned given, of;

static void lay_resources(unsigned count)
{
    resources = aligned_alloc(64, count * sizeof *resources);
    BENCH_REQUIRE(resources, "no memory for %u resources", count);
    memset(resources, 0, count * sizeof *resources);
    given = 0;
    of = count;
}

static struct resource *next_resource(void)
{
    BENCH_REQUIRE(given < of, "more than %u resources are wanted", of);
    return &resources[given++];
}

static uint64_t count_touched(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < of; i++)
        sum += resources[i].touched;
    return sum;
}

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)pool_state;
    *resource = next_resource();
    return COREPOOL_OK;
}

static const corepool_class_t touched_class = {.name = "touched", .init = init};

/* --- the floor: free lists --- */

struct object {
    struct resource *resource;
    uint64_t written; /* as a worker's stamp is, by both sides */
} __attribute__((aligned(64)));

struct list {
    struct object *top;
} __attribute__((aligned(64)));

struct floor {
    struct list *lists, **order;
    struct object *objects, **idle, **out;
};

static struct floor open_floor(unsigned count)
{
    struct floor floor = {aligned_alloc(64, count * sizeof *floor.lists), calloc(count, sizeof *floor.order),
                          aligned_alloc(64, count * sizeof *floor.objects), calloc(count, sizeof *floor.idle),
                          calloc(count, sizeof *floor.out)};
    uint32_t *order = draw_order(count);
    BENCH_REQUIRE(floor.lists && floor.order && floor.objects && floor.idle && floor.out, "no memory for a floor");
    for (unsigned i = 0; i < count; i++) {
        floor.objects[i] = (struct object){.resource = &resources[i]};
        floor.lists[i].top = &floor.objects[i];
        floor.order[i] = &floor.lists[order[i]];
        floor.idle[i] = &floor.objects[order[i]];
    }
    free(order);
    return floor;
}

static void close_floor(struct floor *floor)
{
    free(floor->lists);
    free(floor->order);
    free(floor->objects);
    free(floor->idle);
    free(floor->out);
}

/* Not inline in a loop that the compiler knows more of than a program that uses a pool. */
__attribute__((noinline)) static struct object *pop(struct list *list)
{
    struct object *object = list->top;
    list->top = NULL;
    object->written++;
    return object;
}

__attribute__((noinline)) static void push(struct list *list, struct object *object)
{
    object->written++;
    list->top = object;
}

static double time_lists(const struct floor *floor, unsigned count)
{
    unsigned times = walks(count);
    uint64_t touched = count_touched();
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++)
        for (unsigned i = 0; i < count; i++) {
            struct object *object = pop(floor->order[i]);
            object->resource->touched++;
            push(floor->order[i], object);
        }
    int64_t ns = bench_cpu_ns() - begin;
    BENCH_REQUIRE(count_touched() - touched == (uint64_t)times * count, "the floor was not walked as it should be");
    return (double)ns / ((double)times * count);
}

/* The oldest of one list is always the next of `idle`, where it comes back to. */
static double time_floor_fifo(const struct floor *floor, unsigned count)
{
    unsigned times = walks(count);
    struct list list = {NULL};
    uint64_t touched = count_touched();
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++)
        for (unsigned i = 0; i < count; i++) {
            list.top = floor->idle[i];
            struct object *object = pop(&list);
            object->resource->touched++;
            push(&list, object);
            floor->idle[i] = list.top;
        }
    int64_t ns = bench_cpu_ns() - begin;
    BENCH_REQUIRE(count_touched() - touched == (uint64_t)times * count, "the floor was not walked as it should be");
    return (double)ns / ((double)times * count);
}

/* As pairs do: from the end of `idle` one after the other, then back in another order. */
static double time_floor_all_out(struct floor *floor, const uint32_t *order, unsigned count)
{
    unsigned times = walks(count);
    struct list list = {NULL};
    uint64_t touched = count_touched();
    int64_t begin = bench_cpu_ns();
    for (unsigned n = 0; n < times; n++) {
        for (unsigned i = 0; i < count; i++) {
            list.top = floor->idle[count - 1 - i];
            floor->out[i] = pop(&list);
            floor->out[i]->resource->touched++;
        }
        for (unsigned i = 0; i < count; i++) {
            push(&list, floor->out[order[i]]);
            floor->idle[i] = list.top;
        }
    }
    int64_t ns = bench_cpu_ns() - begin;
    BENCH_REQUIRE(count_touched() - touched == (uint64_t)times * count, "the floor was not walked as it should be");
    return (double)ns / ((double)times * count);
}

/* --- pools --- */

struct step {
    unsigned count;
    double pair[MANY_ROUNDS_MAX], floor[MANY_ROUNDS_MAX];
    double one[MANY_ROUNDS_MAX];                                     /* one pool, or one worker, is used */
    double all_out[MANY_ROUNDS_MAX], all_out_floor[MANY_ROUNDS_MAX]; /* workers only */
};

static corepool_runtime_t *runtime;

static void pair(corepool_pool_t pool)
{
    corepool_lease_t lease;
    many_require(corepool_checkout(pool, NULL, &lease), "checkout");
    ((struct resource *)lease.resource)->touched++;
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
    many_require(corepool_pool_open(runtime, &touched_class, NULL, workers, &options, &pool), "open");
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
    lay_resources(step->count);
    corepool_pool_t *pools = open_pools(step->count);
    struct floor floor = open_floor(step->count);
    for (unsigned round = 0; round < rounds; round++) {
        step->pair[round] = time_pools(pools, step->count);
        step->floor[round] = time_lists(&floor, step->count);
        step->one[round] = time_pools(pools, 1);
    }
    close_floor(&floor);
    close_pools(pools, step->count);
    free(resources);
}

/* --- workers --- */

static void take_all(corepool_pool_t pool, corepool_lease_t *leases, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        many_require(corepool_checkout(pool, NULL, &leases[i]), "checkout");
        ((struct resource *)leases[i].resource)->touched++;
    }
}

static void give_all(corepool_lease_t *leases, const uint32_t *order, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        many_require(corepool_checkin(&leases[order[i]]), "checkin");
}

static double time_pairs(corepool_pool_t pool, unsigned count)
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
    lay_resources(2 * step->count);
    corepool_pool_t fifo = open_pool(step->count, COREPOOL_POOL_FIFO), lifo = open_pool(step->count, 0);
    corepool_lease_t *leases = calloc(step->count, sizeof *leases);
    uint32_t *order = draw_order(step->count);
    struct floor floor = open_floor(step->count);
    BENCH_REQUIRE(leases, "no memory for %u leases", step->count);
    take_all(fifo, leases, step->count); /* from here on its shelf has that order */
    give_all(leases, order, step->count);
    for (unsigned round = 0; round < rounds; round++) {
        step->one[round] = time_pairs(lifo, step->count);
        step->pair[round] = time_pairs(fifo, step->count);
        step->floor[round] = time_floor_fifo(&floor, step->count);
        step->all_out[round] = time_all_out(lifo, leases, order, step->count);
        step->all_out_floor[round] = time_floor_all_out(&floor, order, step->count);
    }
    close_floor(&floor);
    free(order);
    free(leases);
    many_require(corepool_pool_close(fifo, COREPOOL_INFINITE), "close");
    many_require(corepool_pool_close(lifo, COREPOOL_INFINITE), "close");
    free(resources);
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

static void print_column(double *pair, double *floor, unsigned rounds)
{
    double ns = bench_median(pair, rounds), memory = bench_median(floor, rounds);
    printf(" %9.1f %9.1f %9.2f", ns, memory, ns / memory);
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
    printf("  one thread; ns of CPU of a pair: of the same one every time; of all in turn, of their floor in free lists, and to that\n");
    printf("  %8s %9s %9s %9s %9s\n", "pools", "one", "in turn", "floor", "to floor");
    for (unsigned i = 0; i < count; i++) {
        printf("  %8u %9.1f", steps[i].count, bench_median(steps[i].one, rounds));
        print_column(steps[i].pair, steps[i].floor, rounds);
        printf("\n");
    }
    count = lay_steps(steps, 10, 10 * pools < COREPOOL_SIZE_MAX ? 10 * pools : COREPOOL_SIZE_MAX);
    for (unsigned i = 0; i < count; i++)
        measure_workers(&steps[i], rounds);
    printf("  %8s %9s %9s %9s %9s %9s %9s %9s\n", "workers", "one", "FIFO", "floor", "to floor", "all out", "floor", "to floor");
    for (unsigned i = 0; i < count; i++) {
        printf("  %8u %9.1f", steps[i].count, bench_median(steps[i].one, rounds));
        print_column(steps[i].pair, steps[i].floor, rounds);
        print_column(steps[i].all_out, steps[i].all_out_floor, rounds);
        printf("\n");
    }
    many_require(corepool_runtime_audit(runtime), "audit");
    many_require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    many_require(corepool_runtime_destroy(runtime), "destroy");
}
