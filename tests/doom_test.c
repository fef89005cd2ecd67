/* tests/doom_test.c: workers that are to end while they are leased, and are their shelf's top: where a checkin
 * is one store. Each ends when it comes back, by itself, and is nobody's lease again. The class has no
 * callbacks, so that calls are usual ones. */
#include <criterion/criterion.h>

#include "support/callers.h"

/* Lifetimes and limits that are meant to pass. */
#define SOON_MS 40

static void expect_ok(int status)
{
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
}

/* The caller had it last, so it is on top. */
static corepool_lease_t take_top(corepool_pool_t pool)
{
    corepool_lease_t lease;
    for (unsigned i = 0; i < 2; i++) {
        expect_ok(corepool_checkout(pool, NULL, &lease));
        expect_ok(corepool_checkin(&lease));
    }
    expect_ok(corepool_checkout(pool, NULL, &lease));
    return lease;
}

static void expect_lawful(void)
{
    expect_ok(corepool_runtime_audit(laws_runtime()));
}

/* Nobody takes it before it has ended: who finds it on a shelf would end it, too. */
static void expect_ends(corepool_pool_t pool, corepool_lease_t *lease, const struct laws_count *count,
                        corepool_reason_t reason)
{
    const struct laws_unit *unit = lease->resource;
    unsigned before = atomic_load(&count->reasons[reason]);
    expect_lawful();
    cr_expect_eq(atomic_load(&unit->ended), 0, "it is in its client's hands");
    expect_ok(corepool_checkin(lease));
    laws_await_count(&count->reasons[reason], before + 1);
    cr_expect_eq(atomic_load(&unit->ended), 1);
    expect_ok(corepool_checkout(pool, NULL, lease));
    cr_expect_neq(lease->resource, unit);
    expect_ok(corepool_checkin(lease));
    laws_end();
}

static void evict(void *worker)
{
    corepool_worker_evict(worker, COREPOOL_REASON_EVICTED);
}

Test(doom, evicted_while_leased_it_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = take_top(pool);
    laws_on_shard(0, evict, lease.worker);
    expect_ends(pool, &lease, &count, COREPOOL_REASON_EVICTED);
}

Test(doom, evicted_while_leased_it_ends_though_another_came_back_before)
{
    struct laws_count count = {0};
    corepool_lease_t other;
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = take_top(pool);
    expect_ok(corepool_checkout(pool, NULL, &other));
    laws_on_shard(0, evict, lease.worker);
    expect_ok(corepool_checkin(&other));
    expect_ends(pool, &lease, &count, COREPOOL_REASON_EVICTED);
}

Test(doom, flushed_while_leased_it_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = take_top(pool);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_NOW));
    expect_ends(pool, &lease, &count, COREPOOL_REASON_FLUSHED);
}

Test(doom, flushed_gently_while_leased_it_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = take_top(pool);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_GENTLY));
    expect_ends(pool, &lease, &count, COREPOOL_REASON_FLUSHED);
}

static bool is_overdue(void *pool)
{
    return laws_stats(*(corepool_pool_t *)pool).overdue == 1;
}

Test(doom, leased_beyond_the_limit_it_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool =
        laws_start_one_with(&laws_plain_class, &count, 2,
                            &(corepool_pool_options_t){.lease_report_ms = SOON_MS, .lease_limit_ms = SOON_MS});
    laws_await_idle(pool, 2);
    corepool_lease_t lease = take_top(pool);
    cr_assert(laws_eventually(is_overdue, &pool));
    expect_ends(pool, &lease, &count, COREPOOL_REASON_TIMEOUT);
}

Test(doom, leased_at_the_end_of_its_lifetime_it_ends_at_its_checkin)
{
    struct laws_count count = {0}, later = {0};
    corepool_pool_t pool = laws_start_one_with(&laws_plain_class, &count, 1,
                                               &(corepool_pool_options_t){.max_lifetime_ms = SOON_MS});
    laws_await_idle(pool, 1);
    corepool_lease_t lease = take_top(pool);
    (void)laws_open_with(&laws_plain_class, &later, 1,
                         &(corepool_pool_options_t){.max_lifetime_ms = 4 * SOON_MS});
    laws_await_count(&later.reasons[COREPOOL_REASON_EXPIRED], 1); /* so the shard has looked at the first */
    expect_ends(pool, &lease, &count, COREPOOL_REASON_EXPIRED);
}

Test(doom, one_too_many_since_a_resize_it_ends_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_lease_t other;
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = take_top(pool);
    expect_ok(corepool_checkout(pool, NULL, &other));
    expect_ok(corepool_checkin(&lease));
    expect_ok(corepool_checkout(pool, NULL, &lease));
    expect_ok(corepool_pool_resize(pool, 1));
    const struct laws_unit *unit = lease.resource;
    expect_ok(corepool_checkin(&lease));
    laws_await_count(&count.reasons[COREPOOL_REASON_RESIZED], 1);
    cr_expect_eq(atomic_load(&unit->ended), 1);
    expect_ok(corepool_checkin(&other));
    laws_end();
}
