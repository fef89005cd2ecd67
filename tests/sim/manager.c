/* tests/sim/manager.c: a shard's thread: messages, then what is to be done about them, one step for each event.
 * What the real one does in two steps that others may get between is two steps here (shard.then). */
#include "sim.h"

uint32_t manager_cpu(const struct shard *shard)
{
    return shard->off_cpu ? NO_CPU : shard->number;
}

void manager_wake(struct shard *shard)
{
    int64_t at = world.now + delay(world.step_bits);
    if (shard->awake)
        return;
    shard->awake = true;
    schedule(EVENT_MANAGER, shard, 0, at > shard->stalled_until ? at : shard->stalled_until);
}

struct message *send_mail(enum mail kind, struct cp_slice *slice, struct ask *ask, cp_slot *slot, int64_t at)
{
    struct message *message = world.spare_mail;
    if (message)
        world.spare_mail = message->next;
    else
        message = provide(1, sizeof *message);
    *message = (struct message){.kind = kind, .slice = slice, .ask = ask, .slot = slot};
    message->epoch = slice->epoch;
    message->serial = slot ? known_of(slot)->opens : 0;
    schedule(EVENT_MAIL, message, 0, at);
    return message;
}

void manager_receive(struct message *message)
{
    struct shard *shard = message->slice->shard;
    message->next = NULL;
    *shard->inbox_end = message;
    shard->inbox_end = &message->next;
    manager_wake(shard);
}

void set_timer(struct cp_slice *slice, int64_t at)
{
    if (slice->timer > world.now && slice->timer <= at)
        return;
    slice->timer = at;
    send_mail(MAIL_TIMER, slice, NULL, NULL, at);
}

/* --- slots changing hands --- */

void adopt(struct cp_slice *slice, cp_slot *slot)
{
    bool doomed = atomic_load(&slot->item.doomed);
    note(NOTE_ADOPT, (int)slice->number, (int)slot->number, doomed);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    if (doomed)
        cp_core_doom(&slice->core, slot, slot->doom);
    else
        cp_core_idle(&slice->core, slot);
}

void collect(struct cp_slice *slice)
{
    cp_slot *slot = slice->returned;
    slice->returned = NULL;
    note(NOTE_COLLECT, (int)slice->number, 0, 0);
    while (slot) {
        cp_slot *next = atomic_load(&slot->returned_next);
        move(slot, RETURNED, HELD);
        if (cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_RETURNED) {
            adopt(slice, slot);
        } else {
            cp_slot_pass(slot, CP_TAG_MANAGER);
            cp_core_doom(&slice->core, slot, (uint8_t)atomic_load(&slot->reason));
        }
        slot = next;
    }
    slice->dirty = true;
}

bool leave_cpu(struct cp_slice *slice)
{
    bool done = !fault(2);
    note(NOTE_LEAVE_CPU, (int)slice->number, done, 0);
    if (!done) {
        set_timer(slice, world.now + 1 + delay(world.mail_bits));
        return false;
    }
    slice->shelf.flags |= CP_SHELF_PORTABLE;
    slice->lost_cpu = true;
    return true;
}

/* The shard's CPU is gone for longer; or it was. The slices of a pool that opens do not know each other yet. */
static void park(struct cp_slice *slice)
{
    bool parked = slice->shard->off_cpu;
    if (slice->epoch == 0 || (parked && !slice->pool->open))
        return;
    note(NOTE_PARK, (int)slice->number, parked, 0);
    if (parked && !(slice->shelf.flags & CP_SHELF_PORTABLE))
        leave_cpu(slice);
    cp_evacuate(&slice->core, parked);
}

static void regain_cpu(struct cp_slice *slice)
{
    if (!slice->shard->off_cpu)
        park(slice);
    if (!slice->lost_cpu || slice->shard->off_cpu)
        return;
    slice->shelf.flags &= ~(uint32_t)CP_SHELF_PORTABLE;
    slice->lost_cpu = false;
    note(NOTE_REGAIN_CPU, (int)slice->number, 0, 0);
}

