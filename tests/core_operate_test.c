/* tests/core_operate_test.c: the slice's state machine when it is resized, held, drained, flushed, warmed and
 * overloaded: no threads, and time as the test says. L1, L3 and L5 are checked after every step. */
#include <criterion/criterion.h>

#include <corepool/worker.h>
#include <string.h>

#include "base/clock.h"
#include "core/core.h"

#define SLOTS 8
#define REQUESTS 64
#define MS CP_NS_PER_MS

static struct cp_core core;
static cp_slot slots[SLOTS];
static struct cp_request requests[REQUESTS];
static int64_t now;

static struct cp_action next(void)
{
    struct cp_action action;
    cp_core_next(&core, now, &action);
    const char *broken = cp_core_check(&core);
    if (broken && (action.what == CP_DO_NOTHING || strncmp(broken, "L3", 2) != 0))
        cr_assert_fail("%s", broken);
    return action;
}

static struct cp_action expect(enum cp_do what)
{
    struct cp_action action = next();
    cr_assert_eq(action.what, what, "%d, not %d", action.what, what);
    return action;
}

static void expect_nothing(void)
{
    expect(CP_DO_NOTHING);
}

static void start(struct cp_core_options options)
{
    options.max_opening = SLOTS;
    options.backoff_min_ns = options.backoff_max_ns = 20 * MS;
    now = 1000 * MS;
    memset(slots, 0, sizeof slots);
    memset(requests, 0, sizeof requests);
    for (unsigned i = 0; i < REQUESTS; i++)
        cp_list_init(&requests[i].link);
    cp_core_init(&core, &options, slots);
}

/* So many workers, on the imagined shelf. */
static void start_shelved(uint32_t quota, struct cp_core_options options)
{
    options.quota = quota;
    start(options);
    for (uint32_t i = 0; i < quota; i++) {
        cp_core_opened(&core, expect(CP_DO_OPEN).slot);
        expect(CP_DO_SHELVE);
    }
    expect_nothing();
}

static void ask(unsigned i)
{
    atomic_store(&requests[i].outcome, CP_PENDING);
    requests[i].posted_at = now;
    cp_core_request(&core, &requests[i]);
}

/* What was on the shelf, or has come back. */
static void bring(unsigned slot)
{
    cp_core_idle(&core, &slots[slot]);
}

static void expect_end(unsigned slot, uint8_t reason)
{
    struct cp_action action = expect(CP_DO_TERMINATE);
    cr_expect_eq(action.slot, &slots[slot]);
    cr_expect_eq(action.reason, reason);
    cp_core_gone(&core, action.slot);
}

static void expect_refused(unsigned request, enum cp_outcome outcome)
{
    struct cp_action action = expect(CP_DO_REFUSE);
    cr_assert_eq(action.request, &requests[request]);
    cr_expect_eq(action.outcome, outcome);
}

/* --- size --- */

Test(core_resize, a_larger_quota_takes_what_was_put_by_and_then_further_slots)
{
    start((struct cp_core_options){.quota = 4, .lazy = true});
    cr_expect_eq(cp_core_resize(&core, 1), 0);
    expect_nothing();
    cr_expect_eq(core.quota, 1);
    cr_expect_eq(cp_core_resize(&core, 6), 2);
    cp_core_add(&core, &slots[4]);
    cp_core_add(&core, &slots[5]);
    cr_expect_eq(core.quota, 6);
    cr_expect_eq(core.vacant, 6);
    expect_nothing();
}

Test(core_resize, the_shelf_is_emptied_until_enough_are_gone)
{
    start_shelved(3, (struct cp_core_options){0});
    cp_core_resize(&core, 1);
    for (unsigned i = 0; i < 2; i++) {
        expect(CP_DO_LISTEN);
        cp_core_not_listening(&core);
        bring(i);
        expect_end(i, COREPOOL_REASON_RESIZED);
    }
    expect_nothing();
    cr_expect_eq(core.quota, 1);
}

