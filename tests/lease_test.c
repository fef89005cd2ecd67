/* tests/lease_test.c: leases as such: who holds them, since when, from where. */
#include <criterion/criterion.h>

#include <poll.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

#include "support/callers.h"

/* --- adopting --- */

/* A thread that takes a lease, lives until it is told to end, and leaves the lease behind. */
struct giver {
    corepool_pool_t pool;
    corepool_lease_t lease;
    sem_t taken, end;
    pthread_t thread;
};

static void *take_and_end(void *arg)
{
    struct giver *giver = arg;
    if (laws_checkout(giver->pool, LAWS_PATIENCE_MS, &giver->lease) != COREPOOL_OK)
        giver->lease = (corepool_lease_t){0};
    sem_post(&giver->taken);
    while (sem_wait(&giver->end) != 0)
        ; /* a signal */
    return NULL;
}

static void giver_start(struct giver *giver)
{
    sem_init(&giver->taken, 0, 0);
    sem_init(&giver->end, 0, 0);
    cr_assert_eq(pthread_create(&giver->thread, NULL, take_and_end, giver), 0);
    while (sem_wait(&giver->taken) != 0)
        ;
    cr_assert_not_null(giver->lease.worker);
}

static void giver_end(struct giver *giver)
{
    sem_post(&giver->end);
    cr_assert_eq(pthread_join(giver->thread, NULL), 0);
}

Test(lease, an_adopted_lease_outlives_the_thread_that_took_it)
{
    struct laws_count count = {0};
    struct giver giver = {.pool = laws_start_one(&laws_class, &count, 1, 0)};
    giver_start(&giver);
    cr_expect_eq(corepool_adopt(&giver.lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(corepool_adopt(&giver.lease), COREPOOL_OK, "twice is once");
    giver_end(&giver);
    cr_expect_eq(laws_stats(giver.pool).leased, 1);
    cr_expect_eq(corepool_checkin(&giver.lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(laws_stats(giver.pool).reclaimed, 0);
    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_DOWN]), 0);
}

Test(lease, what_is_not_adopted_is_reclaimed)
{
    struct laws_count count = {0};
    struct giver giver = {.pool = laws_start_one(&laws_class, &count, 1, 0)};
    giver_start(&giver);
    giver_end(&giver);
    cr_expect_eq(corepool_adopt(&giver.lease), COREPOOL_ESTALE);
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], 1);
    laws_end();
}

static void adopt_and_leave(void *lease)
{
    corepool_adopt(lease);
}

Test(lease, the_one_that_adopted_it_loses_it_at_its_own_end)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool);
    laws_in_thread(-1, adopt_and_leave, &lease);
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_ESTALE);
    laws_end();
}

