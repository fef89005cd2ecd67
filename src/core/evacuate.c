/* core/evacuate.c: who gets what from a slice whose shard is parked. See evacuate.h. */
#include "core/evacuate.h"

#include "base/assert.h"
#include "core/count.h"

void cp_evacuate_init(struct cp_core *core)
{
    cp_list_init(&core->evacuation.pushed);
}

void cp_evacuate(struct cp_core *core, bool on)
{
    struct cp_evacuation *evacuation = &core->evacuation;
    if (!core->options.steals || GET(evacuation->on) == on)
        return;
    atomic_store_explicit(&evacuation->on, on, memory_order_relaxed); /* a neighbour that sees it late gets a push or two */
    evacuation->rank = 0;
    evacuation->share = 0;
}

/* --- pushes of neighbours ------------------------------------------------------------------------------------------ */

void cp_evacuate_pushed(struct cp_core *core, struct cp_want *want)
{
    cp_assert(cp_list_is_empty(&want->link) && want->asker != core);
    cp_list_push_back(&core->evacuation.pushed, &want->link);
}

/* Held, it has said that nothing is on its way. */
uint32_t cp_evacuate_room(const struct cp_core *core, const struct cp_want *want)
{
    uint32_t least = GET(core->quota) + cp_want_units(want), room = cp_steal_room(core, want);
    if (core->steal.held)
        return 0;
    return room > least ? room : least;
}

void cp_evacuate_taken(struct cp_want *want)
{
    want->workers = want->places = 0;
}

/* --- own pushes ---------------------------------------------------------------------------------------------------- */

void cp_evacuate_returned(struct cp_core *core, struct cp_want *want)
{
    cp_assert(want->pushed && cp_list_is_empty(&want->link) && want->asker == core);
    cp_list_push_back(&core->steal.back, &want->link);
}

void cp_evacuate_home(struct cp_core *core, struct cp_want *want, int64_t now_ns)
{
    if (cp_want_units(want)) /* it could not be taken */
        core->evacuation.rest_until = now_ns + CP_STEAL_ROUND_MAX_NS;
    want->pushed = false;
    want->workers = want->places = 0;
    core->evacuation.out--;
    core->evacuation.awaited -= want->wanted;
}

bool cp_evacuate_is_home(const struct cp_core *core)
{
    return core->evacuation.out == 0 && cp_list_is_empty(&core->evacuation.pushed);
}

static bool is_free(const struct cp_want *want)
{
    return !want->lent && !want->pushed && !GET(want->neighbour->evacuation.on);
}

/* At some time. */
static bool may_push(const struct cp_core *core)
{
    return GET(core->evacuation.on) && !core->closed && !core->paused && !core->steal.held && GET(core->quota) == core->target;
}

static bool may_push_now(const struct cp_core *core, int64_t now_ns)
{
    return may_push(core) && GET(core->waiting) == 0 && now_ns >= core->evacuation.rest_until;
}

void cp_evacuate_update(struct cp_core *core, int64_t now_ns)
{
    if (GET(core->evacuation.on) && GET(core->waiting))
        core->evacuation.rest_until = now_ns + CP_EVACUATE_REST_NS;
}

static bool has_units(const struct cp_core *core)
{
    return (core->options.movable && core->idle) || GET(core->vacant);
}

/* Who gets anything: those that do not evacuate themselves. */
static uint32_t count_takers(const struct cp_core *core)
{
    uint32_t takers = 0;
    for (uint32_t i = 0; i < core->steal.count; i++)
        takers += !GET(core->steal.wants[i]->neighbour->evacuation.on);
    return takers;
}

bool cp_evacuate_listens(const struct cp_core *core, int64_t now_ns)
{
    return core->options.movable && may_push_now(core, now_ns) && GET(core->quota) &&
           (!core->steal.wants || count_takers(core));
}

/* NULL: there is none for the moment. */
static struct cp_want *next_free(struct cp_core *core)
{
    struct cp_evacuation *evacuation = &core->evacuation;
    for (uint32_t i = 0; i < core->steal.count; i++) {
        struct cp_want *want = core->steal.wants[(evacuation->rank + i) % core->steal.count];
        if (!is_free(want))
            continue;
        evacuation->rank = (evacuation->rank + i + 1) % core->steal.count;
        return want;
    }
    return NULL;
}

