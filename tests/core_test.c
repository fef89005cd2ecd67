/* tests/core_test.c: the slice's state machine by itself: no threads, no clock; the test is manager and shelf.
 *
 * L1, L3 and L5 are checked after every step. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "core/core.h"

#define SLOTS 8
#define REQUESTS 16
#define MS CP_NS_PER_MS
#define REASON 7 /* any */

static struct cp_core core;
static cp_slot slots[SLOTS];
static struct cp_request requests[REQUESTS];
static int64_t now;

/* L3 speaks of a core at rest: between an input and the actions that it brings about a worker may be idle. */
static void check_law(bool at_rest)
{
    const char *broken = cp_core_check(&core);
    if (broken && !at_rest && strncmp(broken, "L3", 2) == 0)
        return;
    cr_assert_null(broken, "%s", broken);
}

static void check(void)
{
    check_law(false);
}

static struct cp_action next(void)
{
    struct cp_action action;
    cp_core_next(&core, now, &action);
    check_law(action.what == CP_DO_NOTHING);
    return action;
}

static void expect_nothing(void)
{
    cr_expect_eq(next().what, CP_DO_NOTHING);
}

static struct cp_action expect(enum cp_do what)
{
    struct cp_action action = next();
    cr_assert_eq(action.what, what, "%d, not %d", action.what, what);
    return action;
}

static void start(struct cp_core_options options)
{
    options.max_opening = options.max_opening ? options.max_opening : SLOTS;
    options.backoff_min_ns = options.backoff_min_ns ? options.backoff_min_ns : 20 * MS;
    options.backoff_max_ns = options.backoff_max_ns ? options.backoff_max_ns : 2000 * MS;
    now = 1000 * MS;
    memset(slots, 0, sizeof slots);
    memset(requests, 0, sizeof requests);
    for (unsigned i = 0; i < REQUESTS; i++)
        cp_list_init(&requests[i].link);
    cp_core_init(&core, &options, slots);
    check();
}

static void start_lazy(uint32_t quota)
{
    start((struct cp_core_options){.quota = quota, .lazy = true});
}

static void ask(unsigned i)
{
    atomic_store(&requests[i].outcome, CP_PENDING);
    cp_core_request(&core, &requests[i]);
    check();
}

static void give_up(unsigned i, enum cp_outcome outcome)
{
    atomic_store(&requests[i].outcome, outcome);
    cp_core_give_up(&core, &requests[i]);
    check();
}

static void open_fails(cp_slot *slot)
{
    cp_core_open_failed(&core, slot, now);
    check();
}

/* Opens every worker of an eager core and brings it onto the (imagined) shelf. */
static void open_and_shelve(uint32_t quota)
{
    for (uint32_t i = 0; i < quota; i++) {
        cp_core_opened(&core, expect(CP_DO_OPEN).slot);
        expect(CP_DO_SHELVE);
    }
    expect_nothing();
}

/* --- who is served, and in which order --- */

Test(core, requests_are_granted_in_the_order_of_their_arrival)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    for (unsigned i = 0; i < 5; i++)
        ask(i);
    expect(CP_DO_LISTEN);
    expect_nothing();
    for (unsigned i = 0; i < 5; i++) {
        cp_core_idle(&core, &slots[0]);
        struct cp_action action = expect(CP_DO_GRANT);
        cr_expect_eq(action.request, &requests[i]);
        cr_expect_eq(action.slot, &slots[0]);
        cp_core_granted(&core, 0);
    }
    cr_expect_eq(core.grants, 5);
}

Test(core, a_request_that_comes_again_keeps_its_place)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    ask(0);
    ask(1);
    requests[2].again = true;
    ask(2);
    expect(CP_DO_LISTEN);
    cp_core_idle(&core, &slots[0]);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[2]);
}

