/* tests/operate_test.c: operations on pools that run, alone and against each other. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/callers.h"

/* How long to look at what must not happen. */
#define LOOK_MS 30

static corepool_stats_t await_quota(corepool_pool_t pool, uint64_t quota)
{
    int64_t deadline = laws_now_ms() + LAWS_PATIENCE_MS;
    corepool_stats_t stats = laws_stats(pool);
    while (stats.quota != quota && laws_now_ms() < deadline) {
        poll(NULL, 0, 1);
        stats = laws_stats(pool);
    }
    cr_assert_eq(stats.quota, quota, "%llu", (unsigned long long)stats.quota);
    return stats;
}

static void expect_ok(int status)
{
    cr_assert_eq(status, COREPOOL_OK, "%s: %s", corepool_error_name(status), corepool_error_detail());
}

static void check_in(corepool_lease_t *lease)
{
    expect_ok(corepool_checkin(lease));
}

/* Takes so many and checks them in, one after the other; the last is the one that was used last. */
static void use_all(corepool_pool_t pool, corepool_worker_t **workers, unsigned count)
{
    corepool_lease_t leases[8];
    laws_await_idle(pool, count);
    for (unsigned i = 0; i < count; i++)
        leases[i] = laws_take(pool);
    for (unsigned i = 0; i < count; i++) {
        workers[i] = leases[i].worker;
        check_in(&leases[i]);
    }
}

/* --- resize --- */

Test(resize, a_larger_pool_opens_its_further_workers_at_once)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 3, 0);
    corepool_lease_t leases[40];
    laws_await_idle(pool, 3);
    leases[0] = laws_take(pool);
    expect_ok(corepool_pool_resize(pool, 40));
    cr_expect_eq(laws_stats(pool).quota, 40);
    for (unsigned i = 1; i < 40; i++)
        leases[i] = laws_take(pool);
    cr_expect_eq(laws_stats(pool).leased, 40);
    for (unsigned i = 0; i < 40; i++)
        check_in(&leases[i]);
    laws_await_idle(pool, 40);
    laws_end();
}

Test(resize, a_smaller_pool_ends_idle_workers_at_once)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 8, 0);
    laws_await_idle(pool, 8);
    expect_ok(corepool_pool_resize(pool, 2));
    laws_await_idle(pool, 2);
    await_quota(pool, 2);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_RESIZED]), 6);
    laws_end();
}

Test(resize, those_that_were_used_last_stay)
{
    struct laws_count count = {0};
    corepool_worker_t *workers[4];
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 4, 0);
    use_all(pool, workers, 4);
    expect_ok(corepool_pool_resize(pool, 1));
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(lease.worker, workers[3]);
    check_in(&lease);
    laws_end();
}

Test(resize, a_smaller_pool_ends_leased_workers_as_they_come_back)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 4, 0);
    corepool_lease_t leases[4];
    for (unsigned i = 0; i < 4; i++)
        leases[i] = laws_take(pool);
    expect_ok(corepool_pool_resize(pool, 1));
    cr_expect_eq(laws_stats(pool).quota, 4);
    for (unsigned i = 0; i < 3; i++) {
        check_in(&leases[i]);
        await_quota(pool, 3 - i);
    }
    check_in(&leases[3]);
    laws_await_idle(pool, 1);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_RESIZED]), 3);
    laws_end();
}

Test(resize, what_was_put_by_is_used_again)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 5, 0);
    for (unsigned round = 0; round < 4; round++) {
        expect_ok(corepool_pool_resize(pool, 1));
        await_quota(pool, 1);
        expect_ok(corepool_pool_resize(pool, 5 + 7 * round));
        laws_await_idle(pool, 5 + 7 * round);
    }
    laws_end();
}

Test(resize, a_block_that_grew_serves_the_next_pool)
{
    struct laws_count first = {0}, second = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &first, 3, 0);
    expect_ok(corepool_pool_resize(pool, 11));
    laws_await_idle(pool, 11);
    expect_ok(corepool_pool_close(pool, LAWS_PATIENCE_MS));
    pool = laws_open(&laws_class, &second, 12, 0);
    laws_await_idle(pool, 12);
    cr_expect_eq(laws_stats(pool).checkouts, 0);
    corepool_lease_t lease = laws_take(pool);
    check_in(&lease);
    laws_end();
}

