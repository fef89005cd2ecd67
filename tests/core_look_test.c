/* tests/core_look_test.c: what the core makes of the age of its workers: no threads, no clock; the test is manager, shelf,
 * clients and class.
 *
 * L1 is checked after every step. */
#include <criterion/criterion.h>

#include <string.h>

#include <corepool/worker.h>

#include "base/clock.h"
#include "core/core.h"

#define SLOTS 8
#define MS CP_NS_PER_MS
/* Of the pools here: all times are multiples of it. */
#define LOOK (10 * MS)
#define TIMEOUT (8 * LOOK)

static struct cp_core core;
static cp_slot slots[SLOTS];
static int64_t now;
/* The imagined shelf, oldest first, and what the class was asked. */
static unsigned shelf[SLOTS], shelved;
static unsigned asked[64], asks;
static uint8_t answers[SLOTS];
static uint8_t ended[SLOTS]; /* reasons of those that were terminated */
static unsigned opened;
static bool keeps_gone;      /* what is terminated stays in that state */

static unsigned number(const cp_slot *slot)
{
    return (unsigned)(slot - slots);
}

/* --- the shelf --- */

static void insert(unsigned at, cp_slot *slot)
{
    memmove(&shelf[at + 1], &shelf[at], (shelved++ - at) * sizeof shelf[0]);
    shelf[at] = number(slot);
    cp_slot_pass(slot, CP_TAG_SHELVED);
}

static cp_slot *extract(unsigned at)
{
    cp_slot *slot = &slots[shelf[at]];
    memmove(&shelf[at], &shelf[at + 1], (--shelved - at) * sizeof shelf[0]);
    cp_slot_pass(slot, CP_TAG_MANAGER);
    return slot;
}

static void lease(unsigned n)
{
    unsigned at = 0;
    while (at < shelved && shelf[at] != n)
        at++;
    cr_assert_lt(at, shelved, "worker %u is not idle", n);
    extract(at);
    cp_slot_set_stamp(&slots[n], cp_stamp_next_lease(cp_slot_stamp(&slots[n])));
}

static void give_back(unsigned n)
{
    if (atomic_load(&slots[n].item.doomed)) {
        cp_slot_pass(&slots[n], CP_TAG_MANAGER);
        cp_core_doom(&core, &slots[n], slots[n].doom);
    } else {
        insert(shelved, &slots[n]);
    }
}

/* --- the manager --- */

static void judge(uint8_t (*look)(struct cp_core *, cp_slot *, int64_t))
{
    for (unsigned i = 0; i < SLOTS; i++) {
        uint8_t reason = look(&core, &slots[i], now);
        if (reason != COREPOOL_REASON_NONE) {
            slots[i].doom = reason;
            atomic_store(&slots[i].item.doomed, 1);
        }
    }
}

static void sift(void)
{
    for (unsigned i = shelved; i-- > 0;)
        if (atomic_load(&slots[shelf[i]].item.doomed)) {
            cp_slot *slot = extract(i);
            cp_core_doom(&core, slot, slot->doom);
        }
}

static void look(void)
{
    cp_look_begin(&core);
    judge(cp_look_at);
    if (cp_look_end(&core, now))
        judge(cp_look_close);
    sift();
}

static void ask_class(cp_slot *slot)
{
    asked[asks++] = number(slot);
    if (answers[number(slot)] == COREPOOL_REASON_STOP) {
        cp_visit_end(&core);
        cp_visit_answered(&core, slot, COREPOOL_REASON_NONE);
    } else {
        cp_visit_answered(&core, slot, answers[number(slot)]);
    }
}

