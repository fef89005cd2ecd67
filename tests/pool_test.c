/* tests/pool_test.c: pools: sizes and their shares, opening, closing, handles, statistics. */
#include <criterion/criterion.h>

#include <string.h>

#include "support/callers.h"

#define BIG "pack:2 core:4 pu:1" /* 8 shards */

/* --- what is refused --- */

static void expect_refused(corepool_runtime_t *runtime, const corepool_class_t *cls, unsigned size,
                           corepool_pool_options_t options, const char *word)
{
    corepool_pool_t pool = {.shard = 99};
    cr_expect_eq(corepool_pool_open(runtime, cls, NULL, size, &options, &pool), COREPOOL_EINVAL);
    cr_expect_null(pool.impl);
    laws_expect_detail(word);
}

Test(pool, a_bad_argument_is_an_error_that_names_it)
{
    corepool_class_t nameless = laws_class, helpless = laws_class, flagged = laws_class;
    corepool_runtime_t *runtime = laws_start(NULL);
    nameless.name = NULL;
    helpless.init = NULL;
    flagged.flags = 0x80;
    expect_refused(NULL, &laws_class, 1, (corepool_pool_options_t){0}, "runtime");
    expect_refused(runtime, NULL, 1, (corepool_pool_options_t){0}, "cls");
    expect_refused(runtime, &nameless, 1, (corepool_pool_options_t){0}, "name");
    expect_refused(runtime, &helpless, 1, (corepool_pool_options_t){0}, "init");
    expect_refused(runtime, &flagged, 1, (corepool_pool_options_t){0}, "0x80");
    expect_refused(runtime, &laws_class, 0, (corepool_pool_options_t){0}, "size: 0");
    expect_refused(runtime, &laws_class, COREPOOL_SIZE_MAX + 1, (corepool_pool_options_t){0}, "size: 1000001");
    expect_refused(runtime, &laws_class, 1, (corepool_pool_options_t){.flags = 0x4000}, "flags: 0x4000");
    expect_refused(runtime, &laws_class, 1, (corepool_pool_options_t){.backoff_min_ms = -1}, "backoff_min_ms");
    expect_refused(runtime, &laws_class, 1, (corepool_pool_options_t){.backoff_max_ms = -1}, "backoff_max_ms");
    expect_refused(runtime, &laws_class, 1, (corepool_pool_options_t){.backoff_min_ms = 9, .backoff_max_ms = 8},
                   "backoff_max_ms: 8");
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, NULL, 1, NULL, NULL), COREPOOL_EINVAL);
    laws_end();
}

Test(pool, the_zero_handle_is_no_pool)
{
    corepool_pool_t none = {0};
    corepool_stats_t stats;
    corepool_lease_t lease;
    cr_expect_eq(corepool_checkout(none, NULL, &lease), COREPOOL_EINVAL);
    cr_expect_eq(corepool_checkout_try(none, NULL, &lease), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_stats(none, &stats), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_close(none, 0), COREPOOL_EINVAL);
    cr_expect_null(corepool_pool_at(none, 0).impl);
    laws_expect_detail("zero value");
}

/* --- sizes --- */

/* The quotas of the shards' own slices, each counted once although others may borrow it. */
static void expect_quotas(unsigned size, unsigned flags, uint64_t sum, uint64_t most)
{
    struct laws_count count = {0};
    const corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.synthetic = BIG});
    corepool_pool_t pool = laws_open(&laws_class, &count, size, flags);
    cr_expect_eq(laws_stats(pool).quota, sum, "size %u", size);
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
        uint64_t quota = laws_stats(corepool_pool_at(pool, i)).quota;
        cr_expect_leq(quota, most, "shard %u has %llu of %u", i, (unsigned long long)quota, size);
        cr_expect_geq(quota, 1, "every shard is served");
    }
    laws_await_idle(pool, sum);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), sum);
}

Test(pool, quotas_sum_to_the_size_whatever_the_number_of_shards)
{
    for (unsigned size = 1; size <= 3; size++)
        expect_quotas(size, 0, size, size);
    for (unsigned size = 4; size <= 7; size++) /* a slice for each package */
        expect_quotas(size, 0, size, (size + 1) / 2);
    expect_quotas(8, 0, 8, 1);
    expect_quotas(9, 0, 9, 2);
    expect_quotas(20, 0, 20, 3);
    expect_quotas(1001, 0, 1001, 126);
}

Test(pool, per_shard_counts_the_size_for_each_shard)
{
    expect_quotas(3, COREPOOL_POOL_PER_SHARD, 24, 3);
}

Test(pool, a_pool_smaller_than_the_machine_serves_every_shard)
{
    struct laws_count count = {0};
    const corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.synthetic = BIG});
    corepool_pool_t pool = laws_open(&laws_class, &count, 4, 0);
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
        corepool_lease_t lease = laws_take(corepool_pool_at(pool, i));
        cr_expect_eq(corepool_shard_index(corepool_worker_shard(lease.worker)), i / 4 * 4, "of its package");
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    laws_end();
    cr_expect_eq(atomic_load(&count.pool_inits), 2, "it has two slices");
}

