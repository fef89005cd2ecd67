/* tests/pin_test.c: what a runtime does when the kernel refuses to pin its threads, or to interrupt those of a CPU. A seccomp filter plays that kernel;
 * it lasts as long as the process, and every test has one of its own. */
#include <criterion/criterion.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "support/callers.h"

/* From the calling thread. */
static void refuse(uint32_t call, uint32_t error)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof rules / sizeof *rules, .filter = rules};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

Test(pin, a_required_pin_that_is_refused_fails_the_start_and_leaves_nothing_behind)
{
    corepool_runtime_t *runtime;
    laws_baseline();
    refuse(SYS_sched_setaffinity, EPERM);
    cr_expect_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_ESYSTEM);
    cr_expect_null(runtime);
    laws_expect_detail("pin");
    laws_expect_baseline();
}

Test(pin, a_preferred_pin_that_is_refused_is_done_without)
{
    struct laws_count count = {0};
    corepool_lease_t lease;
    refuse(SYS_sched_setaffinity, EPERM);
    corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.pin = COREPOOL_PIN_PREFERRED});
    corepool_pool_t pool = laws_open(&laws_class, &count, 2 * corepool_runtime_shards(runtime), 0);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK, "%s", corepool_error_detail());
        cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    laws_end();
}

static void move_away(void *cpu)
{
    refuse(SYS_membarrier, EPERM);
    laws_pin(*(int *)cpu);
}

static bool pauses(void *pool)
{
    return corepool_pool_pause(*(corepool_pool_t *)pool) == COREPOOL_OK;
}

static bool grows(void *pool)
{
    return corepool_pool_resize(*(corepool_pool_t *)pool, 20) == COREPOOL_OK;
}

/* What the shard, moved away and without a membarrier, cannot do then it can do once it has come back. */
static void expect_comes_back(bool (*can)(void *pool))
{
    struct laws_count count = {0};
    laws_need_rseq();
    int away = laws_need_second_cpu();
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    laws_on_shard(0, move_away, &away);
    cr_expect_not(can(&pool));
    laws_expect_detail("membarrier");
    cr_assert(laws_eventually(can, &pool));
    cr_expect_eq(corepool_pool_resume(pool), COREPOOL_OK);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

Test(pin, a_shard_that_was_moved_away_and_cannot_empty_its_shelf_comes_back)
{
    expect_comes_back(pauses);
}

Test(pin, a_shard_that_was_moved_away_and_cannot_grow_comes_back)
{
    expect_comes_back(grows);
}

struct eviction {
    corepool_worker_t *worker;
    int cpu; /* from there */
    bool refused; /* the membarrier */
};

static void evict_from_away(void *arg)
{
    const struct eviction *eviction = arg;
    if (eviction->refused)
        refuse(SYS_membarrier, EPERM);
    laws_pin(eviction->cpu);
    corepool_worker_evict(eviction->worker, COREPOOL_REASON_EVICTED);
}

/* It is on top of its shelf, where a checkin by the one who had it last is one store. */
static void expect_evicted(bool refused)
{
    struct laws_count count = {0};
    laws_need_rseq();
    struct eviction eviction = {.cpu = laws_need_second_cpu(), .refused = refused};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    eviction.worker = lease.worker;
    laws_on_shard(0, evict_from_away, &eviction);
    cr_expect_eq(atomic_load(&count.terminated), 0, "it is in its client's hands");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_EVICTED], 1);
    laws_await_idle(pool, 1);
    laws_end();
}

Test(pin, a_leased_worker_that_a_shard_off_its_cpu_evicts_ends_at_its_checkin)
{
    expect_evicted(false);
}

Test(pin, a_leased_worker_that_a_shard_evicts_off_its_cpu_and_without_a_membarrier_ends_after_its_checkin)
{
    expect_evicted(true);
}

/* --- a CPU that is gone: the kernel says so by EINVAL --- */

static void lose_cpu(void *cpu)
{
    laws_pin(*(int *)cpu);
    refuse(SYS_sched_setaffinity, EINVAL);
}

static bool is_parked(void *runtime)
{
    return corepool_runtime_parked(runtime) == 1;
}

static bool is_portable(void *pool)
{
    return laws_stats(*(corepool_pool_t *)pool).portable == 1;
}