Test(core_resize, what_comes_back_goes_before_who_waits)
{
    start_shelved(2, (struct cp_core_options){0});
    cp_core_resize(&core, 1);
    ask(0);
    expect(CP_DO_LISTEN);
    expect_nothing();
    bring(1);
    expect_end(1, COREPOOL_REASON_RESIZED);
    expect_nothing();
    bring(0);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[0]);
    expect(CP_DO_UNLISTEN);
    cr_expect_eq(core.quota, 1);
}

Test(core_resize, a_worker_that_ends_for_another_reason_counts)
{
    start_shelved(2, (struct cp_core_options){0});
    cp_core_resize(&core, 1);
    expect(CP_DO_LISTEN);
    cp_core_doom(&core, &slots[0], COREPOOL_REASON_FAILED);
    expect_end(0, COREPOOL_REASON_FAILED);
    expect(CP_DO_UNLISTEN);
    expect_nothing();
    cr_expect_eq(core.quota, 1);
}

/* --- holding --- */

Test(core_pause, nothing_is_granted_or_shelved_until_it_ends)
{
    start_shelved(1, (struct cp_core_options){0});
    cp_core_pause(&core, true);
    expect(CP_DO_LISTEN);
    cp_core_not_listening(&core);
    bring(0);
    expect(CP_DO_LISTEN);
    ask(0);
    expect_nothing();
    cp_core_pause(&core, false);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[0]);
    expect(CP_DO_UNLISTEN);
}

Test(core_pause, no_worker_is_opened_for_who_waits_beside_an_idle_one)
{
    start((struct cp_core_options){.quota = 4, .lazy = true});
    cp_core_pause(&core, true);
    expect(CP_DO_LISTEN);
    ask(0);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect_nothing();
    ask(1);
    expect(CP_DO_OPEN);
    expect_nothing();
}

Test(core_pause, nobody_is_shed_for_having_waited_through_it)
{
    start_shelved(1, (struct cp_core_options){.shed_target_ns = 5 * MS, .shed_interval_ns = 30 * MS});
    for (unsigned i = 0; i < 4; i++)
        ask(i);
    expect(CP_DO_LISTEN);
    now += 10 * MS;
    bring(0);
    expect(CP_DO_GRANT);
    cp_core_pause(&core, true);
    now += 1000 * MS;
    bring(0);
    expect_nothing();
    cp_core_pause(&core, false);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[1]);
    now += 30 * MS;
    bring(0);
    expect_refused(2, CP_SHED); /* that is no longer the pause's doing */
}

Test(core_drain, refuses_who_comes_later_and_serves_who_keeps_its_place)
{
    start_shelved(1, (struct cp_core_options){0});
    ask(0);
    expect(CP_DO_LISTEN);
    cp_core_drain(&core, true);
    ask(1);
    requests[2].again = true;
    ask(2);
    expect_refused(1, CP_DRAINING);
    expect_nothing();
    cr_expect_not(cp_core_is_quiet(&core));
    for (unsigned i = 0; i < 2; i++) {
        bring(0);
        cr_expect_eq(expect(CP_DO_GRANT).request, &requests[i ? 0 : 2]);
    }
    bring(0);
    expect_nothing();
    cr_expect(cp_core_is_quiet(&core));
    ask(2);
    expect_refused(2, CP_DRAINING); /* quiet stays quiet */
    cp_core_drain(&core, false);
    expect(CP_DO_UNLISTEN);
    expect(CP_DO_SHELVE);
}

/* --- flush, warm --- */

