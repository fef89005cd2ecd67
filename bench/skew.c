/* bench/skew.c: all callers on one CPU, the workers spread over all: how soon, and how well, do the workers follow?
 *
 * As many threads as there are workers, all pinned to the first CPU; each holds a worker while it sleeps, as one that waits
 * for an answer does. At first that CPU's shard has its share only and the others lie idle. Checkouts are counted in windows of
 * 10 ms from the start, next to a pool of the same size on a runtime of that one shard, where all workers are near from the
 * start: the best there is. Every round runs both once; ratios are to that pool in the same round, and medians over
 * the rounds. No worker may be opened again on its way. Usage: skew [ROUNDS [WORKERS [HOLD_US [MILLISECONDS]]]]. */
#include <corepool.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

#include "bench.h"

#define MAX_ROUNDS 101
#define MAX_THREADS 1024
#define WINDOW_MS 10
#define WINDOW_NS (WINDOW_MS * INT64_C(1000000))
#define WINDOWS_MAX 1000
/* By when it is to have settled: 100 ms. */
#define SETTLED 10

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t cls = {.name = "nothing", .flags = COREPOOL_CLASS_MOVABLE, .init = init};

static void require(int status, const char *what)
{
    BENCH_REQUIRE(status == COREPOOL_OK, "%s: %s: %s", what, corepool_error_name(status), corepool_error_detail());
}

/* --- load --- */

struct caller {
    pthread_t thread;
    uint64_t checkouts;
    uint32_t windows[WINDOWS_MAX]; /* checkouts in each */
};

static struct caller *callers;
static unsigned threads, windows;
static struct timespec hold_time;
static corepool_pool_t pool;
static pthread_barrier_t start;
static int64_t begin;

static void *call(void *arg)
{
    static const corepool_checkout_options_t patient = {.timeout_ms = COREPOOL_INFINITE};
    struct caller *caller = arg;
    corepool_lease_t lease;
    bench_pin(bench_usable_cpu(0));
    prctl(PR_SET_TIMERSLACK, 1); /* else a sleep is longer by 50 µs */
    pthread_barrier_wait(&start);
    for (;;) {
        require(corepool_checkout(pool, &patient, &lease), "checkout");
        int64_t window = (bench_now_ns() - begin) / WINDOW_NS;
        caller->checkouts++;
        if (window < windows)
            caller->windows[window]++;
        nanosleep(&hold_time, NULL);
        require(corepool_checkin(&lease), "checkin");
        if (window >= windows)
            return NULL;
    }
}

/* --- one run --- */

struct run {
    double windows[WINDOWS_MAX];     /* checkouts in each */
    double settled;                  /* a window's, on average, from SETTLED on */
    uint64_t stolen, stolen_settled; /* workers and places moved: in all, and from SETTLED on */
};

static corepool_stats_t get_stats(void)
{
    corepool_stats_t stats;
    require(corepool_pool_stats(pool, &stats), "stats");
    return stats;
}

static void open_pool(corepool_runtime_t *runtime)
{
    require(corepool_pool_open(runtime, &cls, NULL, threads, NULL, &pool), "open");
    while (get_stats().idle < threads)
        sched_yield();
}

static uint64_t add_up(struct run *run)
{
    uint64_t checkouts = 0;
    for (unsigned i = 0; i < threads; i++) {
        checkouts += callers[i].checkouts;
        for (unsigned w = 0; w < windows; w++)
            run->windows[w] += callers[i].windows[w];
    }
    for (unsigned w = SETTLED; w < windows; w++)
        run->settled += run->windows[w] / (windows - SETTLED);
    return checkouts;
}

/* All workers are back, none was opened twice, and the quotas sum to the size. */
static void check(corepool_runtime_t *runtime, uint64_t checkouts)
{
    corepool_stats_t stats = get_stats();
    BENCH_REQUIRE(stats.checkouts == checkouts, "%llu checkouts, %llu counted", (unsigned long long)checkouts,
                  (unsigned long long)stats.checkouts);
    BENCH_REQUIRE(stats.quota + stats.moving == threads && stats.terminated == 0 && stats.opens == threads,
                  "quotas of %llu, %llu moving, %llu opened, %llu terminated", (unsigned long long)stats.quota,
                  (unsigned long long)stats.moving, (unsigned long long)stats.opens,
                  (unsigned long long)stats.terminated);
    require(corepool_runtime_audit(runtime), "audit");
}

