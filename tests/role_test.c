/* tests/role_test.c: the manager's role in callers' hands: threads stopped at
 * the library's injection points. Built from the library's own objects. */
#include <criterion/criterion.h>

#include <poll.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/point.h"
#include "front/runtime.h"
#include "support/callers.h"

/* So long is a thread stopped, which everything else is to get by meanwhile. */
#define STOP_MS 300

/* What the hook does on this thread. */
static _Thread_local int stops_at = -1, reposts_at = -1;
static _Atomic unsigned stopped, stops, collected_elsewhere;
static _Atomic int collects_on = -1;

/* Messages of no meaning, each posted when the last play has ended. */
#define REPOSTS 100
static struct corepool_shard *shard;
static struct cp_message repost[REPOSTS];
static _Atomic unsigned reposted, delivered, delivered_by_itself;

static void deliver_repost(struct cp_message *message)
{
    (void)message;
    atomic_fetch_add(&delivered, 1);
    atomic_fetch_add(&delivered_by_itself, reposts_at >= 0);
}

void cp_point_hook(enum cp_point point)
{
    if ((int)point == stops_at) {
        stops_at = -1;
        atomic_store(&stopped, 1);
        atomic_fetch_add(&stops, 1);
        poll(NULL, 0, STOP_MS);
        atomic_store(&stopped, 0);
    }
    if (point == CP_POINT_COLLECT_TAKEN && atomic_load(&collects_on) >= 0)
        atomic_fetch_add(&collected_elsewhere, sched_getcpu() != atomic_load(&collects_on));
    if ((int)point == reposts_at && atomic_load(&reposted) < REPOSTS) {
        struct cp_message *message = &repost[atomic_fetch_add(&reposted, 1)];
        message->deliver = deliver_repost;
        cp_mailbox_post(&shard->asks, message);
    }
}

/* Gives the lease back, and is stopped there on its way. */
struct giver {
    corepool_lease_t lease;
    enum cp_point point;
    int cpu;
    pthread_t thread;
};

static void *run_giver(void *arg)
{
    struct giver *giver = arg;
    laws_pin(giver->cpu);
    stops_at = (int)giver->point;
    corepool_checkin(&giver->lease);
    return NULL;
}

static void *stop_runtime(void *status)
{
    *(int *)status = corepool_runtime_stop(laws_runtime(), LAWS_PATIENCE_MS);
    return NULL;
}

static void try_to_play(void *played)
{
    *(bool *)played = cp_shard_begin_play(&laws_runtime()->shard[0]);
}

/* Its gives would leave nobody's mark. */
Test(role, a_thread_without_a_record_does_not_play)
{
    bool played = true;
    laws_start(NULL);
    laws_in_thread(-1, try_to_play, &played);
    cr_expect_not(played);
    if (played)
        cp_shard_end_play(&laws_runtime()->shard[0]);
    laws_end();
}

Test(role, a_shard_does_not_stop_under_who_has_asked_it)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct giver giver = {.point = CP_POINT_PLAY_ENDED, .cpu = laws_cpu_of(0)};
    pthread_t stopper;
    int status;
    laws_await_idle(pool, 1);
    giver.lease = laws_take(pool);
    pthread_create(&stopper, NULL, stop_runtime, &status);
    while (corepool_checkout_try(pool, NULL, &(corepool_lease_t){0}) != COREPOOL_ECLOSED)
        poll(NULL, 0, 1);
    poll(NULL, 0, LAWS_SHORT_MS); /* the slice knows it by then */
    pthread_create(&giver.thread, NULL, run_giver, &giver);
    laws_await_count(&stops, 1); /* it has woken the thread, which takes in what came back */
    pthread_join(stopper, NULL);
    cr_expect_eq(status, COREPOOL_OK);
    cr_expect_eq(atomic_load(&stopped), 0,
                 "the runtime has stopped, and may be destroyed, while a checkin "
                 "is inside");
    pthread_join(giver.thread, NULL);
    laws_end();
}

static void expect_stop_waits_for(pthread_t inside)
{
    int status;
    stop_runtime(&status);
    cr_expect_eq(status, COREPOOL_OK);
    cr_expect_eq(atomic_load(&stopped), 0, "the runtime may be destroyed while a call is inside");
    pthread_join(inside, NULL);
    laws_end();
}

