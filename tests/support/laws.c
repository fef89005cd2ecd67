/* tests/support/laws.c: the runtime of a test and what must hold when it is gone. */
#include "support/laws.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static corepool_runtime_t *current;
static struct laws_count *counts;
static int descriptors, threads;

/* --- the counting classes --- */

static int open_pool(void *arg, corepool_shard_t *shard, void **pool_state)
{
    struct laws_count *count = arg;
    *pool_state = count;
    if (count->fail_pool_init_on == (int)corepool_shard_index(shard) + 1)
        return COREPOOL_ENOTSUP;
    atomic_fetch_add(&count->pool_inits, 1);
    return COREPOOL_OK;
}

static void close_pool(void *pool_state, corepool_reason_t reason)
{
    struct laws_count *count = pool_state;
    (void)reason;
    atomic_fetch_add(&count->pool_terminates, 1);
    /* The last slice's end comes after every worker's. */
    if (atomic_load(&count->pool_terminates) == atomic_load(&count->pool_inits) &&
        atomic_load(&count->terminated) != atomic_load(&count->opened))
        atomic_fetch_add(&count->early_pool_terminates, 1);
}

static struct laws_unit *make_unit(struct laws_count *count, corepool_worker_t *worker)
{
    struct laws_unit *unit = calloc(1, sizeof *unit);
    if (!unit)
        return NULL;
    unit->count = count;
    unit->worker = worker;
    unit->serial = atomic_fetch_add(&count->opened, 1);
    unit->next = atomic_load(&count->units);
    while (!atomic_compare_exchange_weak(&count->units, &unit->next, unit))
        ;
    return unit;
}

static bool spends_a_failure(struct laws_count *count)
{
    int left = atomic_load(&count->fail_inits);
    while (left > 0)
        if (atomic_compare_exchange_weak(&count->fail_inits, &left, left - 1))
            return true;
    return left < 0;
}

static void wait_while_held(struct laws_count *count)
{
    atomic_fetch_add(&count->held, 1);
    while (atomic_load(&count->hold))
        poll(NULL, 0, 1);
    atomic_fetch_sub(&count->held, 1);
}

static int open_worker(corepool_worker_t *worker, void *pool_state, void **resource)
{
    struct laws_count *count = pool_state;
    if (atomic_load(&count->pend_inits)) {
        atomic_store(&count->pending, worker);
        return COREPOOL_PENDING;
    }
    if (spends_a_failure(count)) {
        corepool_worker_explain(worker, "the test wants no worker %u", corepool_worker_number(worker));
        return COREPOOL_EOPEN;
    }
    *resource = make_unit(count, worker);
    return *resource ? COREPOOL_OK : COREPOOL_ENOMEM;
}

/* It may be another's when it ends. */
static int open_movable(corepool_worker_t *worker, void *pool_state, void **resource)
{
    int status = open_worker(worker, pool_state, resource);
    if (status == COREPOOL_OK)
        ((struct laws_unit *)*resource)->worker = NULL;
    return status;
}

static int open_slowly(corepool_worker_t *worker, void *pool_state, void **resource)
{
    wait_while_held(pool_state);
    return open_worker(worker, pool_state, resource);
}

static void cancel_open(corepool_worker_t *worker, void *pool_state)
{
    (void)pool_state;
    corepool_worker_failed(worker, COREPOOL_ECANCELED);
}

static int check_out(void *pool_state, void *resource, void *command, void **client)
{
    struct laws_unit *unit = resource;
    int outcome = unit->count->on_checkout ? unit->count->on_checkout(command) : COREPOOL_OK;
    (void)pool_state, (void)client;
    if (outcome == COREPOOL_OK && atomic_exchange(&unit->in_use, 1))
        atomic_fetch_add(&unit->count->overlaps, 1);
    return outcome;
}

static int check_in(void *pool_state, void *resource, void *client)
{
    struct laws_unit *unit = resource;
    (void)pool_state, (void)client;
    atomic_store(&unit->in_use, 0);
    return atomic_load(&unit->count->checkin_outcome);
}

