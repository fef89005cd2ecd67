/* core/steal.c: who is asked for workers, and what becomes of what comes back. What is given: give.c. See steal.h. */
#include "core/steal.h"

#include "base/assert.h"
#include "core/count.h"
#include "core/give.h"

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
    return GET(want->neighbour->waiting) == 0 || cp_give_outweighs(want->asker, want->neighbour);
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
    return cp_give_wants_thread(core, now_ns);
}

bool cp_steal_next_first(struct cp_core *core, struct cp_action *action)
{
    bool ends = core->closed || core->steal.held;
    return adopt_next(core, action) || cp_give_next_first(core, ends, action) ||
           ((ends || core->paused) && withdraw_next(core, action));
}

int64_t cp_steal_wake_at(const struct cp_core *core, int64_t now_ns)
{
    const struct cp_steal *steal = &core->steal;
    int64_t at = cp_give_wake_at(core, now_ns);
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
