/* tests/worker_test.c: a worker's life: inits in their three forms, failures and back-off, every reason to end.
 */
#include <criterion/criterion.h>

#include <string.h>

#include "support/callers.h"

/* --- init --- */

static bool is_pending(void *arg)
{
    const struct laws_count *count = arg;
    return atomic_load(&count->pending) != NULL;
}

static void await_pending(struct laws_count *count)
{
    cr_assert(laws_eventually(is_pending, count));
}

static void make_ready(void *arg)
{
    static struct laws_unit unit;
    struct laws_count *count = arg;
    corepool_worker_t *worker = atomic_exchange(&count->pending, NULL);
    unit = (struct laws_unit){.count = count, .worker = worker};
    atomic_fetch_add(&count->opened, 1);
    corepool_worker_ready(worker, &unit);
}

static void make_failed(void *arg)
{
    struct laws_count *count = arg;
    corepool_worker_t *worker = atomic_exchange(&count->pending, NULL);
    corepool_worker_explain(worker, "the %s is not at home", "peer");
    corepool_worker_failed(worker, COREPOOL_EPEER);
}

Test(worker, an_init_that_ends_later_serves_who_waits)
{
    struct laws_count count = {.pend_inits = true};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    struct caller caller = {.pool = pool};
    caller_start(&caller);
    await_pending(&count);
    laws_await_waiting(pool, 1);
    cr_expect_eq(laws_stats(pool).opening, 1);
    laws_on_shard(0, make_ready, &count);
    caller_expect(&caller, COREPOOL_OK);
    laws_end();
}

Test(worker, an_init_that_fails_later_is_retried_and_its_words_reach_who_timed_out)
{
    struct laws_count count = {.pend_inits = true};
    corepool_lease_t lease;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    await_pending(&count);
    laws_on_shard(0, make_failed, &count);
    await_pending(&count);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_ETIMEDOUT);
    laws_expect_detail("1 opening");
    laws_expect_detail("the peer is not at home");
    struct caller caller = {.pool = pool};
    caller_start(&caller);
    laws_on_shard(0, make_ready, &count);
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(laws_stats(pool).open_failures, 1);
    laws_end();
}

Test(worker, an_init_that_fails_and_then_succeeds_at_once_serves_the_waiter)
{
    struct laws_count count = {.pend_inits = true};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, COREPOOL_POOL_LAZY);
    struct caller caller = {.pool = pool};
    caller_start(&caller);
    await_pending(&count);
    atomic_store(&count.pend_inits, false);
    laws_on_shard(0, make_failed, &count);
    caller_expect(&caller, COREPOOL_OK);
    laws_end();
}

Test(worker, inits_that_fail_are_retried_until_one_succeeds)
{
    struct laws_count count = {.fail_inits = 5};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 3, 0);
    laws_await_idle(pool, 3);
    cr_expect_eq(laws_stats(pool).open_failures, 5);
    laws_end();
}

Test(worker, who_times_out_beside_a_dead_peer_is_told_the_last_error)
{
    struct laws_count count = {.fail_inits = -1};
    corepool_lease_t lease = {.generation = 1};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_ETIMEDOUT);
    laws_expect_detail("timed out after 20 ms");
    laws_expect_detail("last open error: the test wants no worker 0");
    cr_expect_null(lease.worker);
    atomic_store(&count.fail_inits, 0);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

Test(worker, closing_cancels_an_init_that_is_pending)
{
    struct laws_count count = {.pend_inits = true};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    await_pending(&count);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 0);
}

/* --- classes that block --- */

Test(worker, a_slow_init_keeps_nobody_from_the_workers_that_are_there)
{
    struct laws_count count = {0};
    laws_warm_thread_pool();
    corepool_pool_t pool = laws_start_one(&laws_blocking_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    atomic_store(&count.hold, true);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&count.held, 1); /* its terminate hangs */
    for (unsigned i = 0; i < 100; i++) {
        lease = laws_take(pool);
        cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_expect_eq(atomic_load(&count.held), 1);
    atomic_store(&count.hold, false);
    laws_await_idle(pool, 2);
    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_FAILED]), 1);
}

Test(worker, closing_waits_for_inits_that_block)
{
    struct laws_count count = {.hold = true};
    laws_warm_thread_pool();
    corepool_pool_t pool = laws_start_one(&laws_blocking_class, &count, 8, 0);
    laws_await_count(&count.held, 1);
    cr_expect_eq(corepool_pool_close(pool, LAWS_SHORT_MS), COREPOOL_EBUSY);
    laws_expect_detail("opening");
    atomic_store(&count.hold, false);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    laws_end();
}

Test(worker, blocking_inits_that_fail_are_retried)
{
    struct laws_count count = {.fail_inits = 3};
    laws_warm_thread_pool();
    laws_await_idle(laws_start_one(&laws_blocking_class, &count, 2, 0), 2);
    laws_end();
}

