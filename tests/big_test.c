/* tests/big_test.c: runtimes of 64 to 256 shards, over machines that are not here: unpinned, on the portable
 * shelf. Every shard serves, small pools lie where they should, and all is back afterwards. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/callers.h"

/* 2 packages with 4 caches of 16 cores each: 128 shards in 8 caches. */
#define BIG "pack:2 l3:4 core:16 pu:1"
#define BIG_CACHES 8u
/* As runtime.h has it; and what the test itself may have open. */
#define DESCRIPTORS_PER_SHARD 4u
#define DESCRIPTORS_BESIDE 64u

#define CALLERS 8u

static void need_descriptors(unsigned shards)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t wanted = shards * DESCRIPTORS_PER_SHARD + DESCRIPTORS_BESIDE;
    if (limit.rlim_max < wanted)
        cr_skip_test("%u shards need more descriptors than this user may have", shards);
    limit.rlim_cur = limit.rlim_cur < wanted ? wanted : limit.rlim_cur;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void start_synthetic(const char *machine, unsigned shards)
{
    need_descriptors(shards);
    const corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.synthetic = machine});
    cr_assert_eq(corepool_runtime_shards(runtime), shards);
    cr_expect_eq(corepool_runtime_shelf(runtime), COREPOOL_SHELF_PORTABLE);
}

static unsigned shard_of(const corepool_lease_t *lease)
{
    return corepool_shard_index(corepool_worker_shard(lease->worker));
}

static corepool_distance_t distance(unsigned a, unsigned b)
{
    return corepool_topology_distance(corepool_runtime_topology(laws_runtime()), a, b);
}

/* --- every shard serves --- */

/* Takes and gives on each shard in turn; the callers begin at different ones. */
struct tour {
    corepool_pool_t pool;
    unsigned first, shards, failures, elsewhere;
    pthread_t thread;
};

static void *travel(void *arg)
{
    struct tour *tour = arg;
    for (unsigned i = 0; i < tour->shards; i++) {
        corepool_lease_t lease;
        unsigned shard = (tour->first + i) % tour->shards;
        if (laws_checkout(corepool_pool_at(tour->pool, shard), LAWS_PATIENCE_MS, &lease) != COREPOOL_OK) {
            tour->failures++;
            continue;
        }
        tour->elsewhere += shard_of(&lease) != shard;
        tour->failures += corepool_checkin(&lease) != COREPOOL_OK;
    }
    return NULL;
}

static void travel_all(corepool_pool_t pool, unsigned shards)
{
    struct tour tours[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        tours[i] = (struct tour){.pool = pool, .first = i * shards / CALLERS, .shards = shards};
        cr_assert_eq(pthread_create(&tours[i].thread, NULL, travel, &tours[i]), 0);
    }
    for (unsigned i = 0; i < CALLERS; i++) {
        cr_assert_eq(pthread_join(tours[i].thread, NULL), 0);
        cr_expect_eq(tours[i].failures, 0);
        cr_expect_eq(tours[i].elsewhere, 0, "a shard had %u workers, one for each caller", CALLERS);
    }
}

static void count_shard(corepool_shard_t *shard, void *arg)
{
    _Atomic unsigned *ran = arg;
    atomic_fetch_add(&ran[corepool_shard_index(shard)], 1);
    atomic_fetch_add(&ran[corepool_runtime_shards(corepool_shard_runtime(shard))], 1);
}

static void post_to_all(unsigned shards)
{
    _Atomic unsigned *ran = calloc(shards + 1, sizeof *ran);
    cr_assert(ran);
    for (unsigned i = 0; i < shards; i++)
        cr_assert_eq(corepool_shard_post(laws_runtime(), i, count_shard, ran), COREPOOL_OK);
    laws_await_count(&ran[shards], shards);
    for (unsigned i = 0; i < shards; i++)
        cr_expect_eq(atomic_load(&ran[i]), 1, "shard %u", i);
    free(ran);
}

static void serve_on(const char *machine, unsigned shards)
{
    struct laws_count plain = {0}, lazy = {0};
    start_synthetic(machine, shards);
    corepool_pool_t pools[] = {
        laws_open(&laws_plain_class, &plain, CALLERS, COREPOOL_POOL_PER_SHARD),
        laws_open(&laws_class, &lazy, CALLERS * shards, COREPOOL_POOL_LAZY),
    };
    laws_await_idle(pools[0], (uint64_t)CALLERS * shards);
    post_to_all(shards);
    for (unsigned i = 0; i < 2; i++)
        travel_all(pools[i], shards);
    cr_expect_eq(laws_stats(pools[0]).checkouts, (uint64_t)CALLERS * shards);
    cr_expect_eq(laws_stats(pools[0]).quota, (uint64_t)CALLERS * shards);
    laws_end();
}

Test(big, each_of_64_shards_serves_and_all_is_back_afterwards)
{
    serve_on("core:64 pu:1", 64);
}

Test(big, each_of_128_shards_serves_and_all_is_back_afterwards)
{
    serve_on(BIG, 128);
}

Test(big, each_of_256_shards_serves_and_all_is_back_afterwards)
{
    serve_on("pack:2 l3:4 core:16 pu:2", 256);
}

/* --- who serves whom --- */

/* The shard whose slice serves the callers of another. */
static unsigned serving(corepool_pool_t pool, unsigned shard)
{
    corepool_lease_t lease = laws_take(corepool_pool_at(pool, shard));
    unsigned by = shard_of(&lease);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    return by;
}