Test(resize, shares_follow_the_size_over_all_shards)
{
    struct laws_count count = {0}, small = {0};
    const corepool_runtime_t *runtime =
        laws_start(&(corepool_runtime_options_t){.synthetic = "pack:2 core:2 pu:1"});
    corepool_pool_t pool = laws_open(&laws_class, &count, 4, 0), few = laws_open(&laws_class, &small, 2, 0);
    expect_ok(corepool_pool_resize(pool, 11));
    laws_await_idle(pool, 11);
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++)
        cr_expect_eq(laws_stats(corepool_pool_at(pool, i)).quota, 2 + (i < 3));
    cr_expect_eq(corepool_pool_resize(pool, 3), COREPOOL_EINVAL);
    laws_expect_detail("size: 3: the pool has 4 slices");
    expect_ok(corepool_pool_resize(few, 9));
    laws_await_idle(few, 9);
    laws_end();
}

Test(resize, a_bad_size_changes_nothing)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    cr_expect_eq(corepool_pool_resize(pool, 0), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_resize(pool, COREPOOL_SIZE_MAX + 1), COREPOOL_EINVAL);
    cr_expect_eq(laws_stats(pool).quota, 2);
    laws_end();
}

/* --- flush --- */

Test(flush, now_replaces_idle_workers_at_once_and_leased_ones_at_their_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 4, 0);
    laws_await_idle(pool, 4);
    corepool_lease_t lease = laws_take(pool);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_NOW));
    laws_await_idle(pool, 3);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_FLUSHED]), 3);
    check_in(&lease);
    laws_await_idle(pool, 4);
    laws_await_count(&count.reasons[COREPOOL_REASON_FLUSHED], 4);
    cr_expect_eq(atomic_load(&count.opened), 8);
    laws_end();
}

Test(flush, gently_takes_the_next_worker_only_when_the_last_was_replaced)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 4, 0);
    laws_await_idle(pool, 4);
    atomic_store(&count.fail_inits, -1);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_GENTLY));
    poll(NULL, 0, LOOK_MS);
    cr_expect_eq(atomic_load(&count.terminated), 1);
    cr_expect_eq(laws_stats(pool).idle, 3);
    corepool_lease_t lease = laws_take(pool);
    atomic_store(&count.fail_inits, 0);
    laws_await_count(&count.terminated, 3); /* and the leased one at its checkin */
    check_in(&lease);
    laws_await_count(&count.reasons[COREPOOL_REASON_FLUSHED], 4);
    laws_await_idle(pool, 4);
    poll(NULL, 0, LOOK_MS);
    cr_expect_eq(atomic_load(&count.opened), 8, "each is replaced once");
    laws_end();
}

/* A worker that the caller had last: its shelf keeps its place, and where sequences run takes it back there without a look. */
static corepool_lease_t take_again(corepool_pool_t pool)
{
    corepool_lease_t lease = laws_take(pool);
    const corepool_worker_t *worker = lease.worker;
    check_in(&lease);
    lease = laws_take(pool);
    cr_assert_eq(lease.worker, worker);
    return lease;
}

Test(flush, now_replaces_a_worker_whose_place_the_shelf_keeps)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = take_again(pool);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_NOW));
    check_in(&lease);
    laws_await_count(&count.reasons[COREPOOL_REASON_FLUSHED], 1);
    laws_end();
}

struct asked {
    corepool_pool_t pool;
    int status;
    struct outcome outcome;
};