Test(pin, a_shard_whose_cpu_is_gone_parks_and_serves_on_the_portable_shelf)
{
    struct laws_count count = {0}, later_count = {0};
    laws_need_rseq();
    int away = laws_need_second_cpu();
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    cr_expect_eq(corepool_runtime_parked(laws_runtime()), 0);
    cr_expect_not(is_portable(&pool));
    laws_on_shard(0, lose_cpu, &away);
    cr_assert(laws_eventually(is_parked, laws_runtime()));
    cr_expect(is_portable(&pool));
    corepool_lease_t one = laws_take(pool), two = laws_take(pool);
    struct caller caller = {.pool = pool};
    caller_start(&caller);
    laws_await_waiting(pool, 1);
    cr_expect_eq(corepool_checkin(&one), COREPOOL_OK);
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(corepool_checkin_remove(&two), COREPOOL_OK);
    laws_await_idle(pool, 2);
    corepool_pool_t later = laws_open(&laws_class, &later_count, 1, 0);
    cr_expect(laws_eventually(is_portable, &later), "a pool that was opened since");
    laws_end();
}

/* --- two shards, the second of which loses its CPU --- */

struct ends {
    _Atomic unsigned opened, ended;
};

static void give_back(void *lease)
{
    cr_expect_eq(corepool_checkin(lease), COREPOOL_OK);
}

static bool is_had_at_once(void *pool)
{
    corepool_lease_t lease;
    if (corepool_checkout_try(*(corepool_pool_t *)pool, NULL, &lease) != COREPOOL_OK)
        return false;
    return corepool_checkin(&lease) == COREPOOL_OK;
}

/* It is on the returned list then, where only who runs on the shard's CPU would have looked. */
Test(pin, what_was_given_back_elsewhere_is_had_at_once_when_the_shard_is_parked)
{
    struct laws_count count = {0};
    laws_need_rseq();
    int away = laws_need_second_cpu();
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    laws_in_thread(away, give_back, &lease);
    laws_on_shard(0, lose_cpu, &away);
    cr_assert(laws_eventually(is_parked, laws_runtime()));
    cr_expect(laws_eventually(is_had_at_once, &pool));
    laws_end();
}

/* Leaving the CPU is a part of the eviction there: what was given back is taken in once, afterwards. */
Test(pin, a_worker_that_was_given_back_elsewhere_is_evicted_off_the_cpu_once)
{
    struct laws_count count = {0};
    laws_need_rseq();
    struct eviction eviction = {.cpu = laws_need_second_cpu()};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    eviction.worker = lease.worker;
    laws_in_thread(eviction.cpu, give_back, &lease);
    laws_on_shard(0, evict_from_away, &eviction);
    laws_await_count(&count.opened, 2);
    laws_await_idle(pool, 1);
    cr_expect_eq(atomic_load(&count.reasons[COREPOOL_REASON_EVICTED]), 1);
    cr_expect_eq(laws_stats(pool).terminated, 1);
    laws_end();
}

static int open_any(corepool_worker_t *worker, void *ends, void **resource)
{
    (void)worker;
    *resource = ends;
    atomic_fetch_add(&((struct ends *)ends)->opened, 1);
    return COREPOOL_OK;
}

static int end_any(corepool_worker_t *worker, void *ends, void *resource, corepool_reason_t reason)
{
    (void)worker, (void)resource, (void)reason;
    atomic_fetch_add(&((struct ends *)ends)->ended, 1);
    return COREPOOL_OK;
}

static const corepool_class_t movable = {
    .name = "movable", .flags = COREPOOL_CLASS_MOVABLE, .init = open_any, .terminate = end_any};
static const corepool_class_t bound = {.name = "bound", .init = open_any, .terminate = end_any};

/* A pool of four, two on each shard; then the second shard is parked, on the first one's CPU. */
static corepool_pool_t start_and_park(const corepool_class_t *cls, struct ends *ends,
                                      const corepool_pool_options_t *options)
{
    char cpus[32];
    corepool_pool_t pool;
    int first = laws_first_cpu(), second = laws_need_second_cpu();
    snprintf(cpus, sizeof cpus, "%d,%d", first, second);
    laws_start(&(corepool_runtime_options_t){.cpus = cpus});
    first = laws_cpu_of(0);
    cr_assert_eq(corepool_pool_open(laws_runtime(), cls, ends, 4, options, &pool), COREPOOL_OK);
    laws_await_idle(pool, options ? 0 : 4);
    laws_on_shard(1, lose_cpu, &first);
    cr_assert(laws_eventually(is_parked, laws_runtime()));
    return pool;
}

static bool has_left(void *pool)
{
    return laws_stats(corepool_pool_at(*(corepool_pool_t *)pool, 0)).quota == 4 &&
           laws_stats(corepool_pool_at(*(corepool_pool_t *)pool, 1)).quota == 0;
}

