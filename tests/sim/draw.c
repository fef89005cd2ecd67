/* tests/sim/draw.c: chance, the event queue and the memory of one world. Everything that is not the same on
 * every run would show here: nothing but the seed goes in. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct world world;

/* A world's memory, kept from one to the next. */
#define CHUNKS_MAX 4096
static void *chunks[CHUNKS_MAX];
static unsigned chunk_count;

uint64_t draw(uint64_t below)
{
    world.random ^= world.random >> 12;
    world.random ^= world.random << 25;
    world.random ^= world.random >> 27;
    return ((world.random * UINT64_C(0x2545F4914F6CDD1D)) >> 32) % below;
}

bool fault(uint64_t n)
{
    return world.phase == SAFETY && draw(n) == 0;
}

int64_t delay(unsigned bits)
{
    return TICK * (int64_t)draw(UINT64_C(1) << draw(bits + 1));
}

void *provide(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    if (!memory || chunk_count == CHUNKS_MAX)
        broke("oracle", "no memory for a world of %u shards", world.shard_count);
    return chunks[chunk_count++] = memory;
}

void clear_world(void)
{
    struct event *queue = world.queue;
    size_t room = world.room;
    while (chunk_count)
        free(chunks[--chunk_count]);
    world = (struct world){.queue = queue, .room = room};
}

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->sequence < b->sequence;
}

void schedule(enum event_kind kind, void *object, uint32_t serial, int64_t at)
{
    if (world.queued == world.room) {
        world.room = world.room ? 2 * world.room : 256;
        world.queue = realloc(world.queue, world.room * sizeof *world.queue);
        if (!world.queue)
            broke("oracle", "no memory for %zu events", world.room);
    }
    struct event event = {at, world.sequence++, kind, object, serial};
    size_t hole = world.queued++;
    for (; hole && is_before(&event, &world.queue[(hole - 1) / 2]); hole = (hole - 1) / 2)
        world.queue[hole] = world.queue[(hole - 1) / 2];
    world.queue[hole] = event;
}

/* Of the two below `at` the earlier; `queued` when there is none. */
static size_t earlier_below(size_t at)
{
    size_t below = 2 * at + 1;
    if (below + 1 < world.queued && is_before(&world.queue[below + 1], &world.queue[below]))
        below++;
    return below < world.queued ? below : world.queued;
}

bool next_event(struct event *event)
{
    if (!world.queued)
        return false;
    *event = world.queue[0];
    struct event last = world.queue[--world.queued];
    size_t hole = 0;
    for (size_t below; (below = earlier_below(hole)) < world.queued && is_before(&world.queue[below], &last);
         hole = below)
        world.queue[hole] = world.queue[below];
    world.queue[hole] = last;
    world.now = event->at;
    return true;
}
