/* tests/sim/laws.c: the oracle: what it knows by itself, held against what the core says. */
#include "sim.h"

static const char *const place_names[PLACES] = {"vacant", "opening", "closing",         "held",    "shelved",
                                                "taken",  "leased",  "on its way back", "returned"};

struct known *known_of(const cp_slot *slot)
{
    return &slot->slice->known[slot->number];
}

void move(cp_slot *slot, enum place from, enum place to)
{
    struct known *known = known_of(slot);
    struct cp_slice *slice = slot->slice;
    if (known->place != from)
        broke("L2", "slice %u: slot %u should be %s and is %s", slice->number, slot->number, place_names[from],
              place_names[known->place]);
    slice->at[from]--;
    slice->at[to]++;
    known->place = to;
}

static uint32_t count_waiting(const struct cp_slice *slice)
{
    uint32_t n = 0;
    for (const struct cp_list *at = slice->arrivals.next; at != &slice->arrivals; at = at->next)
        n++;
    return n;
}

static uint32_t live(const struct cp_slice *slice)
{
    uint32_t sum = 0;
    for (enum place place = HELD; place < PLACES; place++)
        sum += slice->at[place];
    return sum;
}

void check_usable(const cp_slot *slot)
{
    const struct known *known = known_of(slot);
    if (!known->alive || known->reason != REASON_NONE || known->doom != REASON_NONE)
        broke("L6", "slice %u: slot %u is to be used, and its worker is %s", slot->slice->number, slot->number,
              known->alive ? "to be terminated" : "gone");
}

/* --- requests --- */

void arrives(struct cp_slice *slice, struct ask *ask)
{
    if (slice->epoch != ask->request.epoch)
        broke("L5", "slice %u queues request %u, which was sent to another life of it", slice->number,
              ask->number);
    if (ask->fate == SENT)
        ask->fate = QUEUED;
    ask->queued = true;
    if (ask->request.again)
        cp_list_push_front(&slice->arrivals, &ask->arrival);
    else
        cp_list_push_back(&slice->arrivals, &ask->arrival);
}

void leaves(struct ask *ask)
{
    ask->queued = false;
    cp_list_unlink(&ask->arrival);
}

/* The oldest, when all have waited too long or the pool closes; else the newest. */
void check_refusal(const struct cp_slice *slice, const struct ask *ask, enum cp_outcome outcome)
{
    const struct cp_core *core = &slice->core;
    bool last = slice->arrivals.prev == &ask->arrival;
    bool closed = outcome == CP_CLOSED && core->closed;
    bool shed = outcome == CP_SHED && core->options.shed_target_ns && !last && !ask->request.again;
    bool draining = outcome == CP_DRAINING && slice->draining && last;
    bool full = core->options.max_waiting && count_waiting(slice) > core->options.max_waiting;
    bool overloaded = outcome == CP_OVERLOADED && full && last && !ask->request.again;
    if (!closed && !shed && !draining && !overloaded)
        broke("L5", "slice %u refuses request %u with outcome %d", slice->number, ask->number, (int)outcome);
    if (closed || shed)
        check_turn(slice, ask);
}

void check_turn(const struct cp_slice *slice, const struct ask *ask)
{
    if (!ask->queued)
        broke("L5", "slice %u: request %u comes from the queue and was not in it", slice->number, ask->number);
    if (slice->arrivals.next != &ask->arrival)
        broke("L4", "slice %u: request %u overtakes request %u", slice->number, ask->number,
              cp_container(slice->arrivals.next, struct ask, arrival)->number);
}

/* --- opening --- */

/* How many more opens are in order now, their time set aside. */
static uint32_t opens_in_order(const struct cp_slice *slice)
{
    const struct cp_core_options *options = &slice->core.options;
    uint32_t waiting = count_waiting(slice), opening = slice->at[OPENING];
    uint32_t vacant = slice->at[VACANT] - slice->core.spare, open = opening + live(slice);
    uint32_t limit = slice->failures ? 1 : options->max_opening;
    uint32_t coming = opening + slice->at[HELD]; /* what is held beside requests is so by a pause, and will do */
    uint32_t wanted = waiting > coming ? waiting - coming : 0;
    uint32_t idled = slice->core.unstocked < slice->target ? slice->core.unstocked : slice->target;
    uint32_t stock = options->lazy ? 0 : slice->target - idled;
    uint32_t warm = options->warm < slice->target ? options->warm : slice->target;
    warm = warm < slice->core.warming ? slice->core.warming : warm;
    stock = stock < warm ? warm : stock;
    wanted = stock > open && stock - open > wanted ? stock - open : wanted;
    if (slice->core.closed || opening >= limit)
        return 0;
    wanted = wanted < vacant ? wanted : vacant;
    return wanted < limit - opening ? wanted : limit - opening;
}