static void perform(const struct cp_action *action)
{
    switch (action->what) {
    case CP_DO_OPEN:
        opened++;
        action->slot->since = now;
        atomic_store(&action->slot->item.doomed, 0);
        cp_core_opened(&core, action->slot);
        break;
    case CP_DO_TERMINATE:
        ended[number(action->slot)] = action->reason;
        if (!keeps_gone)
            cp_core_gone(&core, action->slot);
        break;
    case CP_DO_SHELVE: insert(shelved, action->slot); break;
    case CP_DO_LOOK: look(); break;
    case CP_DO_FETCH: cp_visit_fetched(&core, shelved ? extract(0) : NULL); break;
    case CP_DO_PING:
    case CP_DO_INFO: ask_class(action->slot); break;
    case CP_DO_PUT_BACK: insert(0, action->slot); break;
    case CP_DO_FINISH: break;
    default: cr_assert_fail("action %d has no place here", action->what);
    }
}

static void settle(void)
{
    struct cp_action action;
    for (unsigned steps = 0;; steps++) {
        cr_assert_lt(steps, 1000, "the core never comes to rest");
        cp_core_next(&core, now, &action);
        const char *broken = cp_core_check(&core);
        cr_assert_null(broken, "%s", broken);
        if (action.what == CP_DO_NOTHING)
            return;
        perform(&action);
    }
}

/* Wakes the core whenever it asks for it, until `until`. */
static void pass(int64_t time)
{
    int64_t until = now + time;
    settle();
    for (int64_t at; (at = cp_core_wake_at(&core, now)) <= until; settle()) {
        cr_assert_gt(at, now, "it asks to be woken in the past");
        now = at;
    }
    now = until;
    settle();
}

static void start(struct cp_core_options options)
{
    options.quota = options.quota ? options.quota : 4;
    options.max_opening = SLOTS;
    options.backoff_min_ns = options.backoff_max_ns = MS;
    now = 1000 * LOOK;
    for (unsigned i = 0; i < SLOTS; i++)
        cp_slot_set_stamp(&slots[i], cp_stamp(0, CP_TAG_MANAGER));
    cp_core_init(&core, &options, slots);
    settle();
}

static void expect_asked(unsigned count, const unsigned *expected)
{
    cr_assert_eq(asks, count, "%u were asked, not %u", asks, count);
    for (unsigned i = 0; i < count; i++)
        cr_expect_eq(asked[i], expected[i], "%u was asked as number %u, not %u", asked[i], i, expected[i]);
    asks = 0;
}
#define EXPECT_ASKED(...) \
    expect_asked(sizeof((unsigned[]){__VA_ARGS__}) / sizeof(unsigned), (const unsigned[]){__VA_ARGS__})

static void expect_shelf(unsigned count, const unsigned *expected)
{
    cr_assert_eq(shelved, count);
    for (unsigned i = 0; i < count; i++)
        cr_expect_eq(shelf[i], expected[i]);
}
#define EXPECT_SHELF(...) \
    expect_shelf(sizeof((unsigned[]){__VA_ARGS__}) / sizeof(unsigned), (const unsigned[]){__VA_ARGS__})

/* --- when it looks at all --- */

Test(look, a_pool_without_times_never_asks_to_be_woken)
{
    start((struct cp_core_options){0});
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
}

Test(look, comes_eight_times_in_the_shortest_time)
{
    start((struct cp_core_options){.look = {.max_lifetime_ns = 100 * TIMEOUT, .idle_close_ns = TIMEOUT}});
    cr_expect_eq(cp_core_wake_at(&core, now), now + LOOK);
}

Test(look, does_not_come_more_often_than_each_millisecond)
{
    start((struct cp_core_options){.look = {.idle_close_ns = 2 * MS}});
    cr_expect_eq(cp_core_wake_at(&core, now), now + MS);
}

Test(look, does_not_come_while_there_is_no_worker_or_after_the_close)
{
    start((struct cp_core_options){.lazy = true, .look = {.idle_timeout_ns = TIMEOUT}});
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    cp_core_close(&core, COREPOOL_REASON_STOP);
    cr_expect_eq(cp_core_wake_at(&core, now), CP_NEVER);
}

/* --- pings --- */

