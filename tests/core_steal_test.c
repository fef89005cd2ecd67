/* tests/core_steal_test.c: slices that ask each other: no threads, messages as the test delivers them, and time
 * as it says. */
#include <criterion/criterion.h>

#include <corepool/error.h>
#include <corepool/topology.h>
#include <corepool/worker.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "core/core.h"

#define SLICES 256
#define SLOTS 32
#define MS CP_NS_PER_MS

/* Managed, so that what is idle stays in the core's hands and no shelf is to be played. */
static struct slice {
    struct cp_core core;
    cp_slot slots[SLOTS];
    struct cp_want records[SLICES];
    struct cp_want *wants[SLICES];
    unsigned order[SLICES];
    struct cp_request requests[SLOTS];
    unsigned asked, granted; /* requests */
} * slices;

static unsigned count;
static int64_t now;
static unsigned sent[3];          /* asks, withdrawals, answers */
static unsigned asked_of[SLICES]; /* by whom slice 0 asked, in that order */

static struct slice *slice_of(const struct cp_core *core)
{
    return &slices[((const char *)core - (const char *)slices) / (ptrdiff_t)sizeof *slices];
}

static void pump(struct slice *slice);

static void meet(struct slice *slice)
{
    for (unsigned i = 0; i + 1 < count; i++) {
        slice->records[i] = (struct cp_want){.asker = &slice->core, .neighbour = &slices[slice->order[i]].core};
        cp_list_init(&slice->records[i].link);
        slice->wants[i] = &slice->records[i];
    }
    cp_steal_meet(&slice->core, slice->wants, count - 1);
}

/* The message arrives at once. */
static void ask(struct slice *slice, struct cp_want *want)
{
    struct slice *neighbour = slice_of(want->neighbour);
    if (!cp_steal_lend(&slice->core, want, 0))
        return;
    asked_of[sent[0]++ % SLICES] = (unsigned)(neighbour - slices);
    cp_steal_asked(&neighbour->core, want, 0, now);
    pump(neighbour);
}

static void adopt(struct slice *slice, struct cp_want *want)
{
    for (uint32_t i = 0; i < want->workers + want->places; i++) {
        cp_slot *slot = cp_steal_take_spare(&slice->core);
        if (!slot)
            slot = &slice->slots[atomic_load(&slice->core.quota) + slice->core.spare];
        if (i < want->workers)
            cp_steal_adopt(&slice->core, slot, &want->moved[i]);
        else
            cp_steal_adopt_place(&slice->core, slot);
    }
    cp_steal_adopt_warmth(&slice->core, want);
    cp_steal_home(&slice->core, want, now);
}

static void perform(struct slice *slice, const struct cp_action *action)
{
    switch (action->what) {
    case CP_DO_GRANT: slice->granted++, cp_core_granted(&slice->core, 0); break;
    case CP_DO_REFUSE: break;
    case CP_DO_OPEN: cp_core_opened(&slice->core, action->slot); break;
    case CP_DO_TERMINATE: cp_core_gone(&slice->core, action->slot); break;
    case CP_DO_MEET: meet(slice); break;
    case CP_DO_ASK: ask(slice, action->want); break;
    case CP_DO_WITHDRAW:
        sent[1]++;
        cp_steal_nudged(&slice_of(action->want->neighbour)->core);
        pump(slice_of(action->want->neighbour));
        break;
    case CP_DO_MOVE: break;
    case CP_DO_ANSWER:
        sent[2]++;
        cp_steal_answered(&slice_of(action->want->asker)->core, action->want);
        break;
    case CP_DO_ADOPT: adopt(slice, action->want); break;
    case CP_DO_FINISH: break;
    default: cr_assert_fail("%d is not for a managed slice", action->what);
    }
}

static void pump(struct slice *slice)
{
    struct cp_action action;
    for (cp_core_next(&slice->core, now, &action); action.what != CP_DO_NOTHING;
         cp_core_next(&slice->core, now, &action))
        perform(slice, &action);
    const char *broken = cp_core_check(&slice->core);
    cr_assert_null(broken, "slice %u: %s", (unsigned)(slice - slices), broken);
}