void check_open(const struct cp_slice *slice, cp_slot *slot)
{
    if (opens_in_order(slice) == 0)
        broke("L3", "slice %u opens slot %u, which nobody wants or which is one too many at once",
              slice->number, slot->number);
    if (slice->failures && world.now < slice->not_before)
        broke("back-off", "slice %u opens %lld too early after %u failures", slice->number,
              (long long)(slice->not_before - world.now), slice->failures);
    if (known_of(slot)->alive)
        broke("L6", "slice %u: slot %u is opened and its worker was not terminated", slice->number,
              slot->number);
    known_of(slot)->round = slice->round;
}

static void opens_failed(struct cp_slice *slice)
{
    const struct cp_core_options *options = &slice->core.options;
    int64_t wait = options->backoff_min_ns;
    slice->round++;
    for (uint32_t i = 0; i < slice->failures && wait < options->backoff_max_ns; i++)
        wait *= 2;
    wait = wait < options->backoff_max_ns ? wait : options->backoff_max_ns;
    slice->failures++;
    slice->not_before = world.now + wait - wait / 2;
    slice->overdue = world.now + wait;
}

void open_ended(struct cp_slice *slice, cp_slot *slot, bool ok)
{
    struct known *known = known_of(slot);
    move(slot, OPENING, ok ? HELD : VACANT);
    if (ok) {
        known->alive = true;
        slice->failures = 0;
        slice->opened++;
    } else if (known->round == slice->round) {
        opens_failed(slice);
    }
}

void check_terminate(const struct cp_slice *slice, const cp_slot *slot, uint8_t reason)
{
    const struct known *known = known_of(slot);
    bool own = known->reason != REASON_NONE && reason == known->reason;
    bool doomed = known->doom != REASON_NONE && reason == known->doom;
    bool resized = reason == COREPOOL_REASON_RESIZED && atomic_load(&slice->core.quota) > slice->target;
    bool moved = reason == COREPOOL_REASON_MOVED && slice->pool->steals && !slice->pool->movable;
    bool closed = known->reason == REASON_NONE && slice->core.closed && reason == slice->close_reason;
    if (!known->alive)
        broke("L6", "slice %u: the worker of slot %u is terminated twice", slice->number, slot->number);
    if (!own && !doomed && !closed && !resized && !moved)
        broke("L6", "slice %u: slot %u is terminated for reason %u, not %d", slice->number, slot->number,
              reason, (int)known->reason);
}

/* --- sums --- */

/* The manager will look again by itself. */
static bool is_busy(const struct cp_slice *slice)
{
    return slice->dirty || slice->close_wanted || slice->shard->pumping == slice ||
           (slice->shard->then && slice->shard->slice == slice);
}

void check_sums(const struct cp_slice *slice)
{
    const struct cp_core *core = &slice->core;
    struct cp_core_counts counts;
    if (slice->epoch == 0)
        return;
    if (!cp_core_snapshot(core, &counts))
        broke("L1", "slice %u: the core is for ever in the midst of a change", slice->number);
    if (slice->at[VACANT] != core->vacant + core->spare || slice->at[OPENING] != core->opening ||
        slice->at[CLOSING] != core->closing || live(slice) != core->live)
        broke("L1", "slice %u: vacant %u opening %u live %u closing %u are %u, %u, %u, %u", slice->number,
              atomic_load(&core->vacant), atomic_load(&core->opening), atomic_load(&core->live),
              atomic_load(&core->closing), slice->at[VACANT], slice->at[OPENING], live(slice),
              slice->at[CLOSING]);
    if (live(slice) + slice->at[VACANT] + slice->at[OPENING] + slice->at[CLOSING] != core->quota + core->spare)
        broke("L1", "slice %u: its slots are not its quota, %u", slice->number, atomic_load(&core->quota));
    if (slice->shelf.flags & CP_SHELF_WAITING && shelf_idle(slice))
        broke("L3", "slice %u: somebody waits beside %u workers on the shelf", slice->number,
              shelf_idle(slice));
    if (core->listening && core->waiting && slice->returned && !slice->nudged && !slice->returning &&
        !is_busy(slice))
        broke("L3", "slice %u: slot %u is back, a request waits, and the manager sleeps", slice->number,
              slice->returned->number);
}

/* Whether this record could take something away now. */
static bool is_idle_record(const struct cp_want *want)
{
    return !want->lent && !want->pushed && !want->neighbour->evacuation.on;
}

/* What can go, goes. */
static void check_leaves(const struct cp_slice *slice)
{
    const struct cp_core *core = &slice->core;
    uint32_t stays = core->vacant + (slice->pool->movable ? slice->at[HELD] + slice->at[SHELVED] : 0);
    if (!core->evacuation.on || core->closed || slice->paused || core->steal.held || core->quota != slice->target ||
        core->waiting || !core->steal.wants || world.now < core->evacuation.rest_until)
        return;
    for (uint32_t i = 0; i < core->steal.count; i++)
        if (is_idle_record(slice->wants[i]) && stays)
            broke("push", "slice %u is parked and keeps %u units from slice %u", slice->number, stays,
                  slice->records[i].neighbour->number);
}

