/* core/steal.c: who is asked for workers, what is given, and what becomes of it. See steal.h. */
#include "core/steal.h"

#include <corepool/worker.h>

#include "base/assert.h"
#include "core/count.h"

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static uint32_t less(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void cp_steal_init(struct cp_core *core)
{
    cp_list_init(&core->steal.back);
    cp_list_init(&core->steal.asked);
    core->steal.round_at = INT64_MIN;
    core->steal.sated_at = INT64_MIN / 2; /* room for a difference */
}

/* --- who presses more ------------------------------------------------------------------------------------------------ */

/* Whether the asker is so much worse off that the giver's own requests stand back for one unit: twice as many wait for each
 * worker there as it would be here, afterwards. Not both ways at once, so a unit does not go to and fro. Who has no place at all gets one
 * from whoever has two: nobody starves for ever beside a queue. */
static bool outweighs(const struct cp_core *asker, const struct cp_core *giver)
{
    uint64_t mine = GET(giver->quota), theirs = GET(asker->quota);
    uint64_t here = GET(giver->waiting), there = GET(asker->waiting);
    if (mine < 2)
        return false;
    return theirs == 0 || there * (mine - 1) > 2 * (here ? here : 1) * (theirs + 1);
}

/* --- asking ------------------------------------------------------------------------------------------------------------ */

static bool may_starve(const struct cp_core *core)
{
    return core->options.steals && !core->closed && !core->paused && !core->steal.held && GET(core->quota) == core->target &&
           !(core->steal.wants && core->steal.count == 0);
}

/* Vacant places are as good as workers, unless opens fail. Of a bound class nothing else can come. */
static bool counts_vacant(const struct cp_core *core, int64_t now_ns)
{
    return !core->options.movable || (core->failures == 0 && core->open_not_before <= now_ns);
}

static uint32_t lack_of(const struct cp_core *core, int64_t now_ns)
{
    uint32_t served = core->idle + GET(core->opening) + (counts_vacant(core, now_ns) ? GET(core->vacant) : 0);
    uint32_t waiting = GET(core->waiting);
    return may_starve(core) && waiting > served ? waiting - served : 0;
}

static void begin_round(struct cp_steal *steal)
{
    steal->rank = steal->hoped = 0;
    steal->standing = false;
}

static void hurry(struct cp_steal *steal)
{
    steal->stand_most = 1;
    steal->round_ns = CP_STEAL_REST_NS;
}

void cp_steal_update(struct cp_core *core, int64_t now_ns)
{
    struct cp_steal *steal = &core->steal;
    uint32_t lack = lack_of(core, now_ns);
    /* Release: who claims what is sought finds the requests that it is for in `waiting`. */
    if (GET(steal->sought) != steal->arrived + lack)
        atomic_store_explicit(&steal->sought, steal->arrived + lack, memory_order_release);
    if (steal->starving == (lack > 0))
        return;
    steal->starving = lack > 0;
    if (lack == 0) {
        steal->sated_at = now_ns;
        return;
    }
    begin_round(steal);
    if (now_ns - CP_STEAL_ROUND_MAX_NS >= steal->sated_at)
        hurry(steal);
}

void cp_steal_meet(struct cp_core *core, struct cp_want **wants, uint32_t count)
{
    core->steal.wants = wants;
    core->steal.count = count;
}

void cp_steal_rest(struct cp_core *core, int64_t until_ns)
{
    begin_round(&core->steal);
    core->steal.round_at = until_ns;
}

static uint32_t wanted_now(const struct cp_steal *steal, const struct cp_core *core, int64_t now_ns)
{
    uint32_t lack = lack_of(core, now_ns), hoped = steal->standing ? 0 : steal->hoped;
    return less(lack > hoped ? lack - hoped : 0, CP_STEAL_BATCH);
}

uint32_t cp_steal_room(const struct cp_core *core, const struct cp_want *want)
{
    uint32_t has = GET(core->quota) + core->spare;
    uint32_t coming = core->steal.awaited + core->evacuation.awaited + want->wanted;
    uint32_t room = less(GET(core->quota) + coming, core->options.most);
    return room > has ? room : has;
}

/* Workers that nobody uses, or places that are not needed there. */
static bool has_visibly(const struct cp_want *want, uint32_t shelved)
{
    const struct cp_core *neighbour = want->neighbour;
    uint32_t waiting = GET(neighbour->waiting);
    return shelved > 0 || GET(neighbour->idle) > waiting || (want->takes_places && GET(neighbour->vacant) > waiting);
}

/* What comes back there next would lie idle, or is needed less. */
static bool may_stand(const struct cp_want *want)
{
    return GET(want->neighbour->waiting) == 0 || outweighs(want->asker, want->neighbour);
}

bool cp_steal_lend(struct cp_core *core, struct cp_want *want, uint32_t shelved)
{
    struct cp_steal *steal = &core->steal;
    if (GET(want->neighbour->quota) == 0 || !(has_visibly(want, shelved) || (steal->standing && may_stand(want))))
        return false;
    if (steal->standing)
        steal->stand_left--;
    else
        steal->hoped += want->wanted;
    want->lent = true;
    steal->lent++;
    steal->awaited += want->wanted;
    ADD(core->asks, 1);
    return true;
}

static bool may_ask(const struct cp_steal *steal, const struct cp_want *want, int64_t now_ns)
{
    return !want->lent && !want->pushed && now_ns >= want->rest_until && (!steal->standing || now_ns >= want->stand_until);
}

/* Who is next in this round; NULL: it is over. */
static struct cp_want *next_neighbour(struct cp_core *core, int64_t now_ns)
{
    struct cp_steal *steal = &core->steal;
    while (wanted_now(steal, core, now_ns) > 0) {
        if (steal->rank == steal->count && !steal->standing) {
            steal->standing = true;
            steal->rank = 0;
            steal->stand_left = steal->stand_most;
        }
        if (steal->rank == steal->count || (steal->standing && steal->stand_left == 0))
            return NULL;
        struct cp_want *want = steal->wants[steal->rank++];
        if (may_ask(steal, want, now_ns))
            return want;
    }
    return NULL;
}

/* What those asked have covers the lack, or all were asked in vain. */
static void end_round(struct cp_steal *steal, int64_t now_ns)
{
    steal->round_at = now_ns + steal->round_ns;
    if (steal->standing) {
        steal->round_ns = sooner(2 * steal->round_ns, CP_STEAL_ROUND_MAX_NS);
        steal->stand_most = less(2 * steal->stand_most, steal->count);
    }
    begin_round(steal);
}

static bool withdraw_next(struct cp_core *core, struct cp_action *action)
{
    struct cp_steal *steal = &core->steal;
    if (steal->lent == steal->withdrawn)
        return false;
    uint32_t i = 0;
    while (!steal->wants[i]->lent || GET(steal->wants[i]->withdrawn))
        i++;
    /* Before the nudge: whoever sees that, sees this. */
    atomic_store(&steal->wants[i]->withdrawn, true);
    steal->withdrawn++;
    ADD(core->withdrawals, 1);
    *action = (struct cp_action){.what = CP_DO_WITHDRAW, .want = steal->wants[i]};
    return true;
}

static bool ask_next(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    struct cp_steal *steal = &core->steal;
    if (now_ns < steal->round_at)
        return false;
    if (!steal->wants) {
        action->what = CP_DO_MEET;
        return true;
    }
    struct cp_want *want = next_neighbour(core, now_ns);
    if (!want) {
        end_round(steal, now_ns);
        return false;
    }
    want->wanted = wanted_now(steal, core, now_ns);
    want->takes_places = GET(core->vacant) == 0 || counts_vacant(core, now_ns);
    *action = (struct cp_action){.what = CP_DO_ASK, .want = want};
    return true;
}

bool cp_steal_next_ask(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    if (core->steal.starving)
        return ask_next(core, now_ns, action);
    return core->steal.lent && now_ns - CP_STEAL_LINGER_NS >= core->steal.sated_at && withdraw_next(core, action);
}

/* --- what comes back ----------------------------------------------------------------------------------------------------- */

void cp_steal_answered(struct cp_core *core, struct cp_want *want)
{
    cp_assert(want->lent && cp_list_is_empty(&want->link));
    cp_list_push_back(&core->steal.back, &want->link);
}

static bool adopt_next(struct cp_core *core, struct cp_action *action)
{
    if (cp_list_is_empty(&core->steal.back))
        return false;
    *action = (struct cp_action){.what = CP_DO_ADOPT, .want = cp_want_first(&core->steal.back)};
    cp_list_unlink(&action->want->link);
    return true;
}

cp_slot *cp_steal_take_spare(struct cp_core *core)
{
    if (core->spare == 0)
        return NULL;
    cp_slot *slot = first_slot(&core->spare_slots);
    cp_list_unlink(&slot->link);
    core->spare--;
    return slot;
}

void cp_steal_adopt(struct cp_core *core, cp_slot *slot, const struct cp_moved *moved)
{
    cp_list_init(&slot->link); /* a new one may have been in a list of an earlier slice's */
    slot->phase = CP_LIVE;
    slot->since = moved->since;
    slot->expires_at = moved->expires_at;
    slot->pinged = 0;
    slot->stale = moved->stale;
    cp_slot_forget(slot);
    cp_look_adopted(slot, moved->seen_at, moved->validate);
    if (moved->stale)
        cp_core_refresh(core);
    core->target++;
    begin_change(core);
    ADD(core->quota, 1);
    ADD(core->live, 1);
    ADD(core->stolen, 1);
    end_change(core);
    cp_core_idle(core, slot);
}

void cp_steal_adopt_place(struct cp_core *core, cp_slot *slot)
{
    slot->phase = CP_VACANT;
    cp_list_push_back(&core->vacant_slots, &slot->link);
    core->target++;
    begin_change(core);
    ADD(core->quota, 1);
    ADD(core->vacant, 1);
    ADD(core->stolen, 1);
    end_change(core);
}

void cp_steal_adopt_warmth(struct cp_core *core, struct cp_want *want)
{
    uint32_t open = GET(core->live) + GET(core->opening);
    if (want->warmth)
        core->warming = (core->warming > open ? core->warming : open) + want->warmth;
    if (core->warming > core->target)
        core->warming = core->target;
    want->warmth = 0;
}

/* Of an answer in vain. */
static void stand_less(struct cp_want *want, int64_t now_ns)
{
    want->stand_ns = want->stand_ns ? sooner(2 * want->stand_ns, CP_STEAL_STAND_MAX_NS) : CP_STEAL_REST_NS;
    want->stand_until = now_ns + want->stand_ns;
}

void cp_steal_home(struct cp_core *core, struct cp_want *want, int64_t now_ns)
{
    struct cp_steal *steal = &core->steal;
    uint32_t got = cp_want_units(want);
    if (want->pushed) {
        cp_evacuate_home(core, want, now_ns);
        return;
    }
    want->lent = false;
    want->workers = want->places = 0;
    steal->lent--;
    steal->awaited -= want->wanted;
    steal->withdrawn -= GET(want->withdrawn);
    atomic_store_explicit(&want->withdrawn, false, memory_order_relaxed);
    want->rest_until = got == CP_STEAL_BATCH ? now_ns : now_ns + CP_STEAL_REST_NS;
    if (got == 0) {
        stand_less(want, now_ns);
        return;
    }
    want->stand_ns = 0;
    steal->arrived += got;
    hurry(steal);
    cp_steal_rest(core, now_ns);
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
    core->unstocked -= core->unstocked > 0; /* it was not to be filled without need */
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
    return now_ns - want->asked_at >= CP_STEAL_BOUND_REST_NS && is_needed(want) && outweighs(want->asker, core);
}

/* A place that is becoming vacant will do. */
static bool is_retiring(const struct cp_core *core)
{
    return core->doomed + GET(core->closing) > 0;
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
    bool retires = !core->options.movable && core->idle && !is_retiring(core) && is_urgent(core, want, now_ns);
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
    return core->options.movable ? is_needed(want) && outweighs(want->asker, core)
                                 : !is_retiring(core) && is_urgent(core, want, now_ns);
}

bool cp_steal_outweighs(struct cp_core *core, int64_t now_ns)
{
    if (core->idle != 1 || GET(core->waiting) == 0 || !may_give(core))
        return false;
    struct cp_want *want = cp_want_first(&core->steal.asked);
    if (now_ns < want->weigh_at)
        return false;
    if (would_give(core, want, now_ns))
        return true; /* the look stays due, for the thread */
    want->weigh_at = now_ns + CP_STEAL_WEIGH_NS;
    return false;
}

bool cp_steal_next_give(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
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
        return outweighs(want->asker, core) && give_pressed(core, want, now_ns, action);
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
    return core->options.movable ||
           (!is_retiring(core) && is_urgent(core, cp_want_first(&core->steal.asked), now_ns));
}

/* --- both ------------------------------------------------------------------------------------------------------------------- */

void cp_steal_hold(struct cp_core *core, bool held)
{
    core->steal.held = held;
}

bool cp_steal_is_home(const struct cp_core *core)
{
    return core->steal.lent == 0 && cp_list_is_empty(&core->steal.asked) && cp_evacuate_is_home(core);
}

bool cp_steal_wants_thread(const struct cp_core *core, int64_t now_ns)
{
    const struct cp_steal *steal = &core->steal;
    bool ends = steal->held || core->paused;
    if (!cp_list_is_empty(&steal->back) || steal->recheck || (ends && !cp_steal_is_home(core)))
        return true;
    if (steal->starving ? now_ns >= steal->round_at
                        : steal->lent > steal->withdrawn && now_ns - CP_STEAL_LINGER_NS >= steal->sated_at)
        return true;
    if (!may_give(core))
        return false;
    const struct cp_want *want = cp_want_first(&steal->asked);
    bool weighed = GET(core->waiting) > 0 && now_ns < want->weigh_at;
    return core->idle || GET(core->vacant) || cp_want_units(want) || (!weighed && !is_needed(want));
}

bool cp_steal_next_first(struct cp_core *core, struct cp_action *action)
{
    bool ends = core->closed || core->steal.held;
    if (adopt_next(core, action) || answer_withdrawn(core, action))
        return true;
    bool asked = !cp_list_is_empty(&core->steal.asked);
    if (asked && (ends || (cp_want_units(cp_want_first(&core->steal.asked)) && !may_give(core)))) /* it gave its last, or pauses */
        return answer(cp_want_first(&core->steal.asked), action);
    return (ends || core->paused) && withdraw_next(core, action);
}

int64_t cp_steal_wake_at(const struct cp_core *core, int64_t now_ns)
{
    const struct cp_steal *steal = &core->steal;
    int64_t at = CP_NEVER;
    if (!core->options.movable && may_give(core))
        at = steal->cold_look_at > now_ns ? steal->cold_look_at : CP_NEVER;
    if (steal->starving)
        at = sooner(at, steal->round_at);
    else if (steal->lent > steal->withdrawn)
        at = sooner(at, steal->sated_at + CP_STEAL_LINGER_NS);
    return at;
}

const char *cp_steal_check(const struct cp_core *core)
{
    const struct cp_steal *steal = &core->steal;
    uint32_t lent = 0, withdrawn = 0, awaited = 0;
    for (uint32_t i = 0; i < steal->count; i++) {
        lent += steal->wants[i]->lent;
        awaited += steal->wants[i]->lent ? steal->wants[i]->wanted : 0;
        withdrawn += GET(steal->wants[i]->withdrawn);
    }
    if (lent != steal->lent || withdrawn != steal->withdrawn || awaited != steal->awaited)
        return "L1: the wants that are lent do not match their count";
    return NULL;
}
