/* tests/checkout_test.c: blocking checkouts and checkins, from any thread and any CPU. */
#include <criterion/criterion.h>

#include <string.h>

#include "support/callers.h"

/* With all its workers idle. */
static corepool_pool_t start_one(const corepool_class_t *cls, struct laws_count *count, unsigned size)
{
    corepool_pool_t pool = laws_start_one(cls, count, size, 0);
    laws_await_idle(pool, size);
    return pool;
}

static void check_in(corepool_lease_t *lease)
{
    cr_expect_eq(corepool_checkin(lease), COREPOOL_OK, "%s", corepool_error_detail());
}

/* --- hit and miss --- */

Test(checkout, an_idle_worker_is_had_without_the_manager)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_one(&laws_class, &count, 2);
    for (unsigned i = 0; i < 100; i++) {
        corepool_lease_t lease = laws_take(pool);
        cr_assert_eq(((struct laws_unit *)lease.resource)->worker, lease.worker);
        check_in(&lease);
        cr_expect_null(lease.worker, "checkin zeroes the lease");
    }
    cr_expect_eq(laws_stats(pool).shelf_hits, 100);
    cr_expect_eq(laws_stats(pool).grants, 0);
    laws_end();
}

static void expect_orders(const corepool_class_t *cls)
{
    struct laws_count count = {0}, fifo_count = {0};
    corepool_pool_t lifo = start_one(cls, &count, 3);
    corepool_pool_t fifo = laws_open(cls, &fifo_count, 3, COREPOOL_POOL_FIFO);
    laws_await_idle(fifo, 3);
    corepool_worker_t *first = NULL, *last = NULL;
    for (unsigned i = 0; i < 6; i++) {
        corepool_lease_t hot = laws_take(lifo), cold = laws_take(fifo);
        cr_expect(i == 0 || hot.worker == first, "LIFO changes its worker");
        cr_expect(i == 0 || cold.worker != last, "FIFO repeats its worker");
        first = hot.worker;
        last = cold.worker;
        check_in(&hot);
        check_in(&cold);
    }
    cr_expect_eq(laws_stats(fifo).shelf_hits, 6);
    laws_end();
}

Test(checkout, the_last_one_used_comes_first_by_default_and_the_longest_idle_with_fifo)
{
    expect_orders(&laws_class);
    expect_orders(&laws_plain_class); /* without callbacks that a checkout looks at */
}

Test(checkout, a_miss_waits_as_long_as_it_takes_and_is_granted)
{
    struct laws_count count = {0};
    struct caller caller = {.pool = start_one(&laws_class, &count, 1)};
    corepool_pool_t pool = caller.pool;
    corepool_lease_t lease = laws_take(pool);
    caller_start(&caller);
    laws_await_waiting(pool, 1);
    check_in(&lease);
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(laws_stats(pool).grants, 1);
    laws_end();
}

static unsigned checkouts, checkins;

static int count_checkout(void *pool_state, void *resource, void *command, void **client)
{
    (void)pool_state, (void)resource, (void)command, (void)client;
    checkouts++;
    return COREPOOL_OK;
}

static int count_checkin(void *pool_state, void *resource, void *client)
{
    (void)pool_state, (void)resource, (void)client;
    checkins++;
    return COREPOOL_OK;
}

Test(checkout, a_callback_on_one_side_runs_each_time_and_keeps_no_worker_from_the_shelf)
{
    struct laws_count out_count = {0}, in_count = {0};
    corepool_class_t out_class = laws_plain_class, in_class = laws_plain_class;
    out_class.checkout = count_checkout;
    in_class.checkin = count_checkin;
    corepool_pool_t out = start_one(&out_class, &out_count, 2), in = laws_open(&in_class, &in_count, 2, 0);
    laws_await_idle(in, 2);
    checkouts = checkins = 0;
    for (unsigned i = 0; i < 100; i++) {
        corepool_lease_t first = laws_take(out), second = laws_take(out), third = laws_take(in), fourth = laws_take(in);
        check_in(&first); /* onto the top, and on top of that */
        check_in(&second);
        check_in(&third);
        check_in(&fourth);
    }
    cr_expect_eq(checkouts, 200);
    cr_expect_eq(checkins, 200);
    cr_expect_eq(laws_stats(out).shelf_hits, 200);
    cr_expect_eq(laws_stats(in).shelf_hits, 200);
    cr_expect_eq(laws_stats(out).grants + laws_stats(in).grants, 0);
    laws_end();
}

