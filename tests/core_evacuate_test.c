/* tests/core_evacuate_test.c: what a slice whose shard is parked does with its workers and places: three cores of one pool,
 * messages that arrive at once, no threads, and time as the test says. L1 is checked after every step, over the pool at rest. */
#include <criterion/criterion.h>

#include <corepool/worker.h>
#include <string.h>

#include "base/clock.h"
#include "core/core.h"

#define SIDES 3u
#define SLOTS 32u
#define MS CP_NS_PER_MS

/* A slice: its core, its shelf from the oldest, and its wants, nearest first: side 0 has 1 and 2. */
struct side {
    struct cp_core core;
    cp_slot slots[SLOTS], *shelf[SLOTS];
    unsigned shelved, number;
    bool full, waiting; /* it has no room for more; the shelf says that the manager waits */
    struct cp_want wants[SIDES - 1], *order[SIDES - 1];
};

static struct side sides[SIDES];
static struct cp_request requests[4];
static unsigned pushes, granted;
static uint32_t size;
static int64_t now;

static struct side *side_of(const struct cp_core *core)
{
    return cp_container(core, struct side, core);
}

/* --- what a manager does --- */

static void listen_to(struct side *side)
{
    side->waiting = side->shelved == 0;
    if (side->waiting)
        return;
    cp_slot *slot = side->shelf[0];
    memmove(side->shelf, side->shelf + 1, --side->shelved * sizeof *side->shelf);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    cp_core_not_listening(&side->core);
    cp_core_idle(&side->core, slot);
}

static void shelve(struct side *side, cp_slot *slot)
{
    cr_assert_not(side->waiting);
    cp_slot_pass(slot, CP_TAG_SHELVED);
    side->shelf[side->shelved++] = slot;
}

static cp_slot *provide(struct side *side)
{
    cp_slot *slot = cp_steal_take_spare(&side->core);
    return slot ? slot : &side->slots[side->core.quota + side->core.spare];
}

static void adopt(struct side *side, const struct cp_want *want)
{
    for (uint32_t i = 0; i < want->workers; i++) {
        cp_slot *slot = provide(side);
        atomic_store(&slot->resource, want->moved[i].resource);
        cp_steal_adopt(&side->core, slot, &want->moved[i]);
    }
    for (uint32_t i = 0; i < want->places; i++)
        cp_steal_adopt_place(&side->core, provide(side));
}

static void take(struct side *side, struct cp_want *want)
{
    if (!side->full && cp_evacuate_room(&side->core, want)) {
        adopt(side, want);
        cp_evacuate_taken(want);
    }
    cp_evacuate_returned(want->asker, want);
}

static void push(struct cp_want *want)
{
    pushes++;
    cp_evacuate_pushed(&side_of(want->neighbour)->core, want);
}

static void perform(struct side *side, const struct cp_action *action)
{
    switch (action->what) {
    case CP_DO_OPEN: cp_core_opened(&side->core, action->slot); break;
    case CP_DO_SHELVE: shelve(side, action->slot); break;
    case CP_DO_LISTEN: listen_to(side); break;
    case CP_DO_UNLISTEN: side->waiting = false; break;
    case CP_DO_GRANT:
        granted++;
        cp_slot_set_stamp(action->slot, cp_stamp_next_lease(cp_slot_stamp(action->slot)));
        cp_core_granted(&side->core, 0);
        break;
    case CP_DO_MEET: cp_steal_meet(&side->core, side->order, SIDES - 1); break;
    case CP_DO_MOVE: action->want->moved[action->want->workers - 1].resource = atomic_load(&action->slot->resource); break;
    case CP_DO_PUSH: push(action->want); break;
    case CP_DO_TAKE: take(side, action->want); break;
    case CP_DO_ADOPT:
        adopt(side, action->want);
        cp_steal_home(&side->core, action->want, now);
        break;
    case CP_DO_TERMINATE: cp_core_gone(&side->core, action->slot); break;
    default: cr_assert_fail("nobody expects action %d", action->what);
    }
}

static bool step(struct side *side)
{
    struct cp_action action;
    cp_core_next(&side->core, now, &action);
    if (action.what != CP_DO_NOTHING)
        perform(side, &action);
    const char *broken = cp_core_check(&side->core);
    cr_assert(!broken || strncmp(broken, "L3", 2) == 0, "%s", broken);
    return action.what != CP_DO_NOTHING;
}