Test(lease, only_a_lease_that_is_out_can_be_adopted)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool), copy = lease, zero = {0};
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_adopt(&copy), COREPOOL_ESTALE);
    lease = laws_take(pool); /* the same worker, another lease */
    cr_expect_eq(corepool_adopt(&copy), COREPOOL_ESTALE);
    cr_expect_eq(corepool_adopt(&zero), COREPOOL_ESTALE);
    cr_expect_eq(corepool_adopt(NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

/* --- how long --- */

/* Holds at least `ms` by the monotonic clock. */
static void hold_for(int64_t ms)
{
    int64_t until = laws_now_ms() + ms + 1;
    while (laws_now_ms() < until)
        poll(NULL, 0, 1);
}

static corepool_pool_t start_timed(const corepool_class_t *cls, struct laws_count *count, unsigned flags)
{
    corepool_pool_t pool = laws_start_one(cls, count, 1, flags | COREPOOL_POOL_TIME_LEASES);
    return pool;
}

static void check_holds(const corepool_class_t *cls, unsigned flags)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_timed(cls, &count, flags);
    for (unsigned i = 0; i < 20; i++) {
        corepool_lease_t lease = laws_take(pool);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    corepool_lease_t lease = laws_take(pool);
    hold_for(LAWS_SHORT_MS);
    cr_expect_eq(laws_stats(pool).hold.count, 20, "it has not ended");
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    corepool_times_t hold = laws_stats(pool).hold;
    cr_expect_eq(hold.count, 21);
    cr_expect_geq(hold.max_us, (uint64_t)LAWS_SHORT_MS * 1000);
    cr_expect_leq(hold.p50_us, hold.p90_us);
    cr_expect_eq(hold.p9999_us, hold.max_us);
    laws_end();
}

Test(lease, each_hold_is_measured_where_the_class_has_callbacks)
{
    check_holds(&laws_class, 0);
}

Test(lease, each_hold_is_measured_where_the_class_has_none)
{
    check_holds(&laws_plain_class, 0);
}

Test(lease, each_hold_is_measured_in_a_managed_pool)
{
    check_holds(&laws_class, COREPOOL_POOL_MANAGED);
}

Test(lease, each_hold_is_measured_in_a_serialised_pool)
{
    check_holds(&laws_class, COREPOOL_POOL_SERIALISED);
}

static void take_hold_and_leave(void *pool)
{
    laws_take(*(corepool_pool_t *)pool);
    hold_for(LAWS_SHORT_MS);
}

Test(lease, a_hold_that_is_reclaimed_counts_too_and_one_that_is_ended_twice_once)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_timed(&laws_class, &count, 0);
    laws_in_thread(-1, take_hold_and_leave, &pool);
    cr_expect_eq(laws_stats(pool).hold.count, 1);
    cr_expect_geq(laws_stats(pool).hold.max_us, (uint64_t)LAWS_SHORT_MS * 1000);
    corepool_lease_t lease = laws_take(pool), copy = lease;
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&copy), COREPOOL_ESTALE);
    cr_expect_eq(laws_stats(pool).hold.count, 2);
    laws_end();
}

/* --- from where --- */

static void keep_info(const corepool_lease_info_t *info, void *arg)
{
    *(corepool_lease_info_t *)arg = *info;
}

static corepool_lease_info_t info_of(corepool_pool_t pool)
{
    corepool_lease_info_t info;
    cr_assert_eq(corepool_pool_leases(pool, keep_info, &info), 1);
    return info;
}

/* Exported by -rdynamic or not, its address is in the backtrace. */
__attribute__((noinline)) static corepool_lease_t take_here(corepool_pool_t pool)
{
    corepool_lease_t lease = laws_take(pool);
    __asm__ volatile(""); /* no tail call */
    return lease;
}

static bool is_from(const corepool_lease_info_t *info, const void *function)
{
    const char *first = function;
    for (unsigned i = 0; i < info->backtrace_length; i++)
        if ((const char *)info->backtrace[i] > first && (const char *)info->backtrace[i] < first + 512)
            return true;
    return false;
}

static corepool_pool_t start_sampled(struct laws_count *count, unsigned every)
{
    return laws_start_one_with(&laws_plain_class, count, 1, &(corepool_pool_options_t){.backtrace_every = every});
}

Test(lease, a_sampled_checkout_says_from_where_it_was_called)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_sampled(&count, 1);
    corepool_lease_t lease = take_here(pool);
    corepool_lease_info_t info = info_of(pool);
    cr_expect_gt(info.backtrace_length, 1);
    cr_expect(is_from(&info, (const void *)(uintptr_t)take_here));
    cr_expect_eq(info.age_ms, -1, "nobody measures it");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

