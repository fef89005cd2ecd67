/* tests/sim/operate.c: operations on a slice that runs, as src/shard/operate.c and src/shard/visit.c perform
 * them: what a manager does to its workers though no client asks for it. */
#include "sim.h"

void send_operation(enum mail kind, struct cp_slice *slice, cp_slot *slot, uint32_t value)
{
    int64_t at = world.now + delay(world.mail_bits);
    slice->last_operation = at > slice->last_operation ? at : slice->last_operation;
    send_mail(kind, slice, NULL, slot, slice->last_operation)->value = value;
}

/* --- bringing in what is doomed --- */

/* Turns the shelf round once, one slot a step: what is doomed comes out. Then what was returned meanwhile. */
static void sift(struct cp_slice *slice)
{
    struct shard *shard = slice->shard;
    cp_slot *slot;
    enum cp_shelf_outcome outcome = shelf_take(slice, manager_cpu(shard), CP_OLDEST, HELD, &slot);
    if (outcome == CP_SHELF_ELSEWHERE) {
        slice->sift_wanted = !leave_cpu(slice); /* then with the next wake-up */
        outcome = shelf_take(slice, manager_cpu(shard), CP_OLDEST, HELD, &slot);
    }
    shard->slice = slice;
    shard->then = collect;
    if (outcome != CP_SHELF_DONE)
        return;
    cp_slot_pass(slot, CP_TAG_MANAGER);
    if (atomic_load(&slot->item.doomed) ||
        shelf_give(slice, manager_cpu(shard), slot, cp_slot_stamp(slot)) != CP_SHELF_DONE)
        adopt(slice, slot);
    if (--shard->left)
        shard->then = sift;
}

void bring_in(struct cp_slice *slice)
{
    slice->sift_wanted = false;
    slice->shard->left = shelf_idle(slice);
    slice->shard->slice = slice;
    slice->shard->then = slice->shard->left ? sift : collect;
}

void doom(struct cp_slice *slice, cp_slot *slot, enum reason reason)
{
    if (atomic_load(&slot->item.doomed))
        return;
    note(NOTE_DOOM, (int)slice->number, (int)slot->number, (int)reason);
    known_of(slot)->doom = reason;
    slot->doom = (uint8_t)reason;
    atomic_store(&slot->item.doomed, 1);
    if (slot->phase == CP_LIVE && cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_MANAGER &&
        !cp_list_is_empty(&slot->link) && !slot->held)
        cp_core_doom_idle(&slice->core, slot, slot->doom);
}

static void evict(struct cp_slice *slice, cp_slot *slot)
{
    if (slot->phase != CP_LIVE || atomic_load(&slot->item.doomed))
        return;
    doom(slice, slot, REASON_EVICTED);
    bring_in(slice);
}

/* --- flush --- */

static void flush(struct cp_slice *slice, bool gently)
{
    for (uint32_t i = 0; i < slice->capacity; i++) {
        cp_slot *slot = &slice->slots[i];
        bool filled = slot->phase == CP_LIVE || slot->phase == CP_OPENING;
        slot->stale = gently && filled;
        if (filled && (!gently || known_of(slot)->place == LEASED))
            doom(slice, slot, REASON_FLUSHED);
    }
    bring_in(slice);
    if (gently)
        cp_core_refresh(&slice->core);
    else
        cp_core_refreshed(&slice->core);
}

void refresh_one(struct cp_slice *slice)
{
    for (uint32_t i = 0; i < slice->capacity; i++) {
        cp_slot *slot = &slice->slots[i];
        if (!slot->stale || slot->phase != CP_LIVE || atomic_load(&slot->item.doomed))
            continue;
        bool leased = known_of(slot)->place == LEASED;
        doom(slice, slot, REASON_FLUSHED);
        if (leased) /* goes when it comes back, and does not hold up the others */
            continue;
        bring_in(slice);
        return;
    }
    cp_core_refreshed(&slice->core);
}

/* --- the others --- */

static void resize(struct cp_slice *slice, uint32_t quota)
{
    struct cp_core *core = &slice->core;
    uint32_t lacking = cp_core_resize(core, quota);
    slice->pool->size += quota - slice->target;
    slice->target = quota;
    for (; lacking > 0; lacking--) {
        cp_slot *slot = &slice->slots[atomic_load(&core->quota) + core->spare];
        known_of(slot)->place = VACANT;
        slice->at[VACANT]++;
        cp_core_add(core, slot);
    }
}

static void inform(struct cp_slice *slice)
{
    collect(slice);
    cp_visit_begin_info(&slice->core);
}

/* The client that holds the lease waits for this. */
static void detach(struct cp_slice *slice, struct client *client)
{
    cp_slot *slot = client->slot;
    if (cp_slot_stamp(slot) != client->stamp)
        broke("L2", "client %u detaches slot %u by a lease that is stale", client->number, slot->number);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    move(slot, LEASED, HELD);
    cp_core_detach(&slice->core, slot);
    worker_terminate(slot);
    client->slot = NULL;
    client_goes_on(client, client->after, delay(world.step_bits));
}

void operate(struct message *message)
{
    struct cp_slice *slice = message->slice;
    if (message->kind == MAIL_DETACH) { /* a lease keeps its slice from finishing */
        detach(slice, message->client);
        return;
    }
    if (slice->epoch == 0 || slice->core.closed || slice->epoch != message->epoch)
        return;
    switch (message->kind) {
    case MAIL_PAUSE: cp_core_pause(&slice->core, slice->paused = message->value); break;
    case MAIL_DRAIN: cp_core_drain(&slice->core, slice->draining = message->value); break;
    case MAIL_RESIZE: resize(slice, message->value), operated(slice->pool); break;
    case MAIL_WARM: cp_core_warm(&slice->core, message->value); break;
    case MAIL_INFO: inform(slice); break;
    case MAIL_HOLD: cp_steal_hold(&slice->core, slice->holding = true); break;
    case MAIL_RELEASE: cp_steal_hold(&slice->core, false); break;
    case MAIL_FLUSH: flush(slice, message->value), operated(slice->pool); break;
    case MAIL_EVICT: evict(slice, message->slot); break;
    default: broke("oracle", "mail of kind %d is no operation", (int)message->kind);
    }
}