Test(ping, asks_the_idle_from_the_oldest_and_keeps_their_order)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    lease(1);
    give_back(1);
    EXPECT_SHELF(0, 2, 3, 1);
    pass(2 * TIMEOUT);
    EXPECT_ASKED(0, 2, 3, 0, 2, 3, 1); /* the age of 1 began with the look after its use */
    EXPECT_SHELF(0, 2, 3, 1);
}

Test(ping, comes_again_each_timeout_since_it_does_not_make_anyone_younger)
{
    start((struct cp_core_options){.quota = 2, .look = {.idle_timeout_ns = TIMEOUT}});
    pass(3 * TIMEOUT + LOOK);
    EXPECT_ASKED(0, 1, 0, 1, 0, 1);
}

Test(ping, stops_at_the_first_that_is_not_idle_for_long_enough)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    pass(TIMEOUT / 2);
    lease(1);
    give_back(1);
    shelved = 0; /* someone put it between the others */
    insert(0, &slots[0]);
    insert(1, &slots[1]);
    insert(2, &slots[2]);
    insert(3, &slots[3]);
    pass(TIMEOUT / 2 + LOOK);
    EXPECT_ASKED(0);
    EXPECT_SHELF(0, 1, 2, 3);
}

Test(ping, never_asks_who_is_leased_or_was_used_since_the_last_look)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    lease(3);
    pass(TIMEOUT - LOOK);
    lease(0);
    give_back(0); /* between two looks */
    pass(LOOK + LOOK);
    EXPECT_ASKED(1, 2);
    EXPECT_SHELF(1, 2, 0);
}

Test(ping, ends_whom_its_class_removes_and_goes_on)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    answers[1] = COREPOOL_REASON_PING;
    keeps_gone = true;
    pass(TIMEOUT + LOOK);
    EXPECT_ASKED(0, 1, 2, 3);
    EXPECT_SHELF(0, 2, 3);
    cr_expect_eq(ended[1], COREPOOL_REASON_PING);
}

Test(ping, counts_both_the_kept_and_the_removed_towards_its_limit)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT, .max_idle_pings = 2}});
    answers[0] = COREPOOL_REASON_PING;
    keeps_gone = true;
    pass(TIMEOUT + LOOK);
    EXPECT_ASKED(0, 1);
    EXPECT_SHELF(1, 2, 3);
}

Test(ping, with_a_limit_gives_each_its_turn)
{
    start((struct cp_core_options){.quota = 5, .look = {.idle_timeout_ns = TIMEOUT, .max_idle_pings = 2}});
    pass(TIMEOUT);
    EXPECT_ASKED(0, 1);
    pass(TIMEOUT);
    EXPECT_ASKED(2, 3);
    pass(TIMEOUT);
    EXPECT_ASKED(0, 4); /* the turn of 4, and the next begins */
    pass(TIMEOUT);
    EXPECT_ASKED(1, 2);
    EXPECT_SHELF(0, 1, 2, 3, 4);
}

Test(ping, with_a_limit_nobody_is_kept_from_his_turn_by_those_who_come_and_go)
{
    bool seen[3] = {false};
    start((struct cp_core_options){.quota = 3, .look = {.idle_timeout_ns = TIMEOUT, .max_idle_pings = 1}});
    for (unsigned cycle = 0; cycle < 6; cycle++) { /* 1 and 2 are used by turns, 0 is not */
        pass(TIMEOUT - LOOK);
        lease(1 + cycle % 2);
        give_back(1 + cycle % 2);
        pass(LOOK);
    }
    for (unsigned i = 0; i < asks; i++)
        seen[asked[i]] = true;
    cr_expect(seen[0]);
    cr_expect_geq(asks, 5);
}

Test(ping, that_stops_the_pool_asks_nobody_else_and_leaves_each_worker_to_one_end)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    answers[0] = COREPOOL_REASON_PING;
    answers[1] = COREPOOL_REASON_STOP;
    keeps_gone = true;
    pass(TIMEOUT + LOOK);
    EXPECT_ASKED(0, 1);
    EXPECT_SHELF(1, 2, 3);
    cr_expect_eq(ended[0], COREPOOL_REASON_PING);
    cr_expect_eq(ended[1], COREPOOL_REASON_NONE, "the close will end it");
}