/* As a caller that plays the manager: true when something is left to the shard's thread. */
static bool play(struct slice *slice)
{
    struct cp_action action;
    bool left = false;
    for (cp_core_next_anywhere(&slice->core, now, &action, &left); action.what != CP_DO_NOTHING;
         cp_core_next_anywhere(&slice->core, now, &action, &left))
        perform(slice, &action);
    return left;
}

/* Every slice until `end`, a quarter of a millisecond at a time. */
static void run_until(int64_t end)
{
    for (; now < end; now += MS / 4)
        for (unsigned i = 0; i < count; i++)
            pump(&slices[i]);
}

static void check_pool(uint32_t size)
{
    uint64_t quota = 0, moving = 0;
    for (unsigned i = 0; i < count; i++) {
        quota += slices[i].core.quota;
        moving += slices[i].core.given - slices[i].core.stolen;
    }
    cr_expect_eq(quota + moving, size, "L1: %llu + %llu", (unsigned long long)quota,
                 (unsigned long long)moving);
}

static bool lazy; /* from the next start on */

static void start(unsigned how_many, uint32_t quota, bool movable)
{
    count = how_many;
    now = 1000 * MS;
    slices = calloc(count, sizeof *slices);
    cr_assert_not_null(slices);
    memset(sent, 0, sizeof sent);
    for (unsigned i = 0; i < count; i++) {
        struct slice *slice = &slices[i];
        struct cp_core_options options = {.quota = quota,
                                          .managed = true,
                                          .lazy = lazy,
                                          .max_opening = SLOTS,
                                          .steals = true,
                                          .most = SLOTS,
                                          .movable = movable,
                                          .backoff_min_ns = MS,
                                          .backoff_max_ns = MS};
        for (unsigned j = 0; j < SLOTS; j++) {
            cp_list_init(&slice->slots[j].link);
            cp_list_init(&slice->requests[j].link);
        }
        cp_core_init(&slice->core, &options, slice->slots);
        slice->core.listening = true;
        for (unsigned j = 0; j + 1 < count; j++)
            slice->order[j] = (i + 1 + j) % count;
        pump(slice);
    }
}

static void request(struct slice *slice, unsigned how_many)
{
    for (; how_many > 0; how_many--) {
        struct cp_request *one = &slice->requests[slice->asked++ % SLOTS];
        one->posted_at = now;
        cp_core_request(&slice->core, one);
    }
}

static void finish(uint32_t size)
{
    check_pool(size);
    free(slices);
}

Test(core_steal, what_is_lacking_comes_from_the_nearest_and_no_more)
{
    start(4, 8, true);
    request(&slices[0], 11);
    run_until(now + MS);
    cr_expect_eq(slices[0].granted, 11);
    cr_expect_eq(slices[0].core.quota, 11);
    cr_expect_eq(slices[1].core.quota, 5);
    cr_expect_eq(slices[2].core.quota, 8);
    cr_expect_eq(sent[0], 1);
    cr_expect_eq(sent[2], 1);
    finish(32);
}

Test(core_steal, a_giver_keeps_half_of_its_idle_workers_in_one_answer)
{
    start(2, 8, true);
    request(&slices[0], 16);
    now += 1;
    pump(&slices[0]);
    cr_expect_eq(slices[1].core.given, 4);
    run_until(now + 5 * MS);
    cr_expect_eq(slices[0].granted, 16);
    finish(16);
}

Test(core_steal, a_neighbour_without_a_place_to_spare_gives_one_to_who_has_none)
{
    start(2, 2, true);
    request(&slices[0], 4);
    run_until(now + 5 * MS);
    cr_assert_eq(slices[1].core.quota, 0);
    request(&slices[1], 1);
    request(&slices[0], 8); /* and always has a queue */
    run_until(now + 20 * MS);
    cr_expect_eq(slices[1].granted, 0);
    cp_core_idle(&slices[0].core, &slices[0].slots[0]); /* one comes back */
    run_until(now + 20 * MS);
    cr_expect_eq(slices[1].granted, 1);
    cr_expect_eq(slices[1].core.quota, 1);
    finish(4);
}

