/* tests/threads_test.c: leases and requests across threads and CPUs: handed over, left behind, called from
 * afar. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>

#include "support/callers.h"

static void check_in(corepool_lease_t *lease)
{
    cr_expect_eq(corepool_checkin(lease), COREPOOL_OK, "%s", corepool_error_detail());
}

static corepool_pool_t start_one(struct laws_count *count, unsigned size, unsigned flags)
{
    corepool_pool_t pool = laws_start_one(&laws_class, count, size, flags);
    laws_await_idle(pool, size);
    return pool;
}

struct hand_over {
    corepool_pool_t pool;
    corepool_lease_t lease;
    int status;
};

static void take_in_thread(void *arg)
{
    struct hand_over *hand = arg;
    hand->status = laws_checkout(hand->pool, LAWS_PATIENCE_MS, &hand->lease);
}

static void give_in_thread(void *arg)
{
    struct hand_over *hand = arg;
    hand->status = corepool_checkin(&hand->lease);
}

static void take_and_give(void *arg)
{
    struct hand_over *hand = arg;
    take_in_thread(hand);
    if (hand->status == COREPOOL_OK)
        hand->status = corepool_checkin(&hand->lease);
}

/* --- other threads, other CPUs --- */

Test(threads, a_lease_may_be_ended_by_another_thread)
{
    struct laws_count count = {0};
    struct hand_over hand = {.pool = start_one(&count, 1, 0)};
    for (unsigned i = 0; i < 10; i++) {
        hand.lease = laws_take(hand.pool);
        laws_in_thread(laws_cpu_of(0), give_in_thread, &hand);
        cr_expect_eq(hand.status, COREPOOL_OK);
    }
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

/* The returned list: what came back elsewhere is found by the next miss, without the manager. */
Test(threads, a_worker_that_comes_back_on_another_cpu_is_found_by_the_next_miss_at_home)
{
    struct laws_count count = {0};
    int elsewhere = laws_need_second_cpu();
    struct hand_over hand = {.pool = start_one(&count, 1, 0)};
    for (unsigned i = 0; i < 50; i++) {
        hand.lease = laws_take(hand.pool);
        laws_in_thread(elsewhere, give_in_thread, &hand);
        cr_assert_eq(hand.status, COREPOOL_OK);
        cr_assert_eq(laws_stats(hand.pool).idle, 1);
    }
    hand.lease = laws_take(hand.pool);
    check_in(&hand.lease);
    cr_expect_eq(laws_stats(hand.pool).grants, 0);
    laws_end();
}

Test(threads, a_worker_that_comes_back_on_another_cpu_goes_to_who_waits)
{
    struct laws_count count = {0};
    int elsewhere = laws_need_second_cpu();
    struct hand_over hand = {.pool = start_one(&count, 1, 0)};
    struct caller waiting = {.pool = hand.pool};
    hand.lease = laws_take(hand.pool);
    caller_start(&waiting);
    laws_await_waiting(hand.pool, 1);
    laws_in_thread(elsewhere, give_in_thread, &hand);
    caller_expect(&waiting, COREPOOL_OK);
    laws_end();
}

Test(threads, a_caller_on_a_cpu_without_a_shard_is_served)
{
    struct laws_count count = {0}, managed_count = {0};
    int elsewhere = laws_need_second_cpu();
    struct hand_over hand = {.pool = start_one(&count, 1, 0)};
    struct hand_over managed = {.pool = laws_open(&laws_class, &managed_count, 1, COREPOOL_POOL_MANAGED)};
    for (unsigned i = 0; i < 20; i++) {
        laws_in_thread(elsewhere, take_and_give, &hand);
        cr_assert_eq(hand.status, COREPOOL_OK);
        laws_in_thread(elsewhere, take_and_give, &managed);
        cr_assert_eq(managed.status, COREPOOL_OK);
    }
    laws_end();
}

Test(threads, a_managed_pool_is_served_by_its_manager_in_every_form)
{
    struct laws_count count = {0};
    corepool_lease_t lease, none;
    corepool_pool_t pool = start_one(&count, 2, COREPOOL_POOL_MANAGED);
    for (unsigned i = 0; i < 10; i++) {
        lease = laws_take(pool);
        check_in(&lease);
    }
    cr_expect_eq(laws_stats(pool).grants, 10);
    cr_expect_eq(laws_stats(pool).shelf_hits, 0);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &none), COREPOOL_ENOTSUP);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    laws_await_count(&count.terminated, 1);
    lease = laws_take(pool);
    none = laws_take(pool);
    corepool_lease_t third;
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &third), COREPOOL_ETIMEDOUT);
    check_in(&lease);
    check_in(&none);
    laws_end();
}

