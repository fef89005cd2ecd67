/* tests/sim/action.c: the manager carries out what the core decided. A new decision of the core is a new
 * function here; those about other slices stand in steal.c. */
#include "sim.h"

/* The rest of an action is a step of its own. */
static bool later(struct cp_slice *slice, void (*then)(struct cp_slice *))
{
    slice->shard->slice = slice;
    slice->shard->then = then;
    return true;
}

/* The core has let a request go, in its turn. */
static struct ask *take_ask(struct cp_slice *slice, const struct cp_action *action)
{
    struct ask *ask = ask_of(action->request);
    leaves(ask);
    if (ask->fate == QUEUED)
        ask->fate = DECIDING;
    else if (ask->fate != ABANDONED)
        broke("L5", "slice %u: request %u comes from the queue and had an end before", slice->number,
              ask->number);
    return ask;
}

/* True: it is the manager's word that counts. Else the notice is to come. */
static bool decide(struct cp_slice *slice, struct ask *ask, enum cp_outcome outcome)
{
    if (cp_request_decide(&ask->request, outcome)) {
        ask->fate = DECIDED;
        schedule(EVENT_WAKE, ask->client, 0, world.now + delay(world.mail_bits));
        return true;
    }
    if (ask->fate != ABANDONED)
        broke("L5", "slice %u: request %u is decided twice", slice->number, ask->number);
    slice->notices++;
    cp_core_undecided(&slice->core);
    return false;
}

static void decide_grant(struct cp_slice *slice)
{
    const struct cp_action *action = &slice->shard->action;
    struct ask *ask = ask_of(action->request);
    cp_slot *slot = action->slot;
    int64_t waited = world.now - ask->request.posted_at;
    if (decide(slice, ask, CP_GRANTED)) {
        note(NOTE_GRANTED, (int)slice->number, (int)slot->number, (int)ask->number);
        move(slot, HELD, LEASED);
        cp_core_granted(&slice->core, waited);
        return;
    }
    note(NOTE_UNGRANTED, (int)slice->number, (int)slot->number, (int)ask->number);
    cp_slot_set_stamp(slot, slice->shard->stamp); /* nobody has seen this lease */
    cp_core_idle(&slice->core, slot);
    slice->crowded = false;
}

static bool do_grant(struct cp_slice *slice, const struct cp_action *action)
{
    check_turn(slice, ask_of(action->request));
    struct ask *ask = take_ask(slice, action);
    uint64_t stamp = cp_slot_stamp(action->slot);
    note(NOTE_GRANT, (int)slice->number, (int)action->slot->number, (int)ask->number);
    check_usable(action->slot);
    if (slice->paused)
        broke("pause", "slice %u is paused and grants slot %u", slice->number, action->slot->number);
    slice->shard->stamp = stamp;
    cp_slot_set_stamp(action->slot, cp_stamp_next_lease(stamp));
    ask->request.slot = action->slot;
    ask->request.stamp = cp_slot_stamp(action->slot);
    if (fault(12)) /* gives up at this very moment */
        schedule(EVENT_DEADLINE, ask->client, ask->client->waits, world.now);
    return later(slice, decide_grant);
}

bool hand_on(struct cp_slice *slice, cp_slot *slot)
{
    struct shard *shard = slice->shard;
    bool rests = slice->crowded && !shard->then && !shard->pumping && !shard->inbox;
    bool usable = cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_RETURNED && !atomic_load(&slot->item.doomed);
    struct cp_request *request = rests && usable ? cp_core_next_of_crowd(&slice->core, world.now) : NULL;
    if (!request)
        return false;
    note(NOTE_HAND_ON, (int)slice->number, (int)slot->number, (int)ask_of(request)->number);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    shard->action = (struct cp_action){.what = CP_DO_GRANT, .slot = slot, .request = request};
    slice->dirty = true;
    manager_wake(shard);
    return do_grant(slice, &shard->action);
}

static void decide_refuse(struct cp_slice *slice)
{
    struct ask *ask = ask_of(slice->shard->action.request);
    bool decided = decide(slice, ask, slice->shard->action.outcome);
    note(NOTE_REFUSE, (int)slice->number, (int)ask->number, decided);
}

static bool do_refuse(struct cp_slice *slice, const struct cp_action *action)
{
    check_refusal(slice, ask_of(action->request), action->outcome);
    take_ask(slice, action);
    return later(slice, decide_refuse);
}