/* Of what there is when it begins; so a few units go to the nearest, one each. */
static uint32_t share_of(struct cp_core *core)
{
    uint32_t takers = count_takers(core), quota = GET(core->quota);
    if (core->evacuation.share == 0)
        core->evacuation.share = takers ? (quota + takers - 1) / takers : 1;
    return core->evacuation.share < CP_STEAL_BATCH ? core->evacuation.share : CP_STEAL_BATCH;
}

static bool begin(struct cp_core *core)
{
    struct cp_want *want = next_free(core);
    if (!want)
        return false;
    want->pushed = true;
    want->wanted = share_of(core);
    core->evacuation.filling = want;
    core->evacuation.out++;
    core->evacuation.awaited += want->wanted;
    return true;
}

/* One worker more, if there is one; all places. */
static bool fill(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action)
{
    if (cp_want_units(want) < want->wanted && core->options.movable && core->idle) {
        cp_steal_move_worker(core, want, now_ns, action);
        return true;
    }
    while (cp_want_units(want) < want->wanted && GET(core->vacant))
        cp_steal_move_place(core, want);
    return false;
}

/* More may come off the shelf, one by one: CP_DO_LISTEN. */
static bool is_to_wait(const struct cp_core *core, const struct cp_want *want, int64_t now_ns)
{
    return cp_want_units(want) < want->wanted && !core->listening && cp_evacuate_listens(core, now_ns);
}

static bool meet(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    if (now_ns >= core->steal.round_at)
        action->what = CP_DO_MEET;
    return now_ns >= core->steal.round_at;
}

bool cp_evacuate_next(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    struct cp_evacuation *evacuation = &core->evacuation;
    bool pushes = may_push_now(core, now_ns) && has_units(core);
    if (pushes && !core->steal.wants)
        return meet(core, now_ns, action);
    if (!evacuation->filling && !(pushes && begin(core)))
        return false;
    struct cp_want *want = evacuation->filling;
    if (pushes && fill(core, want, now_ns, action))
        return true;
    if (is_to_wait(core, want, now_ns))
        return false;
    evacuation->filling = NULL;
    *action = (struct cp_action){.what = CP_DO_PUSH, .want = want};
    return true;
}

/* What cannot go any more stays. */
static void keep_filling(struct cp_core *core)
{
    struct cp_want *want = core->evacuation.filling;
    core->evacuation.filling = NULL;
    cp_evacuate_returned(core, want);
}

bool cp_evacuate_next_first(struct cp_core *core, struct cp_action *action)
{
    struct cp_evacuation *evacuation = &core->evacuation;
    if (evacuation->filling && !may_push(core))
        keep_filling(core);
    if (cp_list_is_empty(&evacuation->pushed))
        return false;
    *action = (struct cp_action){.what = CP_DO_TAKE, .want = cp_want_first(&evacuation->pushed)};
    cp_list_unlink(&action->want->link);
    return true;
}

static bool has_free(const struct cp_core *core)
{
    for (uint32_t i = 0; i < core->steal.count; i++)
        if (is_free(core->steal.wants[i]))
            return true;
    return !core->steal.wants;
}

bool cp_evacuate_wants_thread(const struct cp_core *core, int64_t now_ns)
{
    const struct cp_evacuation *evacuation = &core->evacuation;
    return evacuation->filling || !cp_list_is_empty(&evacuation->pushed) ||
           (may_push_now(core, now_ns) && has_units(core) && has_free(core));
}

int64_t cp_evacuate_wake_at(const struct cp_core *core, int64_t now_ns)
{
    int64_t at = core->evacuation.rest_until;
    if (!core->steal.wants && core->steal.round_at > at)
        at = core->steal.round_at;
    return may_push(core) && GET(core->quota) && at > now_ns ? at : CP_NEVER;
}

const char *cp_evacuate_check(const struct cp_core *core)
{
    uint32_t out = 0, awaited = 0;
    for (uint32_t i = 0; i < core->steal.count; i++) {
        out += core->steal.wants[i]->pushed;
        awaited += core->steal.wants[i]->pushed ? core->steal.wants[i]->wanted : 0;
    }
    if (out != core->evacuation.out || awaited != core->evacuation.awaited)
        return "L1: the wants that are out for a push do not match their count";
    return NULL;
}