Test(core, a_request_that_is_given_up_leaves_the_queue_at_once_wherever_it_stands)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    for (unsigned i = 0; i < 5; i++)
        ask(i);
    expect(CP_DO_LISTEN);
    give_up(2, CP_TIMED_OUT);
    give_up(0, CP_TIMED_OUT);
    give_up(4, CP_CANCELLED);
    cr_expect_eq(core.waiting, 2);
    cr_expect_eq(core.timeouts, 2);
    cr_expect_eq(core.cancels, 1);
    cp_core_idle(&core, &slots[0]);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[1]);
    cp_core_idle(&core, &slots[0]);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[3]);
}

Test(core, a_grant_that_lost_to_its_caller_leaves_the_worker_for_the_next)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    ask(0);
    ask(1);
    expect(CP_DO_LISTEN);
    cp_core_idle(&core, &slots[0]);
    struct cp_action action = expect(CP_DO_GRANT);
    cp_core_undecided(&core);
    cp_core_idle(&core, action.slot);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[1]);
    give_up(0, CP_TIMED_OUT); /* its notice, after the fact */
    cr_expect_eq(core.timeouts, 1);
    cr_expect_eq(core.owed, 0);
}

/* --- the shelf --- */

Test(core, the_newest_idle_worker_is_shelved_last)
{
    start((struct cp_core_options){.quota = 3});
    for (unsigned i = 0; i < 3; i++)
        expect(CP_DO_OPEN);
    for (unsigned i = 0; i < 3; i++)
        cp_core_opened(&core, &slots[i]);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(expect(CP_DO_SHELVE).slot, &slots[i]);
    expect_nothing();
}

Test(core, listens_once_while_requests_wait_and_stops_when_none_does)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    ask(0);
    expect(CP_DO_LISTEN);
    ask(1);
    expect_nothing();
    give_up(0, CP_TIMED_OUT);
    expect_nothing();
    give_up(1, CP_TIMED_OUT);
    expect(CP_DO_UNLISTEN);
    expect_nothing();
}

Test(core, listens_again_when_the_shelf_was_not_empty)
{
    start((struct cp_core_options){.quota = 1});
    open_and_shelve(1);
    ask(0);
    expect(CP_DO_LISTEN);
    cp_core_not_listening(&core);
    expect(CP_DO_LISTEN); /* nothing was brought: it asks again */
    cp_core_not_listening(&core);
    cp_core_idle(&core, &slots[0]);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[0]);
    expect_nothing();
}

Test(core, a_worker_is_never_shelved_beside_a_waiting_request)
{
    start((struct cp_core_options){.quota = 2});
    ask(0);
    expect(CP_DO_LISTEN);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_GRANT);
    expect(CP_DO_UNLISTEN);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
}

Test(core, a_managed_core_never_shelves)
{
    start((struct cp_core_options){.quota = 1, .managed = true});
    core.listening = true; /* as its manager sets it for good */
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect_nothing();
    ask(0);
    expect(CP_DO_GRANT);
    cp_core_idle(&core, &slots[0]);
    expect_nothing();
}

/* --- opening --- */

Test(core, eager_opens_all_but_no_more_at_once_than_allowed)
{
    start((struct cp_core_options){.quota = 5, .max_opening = 2});
    cp_slot *first = expect(CP_DO_OPEN).slot;
    expect(CP_DO_OPEN);
    expect_nothing();
    cp_core_opened(&core, first);
    expect(CP_DO_SHELVE);
    expect(CP_DO_OPEN);
    expect_nothing();
    cr_expect_eq(core.opening, 2);
}

Test(core, lazy_opens_nothing_unasked_and_one_worker_for_each_request_up_to_its_quota)
{
    start_lazy(3);
    expect_nothing();
    ask(0);
    ask(1);
    expect(CP_DO_LISTEN);
    expect(CP_DO_OPEN);
    expect(CP_DO_OPEN);
    expect_nothing();
    ask(2);
    ask(3);
    expect(CP_DO_OPEN);
    expect_nothing();
}

