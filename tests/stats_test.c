/* tests/stats_test.c: statistics: exact where they promise to be, at any moment. */
#include <criterion/criterion.h>

#include <string.h>

#include "support/callers.h"

static uint64_t removed_in_all(const corepool_stats_t *stats)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i <= COREPOOL_REASON_USER; i++)
        sum += stats->removed[i];
    return sum;
}

/* --- at any moment --- */

#define CHURNERS 3
#define SNAPSHOTS 20000

struct churn {
    corepool_pool_t pool;
    _Atomic bool over;
    pthread_t thread[CHURNERS];
};

/* Every other worker is removed, so that slots go through all of their states all the time. */
static void *use_and_remove(void *arg)
{
    struct churn *churn = arg;
    for (unsigned i = 0; !atomic_load(&churn->over); i++) {
        corepool_lease_t lease;
        if (laws_checkout(churn->pool, LAWS_PATIENCE_MS, &lease) == COREPOOL_OK)
            i % 2 ? corepool_checkin_remove(&lease) : corepool_checkin(&lease);
    }
    return NULL;
}

static void churn_start(struct churn *churn)
{
    for (unsigned i = 0; i < CHURNERS; i++)
        cr_assert_eq(pthread_create(&churn->thread[i], NULL, use_and_remove, churn), 0);
}

static void churn_end(struct churn *churn)
{
    atomic_store(&churn->over, true);
    for (unsigned i = 0; i < CHURNERS; i++)
        cr_assert_eq(pthread_join(churn->thread[i], NULL), 0);
}

Test(stats, every_snapshot_accounts_for_every_slot_and_every_open_under_load)
{
    struct laws_count count = {0};
    laws_start(NULL);
    struct churn churn = {.pool = laws_open(&laws_class, &count, 6, 0)};
    unsigned torn = 0, unaccounted = 0;
    churn_start(&churn);
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        corepool_stats_t stats = laws_stats(churn.pool);
        torn += stats.vacant + stats.opening + stats.idle + stats.leased + stats.closing != stats.quota;
        unaccounted += stats.opens != stats.opening + stats.open_failures + stats.idle + stats.leased + stats.closing +
                                          stats.terminated;
        torn += stats.quota != 6;
    }
    churn_end(&churn);
    cr_expect_eq(torn, 0, "%u of %d snapshots lose or invent a slot", torn, SNAPSHOTS);
    cr_expect_eq(unaccounted, 0, "%u of %d snapshots lose or invent a worker", unaccounted, SNAPSHOTS);
    cr_expect_geq(laws_stats(churn.pool).terminated, 100, "nothing was going on");
    laws_end();
}

/* --- counts --- */

static int skip_when_told(void *command)
{
    return command ? COREPOOL_SKIP : COREPOOL_OK;
}

static void take_and_leave(void *pool)
{
    laws_take(*(corepool_pool_t *)pool);
}

Test(stats, each_end_of_a_worker_is_counted_by_its_reason)
{
    struct laws_count count = {.on_checkout = skip_when_told};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    laws_in_thread(-1, take_and_leave, &pool);
    atomic_store(&count.checkin_outcome, COREPOOL_REMOVE_BECAUSE(77));
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&count.terminated, 4);
    laws_await_idle(pool, 2);
    corepool_stats_t stats = laws_stats(pool);
    cr_expect_eq(stats.removed[COREPOOL_REASON_FAILED], 1);
    cr_expect_eq(stats.removed[COREPOOL_REASON_REMOVED], 1);
    cr_expect_eq(stats.removed[COREPOOL_REASON_DOWN], 1);
    cr_expect_eq(stats.removed[COREPOOL_REASON_USER], 1);
    cr_expect_eq(removed_in_all(&stats), stats.terminated);
    cr_expect_eq(stats.reclaimed, 1);
    laws_end();
}

Test(stats, a_checkout_that_the_class_skips_is_counted)
{
    struct laws_count count = {.on_checkout = skip_when_told};
    corepool_lease_t lease;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(corepool_checkout(pool, &(corepool_checkout_options_t){.command = &count}, &lease),
                     COREPOOL_ESKIPPED);
    cr_expect_eq(laws_stats(pool).skips, 3);
    laws_end();
}

Test(stats, another_pool_in_the_same_memory_starts_from_zero)
{
    struct laws_count count = {0}, next_count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    laws_await_count(&count.terminated, 1);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    corepool_stats_t stats = laws_stats(laws_open(&laws_class, &next_count, 1, COREPOOL_POOL_LAZY)), zero = {0};
    zero.quota = zero.vacant = zero.slices = 1;
    zero.portable = stats.portable;
    cr_expect_eq(memcmp(&stats, &zero, sizeof zero), 0);
    laws_end();
}

/* --- times --- */

static bool is_ordered(corepool_times_t times)
{
    return times.p50_us <= times.p90_us && times.p90_us <= times.p99_us && times.p99_us <= times.p999_us &&
           times.p999_us <= times.p9999_us && times.p9999_us <= times.max_us;
}

Test(stats, waits_and_opens_have_quantiles_and_nobody_is_missing)
{
    struct laws_count count = {0};
    struct caller caller = {.pool = laws_start_one(&laws_class, &count, 2, 0)};
    laws_await_idle(caller.pool, 2);
    for (unsigned i = 0; i < 50; i++) {
        corepool_lease_t lease = laws_take(caller.pool);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    corepool_lease_t one = laws_take(caller.pool), two = laws_take(caller.pool);
    caller_start(&caller);
    laws_await_waiting(caller.pool, 1);
    cr_expect_eq(corepool_checkin(&one), COREPOOL_OK);
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&two), COREPOOL_OK);
    corepool_stats_t stats = laws_stats(caller.pool);
    cr_expect_eq(stats.wait.count, 53);
    cr_expect_eq(stats.wait.p90_us, 0, "hits wait 0");
    cr_expect_gt(stats.wait.p9999_us, 0, "one waited");
    cr_expect_eq(stats.open.count, 2);
    cr_expect(is_ordered(stats.wait) && is_ordered(stats.open));
    cr_expect_eq(stats.hold.count, 0, "nobody asked for it");
    laws_end();
}