static struct run measure(corepool_runtime_t *runtime)
{
    struct run run = {.stolen = 0};
    const struct timespec until_settled = {.tv_nsec = SETTLED * WINDOW_NS};
    open_pool(runtime);
    pthread_barrier_init(&start, NULL, threads + 1);
    memset(callers, 0, threads * sizeof *callers);
    for (unsigned i = 0; i < threads; i++)
        BENCH_REQUIRE(pthread_create(&callers[i].thread, NULL, call, &callers[i]) == 0, "cannot start thread %u", i);
    begin = bench_now_ns(); /* the last who comes to the barrier lets all go at once */
    pthread_barrier_wait(&start);
    nanosleep(&until_settled, NULL);
    uint64_t stolen = get_stats().stolen;
    for (unsigned i = 0; i < threads; i++)
        pthread_join(callers[i].thread, NULL);
    pthread_barrier_destroy(&start);
    check(runtime, add_up(&run));
    run.stolen = get_stats().stolen;
    run.stolen_settled = run.stolen - stolen;
    require(corepool_pool_close(pool, COREPOOL_INFINITE), "close");
    return run;
}

/* --- rounds --- */

static double ratio[WINDOWS_MAX][MAX_ROUNDS], settled[MAX_ROUNDS], per_thousand[MAX_ROUNDS], stolen[MAX_ROUNDS],
    rate[MAX_ROUNDS];

static void compare(corepool_runtime_t *spread, corepool_runtime_t *near, unsigned round)
{
    struct run best = measure(near), run = measure(spread);
    BENCH_REQUIRE(best.settled > 0 && run.settled > 0, "nothing was checked out");
    for (unsigned w = 0; w < windows; w++)
        ratio[w][round] = run.windows[w] / best.settled;
    settled[round] = run.settled / best.settled;
    rate[round] = best.settled * 1e3 / WINDOW_MS;
    stolen[round] = (double)run.stolen;
    per_thousand[round] = 1000 * (double)run.stolen_settled / (run.settled * (windows - SETTLED));
}

static void print(unsigned rounds)
{
    double median = bench_median(rate, rounds);
    printf("  one shard, settled: %.0f checkouts a second (%.0f to %.0f)\n", median, rate[0], rate[rounds - 1]);
    printf("  spread, to that, by ms from the start\n   ");
    for (unsigned w = 0; w < SETTLED; w++)
        printf(" %6u", (w + 1) * WINDOW_MS);
    printf("\n   ");
    for (unsigned w = 0; w < SETTLED; w++)
        printf(" %6.2f", bench_median(ratio[w], rounds));
    median = bench_median(settled, rounds);
    printf("\n  spread, to that, after %d ms: %.3f (%.3f to %.3f)\n", SETTLED * WINDOW_MS, median, settled[0],
           settled[rounds - 1]);
    median = bench_median(stolen, rounds);
    printf("  steals: %.0f in all (%.0f to %.0f)", median, stolen[0], stolen[rounds - 1]);
    median = bench_median(per_thousand, rounds);
    printf("; per 1,000 checkouts when settled: %.3f (%.3f to %.3f)\n", median, per_thousand[0], per_thousand[rounds - 1]);
}

static void start_runtimes(corepool_runtime_t **spread, corepool_runtime_t **near)
{
    static char cpu[16];
    snprintf(cpu, sizeof cpu, "%d", bench_usable_cpu(0));
    require(corepool_runtime_start(NULL, spread), "start");
    require(corepool_runtime_start(&(corepool_runtime_options_t){.cpus = cpu}, near), "start");
}

static void end(corepool_runtime_t *runtime)
{
    require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    require(corepool_runtime_destroy(runtime), "destroy");
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "skew [ROUNDS (1 to 101) [WORKERS (2 to 1024) [HOLD_US (1 to 100000) [MILLISECONDS (110 to 10000)]]]]";
    corepool_runtime_t *spread, *near;
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 11, 1, MAX_ROUNDS, usage);
    threads = (unsigned)bench_argument(argc, argv, 2, 16, 2, MAX_THREADS, usage);
    unsigned hold_us = (unsigned)bench_argument(argc, argv, 3, 200, 1, 100000, usage);
    windows = (unsigned)bench_argument(argc, argv, 4, 300, 110, WINDOWS_MAX * WINDOW_MS, usage) / WINDOW_MS;
    BENCH_REQUIRE(argc <= 5, "too many arguments; usage: %s", usage);
    BENCH_REQUIRE(bench_usable_cpus() >= 2, "one CPU only: nothing can be skewed");
    hold_time.tv_nsec = hold_us * 1000L;
    callers = calloc(threads, sizeof *callers);
    BENCH_REQUIRE(callers, "no memory for %u threads", threads);
    start_runtimes(&spread, &near);
    for (unsigned round = 0; round < rounds; round++)
        compare(spread, near, round);
    printf("%u callers on CPU %d, %u workers on %u shards, held for %u µs; %u rounds\n", threads, bench_usable_cpu(0),
           threads, corepool_runtime_shards(spread), hold_us, rounds);
    print(rounds);
    end(near);
    end(spread);
    free(callers);
    return 0;
}