static void ask_on_shard(void *arg)
{
    struct asked *asked = arg;
    asked->status = corepool_checkout_async(asked->pool, NULL, outcome_note, &asked->outcome, NULL);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

Test(flush, gently_replaces_a_worker_whose_place_the_shelf_keeps)
{
    struct laws_count count = {0};
    struct asked asked = {.pool = laws_start_one(&laws_plain_class, &count, 2, 0)};
    laws_await_idle(asked.pool, 2);
    atomic_store(&count.fail_inits, -1);
    expect_ok(corepool_pool_flush(asked.pool, COREPOOL_FLUSH_GENTLY));
    laws_await_count(&count.terminated, 1);
    corepool_lease_t lease = take_again(asked.pool);
    laws_on_shard(0, ask_on_shard, &asked); /* the first one's replacement: it does not come to the shelf */
    expect_ok(asked.status);
    atomic_store(&count.fail_inits, 0);
    laws_await_count(&asked.outcome.called, 1);
    expect_ok(asked.outcome.status);
    laws_on_shard(0, do_nothing, NULL); /* by then it was the turn of the other, which is leased */
    check_in(&lease);
    laws_await_count(&count.reasons[COREPOOL_REASON_FLUSHED], 2);
    check_in(&asked.outcome.lease);
    laws_end();
}

Test(flush, replaces_workers_that_were_about_to_open)
{
    struct laws_count count = {0};
    laws_warm_thread_pool();
    atomic_store(&count.hold, true);
    corepool_pool_t pool = laws_start_one(&laws_blocking_class, &count, 2, 0);
    laws_await_count(&count.held, 2);
    expect_ok(corepool_pool_flush(pool, COREPOOL_FLUSH_NOW));
    atomic_store(&count.hold, false);
    laws_await_count(&count.reasons[COREPOOL_REASON_FLUSHED], 2);
    laws_await_idle(pool, 2);
    laws_end();
}

/* --- pause and resume --- */

Test(pause, checkouts_wait_and_are_served_in_order_after_it)
{
    struct laws_count count = {0};
    struct caller callers[3] = {0};
    _Atomic unsigned served = 0;
    corepool_lease_t lease;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 3, 0);
    laws_await_idle(pool, 3);
    corepool_lease_t held = laws_take(pool);
    for (unsigned twice = 0; twice < 2; twice++)
        expect_ok(corepool_pool_pause(pool));
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_EEMPTY);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_ETIMEDOUT);
    for (unsigned i = 0; i < 3; i++) {
        callers[i] = (struct caller){.pool = pool, .served = &served};
        caller_start(&callers[i]);
        laws_await_waiting(pool, i + 1);
    }
    check_in(&held);
    laws_await_idle(pool, 3);
    cr_expect_eq(atomic_load(&served), 0);
    cr_expect_eq(corepool_runtime_audit(laws_runtime()), COREPOOL_OK, "%s", corepool_error_detail());
    for (unsigned twice = 0; twice < 2; twice++)
        expect_ok(corepool_pool_resume(pool));
    for (unsigned i = 0; i < 3; i++)
        caller_expect(&callers[i], COREPOOL_OK);
    expect_ok(corepool_checkout_try(pool, NULL, &lease));
    check_in(&lease);
    laws_end();
}

Test(pause, idle_workers_keep_their_order)
{
    struct laws_count count = {0};
    corepool_worker_t *workers[4];
    corepool_lease_t leases[4];
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 4, 0);
    use_all(pool, workers, 4);
    expect_ok(corepool_pool_pause(pool));
    expect_ok(corepool_pool_resume(pool));
    for (unsigned i = 0; i < 4; i++) {
        leases[i] = laws_take(pool);
        cr_expect_eq(leases[i].worker, workers[3 - i]);
    }
    for (unsigned i = 0; i < 4; i++)
        check_in(&leases[i]);
    laws_end();
}

Test(pause, a_managed_pool_is_paused_too)
{
    struct laws_count count = {0};
    corepool_lease_t lease;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, COREPOOL_POOL_MANAGED);
    laws_await_idle(pool, 1);
    expect_ok(corepool_pool_pause(pool));
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_ETIMEDOUT);
    expect_ok(corepool_pool_resume(pool));
    lease = laws_take(pool);
    check_in(&lease);
    laws_end();
}

Test(pause, closing_a_paused_pool_refuses_who_waits)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    struct caller caller = {.pool = pool};
    expect_ok(corepool_pool_pause(pool));
    caller_start(&caller);
    laws_await_waiting(pool, 1);
    expect_ok(corepool_pool_close(pool, LAWS_PATIENCE_MS));
    caller_expect(&caller, COREPOOL_ECLOSED);
    cr_expect_eq(corepool_pool_resume(pool), COREPOOL_ECLOSED);
    laws_end();
}