static void settle(void)
{
    unsigned steps = 0;
    for (bool any = true; any; steps++) {
        any = false;
        for (unsigned i = 0; i < SIDES; i++)
            any |= step(&sides[i]);
        cr_assert_lt(steps, 1000, "they never come to rest");
    }
    uint32_t quota = 0;
    for (unsigned i = 0; i < SIDES; i++)
        quota += sides[i].core.quota;
    cr_expect_eq(quota, size, "L1: %u of %u", quota, size);
}

/* --- what a test does --- */

static void start_side(unsigned number, uint32_t quota, bool movable, bool lazy)
{
    struct side *side = &sides[number];
    struct cp_core_options options = {.quota = quota, .movable = movable, .lazy = lazy, .steals = true, .most = SLOTS,
                                      .max_opening = SLOTS, .backoff_min_ns = MS, .backoff_max_ns = MS, .seed = 1};
    side->number = number;
    for (unsigned i = 0; i < SLOTS; i++) {
        side->slots[i].number = i;
        cp_list_init(&side->slots[i].link);
        cp_slot_set_stamp(&side->slots[i], cp_stamp(0, CP_TAG_MANAGER));
        atomic_store(&side->slots[i].resource, &side->slots[i]);
    }
    cp_core_init(&side->core, &options, side->slots);
    for (unsigned i = 0; i + 1 < SIDES; i++) {
        side->wants[i].asker = &side->core;
        side->wants[i].neighbour = &sides[(number + 1 + i) % SIDES].core;
        cp_list_init(&side->wants[i].link);
        side->order[i] = &side->wants[i];
    }
    size += quota;
}

/* The first has so many, the others one each. */
static void start(uint32_t quota, bool movable, bool lazy)
{
    memset(sides, 0, sizeof sides);
    memset(requests, 0, sizeof requests);
    now = 1000 * MS;
    start_side(0, quota, movable, lazy);
    start_side(1, 1, movable, lazy);
    start_side(2, 1, movable, lazy);
    settle();
}

static void park(unsigned side)
{
    cp_evacuate(&sides[side].core, true);
}

static void ask(unsigned side, unsigned request)
{
    cp_list_init(&requests[request].link);
    requests[request].posted_at = now;
    cp_core_request(&sides[side].core, &requests[request]);
}

static cp_slot *lease(unsigned side)
{
    cp_slot *slot = sides[side].shelf[--sides[side].shelved];
    cp_slot_set_stamp(slot, cp_stamp_next_lease(cp_slot_stamp(slot)));
    return slot;
}

/* As the manager has it from the returned list. */
static void give_back(unsigned side, cp_slot *slot)
{
    cp_slot_pass(slot, CP_TAG_MANAGER);
    cp_core_idle(&sides[side].core, slot);
}

static void expect_quotas(uint32_t first, uint32_t second, uint32_t third)
{
    const uint32_t wanted[SIDES] = {first, second, third};
    for (unsigned i = 0; i < SIDES; i++)
        cr_expect_eq(sides[i].core.quota, wanted[i], "side %u has %u, not %u", i, atomic_load(&sides[i].core.quota), wanted[i]);
}

/* --- what goes where --- */

Test(evacuate, idle_workers_are_shared_out_among_the_neighbours)
{
    start(6, true, false);
    park(0);
    settle();
    expect_quotas(0, 4, 4);
    cr_expect_eq(pushes, 2, "one message each way for each neighbour");
    cr_expect_eq(sides[1].shelved, 4);
    cr_expect_eq(sides[2].shelved, 4);
}

Test(evacuate, few_go_to_the_nearest)
{
    start(1, true, false);
    park(0);
    settle();
    expect_quotas(0, 2, 1);
}

Test(evacuate, many_go_in_several_pushes)
{
    start(21, true, false);
    park(0);
    settle();
    cr_expect_eq(sides[0].core.quota, 0);
    cr_expect_eq(sides[1].core.live + sides[2].core.live, 23);
    cr_expect_eq(pushes, 3, "eight at most in one");
}

Test(evacuate, vacant_places_go_too)
{
    start(4, true, true);
    park(0);
    settle();
    expect_quotas(0, 3, 3);
    cr_expect_eq(sides[1].core.vacant, 3);
}

Test(evacuate, workers_that_are_bound_stay_and_their_places_go_once_they_are_vacant)
{
    start(4, false, false);
    park(0);
    settle();
    expect_quotas(4, 1, 1);
    cr_expect_eq(sides[0].shelved, 4, "and callers may have them");
    cp_slot *slot = lease(0);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    cp_core_doom(&sides[0].core, slot, COREPOOL_REASON_REMOVED);
    settle();
    expect_quotas(3, 2, 1);
}