Test(core_refresh, the_next_goes_when_the_last_was_replaced)
{
    start_shelved(2, (struct cp_core_options){0});
    cp_core_refresh(&core);
    for (unsigned i = 0; i < 2; i++) {
        expect(CP_DO_REFRESH);
        cp_core_doom(&core, &slots[i], COREPOOL_REASON_FLUSHED);
        expect_end(i, COREPOOL_REASON_FLUSHED);
        cp_slot *slot = expect(CP_DO_OPEN).slot;
        expect_nothing();
        cp_core_open_failed(&core, slot, now);
        expect_nothing();
        now += 20 * MS;
        cp_core_opened(&core, expect(CP_DO_OPEN).slot);
        expect(CP_DO_SHELVE);
    }
    expect(CP_DO_REFRESH);
    cp_core_refreshed(&core);
    expect_nothing();
}

Test(core_refresh, a_worker_that_was_doomed_while_it_opened_ends)
{
    start((struct cp_core_options){.quota = 1});
    cp_slot *slot = expect(CP_DO_OPEN).slot;
    slot->doom = COREPOOL_REASON_FLUSHED;
    atomic_store(&slot->item.doomed, 1);
    cp_core_opened(&core, slot);
    expect_end(0, COREPOOL_REASON_FLUSHED);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
}

Test(core_warm, a_lazy_core_opens_so_many_once)
{
    start((struct cp_core_options){.quota = 4, .lazy = true});
    cp_core_warm(&core, 2);
    cp_slot *first = expect(CP_DO_OPEN).slot;
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
    expect_nothing();
    cp_core_opened(&core, first);
    expect(CP_DO_SHELVE);
    cp_core_doom(&core, first, COREPOOL_REASON_FAILED);
    expect_end(first == slots ? 0 : 1, COREPOOL_REASON_FAILED);
    expect_nothing();
}

Test(core_warm, a_smaller_quota_that_is_open_already_is_not_kept_open)
{
    start((struct cp_core_options){.quota = 2, .lazy = true});
    cp_core_warm(&core, 2);
    cp_slot *first = expect(CP_DO_OPEN).slot;
    cp_core_open_failed(&core, expect(CP_DO_OPEN).slot, now);
    cp_core_opened(&core, first);
    expect(CP_DO_SHELVE);
    cp_core_resize(&core, 1);
    cp_core_doom(&core, first, COREPOOL_REASON_FAILED);
    expect_end((unsigned)(first - slots), COREPOOL_REASON_FAILED);
    now += 1000 * MS;
    expect_nothing();
}

Test(core_detach, the_slot_is_vacant_once_its_class_has_forgotten)
{
    start_shelved(1, (struct cp_core_options){0});
    cp_core_detach(&core, &slots[0]);
    expect_nothing();
    cr_expect_eq(core.closing, 1);
    cp_core_gone(&core, &slots[0]);
    expect(CP_DO_OPEN);
}

/* --- overload --- */

Test(core_overload, the_newest_above_the_limit_is_refused_but_none_that_keeps_its_place)
{
    start_shelved(1, (struct cp_core_options){.max_waiting = 2});
    for (unsigned i = 0; i < 4; i++)
        ask(i);
    expect(CP_DO_LISTEN);
    expect_refused(3, CP_OVERLOADED);
    expect_refused(2, CP_OVERLOADED);
    expect_nothing();
    requests[4].again = true;
    ask(4);
    expect_refused(1, CP_OVERLOADED);
    cr_expect_eq(core.sheds, 3);
    expect_nothing();
}

Test(core_overload, who_can_be_served_at_once_does_not_count)
{
    start((struct cp_core_options){.quota = 2, .managed = true, .max_waiting = 1});
    core.listening = true; /* for good, as the manager sets it */
    for (unsigned i = 0; i < 2; i++)
        cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    for (unsigned i = 0; i < 4; i++)
        ask(i);
    expect(CP_DO_GRANT);
    expect(CP_DO_GRANT);
    expect_refused(3, CP_OVERLOADED);
    expect_nothing();
}

/* --- CoDel: a queue whose every head has waited for `sojourn` --- */

static struct cp_shed shed;

static bool head(int64_t sojourn)
{
    return cp_shed_head(&shed, sojourn, false, now);
}

