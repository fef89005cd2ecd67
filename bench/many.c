/* bench/many.c: many pools: what a keyed one costs to open and close, in memory while it is idle, and to be got; and
 * whether a pair costs the same however many pools and workers there are (many_pairs.c).
 *
 * Memory is what the process has resident. Pools are lazy, so that no worker is open. Usage: many [POOLS
 * [ROUNDS]]. */
#include "many.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define GETS 1000000
#define THREADS_MAX 64

static corepool_runtime_t *runtime;

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

const corepool_class_t many_class = {.name = "nothing", .init = init};

static double resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    BENCH_REQUIRE(file && fscanf(file, "%*u %lu", &pages) == 1, "cannot read /proc/self/statm");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

void many_require(int status, const char *what)
{
    BENCH_REQUIRE(status == COREPOOL_OK, "%s: %s: %s", what, corepool_error_name(status),
                  corepool_error_detail());
}

static void start(void)
{
    many_require(corepool_runtime_start(NULL, &runtime), "start");
}

static void stop(void)
{
    many_require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    many_require(corepool_runtime_destroy(runtime), "destroy");
}

static corepool_pool_t get(corepool_keyed_t keyed, unsigned number)
{
    char key[24];
    corepool_pool_t pool;
    int length = snprintf(key, sizeof key, "host-%08u.example", number);
    many_require(corepool_keyed_get(keyed, key, (size_t)length, &pool), "get");
    return pool;
}

static corepool_keyed_t open_set(unsigned size, unsigned pools)
{
    corepool_keyed_t keyed;
    const corepool_keyed_options_t options = {.cls = &many_class, .size = size, .max_pools = pools};
    many_require(corepool_keyed_open(runtime, &options, &keyed), "open");
    return keyed;
}

/* --- open, close, memory --- */

struct cost {
    double open_us, close_us, bytes; /* of one pool */
};

static struct cost measure(unsigned size, unsigned pools)
{
    struct cost cost;
    corepool_keyed_counts_t counts;
    start();
    corepool_keyed_t keyed = open_set(size, pools);
    double bytes = resident();
    int64_t begin = bench_now_ns();
    for (unsigned i = 0; i < pools; i++)
        get(keyed, i);
    cost.open_us = (double)(bench_now_ns() - begin) / pools / 1e3;
    cost.bytes = (resident() - bytes) / pools;
    many_require(corepool_keyed_stats(keyed, &counts), "stats");
    BENCH_REQUIRE(counts.pools == pools && counts.opened == pools, "%llu pools, not %u",
                  (unsigned long long)counts.pools, pools);
    begin = bench_now_ns();
    many_require(corepool_keyed_close(keyed, COREPOOL_INFINITE), "close");
    cost.close_us = (double)(bench_now_ns() - begin) / pools / 1e3;
    stop();
    return cost;
}

static void print_costs(unsigned pools, unsigned rounds)
{
    static double open_us[MANY_ROUNDS_MAX], close_us[MANY_ROUNDS_MAX], bytes[MANY_ROUNDS_MAX];
    start();
    unsigned shards = corepool_runtime_shards(runtime);
    stop();
    const unsigned steps[] = {pools / 10, pools, pools, pools}, sizes[] = {1, 1, shards, 32 * shards};
    double idle[4];
    printf("  %8s %8s %14s %14s %14s\n", "pools", "size", "open, µs", "close, µs", "bytes a pool");
    for (unsigned step = 0; step < 4; step++) {
        for (unsigned round = 0; round < rounds; round++) {
            struct cost cost = measure(sizes[step], steps[step]);
            open_us[round] = cost.open_us;
            close_us[round] = cost.close_us;
            bytes[round] = cost.bytes;
        }
        idle[step] = bench_median(bytes, rounds);
        printf("  %8u %8u %14.1f %14.1f %14.0f\n", steps[step], sizes[step], bench_median(open_us, rounds),
               bench_median(close_us, rounds), idle[step]);
    }
    printf("  a slot beyond a slice's first: %.0f bytes; a slice with one: at most %.0f\n",
           (idle[3] - idle[2]) / (31 * shards), idle[2] / shards);
}

/* --- get --- */

struct getter {
    pthread_t thread;
    corepool_keyed_t keyed;
    unsigned pools, number;
    double ns;
};

static _Atomic unsigned ready, go;

static void *get_many(void *arg)
{
    struct getter *getter = arg;
    bench_pin(bench_usable_cpu(getter->number));
    static _Thread_local char keys[64][24];
    corepool_pool_t pool;
    for (unsigned i = 0; i < 64; i++)
        snprintf(keys[i], sizeof keys[i], "host-%08u.example", (i * 977 + getter->number) % getter->pools);
    size_t length = strlen(keys[0]);
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&go))
        sched_yield();
    int64_t begin = bench_cpu_ns();
    for (unsigned i = 0; i < GETS; i++)
        BENCH_REQUIRE(corepool_keyed_get(getter->keyed, keys[i % 64], length, &pool) == COREPOOL_OK, "get");
    getter->ns = (double)(bench_cpu_ns() - begin) / GETS;
    return NULL;
}

/* ns of one get, the mean over `threads` on CPUs of their own. */
static double time_gets(unsigned pools, unsigned threads)
{
    static struct getter getters[THREADS_MAX];
    double sum = 0;
    start();
    corepool_keyed_t keyed = open_set(1, pools);
    for (unsigned i = 0; i < pools; i++)
        get(keyed, i);
    atomic_store(&ready, 0);
    atomic_store(&go, 0);
    for (unsigned i = 0; i < threads; i++) {
        getters[i] = (struct getter){.keyed = keyed, .pools = pools, .number = i};
        BENCH_REQUIRE(pthread_create(&getters[i].thread, NULL, get_many, &getters[i]) == 0,
                      "cannot start a thread");
    }
    while (atomic_load(&ready) < threads)
        sched_yield();
    atomic_store(&go, 1);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(getters[i].thread, NULL);
        sum += getters[i].ns;
    }
    stop();
    return sum / threads;
}

static void print_gets(unsigned pools, unsigned rounds)
{
    static double ns[MANY_ROUNDS_MAX];
    unsigned cpus = bench_usable_cpus();
    const unsigned keys[] = {1, 1, pools, pools};
    const unsigned threads[] = {1, cpus < THREADS_MAX ? cpus : THREADS_MAX, 1,
                                cpus < THREADS_MAX ? cpus : THREADS_MAX};
    printf("  %8s %8s %14s\n", "keys", "threads", "get, ns");
    for (unsigned step = 0; step < 4; step++) {
        for (unsigned round = 0; round < rounds; round++)
            ns[round] = time_gets(keys[step], threads[step]);
        printf("  %8u %8u %14.1f\n", keys[step], threads[step], bench_median(ns, rounds));
    }
}

int main(int argc, char **argv)
{
    static const char usage[] = "many [POOLS (10 to 1,000,000) [ROUNDS (1 to 101)]]";
    unsigned pools = (unsigned)bench_argument(argc, argv, 1, 10000, 10, 1000000, usage);
    unsigned rounds = (unsigned)bench_argument(argc, argv, 2, 3, 1, MANY_ROUNDS_MAX, usage);
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    print_costs(pools, rounds);
    print_gets(pools, rounds);
    many_print_pairs(pools, rounds);
    return 0;
}