static bool do_shelve(struct cp_slice *slice, cp_slot *slot)
{
    if (!cp_list_is_empty(&slice->arrivals))
        broke("L3", "slice %u shelves slot %u while a request waits", slice->number, slot->number);
    check_usable(slot);
    enum cp_shelf_outcome outcome = shelf_give(slice, manager_cpu(slice->shard), slot, cp_slot_stamp(slot));
    note(NOTE_SHELVE, (int)slice->number, (int)slot->number, (int)outcome);
    switch (outcome) {
    case CP_SHELF_DONE: return true;
    case CP_SHELF_DOOMED: cp_core_doom(&slice->core, slot, slot->doom); return true;
    case CP_SHELF_ELSEWHERE: cp_core_idle(&slice->core, slot); return leave_cpu(slice);
    default: cp_core_idle(&slice->core, slot); return true;
    }
}

static void take_one(struct cp_slice *slice)
{
    cp_slot *slot;
    enum cp_shelf_end end = cp_core_brings_oldest(&slice->core) ? CP_OLDEST : shelf_end(slice);
    if (shelf_take(slice, manager_cpu(slice->shard), end, HELD, &slot) == CP_SHELF_DONE)
        adopt(slice, slot);
}

static bool do_listen(struct cp_slice *slice)
{
    enum cp_shelf_outcome outcome = shelf_await(slice, manager_cpu(slice->shard));
    note(NOTE_LISTEN, (int)slice->number, (int)outcome, 0);
    if (outcome == CP_SHELF_DONE) /* a giver that pushed before it was set did not see it */
        return later(slice, collect);
    cp_core_not_listening(&slice->core);
    if (outcome == CP_SHELF_ELSEWHERE)
        return leave_cpu(slice);
    return outcome == CP_SHELF_NONEMPTY ? later(slice, take_one) : true;
}

static bool do_unlisten(struct cp_slice *slice)
{
    note(NOTE_UNLISTEN, (int)slice->number, 0, 0);
    slice->shelf.flags &= ~(uint32_t)CP_SHELF_WAITING;
    return true;
}

static bool do_open(struct cp_slice *slice, cp_slot *slot)
{
    check_open(slice, slot);
    worker_open(slot);
    return true;
}

static bool do_terminate(struct cp_slice *slice, cp_slot *slot, uint8_t reason)
{
    note(NOTE_TERMINATE, (int)slice->number, (int)slot->number, reason);
    check_terminate(slice, slot, reason);
    worker_terminate(slot);
    return true;
}

static bool do_finish(struct cp_slice *slice)
{
    note(NOTE_FINISH, (int)slice->number, 0, 0);
    check_finish(slice);
    cp_core_next(&slice->core, world.now, &slice->shard->action);
    if (slice->shard->action.what != CP_DO_NOTHING)
        broke("L5", "slice %u has finished and goes on", slice->number);
    slice_finished(slice);
    return false;
}

bool perform(struct cp_slice *slice, const struct cp_action *action)
{
    if (is_steal(action))
        return perform_steal(slice, action);
    switch (action->what) {
    case CP_DO_NOTHING: return false;
    case CP_DO_GRANT: return do_grant(slice, action);
    case CP_DO_REFUSE: return do_refuse(slice, action);
    case CP_DO_SHELVE: return do_shelve(slice, action->slot);
    case CP_DO_LISTEN: return do_listen(slice);
    case CP_DO_UNLISTEN: return do_unlisten(slice);
    case CP_DO_OPEN: return do_open(slice, action->slot);
    case CP_DO_REFRESH: refresh_one(slice); return true;
    case CP_DO_TERMINATE: return do_terminate(slice, action->slot, action->reason);
    case CP_DO_LOOK: look_at_all(slice); return true;
    case CP_DO_FETCH: fetch(slice); return true;
    case CP_DO_PING: ask_worker(slice, action->slot, REASON_PING); return true;
    case CP_DO_INFO: ask_worker(slice, action->slot, REASON_INFO); return true;
    case CP_DO_PUT_BACK: put_oldest(slice, action->slot); return true;
    case CP_DO_FINISH: return do_finish(slice);
    default: break;
    }
    broke("oracle", "slice %u: the core wants what nobody knows: %d", slice->number, (int)action->what);
}