/* --- threads that end --- */

static void take_two_and_end(void *arg)
{
    struct hand_over *hand = arg;
    take_in_thread(hand);
    hand->status |= laws_checkout(hand->pool, LAWS_PATIENCE_MS, &hand->lease);
}

Test(threads, one_that_ends_with_leases_loses_them_and_the_workers_are_replaced)
{
    struct laws_count count = {0};
    struct hand_over hand = {.pool = start_one(&count, 3, 0)};
    laws_in_thread(-1, take_two_and_end, &hand);
    cr_expect_eq(hand.status, COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], 2);
    laws_await_idle(hand.pool, 3);
    cr_expect_eq(corepool_checkin(&hand.lease), COREPOOL_ESTALE, "it was reclaimed");
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 5);
}

Test(threads, one_that_ends_with_the_only_worker_leaves_its_place_to_the_next)
{
    struct laws_count count = {0}, lazy_count = {0};
    struct hand_over eager = {.pool = start_one(&count, 1, 0)};
    struct hand_over lazy = {.pool = laws_open(&laws_class, &lazy_count, 1, COREPOOL_POOL_LAZY)};
    struct hand_over *hands[] = {&eager, &lazy};
    for (unsigned i = 0; i < 2; i++) {
        laws_in_thread(-1, take_in_thread, hands[i]); /* ends with the only one */
        laws_in_thread(-1, take_and_give, hands[i]);  /* needs its place */
        cr_expect_eq(hands[i]->status, COREPOOL_OK);
    }
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], 1);
    laws_await_count(&lazy_count.reasons[COREPOOL_REASON_DOWN], 1);
    laws_end();
}

Test(threads, a_lease_that_was_ended_elsewhere_is_not_reclaimed_again)
{
    struct laws_count count = {0};
    struct hand_over hand = {.pool = start_one(&count, 2, 0)};
    for (unsigned i = 0; i < 5; i++) {
        corepool_lease_t kept = laws_take(hand.pool);
        hand.lease = laws_take(hand.pool);
        laws_in_thread(-1, give_in_thread, &hand);
        cr_expect_eq(hand.status, COREPOOL_OK);
        check_in(&kept);
    }
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 2);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_DOWN]), 0);
}

#define CLIENTS 4
#define ROUNDS 2000

struct crowd {
    corepool_pool_t pool;
    unsigned number;
    pthread_t thread;
    unsigned served, failed;
};

/* Every kind of ending in turn, over threads that wander between the CPUs. */
static void *mill_about(void *arg)
{
    struct crowd *one = arg;
    corepool_lease_t lease;
    for (unsigned i = 0; i < ROUNDS; i++) {
        int status = laws_checkout(one->pool, (one->number + i) % 7 ? LAWS_PATIENCE_MS : 1, &lease);
        if (status == COREPOOL_ETIMEDOUT)
            continue;
        one->failed += status != COREPOOL_OK;
        if (status == COREPOOL_OK)
            one->failed += (i % 101 ? corepool_checkin(&lease) : corepool_checkin_fail(&lease)) != COREPOOL_OK;
        one->served++;
    }
    laws_checkout(one->pool, LAWS_PATIENCE_MS, &lease); /* ends with it */
    return NULL;
}

Test(threads, a_crowd_is_served_and_the_laws_hold)
{
    struct laws_count count = {0};
    struct crowd crowd[CLIENTS];
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 3, 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        crowd[i] = (struct crowd){.pool = pool, .number = i};
        cr_assert_eq(pthread_create(&crowd[i].thread, NULL, mill_about, &crowd[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        cr_assert_eq(pthread_join(crowd[i].thread, NULL), 0);
        cr_expect_eq(crowd[i].failed, 0);
        cr_expect_gt(crowd[i].served, ROUNDS / 2);
    }
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], CLIENTS);
    laws_await_idle(pool, 3);
    laws_end();
}