/* --- messages --- */

/* It is looked after none the less, so that the next rest counts all that there is. */
static void join_crowd(struct cp_slice *slice, struct ask *ask)
{
    note(NOTE_CROWD, (int)slice->number, (int)ask->number, 0);
    cp_core_crowd(&slice->core, world.now);
    check_crowd(slice);
}

static void deliver_request(struct cp_slice *slice, struct ask *ask)
{
    if (slice->epoch == ask->request.epoch) {
        arrives(slice, ask);
        cp_core_request(&slice->core, &ask->request);
        if (slice->crowded)
            join_crowd(slice, ask);
        return;
    }
    note(NOTE_STRAY, (int)slice->number, (int)ask->number, 0);
    if (cp_request_decide(&ask->request, CP_CLOSED)) {
        ask->fate = DECIDED;
        schedule(EVENT_WAKE, ask->client, 0, world.now + delay(world.mail_bits));
    } else {
        ask->request.slice = NULL;
        ask->fate = STRAY;
    }
}

static void deliver_given_up(struct cp_slice *slice, struct ask *ask)
{
    if (ask->request.slice) {
        if (ask->fate != ABANDONED)
            broke("L5", "a notice for request %u, which has come to something else", ask->number);
        if (ask->queued)
            leaves(ask);
        else
            slice->notices--;
        cp_core_give_up(&slice->core, &ask->request);
    }
    bool owned = atomic_load(&ask->request.life) != CP_LIFE_ORPHAN;
    cp_request_release(&ask->request);
    if (owned) /* and may be used again */
        ask->request.free(&ask->request);
}

static void deliver_nudge(struct cp_slice *slice)
{
    slice->nudged = false; /* before the look: a later push nudges again */
    if (slice->epoch == 0)
        return;
    cp_steal_nudged(&slice->core);
    slice->shard->slice = slice;
    slice->shard->then = collect;
}

static void deliver(struct message *message)
{
    struct cp_slice *slice = message->slice;
    cp_slot *slot = message->slot;
    bool current = slot && message->serial == known_of(slot)->opens;
    note(NOTE_DELIVER, (int)slice->shard->number, (int)message->kind, (int)slice->number);
    slice->dirty = slice->epoch != 0;
    slice->for_thread |= message->kind != MAIL_REQUEST && message->kind != MAIL_GIVEN_UP && message->kind != MAIL_NUDGE;
    slice->crowded = slice->crowded && message->kind == MAIL_REQUEST;
    switch (message->kind) {
    case MAIL_REQUEST: deliver_request(slice, message->ask); break;
    case MAIL_GIVEN_UP: deliver_given_up(slice, message->ask); break;
    case MAIL_NUDGE: deliver_nudge(slice); break;
    case MAIL_OPENED:
    case MAIL_OPEN_FAILED:
        if (current)
            worker_opened(slot, message->kind == MAIL_OPENED);
        break;
    case MAIL_GONE: worker_gone(slot); break;
    case MAIL_TIMER: slice->timer = slice->timer <= world.now ? CP_NEVER : slice->timer; break;
    case MAIL_SPURIOUS: break;
    case MAIL_CPU: regain_cpu(slice); break;
    case MAIL_OPEN: slice_open(slice); break;
    case MAIL_CLOSE: slice->close_wanted = true; break;
    case MAIL_ASK: deliver_ask(message->record); break;
    case MAIL_ANSWER: deliver_answer(message->record); break;
    case MAIL_PARK: park(slice); break;
    case MAIL_PUSH: deliver_push(message->record); break;
    case MAIL_RETURN: deliver_return(message->record); break;
    case MAIL_EVICT:
    case MAIL_PAUSE:
    case MAIL_DRAIN:
    case MAIL_RESIZE:
    case MAIL_WARM:
    case MAIL_FLUSH:
    case MAIL_INFO:
    case MAIL_HOLD:
    case MAIL_RELEASE:
    case MAIL_DETACH: operate(message); break;
    }
}

