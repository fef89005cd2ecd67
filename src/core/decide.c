/* core/decide.c: what a slice does next: reads the core's lists, in an order that is the policy: end what must end, serve who
 * waits, then keep in stock, then open. See core.h; its inputs are in core.c. */
#include "core/core.h"

#include <corepool/worker.h>

#include "base/clock.h"
#include "core/queue.h"

/* How many more workers are to be opened now. After a failure one at a time tries, until one succeeds. Idle ones beside
 * requests are those of a paused core: they will do. */
static uint32_t wanted(const struct cp_core *core)
{
    uint32_t vacant = GET(core->vacant), opening = GET(core->opening), waiting = GET(core->waiting);
    uint32_t open = GET(core->live) + opening, coming = opening + core->idle;
    uint32_t want = waiting > coming ? waiting - coming : 0;
    uint32_t lacking = cp_core_stock(core) > open ? cp_core_stock(core) - open : 0;
    uint32_t cold = core->warming > open ? core->warming - open : 0;
    uint32_t at_once = core->failures ? 1 : core->options.max_opening;
    uint32_t room = at_once > opening ? at_once - opening : 0;
    if (core->closed)
        return 0;
    want = want > lacking ? want : lacking;
    want = want > cold ? want : cold;
    want = want < vacant ? want : vacant;
    return want < room ? want : room;
}

static void refuse(struct cp_core *core, struct cp_request *request, enum cp_outcome outcome, struct cp_action *action)
{
    dequeue(core, request);
    if (outcome == CP_OVERLOADED || outcome == CP_SHED)
        ADD(core->sheds, 1);
    *action = (struct cp_action){.what = CP_DO_REFUSE, .request = request, .outcome = outcome};
}

static cp_slot *newest_idle(const struct cp_core *core)
{
    return cp_container(core->idle_slots.next, cp_slot, link);
}

bool cp_core_is_crowded(const struct cp_core *core)
{
    return GET(core->live) == GET(core->quota) && GET(core->waiting) && core->listening && !core->idle && !core->doomed &&
           !core->closed && !cp_core_holds(core) && !core->options.max_waiting && !core->options.shed_target_ns &&
           !core->options.managed && cp_list_is_empty(&core->steal.asked) && !GET(core->evacuation.on);
}

void cp_core_crowd(struct cp_core *core, int64_t now_ns)
{
    cp_steal_update(core, now_ns);
}

struct cp_request *cp_core_next_of_crowd(struct cp_core *core, int64_t now_ns)
{
    struct cp_request *request = first_request(core);
    if (request == last_request(core))
        return NULL;
    dequeue(core, request);
    cp_steal_update(core, now_ns);
    return request;
}

static void grant_next(struct cp_core *core, struct cp_action *action)
{
    struct cp_request *request = first_request(core);
    dequeue(core, request);
    *action = (struct cp_action){.what = CP_DO_GRANT, .request = request};
    action->slot = core->options.fifo ? cp_core_oldest_idle(core) : newest_idle(core);
    remove_idle(core, action->slot);
}

/* Who keeps its place has been through this. */
static void serve_next(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    struct cp_request *request = first_request(core);
    bool last = request == last_request(core);
    if (!request->again && cp_shed_head(&core->shed, now_ns - request->posted_at, last, now_ns))
        refuse(core, request, CP_SHED, action);
    else
        grant_next(core, action);
    cp_steal_turn(core);
}

/* Those that came after the drain began stand behind those that it is to serve. */
static bool has_late(const struct cp_core *core)
{
    return !cp_list_is_empty(&core->requests) && core->draining && last_request(core)->late;
}

/* The newest go, but none that keeps its place. */
static bool is_overloaded(const struct cp_core *core)
{
    return core->options.max_waiting && GET(core->waiting) > core->options.max_waiting && !last_request(core)->again;
}

static void open_next(struct cp_core *core, struct cp_action *action)
{
    cp_slot *slot = first_slot(&core->vacant_slots);
    cp_list_unlink(&slot->link);
    cp_slot_forget(slot);
    slot->stale = false;
    slot->phase = CP_OPENING;
    slot->round = core->round;
    begin_change(core);
    ADD(core->vacant, -1u);
    ADD(core->opening, 1);
    ADD(core->opens, 1);
    end_change(core);
    *action = (struct cp_action){.what = CP_DO_OPEN, .slot = slot};
}

/* The oldest of the idle goes to the shelf first, so that the newest ends on top. */
static void shelve_next(struct cp_core *core, struct cp_action *action)
{
    *action = (struct cp_action){.what = CP_DO_SHELVE, .slot = cp_core_take_oldest_idle(core)};
}

static bool next_while_closed(struct cp_core *core, struct cp_action *action)
{
    if (core->doomed)
        return cp_core_terminate_next(core, action), true;
    if (!core->done && !core->owed && cp_steal_is_home(core) && GET(core->vacant) == GET(core->quota)) {
        core->done = true;
        *action = (struct cp_action){.what = CP_DO_FINISH};
        return true;
    }
    return false;
}

/* What closing asks of any thread. */
static bool refuse_while_closed(struct cp_core *core, struct cp_action *action)
{
    while (core->idle)
        cp_core_doom_idle(core, first_slot(&core->idle_slots), core->close_reason);
    if (cp_list_is_empty(&core->requests))
        return false;
    refuse(core, first_request(core), CP_CLOSED, action);
    return true;
}

/* Vacant slots above the target are put by. True: there were some. */
static bool put_by(struct cp_core *core)
{
    bool any = false;
    while (GET(core->quota) > core->target && GET(core->vacant)) {
        cp_slot *slot = first_slot(&core->vacant_slots);
        cp_list_unlink(&slot->link);
        cp_list_push_front(&core->spare_slots, &slot->link);
        core->spare++;
        begin_change(core);
        ADD(core->vacant, -1u);
        ADD(core->quota, -1u);
        end_change(core);
        cp_core_restock(core);
        any = true;
    }
    return any;
}

