/* core/give.c: what a slice gives to neighbours that have asked: idle workers, vacant places, and while its own requests wait one
 * unit now and then, to who presses more. See give.h, and steal.h for the whole. */
#include "core/give.h"

#include <corepool/worker.h>

#include "core/count.h"

/* --- who presses more ------------------------------------------------------------------------------------------------ */

/* Whether the asker is so much worse off that the giver's own requests stand back for one unit: twice as many wait for each
 * worker there as it would be here, afterwards. Not both ways at once, so a unit does not go to and fro. Who has no place at
 * all gets one from whoever has two: nobody starves for ever beside a queue. */
bool cp_give_outweighs(const struct cp_core *asker, const struct cp_core *giver)
{
    uint64_t mine = GET(giver->quota), theirs = GET(asker->quota);
    uint64_t here = GET(giver->waiting), there = GET(asker->waiting);
    if (mine < 2)
        return false;
    return theirs == 0 || there * (mine - 1) > 2 * (here ? here : 1) * (theirs + 1);
}

/* --- giving ---------------------------------------------------------------------------------------------------------------- */

void cp_steal_asked(struct cp_core *core, struct cp_want *want, uint32_t shelved, int64_t now_ns)
{
    struct cp_steal *steal = &core->steal;
    uint32_t half = (shelved + core->idle + 1) / 2;
    want->asked_at = want->weigh_at = now_ns;
    want->share = half ? half : 1;
    if (cp_list_is_empty(&steal->asked))
        steal->cold_look_at = now_ns;
    cp_list_push_back(&steal->asked, &want->link);
    if (atomic_load(&want->withdrawn)) /* on its way, and the nudge may have been here before */
        steal->recheck = true;
}

void cp_steal_nudged(struct cp_core *core)
{
    core->steal.recheck = !cp_list_is_empty(&core->steal.asked);
}

static bool answer(struct cp_want *want, struct cp_action *action)
{
    cp_list_unlink(&want->link);
    *action = (struct cp_action){.what = CP_DO_ANSWER, .want = want};
    return true;
}

/* True when one was. */
static bool answer_withdrawn(struct cp_core *core, struct cp_action *action)
{
    struct cp_steal *steal = &core->steal;
    for (struct cp_list *at = steal->asked.next; steal->recheck && at != &steal->asked; at = at->next) {
        struct cp_want *want = cp_container(at, struct cp_want, link);
        if (atomic_load(&want->withdrawn))
            return answer(want, action);
    }
    steal->recheck = false;
    return false;
}

/* Whether the asker still seeks units that nobody has claimed. */
static bool is_needed(const struct cp_want *want)
{
    const struct cp_steal *asker = &want->asker->steal;
    return (int32_t)(SEE(asker->sought) - GET(asker->claimed)) > 0;
}

/* One unit is given now: by this giver, as others see it. */
static bool claim(struct cp_want *want)
{
    struct cp_steal *asker = &want->asker->steal;
    uint32_t claimed = GET(asker->claimed);
    while ((int32_t)(SEE(asker->sought) - claimed) > 0)
        if (atomic_compare_exchange_weak(&asker->claimed, &claimed, claimed + 1))
            return true;
    return false;
}

/* A slice that is to become smaller has nothing to give: what goes there goes for good. */
static bool may_give(const struct cp_core *core)
{
    return !core->closed && !core->paused && !core->steal.held && GET(core->quota) == core->target && core->target > 0 &&
           !cp_list_is_empty(&core->steal.asked);
}

static bool is_full(const struct cp_want *want)
{
    return cp_want_units(want) >= want->wanted || (want->workers > 0 && want->workers >= want->share);
}

static void put_by_one(struct cp_core *core, cp_slot *slot)
{
    slot->phase = CP_VACANT;
    cp_list_push_front(&core->spare_slots, &slot->link);
    core->spare++;
    core->target--;
}

/* A slice is not to have more open than it has places: else its pool would never be warm. */
static bool cools(struct cp_core *core)
{
    bool cooler = core->warming > core->target;
    core->warming -= cooler;
    return cooler;
}

