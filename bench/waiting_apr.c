/* bench/waiting_apr.c: the resource list of the Apache Portable Runtime's utilities. */
#include <apr_pools.h>
#include <apr_reslist.h>

#include "bench.h"
#include "waiting.h"

static apr_pool_t *memory;
static apr_reslist_t *list;
static unsigned opened, all;

/* Under the list's lock. */
static apr_status_t construct(void **resource, void *params, apr_pool_t *own)
{
    (void)params, (void)own;
    *resource = &resources[opened++];
    return APR_SUCCESS;
}

static apr_status_t destruct(void *resource, void *params, apr_pool_t *own)
{
    (void)resource, (void)params, (void)own;
    return APR_SUCCESS;
}

static void open_list(unsigned cpus, unsigned per_cpu)
{
    all = cpus * per_cpu;
    opened = 0;
    BENCH_REQUIRE(apr_initialize() == APR_SUCCESS && apr_pool_create(&memory, NULL) == APR_SUCCESS, "no APR");
    BENCH_REQUIRE(apr_reslist_create(&list, (int)all, (int)all, (int)all, 0, construct, destruct, NULL, memory) ==
                      APR_SUCCESS, "apr_reslist_create failed");
}

static struct resource *take(void)
{
    void *resource;
    BENCH_REQUIRE(apr_reslist_acquire(list, &resource) == APR_SUCCESS, "apr_reslist_acquire failed");
    return resource;
}

static void give(struct resource *resource)
{
    BENCH_REQUIRE(apr_reslist_release(list, resource) == APR_SUCCESS, "apr_reslist_release failed");
}

static void close_list(uint64_t uses)
{
    (void)uses; /* the list does not count */
    BENCH_REQUIRE(opened == all && apr_reslist_acquired_count(list) == 0, "apr_reslist: %u resources are out",
                  (unsigned)apr_reslist_acquired_count(list));
    apr_reslist_destroy(list);
    apr_pool_destroy(memory);
    apr_terminate();
}

const struct contender waiting_apr = {"apr_reslist", open_list, take, give, close_list};
