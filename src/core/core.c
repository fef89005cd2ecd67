/* core/core.c: the slice's state machine. See core.h for the contract and the law.
 *
 * Nothing is decided when an input arrives: inputs only move slots and requests between lists, and cp_core_next
 * reads the lists, in an order that is the policy: end what must end, serve who waits, then keep in stock, then
 * open. So every decision is made in one place, on the state as it is then. */
#include "core/core.h"

#include <corepool/worker.h>

#include "base/assert.h"
#include "base/clock.h"
#include "core/count.h"

/* Doubling stops here; 2^20 times any back-off is beyond every limit. */
#define BACKOFF_DOUBLINGS 20

/* --- counts as of one moment --------------------------------------------------------------------------------------- */

bool cp_core_snapshot(const struct cp_core *core, struct cp_core_counts *counts)
{
    uint32_t before = SEE(core->changes);
    *counts = (struct cp_core_counts){.quota = SEE(core->quota),
                                      .vacant = SEE(core->vacant),
                                      .opening = SEE(core->opening),
                                      .live = SEE(core->live),
                                      .closing = SEE(core->closing),
                                      .opens = SEE(core->opens),
                                      .open_failures = SEE(core->open_failures),
                                      .terminated = SEE(core->terminated),
                                      .stolen = SEE(core->stolen),
                                      .given = SEE(core->given)};
    return before % 2 == 0 && GET(core->changes) == before;
}

/* --- inputs ---------------------------------------------------------------------------------------------------------- */

void cp_core_init(struct cp_core *core, const struct cp_core_options *options, cp_slot *slots)
{
    *core = (struct cp_core){.options = *options, .random = options->seed | 1, .open_not_before = INT64_MIN};
    cp_list_init(&core->vacant_slots);
    cp_list_init(&core->idle_slots);
    cp_list_init(&core->doomed_slots);
    cp_list_init(&core->spare_slots);
    cp_list_init(&core->requests);
    cp_look_init(core);
    cp_steal_init(core);
    cp_evacuate_init(core);
    cp_shed_init(&core->shed, options->shed_target_ns, options->shed_interval_ns);
    core->target = options->quota;
    ADD(core->quota, options->quota);
    ADD(core->vacant, options->quota);
    for (uint32_t i = 0; i < options->quota; i++) {
        slots[i].phase = CP_VACANT;
        slots[i].pinged = 0;
        cp_list_init(&slots[i].link);
        cp_list_push_back(&core->vacant_slots, &slots[i].link);
    }
}

static struct cp_request *first_request(const struct cp_core *core)
{
    return cp_container(core->requests.next, struct cp_request, link);
}

static struct cp_request *last_request(const struct cp_core *core)
{
    return cp_container(core->requests.prev, struct cp_request, link);
}

static bool is_all_in(const struct cp_core *core)
{
    return GET(core->live) == core->idle + core->doomed;
}

bool cp_core_is_quiet(const struct cp_core *core)
{
    return cp_list_is_empty(&core->requests) && is_all_in(core);
}

/* Quiet but for requests that are about to be refused; that is to last, also for those that keep their place. */
static bool is_drained(const struct cp_core *core)
{
    return is_all_in(core) && (cp_list_is_empty(&core->requests) || first_request(core)->late);
}

void cp_core_request(struct cp_core *core, struct cp_request *request)
{
    cp_list_init(&request->link);
    request->late = core->draining && (!request->again || is_drained(core));
    if (request->again)
        cp_list_push_front(&core->requests, &request->link);
    else
        cp_list_push_back(&core->requests, &request->link);
    ADD(core->waiting, 1);
}

static void dequeue(struct cp_core *core, struct cp_request *request)
{
    cp_list_unlink(&request->link);
    ADD(core->waiting, -1u);
}

void cp_core_give_up(struct cp_core *core, struct cp_request *request)
{
    if (cp_list_is_empty(&request->link))
        core->owed--;
    else
        dequeue(core, request);
    if (GET(request->outcome) == CP_TIMED_OUT)
        ADD(core->timeouts, 1);
    else
        ADD(core->cancels, 1);
}

void cp_core_idle(struct cp_core *core, cp_slot *slot)
{
    cp_assert(slot->phase == CP_LIVE && cp_list_is_empty(&slot->link));
    cp_list_push_front(&core->idle_slots, &slot->link);
    ADD(core->idle, 1);
}

cp_slot *cp_core_oldest_idle(const struct cp_core *core)
{
    return cp_container(core->idle_slots.prev, cp_slot, link);
}

static void remove_idle(struct cp_core *core, cp_slot *slot)
{
    cp_list_unlink(&slot->link);
    ADD(core->idle, -1u);
}

