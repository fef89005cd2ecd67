/* tests/steal_test.c: workers and places go to the shard that wants them: on the real runtime, with either
 * shelf. */
#include <criterion/criterion.h>

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/callers.h"

#define SIZE 8
#define ROUNDS 300

/* One pool on two shards or more, its workers idle and shared out. */
static corepool_pool_t start(corepool_shelf_kind_t shelf, const corepool_class_t *cls, struct laws_count *count,
                             unsigned flags)
{
    laws_need_second_cpu();
    laws_start(&(corepool_runtime_options_t){.shelf = shelf});
    return laws_open_with(cls, count, SIZE, &(corepool_pool_options_t){.flags = flags});
}

static void take_all(corepool_pool_t pool, corepool_lease_t leases[SIZE])
{
    for (unsigned i = 0; i < SIZE; i++) {
        int status =
            corepool_checkout(pool, &(corepool_checkout_options_t){.timeout_ms = LAWS_PATIENCE_MS}, &leases[i]);
        cr_assert_eq(status, COREPOOL_OK, "%u: %s", i, corepool_error_detail());
    }
}

static void give_all(corepool_lease_t leases[SIZE])
{
    for (unsigned i = 0; i < SIZE; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
}

static void expect_whole(corepool_pool_t pool)
{
    corepool_stats_t stats = laws_stats(pool);
    cr_expect_eq(stats.quota + stats.moving, SIZE, "%llu + %llu", (unsigned long long)stats.quota,
                 (unsigned long long)stats.moving);
}

static void move_all_once(corepool_shelf_kind_t shelf)
{
    struct laws_count count = {0};
    corepool_lease_t leases[SIZE];
    corepool_pool_t pool = start(shelf, &laws_movable_class, &count, 0);
    corepool_pool_t first = corepool_pool_at(pool, 0);
    laws_await_idle(pool, SIZE);
    uint64_t quota = laws_stats(first).quota;
    take_all(first, leases);
    corepool_stats_t stats = laws_stats(first);
    cr_expect_eq(stats.quota, SIZE);
    cr_expect_eq(stats.stolen, SIZE - quota);
    give_all(leases);
    laws_await_idle(first, SIZE);
    for (unsigned i = 0; i < 3; i++) {
        take_all(first, leases);
        give_all(leases);
    }
    cr_expect_eq(laws_stats(first).stolen, SIZE - quota, "a steady skew is paid for once");
    cr_expect_eq(atomic_load(&count.opened), SIZE, "nothing was opened anew");
    expect_whole(pool);
    laws_end();
}

Test(steal, a_steady_skew_moves_every_worker_once)
{
    move_all_once(COREPOOL_SHELF_AUTO);
}

Test(steal, a_steady_skew_moves_every_worker_once_by_the_portable_shelf)
{
    move_all_once(COREPOOL_SHELF_PORTABLE);
}

Test(steal, a_bound_worker_is_retired_and_its_place_moves)
{
    struct laws_count count = {0};
    corepool_lease_t leases[SIZE];
    corepool_pool_t pool = start(COREPOOL_SHELF_AUTO, &laws_class, &count, 0),
                    first = corepool_pool_at(pool, 0);
    laws_await_idle(pool, SIZE);
    uint64_t quota = laws_stats(first).quota;
    take_all(first, leases);
    cr_expect_eq(laws_stats(first).quota, SIZE);
    cr_expect_eq(laws_stats(pool).removed[COREPOOL_REASON_MOVED], SIZE - quota);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_MOVED]), SIZE - quota);
    cr_expect_eq(atomic_load(&count.opened), SIZE + SIZE - quota);
    give_all(leases);
    expect_whole(pool);
    laws_end();
}

Test(steal, places_that_nobody_has_filled_move_without_a_worker)
{
    struct laws_count count = {0};
    corepool_lease_t leases[SIZE];
    corepool_pool_t pool = start(COREPOOL_SHELF_AUTO, &laws_class, &count, COREPOOL_POOL_LAZY);
    take_all(corepool_pool_at(pool, 0), leases);
    cr_expect_eq(atomic_load(&count.opened), SIZE);
    cr_expect_eq(atomic_load(&count.terminated), 0);
    give_all(leases);
    laws_end();
}

Test(steal, nothing_moves_where_the_policy_says_so)
{
    struct laws_count count = {0};
    corepool_lease_t lease[SIZE];
    unsigned taken = 0;
    laws_need_second_cpu();
    laws_start(NULL);
    corepool_pool_t pool = laws_open_with(&laws_movable_class, &count, SIZE,
                                          &(corepool_pool_options_t){.policy = COREPOOL_POLICY_LOCAL_ONLY});
    corepool_pool_t first = corepool_pool_at(pool, 0);
    laws_await_idle(pool, SIZE);
    uint64_t quota = laws_stats(first).quota;
    while (corepool_checkout(first, &(corepool_checkout_options_t){.timeout_ms = LAWS_SHORT_MS},
                             &lease[taken]) == COREPOOL_OK)
        taken++;
    cr_expect_eq(taken, quota);
    cr_expect_eq(laws_stats(pool).asks, 0);
    while (taken > 0)
        cr_expect_eq(corepool_checkin(&lease[--taken]), COREPOOL_OK);
    laws_end();
}

