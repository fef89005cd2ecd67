/* tests/sim/worker.c: workers: init and terminate, at once or later, and an origin that may be down. */
#include "sim.h"

static bool init_succeeds(void)
{
    return world.phase != SAFETY || (!world.outage && draw(5));
}

void worker_open(cp_slot *slot)
{
    struct cp_slice *slice = slot->slice;
    bool ok = init_succeeds();
    move(slot, VACANT, OPENING);
    known_of(slot)->opens++;
    known_of(slot)->doom = known_of(slot)->reason = REASON_NONE;
    note(NOTE_OPEN, (int)slice->number, (int)slot->number, ok);
    if (draw(2))
        worker_opened(slot, ok);
    else
        send_mail(ok ? MAIL_OPENED : MAIL_OPEN_FAILED, slice, NULL, slot, world.now + delay(world.hold_bits));
}

void worker_opened(cp_slot *slot, bool ok)
{
    struct cp_slice *slice = slot->slice;
    if (slot->phase != CP_OPENING)
        return;
    note(ok ? NOTE_OPENED : NOTE_OPEN_FAILED, (int)slice->number, (int)slot->number, 0);
    slot->since = world.now;
    open_ended(slice, slot, ok);
    if (ok)
        cp_core_opened(&slice->core, slot);
    else
        cp_core_open_failed(&slice->core, slot, world.now);
}

void worker_cancel_open(cp_slot *slot)
{
    if (slot->phase == CP_OPENING && draw(2)) /* else it takes the time that it takes */
        worker_opened(slot, false);
}

void worker_terminate(cp_slot *slot)
{
    move(slot, HELD, CLOSING);
    known_of(slot)->alive = false;
    if (draw(2))
        worker_gone(slot);
    else
        send_mail(MAIL_GONE, slot->slice, NULL, slot, world.now + delay(world.hold_bits));
}

void worker_gone(cp_slot *slot)
{
    struct cp_slice *slice = slot->slice;
    note(NOTE_TERMINATED, (int)slice->number, (int)slot->number, 0);
    move(slot, CLOSING, VACANT);
    slice->terminated++;
    cp_core_gone(&slice->core, slot);
}