#define QUEUE 12

Test(checkout, who_waits_is_served_in_the_order_of_arrival)
{
    struct laws_count count = {0};
    struct caller callers[QUEUE];
    _Atomic unsigned served = 0;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < QUEUE; i++) {
        callers[i] = (struct caller){.pool = pool, .served = &served};
        caller_start(&callers[i]);
        laws_await_waiting(pool, i + 1);
    }
    check_in(&lease);
    for (unsigned i = 0; i < QUEUE; i++) {
        caller_expect(&callers[i], COREPOOL_OK);
        cr_expect_eq(callers[i].place, i);
    }
    laws_end();
}

/* --- timeouts --- */

Test(checkout, a_timeout_says_for_what_it_waited_and_costs_no_worker)
{
    struct laws_count count = {0};
    corepool_lease_t second = {.generation = 9};
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    corepool_lease_t lease = laws_take(pool);
    int64_t before = laws_now_ms();
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &second), COREPOOL_ETIMEDOUT);
    cr_expect_geq(laws_now_ms() - before, LAWS_SHORT_MS - 1);
    laws_expect_detail("timed out after 20 ms");
    laws_expect_detail("0 opening, 1 leased on shard 0");
    cr_expect_null(second.worker);
    cr_expect_eq(second.generation, 0);
    check_in(&lease);
    laws_await_waiting(pool, 0);
    cr_expect_eq(laws_stats(pool).timeouts, 1);
    for (unsigned i = 0; i < 20; i++) { /* what it waited for is still there */
        lease = laws_take(pool);
        check_in(&lease);
    }
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

Test(checkout, a_timeout_is_exact_to_the_front_and_never_early_with_many_in_the_queue)
{
    struct laws_count count = {0};
    corepool_lease_t second;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < 10; i++)
        cr_expect_eq(laws_checkout(pool, 1, &second), COREPOOL_ETIMEDOUT);
    laws_await_waiting(pool, 0);
    check_in(&lease);
    cr_expect_eq(laws_stats(pool).timeouts, 10, "each once");
    laws_end();
}

Test(checkout, a_negative_timeout_is_refused_by_name)
{
    struct laws_count count = {0};
    corepool_lease_t lease;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    cr_expect_eq(laws_checkout(pool, -2, &lease), COREPOOL_EINVAL);
    laws_expect_detail("timeout_ms: -2");
    cr_expect_eq(corepool_checkout(pool, NULL, NULL), COREPOOL_EINVAL);
    laws_expect_detail("lease");
    laws_end();
}

/* --- try --- */

Test(checkout, try_takes_what_is_idle_and_opens_nothing)
{
    struct laws_count count = {0}, lazy_count = {0};
    corepool_lease_t lease, none;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    corepool_pool_t lazy = laws_open(&laws_class, &lazy_count, 1, COREPOOL_POOL_LAZY);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &none), COREPOOL_EEMPTY);
    cr_expect_null(none.worker);
    cr_expect_eq(corepool_checkout_try(lazy, NULL, &none), COREPOOL_EEMPTY);
    check_in(&lease);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_OK);
    check_in(&lease);
    laws_end();
    cr_expect_eq(atomic_load(&lazy_count.opened), 0);
}

struct on_shard {
    corepool_pool_t pool;
    int blocking, try, ended;
};

static void call_on_shard(void *arg)
{
    struct on_shard *got = arg;
    corepool_lease_t lease;
    got->try = corepool_checkout_try(got->pool, NULL, &lease);
    got->ended = corepool_checkin(&lease);
    got->blocking = corepool_checkout(got->pool, NULL, &lease); /* the usual case by now, but for who asks */
}

static void expect_only_try_on_a_shard(const corepool_class_t *cls)
{
    struct laws_count count = {0};
    struct on_shard got = {.pool = start_one(cls, &count, 1)};
    laws_on_shard(0, call_on_shard, &got);
    cr_expect_eq(got.blocking, COREPOOL_EDEADLK);
    cr_expect_eq(got.try, COREPOOL_OK);
    cr_expect_eq(got.ended, COREPOOL_OK);
    laws_end();
}