/* --- drain --- */

Test(drain, serves_who_waits_refuses_who_comes_and_names_who_holds)
{
    struct laws_count count = {0};
    corepool_lease_t lease;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    struct caller caller = {.pool = pool};
    corepool_lease_t held = laws_take(pool);
    caller_start(&caller);
    laws_await_waiting(pool, 1);
    cr_expect_eq(corepool_pool_drain(pool, LAWS_SHORT_MS), COREPOOL_EBUSY);
    laws_expect_detail("1 leased");
    cr_expect_eq(laws_checkout(pool, LAWS_PATIENCE_MS, &lease), COREPOOL_ECLOSED);
    laws_expect_detail("draining");
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_ECLOSED);
    laws_expect_detail("draining");
    check_in(&held);
    expect_ok(corepool_pool_drain(pool, LAWS_PATIENCE_MS));
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(laws_stats(pool).idle, 1);
    expect_ok(corepool_pool_resume(pool));
    lease = laws_take(pool);
    check_in(&lease);
    laws_end();
}

struct draining {
    corepool_pool_t pool;
    int status;
    pthread_t thread;
    _Atomic pid_t id;
};

static void *drain_for_long(void *arg)
{
    struct draining *draining = arg;
    atomic_store(&draining->id, gettid());
    draining->status = corepool_pool_drain(draining->pool, COREPOOL_INFINITE);
    return NULL;
}

static bool refuses(void *arg)
{
    corepool_lease_t lease;
    const struct draining *draining = arg;
    return corepool_checkout_try(draining->pool, NULL, &lease) == COREPOOL_ECLOSED;
}

static pthread_t drainer;

static void expect_drain_ends(int status, int (*end)(corepool_pool_t pool))
{
    struct laws_count count = {0};
    struct draining draining = {.pool = laws_start_one(&laws_class, &count, 1, 0)};
    corepool_lease_t held = laws_take(draining.pool);
    cr_assert_eq(pthread_create(&draining.thread, NULL, drain_for_long, &draining), 0);
    cr_assert(laws_eventually(refuses, &draining));
    drainer = draining.thread;
    end(draining.pool);
    cr_assert_eq(pthread_join(draining.thread, NULL), 0);
    cr_expect_eq(draining.status, status, "%s", corepool_error_name(draining.status));
    check_in(&held);
    laws_end();
}

static int close_at_once(corepool_pool_t pool)
{
    return corepool_pool_close(pool, 0);
}

Test(drain, ends_when_the_pool_is_resumed)
{
    expect_drain_ends(COREPOOL_ECANCELED, corepool_pool_resume);
}

Test(drain, ends_when_the_pool_is_closed)
{
    expect_drain_ends(COREPOOL_ECLOSED, close_at_once);
}

static int cancel_and_close(corepool_pool_t pool)
{
    pthread_cancel(drainer);
    alarm(30); /* there is nobody to give up on a lock */
    int status = corepool_pool_close(pool, 0);
    alarm(0);
    return status;
}

Test(drain, whose_thread_is_cancelled_ends_before_the_thread_and_keeps_no_lock)
{
    expect_drain_ends(COREPOOL_ECLOSED, cancel_and_close);
}

static _Atomic bool shard_is_held;

static void hold_shard(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    while (atomic_load(&shard_is_held))
        sched_yield();
}

/* It waits for the shard that is held: there is nothing else that it could sleep for once it refuses. */
static bool is_asleep(void *arg)
{
    char name[64], state = 0;
    const struct draining *draining = arg;
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", (int)atomic_load(&draining->id));
    FILE *file = fopen(name, "r");
    bool asleep = file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1 && state == 'S';
    if (file)
        fclose(file);
    return asleep;
}

