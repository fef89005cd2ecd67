/* shard/block.c: the memory of slices: blocks of size classes, and what a slice that grows gets besides.
 *
 * All of it is its shard's until that is finished. A block goes from one slice to the next of its class; what was added to
 * it stays with it. Thread: the shard's. */
#include "shard/slice.h"

#include "base/error.h"
#include "shard/home.h"
#include "shard/lease.h"
#include "shard/shard.h"

/* How often a block may double: from one slot to beyond the largest pool. */
#define SEGMENTS_MAX 20

/* The least power of two that is not below. */
static uint32_t power_of_two(uint32_t n)
{
    return n <= 1 ? 1 : UINT32_C(1) << (32 - __builtin_clz(n - 1));
}

/* Classes of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, … slots, four to a doubling: less than a quarter of a block's
 * slots is never used. Twice a class is a class. */
static uint32_t class_capacity(unsigned class)
{
    return class < 4 ? class + 1 : (UINT32_C(5) + class % 4) << (class / 4 - 1);
}

static unsigned size_class(uint32_t quota)
{
    unsigned class = 0;
    while (class_capacity(class) < quota)
        class++;
    return class;
}

static void init_slots(struct cp_slice *slice, cp_slot *slots, uint32_t first_number, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        slots[i].slice = slice;
        slots[i].number = first_number + i;
        cp_list_init(&slots[i].link);
        cp_slot_set_stamp(&slots[i], cp_stamp(0, CP_TAG_MANAGER));
    }
}

static struct cp_slice *make_block(struct corepool_shard *shard, unsigned class)
{
    uint32_t capacity = class_capacity(class);
    size_t bytes = sizeof(struct cp_slice) + capacity * sizeof(cp_slot) +
                   power_of_two(capacity) * sizeof(struct cp_item *);
    cp_slot *slots = cp_shard_alloc(shard, bytes);
    if (!slots)
        return NULL;
    /* A slice begins with its shelf: so that is on the page of its last slot, most often its only one. */
    struct cp_slice *slice = (struct cp_slice *)(void *)(slots + capacity);
    slice->slots = slots;
    slice->ring = (_Atomic(struct cp_item *) *)(void *)(slice + 1);
    slice->base_slots = capacity;
    atomic_store_explicit(&slice->capacity, capacity, memory_order_relaxed);
    slice->shard = shard;
    init_slots(slice, slice->slots, 0, capacity);
    cp_list_init(&slice->link);
    cp_list_init(&slice->dirty);
    cp_heap_node_init(&slice->sleeping);
    return slice;
}

uint32_t cp_slice_ring_size(const struct cp_slice *slice)
{
    return power_of_two(slice->capacity);
}

struct cp_slice *cp_slice_create(struct corepool_shard *shard, uint32_t quota)
{
    unsigned class = size_class(quota);
    struct cp_list *spare = &shard->spare_blocks[class];
    if (cp_list_is_empty(spare))
        return make_block(shard, class);
    struct cp_slice *slice = cp_container(spare->next, struct cp_slice, link);
    cp_list_unlink(&slice->link);
    return slice;
}

void cp_slice_release(struct cp_slice *slice)
{
    if (slice->config.backtrace_every)
        cp_lease_forget(slice);
    cp_list_push_back(&slice->shard->spare_blocks[size_class(slice->capacity)], &slice->link);
}

/* --- growing -------------------------------------------------------------------------------------------------------- */

/* The next segment, as large as all there is, that makes `capacity` twice that. It may be there from an attempt that
 * failed later. */
static bool add_segment(struct cp_slice *slice, unsigned segment, uint32_t capacity)
{
    if (slice->segments[segment])
        return true;
    slice->segments[segment] = cp_shard_alloc(slice->shard, capacity * sizeof(cp_slot));
    if (slice->segments[segment])
        init_slots(slice, slice->segments[segment], capacity, capacity);
    return slice->segments[segment] != NULL;
}

static bool add_segments(struct cp_slice *slice, uint32_t before, uint32_t after)
{
    if (!slice->segments)
        slice->segments = cp_shard_alloc(slice->shard, SEGMENTS_MAX * sizeof *slice->segments);
    unsigned segment = 0;
    for (uint32_t at = slice->base_slots; slice->segments && at < after; at *= 2, segment++)
        if (at >= before && !add_segment(slice, segment, at))
            return false;
    return slice->segments != NULL;
}

int cp_slice_reserve(struct cp_slice *slice, uint32_t quota)
{
    uint32_t before = atomic_load_explicit(&slice->capacity, memory_order_relaxed), after = before;
    while (after < quota)
        after *= 2;
    if (after == before)
        return COREPOOL_OK;
    uint32_t size = power_of_two(after);
    _Atomic(struct cp_item *) *ring = cp_shard_alloc(slice->shard, size * sizeof *ring);
    if (!ring || !add_segments(slice, before, after))
        return cp_fail(COREPOOL_ENOMEM, "no memory for %u workers on shard %u", quota, slice->shard->index);
    if (!cp_shelf_grow(&slice->shelf, ring, size)) {
        cp_home_lost(slice->shard); /* else it would not have needed that */
        return cp_fail(COREPOOL_ESYSTEM, "the kernel refuses the membarrier that would free the shelf of shard %u",
                       slice->shard->index);
    }
    slice->ring = ring;
    /* Release: who sees it sees the segments. */
    atomic_store_explicit(&slice->capacity, after, memory_order_release);
    return COREPOOL_OK;
}
