/* bench/features.c: what each feature of a pool adds to a checkout and checkin where a worker is idle.
 *
 * One pinned thread. Each feature, or other way to ask, has a pool of its own, all are open at once, and every round runs each of
 * them once, so that a change of the machine's speed hits all alike; figures are medians over the rounds, ratios are to the plain pool in
 * the same round. A callback that is said to run has counted that it did. Usage: features [ROUNDS [PAIRS]]. */
#include <corepool.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "bench.h"

#define MAX_ROUNDS 101
#define WORKERS 8
/* Those that go through the manager take thousands of times as long, and get so much fewer pairs. */
#define SLOWER 1000

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)pool_state;
    *resource = &resource; /* never looked at */
    return COREPOOL_OK;
}

/* Of one feature at a time; one thread at a time counts. */
static _Atomic uint64_t calls;

static void count_call(void)
{
    atomic_store_explicit(&calls, atomic_load_explicit(&calls, memory_order_relaxed) + 1, memory_order_relaxed);
}

static int enqueue(void *pool_state, void *command, void **wrapped)
{
    (void)pool_state, (void)command, (void)wrapped;
    count_call();
    return COREPOOL_OK;
}

static int check_out(void *pool_state, void *resource, void *command, void **client)
{
    (void)pool_state, (void)resource, (void)command, (void)client;
    count_call();
    return COREPOOL_OK;
}

static int check_in(void *pool_state, void *resource, void *client)
{
    (void)pool_state, (void)resource, (void)client;
    count_call();
    return COREPOOL_OK;
}

static int validate(void *resource)
{
    (void)resource;
    return COREPOOL_OK;
}

static int ping(corepool_worker_t *worker, void *pool_state, void *resource)
{
    (void)worker, (void)pool_state, (void)resource;
    return COREPOOL_OK;
}

static void on_event(const corepool_event_t *event, void *arg)
{
    (void)event, (void)arg;
}

static void on_lease(int status, const corepool_lease_t *lease, void *arg)
{
    if (status == COREPOOL_OK)
        *(corepool_lease_t *)arg = *lease;
}

/* A worker is idle: the callback has run when this returns. */
static int ask_at_once(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    *lease = (corepool_lease_t){0};
    int status = corepool_checkout_async(pool, options, on_lease, lease, NULL);
    BENCH_REQUIRE(status != COREPOOL_OK || lease->worker, "an asynchronous checkout has to wait");
    return status;
}

static const corepool_class_t plain = {.name = "plain", .init = init};
static const corepool_class_t asked = {.name = "asked", .init = init, .checkout = check_out, .checkin = check_in};
static const corepool_class_t enqueued = {.name = "enqueued", .init = init, .enqueue = enqueue};
static const corepool_class_t validated = {.name = "validated", .init = init, .validate = validate};
static const corepool_class_t pinged = {.name = "pinged", .init = init, .ping = ping};

static struct feature {
    const char *name;
    const corepool_class_t *cls;
    corepool_pool_options_t options;
    unsigned calls; /* of its class, in a pair */
    bool portable; /* on the runtime with the portable shelf */
    bool slow;     /* through the manager */
    bool bound;    /* by a handle for the one shard */
    bool on_shard; /* by code on the shard */
    int (*checkout)(corepool_pool_t, const corepool_checkout_options_t *, corepool_lease_t *); /* NULL: the blocking one */
    corepool_pool_t pool;
    double ns[MAX_ROUNDS], ratio[MAX_ROUNDS];
} features[] = {
    {.name = "plain", .cls = &plain},
    {.name = "handle for one shard", .cls = &plain, .bound = true},
    {.name = "corepool_checkout_try", .cls = &plain, .checkout = corepool_checkout_try},
    {.name = "the same, by code on the shard", .cls = &plain, .checkout = corepool_checkout_try, .on_shard = true},
    {.name = "corepool_checkout_async there", .cls = &plain, .checkout = ask_at_once, .on_shard = true},
    {.name = "event hook", .cls = &plain, .options = {.on_event = on_event}},
    {.name = "lease report and limit", .cls = &plain, .options = {.lease_report_ms = 1000, .lease_limit_ms = 5000}},
    {.name = "maximum lifetime, none due", .cls = &plain, .options = {.max_lifetime_ms = 3600000}},
    {.name = "idle timeout, no ping due", .cls = &pinged, .options = {.idle_timeout_ms = 1000}},
    {.name = "bounded, shedding queue", .cls = &plain, .options = {.max_waiting = 100, .shed_target_ms = 5}},
    {.name = "FIFO", .cls = &plain, .options = {.flags = COREPOOL_POOL_FIFO}},
    {.name = "validation, none due", .cls = &validated},
    {.name = "enqueue callback", .cls = &enqueued, .calls = 1},
    {.name = "checkout and checkin callbacks", .cls = &asked, .calls = 2},
    {.name = "backtrace, 1 of 100", .cls = &plain, .options = {.backtrace_every = 100}},
    {.name = "timed leases", .cls = &plain, .options = {.flags = COREPOOL_POOL_TIME_LEASES}},
    {.name = "portable shelf", .cls = &plain, .portable = true},
    {.name = "managed, no shelf", .cls = &plain, .options = {.flags = COREPOOL_POOL_MANAGED}, .slow = true},
    {.name = "serialised callbacks", .cls = &asked, .calls = 2, .options = {.flags = COREPOOL_POOL_SERIALISED}, .slow = true},
};
#define FEATURES (sizeof features / sizeof features[0])

static unsigned shard_here(const corepool_runtime_t *runtime)
{
    return corepool_topology_shard_of(corepool_runtime_topology(runtime), (unsigned)bench_usable_cpu(0));
}

