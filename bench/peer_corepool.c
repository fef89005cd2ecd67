/* bench/peer_corepool.c: corepool through its shared library, on either shelf. */
#include <corepool.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource resources[PEER_RESOURCES];
static unsigned opened;
static corepool_runtime_t *runtime;
static corepool_pool_t pool;

/* Inits run on their own shards, at the same time. */
static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)pool_state;
    *resource = &resources[__atomic_fetch_add(&opened, 1, __ATOMIC_RELAXED)];
    return COREPOOL_OK;
}

static const corepool_class_t resource_class = {.name = "resource", .init = init};

static bool open_on(corepool_shelf_kind_t shelf, const char **why)
{
    corepool_runtime_options_t options = {.shelf = shelf};
    corepool_stats_t stats;
    opened = 0;
    for (unsigned i = 0; i < PEER_RESOURCES; i++)
        resources[i].touched = 0;
    if (corepool_runtime_start(&options, &runtime) != COREPOOL_OK) {
        *why = corepool_error_detail();
        return false;
    }
    BENCH_REQUIRE(corepool_pool_open(runtime, &resource_class, NULL, PEER_RESOURCES, NULL, &pool) == COREPOOL_OK,
                  "corepool_pool_open: %s", corepool_error_detail());
    do
        BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    while (stats.idle < PEER_RESOURCES);
    return true;
}

static bool open_rseq(const char **why)
{
    return open_on(COREPOOL_SHELF_RSEQ, why);
}

static bool open_portable(const char **why)
{
    return open_on(COREPOOL_SHELF_PORTABLE, why);
}

static void run(uint64_t pairs)
{
    corepool_lease_t lease;
    while (pairs--) {
        BENCH_REQUIRE(corepool_checkout(pool, NULL, &lease) == COREPOOL_OK, "checkout: %s", corepool_error_detail());
        ((struct peer_resource *)lease.resource)->touched++;
        BENCH_REQUIRE(corepool_checkin(&lease) == COREPOOL_OK, "checkin: %s", corepool_error_detail());
    }
}

static uint64_t close_peer(void)
{
    uint64_t touched = 0;
    corepool_stats_t stats;
    BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK && stats.idle == PEER_RESOURCES,
                  "corepool: not every resource came back");
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK, "audit: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK, "stop: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_destroy(runtime) == COREPOOL_OK, "destroy: %s", corepool_error_detail());
    for (unsigned i = 0; i < PEER_RESOURCES; i++)
        touched += resources[i].touched;
    BENCH_REQUIRE(touched == stats.checkouts, "corepool counts %llu checkouts", (unsigned long long)stats.checkouts);
    return touched;
}

const struct peer peer_corepool_rseq = {"corepool, rseq shelf", open_rseq, run, close_peer};
const struct peer peer_corepool_portable = {"corepool, portable shelf", open_portable, run, close_peer};