/* --- reasons --- */

static void end_thread_with_lease(void *arg)
{
    corepool_lease_t lease;
    laws_checkout(*(corepool_pool_t *)arg, LAWS_PATIENCE_MS, &lease);
}

static int remove_first(void *command)
{
    _Atomic int *left = command;
    return left && atomic_fetch_sub(left, 1) > 0 ? COREPOOL_REMOVE : COREPOOL_OK;
}

static void evict_worker(void *arg)
{
    corepool_worker_evict(arg, COREPOOL_REASON_EVICTED);
    corepool_worker_evict(arg, COREPOOL_REASON_HANGUP); /* the first stands */
}

static void expect_reason(const struct laws_count *count, corepool_pool_t pool, corepool_reason_t reason)
{
    laws_await_count(&count->reasons[reason], 1);
    laws_await_idle(pool, 2);
    cr_expect_eq(atomic_load(&count->reasons[reason]), 1, "%s", corepool_reason_text(reason));
}

Test(worker, is_terminated_once_with_the_reason_of_its_end_and_replaced)
{
    struct laws_count count = {.on_checkout = remove_first};
    _Atomic int removals = 1;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);

    laws_in_thread(-1, end_thread_with_lease, &pool);
    expect_reason(&count, pool, COREPOOL_REASON_DOWN);

    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_FAILED);

    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_REMOVED);

    cr_expect_eq(corepool_checkout(pool, &(corepool_checkout_options_t){.command = (void *)&removals}, &lease),
                 COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_CHECKOUT);

    atomic_store(&count.checkin_outcome, COREPOOL_REMOVE);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    atomic_store(&count.checkin_outcome, COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_CHECKIN);

    lease = laws_take(pool);
    corepool_worker_t *worker = lease.worker;
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_on_shard(0, evict_worker, worker);
    expect_reason(&count, pool, COREPOOL_REASON_EVICTED);

    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_STOP]), 2);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_HANGUP]), 0);
    cr_expect_eq(atomic_load(&count.opened), 8);
}

Test(worker, one_evicted_while_leased_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    cr_expect(corepool_worker_is_leased(lease.worker));
    laws_on_shard(0, evict_worker, lease.worker);
    cr_expect_eq(laws_stats(pool).leased, 1);
    cr_expect_eq(atomic_load(&count.terminated), 0, "not in its client's hands");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_EVICTED);
    laws_end();
}

Test(worker, one_evicted_while_the_shelf_keeps_its_place_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    const corepool_worker_t *worker = lease.worker;
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    lease = laws_take(pool); /* its own again: where sequences run it is leased where it is */
    cr_expect_eq(lease.worker, worker);
    laws_on_shard(0, evict_worker, lease.worker);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_EVICTED);
    laws_end();
}

Test(worker, a_code_of_a_callback_that_is_none_counts_as_remove)
{
    struct laws_count count = {.checkin_outcome = 42};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_reason(&count, pool, COREPOOL_REASON_CHECKIN);
    laws_end();
}

Test(worker, every_reason_has_its_text)
{
#define EXPECT_TEXT(name, text) cr_expect_str_eq(corepool_reason_text(COREPOOL_REASON_##name), text);
    COREPOOL_REASON_TABLE(EXPECT_TEXT)
#undef EXPECT_TEXT
    cr_expect_str_eq(corepool_reason_text((corepool_reason_t)(COREPOOL_REASON_USER - 1)), "unknown reason");
    cr_expect_str_eq(corepool_reason_text(COREPOOL_REASON_USER), "the program's own");
    cr_expect_str_eq(corepool_reason_text(COREPOOL_REASON_MAX), "the program's own");
    cr_expect_str_eq(corepool_reason_text((corepool_reason_t)(COREPOOL_REASON_MAX + 1)), "unknown reason");
}

static void check_in_lease(void *lease)
{
    corepool_checkin(lease);
}

Test(worker, one_evicted_while_leased_ends_at_its_checkin_also_on_another_cpu)
{
    struct laws_count count = {0};
    int elsewhere = laws_need_second_cpu();
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    laws_on_shard(0, evict_worker, lease.worker);
    laws_in_thread(elsewhere, check_in_lease, &lease);
    expect_reason(&count, pool, COREPOOL_REASON_EVICTED);
    laws_end();
}

Test(worker, one_evicted_after_it_came_back_on_another_cpu_is_terminated_at_once)
{
    struct laws_count count = {0};
    int elsewhere = laws_need_second_cpu();
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    corepool_worker_t *worker = lease.worker;
    laws_in_thread(elsewhere, check_in_lease, &lease);
    laws_on_shard(0, evict_worker, worker);
    expect_reason(&count, pool, COREPOOL_REASON_EVICTED);
    laws_end();
}