static void receive_next(struct shard *shard)
{
    struct message *message = shard->inbox;
    shard->inbox = message->next;
    if (!shard->inbox)
        shard->inbox_end = &shard->inbox;
    deliver(message);
    message->next = world.spare_mail;
    world.spare_mail = message;
}

/* --- the pump --- */

static void close_core(struct cp_slice *slice)
{
    collect(slice); /* givers elsewhere look at CLOSED after their push */
    note(NOTE_CLOSE_CORE, (int)slice->number, 0, 0);
    cp_core_close(&slice->core, (uint8_t)slice->close_reason);
    for (uint32_t i = 0; i < slice->capacity; i++)
        worker_cancel_open(&slice->slots[i]);
}

static void drain_shelf(struct cp_slice *slice)
{
    cp_slot *slot;
    while (shelf_drain(slice, &slot))
        adopt(slice, slot);
    slice->shard->then = close_core;
}

/* A manager off its CPU may be refused the membarrier that closing needs. */
static bool begin_close(struct cp_slice *slice)
{
    bool done = slice->shelf.flags & CP_SHELF_PORTABLE || !slice->shard->off_cpu || !fault(2);
    note(NOTE_CLOSE_SHELF, (int)slice->number, done, 0);
    if (!done) {
        set_timer(slice, world.now + 1 + delay(world.mail_bits));
        return false;
    }
    slice->shelf.flags |= CP_SHELF_CLOSED;
    slice->close_wanted = false;
    slice->shard->slice = slice;
    slice->shard->then = drain_shelf;
    return true;
}

static void rest(struct cp_slice *slice)
{
    int64_t wake_at = cp_core_wake_at(&slice->core, world.now);
    note(NOTE_REST, (int)slice->number, (int)atomic_load(&slice->core.waiting),
         (int)atomic_load(&slice->core.opening));
    check_rest(slice);
    check_hunger(slice);
    slice->crowded = cp_core_is_crowded(&slice->core);
    slice->rested_at = world.now;
    tell_held(slice);
    if (wake_at != CP_NEVER)
        set_timer(slice, wake_at);
}

/* A caller may: nothing is there that it must not touch. */
static bool may_play(const struct cp_slice *slice)
{
    return !slice->for_thread && !slice->close_wanted && !slice->sift_wanted && !slice->core.options.managed;
}

/* One turn of it. */
static void pump(struct shard *shard)
{
    struct cp_slice *slice = shard->pumping;
    struct cp_action *action = &shard->action;
    bool left = false;
    if (slice->close_wanted) {
        if (!begin_close(slice))
            shard->pumping = NULL;
        return;
    }
    if (slice->crowded)
        check_crowd(slice);
    slice->crowded = false;
    if (shard->plays && may_play(slice))
        cp_core_next_anywhere(&slice->core, world.now, action, &left);
    else
        cp_core_next(&slice->core, world.now, action);
    shard->plays = shard->plays && !left;
    if (perform(slice, action) || left)
        return;
    shard->pumping = NULL;
    slice->for_thread = false;
    if (action->what == CP_DO_NOTHING)
        rest(slice);
}

static struct cp_slice *first_dirty(const struct shard *shard)
{
    for (unsigned i = 0; i < world.pool_count; i++)
        if (shard->slices[i]->dirty)
            return shard->slices[i];
    return NULL;
}

static void run_then(struct shard *shard)
{
    void (*then)(struct cp_slice *) = shard->then;
    shard->then = NULL;
    then(shard->slice);
}

void manager_step(struct shard *shard)
{
    struct cp_slice *slice;
    shard->awake = false;
    if (shard->then) {
        run_then(shard);
    } else if (shard->pumping) {
        pump(shard);
    } else if (shard->inbox) {
        receive_next(shard);
    } else if ((slice = first_dirty(shard))) {
        slice->dirty = false;
        shard->pumping = slice;
        shard->plays = draw(2);
        if (slice->sift_wanted)
            bring_in(slice);
    } else {
        return;
    }
    manager_wake(shard);
}