Test(lease, every_n_th_checkout_of_a_thread_is_sampled_and_the_others_show_no_other_one_s_backtrace)
{
    struct laws_count count = {0};
    unsigned sampled = 0;
    corepool_pool_t pool = start_sampled(&count, 5);
    for (unsigned i = 1; i <= 20; i++) {
        corepool_lease_t lease = laws_take(pool);
        bool has_trace = info_of(pool).backtrace_length > 0;
        cr_expect_eq(has_trace, i % 5 == 0, "checkout %u", i);
        sampled += has_trace;
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_expect_eq(sampled, 4);
    laws_end();
}

Test(lease, its_age_is_known_where_leases_are_timed)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start_timed(&laws_class, &count, 0);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_geq(info_of(pool).age_ms, 0);
    hold_for(LAWS_SHORT_MS);
    cr_expect_geq(info_of(pool).age_ms, LAWS_SHORT_MS);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

/* --- for too long --- */

struct overdue {
    _Atomic unsigned told;
    corepool_lease_info_t last;
    int64_t ms;
};

static void note_overdue(const corepool_event_t *event, void *arg)
{
    struct overdue *overdue = arg;
    if (event->kind != COREPOOL_EVENT_OVERDUE)
        return;
    overdue->last = *event->lease;
    overdue->ms = event->duration_ms;
    atomic_fetch_add(&overdue->told, 1);
}

#define OVERDUE_MS 8

Test(lease, one_that_is_out_for_long_is_reported_with_who_how_long_and_from_where)
{
    struct laws_count count = {0};
    struct overdue overdue = {0};
    corepool_pool_t pool =
        laws_start_one_with(&laws_class, &count, 2, &(corepool_pool_options_t){.lease_report_ms = OVERDUE_MS,
                                                                               .backtrace_every = 1,
                                                                               .on_event = note_overdue,
                                                                               .event_arg = &overdue});
    corepool_lease_t lease = take_here(pool), copy = lease;
    laws_await_count(&overdue.told, 2);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_geq(overdue.ms, 2 * OVERDUE_MS);
    cr_expect_eq(overdue.last.worker, corepool_worker_number(copy.worker));
    cr_expect_eq(overdue.last.thread_id, gettid());
    cr_expect_geq(overdue.last.age_ms, overdue.ms - 1);
    cr_expect(is_from(&overdue.last, (const void *)(uintptr_t)take_here));
    cr_expect_eq(laws_stats(pool).overdue, 1, "one lease, however often");
    laws_end();
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_STOP]), 2, "reports end no worker");
}

static bool has_age(void *pool)
{
    return info_of(*(corepool_pool_t *)pool).age_ms >= 0;
}

Test(lease, a_pool_that_does_not_time_its_leases_measures_none_in_the_place_of_one_that_did)
{
    struct laws_count timed = {0}, watched = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &timed, 1, COREPOOL_POOL_TIME_LEASES);
    corepool_lease_t lease = laws_take(pool);
    corepool_checkin(&lease);
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    pool = laws_open_with(&laws_class, &watched, 1, &(corepool_pool_options_t){.lease_report_ms = 8});
    lease = laws_take(pool);
    cr_assert(laws_eventually(has_age, &pool));
    corepool_checkin_remove(&lease);
    cr_expect_eq(laws_stats(pool).hold.count, 0);
    laws_end();
}

Test(lease, after_its_limit_the_worker_is_ended_at_checkin_and_replaced)
{
    struct laws_count count = {0};
    struct overdue overdue = {0};
    corepool_pool_t pool =
        laws_start_one_with(&laws_class, &count, 1, &(corepool_pool_options_t){.lease_report_ms = OVERDUE_MS,
                                                                               .lease_limit_ms = OVERDUE_MS,
                                                                               .on_event = note_overdue,
                                                                               .event_arg = &overdue});
    corepool_lease_t lease = laws_take(pool);
    laws_await_count(&overdue.told, 1);
    cr_expect_eq(atomic_load(&count.terminated), 0, "it is in use");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_TIMEOUT], 1);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 2);
}

Test(lease, limits_that_make_no_sense_are_refused_by_name)
{
    struct laws_count count = {0};
    corepool_pool_t pool, first = laws_start_one(&laws_class, &count, 1, 0);
    (void)first;
    cr_expect_eq(corepool_pool_open(laws_runtime(), &laws_class, &count, 1,
                                    &(corepool_pool_options_t){.lease_report_ms = -1}, &pool),
                 COREPOOL_EINVAL);
    laws_expect_detail("lease_report_ms: -1");
    cr_expect_eq(corepool_pool_open(laws_runtime(), &laws_class, &count, 1,
                                    &(corepool_pool_options_t){.lease_limit_ms = INT64_MAX}, &pool),
                 COREPOOL_EINVAL);
    laws_expect_detail("lease_limit_ms");
    laws_end();
}