Test(ping, in_a_managed_pool_goes_by_the_managers_own_list)
{
    start((struct cp_core_options){.managed = true, .look = {.idle_timeout_ns = TIMEOUT}});
    core.listening = true;
    answers[2] = COREPOOL_REASON_PING;
    keeps_gone = true;
    pass(TIMEOUT + LOOK);
    EXPECT_ASKED(0, 1, 2, 3);
    pass(TIMEOUT);
    EXPECT_ASKED(0, 1, 3);
}

Test(ping, of_a_worker_that_is_evicted_meanwhile_does_not_put_it_back)
{
    start((struct cp_core_options){.look = {.idle_timeout_ns = TIMEOUT}});
    pass(TIMEOUT - LOOK);
    now += LOOK;
    struct cp_action action = {0};
    keeps_gone = true;
    while (action.what != CP_DO_PING) {
        cp_core_next(&core, now, &action);
        if (action.what != CP_DO_PING)
            perform(&action);
    }
    slots[0].doom = COREPOOL_REASON_HANGUP;
    atomic_store(&slots[0].item.doomed, 1);
    perform(&action);
    settle();
    EXPECT_ASKED(0, 1, 2, 3);
    EXPECT_SHELF(1, 2, 3);
    cr_expect_eq(ended[0], COREPOOL_REASON_HANGUP);
}

/* --- infos --- */

Test(info, reaches_each_idle_worker_once_and_no_leased_one)
{
    start((struct cp_core_options){0});
    lease(2);
    answers[1] = COREPOOL_REASON_INFO;
    keeps_gone = true;
    cp_visit_begin_info(&core);
    settle();
    EXPECT_ASKED(0, 1, 3);
    EXPECT_SHELF(0, 3);
    cr_expect_eq(ended[1], COREPOOL_REASON_INFO);
}

/* --- idle for too long --- */

Test(idle, workers_are_closed_down_to_the_warm_ones)
{
    start((struct cp_core_options){.lazy = true, .warm = 1, .look = {.idle_close_ns = TIMEOUT}});
    cr_expect_eq(opened, 1, "the warm one");
    core.options.lazy = false; /* as if requests had wanted all */
    settle();
    core.options.lazy = true;
    cr_assert_eq(shelved, 4);
    pass(2 * TIMEOUT);
    cr_expect_eq(shelved, 1);
    cr_expect_eq(opened, 4, "and none is opened again");
}

Test(idle, an_eager_pool_does_not_open_again_what_it_has_closed)
{
    start((struct cp_core_options){.warm = 2, .look = {.idle_close_ns = TIMEOUT}});
    lease(0);
    pass(2 * TIMEOUT);
    cr_expect_eq(atomic_load(&core.live), 2, "the leased one is one of the warm");
    cr_expect_eq(opened, 4);
}

/* What was closed as idle is opened again, above the stock, and closed again: still two that are used are to be kept open. */
Test(idle, what_is_closed_again_and_again_counts_once)
{
    start((struct cp_core_options){.look = {.idle_close_ns = TIMEOUT}});
    lease(0);
    lease(1);
    for (unsigned i = 0; i < 4; i++) {
        pass(2 * TIMEOUT);
        cr_assert_eq(atomic_load(&core.live), 2);
        cp_core_warm(&core, 4);
        settle();
        cr_assert_eq(atomic_load(&core.live), 4);
    }
    pass(2 * TIMEOUT);
    unsigned before = opened;
    slots[0].doom = COREPOOL_REASON_HANGUP;
    atomic_store(&slots[0].item.doomed, 1);
    give_back(0);
    settle();
    cr_expect_eq(opened, before + 1, "it is replaced though nobody asks");
    cr_expect_eq(atomic_load(&core.live), 2);
}