Test(evacuate, what_is_leased_goes_when_it_is_back)
{
    start(3, true, false);
    cp_slot *slot = lease(0);
    park(0);
    settle();
    cr_expect_eq(sides[0].core.quota, 1);
    cr_expect(sides[0].waiting, "whoever gives it back wakes the manager");
    give_back(0, slot);
    settle();
    cr_expect_eq(sides[0].core.quota, 0);
}

/* --- what goes first, and what does not go --- */

Test(evacuate, own_requests_are_served_before_anything_goes)
{
    start(2, true, false);
    cp_slot *slot = lease(0);
    ask(0, 0);
    park(0);
    settle();
    cr_expect_eq(granted, 1);
    cr_expect_eq(sides[0].core.quota, 2, "both are out");
    give_back(0, slot);
    settle();
    cr_expect_eq(sides[0].core.quota, 2, "somebody came for them a moment ago");
    cr_expect_eq(sides[0].shelved, 1);
    cr_expect_leq(cp_core_wake_at(&sides[0].core, now), now + CP_EVACUATE_REST_NS);
    now += CP_EVACUATE_REST_NS;
    settle();
    expect_quotas(1, 2, 1);
}

Test(evacuate, a_request_that_comes_later_gets_a_worker_from_a_neighbour)
{
    start(2, true, false);
    park(0);
    settle();
    cr_expect_eq(sides[0].core.quota, 0);
    ask(0, 0);
    struct cp_action action;
    cp_core_next(&sides[0].core, now, &action);
    while (action.what == CP_DO_LISTEN || action.what == CP_DO_UNLISTEN) {
        perform(&sides[0], &action);
        cp_core_next(&sides[0].core, now, &action);
    }
    cr_expect_eq(action.what, CP_DO_ASK);
}

Test(evacuate, a_neighbour_that_is_parked_itself_gets_nothing)
{
    start(4, true, false);
    park(1);
    settle();
    park(0);
    settle();
    expect_quotas(0, 0, 6);
}

Test(evacuate, where_all_are_parked_each_keeps_what_it_has)
{
    start(4, true, false);
    for (unsigned i = 0; i < SIDES; i++)
        park(i);
    settle();
    expect_quotas(4, 1, 1);
    cr_expect_eq(sides[0].shelved, 4);
}

Test(evacuate, a_push_for_which_there_is_no_room_comes_back_and_goes_later)
{
    start(2, true, false);
    sides[1].full = sides[2].full = true;
    park(0);
    settle();
    expect_quotas(2, 1, 1);
    cr_expect_eq(cp_core_wake_at(&sides[0].core, now), now + CP_STEAL_ROUND_MAX_NS);
    sides[1].full = sides[2].full = false;
    now += CP_STEAL_ROUND_MAX_NS;
    settle();
    expect_quotas(0, 2, 2);
}

Test(evacuate, what_is_out_for_a_push_may_come_back_beside_what_is_asked_for)
{
    struct cp_want ask = {.wanted = 2};
    start(2, true, false);
    park(0);
    while (step(&sides[0])) /* its neighbours take nothing yet */
        ;
    cr_assert_eq(sides[0].core.quota, 0);
    cr_assert_eq(pushes, 2);
    cr_expect_eq(cp_steal_room(&sides[0].core, &ask), 4, "%u", cp_steal_room(&sides[0].core, &ask));
    settle();
    expect_quotas(0, 2, 2);
    cr_expect_eq(cp_steal_room(&sides[0].core, &ask), 2);
}

Test(evacuate, nothing_goes_while_moves_are_held)
{
    start(2, true, false);
    cp_steal_hold(&sides[0].core, true);
    park(0);
    settle();
    expect_quotas(2, 1, 1);
    cp_steal_hold(&sides[0].core, false);
    cp_steal_hold(&sides[1].core, true);
    settle();
    cr_expect_eq(sides[1].core.quota, 1, "it has said that nothing is on its way");
    cr_expect(cp_steal_is_home(&sides[0].core) && cp_steal_is_home(&sides[1].core));
}

Test(evacuate, nothing_goes_any_more_once_the_cpu_is_back)
{
    start(2, true, false);
    cp_slot *slot = lease(0);
    park(0);
    settle();
    cp_evacuate(&sides[0].core, false);
    settle();
    cr_expect_not(sides[0].waiting);
    give_back(0, slot);
    settle();
    cr_expect_eq(sides[0].core.quota, 1);
    cr_expect_eq(sides[0].shelved, 1);
}

Test(evacuate, a_slice_that_does_not_steal_gives_nothing_away)
{
    start(2, true, false);
    sides[0].core.options.steals = false;
    park(0);
    settle();
    expect_quotas(2, 1, 1);
}