Test(drain, ends_as_closed_when_the_pool_closes_before_all_shards_know)
{
    struct laws_count count = {0};
    laws_need_second_cpu();
    laws_start(NULL);
    struct draining draining = {.pool = laws_open(&laws_class, &count, 2, 0)};
    corepool_lease_t first = laws_take(corepool_pool_at(draining.pool, 0)), second = laws_take(corepool_pool_at(draining.pool, 1));
    atomic_store(&shard_is_held, true);
    expect_ok(corepool_shard_post(laws_runtime(), 0, hold_shard, NULL));
    cr_assert_eq(pthread_create(&draining.thread, NULL, drain_for_long, &draining), 0);
    cr_assert(laws_eventually(refuses, &draining));
    cr_assert(laws_eventually(is_asleep, &draining));
    cr_expect_eq(close_at_once(draining.pool), COREPOOL_EBUSY);
    atomic_store(&shard_is_held, false);
    cr_assert_eq(pthread_join(draining.thread, NULL), 0);
    cr_expect_eq(draining.status, COREPOOL_ECLOSED, "%s", corepool_error_name(draining.status));
    check_in(&first);
    check_in(&second);
    laws_end();
}

/* --- warm --- */

Test(warm, opens_workers_of_a_lazy_pool_once)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 6, COREPOOL_POOL_LAZY);
    expect_ok(corepool_pool_warm(pool, 4, LAWS_PATIENCE_MS));
    cr_expect_eq(laws_stats(pool).idle, 4);
    corepool_lease_t lease = laws_take(pool);
    expect_ok(corepool_checkin_remove(&lease));
    laws_await_idle(pool, 3);
    poll(NULL, 0, LOOK_MS);
    cr_expect_eq(atomic_load(&count.opened), 4);
    cr_expect_eq(corepool_pool_warm(pool, 7, 0), COREPOOL_EINVAL);
    laws_expect_detail("n: 7");
    laws_end();
}

Test(warm, a_timeout_tells_the_last_open_error)
{
    struct laws_count count = {0};
    atomic_store(&count.fail_inits, -1);
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, COREPOOL_POOL_LAZY);
    cr_expect_eq(corepool_pool_warm(pool, 2, LAWS_SHORT_MS), COREPOOL_ETIMEDOUT);
    laws_expect_detail("0 of 2");
    laws_expect_detail("the test wants no worker");
    atomic_store(&count.fail_inits, 0);
    laws_await_idle(pool, 2);
    laws_end();
}

/* --- detach --- */

/* For the laws a worker that is taken out has ended. */
static int forget(corepool_worker_t *worker, void *pool_state, void *resource)
{
    struct laws_count *count = pool_state;
    struct laws_unit *unit = resource;
    (void)worker;
    atomic_fetch_add(&unit->ended, 1);
    atomic_fetch_add(&count->reasons[COREPOOL_REASON_DETACHED], 1);
    atomic_fetch_add(&count->terminated, 1);
    return COREPOOL_OK;
}

static corepool_class_t detachable(void)
{
    corepool_class_t cls = laws_class;
    cls.detach = forget;
    return cls;
}

Test(detach, the_resource_is_the_callers_and_another_takes_its_place)
{
    struct laws_count count = {0};
    void *resource, *other = &count;
    corepool_class_t cls = detachable();
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool), copy = lease;
    expect_ok(corepool_detach(&lease, &resource));
    cr_expect_eq(resource, copy.resource);
    cr_expect_null(lease.worker);
    cr_expect_eq(atomic_load(&((struct laws_unit *)resource)->ended), 1, "detach runs before the call returns");
    cr_expect_eq(corepool_detach(&copy, &other), COREPOOL_ESTALE);
    cr_expect_null(other);
    laws_await_idle(pool, 1);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_DETACHED]), 1);
    laws_end();
}

Test(detach, is_an_end_of_the_lease_in_the_time_that_leases_were_held)
{
    struct laws_count count = {0};
    void *resource;
    corepool_class_t cls = detachable();
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, COREPOOL_POOL_TIME_LEASES);
    corepool_lease_t lease = laws_take(pool);
    expect_ok(corepool_detach(&lease, &resource));
    cr_expect_eq(laws_stats(pool).hold.count, 1);
    laws_end();
}

