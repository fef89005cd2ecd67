/* bench/peer_local.c: no pool at all: each thread has a resource of its own. Nothing that is shared can cost
 * less. */
#include <stdatomic.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource *resources;
static unsigned all;
static _Atomic unsigned dealt;
static _Thread_local struct peer_resource *own;

static bool open_peer(unsigned count, unsigned threads, const char **why)
{
    (void)count;
    resources = peer_allocate(threads);
    all = threads;
    atomic_store(&dealt, 0);
    if (!resources)
        *why = "out of memory";
    return resources != NULL;
}

static void enter(void)
{
    unsigned number = atomic_fetch_add(&dealt, 1);
    BENCH_REQUIRE(number < all, "thread-local: more threads than the %u announced", all);
    own = &resources[number];
}

__attribute__((noinline)) static struct peer_resource *take(void)
{
    return own;
}

__attribute__((noinline)) static void give(struct peer_resource *resource)
{
    BENCH_REQUIRE(resource == own, "thread-local: another thread's resource came back");
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
    uint64_t touched = peer_sum(resources, all);
    free(resources);
    return touched;
}

const struct peer peer_local = {.name = "thread-local",
                                .floor = true,
                                .open = open_peer,
                                .enter = enter,
                                .leave = peer_no_thread,
                                .take = take,
                                .give = give,
                                .run = run,
                                .close = close_peer};
