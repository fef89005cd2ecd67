/* tests/sim/giveback.c: the ways of a slot out of a client's hands: onto the shelf; or onto the returned list,
 * then a look whether the manager must know, then the nudge. */
#include "sim.h"

static void next(struct client *client, void (*step)(struct client *))
{
    client_goes_on(client, step, delay(world.step_bits));
}

static void is_back(struct client *client)
{
    client->slot = NULL;
    next(client, client->after);
}

static void is_pushed(struct client *client)
{
    client->slot->slice->returning--;
    is_back(client);
}

void nudge_slice(struct cp_slice *slice)
{
    if (slice->nudged)
        return;
    slice->nudged = true;
    send_mail(MAIL_NUDGE, slice, NULL, NULL, world.now + delay(world.mail_bits));
}

static void nudge(struct client *client)
{
    struct cp_slice *slice = client->slot->slice;
    note(NOTE_NUDGE, (int)client->number, (int)slice->number, 0);
    nudge_slice(slice);
    is_pushed(client);
}

/* After the push: pairs with the manager's look at the list after it has set `waiting`, CLOSED or the slot's
 * doom. */
static void look_who_waits(struct client *client)
{
    const struct cp_slice *slice = client->slot->slice;
    if (client->wake || shelf_wants_manager(slice) || atomic_load(&client->slot->item.doomed)) {
        next(client, nudge);
        return;
    }
    note(NOTE_QUIET, (int)client->number, (int)slice->number, 0);
    is_pushed(client);
}

static void push(struct client *client)
{
    cp_slot *slot = client->slot;
    struct cp_slice *slice = slot->slice;
    note(NOTE_PUSH, (int)client->number, (int)slot->number, (int)slice->number);
    atomic_store(&slot->returned_next, slice->returned);
    slice->returned = slot;
    slice->returning++;
    move(slot, CLAIMED, RETURNED);
    next(client, look_who_waits);
}

void hand_over(struct client *client, uint32_t tag, void (*after)(struct client *))
{
    move(client->slot, TAKEN, CLAIMED);
    cp_slot_pass(client->slot, tag);
    client->wake = true;
    client->after = after;
    next(client, push);
}

void put_back(struct client *client, void (*after)(struct client *))
{
    cp_slot *slot = client->slot;
    uint64_t stamp = cp_slot_stamp(slot);
    enum cp_shelf_outcome outcome = CP_SHELF_DOOMED;
    client->after = after;
    if (cp_stamp_tag(stamp) == CP_TAG_RETURNED)
        outcome = shelf_give(slot->slice, client->cpu, slot, stamp);
    if (outcome == CP_SHELF_DONE) {
        note(NOTE_PUT_BACK, (int)client->number, (int)slot->number, (int)slot->slice->number);
        is_back(client);
        return;
    }
    move(slot, TAKEN, CLAIMED);
    client->wake = outcome != CP_SHELF_ELSEWHERE;
    next(client, push);
}

/* --- a lease's end --- */

/* The same lease once more, as a program does that checks in twice: harms nothing. */
static void end_again(struct client *client)
{
    cp_slot *slot = client->slot;
    note(NOTE_STALE, (int)client->number, (int)slot->number, 0);
    if (shelf_give(slot->slice, client->cpu, slot, client->stamp) != CP_SHELF_STALE)
        broke("L2", "client %u ends its lease of slot %u twice", client->number, slot->number);
    is_back(client);
}

/* It plays the manager, where it may, and nobody does. */
static bool plays(const struct client *client)
{
    const struct cp_slice *slice = client->slot->slice;
    bool here = slice->shelf.flags & CP_SHELF_PORTABLE || client->cpu == slice->shard->number;
    return client->wake && here && draw(2);
}

static void claim(struct client *client)
{
    cp_slot *slot = client->slot;
    note(NOTE_CLAIM, (int)client->number, (int)slot->number, (int)slot->slice->number);
    if (cp_slot_stamp(slot) != client->stamp)
        broke("L2", "client %u holds a lease of slot %u that is stale", client->number, slot->number);
    move(slot, LEASED, CLAIMED);
    cp_slot_pass(slot, client->tag);
    if (client->reason != REASON_NONE)
        known_of(slot)->reason = client->reason;
    atomic_store(&slot->reason, client->reason);
    if (plays(client) && hand_on(slot->slice, slot)) {
        move(slot, CLAIMED, HELD);
        is_back(client);
        return;
    }
    next(client, push);
}

static void give(struct client *client)
{
    cp_slot *slot = client->slot;
    enum cp_shelf_outcome outcome = shelf_give(slot->slice, client->cpu, slot, client->stamp);
    note(NOTE_GIVE, (int)client->number, (int)slot->number, (int)outcome);
    if (outcome == CP_SHELF_STALE)
        broke("L2", "client %u holds a lease of slot %u that is stale", client->number, slot->number);
    client->wake = outcome != CP_SHELF_ELSEWHERE;
    if (outcome != CP_SHELF_DONE)
        next(client, claim);
    else if (fault(8))
        next(client, end_again);
    else
        is_back(client);
}

void give_back(struct client *client, enum reason reason, void (*after)(struct client *))
{
    client->after = after;
    client->reason = reason;
    client->tag = reason == REASON_NONE ? CP_TAG_RETURNED : CP_TAG_REMOVED;
    client->wake = reason != REASON_NONE;
    next(client, reason == REASON_NONE ? give : claim);
}