Test(detach, a_class_that_cannot_forget_is_not_supported)
{
    struct laws_count count = {0};
    void *resource;
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_detach(&lease, &resource), COREPOOL_ENOTSUP);
    check_in(&lease);
    laws_end();
}

struct detached {
    corepool_lease_t lease;
    int status;
    void *resource;
};

static void detach_here(void *arg)
{
    struct detached *detached = arg;
    detached->status = corepool_detach(&detached->lease, &detached->resource);
}

Test(detach, runs_at_once_on_the_workers_shard_and_is_refused_on_another)
{
    struct laws_count count = {0};
    corepool_class_t cls = detachable();
    laws_start(&(corepool_runtime_options_t){.synthetic = "core:2 pu:1"});
    corepool_pool_t pool = laws_open(&cls, &count, 2, 0);
    struct detached detached = {.lease = laws_take(corepool_pool_at(pool, 1))};
    laws_on_shard(0, detach_here, &detached);
    cr_expect_eq(detached.status, COREPOOL_EDEADLK);
    laws_on_shard(1, detach_here, &detached);
    cr_expect_eq(detached.status, COREPOOL_OK);
    laws_await_idle(pool, 2);
    laws_end();
}

Test(detach, a_stream_goes_on_without_its_pool)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    corepool_pool_t pool;
    char byte = 0;
    int fd = -1, listener = socket(AF_INET, SOCK_STREAM, 0);
    laws_warm_thread_pool();
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(listener, 4), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = ntohs(address.sin_port)};
    laws_start(NULL);
    expect_ok(corepool_pool_open(laws_runtime(), &corepool_stream_class, &options, 1,
                                 &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY}, &pool));
    corepool_lease_t lease = laws_take(pool), copy = lease;
    int peer = accept(listener, NULL, NULL);
    expect_ok(corepool_stream_detach(&lease, &fd));
    cr_expect_eq(corepool_stream_detach(&copy, &(int){0}), COREPOOL_ESTALE);
    expect_ok(corepool_pool_close(pool, LAWS_PATIENCE_MS));
    cr_expect_eq(write(peer, "x", 1), 1);
    cr_expect_eq(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, LAWS_PATIENCE_MS), 1);
    cr_expect_eq(read(fd, &byte, 1), 1);
    cr_expect_eq(byte, 'x');
    close(fd);
    close(peer);
    laws_end();
    close(listener);
}

/* --- overload --- */

Test(overload, one_more_than_may_wait_is_refused_at_once)
{
    struct laws_count count = {0};
    struct caller callers[2] = {0};
    corepool_lease_t lease;
    laws_start(NULL);
    corepool_pool_t pool = corepool_pool_at(
        laws_open_with(&laws_class, &count, 1, &(corepool_pool_options_t){.max_waiting = 2}), 0);
    corepool_lease_t held = laws_take(pool);
    for (unsigned i = 0; i < 2; i++) {
        callers[i].pool = pool;
        caller_start(&callers[i]);
        laws_await_waiting(pool, i + 1);
    }
    cr_expect_eq(laws_checkout(pool, COREPOOL_INFINITE, &lease), COREPOOL_EOVERLOAD);
    laws_expect_detail("2 requests wait");
    cr_expect_eq(laws_stats(pool).sheds, 1);
    check_in(&held);
    for (unsigned i = 0; i < 2; i++)
        caller_expect(&callers[i], COREPOOL_OK);
    laws_end();
}

/* Longer than the interval in which one request has to wait less than the target. */
static int take_too_long(void *command)
{
    (void)command;
    poll(NULL, 0, 3);
    return COREPOOL_OK;
}

/* All have waited for longer than the target when the first is granted, and its lease alone takes longer than
 * the interval: so the second is shed. */