void cp_core_idle_again(struct cp_core *core, cp_slot *slot)
{
    cp_list_push_back(&core->idle_slots, &slot->link);
    ADD(core->idle, 1);
}

cp_slot *cp_core_take_oldest_idle(struct cp_core *core)
{
    cp_slot *slot = cp_core_oldest_idle(core);
    remove_idle(core, slot);
    return slot;
}

void cp_core_doom(struct cp_core *core, cp_slot *slot, uint8_t reason)
{
    cp_assert(slot->phase == CP_LIVE && cp_list_is_empty(&slot->link));
    slot->doom = reason;
    atomic_store_explicit(&slot->item.doomed, 1, memory_order_relaxed); /* and is so already when it is evicted, too */
    cp_list_push_back(&core->doomed_slots, &slot->link);
    core->doomed++;
}

void cp_core_doom_idle(struct cp_core *core, cp_slot *slot, uint8_t reason)
{
    remove_idle(core, slot);
    cp_core_doom(core, slot, reason);
}

void cp_core_undecided(struct cp_core *core)
{
    core->owed++;
}

void cp_core_granted(struct cp_core *core, int64_t waited_ns)
{
    ADD(core->grants, 1);
    struct cp_histogram *waits = GET(core->waits);
    if (waits)
        cp_histogram_add(waits, waited_ns < 0 ? 0 : (uint64_t)waited_ns / 1000);
}

void cp_core_not_listening(struct cp_core *core)
{
    core->listening = false;
}

/* How many are to be open though no request wants them. */
static uint32_t stock(const struct cp_core *core)
{
    uint32_t eager = core->target > core->unstocked ? core->target - core->unstocked : 0;
    uint32_t least = core->options.warm < core->target ? core->options.warm : core->target;
    return core->options.lazy || eager < least ? least : eager;
}

void cp_core_opened(struct cp_core *core, cp_slot *slot)
{
    cp_assert(slot->phase == CP_OPENING);
    slot->phase = CP_LIVE;
    begin_change(core);
    ADD(core->opening, -1u);
    ADD(core->live, 1);
    end_change(core);
    core->failures = 0;
    core->open_not_before = INT64_MIN;
    if (GET(core->live) + GET(core->opening) > stock(core)) /* somebody has wanted a place that was closed as idle */
        core->unstocked -= core->unstocked > 0;
    cp_look_opened(core, slot);
    if (core->warming <= GET(core->live))
        core->warming = 0;
    if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed))
        cp_core_doom(core, slot, slot->doom);
    else
        cp_core_idle(core, slot);
}

static void vacate(struct cp_core *core, cp_slot *slot)
{
    slot->phase = CP_VACANT;
    cp_list_push_front(&core->vacant_slots, &slot->link);
    ADD(core->vacant, 1);
}

/* xorshift64*: enough for jitter, and the same on every run from the same seed. */
uint64_t cp_core_draw(struct cp_core *core)
{
    core->random ^= core->random >> 12;
    core->random ^= core->random << 25;
    core->random ^= core->random >> 27;
    return core->random * UINT64_C(0x2545F4914F6CDD1D);
}

/* Half the doubled wait is certain, the other half is drawn, so that slices which failed together do not come back
 * together. */
static int64_t backoff(struct cp_core *core)
{
    uint32_t doublings = core->failures - 1 < BACKOFF_DOUBLINGS ? core->failures - 1 : BACKOFF_DOUBLINGS;
    int64_t most = core->options.backoff_max_ns;
    int64_t wait = core->options.backoff_min_ns < most >> doublings ? core->options.backoff_min_ns << doublings : most;
    return wait - (int64_t)(cp_core_draw(core) % (uint64_t)(wait / 2 + 1));
}

void cp_core_open_failed(struct cp_core *core, cp_slot *slot, int64_t now_ns)
{
    cp_assert(slot->phase == CP_OPENING);
    begin_change(core);
    ADD(core->opening, -1u);
    ADD(core->open_failures, 1);
    vacate(core, slot);
    end_change(core);
    if (slot->round != core->round) /* began before the last failure: tells nothing new */
        return;
    core->round++;
    core->failures++;
    core->open_not_before = now_ns + backoff(core);
}

void cp_core_gone(struct cp_core *core, cp_slot *slot)
{
    cp_assert(slot->phase == CP_CLOSING);
    begin_change(core);
    ADD(core->closing, -1u);
    ADD(core->terminated, 1);
    vacate(core, slot);
    end_change(core);
}

static void end_live(struct cp_core *core, cp_slot *slot)
{
    slot->phase = CP_CLOSING;
    begin_change(core);
    ADD(core->live, -1u);
    ADD(core->closing, 1);
    end_change(core);
}