/* A place that leaves is one that was closed: of the three that stay two are used, and to be kept open. */
Test(idle, a_smaller_slice_keeps_open_what_it_uses)
{
    start((struct cp_core_options){.look = {.idle_close_ns = TIMEOUT}});
    lease(0);
    lease(1);
    pass(2 * TIMEOUT);
    cr_assert_eq(atomic_load(&core.live), 2);
    cp_core_resize(&core, 3);
    settle();
    unsigned before = opened;
    slots[0].doom = COREPOOL_REASON_HANGUP;
    atomic_store(&slots[0].item.doomed, 1);
    give_back(0);
    settle();
    cr_expect_eq(opened, before + 1);
}

Test(idle, who_is_used_in_time_stays)
{
    start((struct cp_core_options){.quota = 2, .look = {.idle_close_ns = TIMEOUT}});
    for (unsigned i = 0; i < 4; i++) {
        lease(1);
        give_back(1);
        pass(TIMEOUT / 2);
    }
    EXPECT_SHELF(1);
    cr_expect_eq(ended[0], COREPOOL_REASON_IDLE);
}

/* --- lifetimes --- */

Test(lifetime, ends_the_idle_at_once_and_the_leased_with_the_lease)
{
    start((struct cp_core_options){.quota = 2, .look = {.max_lifetime_ns = TIMEOUT}});
    lease(0);
    pass(TIMEOUT + LOOK);
    cr_expect_eq(ended[1], COREPOOL_REASON_EXPIRED);
    cr_expect_eq(ended[0], COREPOOL_REASON_NONE);
    cr_expect_eq(opened, 3, "the idle one is replaced");
    give_back(0);
    settle();
    cr_expect_eq(ended[0], COREPOOL_REASON_EXPIRED);
    cr_expect_eq(opened, 4);
}

Test(lifetime, is_drawn_once_within_its_jitter)
{
    int64_t shortest = CP_NEVER, longest = 0;
    start((struct cp_core_options){.quota = SLOTS, .seed = 7,
                                   .look = {.max_lifetime_ns = 100 * TIMEOUT, .lifetime_jitter_percent = 50}});
    for (unsigned i = 0; i < SLOTS; i++) {
        int64_t lifetime = slots[i].expires_at - slots[i].since;
        shortest = lifetime < shortest ? lifetime : shortest;
        longest = lifetime > longest ? lifetime : longest;
    }
    cr_expect_geq(shortest, 50 * TIMEOUT);
    cr_expect_leq(longest, 100 * TIMEOUT);
    cr_expect_gt(longest - shortest, 10 * TIMEOUT, "they do not end together");
}

/* --- validation --- */

static bool is_marked(unsigned n)
{
    uint64_t next = cp_stamp_next_lease(cp_slot_stamp(&slots[n]));
    return atomic_load(&slots[n].validate) == cp_slot_validation(next);
}

Test(validation, is_for_the_next_lease_of_one_that_was_idle_for_long)
{
    start((struct cp_core_options){.quota = 2, .look = {.validate_after_ns = TIMEOUT}});
    pass(TIMEOUT - LOOK);
    cr_expect_not(is_marked(0));
    lease(1);
    give_back(1);
    pass(2 * LOOK);
    cr_expect(is_marked(0));
    cr_expect_not(is_marked(1));
    lease(0);
    give_back(0);
    cr_expect_not(is_marked(0), "it was used");
}

Test(validation, is_not_for_a_new_worker_in_the_slot)
{
    start((struct cp_core_options){.quota = 1, .look = {.validate_after_ns = TIMEOUT}});
    pass(TIMEOUT + LOOK);
    cr_assert(is_marked(0));
    cp_core_doom(&core, extract(0), COREPOOL_REASON_EVICTED);
    settle();
    EXPECT_SHELF(0);
    cr_expect_not(is_marked(0));
}