Test(overload, requests_are_shed_when_all_wait_too_long)
{
    enum { CALLERS = 20 };
    static struct caller callers[CALLERS];
    struct laws_count count = {.on_checkout = take_too_long};
    unsigned granted = 0, shed = 0;
    laws_start(NULL);
    corepool_pool_t pool =
        corepool_pool_at(laws_open_with(&laws_class, &count, 1,
                                        &(corepool_pool_options_t){.shed_target_ms = 1, .shed_interval_ms = 1}),
                         0);
    corepool_lease_t held = laws_take(pool);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i].pool = pool;
        caller_start(&callers[i]);
    }
    laws_await_waiting(pool, CALLERS);
    poll(NULL, 0, 3); /* the last that came, too, waits longer than the target */
    check_in(&held);
    for (unsigned i = 0; i < CALLERS; i++) {
        cr_assert_eq(pthread_join(callers[i].thread, NULL), 0);
        granted += callers[i].status == COREPOOL_OK;
        shed += callers[i].status == COREPOOL_ESHED;
    }
    cr_expect_eq(granted + shed, CALLERS, "each is granted or shed: %u and %u", granted, shed);
    cr_expect_geq(granted, 2, "the first, and the last is never shed: %u", granted);
    cr_expect_geq(shed, 1);
    cr_expect_eq(laws_stats(pool).sheds, shed);
    laws_end();
}