/* --- opening --- */

Test(pool, eager_opens_every_worker_unasked)
{
    struct laws_count count = {0};
    laws_start(NULL);
    laws_await_idle(laws_open(&laws_class, &count, 20, 0), 20);
    cr_expect_eq(atomic_load(&count.opened), 20);
    laws_end();
}

Test(pool, lazy_opens_one_worker_for_a_request_and_keeps_it)
{
    struct laws_count count = {0};
    laws_start(NULL);
    corepool_pool_t pool = corepool_pool_at(laws_open(&laws_class, &count, 20, COREPOOL_POOL_LAZY), 0);
    cr_expect_eq(laws_stats(pool).vacant, laws_stats(pool).quota);
    for (unsigned i = 0; i < 5; i++) {
        corepool_lease_t lease = laws_take(pool);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_expect_eq(atomic_load(&count.opened), 1);
    laws_end();
}

Test(pool, a_pool_init_that_fails_on_the_second_shard_undoes_the_first)
{
    struct laws_count count = {.fail_pool_init_on = 2}, second = {0};
    corepool_pool_t pool = {.shard = 99};
    corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.synthetic = "core:3 pu:1"});
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, &count, 6, NULL, &pool), COREPOOL_ENOTSUP);
    cr_expect_null(pool.impl);
    cr_expect_eq(atomic_load(&count.pool_inits), 1);
    cr_expect_eq(atomic_load(&count.pool_terminates), 1);
    cr_expect_eq(atomic_load(&count.opened), atomic_load(&count.terminated));
    laws_judge(&count);
    laws_await_idle(laws_open(&laws_class, &second, 6, 0), 6);
    laws_end();
}

Test(pool, keyed_pools_come_and_go_by_the_hundred)
{
    static struct laws_count counts[200];
    static corepool_pool_t pools[200];
    laws_start(NULL);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 200; i++)
            pools[i] = round ? pools[i] : laws_open(&laws_class, &counts[i], 1 + i % 7, COREPOOL_POOL_LAZY);
        for (unsigned i = 0; i < 200; i++) {
            corepool_lease_t lease = laws_take(pools[i]);
            cr_assert_eq(((struct laws_unit *)lease.resource)->count, &counts[i], "a worker of another pool");
            cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
        }
    }
    for (unsigned i = 0; i < 200; i += 2)
        cr_assert_eq(corepool_pool_close(pools[i], LAWS_PATIENCE_MS), COREPOOL_OK);
    laws_end();
}

/* --- closing --- */

Test(pool, close_with_leases_out_names_them_and_may_be_repeated)
{
    struct laws_count count = {0};
    laws_start(NULL);
    corepool_pool_t pool = laws_open_with(
        &laws_class, &count, 4, &(corepool_pool_options_t){.name = "a-name-that-is-cut-at-31-bytes-of-it"});
    laws_await_idle(pool, 4);
    corepool_lease_t lease = laws_take(pool);
    unsigned number = corepool_worker_number(lease.worker);
    cr_expect_eq(corepool_pool_close(pool, LAWS_SHORT_MS), COREPOOL_EBUSY);
    laws_expect_detail("pool a-name-that-is-cut-at-31-bytes- ");
    laws_expect_detail(number ? "worker 1 of shard" : "worker 0 of shard");
    laws_expect_detail("1 leased");
    cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_EBUSY);
    laws_await_count(&count.terminated, 3);
    cr_expect_eq(atomic_load(&count.terminated), 3, "the leased one lives");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK, "late, but in order");
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(atomic_load(&count.terminated), 4);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_ECLOSED);
    laws_end();
}

static void count_lease(const corepool_lease_info_t *info, void *arg)
{
    (void)info;
    ++*(int *)arg;
}

static void note_status(int status, const corepool_lease_t *lease, void *arg)
{
    (void)lease;
    *(int *)arg = status;
}

struct async_try {
    corepool_pool_t pool;
    int status, called;
};

static void try_async(void *arg)
{
    struct async_try *try = arg;
    try->status = corepool_checkout_async(try->pool, NULL, note_status, &try->called, NULL);
}

Test(pool, use_after_close_is_an_error_in_every_form)
{
    struct laws_count count = {0}, next = {0};
    corepool_lease_t lease;
    corepool_stats_t stats;
    int leases = 0;
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 4, 0);
    struct async_try try = {.pool = pool};
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    for (unsigned round = 0; round < 2; round++) { /* the second time its memory is another pool's */
        cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_checkout(corepool_pool_at(pool, 0), NULL, &lease), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_pool_stats(pool, &stats), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_pool_leases(pool, count_lease, &leases), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_ECLOSED);
        laws_on_shard(0, try_async, &try);
        cr_expect_eq(try.status, COREPOOL_ECLOSED);
        cr_expect_eq(try.called, 0);
        if (round == 0)
            laws_await_idle(laws_open(&laws_class, &next, 4, 0), 4);
    }
    laws_end();
    cr_expect_eq(leases, 0);
}