void cp_core_detach(struct cp_core *core, cp_slot *slot)
{
    cp_assert(slot->phase == CP_LIVE && cp_list_is_empty(&slot->link));
    slot->doom = COREPOOL_REASON_DETACHED;
    end_live(core, slot);
}

void cp_core_add(struct cp_core *core, cp_slot *slot)
{
    slot->phase = CP_VACANT;
    cp_list_push_back(&core->vacant_slots, &slot->link);
    begin_change(core);
    ADD(core->quota, 1);
    ADD(core->vacant, 1);
    end_change(core);
}

uint32_t cp_core_resize(struct cp_core *core, uint32_t target)
{
    core->target = target;
    core->warming = core->warming < target ? core->warming : target;
    if (core->warming <= GET(core->live)) /* that is reached now, and not to be kept */
        core->warming = 0;
    while (core->spare && GET(core->quota) < target) {
        cp_slot *slot = first_slot(&core->spare_slots);
        cp_list_unlink(&slot->link);
        core->spare--;
        cp_core_add(core, slot);
    }
    return GET(core->quota) < target ? target - GET(core->quota) : 0;
}

void cp_core_pause(struct cp_core *core, bool paused)
{
    if (core->paused && !paused) /* that they all waited is the pause's doing */
        cp_shed_empty(&core->shed);
    core->paused = paused;
}

void cp_core_drain(struct cp_core *core, bool draining)
{
    if (draining && !core->draining) /* those that an earlier drain had not yet refused wait like any other */
        for (struct cp_list *at = core->requests.next; at != &core->requests; at = at->next)
            cp_container(at, struct cp_request, link)->late = false;
    core->draining = draining;
}

void cp_core_warm(struct cp_core *core, uint32_t count)
{
    if (count > GET(core->live) && count > core->warming)
        core->warming = count;
}

void cp_core_refresh(struct cp_core *core)
{
    core->refreshing = true;
}

void cp_core_refreshed(struct cp_core *core)
{
    core->refreshing = false;
}

void cp_core_rest(struct cp_core *core, int64_t until_ns)
{
    core->open_not_before = core->open_not_before < until_ns ? until_ns : core->open_not_before;
}

void cp_core_close(struct cp_core *core, uint8_t reason)
{
    if (core->closed)
        return;
    core->closed = true;
    core->close_reason = reason;
}

void cp_core_stock_less(struct cp_core *core)
{
    core->unstocked += !core->options.lazy && core->unstocked < core->target;
}

/* How many more workers are to be opened now. After a failure one at a time tries, until one succeeds. Idle ones beside
 * requests are those of a paused core: they will do. */
static uint32_t wanted(const struct cp_core *core)
{
    uint32_t vacant = GET(core->vacant), opening = GET(core->opening), waiting = GET(core->waiting);
    uint32_t open = GET(core->live) + opening, coming = opening + core->idle;
    uint32_t want = waiting > coming ? waiting - coming : 0;
    uint32_t lacking = stock(core) > open ? stock(core) - open : 0;
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

void cp_core_terminate_next(struct cp_core *core, struct cp_action *action)
{
    cp_slot *slot = first_slot(&core->doomed_slots);
    cp_list_unlink(&slot->link);
    core->doomed--;
    end_live(core, slot);
    *action = (struct cp_action){.what = CP_DO_TERMINATE, .slot = slot, .reason = slot->doom};
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
    return core->refreshing && GET(core->opening) + GET(core->closing) == 0 && stock(core) <= GET(core->live);
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

static uint32_t length(const struct cp_list *list)
{
    uint32_t n = 0;
    for (const struct cp_list *at = list->next; at != list; at = at->next)
        n++;
    return n;
}

const char *cp_core_check(const struct cp_core *core)
{
    if (GET(core->vacant) + GET(core->opening) + GET(core->live) + GET(core->closing) != GET(core->quota))
        return "L1: vacant + opening + live + closing is not the quota";
    if (length(&core->vacant_slots) != GET(core->vacant))
        return "L1: the list of vacant slots does not match its count";
    if (length(&core->spare_slots) != core->spare)
        return "L1: the list of spare slots does not match its count";
    if (GET(core->quota) < core->target)
        return "L1: the quota is less than the slice's share of the size";
    if (length(&core->idle_slots) != core->idle || length(&core->doomed_slots) != core->doomed)
        return "L1: the list of idle or doomed slots does not match its count";
    if (length(&core->look.held_slots) != core->look.held)
        return "L1: the list of slots that a visit holds does not match its count";
    if (length(&core->requests) != GET(core->waiting))
        return "L5: the queue does not match its count";
    if (core->idle && GET(core->waiting) && !core->closed && !core->paused)
        return "L3: a request waits beside an idle worker";
    const char *broken = cp_steal_check(core);
    return broken ? broken : cp_evacuate_check(core);
}
