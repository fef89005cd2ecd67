/* bench/peer_apr.c: apr_reslist of the Apache Portable Runtime's utilities, which servers keep database
 * connections in. All its resources exist from the start and none expires. */
#include <apr_general.h>
#include <apr_reslist.h>
#include <stdatomic.h>

#include "bench.h"
#include "peers.h"

static apr_pool_t *memory;
static apr_reslist_t *list;
static struct peer_resource *resources;
static unsigned all;
static _Atomic unsigned made;

static apr_status_t construct(void **resource, void *params, apr_pool_t *pool)
{
    (void)params, (void)pool;
    *resource = &resources[atomic_fetch_add(&made, 1)];
    return APR_SUCCESS;
}

static apr_status_t destruct(void *resource, void *params, apr_pool_t *pool)
{
    (void)resource, (void)params, (void)pool;
    return APR_SUCCESS;
}

static bool create(unsigned count)
{
    static bool started;
    if (!started && apr_initialize() != APR_SUCCESS)
        return false;
    started = true;
    if (apr_pool_create(&memory, NULL) != APR_SUCCESS)
        return false;
    int n = (int)count;
    return apr_reslist_create(&list, n, n, n, 0, construct, destruct, NULL, memory) == APR_SUCCESS;
}

static bool open_peer(unsigned count, unsigned threads, const char **why)
{
    (void)threads;
    resources = peer_allocate(count);
    all = count;
    atomic_store(&made, 0);
    if (resources && create(count))
        return true;
    *why = resources ? "apr_reslist_create failed" : "out of memory";
    return false;
}

static struct peer_resource *take(void)
{
    void *resource;
    BENCH_REQUIRE(apr_reslist_acquire(list, &resource) == APR_SUCCESS, "apr_reslist_acquire failed");
    return resource;
}

static void give(struct peer_resource *resource)
{
    BENCH_REQUIRE(apr_reslist_release(list, resource) == APR_SUCCESS, "apr_reslist_release failed");
}

static void run(uint64_t pairs)
{
    while (pairs--) {
        struct peer_resource *resource = take();
        resource->touched++;
        give(resource);
    }
}

static uint64_t close_peer(void)
{
    BENCH_REQUIRE(apr_reslist_acquired_count(list) == 0 && atomic_load(&made) == all,
                  "apr_reslist: not every resource came back");
    apr_reslist_destroy(list);
    apr_pool_destroy(memory);
    uint64_t touched = peer_sum(resources, all);
    free(resources);
    return touched;
}

const struct peer peer_apr = {.name = "apr_reslist",
                              .open = open_peer,
                              .enter = peer_no_thread,
                              .leave = peer_no_thread,
                              .take = take,
                              .give = give,
                              .run = run,
                              .close = close_peer};
