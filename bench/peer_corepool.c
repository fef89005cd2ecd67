/* bench/peer_corepool.c: corepool through its shared library, on either shelf, and in the caller's own code. */
#include <corepool.h>
#include <corepool/inline.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource *resources;
static unsigned opened, all;
static bool crowded; /* more threads than CPUs: one that is preempted with a worker may let others miss */
static corepool_runtime_t *runtime;
static corepool_pool_t pool;

/* Inits run on their own shards, at the same time. */
static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)pool_state;
    *resource = &resources[__atomic_fetch_add(&opened, 1, __ATOMIC_RELAXED)];
    return COREPOOL_OK;
}

static const corepool_class_t resource_class = {.name = "resource", .flags = COREPOOL_CLASS_MOVABLE, .init = init};

static bool open_on(corepool_shelf_kind_t shelf, unsigned count, unsigned threads, const char **why)
{
    corepool_runtime_options_t options = {.shelf = shelf};
    corepool_stats_t stats;
    opened = 0;
    all = count;
    crowded = threads > bench_usable_cpus();
    resources = peer_allocate(count);
    BENCH_REQUIRE(resources, "no memory for %u resources", count);
    if (corepool_runtime_start(&options, &runtime) != COREPOOL_OK) {
        *why = corepool_error_detail();
        free(resources);
        return false;
    }
    BENCH_REQUIRE(corepool_pool_open(runtime, &resource_class, NULL, all, NULL, &pool) == COREPOOL_OK,
                  "corepool_pool_open: %s", corepool_error_detail());
    do
        BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    while (stats.idle < all);
    return true;
}

static bool open_rseq(unsigned count, unsigned threads, const char **why)
{
    return open_on(COREPOOL_SHELF_RSEQ, count, threads, why);
}

static bool open_inline(unsigned count, unsigned threads, const char **why)
{
    *why = "the library has another layout";
    return corepool_inline_is_fast() && open_rseq(count, threads, why);
}

static bool open_portable(unsigned count, unsigned threads, const char **why)
{
    return open_on(COREPOOL_SHELF_PORTABLE, count, threads, why);
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

static void run_inline(uint64_t pairs)
{
    corepool_lease_t lease;
    while (pairs--) {
        BENCH_REQUIRE(corepool_inline_checkout(pool, NULL, &lease) == COREPOOL_OK, "checkout: %s", corepool_error_detail());
        ((struct peer_resource *)lease.resource)->touched++;
        BENCH_REQUIRE(corepool_inline_checkin(&lease) == COREPOOL_OK, "checkin: %s", corepool_error_detail());
    }
}

static uint64_t close_peer(void)
{
    corepool_stats_t stats;
    BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK && stats.idle == all,
                  "corepool: not every resource came back");
    BENCH_REQUIRE(crowded || stats.shelf_hits == stats.checkouts, "corepool: %llu shelf hits of %llu checkouts",
                  (unsigned long long)stats.shelf_hits, (unsigned long long)stats.checkouts);
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK, "audit: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK, "stop: %s", corepool_error_detail());
    BENCH_REQUIRE(corepool_runtime_destroy(runtime) == COREPOOL_OK, "destroy: %s", corepool_error_detail());
    uint64_t touched = peer_sum(resources, all);
    free(resources);
    BENCH_REQUIRE(touched == stats.checkouts, "corepool counts %llu checkouts", (unsigned long long)stats.checkouts);
    return touched;
}

const struct peer peer_corepool_rseq = {.name = "corepool, rseq shelf", .open = open_rseq,
                                        .enter = peer_no_thread, .leave = peer_no_thread, .run = run,
                                        .close = close_peer};
const struct peer peer_corepool_inline = {.name = "corepool, rseq, inline", .open = open_inline,
                                          .enter = peer_no_thread, .leave = peer_no_thread, .run = run_inline,
                                          .close = close_peer};
const struct peer peer_corepool_portable = {.name = "corepool, portable shelf", .open = open_portable,
                                            .enter = peer_no_thread, .leave = peer_no_thread, .run = run,
                                            .close = close_peer};
