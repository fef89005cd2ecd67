/* tests/stop_test.c: the stop ladder, and a thousand starts and stops with pools in flight. */
#include <criterion/criterion.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support/callers.h"

#define CYCLES 1000

Test(stop, names_the_leases_that_are_out_and_ends_once_they_are_back)
{
    struct laws_count count = {0}, late = {0};
    corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_t pool =
        laws_open_with(&laws_class, &count, 4, &(corepool_pool_options_t){.name = "harbour"});
    laws_await_idle(pool, 4);
    corepool_lease_t lease = laws_take(pool), other;
    laws_judge(&late);
    cr_expect_eq(corepool_runtime_destroy(runtime), COREPOOL_EBUSY);
    cr_expect_eq(corepool_runtime_stop(runtime, 0), COREPOOL_EBUSY);
    laws_expect_detail("harbour");
    laws_expect_detail("1 leased");
    cr_expect_eq(corepool_runtime_stop(runtime, LAWS_SHORT_MS), COREPOOL_EBUSY, "it may be repeated");
    cr_expect_eq(corepool_runtime_destroy(runtime), COREPOOL_EBUSY);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &other), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, &late, 1, NULL, &pool), COREPOOL_ECLOSED);
    laws_expect_detail("stopping");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_STOP]), 4);
}

Test(stop, may_be_called_again_after_all_is_down)
{
    laws_baseline();
    corepool_runtime_t *runtime;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_stop(runtime, -2), COREPOOL_EINVAL);
    laws_expect_detail("timeout_ms: -2");
    cr_expect_eq(corepool_runtime_stop(runtime, 0), COREPOOL_OK, "nothing is there to wait for");
    cr_expect_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
    laws_expect_baseline();
}

struct waiter {
    corepool_pool_t pool;
    pthread_t thread;
    int status;
};

static void *wait_for_worker(void *arg)
{
    struct waiter *waiter = arg;
    corepool_lease_t lease;
    waiter->status = laws_checkout(waiter->pool, COREPOOL_INFINITE, &lease);
    return NULL;
}

Test(stop, ends_every_request_that_waits_with_closed)
{
    struct laws_count count = {.fail_inits = -1};
    struct waiter waiters[4];
    corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 2, 0);
    for (unsigned i = 0; i < 4; i++) {
        waiters[i] = (struct waiter){.pool = pool};
        cr_assert_eq(pthread_create(&waiters[i].thread, NULL, wait_for_worker, &waiters[i]), 0);
    }
    laws_await_waiting(pool, 4);
    cr_expect_eq(corepool_runtime_stop(runtime, LAWS_PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(waiters[i].thread, NULL), 0);
        cr_expect_eq(waiters[i].status, COREPOOL_ECLOSED);
    }
    laws_end();
}

static _Atomic bool opening_hangs;
static _Atomic unsigned hangs;

/* On the second shard, while the first has its slice already. */
static int hang_on_second(void *arg, corepool_shard_t *shard, void **pool_state)
{
    *pool_state = arg;
    if (corepool_shard_index(shard) == 1)
        atomic_fetch_add(&hangs, 1);
    while (corepool_shard_index(shard) == 1 && atomic_load(&opening_hangs))
        poll(NULL, 0, 1);
    return COREPOOL_OK;
}

static int open_nothing(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker;
    *resource = pool_state;
    return COREPOOL_OK;
}

static void *open_late(void *arg)
{
    static const corepool_class_t late_class = {
        .name = "late", .pool_init = hang_on_second, .init = open_nothing};
    corepool_pool_t pool;
    *(int *)arg = corepool_pool_open(laws_runtime(), &late_class, arg, 4, NULL, &pool);
    return NULL;
}

/* The opener finds it closed, and its first slice is undone before the shards end. */
Test(stop, waits_for_a_pool_that_is_being_opened)
{
    pthread_t opener;
    int opened = 1;
    laws_start(&(corepool_runtime_options_t){.synthetic = "core:2 pu:1"});
    atomic_store(&opening_hangs, true);
    cr_assert_eq(pthread_create(&opener, NULL, open_late, &opened), 0);
    laws_await_count(&hangs, 1);
    cr_expect_eq(corepool_runtime_stop(laws_runtime(), LAWS_SHORT_MS), COREPOOL_EBUSY);
    atomic_store(&opening_hangs, false);
    cr_expect_eq(corepool_runtime_stop(laws_runtime(), LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_assert_eq(pthread_join(opener, NULL), 0);
    cr_expect_eq(opened, COREPOOL_ECLOSED, "%s", corepool_error_name(opened));
    laws_end();
}

/* --- a thousand times --- */

/* Uses a pool until it is closed. */
struct user {
    corepool_pool_t pool;
    pthread_t thread;
    int last;
    unsigned broken;
    uint64_t served;
};

static void *use_until_closed(void *arg)
{
    struct user *user = arg;
    corepool_lease_t lease;
    while ((user->last = laws_checkout(user->pool, COREPOOL_INFINITE, &lease)) == COREPOOL_OK) {
        user->broken += (user->served++ % 8 ? corepool_checkin(&lease) : corepool_checkin_remove(&lease)) != 0;
    }
    return NULL;
}

static void start_and_stop(unsigned cycle, uint64_t *served)
{
    struct laws_count count = {0};
    struct user users[2];
    corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 1 + cycle % 5, cycle % 2 ? COREPOOL_POOL_LAZY : 0);
    for (unsigned i = 0; i < 2; i++) {
        users[i] = (struct user){.pool = pool};
        cr_assert_eq(pthread_create(&users[i].thread, NULL, use_until_closed, &users[i]), 0);
    }
    if (cycle % 3 == 0) /* now and then the stop comes while nothing is open yet */
        laws_await_count(&count.opened, 1);
    cr_assert_eq(corepool_runtime_stop(runtime, LAWS_PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(pthread_join(users[i].thread, NULL), 0);
        cr_assert_eq(users[i].last, COREPOOL_ECLOSED);
        cr_assert_eq(users[i].broken, 0);
        *served += users[i].served;
    }
    laws_end_quickly();
}

/* 1,000 runtimes with clients at work when the stop comes: descriptors, threads and memory (ASan) are back each
 * time. */
Test(stop, a_thousand_runtimes_come_and_go_with_pools_in_flight)
{
    uint64_t served = 0;
    for (unsigned cycle = 0; cycle < CYCLES; cycle++)
        start_and_stop(cycle, &served);
    cr_expect_gt(served, CYCLES, "clients must have been at work");
    laws_expect_no_leaks();
}

static void linger(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    poll(NULL, 0, LAWS_SHORT_MS);
}

static void *stop_cancelled(void *runtime)
{
    pthread_cancel(pthread_self());
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    return NULL;
}

Test(stop, whose_thread_is_cancelled_in_it_is_down_before_the_thread_ends)
{
    pthread_t stopper;
    corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.on_stop = linger});
    cr_assert_eq(pthread_create(&stopper, NULL, stop_cancelled, runtime), 0);
    cr_assert_eq(pthread_join(stopper, NULL), 0);
    cr_expect_eq(corepool_runtime_stop(runtime, 0), COREPOOL_OK, "%s", corepool_error_detail());
    laws_end();
}
