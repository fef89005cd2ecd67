/* bench/fairness.c: how long those at the end wait, next to those in the middle: many threads, few workers,
 * equal holds.
 *
 * Pinned, every CPU has as many of the threads as of the workers. Free, the kernel moves threads about, and who waits
 * where many others do waits longer: a shard serves its own callers first come, first served, and no other's. The same load
 * on a pool of one lock and one condition variable, which is what one would write. Usage:
 * fairness [THREADS [WORKERS [HOLD_US [MILLISECONDS]]]]. */
#include <corepool.h>
#include <pthread.h>
#include <stdatomic.h>

#include "bench.h"

#define WORKERS_MAX 1000
#define THREADS_MAX 4000
#define WAITS_MAX 4000 /* of one thread */

struct client {
    pthread_t thread;
    int cpu; /* -1: free */
    unsigned waits;
    double wait_ms[WAITS_MAX];
};

struct contender {
    const char *name;
    bool pinned;
    void (*open)(unsigned workers);
    void (*run)(void (*hold)(void)); /* one checkout and checkin */
    void (*close)(uint64_t waits); /* checks that all is back, and where it counts, that it counts as many */
};

static struct client *clients;
static _Atomic bool stop;
static struct timespec hold_time;

static void hold(void)
{
    nanosleep(&hold_time, NULL);
}

/* --- one lock, one condition variable --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static unsigned idle, all;

static void condvar_open(unsigned workers)
{
    idle = all = workers;
}

static void condvar_run(void (*use)(void))
{
    pthread_mutex_lock(&lock);
    while (idle == 0)
        pthread_cond_wait(&given, &lock);
    idle--;
    pthread_mutex_unlock(&lock);
    use();
    pthread_mutex_lock(&lock);
    idle++;
    pthread_cond_signal(&given);
    pthread_mutex_unlock(&lock);
}

static void condvar_close(uint64_t waits)
{
    (void)waits;
    BENCH_REQUIRE(idle == all, "condvar: %u workers of %u are back", idle, all);
}

/* --- corepool --- */

static corepool_runtime_t *runtime;
static corepool_pool_t pool;

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static void corepool_open(unsigned workers)
{
    static const corepool_class_t cls = {.name = "nothing", .flags = COREPOOL_CLASS_MOVABLE, .init = init};
    BENCH_REQUIRE(corepool_runtime_start(NULL, &runtime) == COREPOOL_OK &&
                      corepool_pool_open(runtime, &cls, NULL, workers, NULL, &pool) == COREPOOL_OK,
                  "%s", corepool_error_detail());
}

static void corepool_run(void (*use)(void))
{
    static const corepool_checkout_options_t patient = {.timeout_ms = COREPOOL_INFINITE};
    corepool_lease_t lease;
    BENCH_REQUIRE(corepool_checkout(pool, &patient, &lease) == COREPOOL_OK, "%s", corepool_error_detail());
    use();
    BENCH_REQUIRE(corepool_checkin(&lease) == COREPOOL_OK, "%s", corepool_error_detail());
}

static void corepool_close(uint64_t waits)
{
    corepool_stats_t stats;
    BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "%s", corepool_error_detail());
    BENCH_REQUIRE(stats.checkouts == waits && stats.idle == stats.quota, "corepool counts %llu checkouts of %llu, %llu idle",
                  (unsigned long long)stats.checkouts, (unsigned long long)waits, (unsigned long long)stats.idle);
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK, "%s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
                      corepool_runtime_destroy(runtime) == COREPOOL_OK,
                  "%s", corepool_error_detail());
}

static const struct contender contenders[] = {
    {"corepool, pinned", true, corepool_open, corepool_run, corepool_close},
    {"corepool, free", false, corepool_open, corepool_run, corepool_close},
    {"condvar, pinned", true, condvar_open, condvar_run, condvar_close},
    {"condvar, free", false, condvar_open, condvar_run, condvar_close},
};