static void expect_option_refused(corepool_pool_options_t options, const char *word)
{
    corepool_pool_t pool;
    cr_expect_eq(corepool_pool_open(laws_runtime(), &laws_class, NULL, 1, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail(word);
}

Test(overload, bad_options_are_named)
{
    laws_start(NULL);
    expect_option_refused((corepool_pool_options_t){.shed_target_ms = -1}, "shed_target_ms: -1");
    expect_option_refused((corepool_pool_options_t){.shed_target_ms = 1, .shed_interval_ms = -2},
                          "shed_interval_ms: -2");
    expect_option_refused((corepool_pool_options_t){.shed_interval_ms = 5}, "without shed_target_ms");
    laws_end();
}

/* --- where they may be called --- */

struct attempt {
    corepool_pool_t pool;
    bool all_refused;
};

static void try_all(void *arg)
{
    struct attempt *attempt = arg;
    corepool_pool_t pool = attempt->pool;
    attempt->all_refused =
        corepool_pool_resize(pool, 2) == COREPOOL_EDEADLK &&
        corepool_pool_flush(pool, COREPOOL_FLUSH_NOW) == COREPOOL_EDEADLK &&
        corepool_pool_pause(pool) == COREPOOL_EDEADLK && corepool_pool_resume(pool) == COREPOOL_EDEADLK &&
        corepool_pool_drain(pool, 0) == COREPOOL_EDEADLK && corepool_pool_warm(pool, 1, 0) == COREPOOL_EDEADLK;
}

Test(operate, a_shard_may_not_wait_for_itself)
{
    struct laws_count count = {0};
    struct attempt attempt = {.pool = laws_start_one(&laws_class, &count, 1, 0)};
    laws_on_shard(0, try_all, &attempt);
    cr_expect(attempt.all_refused);
    laws_end();
}

Test(operate, arguments_are_checked)
{
    struct laws_count count = {0};
    corepool_pool_t none = {0}, pool = laws_start_one(&laws_class, &count, 1, 0);
    cr_expect_eq(corepool_pool_pause(none), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_flush(pool, (corepool_flush_t)7), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_drain(pool, -2), COREPOOL_EINVAL);
    cr_expect_eq(corepool_pool_warm(pool, 0, 0), COREPOOL_EINVAL);
    cr_expect_eq(corepool_detach(NULL, NULL), COREPOOL_EINVAL);
    laws_end();
}

/* --- every operation against every other, under load --- */

static int grow(corepool_pool_t pool)
{
    return corepool_pool_resize(pool, 23);
}

static int shrink(corepool_pool_t pool)
{
    return corepool_pool_resize(pool, 4);
}

static int flush_gently(corepool_pool_t pool)
{
    return corepool_pool_flush(pool, COREPOOL_FLUSH_GENTLY);
}

static int flush_now(corepool_pool_t pool)
{
    return corepool_pool_flush(pool, COREPOOL_FLUSH_NOW);
}

static int drain_briefly(corepool_pool_t pool)
{
    return corepool_pool_drain(pool, 1);
}

static int warm_some(corepool_pool_t pool)
{
    return corepool_pool_warm(pool, 3, 1);
}

static int detach_one(corepool_pool_t pool)
{
    corepool_lease_t lease;
    void *resource;
    return laws_checkout(pool, 1, &lease) == COREPOOL_OK ? corepool_detach(&lease, &resource) : COREPOOL_OK;
}

static int stop_all(corepool_pool_t pool)
{
    (void)pool;
    return corepool_runtime_stop(laws_runtime(), 1);
}

static int (*const operations[])(corepool_pool_t pool) = {
    grow,      shrink,     flush_gently,  flush_now, corepool_pool_pause, corepool_pool_resume, drain_briefly,
    warm_some, detach_one, close_at_once, stop_all,
};
#define OPERATIONS (sizeof operations / sizeof operations[0])
#define CLIENTS 3
#define ROUNDS 40

struct load {
    corepool_pool_t pool;
    int (*operation)(corepool_pool_t pool); /* NULL: a client */
    _Atomic bool *over;
    unsigned lost; /* outcomes that no client may see */
    uint64_t asked, answered;
    pthread_t thread;
};

static void ask(struct load *load)
{
    corepool_lease_t lease;
    load->asked++;
    int status = laws_checkout(load->pool, 2, &lease);
    load->answered++;
    if (status == COREPOOL_OK)
        load->lost += corepool_checkin(&lease) != COREPOOL_OK;
    else
        load->lost += status != COREPOOL_ETIMEDOUT && status != COREPOOL_ECLOSED;
}

static void *run_load(void *arg)
{
    struct load *load = arg;
    for (unsigned i = 0; load->operation ? i < ROUNDS / 8 : !atomic_load(load->over); i++)
        if (load->operation)
            load->operation(load->pool);
        else
            ask(load);
    return NULL;
}

static void start_load(struct load *load, struct load as)
{
    *load = as;
    cr_assert_eq(pthread_create(&load->thread, NULL, run_load, load), 0);
}

static void join_load(struct load *load)
{
    cr_assert_eq(pthread_join(load->thread, NULL), 0);
    cr_expect_eq(load->lost, 0);
    cr_expect_eq(load->asked, load->answered);
}

static void run_pair(unsigned first, unsigned second)
{
    struct laws_count count = {0};
    struct load clients[CLIENTS], a, b;
    _Atomic bool over = false;
    corepool_class_t cls = detachable();
    laws_start(NULL);
    corepool_pool_t pool = laws_open_with(&cls, &count, 8, &(corepool_pool_options_t){.backoff_min_ms = 1});
    for (unsigned i = 0; i < CLIENTS; i++)
        start_load(&clients[i], (struct load){.pool = pool, .over = &over});
    start_load(&a, (struct load){.pool = pool, .operation = operations[first]});
    start_load(&b, (struct load){.pool = pool, .operation = operations[second]});
    join_load(&a);
    join_load(&b);
    corepool_pool_resume(pool);
    atomic_store(&over, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        join_load(&clients[i]);
    corepool_stats_t stats;
    if (corepool_pool_stats(pool, &stats) == COREPOOL_OK)
        cr_expect_eq(stats.vacant + stats.opening + stats.idle + stats.leased + stats.closing, stats.quota);
    laws_end_quickly();
}

/* In each order: which of the two is started first. */
static void run_pairs_of(unsigned first)
{
    for (unsigned second = 0; second < OPERATIONS; second++)
        run_pair(first, second);
    laws_expect_no_leaks();
}

#define AGAINST_ALL(number, name)                                                                              \
    Test(pairs, name##_goes_with_every_other_operation_under_load)                                             \
    {                                                                                                          \
        run_pairs_of(number);                                                                                  \
    }

AGAINST_ALL(0, growing)
AGAINST_ALL(1, shrinking)
AGAINST_ALL(2, a_gentle_flush)
AGAINST_ALL(3, a_flush_now)
AGAINST_ALL(4, a_pause)
AGAINST_ALL(5, a_resume)
AGAINST_ALL(6, a_drain)
AGAINST_ALL(7, warming)
AGAINST_ALL(8, a_detach)
AGAINST_ALL(9, a_close)
AGAINST_ALL(10, a_stop)