/* It has pushed the worker, which stop waits for, and is about to look whether anybody wants to know. */
Test(role, a_shard_does_not_stop_under_who_has_given_back_from_elsewhere)
{
    laws_need_rseq();
    struct laws_count count = {0};
    struct giver giver = {.point = CP_POINT_GIVE_FOREIGN_PUSHED, .cpu = laws_need_second_cpu()};
    laws_start(NULL);
    corepool_pool_t pool = corepool_pool_at(laws_open(&laws_plain_class, &count, 2, 0), 0);
    laws_await_idle(pool, 1);
    giver.lease = laws_take(pool);
    pthread_create(&giver.thread, NULL, run_giver, &giver);
    laws_await_count(&stops, 1);
    expect_stop_waits_for(giver.thread);
}

static void *destroy_runtime(void *runtime)
{
    stops_at = CP_POINT_REGISTRY_LEFT;
    corepool_runtime_destroy(runtime);
    return NULL;
}

/* It is no child of a process with a runtime, but it was forked while the lock was held that its start takes. */
Test(role, a_child_that_is_forked_while_the_last_runtime_is_destroyed_may_start_its_own)
{
    corepool_runtime_t *runtime;
    pthread_t destroyer;
    int status;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    pthread_create(&destroyer, NULL, destroy_runtime, runtime);
    laws_await_count(&stops, 1);
    cr_assert_eq(atomic_load(&stopped), 1);
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        _exit(corepool_runtime_start(NULL, &runtime) == COREPOOL_OK &&
                      corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
                      corepool_runtime_destroy(runtime) == COREPOOL_OK
                  ? 0
                  : 1);
    }
    pthread_join(destroyer, NULL);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}

/* Waits until its pool is closed, and is stopped there on its way. */
struct closed_out {
    corepool_pool_t pool;
    int point; /* -1: it is not stopped */
    pthread_t thread;
};

static void *wait_for_the_close(void *arg)
{
    struct closed_out *waiter = arg;
    corepool_lease_t lease;
    stops_at = waiter->point;
    cr_expect_eq(laws_checkout(waiter->pool, COREPOOL_INFINITE, &lease), COREPOOL_ECLOSED);
    return NULL;
}

Test(role, a_shard_does_not_stop_under_who_is_told_that_it_stops)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct closed_out waiter = {.pool = pool, .point = CP_POINT_REQUEST_ENDED};
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    pthread_create(&waiter.thread, NULL, wait_for_the_close, &waiter);
    laws_await_waiting(pool, 1);
    corepool_pool_close(pool, 0);
    laws_await_count(&stops, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_stop_waits_for(waiter.thread);
}

static int refuse_once(void *pool_state, void *resource, void *command, void **client)
{
    static _Atomic unsigned asked;
    (void)pool_state, (void)resource, (void)command, (void)client;
    return atomic_fetch_add(&asked, 1) == 0 ? COREPOOL_REMOVE : COREPOOL_OK;
}

/* What waited and was granted, and has then given back what its class refused, looks further. */
Test(role, a_shard_does_not_stop_under_who_looks_for_another_worker)
{
    struct laws_count count = {0};
    corepool_class_t cls = laws_plain_class;
    cls.checkout = refuse_once;
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    struct closed_out waiter = {.pool = pool, .point = CP_POINT_LOOKS_FURTHER};
    laws_await_idle(pool, 1);
    pthread_create(&waiter.thread, NULL, wait_for_the_close, &waiter);
    laws_await_count(&stops, 1);
    expect_stop_waits_for(waiter.thread);
}

static int end_thread(void *pool_state, void *resource, void *command, void **client)
{
    (void)pool_state, (void)resource, (void)command, (void)client;
    pthread_exit(NULL);
}

