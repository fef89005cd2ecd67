/* bench/peer_ck.c: Concurrency Kit's lock-free containers: its stack, and as a FIFO its ring. (Its linked FIFO
 * leaves it to the user when an entry may be used again; the ring has no entries.) Neither can wait. */
#include <ck_ring.h>
#include <ck_stack.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource *resources;
static unsigned all;

static bool allocate(unsigned count, const char **why)
{
    resources = peer_allocate(count);
    all = count;
    if (!resources)
        *why = "out of memory";
    return resources != NULL;
}

static uint64_t finish(unsigned back, const char *name)
{
    BENCH_REQUIRE(back == all, "%s: %u of %u resources came back", name, back, all);
    uint64_t touched = peer_sum(resources, all);
    free(resources);
    return touched;
}

/* ---- stack: its entry is the resource's second word ---- */

static ck_stack_t stack __attribute__((aligned(64)));

_Static_assert(sizeof(ck_stack_entry_t) == sizeof(void *), "an entry is one word");

static ck_stack_entry_t *entry_of(struct peer_resource *resource)
{
    return (ck_stack_entry_t *)&resource->link;
}

static struct peer_resource *stack_take(void)
{
    ck_stack_entry_t *entry = ck_stack_pop_mpmc(&stack);
    return entry ? (void *)((char *)entry - offsetof(struct peer_resource, link)) : NULL;
}

static void stack_give(struct peer_resource *resource)
{
    ck_stack_push_mpmc(&stack, entry_of(resource));
}

static bool stack_open(unsigned count, unsigned threads, const char **why)
{
    (void)threads;
    if (!allocate(count, why))
        return false;
    ck_stack_init(&stack);
    for (unsigned i = 0; i < count; i++)
        stack_give(&resources[i]);
    return true;
}

static void stack_run(uint64_t pairs)
{
    while (pairs) {
        struct peer_resource *resource = stack_take();
        if (!resource)
            continue;
        resource->touched++;
        stack_give(resource);
        pairs--;
    }
}

static uint64_t stack_close(void)
{
    unsigned back = 0;
    while (stack_take())
        back++;
    return finish(back, "ck_stack");
}

const struct peer peer_ck_stack = {.name = "ck_stack",
                                   .open = stack_open,
                                   .enter = peer_no_thread,
                                   .leave = peer_no_thread,
                                   .take = stack_take,
                                   .give = stack_give,
                                   .run = stack_run,
                                   .close = stack_close};

/* ---- ring ---- */

static ck_ring_t ring;
static ck_ring_buffer_t *places;

static struct peer_resource *ring_take(void)
{
    void *resource;
    return ck_ring_dequeue_mpmc(&ring, places, &resource) ? resource : NULL;
}

static void ring_give(struct peer_resource *resource)
{
    BENCH_REQUIRE(ck_ring_enqueue_mpmc(&ring, places, resource), "ck_ring is full");
}

/* A ring holds one less than its size, a power of two. */
static bool ring_open(unsigned count, unsigned threads, const char **why)
{
    unsigned size = 2;
    (void)threads;
    while (size <= count)
        size *= 2;
    places = calloc(size, sizeof *places);
    if (!places || !allocate(count, why)) {
        *why = "out of memory";
        free(places);
        return false;
    }
    ck_ring_init(&ring, size);
    for (unsigned i = 0; i < count; i++)
        ring_give(&resources[i]);
    return true;
}

static void ring_run(uint64_t pairs)
{
    while (pairs) {
        struct peer_resource *resource = ring_take();
        if (!resource)
            continue;
        resource->touched++;
        ring_give(resource);
        pairs--;
    }
}

static uint64_t ring_close(void)
{
    unsigned back = 0;
    while (ring_take())
        back++;
    free(places);
    return finish(back, "ck_ring");
}

const struct peer peer_ck_ring = {.name = "ck_ring",
                                  .open = ring_open,
                                  .enter = peer_no_thread,
                                  .leave = peer_no_thread,
                                  .take = ring_take,
                                  .give = ring_give,
                                  .run = ring_run,
                                  .close = ring_close};