Test(core_steal, what_a_slice_is_to_warm_up_goes_with_its_places)
{
    lazy = true;
    start(2, 2, true);
    cp_core_rest(&slices[1].core, now + 100 * MS); /* opens nothing yet */
    cp_core_warm(&slices[1].core, 2);
    request(&slices[0], 4);
    run_until(now + 5 * MS);
    cr_assert_lt(slices[1].core.quota, 2, "a place has gone");
    cr_expect_leq(slices[1].core.warming, slices[1].core.quota);
    run_until(now + 200 * MS);
    cr_expect_eq(slices[0].core.warming + slices[1].core.warming, 0, "all that was to be open is");
    cr_expect_geq(slices[0].core.live + slices[1].core.live, 2);
    finish(4);
}

Test(core_steal, a_want_is_withdrawn_when_its_slice_has_not_starved_for_a_while)
{
    start(2, 1, true);
    request(&slices[0], 1);
    request(&slices[1], 1);
    run_until(now + MS); /* both leased */
    request(&slices[0], 1);
    run_until(now + MS);
    cr_assert_eq(slices[0].core.steal.lent, 1);
    cp_core_idle(&slices[0].core, &slices[0].slots[0]);
    pump(&slices[0]);
    now += CP_STEAL_LINGER_NS - 1; /* the neighbour sleeps meanwhile */
    pump(&slices[0]);
    cr_expect_eq(sent[1], 0);
    now += 1;
    pump(&slices[0]);
    cr_expect_eq(sent[1], 1);
    pump(&slices[0]); /* the answer */
    cr_expect(cp_steal_is_home(&slices[0].core) && cp_steal_is_home(&slices[1].core));
    finish(2);
}

/* Every worker is leased, one request waits at slice 0, and its wants stand at all others. */
static void starve(unsigned how_many, uint32_t quota)
{
    start(how_many, quota, true);
    for (unsigned i = 0; i < how_many; i++)
        request(&slices[i], quota);
    run_until(now + MS);
    request(&slices[0], 1);
    run_until(now + 5 * MS);
    cr_assert_eq(slices[0].core.steal.lent, how_many - 1);
    memset(sent, 0, sizeof sent);
}

Test(core_steal, of_many_who_could_give_what_is_sought_one_does)
{
    starve(3, 1);
    for (unsigned i = 1; i < 3; i++) {
        cp_core_idle(&slices[i].core, &slices[i].slots[0]);
        pump(&slices[i]); /* the asker sleeps meanwhile */
    }
    cr_expect_eq(sent[2], 2, "both wants are answered: %u", sent[2]);
    cr_expect_eq(slices[1].core.given, 1);
    cr_expect_eq(slices[2].core.given, 0);
    run_until(now + MS);
    cr_expect_eq(slices[0].granted, 2);
    cr_expect_eq(slices[2].core.idle, 1);
    finish(3);
}

Test(core_steal, a_want_that_is_not_needed_any_more_is_answered_before_it_is_withdrawn)
{
    starve(2, 1);
    cp_core_idle(&slices[0].core, &slices[0].slots[0]);
    pump(&slices[0]);
    cr_expect_eq(sent[2], 0);
    pump(&slices[1]);
    cr_expect_eq(sent[2], 1);
    run_until(now + 5 * MS);
    cr_expect_eq(sent[1], 0);
    cr_expect_eq(slices[1].core.given, 0);
    finish(2);
}

Test(core_steal, own_requests_go_before_a_want_unless_many_more_wait_there)
{
    starve(2, 2);
    request(&slices[1], 2);
    pump(&slices[1]);
    now += CP_STEAL_WEIGH_NS;
    cp_core_idle(&slices[1].core, &slices[1].slots[0]);
    pump(&slices[1]);
    cr_expect_eq(slices[1].granted, 3);
    cr_expect_eq(slices[1].core.given, 0);
    request(&slices[0], 9); /* ten for two workers there, one for one here */
    pump(&slices[0]);
    now += CP_STEAL_WEIGH_NS;
    cp_core_idle(&slices[1].core, &slices[1].slots[1]);
    pump(&slices[1]);
    cr_expect_eq(slices[1].granted, 3);
    cr_expect_eq(slices[1].core.given, 1);
    run_until(now + MS);
    cr_expect_eq(slices[0].granted, 3);
    finish(4);
}