static int end_worker(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    struct laws_count *count = pool_state;
    struct laws_unit *unit = resource;
    if (atomic_fetch_add(&unit->ended, 1) || (unit->worker && unit->worker != worker) || unit->count != count)
        atomic_fetch_add(&count->twice, 1);
    atomic_fetch_add(&count->reasons[reason], 1);
    atomic_fetch_add(&count->terminated, 1);
    return COREPOOL_OK;
}

static int end_slowly(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    wait_while_held(pool_state);
    return end_worker(worker, pool_state, resource, reason);
}

const corepool_class_t laws_class = {.name = "counted",
                                     .pool_init = open_pool,
                                     .pool_terminate = close_pool,
                                     .init = open_worker,
                                     .init_cancel = cancel_open,
                                     .checkout = check_out,
                                     .checkin = check_in,
                                     .terminate = end_worker};
const corepool_class_t laws_plain_class = {.name = "plain",
                                           .pool_init = open_pool,
                                           .pool_terminate = close_pool,
                                           .init = open_worker,
                                           .init_cancel = cancel_open,
                                           .terminate = end_worker};
const corepool_class_t laws_movable_class = {.name = "movable",
                                             .flags = COREPOOL_CLASS_MOVABLE,
                                             .pool_init = open_pool,
                                             .pool_terminate = close_pool,
                                             .init = open_movable,
                                             .checkout = check_out,
                                             .checkin = check_in,
                                             .terminate = end_worker};

const corepool_class_t laws_blocking_class = {.name = "blocking",
                                              .flags = COREPOOL_CLASS_BLOCKING,
                                              .pool_init = open_pool,
                                              .pool_terminate = close_pool,
                                              .init = open_slowly,
                                              .terminate = end_slowly};

static void judge(struct laws_count *count)
{
    unsigned by_reason = 0;
    for (unsigned i = 0; i < LAWS_REASONS; i++)
        by_reason += atomic_load(&count->reasons[i]);
    cr_expect_eq(atomic_load(&count->twice), 0, "a worker was terminated twice");
    cr_expect_eq(atomic_load(&count->overlaps), 0, "a worker was in two hands");
    cr_expect_eq(atomic_load(&count->terminated), atomic_load(&count->opened), "%u opened, %u terminated",
                 atomic_load(&count->opened), atomic_load(&count->terminated));
    cr_expect_eq(by_reason, atomic_load(&count->terminated), "every end has a reason");
    cr_expect_eq(atomic_load(&count->reasons[COREPOOL_REASON_NONE]), 0);
    cr_expect_eq(atomic_load(&count->pool_terminates), atomic_load(&count->pool_inits));
    cr_expect_eq(atomic_load(&count->early_pool_terminates), 0,
                 "pool_terminate came before the last worker's end");
    while (atomic_load(&count->units)) {
        struct laws_unit *unit = atomic_load(&count->units);
        atomic_store(&count->units, unit->next);
        cr_expect_eq(atomic_load(&unit->ended), 1, "worker %u ended %u times", unit->serial,
                     atomic_load(&unit->ended));
        free(unit);
    }
}

/* --- baseline --- */

