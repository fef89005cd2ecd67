/* tests/barging_test.c: turns: who has waited may go before others for a while, and no longer. One shard, one
 * worker. */
#include <criterion/criterion.h>

#include <poll.h>
#include <stdlib.h>

#include "support/callers.h"

/* Two tests of one body. */
#define TestBothShelves(promise)                                                                               \
    static void promise(void);                                                                                 \
    Test(barging, promise##_rseq)                                                                              \
    {                                                                                                          \
        laws_need_rseq();                                                                                      \
        promise();                                                                                             \
    }                                                                                                          \
    Test(barging, promise##_portable)                                                                          \
    {                                                                                                          \
        setenv("COREPOOL_SHELF", "portable", 1);                                                               \
        promise();                                                                                             \
    }                                                                                                          \
    static void promise(void)

/* A turn that lasts for what is done in it, and ends while a test waits; so short that one has ended once
 * anything else was done. */
#define LONG_US 1000000u
#define SHORT_US 1u

static corepool_pool_t start_turns(struct laws_count *count, unsigned barging_us)
{
    return laws_start_one_with(&laws_plain_class, count, 1,
                               &(corepool_pool_options_t){.barging_us = barging_us});
}

/* A client that waits for its turn, and then takes and gives `rounds` times; what was waiting at its last
 * checkin. */
struct turn {
    corepool_pool_t pool;
    unsigned rounds, had;
    uint64_t grants; /* of the pool, by its last checkout */
    _Atomic unsigned granted, others_wait;
    int status;
    pthread_t thread;
};

static void await_flag(_Atomic unsigned *flag)
{
    while (!atomic_load(flag))
        poll(NULL, 0, 1);
}

static void *run_turn(void *arg)
{
    struct turn *turn = arg;
    corepool_lease_t lease;
    laws_pin(laws_cpu_of(0));
    turn->status = laws_checkout(turn->pool, COREPOOL_INFINITE, &lease);
    if (turn->status != COREPOOL_OK)
        return NULL;
    atomic_store(&turn->granted, 1);
    await_flag(&turn->others_wait);
    for (turn->had = 0; turn->had < turn->rounds; turn->had++) {
        corepool_checkin(&lease);
        turn->status = laws_checkout(turn->pool, 0, &lease);
        if (turn->status != COREPOOL_OK)
            return NULL;
    }
    turn->grants = laws_stats(turn->pool).grants;
    corepool_checkin(&lease);
    return NULL;
}

/* One that has waited has the worker, and another waits. */
static void begin(struct turn *turn, struct caller *other)
{
    laws_await_idle(turn->pool, 1);
    corepool_lease_t lease = laws_take(turn->pool);
    pthread_create(&turn->thread, NULL, run_turn, turn);
    laws_await_waiting(turn->pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&turn->granted, 1);
    other->pool = turn->pool;
    caller_start(other);
    laws_await_waiting(turn->pool, 1);
    atomic_store(&turn->others_wait, 1);
}

TestBothShelves(who_has_waited_goes_before_others_while_its_turn_lasts)
{
    struct laws_count count = {0};
    struct turn turn = {.pool = start_turns(&count, LONG_US), .rounds = 100};
    struct caller other = {0};
    begin(&turn, &other);
    pthread_join(turn.thread, NULL);
    cr_expect_eq(turn.status, COREPOOL_OK);
    cr_expect_eq(turn.had, 100);
    cr_expect_eq(turn.grants, 1, "its own: the other one waits");
    caller_expect(&other, COREPOOL_OK); /* though nobody comes back for what was kept */
    cr_expect_eq(laws_stats(turn.pool).grants, 2);
    laws_end();
}

TestBothShelves(a_turn_that_has_ended_goes_behind_who_waits)
{
    struct laws_count count = {0};
    struct turn turn = {.pool = start_turns(&count, SHORT_US), .rounds = 1};
    struct caller other = {0};
    begin(&turn, &other);
    pthread_join(turn.thread, NULL);
    caller_expect(&other, COREPOOL_OK);
    cr_expect_eq(turn.status, COREPOOL_OK, "a timeout of zero is the default");
    cr_expect_geq(turn.grants, 2, "the other one had its turn");
    laws_end();
}

TestBothShelves(without_the_option_there_are_no_turns)
{
    struct laws_count count = {0};
    struct turn turn = {.pool = start_turns(&count, 0), .rounds = 1};
    struct caller other = {0};
    begin(&turn, &other);
    pthread_join(turn.thread, NULL);
    caller_expect(&other, COREPOOL_OK);
    cr_expect_geq(turn.grants, 2);
    laws_end();
}

TestBothShelves(a_pause_ends_every_turn)
{
    struct laws_count count = {0};
    struct turn turn = {.pool = start_turns(&count, LONG_US), .rounds = 0};
    struct caller other = {0};
    begin(&turn, &other);
    cr_assert_eq(corepool_pool_pause(turn.pool), COREPOOL_OK);
    pthread_join(turn.thread, NULL);
    laws_await_idle(turn.pool, 1);
    cr_expect_eq(laws_stats(turn.pool).waiting, 1);
    cr_assert_eq(corepool_pool_resume(turn.pool), COREPOOL_OK);
    caller_expect(&other, COREPOOL_OK);
    laws_end();
}

TestBothShelves(a_pool_that_closes_takes_in_what_was_kept)
{
    struct laws_count count = {0};
    struct turn turn = {.pool = start_turns(&count, LONG_US), .rounds = 10};
    struct caller other = {0};
    begin(&turn, &other);
    pthread_join(turn.thread, NULL);
    cr_expect_eq(corepool_pool_close(turn.pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    pthread_join(other.thread, NULL);
    cr_expect(other.status == COREPOOL_OK || other.status == COREPOOL_ECLOSED);
    laws_end();
}

/* Has the worker until somebody waits for it. */
struct holder {
    corepool_pool_t pool;
    _Atomic unsigned has;
    pthread_t thread;
};

static void *run_holder(void *arg)
{
    struct holder *holder = arg;
    corepool_lease_t lease;
    laws_pin(laws_cpu_of(0));
    if (laws_checkout(holder->pool, COREPOOL_INFINITE, &lease) != COREPOOL_OK)
        return NULL;
    atomic_store(&holder->has, 1);
    while (laws_stats(holder->pool).waiting == 0)
        poll(NULL, 0, 1);
    corepool_checkin(&lease);
    return NULL;
}

/* The calling thread waits for its turn. */
static corepool_lease_t take_in_turn(corepool_pool_t pool)
{
    struct holder holder = {.pool = pool};
    laws_await_idle(pool, 1);
    pthread_create(&holder.thread, NULL, run_holder, &holder);
    laws_await_count(&holder.has, 1);
    corepool_lease_t lease = laws_take(pool);
    pthread_join(holder.thread, NULL);
    return lease;
}

TestBothShelves(a_turn_ends_with_its_pool)
{
    struct laws_count count = {0}, next_count = {0};
    struct caller other = {.pool = start_turns(&count, LONG_US)};
    corepool_lease_t lease = take_in_turn(other.pool);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(corepool_pool_close(other.pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    other.pool = laws_open(&laws_plain_class, &next_count, 1, 0); /* in the same memory */
    laws_await_idle(other.pool, 1);
    lease = laws_take(other.pool);
    caller_start(&other);
    laws_await_waiting(other.pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_waiting(other.pool, 0);
    caller_expect(&other, COREPOOL_OK);
    laws_end();
}

TestBothShelves(a_turn_ends_with_its_thread)
{
    struct laws_count count = {0};
    struct turn heir = {.pool = start_turns(&count, LONG_US), .rounds = 1};
    struct caller first = {.pool = heir.pool}, other = {.pool = heir.pool};
    laws_await_idle(heir.pool, 1);
    corepool_lease_t lease = laws_take(heir.pool);
    caller_start(&first);
    laws_await_waiting(heir.pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&first, COREPOOL_OK);
    pthread_create(&heir.thread, NULL, run_turn, &heir); /* what the library knew of the first is this one's */
    laws_await_count(&heir.granted, 1);
    caller_start(&other);
    laws_await_waiting(heir.pool, 1);
    atomic_store(&heir.others_wait, 1);
    pthread_join(heir.thread, NULL);
    caller_expect(&other, COREPOOL_OK);
    cr_expect_geq(heir.grants, 2, "the first one's, and the other one's before its own");
    laws_end();
}

static void *wait_in_vain(void *pool)
{
    corepool_lease_t lease;
    if (laws_checkout(*(corepool_pool_t *)pool, LAWS_SHORT_MS, &lease) == COREPOOL_OK)
        corepool_checkin(&lease);
    return NULL;
}

static bool can_try(void *pool)
{
    corepool_lease_t lease;
    bool taken = corepool_checkout_try(*(corepool_pool_t *)pool, NULL, &lease) == COREPOOL_OK;
    if (taken)
        corepool_checkin(&lease);
    return taken;
}

static void *try_for_long(void *pool)
{
    laws_pin(laws_cpu_of(0));
    return laws_eventually(can_try, pool) ? pool : NULL;
}

TestBothShelves(what_was_kept_is_idle_for_all_once_nobody_waits)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_turns(&count, LONG_US);
    pthread_t waiter, trier;
    void *found;
    corepool_lease_t lease = take_in_turn(pool);
    pthread_create(&waiter, NULL, wait_in_vain, &pool);
    laws_await_waiting(pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    pthread_join(waiter, NULL);
    pthread_create(&trier, NULL, try_for_long, &pool);
    pthread_join(trier, &found);
    cr_expect(found, "a thread without a turn tries in vain");
    laws_end();
}

TestBothShelves(what_was_kept_goes_to_another_shard_that_asks_for_it)
{
    laws_need_second_cpu();
    struct laws_count count = {0};
    laws_start(NULL);
    corepool_pool_t pool =
        laws_open_with(&laws_movable_class, &count, 2, &(corepool_pool_options_t){.barging_us = LONG_US});
    corepool_pool_t first = corepool_pool_at(pool, 0);
    struct caller other = {.pool = corepool_pool_at(pool, 1)};
    laws_await_idle(pool, 2);
    laws_pin(laws_cpu_of(0));
    corepool_lease_t lease = laws_take(first);
    corepool_lease_t waited_for = laws_take(first); /* it comes from the other shard */
    caller_start(&other);
    laws_await_waiting(other.pool, 1);
    poll(NULL, 0, LAWS_SHORT_MS); /* it has asked by then */
    cr_assert_eq(corepool_checkin(&waited_for), COREPOOL_OK);
    laws_await_waiting(other.pool, 0);
    caller_expect(&other, COREPOOL_OK);
    corepool_checkin(&lease);
    laws_end();
}

Test(barging, nonsense_is_refused_by_its_name)
{
    struct laws_count count = {0};
    corepool_pool_t pool;
    corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_options_t options = {.barging_us = 1000001};
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, &count, 1, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail("barging_us: 1000001");
    options = (corepool_pool_options_t){.barging_us = 10, .flags = COREPOOL_POOL_MANAGED};
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, &count, 1, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail("barging_us: 10: in a managed pool");
    laws_end();
}