/* Else who plays would grant all that comes back, and the thread would never see an idle worker. */
Test(core_steal, who_plays_leaves_a_worker_to_the_thread_for_a_want_that_outweighs)
{
    starve(2, 2);
    request(&slices[1], 3);
    pump(&slices[1]);
    request(&slices[0], 20); /* 21 for two workers there, three for one here */
    pump(&slices[0]);
    now += CP_STEAL_WEIGH_NS;
    cp_core_idle(&slices[1].core, &slices[1].slots[0]);
    cr_expect(play(&slices[1]));
    cr_expect_eq(slices[1].granted, 2, "it is not granted by who plays");
    cp_core_idle(&slices[1].core, &slices[1].slots[1]);
    cr_expect(play(&slices[1]));
    cr_expect_eq(slices[1].granted, 3, "one is enough: the others serve who waits here");
    pump(&slices[1]);
    cr_expect_eq(slices[1].core.given, 1);
    run_until(now + MS);
    cr_expect_eq(slices[0].granted, 3);
    finish(4);
}

Test(core_steal, who_plays_does_not_leave_a_worker_to_a_thread_that_does_not_come)
{
    starve(2, 2);
    request(&slices[1], 3);
    pump(&slices[1]);
    request(&slices[0], 20);
    pump(&slices[0]);
    now += CP_STEAL_WEIGH_NS;
    cp_core_idle(&slices[1].core, &slices[1].slots[0]);
    cr_expect(play(&slices[1]));
    now += CP_STEAL_BOUND_NS;
    play(&slices[1]);
    cr_expect_eq(slices[1].granted, 3);
    finish(4);
}

Test(core_steal, who_plays_grants_beside_a_want_that_does_not_outweigh)
{
    starve(2, 2);
    request(&slices[1], 3);
    pump(&slices[1]);
    now += CP_STEAL_WEIGH_NS;
    cp_core_idle(&slices[1].core, &slices[1].slots[0]);
    cr_expect_not(play(&slices[1]));
    cr_expect_eq(slices[1].granted, 3);
    request(&slices[0], 20); /* presses now; but the last look was just before */
    pump(&slices[0]);
    cp_core_idle(&slices[1].core, &slices[1].slots[1]);
    cr_expect_not(play(&slices[1]));
    cr_expect_eq(slices[1].granted, 4);
    finish(4);
}

Test(core_steal, beside_own_requests_who_asks_is_looked_at_once_in_a_while)
{
    starve(2, 3);
    request(&slices[1], 4);
    pump(&slices[1]); /* the look */
    request(&slices[0], 14);
    pump(&slices[0]);
    for (unsigned i = 0; i < 2; i++) {
        now += CP_STEAL_WEIGH_NS / 3;
        cp_core_idle(&slices[1].core, &slices[1].slots[i]);
        pump(&slices[1]);
    }
    cr_expect_eq(slices[1].granted, 5, "%u", slices[1].granted);
    cr_expect_eq(slices[1].core.given, 0);
    now += CP_STEAL_WEIGH_NS / 3 + 1;
    cp_core_idle(&slices[1].core, &slices[1].slots[2]);
    pump(&slices[1]);
    cr_expect_eq(slices[1].granted, 5, "%u", slices[1].granted);
    cr_expect_eq(slices[1].core.given, 1);
    run_until(now + MS);
    finish(6);
}

Test(core_steal, a_slice_that_closes_or_holds_answers_all_and_calls_back_its_own)
{
    start(3, 1, true);
    for (unsigned i = 0; i < 3; i++)
        request(&slices[i], 1);
    run_until(now + MS);
    request(&slices[0], 1);
    run_until(now + 4 * MS);
    cr_assert_eq(slices[0].core.steal.lent, 2);
    cp_core_close(&slices[1].core, COREPOOL_REASON_STOP);
    pump(&slices[1]);
    pump(&slices[0]);
    cr_expect_eq(slices[0].core.steal.lent, 1);
    cp_steal_hold(&slices[0].core, true);
    run_until(now + MS);
    for (unsigned i = 0; i < 3; i++)
        cr_expect(cp_steal_is_home(&slices[i].core));
    finish(3);
}

