/* core/core.c: the slice's state machine: its inputs, its counts and its check. See core.h for the contract and the law.
 *
 * Nothing is decided when an input arrives: inputs only move slots and requests between lists, and core/decide.c reads the
 * lists. So every decision is made in one place, on the state as it is then. */
#include "core/core.h"

#include <corepool/worker.h>

#include "base/assert.h"
#include "base/clock.h"
#include "core/queue.h"

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
uint32_t cp_core_stock(const struct cp_core *core)
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
    if (GET(core->live) + GET(core->opening) > cp_core_stock(core)) /* somebody has wanted a place that was closed as idle */
        cp_core_restock(core);
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

void cp_core_terminate_next(struct cp_core *core, struct cp_action *action)
{
    cp_slot *slot = first_slot(&core->doomed_slots);
    cp_list_unlink(&slot->link);
    core->doomed--;
    end_live(core, slot);
    *action = (struct cp_action){.what = CP_DO_TERMINATE, .slot = slot, .reason = slot->doom};
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

void cp_core_restock(struct cp_core *core)
{
    core->unstocked -= core->unstocked > 0;
}

/* --- check ----------------------------------------------------------------------------------------------------------- */

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
