/* tests/sim/worker.c: workers: init and terminate, at once or later, and an origin that may be down. */
#include <stdlib.h>

#include "sim.h"

/* Which workers there are: a worker that came from another slice is terminated once all the same (L6). */
static struct {
    bool *alive;
    uint32_t count, room;
} workers;

static void begin_worker(struct known *known)
{
    if (workers.count == workers.room) {
        workers.room = workers.room ? 2 * workers.room : 1024;
        workers.alive = realloc(workers.alive, workers.room);
        if (!workers.alive)
            broke("oracle", "no memory for %u workers", workers.room);
    }
    known->worker = workers.count;
    workers.alive[workers.count++] = true;
}

static void end_worker(const struct known *known)
{
    if (!workers.alive[known->worker])
        broke("L6", "worker %u is terminated twice", known->worker);
    workers.alive[known->worker] = false;
}

void forget_workers(void)
{
    workers.count = 0;
}

void check_workers(void)
{
    for (uint32_t i = 0; i < workers.count; i++)
        if (workers.alive[i])
            broke("L6", "worker %u is never terminated", i);
}

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
        begin_worker(known_of(slot));
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
    end_worker(known_of(slot));
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