Test(core_steal, a_slice_that_closes_calls_its_wants_back_from_who_stays_open)
{
    starve(2, 1);
    cp_core_close(&slices[0].core, COREPOOL_REASON_STOP);
    pump(&slices[0]);
    cr_expect_eq(sent[1], 1);
    cr_expect_eq(sent[2], 1);
    pump(&slices[0]);
    cr_expect(cp_steal_is_home(&slices[0].core));
    finish(2);
}

Test(core_steal, a_slice_that_holds_its_moves_asks_nobody_until_it_is_released)
{
    start(2, 1, true);
    cp_steal_hold(&slices[0].core, true);
    request(&slices[0], 2);
    run_until(now + 20 * MS);
    cr_expect_eq(sent[0], 0);
    cp_steal_hold(&slices[0].core, false);
    run_until(now + MS);
    cr_expect_eq(sent[0], 1);
    cr_expect_eq(slices[0].granted, 2);
    finish(2);
}

Test(core_steal, a_bound_worker_is_retired_for_its_place_once_it_has_been_cold)
{
    start(2, 2, false);
    request(&slices[0], 3);
    run_until(now + CP_STEAL_BOUND_REST_NS / 2);
    cr_expect_eq(slices[0].granted, 2);
    cr_expect_eq(slices[1].core.terminated, 0);
    run_until(now + 2 * CP_STEAL_BOUND_REST_NS);
    cr_expect_eq(slices[0].granted, 3);
    cr_expect_eq(slices[1].core.terminated, 1);
    cr_expect_eq(slices[1].core.given, 1);
    finish(4);
}

Test(core_steal, what_is_idle_in_the_hands_of_a_far_manager_is_seen_in_the_first_round)
{
    start(64, 1, true);
    for (unsigned i = 0; i < 63; i++)
        request(&slices[i], 1);
    run_until(now + MS);
    request(&slices[0], 1);
    run_until(now + MS);
    cr_expect_eq(slices[0].granted, 2);
    cr_expect_eq(sent[0], 1);
    finish(64);
}

/* Two packages, four caches each, eight cores with two threads: the distances are those of the machine. */
Test(core_steal, neighbours_are_asked_in_the_order_of_their_distance)
{
    corepool_topology_t *topology;
    corepool_topology_options_t options = {.synthetic = "package:2 l3:4 core:8 pu:2"};
    cr_assert_eq(corepool_topology_open(&options, &topology), COREPOOL_OK);
    cr_assert_eq(corepool_topology_shards(topology), 128);
    start(128, 1, true);
    for (unsigned i = 0; i < 128; i++) {
        corepool_topology_neighbours(topology, i, slices[i].order);
        request(&slices[i], 1);
    }
    run_until(now + MS);
    memset(sent, 0, sizeof sent);
    request(&slices[0], 1);
    run_until(now + 200 * MS);
    cr_assert_eq(sent[0], 127, "all are asked in the end, each once: %u", sent[0]);
    for (unsigned i = 0; i + 1 < 127; i++)
        cr_expect_leq(corepool_topology_distance(topology, 0, asked_of[i]),
                      corepool_topology_distance(topology, 0, asked_of[i + 1]), "%u", i);
    corepool_topology_close(topology);
    finish(128);
}

Test(core_steal, at_256_slices_a_neighbour_that_is_asked_costs_three_messages_at_most)
{
    start(SLICES, 1, true);
    for (unsigned i = 0; i < SLICES; i++)
        request(&slices[i], 1);
    run_until(now + MS);
    memset(sent, 0, sizeof sent);
    request(&slices[0], 1);
    run_until(now + 200 * MS);
    cp_core_idle(&slices[0].core, &slices[0].slots[0]);
    run_until(now + 10 * MS);
    cr_expect_eq(sent[0], SLICES - 1);
    cr_expect_leq(sent[1], sent[0]);
    cr_expect_eq(sent[2], sent[0]);
    cr_expect(cp_steal_is_home(&slices[0].core));
    finish(SLICES);
}