void cp_steal_move_worker(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action)
{
    cp_slot *slot = cp_core_take_oldest_idle(core);
    want->moved[want->workers++] = (struct cp_moved){.since = slot->since,
                                                     .expires_at = slot->expires_at,
                                                     .seen_at = cp_look_idle_since(slot, now_ns),
                                                     .stale = slot->stale,
                                                     .validate = cp_look_validates(slot),
                                                     .fd = -1};
    put_by_one(core, slot);
    cools(core); /* the worker is open where it goes */
    begin_change(core);
    ADD(core->live, -1u);
    ADD(core->quota, -1u);
    ADD(core->given, 1);
    end_change(core);
    *action = (struct cp_action){.what = CP_DO_MOVE, .slot = slot, .want = want};
}

void cp_steal_move_place(struct cp_core *core, struct cp_want *want)
{
    cp_slot *slot = first_slot(&core->vacant_slots);
    cp_list_unlink(&slot->link);
    put_by_one(core, slot);
    want->warmth += cools(core);
    begin_change(core);
    ADD(core->vacant, -1u);
    ADD(core->quota, -1u);
    ADD(core->given, 1);
    end_change(core);
    cp_core_restock(core);
    want->places++;
}

/* Nobody waits here; also what was to be filled in stock is better filled where somebody does. */
static void move_free_places(struct cp_core *core, struct cp_want *want)
{
    while (want->takes_places && cp_want_units(want) < want->wanted && GET(core->vacant) && claim(want))
        cp_steal_move_place(core, want);
}

/* --- giving what may move -------------------------------------------------------------------------------------------------- */

/* Nobody waits here. What is on the shelf comes by CP_DO_LISTEN, one by one, the oldest first. */
static bool give(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action)
{
    if (core->idle && claim(want)) {
        cp_steal_move_worker(core, want, now_ns, action);
        return true;
    }
    if (core->idle)
        return answer(want, action);
    if (!core->listening)
        return false;
    move_free_places(core, want);
    return cp_want_units(want) && answer(want, action);
}

/* --- giving the places of bound workers ------------------------------------------------------------------------------------- */

/* Whether that is the coldest for long enough; else it is so from now on. */
static bool is_cold(struct cp_core *core, const cp_slot *slot, int64_t now_ns)
{
    struct cp_steal *steal = &core->steal;
    uint64_t stamp = cp_stamp_generation(cp_slot_stamp(slot));
    if (steal->cold == slot && steal->cold_stamp == stamp)
        return now_ns - steal->cold_since >= CP_STEAL_BOUND_REST_NS;
    steal->cold = (cp_slot *)slot;
    steal->cold_stamp = stamp;
    steal->cold_since = now_ns;
    return false;
}

/* The asker cannot wait for one that is cold. */
static bool is_urgent(const struct cp_core *core, const struct cp_want *want, int64_t now_ns)
{
    return now_ns - want->asked_at >= CP_STEAL_BOUND_REST_NS && is_needed(want) && cp_give_outweighs(want->asker, core);
}

/* A place that is becoming vacant will do. */
static bool is_retiring(const struct cp_core *core)
{
    return core->doomed + GET(core->closing) > 0;
}

/* Whether a bound worker is to go for the want, cold or not. */
static bool may_retire(const struct cp_core *core, const struct cp_want *want, int64_t now_ns)
{
    return !is_retiring(core) && is_urgent(core, want, now_ns);
}

static bool retire(struct cp_core *core, struct cp_action *action)
{
    cp_slot *slot = cp_core_take_oldest_idle(core);
    core->steal.cold = NULL;
    cp_core_doom(core, slot, COREPOOL_REASON_MOVED);
    cp_core_terminate_next(core, action);
    return true;
}

static bool give_bound(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action)
{
    struct cp_steal *steal = &core->steal;
    move_free_places(core, want);
    if (cp_want_units(want))
        return answer(want, action);
    if (is_retiring(core))
        return false;
    if (core->idle && is_urgent(core, want, now_ns))
        return retire(core, action);
    if (now_ns < steal->cold_look_at)
        return false;
    steal->cold_look_at = now_ns + CP_STEAL_BOUND_REST_NS;
    if (core->idle)
        return is_cold(core, cp_core_oldest_idle(core), now_ns) && retire(core, action);
    if (core->listening) /* then the shelf is empty */
        return false;
    action->what = CP_DO_BRING;
    return true;
}

bool cp_steal_brought(struct cp_core *core, cp_slot *slot, int64_t now_ns)
{
    if (!slot) {
        core->steal.cold = NULL;
        return true;
    }
    if (!is_cold(core, slot, now_ns))
        return false;
    core->steal.cold = NULL;
    cp_core_doom(core, slot, COREPOOL_REASON_MOVED);
    return true;
}