/* Its lease is reclaimed, as any thread's that ends; nothing else of it is left behind. */
Test(role, a_thread_that_ends_in_a_callback_of_its_checkout_does_not_keep_the_runtime_from_stopping)
{
    struct laws_count count = {0};
    corepool_class_t cls = laws_plain_class;
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    struct closed_out waiter = {.pool = pool, .point = -1};
    int status;
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    cls.checkout = end_thread;
    pthread_create(&waiter.thread, NULL, wait_for_the_close, &waiter);
    laws_await_waiting(pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    pthread_join(waiter.thread, NULL);
    alarm(30); /* a stop that hangs does not come to its deadline */
    stop_runtime(&status);
    alarm(0);
    cr_expect_eq(status, COREPOOL_OK);
    laws_end();
}

static void *wait_in_vain(void *pool)
{
    corepool_lease_t lease;
    if (laws_checkout(*(corepool_pool_t *)pool, LAWS_SHORT_MS, &lease) == COREPOOL_OK)
        corepool_checkin(&lease);
    return NULL;
}

struct waiter {
    corepool_pool_t pool;
    int cpu;
    pthread_t thread;
};

static void *run_waiter(void *arg)
{
    struct waiter *waiter = arg;
    laws_pin(waiter->cpu);
    return wait_in_vain(&waiter->pool);
}

Test(role, who_plays_on_another_cpu_does_not_look_at_what_came_back)
{
    laws_need_rseq();
    struct laws_count count = {0};
    struct giver giver = {.point = CP_POINT_ASK_POSTED, .cpu = laws_need_second_cpu()};
    struct waiter waiter = {.cpu = giver.cpu};
    waiter.pool = corepool_pool_at(laws_start_one(&laws_plain_class, &count, 1, 0), 0);
    laws_await_idle(waiter.pool, 1);
    giver.lease = laws_take(waiter.pool);
    pthread_create(&waiter.thread, NULL, run_waiter, &waiter);
    laws_await_waiting(waiter.pool, 1);
    atomic_store(&collects_on, laws_cpu_of(0));
    pthread_create(&giver.thread, NULL, run_giver, &giver); /* it has asked, and wakes nobody */
    pthread_join(waiter.thread, NULL);                      /* who gives up, and plays */
    pthread_join(giver.thread, NULL);
    laws_await_idle(waiter.pool, 1);
    cr_expect_eq(atomic_load(&collected_elsewhere), 0);
    laws_end();
}

static bool are_all_delivered(void *arg)
{
    (void)arg;
    return atomic_load(&delivered) == atomic_load(&reposted);
}

Test(role, who_plays_is_not_kept_by_what_others_ask)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct caller waiter = {.pool = pool};
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    caller_start(&waiter);
    laws_await_waiting(pool, 1);
    shard = &laws_runtime()->shard[0];
    reposts_at = CP_POINT_PLAY_ENDED;
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    reposts_at = -1;
    caller_expect(&waiter, COREPOOL_OK);
    cr_expect(laws_eventually(are_all_delivered, NULL), "the last is nobody's");
    cr_expect_lt(atomic_load(&delivered_by_itself), REPOSTS / 2);
    laws_end();
}

static bool is_token_free(void *arg)
{
    (void)arg;
    return atomic_load(&laws_runtime()->shard[0].token.state) == CP_TOKEN_FREE;
}

/* The shard's thread has done what it had to do: the next to give back plays. */
static void await_free_token(void)
{
    cr_assert(laws_eventually(is_token_free, NULL), "the shard's thread keeps the manager's role");
}

static void start_crowd(struct caller *waiters, unsigned count, corepool_pool_t pool, unsigned first)
{
    for (unsigned i = first; i < count; i++) {
        waiters[i] = (struct caller){.pool = pool};
        caller_start(&waiters[i]);
        laws_await_waiting(pool, i + 1);
    }
}

static void expect_served(struct caller *waiters, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        caller_expect(&waiters[i], COREPOOL_OK);
}

/* The last of three finds all as it was when the second came. */
Test(role, who_gives_back_to_a_crowd_that_is_paused_serves_nobody)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct caller waiters[3];
    corepool_stats_t stats;
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    start_crowd(waiters, 3, pool, 0);
    cr_assert_eq(corepool_pool_pause(pool), COREPOOL_OK);
    await_free_token();
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(corepool_pool_stats(pool, &stats), COREPOOL_OK);
    cr_expect_eq(stats.grants, 0);
    cr_assert_eq(corepool_pool_resume(pool), COREPOOL_OK);
    expect_served(waiters, 3);
    laws_end();
}