Test(pin, a_parked_shard_hands_its_idle_workers_over_and_still_serves_who_asks_for_it)
{
    struct ends ends = {0};
    corepool_pool_t pool = start_and_park(&movable, &ends, NULL);
    cr_assert(laws_eventually(has_left, &pool));
    cr_expect_eq(laws_stats(pool).idle, 4);
    corepool_lease_t lease = laws_take(corepool_pool_at(pool, 1));
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect(laws_eventually(has_left, &pool), "again, after a while");
    cr_expect_eq(atomic_load(&ends.opened), 4, "they moved, and none was opened in its place");
    cr_expect_eq(atomic_load(&ends.ended), 0);
    laws_end();
    cr_expect_eq(atomic_load(&ends.ended), 4);
}

Test(pin, a_worker_that_is_leased_while_its_shard_parks_is_handed_over_when_it_is_given_back)
{
    struct ends ends = {0};
    corepool_pool_t pool = start_and_park(&movable, &ends, &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY});
    corepool_lease_t lease = laws_take(corepool_pool_at(pool, 1));
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect(laws_eventually(has_left, &pool));
    cr_expect_eq(laws_stats(pool).idle, 1);
    cr_expect_eq(atomic_load(&ends.ended), 0);
    laws_end();
}

Test(pin, workers_that_are_bound_to_a_shard_stay_when_it_parks)
{
    struct ends ends = {0};
    corepool_pool_t pool = start_and_park(&bound, &ends, NULL);
    for (unsigned i = 0; i < 2; i++) {
        corepool_lease_t lease = laws_take(corepool_pool_at(pool, 1));
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_expect_eq(laws_stats(corepool_pool_at(pool, 1)).quota, 2);
    cr_expect_eq(atomic_load(&ends.ended), 0);
    laws_end();
}

Test(pin, nothing_is_handed_over_in_a_pool_without_stealing)
{
    struct ends ends = {0};
    const corepool_pool_options_t options = {.flags = COREPOOL_POOL_LAZY, .policy = COREPOOL_POLICY_LOCAL_ONLY};
    corepool_pool_t pool = start_and_park(&movable, &ends, &options);
    corepool_lease_t lease = laws_take(corepool_pool_at(pool, 1));
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(laws_stats(corepool_pool_at(pool, 1)).quota, 2);
    laws_end();
}

static void move_to(void *cpu)
{
    laws_pin(*(int *)cpu);
}

static void ask_where(void *cpu)
{
    *(int *)cpu = sched_getcpu();
}

static bool is_back(void *cpu)
{
    int now;
    laws_on_shard(0, ask_where, &now);
    return now == *(int *)cpu;
}

/* The shelf never told it: only the messages that ask where it is wake it. */
Test(pin, a_shard_that_was_moved_away_notices_when_anything_wakes_it_and_comes_back)
{
    struct laws_count count = {0};
    int away = laws_need_second_cpu(), home = laws_first_cpu();
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 2, 0);
    laws_await_idle(pool, 2);
    laws_on_shard(0, move_to, &away);
    cr_assert(laws_eventually(is_back, &home));
    cr_expect_eq(corepool_runtime_parked(laws_runtime()), 0, "its CPU was there all the time");
    laws_end();
}

/* A try on a shard off its CPU. */
struct stray {
    corepool_pool_t pool;
    int cpu, status;
    unsigned shard; /* whose worker it was */
};

static void try_from_away(void *arg)
{
    struct stray *stray = arg;
    corepool_lease_t lease;
    laws_pin(stray->cpu);
    stray->status = corepool_checkout_try(stray->pool, NULL, &lease);
    if (stray->status != COREPOOL_OK)
        return;
    stray->shard = corepool_shard_index(corepool_worker_shard(lease.worker));
    stray->status = corepool_checkin(&lease);
}

/* Its own shelf may be out of its reach for a moment: then it gets nothing. */
Test(pin, code_on_a_shard_that_was_moved_away_is_not_given_another_shards_worker)
{
    struct laws_count count = {0};
    struct stray stray = {.cpu = laws_need_second_cpu()};
    laws_start(NULL);
    stray.pool = laws_open(&laws_plain_class, &count, 1, COREPOOL_POOL_PER_SHARD);
    laws_await_idle(stray.pool, corepool_runtime_shards(laws_runtime()));
    laws_on_shard(0, try_from_away, &stray);
    cr_expect(stray.status == COREPOOL_OK || stray.status == COREPOOL_EEMPTY);
    cr_expect_eq(stray.shard, 0);
    laws_end();
}
