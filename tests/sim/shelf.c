/* tests/sim/shelf.c: the shelf by its contract (machine/shelf.h): each operation is one step, nothing gets in
 * between. */
#include "sim.h"

void shelf_init(struct cp_slice *slice, uint32_t flags, uint32_t traits)
{
    struct shelf *shelf = &slice->shelf;
    shelf->head = shelf->tail = 0;
    shelf->mask = slice->capacity - 1;
    shelf->flags = flags;
    shelf->traits = traits;
}

/* An rseq shelf is in reach of its own CPU only. */
static bool is_elsewhere(const struct cp_slice *slice, uint32_t cpu)
{
    return !(slice->shelf.flags & CP_SHELF_PORTABLE) && cpu != slice->shard->number;
}

enum cp_shelf_outcome shelf_take(struct cp_slice *slice, uint32_t cpu, enum cp_shelf_end end, enum place to,
                                 cp_slot **slot)
{
    struct shelf *shelf = &slice->shelf;
    if (shelf->flags & CP_SHELF_CLOSED)
        return CP_SHELF_CLOSED_NOW;
    if (is_elsewhere(slice, cpu))
        return CP_SHELF_ELSEWHERE;
    if (shelf->head == shelf->tail)
        return CP_SHELF_EMPTY;
    *slot = shelf->ring[(end == CP_OLDEST ? shelf->tail++ : --shelf->head) & shelf->mask];
    if (shelf->head == shelf->tail)
        slice->stocked_at = CP_NEVER;
    move(*slot, SHELVED, to);
    return CP_SHELF_DONE;
}

static enum cp_shelf_outcome check_give(const struct cp_slice *slice, uint32_t cpu, const cp_slot *slot,
                                        uint64_t expected)
{
    if (cp_slot_stamp(slot) != expected)
        return CP_SHELF_STALE;
    if (slice->shelf.flags & CP_SHELF_CLOSED)
        return CP_SHELF_CLOSED_NOW;
    if (slice->shelf.flags & CP_SHELF_WAITING)
        return CP_SHELF_SOMEONE_WAITS;
    if (is_elsewhere(slice, cpu))
        return CP_SHELF_ELSEWHERE;
    return atomic_load(&slot->item.doomed) ? CP_SHELF_DOOMED : CP_SHELF_DONE;
}

static enum cp_shelf_outcome give_at(struct cp_slice *slice, uint32_t cpu, enum cp_shelf_end end, cp_slot *slot,
                                     uint64_t expected)
{
    struct shelf *shelf = &slice->shelf;
    enum cp_shelf_outcome outcome = check_give(slice, cpu, slot, expected);
    if (outcome != CP_SHELF_DONE)
        return outcome;
    cp_slot_pass(slot, CP_TAG_SHELVED);
    move(slot, known_of(slot)->place, SHELVED);
    if (shelf->head == shelf->tail)
        slice->stocked_at = world.now;
    shelf->ring[(end == CP_OLDEST ? --shelf->tail : shelf->head++) & shelf->mask] = slot;
    return CP_SHELF_DONE;
}

enum cp_shelf_outcome shelf_give(struct cp_slice *slice, uint32_t cpu, cp_slot *slot, uint64_t expected)
{
    return give_at(slice, cpu, CP_NEWEST, slot, expected);
}

enum cp_shelf_outcome shelf_give_oldest(struct cp_slice *slice, uint32_t cpu, cp_slot *slot, uint64_t expected)
{
    return give_at(slice, cpu, CP_OLDEST, slot, expected);
}

enum cp_shelf_outcome shelf_await(struct cp_slice *slice, uint32_t cpu)
{
    struct shelf *shelf = &slice->shelf;
    if (shelf->flags & CP_SHELF_CLOSED)
        return CP_SHELF_CLOSED_NOW;
    if (is_elsewhere(slice, cpu))
        return CP_SHELF_ELSEWHERE;
    if (shelf->head != shelf->tail)
        return CP_SHELF_NONEMPTY;
    shelf->flags |= CP_SHELF_WAITING;
    return CP_SHELF_DONE;
}

bool shelf_drain(struct cp_slice *slice, cp_slot **slot)
{
    struct shelf *shelf = &slice->shelf;
    if (shelf->head == shelf->tail)
        return false;
    *slot = shelf->ring[shelf->tail++ & shelf->mask];
    move(*slot, SHELVED, HELD);
    return true;
}

bool shelf_wants_manager(const struct cp_slice *slice)
{
    return slice->shelf.flags & (CP_SHELF_WAITING | CP_SHELF_CLOSED);
}