Test(checkout, blocking_on_a_shard_is_refused_and_try_is_allowed_there)
{
    expect_only_try_on_a_shard(&laws_class);
}

Test(checkout, blocking_on_a_shard_is_refused_also_where_the_class_has_no_callbacks)
{
    expect_only_try_on_a_shard(&laws_plain_class);
}

/* --- ending a lease --- */

static void end_twice(const corepool_class_t *cls)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_one(cls, &count, 1);
    corepool_lease_t lease = laws_take(pool), copy = lease, zero = {0};
    check_in(&lease);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_ESTALE);
    cr_expect_eq(corepool_checkin(&zero), COREPOOL_ESTALE);
    cr_expect_eq(corepool_checkin(NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_checkin(&copy), COREPOOL_ESTALE);
    laws_expect_detail("ended before");
    lease = laws_take(pool); /* the same worker, another lease */
    cr_expect_eq(lease.worker, copy.worker);
    cr_expect_eq(corepool_checkin(&copy), COREPOOL_ESTALE);
    cr_expect_eq(corepool_checkin_remove(&copy), COREPOOL_ESTALE);
    cr_expect_eq(corepool_checkin_fail(&copy), COREPOOL_ESTALE);
    cr_expect(corepool_worker_is_leased(lease.worker));
    check_in(&lease);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

Test(checkout, a_second_checkin_also_of_a_copy_is_stale_and_harms_nothing)
{
    end_twice(&laws_class);
}

Test(checkout, a_second_checkin_is_stale_also_where_the_class_has_no_callbacks)
{
    end_twice(&laws_plain_class);
}

Test(checkout, every_pair_of_endings_counts_once)
{
    struct laws_count count = {0};
    int (*const end[])(corepool_lease_t *) = {corepool_checkin, corepool_checkin_remove, corepool_checkin_fail};
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    for (unsigned i = 0; i < 9; i++) {
        corepool_lease_t lease = laws_take(pool), copy = lease;
        cr_expect_eq(end[i / 3](&lease), COREPOOL_OK);
        cr_expect_eq(end[i % 3](&copy), COREPOOL_ESTALE);
    }
    laws_await_count(&count.terminated, 6);
    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_REMOVED]), 3);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_FAILED]), 3);
}

/* --- callbacks --- */

static int obey(void *command)
{
    return command ? *(int *)command : COREPOOL_OK;
}

Test(checkout, skip_tells_the_caller_and_keeps_the_worker)
{
    struct laws_count count = {.on_checkout = obey};
    int skip = COREPOOL_SKIP;
    corepool_lease_t lease;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    cr_expect_eq(corepool_checkout(pool, &(corepool_checkout_options_t){.command = &skip}, &lease),
                 COREPOOL_ESKIPPED);
    laws_expect_detail("skipped");
    cr_expect_null(lease.worker);
    lease = laws_take(pool);
    check_in(&lease);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

Test(checkout, skip_for_the_head_of_the_queue_does_not_stall_the_next)
{
    struct laws_count count = {.on_checkout = obey};
    int skip = COREPOOL_SKIP;
    corepool_pool_t pool = start_one(&laws_class, &count, 1);
    struct caller head = {.pool = pool, .command = &skip}, next = {.pool = pool};
    corepool_lease_t lease = laws_take(pool);
    caller_start(&head);
    laws_await_waiting(pool, 1);
    caller_start(&next);
    laws_await_waiting(pool, 2);
    check_in(&lease);
    caller_expect(&head, COREPOOL_ESKIPPED);
    caller_expect(&next, COREPOOL_OK);
    laws_end();
}

static _Atomic int removals;

static int remove_some(void *command)
{
    (void)command;
    return atomic_fetch_sub(&removals, 1) > 0 ? COREPOOL_REMOVE : COREPOOL_OK;
}

Test(checkout, remove_tries_the_next_worker_for_the_same_request)
{
    struct laws_count count = {.on_checkout = remove_some};
    corepool_pool_t pool = start_one(&laws_class, &count, 3);
    atomic_store(&removals, 5); /* more than are idle: it waits for new ones */
    corepool_lease_t lease = laws_take(pool);
    check_in(&lease);
    laws_await_count(&count.reasons[COREPOOL_REASON_CHECKOUT], 5);
    laws_await_idle(pool, 3);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 8);
}