/* --- beside a shard whose callers never leave a worker idle --- */

#define BUSY 4

struct busy {
    corepool_pool_t pool;
    _Atomic bool stop;
    _Atomic unsigned pairs;
    int cpu;
    pthread_t threads[BUSY];
};

/* On one CPU each checkin finds somebody waiting, and is served by who gives back: the shard's thread has nothing to do. */
static void *keep_busy(void *arg)
{
    struct busy *busy = arg;
    laws_pin(busy->cpu);
    while (!atomic_load(&busy->stop)) {
        corepool_lease_t lease = laws_take(busy->pool);
        sched_yield();
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
        atomic_fetch_add(&busy->pairs, 1);
    }
    return NULL;
}

static void take_beside_busy_shard(void *arg)
{
    corepool_lease_t lease;
    cr_expect_eq(laws_checkout(*(corepool_pool_t *)arg, LAWS_PATIENCE_MS, &lease), COREPOOL_OK, "%s",
                 corepool_error_detail());
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

static void serve_beside_busy_shard(corepool_shelf_kind_t shelf)
{
    struct laws_count count = {0};
    corepool_lease_t leases[2];
    laws_need_second_cpu();
    laws_start(&(corepool_runtime_options_t){.shelf = shelf});
    struct busy busy = {.pool = laws_open_with(&laws_movable_class, &count, 2, NULL), .cpu = laws_cpu_of(0)};
    corepool_pool_t first = corepool_pool_at(busy.pool, 0);
    laws_await_idle(busy.pool, 2);
    for (unsigned i = 0; i < 2; i++)
        leases[i] = laws_take(first);
    for (unsigned i = 0; i < 2; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    cr_assert_eq(laws_stats(first).quota, 2, "all are there");
    for (unsigned i = 0; i < BUSY; i++)
        cr_assert_eq(pthread_create(&busy.threads[i], NULL, keep_busy, &busy), 0);
    while (atomic_load(&busy.pairs) < 1000)
        sched_yield();
    laws_in_thread(laws_cpu_of(1), take_beside_busy_shard, &busy.pool);
    cr_expect_geq(laws_stats(first).given, 1, "a worker has come, not only a turn");
    atomic_store(&busy.stop, true);
    for (unsigned i = 0; i < BUSY; i++)
        pthread_join(busy.threads[i], NULL);
    laws_end();
}

Test(steal, who_has_no_worker_gets_one_from_a_shard_that_never_leaves_one_idle)
{
    serve_beside_busy_shard(COREPOOL_SHELF_AUTO);
}

Test(steal, who_has_no_worker_gets_one_from_a_shard_that_never_leaves_one_idle_by_the_portable_shelf)
{
    serve_beside_busy_shard(COREPOOL_SHELF_PORTABLE);
}

/* --- watched descriptors --- */

static int ends[SIZE][2];
static _Atomic unsigned pairs;

static int open_watched(corepool_worker_t *worker, void *pool_state, void **resource)
{
    int *pair = ends[atomic_fetch_add(&pairs, 1)];
    (void)pool_state;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *resource = pair;
    return corepool_worker_watch(worker, pair[0]);
}

static int close_watched(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    int *pair = resource;
    (void)worker, (void)pool_state, (void)reason;
    close(pair[0]);
    if (reason != COREPOOL_REASON_HANGUP)
        close(pair[1]);
    return COREPOOL_OK;
}

static bool has_hung_up(void *pool)
{
    return laws_stats(*(corepool_pool_t *)pool).removed[COREPOOL_REASON_HANGUP] == 1;
}

Test(steal, a_watched_worker_is_watched_where_it_has_come_to)
{
    static const corepool_class_t watched = {
        .name = "watched", .flags = COREPOOL_CLASS_MOVABLE, .init = open_watched, .terminate = close_watched};
    corepool_lease_t leases[SIZE];
    corepool_pool_t pool;
    laws_need_second_cpu();
    laws_start(NULL);
    cr_assert_eq(corepool_pool_open(laws_runtime(), &watched, NULL, SIZE,
                                    &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY}, &pool),
                 COREPOOL_OK);
    for (unsigned i = 0; i < SIZE; i++) /* half of them opened on each of the shards, where there are two */
        cr_assert_eq(corepool_checkout(corepool_pool_at(pool, i % corepool_runtime_shards(laws_runtime())),
                                       NULL, &leases[i]),
                     COREPOOL_OK);
    give_all(leases);
    corepool_pool_t first = corepool_pool_at(pool, 0);
    take_all(first, leases);
    cr_assert_gt(laws_stats(first).stolen, 0);
    give_all(leases);
    laws_await_idle(first, SIZE);
    close(ends[1][1]); /* the second was opened on the second shard */
    cr_expect(laws_eventually(has_hung_up, &first));
    laws_end();
}

/* --- under load --- */

static void expect_at_most(corepool_pool_t pool, const struct laws_count *count, unsigned size)
{
    cr_assert_eq(corepool_pool_resize(pool, size), COREPOOL_OK, "%s", corepool_error_detail());
    unsigned most = size > SIZE ? size : SIZE;
    corepool_stats_t stats = laws_stats(pool);
    cr_expect_leq(stats.quota, most, "of size %u: %llu", size, (unsigned long long)stats.quota);
    cr_expect_leq(atomic_load(&count->opened) - atomic_load(&count->terminated), most);
}

Test(steal, while_a_skewed_pool_is_resized_there_are_never_more_workers_than_the_larger_size)
{
    struct laws_count count = {0};
    corepool_lease_t leases[SIZE];
    corepool_pool_t pool = start(COREPOOL_SHELF_AUTO, &laws_movable_class, &count, 0);
    unsigned shards = corepool_runtime_shards(laws_runtime());
    take_all(corepool_pool_at(pool, 0), leases);
    expect_at_most(pool, &count, SIZE);
    expect_at_most(pool, &count, SIZE - 1);
    expect_at_most(pool, &count, shards);
    expect_at_most(pool, &count, SIZE);
    give_all(leases);
    cr_assert_eq(corepool_pool_resize(pool, SIZE * shards), COREPOOL_OK);
    for (unsigned i = 0; i < shards; i++)
        cr_expect_eq(laws_stats(corepool_pool_at(pool, i)).quota, SIZE, "what there is room for makes the shares even");
    laws_end();
}


struct crowd {
    corepool_pool_t pool;
    _Atomic bool stop;
    _Atomic unsigned served;
};

/* Asks the shards by turns, two workers at a time. */
static void *run_caller(void *arg)
{
    struct crowd *crowd = arg;
    unsigned shards = corepool_runtime_shards(laws_runtime());
    for (unsigned i = 0; !atomic_load(&crowd->stop); i++) {
        corepool_lease_t lease[2];
        corepool_pool_t pool = corepool_pool_at(crowd->pool, i / 16 % shards);
        for (unsigned j = 0; j < 2; j++)
            if (corepool_checkout(pool, &(corepool_checkout_options_t){.timeout_ms = 50}, &lease[j]) ==
                COREPOOL_OK)
                atomic_fetch_add(&crowd->served, 1);
        for (unsigned j = 0; j < 2; j++)
            if (lease[j].worker)
                cr_expect_eq(corepool_checkin(&lease[j]), COREPOOL_OK);
    }
    return NULL;
}

static void crowd_around(struct crowd *crowd, void (*meanwhile)(struct crowd *))
{
    pthread_t threads[6];
    for (unsigned i = 0; i < 6; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, run_caller, crowd), 0);
    meanwhile(crowd);
    atomic_store(&crowd->stop, true);
    for (unsigned i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
}

static void read_stats(struct crowd *crowd)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        expect_whole(crowd->pool);
        poll(NULL, 0, 1);
    }
}