void check_rest(const struct cp_slice *slice)
{
    const struct cp_core *core = &slice->core;
    const char *broken = cp_core_check(core);
    uint32_t waiting = count_waiting(slice);
    int64_t wake_at = cp_core_wake_at(core, world.now);
    check_sums(slice);
    if (broken)
        broke("core", "slice %u: %s", slice->number, broken);
    if (waiting != core->waiting)
        broke("L5", "slice %u: %u requests wait, not %u", slice->number, waiting, atomic_load(&core->waiting));
    if (core->closed && (waiting || slice->at[HELD]))
        broke("L5", "slice %u is closed and keeps %u requests and %u workers", slice->number, waiting,
              slice->at[HELD]);
    if (core->closed)
        return;
    if (core->quota < slice->target || (core->quota > slice->target && core->vacant))
        broke("L1", "slice %u: its quota is %u, and was to be %u", slice->number, atomic_load(&core->quota),
              slice->target);
    bool holds = cp_core_holds(core);
    if ((slice->paused || slice->draining) && !holds)
        broke("L3", "slice %u is paused or draining and holds nothing back", slice->number);
    bool leaves = core->evacuation.on;
    if (!core->options.managed && slice->at[HELD] && !holds && !leaves)
        broke("L3", "slice %u keeps %u workers from its shelf", slice->number, slice->at[HELD]);
    bool asked = !cp_list_is_empty(&core->steal.asked), shrinks = core->quota != slice->target;
    bool gives = asked && !slice->paused && !shrinks && slice->target && slice->pool->movable;
    bool listens = slice->shelf.flags & CP_SHELF_WAITING;
    if (!core->options.managed && (listens ? !(waiting || holds || asked || leaves) : waiting || holds || gives))
        broke("L3", "slice %u: %u requests wait and its shelf says %s", slice->number, waiting,
              waiting ? "none" : "some");
    check_leaves(slice);
    if (opens_in_order(slice) && (!slice->failures || world.now >= slice->overdue))
        broke("L3", "slice %u opens nothing, with %u waiting and %u vacant", slice->number, waiting,
              slice->at[VACANT]);
    if (opens_in_order(slice) &&
        ((wake_at < slice->not_before && !core->look.interval && !core->options.steals) || wake_at > slice->overdue))
        broke("back-off", "slice %u wakes in %lld for its next open, not in %lld to %lld", slice->number,
              (long long)(wake_at - world.now), (long long)(slice->not_before - world.now),
              (long long)(slice->overdue - world.now));
}

void check_finish(const struct cp_slice *slice)
{
    check_sums(slice);
    if (!cp_list_is_empty(&slice->arrivals) || slice->notices)
        broke("L5", "slice %u finishes with %u requests queued and %u notices to come", slice->number,
              count_waiting(slice), slice->notices);
    if (slice->at[VACANT] != slice->core.quota + slice->core.spare || slice->opened + slice->adopted != slice->terminated + slice->moved)
        broke("L6", "slice %u finishes with %llu workers initialised or stolen and %llu terminated or given", slice->number,
              (unsigned long long)(slice->opened + slice->adopted),
              (unsigned long long)(slice->terminated + slice->moved));
}

/* --- hunger --- */

/* Nothing of its own can serve all that wait. */
static bool is_hungry(const struct cp_slice *slice)
{
    const struct cp_core *core = &slice->core;
    return core->options.steals && !core->closed && !slice->paused && !core->steal.held && core->quota == slice->target &&
           slice->at[HELD] + slice->at[OPENING] + slice->at[VACANT] - core->spare < count_waiting(slice);
}

/* For how long a round of asking, two messages, and all the steps that the managers take for them may last at most: the law
 * is about worlds without faults, and few neighbours. */
static int64_t hunger_limit(void)
{
    int64_t step = TICK << world.step_bits, mail = TICK << world.mail_bits;
    return CP_STEAL_BOUND_NS + 2 * mail + 100 * step;
}

void check_crowd(struct cp_slice *slice)
{
    struct cp_action action;
    cp_core_next(&slice->core, slice->rested_at, &action);
    if (action.what != CP_DO_NOTHING)
        broke("crowd", "slice %u was said to be crowded, and its core wants %d", slice->number, (int)action.what);
}