Test(core, lazy_wakes_a_waiter_when_a_worker_ends_and_gives_its_place_back)
{
    start_lazy(1);
    ask(0);
    expect(CP_DO_LISTEN);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_GRANT);
    ask(1);
    expect_nothing();
    cp_core_doom(&core, &slots[0], REASON); /* its holder has died */
    cr_expect_eq(expect(CP_DO_TERMINATE).reason, REASON);
    expect_nothing();
    cp_core_gone(&core, &slots[0]);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    cr_expect_eq(expect(CP_DO_GRANT).request, &requests[1]);
    cr_expect_eq(core.terminated, 1);
}

/* --- back-off --- */

/* The wait after the failure of the only open, which must begin now. */
static int64_t fail_and_measure(void)
{
    open_fails(expect(CP_DO_OPEN).slot);
    expect_nothing();
    int64_t wake_at = cp_core_wake_at(&core, now);
    cr_assert_neq(wake_at, CP_NEVER);
    int64_t wait = wake_at - now;
    now = wake_at - 1;
    expect_nothing();
    now = wake_at;
    return wait;
}

Test(core, back_off_doubles_up_to_its_limit_and_jitter_takes_off_at_most_half)
{
    for (uint64_t seed = 1; seed < 50; seed++) {
        start((struct cp_core_options){
            .quota = 1, .backoff_min_ns = 20 * MS, .backoff_max_ns = 500 * MS, .seed = seed});
        int64_t most = 20 * MS;
        for (unsigned i = 0; i < 40; i++) {
            int64_t wait = fail_and_measure();
            cr_expect_leq(wait, most);
            cr_expect_geq(wait, most / 2);
            most = most * 2 < 500 * MS ? most * 2 : 500 * MS;
        }
    }
}

Test(core, slices_that_failed_together_do_not_come_back_together)
{
    int64_t first = 0;
    unsigned same = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        start((struct cp_core_options){.quota = 1, .seed = seed * UINT64_C(0x9E3779B97F4A7C15)});
        int64_t wait = fail_and_measure();
        first = first ? first : wait;
        same += wait == first;
    }
    cr_expect_lt(same, 3);
}

Test(core, success_resets_the_back_off)
{
    start((struct cp_core_options){.quota = 1});
    for (unsigned i = 0; i < 6; i++)
        fail_and_measure();
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    cp_core_doom_idle(&core, &slots[0], REASON);
    expect(CP_DO_TERMINATE);
    cp_core_gone(&core, &slots[0]);
    cr_expect_leq(fail_and_measure(), 20 * MS);
}

Test(core, after_a_failure_one_at_a_time_tries_until_one_succeeds)
{
    start((struct cp_core_options){.quota = 4});
    cp_slot *opening[4];
    for (unsigned i = 0; i < 4; i++)
        opening[i] = expect(CP_DO_OPEN).slot;
    for (unsigned i = 0; i < 4; i++)
        open_fails(opening[i]);
    expect_nothing();
    now = core.open_not_before;
    cp_slot *probe = expect(CP_DO_OPEN).slot;
    expect_nothing();
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
    cp_core_opened(&core, probe);
    expect(CP_DO_SHELVE);
    for (unsigned i = 0; i < 3; i++)
        expect(CP_DO_OPEN);
    expect_nothing();
}

Test(core, a_lazy_core_with_nobody_waiting_does_not_wake_for_its_back_off)
{
    start_lazy(1);
    ask(0);
    expect(CP_DO_LISTEN);
    open_fails(expect(CP_DO_OPEN).slot);
    cr_expect_neq(cp_core_wake_at(&core, now), CP_NEVER);
    give_up(0, CP_TIMED_OUT);
    expect(CP_DO_UNLISTEN);
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
}

/* --- closing --- */

static void close_core(void)
{
    cp_core_close(&core, REASON);
    check();
}