/* The farthest that any shard's callers have to go to their slice. */
static corepool_distance_t farthest(corepool_pool_t pool, unsigned shards)
{
    corepool_distance_t most = COREPOOL_DISTANCE_SELF;
    for (unsigned shard = 0; shard < shards; shard++) {
        unsigned by = serving(pool, shard);
        most = distance(shard, by) > most ? distance(shard, by) : most;
    }
    return most;
}

static void expect_reach(unsigned size, corepool_distance_t most, unsigned slices)
{
    struct laws_count count = {0};
    start_synthetic(BIG, 128);
    corepool_pool_t pool = laws_open(&laws_plain_class, &count, size, 0);
    laws_await_idle(pool, size);
    cr_expect_leq(farthest(pool, 128), most);
    cr_expect_eq(laws_stats(pool).slices, slices);
    laws_end();
}

Test(big, two_workers_per_cache_serve_the_cpus_of_their_cache)
{
    expect_reach(2 * BIG_CACHES, COREPOOL_DISTANCE_L3, BIG_CACHES);
}

Test(big, two_workers_per_package_serve_the_cpus_of_their_package)
{
    expect_reach(4, COREPOOL_DISTANCE_PACKAGE, 2);
}

Test(big, a_single_worker_serves_every_cpu)
{
    expect_reach(1, COREPOOL_DISTANCE_MACHINE, 1);
}

/* --- who is robbed --- */

static int open_any(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker;
    *resource = pool_state;
    return COREPOOL_OK;
}

static corepool_pool_t open_movable(unsigned size)
{
    static const corepool_class_t movable = {
        .name = "movable", .flags = COREPOOL_CLASS_MOVABLE, .init = open_any};
    corepool_pool_t pool;
    cr_assert_eq(corepool_pool_open(laws_runtime(), &movable, NULL, size, NULL, &pool), COREPOOL_OK);
    laws_await_idle(pool, size);
    return pool;
}

/* The one shard that has given since; its number of gifts is noted. */
static unsigned find_giver(corepool_pool_t pool, uint64_t *given)
{
    unsigned giver = 128;
    for (unsigned shard = 1; shard < 128; shard++) {
        uint64_t now = laws_stats(corepool_pool_at(pool, shard)).given;
        if (now != given[shard])
            giver = giver == 128 ? shard : 129;
        given[shard] = now;
    }
    cr_assert_lt(giver, 128, "%s", giver == 128 ? "nobody gave" : "several gave");
    return giver;
}

/* Each shard has one worker. One that wants more and more gets those of its cache first, then those of its package. */
Test(big, a_starving_shard_robs_the_nearest_first_and_asks_no_more_than_there_are)
{
    corepool_lease_t leases[40];
    uint64_t given[128] = {0};
    corepool_distance_t reached = COREPOOL_DISTANCE_SELF;
    start_synthetic(BIG, 128);
    corepool_pool_t pool = open_movable(128);
    leases[0] = laws_take(corepool_pool_at(pool, 0));
    for (unsigned i = 1; i < 40; i++) {
        leases[i] = laws_take(corepool_pool_at(pool, 0));
        unsigned giver = find_giver(pool, given);
        cr_expect_geq(distance(0, giver), reached, "shard %u", giver);
        reached = distance(0, giver);
    }
    cr_expect_eq(reached, COREPOOL_DISTANCE_PACKAGE, "15 more are in its cache, 63 in its package");
    corepool_stats_t stats = laws_stats(corepool_pool_at(pool, 0));
    cr_expect_eq(stats.stolen, 39);
    /* One each, and a few more where a shard is slow to answer; exactly so with injected time, see core_steal_test. */
    cr_expect_geq(stats.asks, 39);
    cr_expect_leq(stats.asks, 127, "%llu: more than there are neighbours", (unsigned long long)stats.asks);
    for (unsigned i = 0; i < 40; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    cr_expect_eq(laws_stats(corepool_pool_at(pool, 0)).quota, 40, "they stay");
    laws_end();
}

/* --- bounds --- */

Test(big, a_start_that_runs_out_of_descriptors_says_which_shard_and_leaves_nothing_behind)
{
    struct rlimit limit;
    corepool_runtime_t *runtime;
    laws_baseline();
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64 * DESCRIPTORS_PER_SHARD;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_expect_eq(corepool_runtime_start(&(corepool_runtime_options_t){.synthetic = BIG}, &runtime),
                 COREPOOL_ESYSTEM);
    laws_expect_detail("shard");
    laws_expect_baseline();
    laws_expect_no_leaks();
}

/* Resident memory of this process. */
static size_t resident_kib(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert(file);
    cr_assert_eq(fscanf(file, "%*u %zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

/* Absent without sanitizers. */
__attribute__((weak)) int __lsan_do_recoverable_leak_check(void);

/* 41 KiB when this was written: most of it the thread's stack and its first chunk of slices. */
Test(big, an_idle_shard_with_a_small_slice_takes_little_memory)
{
    struct laws_count count = {0};
    if (__lsan_do_recoverable_leak_check)
        cr_skip_test("a sanitizer's memory is not the library's");
    laws_baseline();
    size_t before = resident_kib();
    start_synthetic(BIG, 128);
    corepool_pool_t pool = laws_open(&laws_plain_class, &count, 128, 0);
    laws_await_idle(pool, 128);
    size_t per_shard = (resident_kib() - before) / 128;
    cr_expect_leq(per_shard, 128, "%zu KiB", per_shard);
    laws_end();
}
