/* tests/slice_test.c: a slice's manager: messages that come too late, met by construction instead of by luck; and what it does
 * under signals. */
#include <criterion/criterion.h>

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <corepool.h>

#include "front/runtime.h"

static int open_worker(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker;
    *resource = pool_state;
    return COREPOOL_OK;
}

static const corepool_class_t named = {.name = "named", .init = open_worker};

static corepool_pool_t open_with(corepool_runtime_t *runtime, void *arg, unsigned size, unsigned flags)
{
    corepool_pool_t pool;
    corepool_pool_options_t options = {.flags = flags};
    cr_assert_eq(corepool_pool_open(runtime, &named, arg, size, &options, &pool), COREPOOL_OK, "%s", corepool_error_detail());
    return pool;
}

static corepool_pool_t open_pool(corepool_runtime_t *runtime, void *arg)
{
    return open_with(runtime, arg, 1, 0);
}

static struct cp_slice *only_slice(corepool_pool_t pool)
{
    return atomic_load(&pool.impl->by_shard[0]);
}

Test(slice, a_request_for_a_pool_that_is_gone_is_refused_by_the_pool_that_has_its_slice_now)
{
    static char first[] = "first", second[] = "second";
    static struct cp_request request; /* the manager may look at it until the stop */
    corepool_runtime_t *runtime;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK, "%s", corepool_error_detail());
    corepool_pool_t pool = open_pool(runtime, first);
    struct cp_slice *slice = only_slice(pool);
    uint64_t epoch = atomic_load(&slice->epoch);
    cr_assert_eq(corepool_pool_close(pool, COREPOOL_INFINITE), COREPOOL_OK);
    pool = open_pool(runtime, second);
    cr_assert_eq(only_slice(pool), slice, "the block is used again, or this test shows nothing");

    atomic_store(&request.life, CP_LIFE_LENT);
    request.posted_at = cp_now_ns();
    cr_assert(cp_slice_send_request(slice, &request, epoch));
    int64_t deadline = cp_deadline_ns(cp_now_ns(), 10000);
    while (atomic_load(&request.outcome) == CP_PENDING && cp_futex_wait(&request.outcome, CP_PENDING, deadline))
        ;
    cr_expect_eq(atomic_load(&request.outcome), CP_CLOSED);

    corepool_lease_t lease;
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(lease.resource, (void *)second);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}

/* --- a shelf that is turned round --- */

#define WORKERS 4
#define TURNS_A_ROUND 500
#define ENOUGH_ABORTS 2000
#define PATIENCE_S 20

static void on_alarm(int signal)
{
    (void)signal;
}

/* Interrupts the calling shard's thread all the time, which else has signals blocked. */
static timer_t start_alarms(void)
{
    timer_t timer;
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGUSR1);
    cr_assert_eq(pthread_sigmask(SIG_UNBLOCK, &alarms, NULL), 0);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    struct itimerspec period = {.it_interval = {.tv_nsec = 20000}, .it_value = {.tv_nsec = 20000}};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    cr_assert_neq(signal(SIGUSR1, on_alarm), SIG_ERR);
    cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    cr_assert_eq(timer_settime(timer, 0, &period, NULL), 0);
    return timer;
}

/* Until the kernel has restarted sequences often enough, if there are any. What is wrong then, or NULL. */
static const char *turn_round(struct cp_slice *slice)
{
    const char *broken = NULL;
    uint64_t aborts = atomic_load(&cp_shelf_aborts);
    bool portable = atomic_load(&slice->shelf.flags) & CP_SHELF_PORTABLE;
    time_t deadline = time(NULL) + PATIENCE_S;
    while (!broken && time(NULL) < deadline) {
        for (unsigned turns = 0; turns < TURNS_A_ROUND; turns++)
            cp_slice_sift(slice);
        broken = cp_slice_check(slice);
        if (portable || atomic_load(&cp_shelf_aborts) >= aborts + ENOUGH_ABORTS)
            return broken;
    }
    return broken ? broken : "the kernel restarted too little";
}

static int turn_on_shard(struct corepool_shard *shard, void *arg)
{
    cp_shard_enter(shard);
    timer_t timer = start_alarms();
    *(const char **)arg = turn_round(cp_container(shard->slices.next, struct cp_slice, link));
    timer_delete(timer);
    return COREPOOL_OK;
}

Test(slice, whose_shelf_is_turned_round_under_signals_has_every_worker_on_it_once)
{
    const char *broken = "never run";
    corepool_runtime_t *runtime;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK, "%s", corepool_error_detail());
    corepool_pool_t pool = open_with(runtime, NULL, WORKERS, COREPOOL_POOL_PER_SHARD);
    struct cp_slice *slice = only_slice(pool);
    while (cp_shelf_idle(&slice->shelf) < WORKERS) /* they open at once */
        poll(NULL, 0, 1);
    cr_assert_eq(cp_shard_call(slice->shard, turn_on_shard, &broken), COREPOOL_OK);
    cr_expect_null(broken, "%s", broken);
    cr_expect_eq(cp_shelf_idle(&slice->shelf), WORKERS);
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}