void check_hunger(struct cp_slice *slice)
{
    const struct pool *pool = slice->pool;
    if (!is_hungry(slice))
        slice->hungry_at = CP_NEVER;
    else if (slice->hungry_at == CP_NEVER || world.phase == SAFETY || world.now < world.settled_at)
        slice->hungry_at = world.now;
    for (unsigned i = 0; slice->hungry_at != CP_NEVER && pool->movable && world.shard_count <= 3 && i < world.shard_count; i++) {
        const struct cp_slice *other = &pool->slices[i];
        int64_t since = slice->hungry_at > other->stocked_at ? slice->hungry_at : other->stocked_at;
        if (other->stocked_at != CP_NEVER && !other->core.closed && other->target && other->core.quota == other->target && world.now - since > hunger_limit())
            broke("L3", "slice %u starves for %lld, and slice %u has had workers on its shelf", slice->number,
                  (long long)(world.now - since), other->number);
    }
}

/* --- the world --- */

static void each_slice(void (*check)(const struct cp_slice *))
{
    for (unsigned i = 0; i < world.pool_count; i++)
        for (unsigned j = 0; j < world.shard_count; j++)
            check(&world.pools[i].slices[j]);
}

static void check_slice(const struct cp_slice *slice)
{
    const char *broken = slice->epoch ? cp_core_check(&slice->core) : NULL;
    check_sums(slice);
    if (broken && broken[1] != '3') /* which speaks of a core at rest */
        broke("core", "slice %u: %s", slice->number, broken);
}

/* L1 over a pool that is open. */
static void check_pool(const struct pool *pool)
{
    uint64_t quota = 0, target = 0, given = 0, stolen = 0;
    bool shrinks = false;
    for (unsigned i = 0; i < world.shard_count; i++) {
        const struct cp_core *core = &pool->slices[i].core;
        quota += core->quota;
        target += core->target;
        given += core->given;
        stolen += core->stolen;
        shrinks |= core->quota != core->target;
    }
    if (target + given - stolen != pool->size || (!shrinks && quota != target))
        broke("L1", "pool %u: the quotas are %llu, %llu are on their way, and its size is %u", pool->number,
              (unsigned long long)quota, (unsigned long long)(given - stolen), pool->size);
    if (given - stolen != units_under_way(pool))
        broke("L1", "pool %u: %llu are on their way, and in its records there are %u", pool->number,
              (unsigned long long)(given - stolen), units_under_way(pool));
}

void check_world(void)
{
    each_slice(check_slice);
    for (unsigned i = 0; i < world.pool_count; i++)
        if (world.pools[i].open)
            check_pool(&world.pools[i]);
}

static void check_evicted(const struct cp_slice *slice)
{
    for (uint32_t i = 0; i < slice->capacity; i++)
        if (slice->known[i].alive &&
            (slice->known[i].doom != REASON_NONE || slice->known[i].reason != REASON_NONE))
            broke("L6", "slice %u: the worker of slot %u was to be terminated", slice->number, i);
}

static void check_slice_quiescent(const struct cp_slice *slice)
{
    check_evicted(slice);
    if (slice->epoch == 0)
        broke("liveness", "slice %u is closed and does not open again", slice->number);
    check_rest(slice);
    if (slice->core.waiting || slice->nudged || slice->notices || slice->returning || is_busy(slice) ||
        slice->shard->inbox)
        broke("liveness", "slice %u does not come to rest", slice->number);
    if (!cp_steal_is_home(&slice->core) || slice->holding || slice->core.steal.held)
        broke("liveness", "slice %u: a want is never answered", slice->number);
    if (slice->at[SHELVED] + slice->at[RETURNED] + slice->at[HELD] != slice->core.live)
        broke("L1", "slice %u: somebody keeps a worker for ever", slice->number);
    if (slice->at[OPENING] || slice->at[CLOSING] ||
        (!slice->core.options.lazy && slice->core.vacant > slice->core.unstocked))
        broke("liveness", "slice %u: opening %u closing %u vacant %u for ever", slice->number,
              slice->at[OPENING], slice->at[CLOSING], slice->at[VACANT]);
}

void check_quiescent(void)
{
    for (unsigned i = 0; i < world.client_count; i++)
        if (!world.clients[i].retired)
            broke("liveness", "client %u waits for ever%s", i, world.clients[i].ask ? " for a grant" : "");
    if (world.begun != world.ended)
        broke("L5", "%llu checkouts were begun and %llu have ended", (unsigned long long)world.begun,
              (unsigned long long)world.ended);
    each_slice(check_slice_quiescent);
}

static void check_slice_closed(const struct cp_slice *slice)
{
    if (slice->epoch)
        broke("liveness", "slice %u never finishes", slice->number);
}

void check_closed(void)
{
    unsigned spare = 0;
    for (const struct cp_list *at = world.spare_asks.next; at != &world.spare_asks; at = at->next)
        spare++;
    if (spare != world.ask_count)
        broke("L5", "%u requests were made and %u are free again", world.ask_count, spare);
    each_slice(check_slice_closed);
    check_workers();
}