Test(pool, a_late_lease_of_a_closed_pool_cannot_touch_the_next_pool)
{
    struct laws_count count = {0}, next = {0};
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_plain_class, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool), copy = lease;
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    corepool_pool_t second = laws_open(&laws_plain_class, &next, 1, 0);
    lease = laws_take(second);
    cr_expect_eq(corepool_checkin_remove(&copy), COREPOOL_ESTALE);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
    cr_expect_eq(atomic_load(&next.opened), 1);
}

static int pass_on(void *pool_state, void *command, void **wrapped)
{
    (void)pool_state;
    *wrapped = command;
    return COREPOOL_OK;
}

Test(pool, a_class_is_not_looked_at_once_its_last_pool_is_closed)
{
    const unsigned flags[] = {0, COREPOOL_POOL_FIFO, COREPOOL_POOL_MANAGED};
    struct laws_count counts[3] = {{0}};
    laws_start(NULL);
    for (unsigned i = 0; i < 3; i++) {
        corepool_class_t cls = laws_class;
        cls.enqueue = pass_on;
        corepool_pool_t pool = laws_open(&cls, &counts[i], 4, flags[i]);
        corepool_lease_t lease = laws_take(pool), copy = lease;
        void *resource;
        cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
        cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
        memset(&cls, 0xff, sizeof cls); /* what calls or reads through it crashes */
        cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_ECLOSED);
        cr_expect_eq(corepool_update(&copy, NULL), COREPOOL_ESTALE);
        cr_expect_eq(corepool_detach(&copy, &resource), COREPOOL_ESTALE);
        cr_expect_eq(corepool_checkin(&copy), COREPOOL_ESTALE);
    }
    laws_end();
}

/* --- handles and looks --- */

Test(pool, a_handle_for_one_shard_is_served_there_from_any_cpu)
{
    struct laws_count count = {0};
    const corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 2, COREPOOL_POOL_PER_SHARD);
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
        corepool_lease_t first = laws_take(corepool_pool_at(pool, i)),
                         second = laws_take(corepool_pool_at(pool, i));
        cr_expect_eq(corepool_shard_index(corepool_worker_shard(first.worker)), i);
        cr_expect_eq(corepool_shard_index(corepool_worker_shard(second.worker)), i);
        cr_expect_eq(corepool_worker_loop(first.worker),
                     corepool_shard_loop(corepool_worker_shard(first.worker)));
        cr_expect_neq(corepool_worker_number(first.worker), corepool_worker_number(second.worker));
        cr_expect_eq(corepool_checkin(&first), COREPOOL_OK);
        cr_expect_eq(corepool_checkin(&second), COREPOOL_OK);
    }
    cr_expect_null(corepool_pool_at(pool, corepool_runtime_shards(runtime)).impl);
    laws_end();
}

Test(pool, statistics_sum_to_the_quota_and_count_what_happened)
{
    struct laws_count count = {.fail_inits = 1};
    corepool_lease_t lease;
    laws_start(NULL);
    corepool_pool_t pool =
        laws_open_with(&laws_class, &count, 3,
                       &(corepool_pool_options_t){.backoff_min_ms = 1, .policy = COREPOOL_POLICY_LOCAL_ONLY});
    laws_await_idle(pool, 3);
    pool = corepool_pool_at(pool, 0);
    uint64_t quota = laws_stats(pool).quota, taken = 0;
    corepool_lease_t leases[3];
    for (; taken < quota; taken++)
        leases[taken] = laws_take(pool);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_ETIMEDOUT);
    corepool_stats_t stats = laws_stats(pool);
    cr_expect_eq(stats.leased, quota);
    cr_expect_eq(stats.vacant + stats.opening + stats.idle + stats.leased + stats.closing, stats.quota);
    cr_expect_eq(stats.checkouts, quota);
    cr_expect_eq(stats.shelf_hits + stats.grants, stats.checkouts);
    laws_await_waiting(pool, 0);
    cr_expect_eq(laws_stats(pool).timeouts, 1);
    cr_expect_eq(corepool_checkin_remove(&leases[0]), COREPOOL_OK);
    while (--taken > 0)
        cr_expect_eq(corepool_checkin(&leases[taken]), COREPOOL_OK);
    laws_await_count(&count.terminated, 1);
    laws_await_idle(pool, quota);
    stats = laws_stats(pool);
    cr_expect_eq(stats.terminated, 1);
    cr_expect_eq(stats.opens, quota + 1 + stats.open_failures);
    cr_expect_leq(stats.wait.p50_us, stats.wait.p99_us);
    cr_expect_leq(stats.wait.p99_us, stats.wait.max_us);
    laws_end();
}

Test(pool, leases_that_are_out_are_listed_with_their_holder)
{
    struct laws_count count = {0};
    int seen = 0;
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 4, 0);
    corepool_lease_t lease = laws_take(pool), other = laws_take(pool);
    cr_expect_eq(corepool_pool_leases(pool, count_lease, &seen), 2);
    cr_expect_eq(seen, 2);
    cr_expect_eq(corepool_pool_leases(pool, NULL, NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&other), COREPOOL_OK);
    cr_expect_eq(corepool_pool_leases(pool, count_lease, &seen), 0);
    laws_end();
}