/* --- giving, as the core goes about it --------------------------------------------------------------------------------------- */

/* One unit, though requests wait here. */
static bool give_pressed(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action)
{
    if (core->options.movable && core->idle && claim(want)) {
        cp_steal_move_worker(core, want, now_ns, action);
        return true;
    }
    if (want->takes_places && GET(core->vacant) && claim(want)) {
        cp_steal_move_place(core, want);
        return answer(want, action);
    }
    bool retires = !core->options.movable && core->idle && may_retire(core, want, now_ns);
    return retires && retire(core, action);
}

/* Requests wait here: whether it is time for a look at the asker. */
static bool is_to_weigh(struct cp_want *want, int64_t now_ns)
{
    bool due = now_ns >= want->weigh_at;
    if (due)
        want->weigh_at = now_ns + CP_STEAL_WEIGH_NS;
    return due;
}

/* Bound ones are retired for nobody who has not waited for long. */
static bool would_give(const struct cp_core *core, const struct cp_want *want, int64_t now_ns)
{
    return core->options.movable ? is_needed(want) && cp_give_outweighs(want->asker, core)
                                 : may_retire(core, want, now_ns);
}

/* It is in a callback, say. */
static bool is_thread_late(struct cp_steal *steal, int64_t now_ns)
{
    if (steal->left_at == 0)
        steal->left_at = now_ns;
    return now_ns - steal->left_at >= CP_STEAL_BOUND_NS;
}

bool cp_steal_outweighs(struct cp_core *core, int64_t now_ns)
{
    if (core->idle != 1 || GET(core->waiting) == 0 || !may_give(core))
        return false;
    struct cp_want *want = cp_want_first(&core->steal.asked);
    if (now_ns < want->weigh_at)
        return false;
    bool leaves = would_give(core, want, now_ns) && !is_thread_late(&core->steal, now_ns);
    if (!leaves) /* else the look stays due, for the thread */
        want->weigh_at = now_ns + CP_STEAL_WEIGH_NS;
    return leaves;
}

bool cp_steal_next_give(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    core->steal.left_at = 0;
    if (!may_give(core))
        return false;
    struct cp_want *want = cp_want_first(&core->steal.asked);
    bool waits = GET(core->waiting) > 0;
    if (is_full(want) || (waits && cp_want_units(want)))
        return answer(want, action);
    if (waits && !is_to_weigh(want, now_ns))
        return false;
    if (!is_needed(want))
        return answer(want, action);
    if (waits)
        return cp_give_outweighs(want->asker, core) && give_pressed(core, want, now_ns, action);
    return core->options.movable ? give(core, want, now_ns, action) : give_bound(core, want, now_ns, action);
}

void cp_steal_turn(struct cp_core *core)
{
    struct cp_list *asked = &core->steal.asked, *first = asked->next;
    if (first->next == asked) /* none, or one */
        return;
    cp_list_unlink(first);
    cp_list_push_back(asked, first);
}

bool cp_steal_listens(const struct cp_core *core, int64_t now_ns)
{
    if (!may_give(core))
        return false;
    return core->options.movable || may_retire(core, cp_want_first(&core->steal.asked), now_ns);
}

/* --- for core/steal.c ----------------------------------------------------------------------------------------------------------- */

bool cp_give_next_first(struct cp_core *core, bool ends, struct cp_action *action)
{
    if (answer_withdrawn(core, action))
        return true;
    if (cp_list_is_empty(&core->steal.asked))
        return false;
    struct cp_want *want = cp_want_first(&core->steal.asked);
    bool over = ends || (cp_want_units(want) && !may_give(core)); /* it gave its last, or pauses */
    return over && answer(want, action);
}

bool cp_give_wants_thread(const struct cp_core *core, int64_t now_ns)
{
    if (!may_give(core))
        return false;
    const struct cp_want *want = cp_want_first(&core->steal.asked);
    bool weighed = GET(core->waiting) > 0 && now_ns < want->weigh_at;
    return core->idle || GET(core->vacant) || cp_want_units(want) || (!weighed && !is_needed(want));
}

int64_t cp_give_wake_at(const struct cp_core *core, int64_t now_ns)
{
    int64_t at = core->steal.cold_look_at;
    return !core->options.movable && may_give(core) && at > now_ns ? at : CP_NEVER;
}
