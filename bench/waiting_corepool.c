/* bench/waiting_corepool.c: corepool through its shared library: first come, first served; and with barging, where a thread that
 * has waited for its turn may go on for a while with the worker that it gives back. */
#include <corepool.h>

#include "bench.h"
#include "waiting.h"

static corepool_runtime_t *runtime;
static corepool_pool_t pool;
static unsigned opened;

static _Thread_local corepool_lease_t lease;

/* Inits run on their own shards, at the same time. */
static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)pool_state;
    *resource = &resources[__atomic_fetch_add(&opened, 1, __ATOMIC_RELAXED)];
    return COREPOOL_OK;
}

static void open_with(const corepool_pool_options_t *options, unsigned cpus, unsigned per_cpu)
{
    static const corepool_class_t cls = {.name = "resource", .flags = COREPOOL_CLASS_MOVABLE, .init = init};
    corepool_stats_t stats;
    opened = 0;
    BENCH_REQUIRE(corepool_runtime_start(NULL, &runtime) == COREPOOL_OK &&
                      corepool_pool_open(runtime, &cls, NULL, cpus * per_cpu, options, &pool) == COREPOOL_OK,
                  "%s", corepool_error_detail());
    do
        BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    while (stats.idle < stats.quota);
}

static void open_fair(unsigned cpus, unsigned per_cpu)
{
    open_with(NULL, cpus, per_cpu);
}

static void open_barging(unsigned cpus, unsigned per_cpu)
{
    const corepool_pool_options_t options = {.barging_us = waiting_barging_us};
    open_with(&options, cpus, per_cpu);
}

static struct resource *take(void)
{
    static const corepool_checkout_options_t patient = {.timeout_ms = COREPOOL_INFINITE};
    BENCH_REQUIRE(corepool_checkout(pool, &patient, &lease) == COREPOOL_OK, "%s", corepool_error_detail());
    return lease.resource;
}

static void give(struct resource *resource)
{
    (void)resource;
    BENCH_REQUIRE(corepool_checkin(&lease) == COREPOOL_OK, "%s", corepool_error_detail());
}

static void close_pool(uint64_t uses)
{
    corepool_stats_t stats;
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK, "audit: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    BENCH_REQUIRE(stats.checkouts == uses && stats.idle == stats.quota, "corepool counts %llu checkouts, %llu idle",
                  (unsigned long long)stats.checkouts, (unsigned long long)stats.idle);
    BENCH_REQUIRE(corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
                      corepool_runtime_destroy(runtime) == COREPOOL_OK,
                  "%s", corepool_error_detail());
}

const struct contender waiting_corepool = {"corepool", open_fair, take, give, close_pool};
const struct contender waiting_barging = {"corepool, barging", open_barging, take, give, close_pool};