static void open_feature(struct feature *feature, corepool_runtime_t *runtime)
{
    corepool_stats_t stats;
    feature->options.flags |= COREPOOL_POOL_PER_SHARD;
    BENCH_REQUIRE(corepool_pool_open(runtime, feature->cls, NULL, WORKERS, &feature->options, &feature->pool) == COREPOOL_OK,
                  "%s: %s", feature->name, corepool_error_detail());
    do
        BENCH_REQUIRE(corepool_pool_stats(feature->pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    while (stats.idle < stats.quota);
    if (feature->bound)
        feature->pool = corepool_pool_at(feature->pool, shard_here(runtime));
    if (!feature->checkout)
        feature->checkout = corepool_checkout;
}

/* So many pairs, wherever they are to be run. */
struct run {
    const struct feature *feature;
    uint64_t pairs;
    int64_t ns;
    sem_t done;
};

static void run_pairs(struct run *run)
{
    const struct feature *feature = run->feature;
    corepool_lease_t lease;
    int64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < run->pairs; i++) {
        BENCH_REQUIRE(feature->checkout(feature->pool, NULL, &lease) == COREPOOL_OK, "%s: checkout: %s", feature->name,
                      corepool_error_detail());
        BENCH_REQUIRE(corepool_checkin(&lease) == COREPOOL_OK, "%s: checkin: %s", feature->name, corepool_error_detail());
    }
    run->ns = bench_now_ns() - begin;
}

static void run_on_shard(corepool_shard_t *shard, void *arg)
{
    struct run *run = arg;
    (void)shard;
    run_pairs(run);
    sem_post(&run->done);
}

/* A manager may still have the last checkin before it. Returns how many there are, within a second. */
static uint64_t await_calls(uint64_t expected)
{
    int64_t deadline = bench_now_ns() + INT64_C(1000000000);
    while (atomic_load(&calls) < expected && bench_now_ns() < deadline)
        sched_yield();
    return atomic_load(&calls);
}

static double time_feature(const struct feature *feature, corepool_runtime_t *runtime, uint64_t pairs)
{
    corepool_stats_t before, after;
    struct run run = {.feature = feature, .pairs = pairs};
    atomic_store(&calls, 0);
    BENCH_REQUIRE(corepool_pool_stats(feature->pool, &before) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    if (feature->on_shard) {
        sem_init(&run.done, 0, 0);
        BENCH_REQUIRE(corepool_shard_post(runtime, shard_here(runtime), run_on_shard, &run) == COREPOOL_OK, "post: %s",
                      corepool_error_detail());
        while (sem_wait(&run.done) != 0)
            ;
        sem_destroy(&run.done);
    } else {
        run_pairs(&run);
    }
    BENCH_REQUIRE(corepool_pool_stats(feature->pool, &after) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    BENCH_REQUIRE(after.checkouts - before.checkouts == pairs, "%s: %llu pairs run, %llu counted", feature->name,
                  (unsigned long long)pairs, (unsigned long long)(after.checkouts - before.checkouts));
    uint64_t called = await_calls(feature->calls * pairs);
    BENCH_REQUIRE(called == feature->calls * pairs, "%s: %llu pairs, %llu callbacks", feature->name, (unsigned long long)pairs,
                  (unsigned long long)called);
    bool timed = feature->options.flags & COREPOOL_POOL_TIME_LEASES;
    BENCH_REQUIRE(after.hold.count - before.hold.count == (timed ? pairs : 0), "%s: %llu pairs, %llu times", feature->name,
                  (unsigned long long)pairs, (unsigned long long)(after.hold.count - before.hold.count));
    return (double)run.ns / (double)pairs;
}

static void end(corepool_runtime_t *runtime)
{
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK, "audit: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK, "stop: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_destroy(runtime) == COREPOOL_OK, "destroy: %s", corepool_error_detail());
}

int main(int argc, char **argv)
{
    static const char usage[] = "features [ROUNDS (1 to 101) [PAIRS (1,000 to 10^9)]]";
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 11, 1, MAX_ROUNDS, usage);
    uint64_t pairs = bench_argument(argc, argv, 2, 2000000, SLOWER, 1000000000, usage);
    corepool_runtime_t *runtime, *portable;
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    BENCH_REQUIRE(corepool_runtime_start(NULL, &runtime) == COREPOOL_OK, "start: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_start(&(corepool_runtime_options_t){.shelf = COREPOOL_SHELF_PORTABLE}, &portable) ==
                      COREPOOL_OK, "start: %s", corepool_error_detail());
    for (struct feature *feature = features; feature < features + FEATURES; feature++)
        open_feature(feature, feature->portable ? portable : runtime);
    bench_pin(bench_usable_cpu(0));
    for (unsigned round = 0; round < rounds; round++)
        for (struct feature *feature = features; feature < features + FEATURES; feature++) {
            feature->ns[round] = time_feature(feature, runtime, feature->slow ? pairs / SLOWER : pairs);
            feature->ratio[round] = feature->ns[round] / features[0].ns[round];
        }
    printf("1 pinned thread, %u rounds of %llu pairs (%llu through the manager), %s shelf\n", rounds,
           (unsigned long long)pairs, (unsigned long long)pairs / SLOWER,
           corepool_runtime_shelf(runtime) == COREPOOL_SHELF_RSEQ ? "rseq" : "portable");
    printf("  %-32s %10s %10s %10s   %s\n", "", "ns/pair", "least", "most", "ratio to plain");
    for (struct feature *feature = features; feature < features + FEATURES; feature++) {
        double median = bench_median(feature->ns, rounds);
        printf("  %-32s %10.2f %10.2f %10.2f   %.2f\n", feature->name, median, feature->ns[0], feature->ns[rounds - 1],
               bench_median(feature->ratio, rounds));
    }
    end(portable);
    end(runtime);
    return 0;
}