Test(steal, what_is_counted_of_a_pool_is_its_size_at_any_time)
{
    struct laws_count count = {0};
    struct crowd crowd = {.pool = start(COREPOOL_SHELF_AUTO, &laws_movable_class, &count, 0)};
    crowd_around(&crowd, read_stats);
    cr_expect_gt(laws_stats(crowd.pool).stolen, 0);
    cr_expect_gt(atomic_load(&crowd.served), 0);
    cr_expect_eq(atomic_load(&count.overlaps), 0);
    laws_end();
}

static void operate(struct crowd *crowd)
{
    for (unsigned i = 0; i < 20; i++) {
        unsigned shards = corepool_runtime_shards(laws_runtime());
        cr_expect_eq(corepool_pool_resize(crowd->pool, shards + i % SIZE), COREPOOL_OK, "%s",
                     corepool_error_detail());
        cr_expect_eq(corepool_pool_flush(crowd->pool, i % 2 ? COREPOOL_FLUSH_NOW : COREPOOL_FLUSH_GENTLY),
                     COREPOOL_OK);
        poll(NULL, 0, 3);
    }
    cr_expect_eq(corepool_pool_resize(crowd->pool, SIZE), COREPOOL_OK);
}

static void operate_and_close(struct crowd *crowd)
{
    operate(crowd);
    cr_expect_eq(corepool_pool_close(crowd->pool, LAWS_PATIENCE_MS), COREPOOL_OK, "%s",
                 corepool_error_detail());
}

Test(steal, operations_hold_what_is_on_its_way)
{
    struct laws_count count = {0};
    struct crowd crowd = {.pool = start(COREPOOL_SHELF_AUTO, &laws_movable_class, &count, 0)};
    crowd_around(&crowd, operate);
    laws_end();
}

Test(steal, a_pool_closes_while_workers_are_on_their_way)
{
    struct laws_count count = {0};
    struct crowd crowd = {.pool = start(COREPOOL_SHELF_PORTABLE, &laws_movable_class, &count, 0)};
    crowd_around(&crowd, operate_and_close);
    cr_expect_eq(atomic_load(&count.terminated), atomic_load(&count.opened));
    laws_end();
}
