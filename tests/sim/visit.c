/* tests/sim/visit.c: looks at all workers and visits to the idle ones, as src/shard/visit.c performs them. */
#include "sim.h"

/* Shows every slot to one of core/look.h's judges. */
static bool show_all(struct cp_slice *slice, uint8_t (*judge)(struct cp_core *, cp_slot *, int64_t))
{
    bool found = false;
    for (uint32_t i = 0; i < slice->capacity; i++) {
        uint8_t reason = judge(&slice->core, &slice->slots[i], world.now);
        if (reason != REASON_NONE) {
            doom(slice, &slice->slots[i], (enum reason)reason);
            found = true;
        }
    }
    return found;
}

void look_at_all(struct cp_slice *slice)
{
    note(NOTE_LOOK, (int)slice->number, 0, 0);
    collect(slice);
    cp_look_begin(&slice->core);
    bool found = show_all(slice, cp_look_at);
    if (cp_look_end(&slice->core, world.now) && show_all(slice, cp_look_close))
        found = true;
    if (found)
        bring_in(slice);
}

void fetch(struct cp_slice *slice)
{
    cp_slot *slot;
    uint32_t cpu = manager_cpu(slice->shard);
    enum cp_shelf_outcome outcome = shelf_take(slice, cpu, CP_OLDEST, HELD, &slot);
    if (outcome == CP_SHELF_ELSEWHERE && leave_cpu(slice))
        outcome = shelf_take(slice, cpu, CP_OLDEST, HELD, &slot);
    if (outcome != CP_SHELF_DONE) {
        cp_visit_fetched(&slice->core, NULL);
    } else if (atomic_load(&slot->item.doomed)) {
        adopt(slice, slot);
    } else {
        note(NOTE_FETCH, (int)slice->number, (int)slot->number, 0);
        cp_slot_pass(slot, CP_TAG_MANAGER);
        cp_visit_fetched(&slice->core, slot);
    }
}

/* The class's answer, to a ping or an info. */
void ask_worker(struct cp_slice *slice, cp_slot *slot, enum reason standard)
{
    enum reason reason = fault(4) ? standard : REASON_NONE;
    note(NOTE_ASK, (int)slice->number, (int)slot->number, (int)reason);
    check_usable(slot);
    known_of(slot)->doom = reason;
    cp_visit_answered(&slice->core, slot, (uint8_t)reason);
}

void put_oldest(struct cp_slice *slice, cp_slot *slot)
{
    enum cp_shelf_outcome outcome =
        shelf_give_oldest(slice, manager_cpu(slice->shard), slot, cp_slot_stamp(slot));
    note(NOTE_PUT_OLDEST, (int)slice->number, (int)slot->number, (int)outcome);
    if (outcome == CP_SHELF_DOOMED)
        cp_core_doom(&slice->core, slot, slot->doom);
    else if (outcome != CP_SHELF_DONE) /* requests wait, or the slice holds what is idle */
        cp_core_idle_again(&slice->core, slot);
}