/* --- load --- */

static const struct contender *contender;
static _Thread_local int64_t asked;
static _Thread_local struct client *self;

static void hold_and_note(void)
{
    if (self->waits < WAITS_MAX)
        self->wait_ms[self->waits] = (double)(bench_now_ns() - asked) / 1e6;
    self->waits++;
    hold();
}

static void *live(void *arg)
{
    self = arg;
    if (self->cpu >= 0)
        bench_pin(self->cpu);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        asked = bench_now_ns();
        contender->run(hold_and_note);
    }
    return NULL;
}

static void start_threads(unsigned threads)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    for (unsigned i = 0; i < threads; i++) {
        clients[i].waits = 0;
        clients[i].cpu = contender->pinned ? bench_usable_cpu(i) : -1;
        BENCH_REQUIRE(pthread_create(&clients[i].thread, &small, live, &clients[i]) == 0,
                      "cannot start thread %u", i);
    }
    pthread_attr_destroy(&small);
}

/* All waits in one sorted row. */
static double *gather(unsigned threads, size_t *count)
{
    *count = 0;
    for (unsigned i = 0; i < threads; i++) {
        BENCH_REQUIRE(clients[i].waits <= WAITS_MAX, "more than %d waits of one thread: fewer seconds, please",
                      WAITS_MAX);
        *count += clients[i].waits;
    }
    double *waits = calloc(*count, sizeof *waits), *at = waits;
    BENCH_REQUIRE(waits && *count >= 10000, "%zu waits: too few for a p99.99", *count);
    for (unsigned i = 0; i < threads; i++)
        for (unsigned n = 0; n < clients[i].waits; n++)
            *at++ = clients[i].wait_ms[n];
    qsort(waits, *count, sizeof *waits, bench_compare);
    return waits;
}

static void measure(unsigned threads, unsigned workers, unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    size_t count;
    contender->open(workers);
    atomic_store(&stop, false);
    start_threads(threads);
    nanosleep(&time, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(clients[i].thread, NULL);
    double *waits = gather(threads, &count);
    contender->close(count);
    double median = waits[count / 2], last = waits[count - 1 - count / 10000];
    printf("  %-18s %9zu %9.2f %9.2f %9.2f %9.2f %9.2f %12.2f\n", contender->name, count, median,
           waits[count - 1 - count / 100], waits[count - 1 - count / 1000], last, waits[count - 1],
           last / median);
    fflush(stdout);
    free(waits);
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "fairness [THREADS (1 to 4000) [WORKERS (1 to 1000) [HOLD_US (1 to 999999) [MILLISECONDS (1 to 600000)]]]]";
    unsigned threads = (unsigned)bench_argument(argc, argv, 1, 1000, 1, THREADS_MAX, usage);
    unsigned workers = (unsigned)bench_argument(argc, argv, 2, 50, 1, WORKERS_MAX, usage);
    unsigned hold_us = (unsigned)bench_argument(argc, argv, 3, 2000, 1, 999999, usage);
    unsigned ms = (unsigned)bench_argument(argc, argv, 4, 5000, 1, 600000, usage);
    BENCH_REQUIRE(argc <= 5, "too many arguments; usage: %s", usage);
    hold_time.tv_nsec = hold_us * 1000L;
    clients = calloc(threads, sizeof *clients);
    BENCH_REQUIRE(clients, "no memory for %u threads", threads);
    printf("%u threads, %u workers, held %u µs; waits in ms\n", threads, workers, hold_us);
    printf("  %-18s %9s %9s %9s %9s %9s %9s %12s\n", "", "waits", "p50", "p99", "p99.9", "p99.99", "most",
           "p99.99/p50");
    for (unsigned i = 0; i < sizeof contenders / sizeof contenders[0]; i++) {
        contender = &contenders[i];
        measure(threads, workers, ms);
    }
    free(clients);
    return 0;
}