static int count_entries(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    cr_assert(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* libuv makes a pipe for signals with the process's first loop, and keeps it. */
static void warm_loops(void)
{
    uv_loop_t loop;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(uv_loop_close(&loop), 0);
}

static void do_nothing(uv_work_t *work)
{
    (void)work;
}

void laws_warm_thread_pool(void)
{
    uv_loop_t loop;
    uv_work_t work;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(uv_queue_work(&loop, &work, do_nothing, NULL), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
}

void laws_baseline(void)
{
    warm_loops();
    descriptors = count_entries("/proc/self/fd");
    threads = count_entries("/proc/self/task");
}

/* A joined thread may stay listed for a moment: the kernel wakes the joiner first. */
static bool threads_are_back(void *arg)
{
    (void)arg;
    return count_entries("/proc/self/task") <= threads;
}

bool laws_descriptors_are_back(void *arg)
{
    (void)arg;
    return count_entries("/proc/self/fd") == descriptors;
}

void laws_expect_baseline(void)
{
    cr_expect(laws_eventually(threads_are_back, NULL), "%d threads before, %d after", threads,
              count_entries("/proc/self/task"));
    cr_expect(laws_descriptors_are_back(NULL), "%d descriptors before, %d after", descriptors,
              count_entries("/proc/self/fd"));
}

/* --- start and end --- */

corepool_runtime_t *laws_runtime(void)
{
    return current;
}

corepool_runtime_t *laws_start(const corepool_runtime_options_t *options)
{
    laws_baseline();
    cr_assert_eq(corepool_runtime_start(options, &current), COREPOOL_OK, "%s", corepool_error_detail());
    return current;
}

void laws_judge(struct laws_count *count)
{
    count->next = counts;
    counts = count;
}

corepool_pool_t laws_open_with(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                               const corepool_pool_options_t *options)
{
    corepool_pool_t pool;
    laws_judge(count);
    cr_assert_eq(corepool_pool_open(current, cls, count, size, options, &pool), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return pool;
}

corepool_pool_t laws_open(const corepool_class_t *cls, struct laws_count *count, unsigned size, unsigned flags)
{
    return laws_open_with(cls, count, size, &(corepool_pool_options_t){.flags = flags});
}

/* Criterion does not look at what LeakSanitizer says at the end of a test's process. Absent without sanitizers.
 */
__attribute__((weak)) int __lsan_do_recoverable_leak_check(void);

void laws_expect_no_leaks(void)
{
    if (__lsan_do_recoverable_leak_check)
        cr_expect_eq(__lsan_do_recoverable_leak_check(), 0, "memory is left");
}

void laws_end(void)
{
    laws_end_quickly();
    laws_expect_no_leaks();
}

void laws_end_quickly(void)
{
    cr_assert_eq(corepool_runtime_audit(current), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(current, LAWS_PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_destroy(current), COREPOOL_OK, "%s", corepool_error_detail());
    for (struct laws_count *count = counts; count; count = count->next)
        judge(count);
    counts = NULL;
    laws_expect_baseline();
}

/* --- waiting for what must come --- */

int64_t laws_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* A virtual machine may be halted for longer than anybody's patience: that is one look. */
#define LOOKS_LEAST 1000

bool laws_eventually(bool (*holds)(void *arg), void *arg)
{
    int64_t deadline = laws_now_ms() + LAWS_PATIENCE_MS;
    for (unsigned looks = 0; !holds(arg); looks++) {
        if (looks >= LOOKS_LEAST && laws_now_ms() > deadline)
            return false;
        poll(NULL, 0, 1); /* leaves the CPU to whom is waited for */
    }
    return true;
}

corepool_stats_t laws_stats(corepool_pool_t pool)
{
    corepool_stats_t stats;
    cr_assert_eq(corepool_pool_stats(pool, &stats), COREPOOL_OK, "%s", corepool_error_detail());
    return stats;
}

struct expected {
    corepool_pool_t pool;
    uint64_t value;
};

static bool is_idle(void *arg)
{
    const struct expected *expected = arg;
    corepool_stats_t stats = laws_stats(expected->pool);
    return stats.idle == expected->value && stats.opening + stats.closing == 0;
}

void laws_await_idle(corepool_pool_t pool, uint64_t idle)
{
    cr_assert(laws_eventually(is_idle, &(struct expected){pool, idle}), "%llu idle, not %llu",
              (unsigned long long)laws_stats(pool).idle, (unsigned long long)idle);
}

static bool is_waiting(void *arg)
{
    const struct expected *expected = arg;
    return laws_stats(expected->pool).waiting == expected->value;
}

void laws_await_waiting(corepool_pool_t pool, uint64_t waiting)
{
    cr_assert(laws_eventually(is_waiting, &(struct expected){pool, waiting}), "%llu wait, not %llu",
              (unsigned long long)laws_stats(pool).waiting, (unsigned long long)waiting);
}

struct awaited {
    const _Atomic unsigned *count;
    unsigned value;
};

static bool has_come(void *arg)
{
    const struct awaited *awaited = arg;
    return atomic_load(awaited->count) >= awaited->value;
}

void laws_await_count(const _Atomic unsigned *count, unsigned value)
{
    cr_assert(laws_eventually(has_come, &(struct awaited){count, value}), "%u came, not %u", atomic_load(count),
              value);
}

void laws_expect_detail(const char *word)
{
    const char *detail = corepool_error_detail();
    cr_expect_not_null(strstr(detail, word), "\"%s\" lacks \"%s\"", detail, word);
}