/* Whether more workers must go than are on their way. */
static bool is_too_large(const struct cp_core *core)
{
    uint32_t quota = GET(core->quota);
    return quota > core->target && quota - core->target > core->doomed + GET(core->closing);
}

bool cp_core_holds(const struct cp_core *core)
{
    return core->paused || core->draining || is_too_large(core);
}

/* One at a time: none goes before the last has been replaced, as far as this core replaces at all. */
static bool may_refresh(const struct cp_core *core)
{
    return core->refreshing && GET(core->opening) + GET(core->closing) == 0 && cp_core_stock(core) <= GET(core->live);
}

bool cp_core_brings_oldest(const struct cp_core *core)
{
    return cp_core_holds(core) || cp_list_is_empty(&core->requests);
}

static bool is_shelving(const struct cp_core *core, int64_t now_ns)
{
    return core->idle && cp_list_is_empty(&core->requests) && !cp_core_holds(core) && !core->options.managed &&
           !cp_steal_listens(core, now_ns) && !cp_evacuate_listens(core, now_ns);
}

static void next_anywhere(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    bool requests = !cp_list_is_empty(&core->requests), holds = cp_core_holds(core);
    bool asked = cp_steal_listens(core, now_ns) || cp_evacuate_listens(core, now_ns);
    if (has_late(core)) {
        refuse(core, last_request(core), CP_DRAINING, action);
    } else if (requests && core->idle && !core->paused) {
        serve_next(core, now_ns, action);
    } else if ((requests || holds || (asked && !core->idle)) && !core->listening) {
        core->listening = true;
        action->what = CP_DO_LISTEN;
    } else if (is_overloaded(core)) {
        refuse(core, last_request(core), CP_OVERLOADED, action);
    } else if (!requests && !holds && !asked && core->listening && !core->options.managed) {
        core->listening = false;
        action->what = CP_DO_UNLISTEN;
    }
}

static void next_on_thread(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    if (cp_look_is_due(core, now_ns)) {
        action->what = CP_DO_LOOK;
    } else if (is_shelving(core, now_ns)) {
        shelve_next(core, action);
    } else if (may_refresh(core)) {
        action->what = CP_DO_REFRESH;
    } else if (wanted(core) && now_ns >= core->open_not_before) {
        open_next(core, action);
    } else {
        cp_steal_next_ask(core, now_ns, action);
    }
}

/* What needs no action. */
static void settle(struct cp_core *core, int64_t now_ns)
{
    if (cp_list_is_empty(&core->requests))
        cp_shed_empty(&core->shed);
    if (put_by(core)) /* a slice that has the size that it was to have may starve */
        cp_steal_update(core, now_ns);
    while (core->idle && is_too_large(core)) /* before who waits: else a busy slice would never become smaller */
        cp_core_doom_idle(core, cp_core_oldest_idle(core), COREPOOL_REASON_RESIZED);
}

void cp_core_next(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    *action = (struct cp_action){.what = CP_DO_NOTHING};
    if (cp_visit_next(core, now_ns, action))
        return;
    cp_steal_update(core, now_ns);
    cp_evacuate_update(core, now_ns);
    if (cp_evacuate_next_first(core, action) || cp_steal_next_first(core, action))
        return;
    if (core->closed) {
        if (!refuse_while_closed(core, action))
            next_while_closed(core, action);
        return;
    }
    settle(core, now_ns);
    if (core->doomed)
        cp_core_terminate_next(core, action);
    else if (!cp_steal_next_give(core, now_ns, action) && !cp_evacuate_next(core, now_ns, action))
        next_anywhere(core, now_ns, action);
    if (action->what == CP_DO_NOTHING)
        next_on_thread(core, now_ns, action);
}

/* Whether cp_core_next would have more to do than cp_core_next_anywhere does. */
static bool wants_thread(const struct cp_core *core, int64_t now_ns)
{
    return core->doomed || core->closed || core->look.stage != CP_VISIT_NONE || cp_look_is_due(core, now_ns) ||
           may_refresh(core) || (wanted(core) && now_ns >= core->open_not_before) || cp_steal_wants_thread(core, now_ns) ||
           cp_evacuate_wants_thread(core, now_ns);
}

void cp_core_next_anywhere(struct cp_core *core, int64_t now_ns, struct cp_action *action, bool *left)
{
    bool leaves = false;
    *action = (struct cp_action){.what = CP_DO_NOTHING};
    cp_steal_update(core, now_ns);
    cp_evacuate_update(core, now_ns);
    if (core->closed) {
        refuse_while_closed(core, action);
    } else {
        settle(core, now_ns);
        leaves = cp_steal_outweighs(core, now_ns);
        if (!leaves)
            next_anywhere(core, now_ns, action);
        if (action->what == CP_DO_NOTHING && is_shelving(core, now_ns))
            shelve_next(core, action);
    }
    if (action->what == CP_DO_NOTHING && (leaves || wants_thread(core, now_ns)))
        *left = true;
}

int64_t cp_core_wake_at(const struct cp_core *core, int64_t now_ns)
{
    int64_t open_at = wanted(core) && core->open_not_before > now_ns ? core->open_not_before : CP_NEVER;
    int64_t look_at = core->closed ? CP_NEVER : cp_look_due_at(core), steal_at = cp_steal_wake_at(core, now_ns);
    int64_t push_at = cp_evacuate_wake_at(core, now_ns);
    steal_at = steal_at < push_at ? steal_at : push_at;
    open_at = open_at < look_at ? open_at : look_at;
    return open_at < steal_at ? open_at : steal_at;
}