/* Heads come once a millisecond; how many of the next `count` are refused. */
static unsigned refused_of(unsigned count, int64_t sojourn)
{
    unsigned refused = 0;
    for (unsigned i = 0; i < count; i++, now += MS)
        refused += head(sojourn);
    return refused;
}

static void start_shed(void)
{
    now = 1000 * MS;
    cp_shed_init(&shed, 5 * MS, 100 * MS);
}

Test(core_shed, a_burst_shorter_than_the_interval_does_no_harm)
{
    start_shed();
    for (unsigned i = 0; i < 20; i++) {
        cr_expect_eq(refused_of(99, 50 * MS), 0);
        cr_expect_eq(refused_of(1, 4 * MS), 0);
    }
}

Test(core_shed, refusing_speeds_up_by_the_square_root_of_how_many)
{
    int64_t at[5], began;
    start_shed();
    began = now;
    for (unsigned i = 0; i < 5; now += MS)
        if (head(6 * MS))
            at[i++] = now - began;
    cr_expect_eq(at[0], 100 * MS);
    /* 100 ms by the roots of 1, 2, 3 and 4, added up: 100, 170.7, 228.4, 278.4; seen at the next whole
     * millisecond. */
    cr_expect_eq(at[1], 200 * MS);
    cr_expect_eq(at[2], 271 * MS);
    cr_expect_eq(at[3], 329 * MS);
    cr_expect_eq(at[4], 379 * MS);
}

Test(core_shed, one_that_waited_less_ends_it)
{
    start_shed();
    cr_expect_gt(refused_of(400, 6 * MS), 3);
    cr_expect_eq(refused_of(1, 4 * MS), 0);
    cr_expect_eq(refused_of(100, 6 * MS), 0);
    cr_expect_eq(refused_of(1, 6 * MS), 1);
}

Test(core_shed, overload_that_comes_back_soon_is_met_at_the_rate_that_it_had)
{
    start_shed();
    refused_of(1000, 6 * MS);
    uint32_t before = shed.count;
    refused_of(1, 4 * MS);
    refused_of(101, 6 * MS);
    cr_expect_geq(shed.count, before - 1);
    refused_of(1, 4 * MS);
    now += 20 * 100 * MS;
    refused_of(101, 6 * MS);
    cr_expect_eq(shed.count, 1, "long ago is forgotten");
}

Test(core_shed, the_last_in_the_queue_is_never_refused)
{
    start_shed();
    for (unsigned i = 0; i < 500; i++, now += MS)
        cr_assert_not(cp_shed_head(&shed, 1000 * MS, true, now));
}

Test(core_shed, without_a_target_nothing_is_refused)
{
    cp_shed_init(&shed, 0, 100 * MS);
    cr_expect_eq(refused_of(500, 1000 * MS), 0);
}

/* One worker, leases of 10 ms, twice as many requests as it can serve. */
Test(core_shed, the_core_refuses_its_oldest_request_and_grants_the_next)
{
    unsigned shed_count = 0, served = 0, asked = 0;
    start_shelved(1, (struct cp_core_options){.shed_target_ns = 5 * MS, .shed_interval_ns = 30 * MS});
    ask(asked++);
    expect(CP_DO_LISTEN);
    for (unsigned turn = 0; turn < 30; turn++, now += 10 * MS) {
        ask(asked++);
        ask(asked++);
        bring(0);
        struct cp_action action = next();
        for (; action.what == CP_DO_REFUSE; action = next()) {
            cr_assert_eq(action.request, &requests[served + shed_count]);
            cr_expect_eq(action.outcome, CP_SHED);
            shed_count++;
        }
        cr_assert_eq(action.what, CP_DO_GRANT);
        cr_assert_eq(action.request, &requests[served + shed_count]);
        served++;
    }
    cr_expect_eq(served, 30);
    cr_expect_geq(shed_count, 4);
    cr_expect_eq(core.sheds, shed_count);
}
