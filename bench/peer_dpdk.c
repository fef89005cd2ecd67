/* bench/peer_dpdk.c: DPDK's rte_mempool with its per-lcore cache, all inline. Threads of the benchmark register as
 * lcores, else they would go past the cache. What the caches may keep comes on top of the resources asked for, as its
 * guide wants it: else a thread could find nothing while another's cache is full. So it never runs empty. */
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include "bench.h"
#include "peers.h"

/* The cache has to hold what one thread needs, the ring behind it the rest. */
#define OBJECTS_MIN 255u
#define CACHE 32u
/* A cache is emptied once it holds half as much again. */
#define CACHE_MOST (CACHE * 3 / 2)

static struct rte_mempool *mempool;

/* The EAL binds the calling thread to one CPU, and so every thread that it starts later, of whatever peer: not wanted. */
static bool start_eal(const char **why)
{
    static bool started;
    cpu_set_t cpus;
    char *args[] = {(char *)"bench", (char *)"--no-huge", (char *)"--no-pci", (char *)"--no-telemetry",
                    (char *)"--no-shconf", (char *)"--log-level=critical", (char *)"--lcores=0", (char *)"-m64", NULL};
    BENCH_REQUIRE(sched_getaffinity(0, sizeof cpus, &cpus) == 0, "sched_getaffinity failed");
    if (!started && rte_eal_init(8, args) < 0) {
        *why = "rte_eal_init failed";
        return false;
    }
    BENCH_REQUIRE(sched_setaffinity(0, sizeof cpus, &cpus) == 0, "cannot give the CPUs back that the EAL took");
    started = true;
    return true;
}

static void clear(struct rte_mempool *pool, void *arg, void *object, unsigned index)
{
    (void)pool, (void)arg, (void)index;
    ((struct peer_resource *)object)->touched = 0;
}

static bool open_peer(unsigned resources, unsigned threads, const char **why)
{
    unsigned objects = resources + threads * CACHE_MOST;
    if (!start_eal(why))
        return false;
    mempool = rte_mempool_create("bench", objects > OBJECTS_MIN ? objects : OBJECTS_MIN, sizeof(struct peer_resource),
                                 CACHE, 0, NULL, NULL, clear, NULL, SOCKET_ID_ANY, 0);
    if (!mempool)
        *why = "rte_mempool_create failed";
    return mempool != NULL;
}

static _Thread_local bool foreign;

static void enter(void)
{
    foreign = rte_lcore_id() == LCORE_ID_ANY;
    if (foreign)
        BENCH_REQUIRE(rte_thread_register() == 0, "rte_thread_register failed");
}

static void leave(void)
{
    if (foreign)
        rte_thread_unregister();
    foreign = false;
}

static struct peer_resource *take(void)
{
    void *object;
    BENCH_REQUIRE(rte_mempool_get(mempool, &object) == 0, "rte_mempool is empty");
    return object;
}

static void give(struct peer_resource *resource)
{
    rte_mempool_put(mempool, resource);
}

static void run(uint64_t pairs)
{
    while (pairs--) {
        struct peer_resource *resource = take();
        resource->touched++;
        give(resource);
    }
}

static void add(struct rte_mempool *pool, void *sum, void *object, unsigned index)
{
    (void)pool, (void)index;
    *(uint64_t *)sum += ((struct peer_resource *)object)->touched;
}

static uint64_t close_peer(void)
{
    uint64_t touched = 0;
    BENCH_REQUIRE(rte_mempool_full(mempool), "rte_mempool: not every object came back");
    rte_mempool_obj_iter(mempool, add, &touched);
    rte_mempool_free(mempool);
    return touched;
}

const struct peer peer_dpdk = {.name = "rte_mempool", .floor = true, .open = open_peer, .enter = enter,
                               .leave = leave, .take = take, .give = give, .run = run, .close = close_peer};