/* Waits, and notes which of the pool's workers it has got. */
struct noter {
    corepool_pool_t pool;
    unsigned serial;
    pthread_t thread;
};

static void *run_noter(void *arg)
{
    struct noter *noter = arg;
    corepool_lease_t lease;
    if (laws_checkout(noter->pool, COREPOOL_INFINITE, &lease) != COREPOOL_OK)
        return NULL;
    noter->serial = ((struct laws_unit *)lease.resource)->serial;
    corepool_checkin(&lease);
    return NULL;
}

Test(role, who_gives_back_to_a_crowd_what_is_to_be_replaced_hands_on_nothing)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct noter first = {.pool = pool};
    struct caller waiters[3];
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    pthread_create(&first.thread, NULL, run_noter, &first);
    laws_await_waiting(pool, 1);
    cr_assert_eq(corepool_pool_flush(pool, COREPOOL_FLUSH_NOW), COREPOOL_OK);
    await_free_token();
    start_crowd(waiters, 3, pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    pthread_join(first.thread, NULL);
    cr_expect_eq(first.serial, 1);
    expect_served(waiters + 1, 2);
    laws_end();
}

/* Of two who end one lease on two CPUs at once, the one whose swap has not stayed. */
Test(role, who_gives_back_to_a_crowd_what_another_has_by_now_hands_on_nothing)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct caller waiters[3];
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    start_crowd(waiters, 3, pool, 0);
    await_free_token();
    cr_expect(cp_slice_take_back(lease.worker));
    cr_expect_eq(laws_stats(pool).grants, 0);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    expect_served(waiters, 3);
    laws_end();
}

/* And the entry that such an ending leaves, to be dropped, meets the next one: who looks at the list without
 * playing may take the worker there. (Of a portable shelf the manager drops it at once.) */
Test(role, what_is_still_on_the_returned_list_is_taken_in_from_there_only)
{
    laws_need_rseq();
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    laws_await_idle(pool, 1);
    await_free_token();
    corepool_lease_t lease = laws_take(pool);
    cp_slot *slot = lease.worker;
    cp_slice_return(slot, false);
    cr_assert(cp_shelf_claim(&slot->slice->shelf, &slot->item, lease.generation,
                             cp_stamp_passed(lease.generation, CP_TAG_RETURNED)));
    cr_expect_not(cp_slice_take_back(slot));
    cp_slice_return(slot, true);
    laws_await_idle(pool, 1);
    laws_end();
}

/* Between its first look and its worker's being on the list somebody may have begun to wait, and looked there in vain. */
Test(role, who_gives_back_and_found_nobody_waiting_looks_again_behind_its_push)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    _Atomic unsigned served = 0;
    struct caller waiter = {.pool = pool, .served = &served};
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    cp_slot *slot = lease.worker;
    caller_start(&waiter);
    laws_await_waiting(pool, 1);
    await_free_token();
    cr_assert(cp_shelf_claim(&slot->slice->shelf, &slot->item, lease.generation,
                             cp_stamp_passed(lease.generation, CP_TAG_RETURNED)));
    cp_slice_return(slot, false);
    laws_await_count(&served, 1);
    caller_expect(&waiter, COREPOOL_OK);
    laws_end();
}

static void stop_at_leaving(corepool_shard_t *on, void *arg)
{
    (void)on, (void)arg;
    stops_at = CP_POINT_LEAVE_LOOKED;
}

Test(role, who_asks_while_the_thread_is_about_to_sleep_is_found_by_its_second_look)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    struct caller waiter = {.pool = pool};
    laws_await_idle(pool, 1);
    corepool_lease_t lease = laws_take(pool);
    cr_assert_eq(corepool_shard_post(laws_runtime(), 0, stop_at_leaving, NULL), COREPOOL_OK);
    laws_await_count(&stops, 1);
    caller_start(&waiter);
    laws_await_waiting(pool, 1);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&waiter, COREPOOL_OK);
    laws_end();
}