Test(core, close_refuses_who_waits_terminates_who_idles_and_finishes_once)
{
    start((struct cp_core_options){.quota = 2});
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    ask(0);
    ask(1);
    expect(CP_DO_GRANT);
    cp_core_idle(&core, &slots[0]); /* drained from the shelf by the closing manager */
    close_core();
    cr_expect_eq(expect(CP_DO_REFUSE).request, &requests[1]);
    cr_expect_eq(expect(CP_DO_TERMINATE).reason, REASON);
    expect_nothing();
    cp_core_gone(&core, &slots[0]);
    expect_nothing();
    cp_core_idle(&core, &slots[1]); /* the lease comes back late */
    expect(CP_DO_TERMINATE);
    cp_core_gone(&core, &slots[1]);
    expect(CP_DO_FINISH);
    expect_nothing();
}

Test(core, close_waits_for_what_is_opening_and_opens_nothing_more)
{
    start((struct cp_core_options){.quota = 3, .max_opening = 2});
    cp_slot *first = expect(CP_DO_OPEN).slot, *second = expect(CP_DO_OPEN).slot;
    close_core();
    expect_nothing();
    open_fails(first);
    expect_nothing();
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
    cp_core_opened(&core, second);
    expect(CP_DO_TERMINATE);
    cp_core_gone(&core, second);
    expect(CP_DO_FINISH);
}

Test(core, the_first_reason_stands_a_worker_s_own_or_the_first_close_s)
{
    start((struct cp_core_options){.quota = 2});
    expect(CP_DO_OPEN);
    expect(CP_DO_OPEN);
    cp_core_opened(&core, &slots[0]);
    cp_core_opened(&core, &slots[1]);
    cp_core_doom_idle(&core, &slots[0], REASON + 1);
    close_core();
    cp_core_close(&core, REASON + 2);
    cr_expect_eq(expect(CP_DO_TERMINATE).reason, REASON + 1);
    cr_expect_eq(expect(CP_DO_TERMINATE).reason, REASON);
}

Test(core, finish_waits_for_the_notice_of_a_request_that_was_given_up)
{
    start_lazy(1);
    ask(0);
    close_core();
    expect(CP_DO_REFUSE);
    cp_core_undecided(&core);
    expect_nothing();
    give_up(0, CP_TIMED_OUT);
    expect(CP_DO_FINISH);
}


/* --- counts as of one moment --- */

#define SNAPSHOTS 2000

static _Atomic bool over;

/* Opens and terminates one worker after the other. */
static void *turn_over(void *arg)
{
    struct cp_action action;
    (void)arg;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        cp_core_next(&core, now, &action);
        if (action.what == CP_DO_OPEN)
            cp_core_opened(&core, action.slot);
        else if (action.what == CP_DO_SHELVE)
            cp_core_doom(&core, action.slot, REASON);
        else if (action.what == CP_DO_TERMINATE)
            cp_core_gone(&core, action.slot);
    }
    return NULL;
}

Test(core, a_snapshot_by_another_thread_accounts_for_every_slot_whenever_it_is_taken)
{
    pthread_t thread;
    struct cp_core_counts counts;
    unsigned taken = 0, torn = 0, unaccounted = 0;
    start((struct cp_core_options){.quota = SLOTS});
    cr_assert_eq(pthread_create(&thread, NULL, turn_over, NULL), 0);
    for (uint64_t last = 0; taken < SNAPSHOTS; last = counts.terminated) {
        if (!cp_core_snapshot(&core, &counts))
            continue;
        taken += counts.terminated != last; /* else nothing was going on */
        torn += counts.vacant + counts.opening + counts.live + counts.closing != counts.quota;
        unaccounted +=
            counts.opens != counts.open_failures + counts.opening + counts.live + counts.closing + counts.terminated;
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    cr_expect_eq(torn, 0, "%u of %d", torn, SNAPSHOTS);
    cr_expect_eq(unaccounted, 0, "%u of %d", unaccounted, SNAPSHOTS);
    check();
}
