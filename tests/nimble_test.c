/* tests/nimble_test.c: what NimblePool's words mean, and the faults of the original that corepool does not
 * have. Each test bears the number of the fact that it shows, and runs with callbacks on callers' threads and
 * again on the shard. */
#include <criterion/criterion.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "support/script.h"

/* --- what more than one test does --- */

static corepool_stats_t awaited_idle(corepool_pool_t pool, unsigned idle)
{
    laws_await_idle(pool, idle);
    return laws_stats(pool);
}

static unsigned ended_because(corepool_reason_t reason)
{
    return atomic_load(&script.count.reasons[reason]);
}

/* Waits on a thread of its own until it gets a worker, which it checks in. */
static void start_waiting(struct caller *caller, corepool_pool_t pool, struct order *order, uint64_t waiting)
{
    *caller = (struct caller){.pool = pool, .command = order};
    caller_start(caller);
    laws_await_waiting(pool, waiting);
}

static void time_out(corepool_pool_t pool, struct order *order)
{
    corepool_lease_t lease;
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_SHORT_MS, .command = order};
    cr_expect_eq(corepool_checkout(pool, &options, &lease), COREPOOL_ETIMEDOUT);
}

/* A thread that takes a worker and ends with it. */
static void take_and_die(void *pool)
{
    corepool_lease_t lease;
    (void)laws_checkout(*(corepool_pool_t *)pool, LAWS_PATIENCE_MS, &lease);
}

/* --- options --- */

PROMISE(n01_options_have_nimble_pools_defaults_and_are_refused_by_name)
{
    corepool_pool_t pool;
    const corepool_pool_options_t options = {.flags = script_flags()};
    corepool_runtime_t *runtime = laws_start(NULL);
    cr_expect_eq(COREPOOL_SIZE_DEFAULT, 10);
    cr_expect_eq(corepool_pool_open(runtime, NULL, NULL, 1, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail("cls");
    cr_expect_eq(corepool_pool_open(runtime, &laws_class, NULL, 0, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail("size");
}

PROMISE(n01_an_idle_timeout_without_a_ping_is_a_warning)
{
    corepool_pool_t pool = script_open(&script_bare_class, 1, &(corepool_pool_options_t){.idle_timeout_ms = 1});
    cr_expect_eq(atomic_load(&script.warnings), 1);
    laws_await_idle(pool, 1);
}

PROMISE(n02_an_eager_pool_opens_all_at_once)
{
    corepool_pool_t pool = script_open(&script_class, 3, NULL);
    awaited_idle(pool, 3);
    cr_expect_eq(atomic_load(&script.count.opened), 3);
}

PROMISE(n02_a_lazy_pool_opens_one_for_each_request_that_finds_none_idle_and_never_more_than_its_size)
{
    corepool_lease_t first, second, third;
    struct caller waiter;
    corepool_pool_t pool =
        script_open(&script_class, 2, &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY});
    cr_expect_eq(awaited_idle(pool, 0).opens, 0);
    first = laws_take(pool);
    cr_expect_eq(corepool_checkin(&first), COREPOOL_OK);
    cr_expect_eq(awaited_idle(pool, 1).opens, 1);
    first = laws_take(pool);
    second = laws_take(pool);
    cr_expect_eq(atomic_load(&script.count.opened), 2);
    start_waiting(&waiter, pool, NULL, 1);
    cr_expect_eq(atomic_load(&script.count.opened), 2, "above its size");
    cr_expect_eq(corepool_checkin_remove(&first), COREPOOL_OK); /* gives its place back */
    caller_expect(&waiter, COREPOOL_OK);
    third = laws_take(pool);
    cr_expect_eq(atomic_load(&script.count.opened), 3);
    cr_expect_eq(corepool_checkin(&second), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&third), COREPOOL_OK);
}

/* --- callbacks of the pool --- */

static int init_code;
static void *seen_state;

static int init_pool_with_code(void *arg, corepool_shard_t *shard, void **pool_state)
{
    (void)shard;
    cr_expect_eq(*pool_state, arg);
    return init_code;
}

static int note_state(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker, (void)resource;
    seen_state = pool_state;
    return COREPOOL_OK;
}

static int open_stateless(const corepool_class_t *cls, int code, corepool_pool_t *pool)
{
    static int argument;
    init_code = code;
    return corepool_pool_open(laws_runtime(), cls, &argument, 1,
                              &(corepool_pool_options_t){.flags = script_flags()}, pool);
}

PROMISE(n03_init_pool_says_state_or_ignore_or_why_not)
{
    corepool_pool_t pool;
    static const corepool_class_t cls = {
        .name = "stateless", .pool_init = init_pool_with_code, .init = note_state};
    seen_state = NULL;
    laws_start(NULL);
    cr_expect_eq(open_stateless(&cls, COREPOOL_IGNORE, &pool), COREPOOL_IGNORE);
    cr_expect_null(pool.impl);
    cr_expect_eq(open_stateless(&cls, COREPOOL_EPROTO, &pool), COREPOOL_EPROTO);
    cr_expect_null(pool.impl);
    cr_expect_eq(open_stateless(&cls, 77, &pool), COREPOOL_EINVAL);
    laws_expect_detail("77");
    cr_expect_eq(open_stateless(&cls, COREPOOL_OK, &pool), COREPOOL_OK);
    laws_await_idle(pool, 1);
    cr_expect_not_null(seen_state, "the default state is the argument");
}

/* --- callbacks of workers --- */

PROMISE(n04_an_init_that_fails_or_takes_long_keeps_nobody_from_the_other_workers)
{
    corepool_pool_t pool = script_open(&script_class, 2, NULL);
    laws_await_idle(pool, 2);
    atomic_store(&script.count.fail_inits, 3);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.opened, 3); /* it is tried until it succeeds */
    cr_expect_eq(awaited_idle(pool, 2).open_failures, 3);
    atomic_store(&script.count.pend_inits, true);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n05_enqueue_runs_for_every_request_also_when_a_worker_is_idle_and_may_wrap_the_command)
{
    struct order order = {.client = &order};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    laws_await_idle(pool, 1);
    for (unsigned i = 1; i <= 3; i++) {
        cr_assert_eq(script_checkout(pool, &order, &lease), COREPOOL_OK);
        cr_expect_eq(atomic_load(&script.enqueues), i);
        cr_expect_eq(lease.resource, &order, "checkout did not get what enqueue made");
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
        laws_await_idle(pool, 1);
    }
    cr_expect_eq(atomic_load(&script.unwrapped), 0);
}

PROMISE(n05_enqueue_may_skip_a_request_which_costs_no_worker_and_no_wait)
{
    struct order order = {.enqueue = COREPOOL_SKIP};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t held = laws_take(pool);
    cr_expect_eq(script_checkout(pool, &order, &lease), COREPOOL_ESKIPPED);
    cr_expect_null(lease.worker);
    cr_expect_eq(atomic_load(&script.checkouts), 1);
    cr_expect_eq(laws_stats(pool).skips, 1);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    cr_expect_eq(awaited_idle(pool, 1).terminated, 0);
    cr_expect_eq(atomic_load(&script.warnings), 0);
}

struct ask {
    corepool_pool_t pool;
    struct order *order;
    struct outcome outcome;
};

static void ask_with_order(void *arg)
{
    struct ask *ask = arg;
    const corepool_checkout_options_t options = {.command = ask->order};
    cr_expect_eq(corepool_checkout_async(ask->pool, &options, outcome_note, &ask->outcome, NULL), COREPOOL_OK);
}

static void expect_told_of(int value, unsigned warnings)
{
    laws_await_count(&script.warnings, warnings);
    cr_expect_eq(atomic_load(&script.warning_code), value);
}

PROMISE(n05_an_enqueue_that_returns_nonsense_skips_the_request_and_everybody_is_told_what_it_was)
{
    struct order order = {.enqueue = 77};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    laws_await_idle(pool, 1);
    cr_expect_eq(script_checkout(pool, &order, &lease), COREPOOL_ESKIPPED);
    laws_expect_detail("enqueue of class scripted returned 77");
    expect_told_of(77, 1);
    order.enqueue = COREPOOL_REMOVE; /* which others may return */
    corepool_lease_t held = laws_take(pool);
    cr_expect_eq(script_checkout(pool, &order, &lease), COREPOOL_ESKIPPED);
    expect_told_of(COREPOOL_REMOVE, 2);
    struct ask ask = {.pool = pool, .order = &order};
    order.enqueue = -78;
    laws_on_shard(0, ask_with_order, &ask);
    laws_await_count(&ask.outcome.called, 1);
    cr_expect_eq(ask.outcome.status, COREPOOL_ESKIPPED);
    cr_expect_not_null(strstr(ask.outcome.detail, "returned -78"), "%s", ask.outcome.detail);
    expect_told_of(-78, 3);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    corepool_stats_t stats = awaited_idle(pool, 1);
    cr_expect_eq(stats.skips, 3);
    cr_expect_eq(stats.terminated, 0);
    cr_expect_eq(atomic_load(&script.queued), 0, "nothing was made of the commands");
}

PROMISE(n05_a_try_whose_enqueue_returns_nonsense_is_skipped_too)
{
    struct order order = {.enqueue = 77};
    corepool_lease_t lease;
    const corepool_checkout_options_t options = {.command = &order};
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    laws_await_idle(pool, 1);
    int status = corepool_checkout_try(pool, &options, &lease);
    cr_expect_eq(status, script.serialised ? COREPOOL_ENOTSUP : COREPOOL_ESKIPPED);
    cr_expect_null(lease.worker);
    laws_await_count(&script.warnings, !script.serialised);
    cr_expect_eq(awaited_idle(pool, 1).terminated, 0);
}

PROMISE(n06_checkout_says_what_the_client_gets)
{
    struct order order = {.client = &order};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    cr_assert_eq(script_checkout(pool, &order, &lease), COREPOOL_OK);
    cr_expect_eq(lease.resource, &order);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n06_checkout_may_remove_workers_and_the_same_request_tries_the_next)
{
    struct order order = {.refusals = 2}, because = {.refusals = 1, .refusal = COREPOOL_REMOVE_BECAUSE(90)};
    struct order nonsense = {.refusals = 1, .refusal = 77};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 3, NULL);
    laws_await_idle(pool, 3);
    cr_assert_eq(script_checkout(pool, &order, &lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_CHECKOUT], 2);
    cr_assert_eq(script_checkout(pool, &because, &lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[90], 1);
    cr_assert_eq(script_checkout(pool, &nonsense, &lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_CHECKOUT], 3);
    laws_await_count(&script.warnings, 1);
    laws_await_idle(pool, 3);
    cr_expect_eq(atomic_load(&script.enqueues), 3, "a request is enqueued once");
}

PROMISE(n06_checkout_may_skip_and_the_worker_stays_ready)
{
    struct order order = {.checkout = COREPOOL_SKIP};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    cr_expect_eq(script_checkout(pool, &order, &lease), COREPOOL_ESKIPPED);
    cr_expect_null(lease.worker);
    corepool_stats_t stats = awaited_idle(pool, 1);
    cr_expect_eq(stats.skips, 1);
    cr_expect_eq(stats.opens, 1);
}

struct refused {
    corepool_pool_t pool;
    struct order order;
    struct outcome outcome;
};

static void ask_for_long(void *arg)
{
    struct refused *refused = arg;
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_SHORT_MS, .command = &refused->order};
    cr_expect_eq(corepool_checkout_async(refused->pool, &options, outcome_note, &refused->outcome, NULL), COREPOOL_OK);
}

PROMISE(n06_a_class_that_refuses_every_worker_does_not_keep_its_shard_to_itself)
{
    static struct refused refused;
    refused = (struct refused){.pool = script_open(&script_class, 1, NULL), .order = {.refusals = INT_MAX}};
    awaited_idle(refused.pool, 1);
    laws_on_shard(0, ask_for_long, &refused);
    laws_await_count(&refused.outcome.called, 1); /* so its timer had a turn */
    cr_expect_eq(refused.outcome.status, COREPOOL_ETIMEDOUT);
    cr_expect_gt(ended_because(COREPOOL_REASON_CHECKOUT), 1);
}

PROMISE(n07_checkin_sees_what_the_client_left_and_may_remove_the_worker_of_a_client_that_is_content)
{
    struct order order = {.client = &order};
    corepool_lease_t lease;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    cr_assert_eq(script_checkout(pool, &order, &lease), COREPOOL_OK);
    lease.resource = &lease;
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.checkins, 1);
    cr_expect_eq(atomic_load(&script.client), &lease);
    cr_expect_eq(awaited_idle(pool, 1).opens, 1);
    const int outcomes[] = {COREPOOL_REMOVE, COREPOOL_REMOVE_BECAUSE(COREPOOL_REASON_MAX), 77};
    for (unsigned i = 0; i < 3; i++) {
        atomic_store(&script.checkin_outcome, outcomes[i]);
        lease = laws_take(pool);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
        laws_await_count(&script.count.terminated, i + 1);
        laws_await_idle(pool, 1);
    }
    cr_expect_eq(ended_because(COREPOOL_REASON_CHECKIN), 2);
    cr_expect_eq(ended_because(COREPOOL_REASON_MAX), 1);
    cr_expect_eq(atomic_load(&script.warnings), 1);
}

struct update {
    corepool_lease_t *lease;
    void *message;
    int status;
    unsigned updates; /* when the call had returned */
};

static void update_here(void *arg)
{
    struct update *update = arg;
    update->status = corepool_update(update->lease, update->message);
    update->updates = atomic_load(&script.updates);
}

PROMISE(n08_update_has_run_on_the_shard_when_the_call_returns_and_terminate_sees_what_it_made)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool), stale = lease;
    cr_expect_eq(corepool_update(&lease, &lease), COREPOOL_OK);
    cr_expect_eq(atomic_load(&script.updates), 1);
    cr_expect_eq(atomic_load(&script.message), &lease);
    struct update update = {.lease = &lease, .message = &script.instead};
    laws_on_shard(0, update_here, &update);
    cr_expect_eq(update.status, COREPOOL_OK);
    cr_expect_eq(update.updates, 2, "on the worker's own shard it runs at once");
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&script.count.terminated, 1);
    cr_expect_eq(atomic_load(&script.replaced), 1, "terminate saw an older worker");
    cr_expect_eq(corepool_update(&lease, NULL), COREPOOL_ESTALE);
    cr_expect_eq(corepool_update(&stale, NULL), COREPOOL_ESTALE);
    cr_expect_eq(corepool_update(NULL, NULL), COREPOOL_EINVAL);
}

PROMISE(n08_update_may_remove_the_worker_once_its_lease_ends)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    atomic_store(&script.update_outcome, COREPOOL_REMOVE);
    cr_expect_eq(corepool_update(&lease, NULL), COREPOOL_OK);
    cr_expect_eq(atomic_load(&script.count.terminated), 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_UPDATE], 1);
}

PROMISE(n08_a_class_without_update_says_so)
{
    corepool_lease_t lease = laws_take(script_open(&script_bare_class, 1, NULL));
    cr_expect_eq(corepool_update(&lease, NULL), COREPOOL_ENOTSUP);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n08_update_on_another_shard_would_deadlock_and_is_refused)
{
    corepool_pool_t pool = script_open_on_two(&script_class, 2, NULL);
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(corepool_pool_at(pool, 0));
    struct update update = {.lease = &lease};
    laws_on_shard(1, update_here, &update);
    cr_expect_eq(update.status, COREPOOL_EDEADLK);
    cr_expect_eq(atomic_load(&script.updates), 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

/* --- visits of idle workers --- */

struct visit_outcomes {
    int by_serial[3];
};

/* Workers in the order in which they became idle, the oldest first: serials 2, 0, 1. What visits answer is set
 * while all are leased, so that it is certain who is visited when. */
static corepool_pool_t open_with_idle(const corepool_pool_options_t *options, struct visit_outcomes outcomes)
{
    static const unsigned order[] = {2, 0, 1};
    corepool_lease_t leases[3] = {{0}};
    corepool_pool_t pool = script_open(&script_class, 3, options);
    for (unsigned i = 0; i < 3; i++) {
        corepool_lease_t lease = laws_take(pool);
        leases[((struct laws_unit *)lease.resource)->serial] = lease;
    }
    atomic_store(&script.visits, 0); /* nobody is idle */
    for (unsigned i = 0; i < 3; i++)
        atomic_store(&script.visit_outcome[i], outcomes.by_serial[i]);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(corepool_checkin(&leases[order[i]]), COREPOOL_OK);
    return pool;
}

static void expect_visits(unsigned from, unsigned first, unsigned second, unsigned third)
{
    laws_await_count(&script.visits, from + 3);
    cr_expect_eq(script.visited[from], first);
    cr_expect_eq(script.visited[from + 1], second);
    cr_expect_eq(script.visited[from + 2], third);
}

PROMISE(n09_info_reaches_every_idle_worker_once_and_none_that_is_leased)
{
    corepool_pool_t pool = open_with_idle(NULL, (struct visit_outcomes){{0}});
    laws_await_idle(pool, 3);
    corepool_lease_t lease = laws_take(pool);
    unsigned leased = ((struct laws_unit *)lease.resource)->serial;
    cr_expect_eq(corepool_pool_info(pool, &lease), COREPOOL_OK);
    cr_expect_eq(atomic_load(&script.visits), 2);
    cr_expect_eq(script.visited[0] + script.visited[1] + leased, 0 + 1 + 2, "each of the others once");
    cr_expect_eq(atomic_load(&script.message), &lease);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n09_info_may_remove_workers)
{
    corepool_pool_t pool = open_with_idle(
        NULL, (struct visit_outcomes){{[0] = COREPOOL_REMOVE, [1] = COREPOOL_REMOVE_BECAUSE(80)}});
    laws_await_idle(pool, 3);
    cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_INFO], 1);
    laws_await_count(&script.count.reasons[80], 1);
    cr_expect_eq(awaited_idle(pool, 3).opens, 5);
}

/* Longer than the checkins before it take on a busy machine. */
#define IDLE_TIMEOUT_MS 150

PROMISE(n10_pings_begin_with_the_oldest_keep_the_order_and_do_not_make_workers_younger)
{
    open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS},
                   (struct visit_outcomes){{0}});
    expect_visits(0, 2, 0, 1);
    expect_visits(3, 2, 0, 1); /* the next period: nobody became younger by the first */
}

/* Uses the newest worker again and again until there were so many visits, and tells how long it was idle at
 * most, in ms. */
static int64_t keep_newest_young(corepool_pool_t pool, unsigned visits)
{
    int64_t longest = 0, used_at = laws_now_ms();
    while (atomic_load(&script.visits) < visits) {
        corepool_lease_t lease = laws_take(pool);
        cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
        int64_t now = laws_now_ms();
        longest = now - used_at > longest ? now - used_at : longest;
        used_at = now;
        poll(NULL, 0, IDLE_TIMEOUT_MS / 50);
    }
    return longest;
}

/* A test that was itself kept from running has not kept the worker young, and tries again. */
PROMISE(n10_pings_stop_at_the_first_that_is_not_idle_for_long_enough)
{
    corepool_pool_t pool = open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS},
                                          (struct visit_outcomes){{0}});
    unsigned from = 0;
    for (unsigned tries = 0; tries < 20; tries++) {
        int64_t idle = keep_newest_young(pool, from + 4);
        if (idle < IDLE_TIMEOUT_MS / 2)
            break;
        from = atomic_load(&script.visits);
        cr_assert_lt(from, SCRIPT_VISITS - 8, "this machine never let the test run");
    }
    for (unsigned i = from; i < from + 4; i++)
        cr_expect_neq(script.visited[i], 1, "the young one was pinged");
    cr_expect_neq(script.visited[from], script.visited[from + 1], "the old ones in turn");
}

PROMISE(n10_a_ping_may_remove_its_worker)
{
    corepool_pool_t pool = open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS},
                                          (struct visit_outcomes){{[0] = COREPOOL_REMOVE}});
    laws_await_count(&script.count.reasons[COREPOOL_REASON_PING], 1);
    expect_visits(0, 2, 0, 1);
    cr_expect_eq(awaited_idle(pool, 3).opens, 4);
}

PROMISE(n10_a_limit_of_none_is_no_ping_at_all)
{
    corepool_pool_t pool = script_open(
        &script_class, 1, &(corepool_pool_options_t){.idle_timeout_ms = 1, .max_idle_pings = COREPOOL_NONE});
    laws_await_idle(pool, 1);
    poll(NULL, 0, LAWS_SHORT_MS);
    cr_expect_eq(atomic_load(&script.visits), 0);
}

static bool is_closed(void *pool)
{
    corepool_stats_t stats;
    return corepool_pool_stats(*(corepool_pool_t *)pool, &stats) == COREPOOL_ECLOSED;
}

PROMISE(n10_a_ping_may_stop_the_pool_for_a_reason_that_everybody_is_told)
{
    corepool_lease_t lease;
    corepool_pool_t pool = open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS},
                                          (struct visit_outcomes){{[2] = COREPOOL_STOP_BECAUSE(70)}});
    cr_assert(laws_eventually(is_closed, &pool));
    cr_expect_eq(atomic_load(&script.visits), 1);
    cr_expect_eq(ended_because(70), 3);
    cr_expect_eq(laws_checkout(pool, LAWS_PATIENCE_MS, &lease), COREPOOL_ECLOSED);
    laws_expect_detail("reason 70"); /* 17 */
}

/* --- ends of requests and leases --- */

PROMISE(n11_a_request_that_times_out_is_cancelled_with_what_enqueue_made_of_it)
{
    struct order order = {0};
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    time_out(pool, &order);
    laws_await_count(&script.queued, 1);
    cr_expect_eq(atomic_load(&script.leased), 0);
    cr_expect_eq(atomic_load(&script.unwrapped), 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n11_a_request_that_waits_when_the_pool_closes_is_cancelled_too)
{
    struct order order = {0};
    struct caller waiter;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    start_waiting(&waiter, pool, &order, 1);
    cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_EBUSY);
    caller_expect(&waiter, COREPOOL_ECLOSED);
    laws_await_count(&script.queued, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

static void ask_and_cancel(void *arg)
{
    struct outcome outcome = {0};
    corepool_request_t request;
    cr_expect_eq(corepool_checkout_async(*(corepool_pool_t *)arg, NULL, outcome_note, &outcome, &request),
                 COREPOOL_OK);
    cr_expect_eq(corepool_request_cancel(request), COREPOOL_OK);
    cr_expect_eq(outcome.status, COREPOOL_ECANCELED);
}

PROMISE(n11_a_request_that_is_cancelled_by_its_client_is_cancelled)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    laws_on_shard(0, ask_and_cancel, &pool);
    laws_await_count(&script.queued, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

/* Detaches its loop with a request waiting there. */
static void ask_and_detach(void *arg)
{
    static struct outcome outcome;
    uv_loop_t loop;
    corepool_attachment_t *attachment;
    cr_expect_eq(uv_loop_init(&loop), 0);
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK);
    cr_expect_eq(corepool_checkout_async(*(corepool_pool_t *)arg, NULL, outcome_note, &outcome, NULL),
                 COREPOOL_OK);
    corepool_loop_detach(attachment);
    cr_expect_eq(outcome.status, COREPOOL_ECANCELED);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

PROMISE(n11_a_request_whose_clients_loop_is_detached_is_cancelled)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    laws_in_thread(-1, ask_and_detach, &pool);
    laws_await_count(&script.queued, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

static bool has_grants(void *pool)
{
    return laws_stats(*(corepool_pool_t *)pool).grants == 2;
}

struct detacher {
    corepool_pool_t pool;
    corepool_lease_t *held;
    struct outcome outcome;
};

/* Detaches its loop with a grant on its way there. */
static void detach_before_grant(void *arg)
{
    struct detacher *detacher = arg;
    uv_loop_t loop;
    corepool_attachment_t *attachment;
    cr_expect_eq(uv_loop_init(&loop), 0);
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK);
    cr_expect_eq(corepool_checkout_async(detacher->pool, NULL, outcome_note, &detacher->outcome, NULL),
                 COREPOOL_OK);
    laws_await_waiting(detacher->pool, 1);
    cr_expect_eq(corepool_checkin(detacher->held), COREPOOL_OK);
    cr_expect(laws_eventually(has_grants, &detacher->pool));
    corepool_loop_detach(attachment);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

/* What enqueue made of it has then had its checkout on the shard (and has its checkin), or is cancelled. */
PROMISE(n11_a_grant_that_finds_its_loop_detached_goes_back_and_its_command_has_one_end)
{
    struct detacher detacher = {.pool = script_open(&script_class, 1, NULL)};
    corepool_lease_t lease;
    cr_assert_eq(laws_checkout(detacher.pool, LAWS_PATIENCE_MS, &lease), COREPOOL_OK);
    while (laws_stats(detacher.pool).grants == 0) { /* one that found it idle on the shelf is no grant */
        struct caller waiter;
        start_waiting(&waiter, detacher.pool, NULL, 1);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
        caller_expect(&waiter, COREPOOL_OK);
        lease = laws_take(detacher.pool);
    }
    detacher.held = &lease;
    laws_in_thread(-1, detach_before_grant, &detacher);
    cr_expect_eq(atomic_load(&detacher.outcome.called), 1);
    cr_expect_eq(detacher.outcome.status, COREPOOL_ECANCELED);
    laws_await_count(&script.queued, !script.serialised);
    cr_expect_eq(awaited_idle(detacher.pool, 1).opens, 1);
}

struct leaver {
    corepool_pool_t pool;
    struct outcome outcome;
    uv_loop_t loop;
};

/* Ends with its request waiting on its own loop, which is of no use to anybody then. */
static void ask_and_die(void *arg)
{
    struct leaver *leaver = arg;
    corepool_attachment_t *attachment;
    cr_expect_eq(uv_loop_init(&leaver->loop), 0);
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &leaver->loop, &attachment), COREPOOL_OK);
    cr_expect_eq(corepool_checkout_async(leaver->pool, NULL, outcome_note, &leaver->outcome, NULL),
                 COREPOOL_OK);
}

static void close_descriptors(const uv_loop_t *abandoned)
{
    close(uv_backend_fd(abandoned));
    close(abandoned->signal_pipefd[0]);
    close(abandoned->signal_pipefd[1]);
    close(abandoned->async_io_watcher.fd);
}

/* A thread that is blocked in a checkout cannot end: that one's request ends first. */
PROMISE(n11_a_request_whose_clients_thread_ends_is_cancelled)
{
    static struct leaver leavers[2]; /* so that what libuv allocated for each stays in reach */
    struct leaver *leaver = &leavers[script.serialised];
    leaver->pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(leaver->pool);
    laws_in_thread(-1, ask_and_die, leaver);
    laws_await_count(&script.queued, 1);
    laws_await_waiting(leaver->pool, 0);
    cr_expect_eq(atomic_load(&leaver->outcome.called), 0, "nobody is left to be called");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(awaited_idle(leaver->pool, 1).opens, 1);
    close_descriptors(&leaver->loop);
}

PROMISE(n11_a_client_that_fails_or_ends_with_its_lease_is_told_of_before_its_worker_ends)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_FAILED], 1);
    laws_in_thread(-1, take_and_die, &pool);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_DOWN], 1);
    cr_expect_eq(atomic_load(&script.leased), 2);
    cr_expect_eq(atomic_load(&script.late_leased), 0);
    cr_expect_eq(atomic_load(&script.wraps[0].leased) + atomic_load(&script.wraps[1].leased), 2);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK); /* done, not failed */
    laws_await_count(&script.count.terminated, 3);
    cr_expect_eq(atomic_load(&script.leased), 2);
    cr_expect_eq(atomic_load(&script.queued), 0);
}

PROMISE(n11_without_enqueue_the_command_is_the_clients_own_and_cancelled_does_not_see_it)
{
    struct order order = {0};
    corepool_pool_t pool = script_open(&script_unwrapped_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    unsigned before = atomic_load(&script.unwrapped); /* checkout sees the client's own */
    time_out(pool, &order);
    laws_await_count(&script.queued, 1);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&script.leased, 1);
    cr_expect_eq(atomic_load(&script.unwrapped), before);
}

PROMISE(n12_terminate_is_told_why)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_because(&lease, 63), COREPOOL_EINVAL);
    laws_expect_detail("reason");
    cr_expect_eq(corepool_checkin_because(&lease, 64), COREPOOL_OK);
    cr_expect_eq(corepool_checkin_because(&lease, 64), COREPOOL_ESTALE);
    laws_in_thread(-1, take_and_die, &pool);
    laws_await_count(&script.count.terminated, 4);
    const corepool_reason_t reasons[] = {COREPOOL_REASON_FAILED, COREPOOL_REASON_REMOVED, COREPOOL_REASON_USER,
                                         COREPOOL_REASON_DOWN};
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(ended_because(reasons[i]), 1, "%s", corepool_reason_text(reasons[i]));
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(ended_because(COREPOOL_REASON_STOP), 1);
}

#define LIMIT_MS 8

/* The look that reports the lease has found it beyond the limit, too. */
static corepool_lease_t hold_too_long(corepool_pool_t pool, unsigned before)
{
    corepool_lease_t lease = laws_take(pool);
    laws_await_count(&script.overdues, before + 1);
    cr_expect_eq(atomic_load(&script.count.terminated), before, "it is in use");
    return lease;
}

static void hold_too_long_and_die(void *pool)
{
    hold_too_long(*(corepool_pool_t *)pool, 1);
}

PROMISE(n12_a_worker_that_was_leased_for_too_long_ends_for_that_reason_also_if_its_clients_thread_ends)
{
    corepool_pool_t pool = script_open(
        &script_class, 1, &(corepool_pool_options_t){.lease_report_ms = LIMIT_MS, .lease_limit_ms = LIMIT_MS});
    corepool_lease_t lease = hold_too_long(pool, 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_TIMEOUT], 1);
    cr_expect_eq(atomic_load(&script.leased), 0);
    laws_in_thread(-1, hold_too_long_and_die, &pool);
    laws_await_count(&script.count.reasons[COREPOOL_REASON_TIMEOUT], 2);
    cr_expect_eq(atomic_load(&script.leased), 1, "a client is gone all the same");
    cr_expect_eq(awaited_idle(pool, 1).reclaimed, 1);
}

PROMISE(n12_a_terminate_that_fails_is_told_and_ignored)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    atomic_store(&script.terminate_outcome, COREPOOL_EPEER);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&script.warnings, 1);
    cr_expect_eq(atomic_load(&script.warning_code), COREPOOL_EPEER);
    cr_expect_eq(awaited_idle(pool, 1).opens, 2);
}

PROMISE(n13_terminate_pool_comes_last)
{
    corepool_pool_t pool = script_open(&script_class, 3, NULL);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_EBUSY);
    laws_await_count(&script.count.terminated, 2);
    cr_expect_eq(atomic_load(&script.count.pool_terminates), 0, "a worker is out");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(atomic_load(&script.count.pool_terminates), 1);
    cr_expect_eq(atomic_load(&script.count.early_pool_terminates), 0);
}

/* --- requests --- */

PROMISE(n14_a_timeout_covers_waiting_only_and_may_be_infinite)
{
    corepool_lease_t lease;
    struct caller waiter; /* waits without a deadline */
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    cr_expect_eq(COREPOOL_TIMEOUT_DEFAULT_MS, 5000);
    laws_await_idle(pool, 1);
    cr_assert_eq(laws_checkout(pool, LAWS_SHORT_MS, &lease), COREPOOL_OK);
    start_waiting(&waiter, pool, NULL, 1);
    poll(NULL, 0, 2 * LAWS_SHORT_MS);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK, "the lease has outlived its checkout's timeout");
    caller_expect(&waiter, COREPOOL_OK);
}

PROMISE(n14_who_waits_is_served_first_come_first_served)
{
    _Atomic unsigned served = 0;
    struct caller waiters[5];
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < 5; i++) {
        waiters[i] = (struct caller){.pool = pool, .served = &served};
        caller_start(&waiters[i]);
        laws_await_waiting(pool, i + 1);
    }
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    for (unsigned i = 0; i < 5; i++) {
        caller_expect(&waiters[i], COREPOOL_OK);
        cr_expect_eq(waiters[i].place, i);
    }
}

static void expect_order_of_use(unsigned flags, bool same)
{
    corepool_pool_t pool = script_open(&script_class, 2, &(corepool_pool_options_t){.flags = flags});
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    const corepool_worker_t *first = lease.worker;
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_idle(pool, 2);
    lease = laws_take(pool);
    cr_expect_eq(lease.worker == first, same);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n15_the_last_worker_used_is_the_next_by_default)
{
    expect_order_of_use(0, true);
}

PROMISE(n15_or_the_one_that_was_idle_longest)
{
    expect_order_of_use(COREPOOL_POOL_FIFO, false);
}

PROMISE(n16_a_waiter_that_times_out_costs_no_worker)
{
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    time_out(pool, NULL);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(awaited_idle(pool, 1).opens, 1);
    cr_expect_eq(atomic_load(&script.count.terminated), 0);
}

PROMISE(n16_a_client_that_fails_or_dies_costs_its_own_worker_and_one_init)
{
    corepool_pool_t pool = script_open(&script_class, 3, NULL);
    laws_await_idle(pool, 3);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    laws_await_count(&script.count.opened, 4);
    laws_await_idle(pool, 3);
    laws_in_thread(-1, take_and_die, &pool);
    laws_await_count(&script.count.opened, 5);
    cr_expect_eq(awaited_idle(pool, 3).terminated, 2);
}

PROMISE(n17_who_waits_when_the_pool_stops_is_told)
{
    struct caller waiters[3];
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < 3; i++)
        start_waiting(&waiters[i], pool, NULL, i + 1);
    cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_EBUSY);
    for (unsigned i = 0; i < 3; i++)
        caller_expect(&waiters[i], COREPOOL_ECLOSED);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n17_who_waits_when_a_ping_stops_the_pool_is_told_its_reason)
{
    struct caller waiters[2];
    corepool_pool_t pool =
        script_open_on_two(&script_class, 2, &(corepool_pool_options_t){.idle_timeout_ms = 20,
                                                                            .policy = COREPOOL_POLICY_LOCAL_ONLY});
    corepool_pool_t there = corepool_pool_at(pool, 1);
    corepool_lease_t lease = laws_take(there);
    for (unsigned i = 0; i < 2; i++)
        start_waiting(&waiters[i], there, NULL, i + 1);
    cr_expect_eq(atomic_load(&script.queued), 0);
    for (unsigned i = 0; i < 2; i++) /* whichever of them is idle on the other shard */
        atomic_store(&script.visit_outcome[i], COREPOOL_STOP_BECAUSE(70));
    for (unsigned i = 0; i < 2; i++) {
        caller_expect(&waiters[i], COREPOOL_ECLOSED);
        cr_expect_not_null(strstr(waiters[i].detail, "reason 70"), "%s", waiters[i].detail);
    }
    laws_await_count(&script.queued, 2);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&script.count.reasons[70], 2);
}

/* --- faults of the original --- */

PROMISE(n18_a_request_that_had_to_wait_keeps_what_enqueue_made_of_its_command)
{
    struct order order = {0};
    struct caller waiter;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    start_waiting(&waiter, pool, &order, 1);
    cr_expect_eq(atomic_load(&script.enqueues), 2);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&waiter, COREPOOL_OK);
    cr_expect_eq(atomic_load(&script.checkouts), 2);
    cr_expect_eq(atomic_load(&script.unwrapped), 0);
}

PROMISE(n19_a_skip_at_the_head_of_the_queue_stalls_nobody_behind_it)
{
    struct order skip = {.checkout = COREPOOL_SKIP}, good = {0};
    struct caller skipped[2], served;
    corepool_pool_t pool = script_open(&script_class, 1, NULL);
    corepool_lease_t lease = laws_take(pool);
    start_waiting(&skipped[0], pool, &skip, 1);
    start_waiting(&skipped[1], pool, &skip, 2);
    start_waiting(&served, pool, &good, 3);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&skipped[0], COREPOOL_ESKIPPED);
    caller_expect(&skipped[1], COREPOOL_ESKIPPED);
    caller_expect(&served, COREPOOL_OK);
    cr_expect_eq(awaited_idle(pool, 1).opens, 1);
}

PROMISE(n20_a_lazy_pools_waiter_gets_a_worker_when_the_holder_dies)
{
    struct caller waiter;
    corepool_pool_t pool =
        script_open(&script_class, 1, &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY});
    corepool_lease_t lease = laws_take(pool);
    start_waiting(&waiter, pool, NULL, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&waiter, COREPOOL_OK);
    laws_in_thread(-1, take_and_die, &pool);
    lease = laws_take(pool); /* waits for the capacity that comes back */
    laws_await_count(&script.count.reasons[COREPOOL_REASON_DOWN], 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

struct holder {
    corepool_pool_t pool;
    _Atomic unsigned holds, may_die;
};

static void *hold_until_told_and_die(void *arg)
{
    corepool_lease_t lease;
    struct holder *holder = arg;
    (void)laws_checkout(holder->pool, LAWS_PATIENCE_MS, &lease);
    atomic_store(&holder->holds, 1);
    laws_await_count(&holder->may_die, 1);
    return NULL;
}

PROMISE(n20_who_waits_already_when_the_holder_dies_is_served_too)
{
    pthread_t thread;
    struct caller waiter;
    struct holder holder = {
        .pool = script_open(&script_class, 1, &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY})};
    cr_assert_eq(pthread_create(&thread, NULL, hold_until_told_and_die, &holder), 0);
    laws_await_count(&holder.holds, 1);
    start_waiting(&waiter, holder.pool, NULL, 1);
    cr_expect_eq(atomic_load(&script.count.opened), 1);
    atomic_store(&holder.may_die, 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    caller_expect(&waiter, COREPOOL_OK);
    cr_expect_eq(ended_because(COREPOOL_REASON_DOWN), 1);
    cr_expect_eq(awaited_idle(holder.pool, 1).opens, 2);
}

PROMISE(n21_a_stop_terminates_what_is_checked_out_when_it_comes_back)
{
    corepool_pool_t pool = script_open(&script_class, 2, NULL);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_pool_close(pool, 0), COREPOOL_EBUSY);
    laws_await_count(&script.count.terminated, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(ended_because(COREPOOL_REASON_STOP), 2);
}

PROMISE(n22_a_ping_that_removes_and_one_that_stops_in_one_round_end_each_worker_once)
{
    corepool_pool_t pool =
        open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS},
                       (struct visit_outcomes){{[0] = COREPOOL_STOP, [2] = COREPOOL_REMOVE}});
    cr_assert(laws_eventually(is_closed, &pool));
    cr_expect_eq(ended_because(COREPOOL_REASON_PING), 1);
    cr_expect_eq(atomic_load(&script.count.terminated), atomic_load(&script.count.opened));
    cr_expect_eq(atomic_load(&script.count.twice), 0);
    cr_expect_eq(atomic_load(&script.count.pool_terminates), 1);
}

struct impatient {
    corepool_pool_t pool;
    _Atomic bool stop;
};

static void *hold_and_let_go(void *arg)
{
    struct impatient *impatient = arg;
    corepool_lease_t lease;
    while (!atomic_load(&impatient->stop)) {
        (void)laws_checkout(impatient->pool, LAWS_PATIENCE_MS, &lease);
        poll(NULL, 0, 1);
        (void)corepool_checkin(&lease);
    }
    return NULL;
}

PROMISE(n23_a_timeout_that_races_its_grant_costs_no_worker)
{
    pthread_t holder;
    corepool_lease_t lease;
    unsigned late = 0;
    struct impatient impatient = {.pool = script_open(&script_class, 1, NULL)};
    cr_assert_eq(pthread_create(&holder, NULL, hold_and_let_go, &impatient), 0);
    for (unsigned i = 0; i < 100; i++) {
        int status = laws_checkout(impatient.pool, 1, &lease);
        late += status == COREPOOL_ETIMEDOUT;
        cr_expect_eq(status == COREPOOL_OK ? corepool_checkin(&lease) : COREPOOL_OK, COREPOOL_OK);
    }
    atomic_store(&impatient.stop, true);
    cr_assert_eq(pthread_join(holder, NULL), 0);
    cr_expect_eq(awaited_idle(impatient.pool, 1).opens, 1);
    laws_await_count(&script.queued, late);
}

/* A grant that is told to nobody until its client has it. */
static struct late_grant {
    _Atomic bool armed;
    _Atomic unsigned held, returned;
} late_grant;

static void keep_from_telling(const corepool_event_t *event, void *arg)
{
    (void)arg;
    if (event->kind != COREPOOL_EVENT_WAITED || !atomic_load(&late_grant.armed))
        return;
    atomic_store(&late_grant.held, 1);
    for (unsigned ms = 0; ms < LAWS_PATIENCE_MS && !atomic_load(&late_grant.returned); ms++)
        poll(NULL, 0, 1);
}

struct short_of_time {
    corepool_pool_t pool;
    int64_t timeout_ms;
    int status, ended;
};

static void *wait_shortly(void *arg)
{
    struct short_of_time *client = arg;
    corepool_lease_t lease;
    client->status = laws_checkout(client->pool, client->timeout_ms, &lease);
    atomic_store(&late_grant.returned, 1);
    client->ended = client->status == COREPOOL_OK ? corepool_checkin(&lease) : COREPOOL_OK;
    return NULL;
}

/* The manager has decided, and wakes nobody before the client returns: so it was its deadline that woke it, too
 * late. */
PROMISE(n23_a_client_whose_deadline_passes_after_its_grant_takes_the_grant)
{
    pthread_t thread;
    corepool_pool_t pool =
        script_open(&script_class, 1, &(corepool_pool_options_t){.on_event = keep_from_telling});
    struct short_of_time client = {.pool = pool,
                                   .timeout_ms = 500}; /* the test has come to its checkin by then */
    late_grant = (struct late_grant){0};
    corepool_lease_t lease = laws_take(pool);
    cr_assert_eq(pthread_create(&thread, NULL, wait_shortly, &client), 0);
    laws_await_waiting(pool, 1);
    atomic_store(&late_grant.armed, true);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(client.status, COREPOOL_OK);
    cr_expect_eq(client.ended, COREPOOL_OK);
    cr_expect_eq(atomic_load(&late_grant.held), 1);
    atomic_store(&late_grant.armed, false);
    corepool_stats_t stats = awaited_idle(pool, 1);
    cr_expect_eq(stats.opens, 1);
    cr_expect_eq(stats.timeouts, 0);
}

/* A request that has timed out, while the manager has not yet been told. */
struct late_news {
    corepool_pool_t pool;
    corepool_lease_t lease;
    _Atomic unsigned called;
    int status, told;
    uint64_t waiting_before, waiting_after;
    unsigned queued;
};

/* The worker comes back, and info has the manager give it to who waits, at once. */
static void bring_worker_back(int status, const corepool_lease_t *lease, void *arg)
{
    struct late_news *news = arg;
    (void)lease;
    news->status = status;
    news->waiting_before = laws_stats(news->pool).waiting;
    (void)corepool_checkin(&news->lease);
    news->told = corepool_pool_info(corepool_pool_at(news->pool, 0), NULL);
    news->waiting_after = laws_stats(news->pool).waiting;
    news->queued = atomic_load(&script.queued);
    atomic_store(&news->called, 1);
}

static void ask_with_late_news(void *arg)
{
    struct late_news *news = arg;
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_SHORT_MS};
    cr_expect_eq(corepool_checkout_async(news->pool, &options, bring_worker_back, news, NULL), COREPOOL_OK);
}

PROMISE(n23_a_grant_that_finds_its_client_timed_out_costs_no_worker)
{
    struct late_news news = {.pool = script_open(&script_class, 1, NULL)};
    news.lease = laws_take(news.pool);
    laws_on_shard(0, ask_with_late_news, &news);
    laws_await_count(&news.called, 1);
    cr_expect_eq(news.status, COREPOOL_ETIMEDOUT);
    cr_expect_eq(news.told, COREPOOL_OK);
    cr_expect_eq(news.waiting_before, 1, "it is still in the queue");
    cr_expect_eq(news.waiting_after, 0, "the manager came to it …");
    cr_expect_eq(news.queued, 0, "… before it knew of the timeout");
    laws_await_count(&script.queued, 1);
    cr_expect_eq(awaited_idle(news.pool, 1).opens, 1);
    cr_expect_eq(laws_stats(news.pool).timeouts, 1);
}

struct many {
    corepool_pool_t pool;
    struct outcome outcomes[50];
};

static void ask_many(void *arg)
{
    struct many *many = arg;
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_SHORT_MS};
    for (unsigned i = 0; i < 50; i++)
        cr_expect_eq(corepool_checkout_async(many->pool, &options, outcome_note, &many->outcomes[i], NULL),
                     COREPOOL_OK);
}

PROMISE(n24_requests_that_have_timed_out_do_not_stay_in_the_queue)
{
    struct many many = {.pool = script_open(&script_class, 1, NULL)};
    corepool_lease_t lease = laws_take(many.pool);
    laws_on_shard(0, ask_many, &many);
    for (unsigned i = 0; i < 50; i++) {
        laws_await_count(&many.outcomes[i].called, 1);
        cr_expect_eq(many.outcomes[i].status, COREPOOL_ETIMEDOUT);
    }
    laws_await_waiting(many.pool, 0); /* though nobody has come to the end of the queue */
    laws_await_count(&script.queued, 50);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

static bool has_pending(void *arg)
{
    (void)arg;
    return atomic_load(&script.count.pending);
}

static void fail_pending(void *arg)
{
    (void)arg;
    corepool_worker_failed(atomic_load(&script.count.pending), COREPOOL_EOPEN);
}

PROMISE(n25_an_async_init_that_fails_and_then_succeeds_at_once_serves_who_waits)
{
    struct caller waiter;
    atomic_store(&script.count.pend_inits, true);
    corepool_pool_t pool =
        script_open(&script_class, 1, &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY});
    start_waiting(&waiter, pool, NULL, 1);
    cr_assert(laws_eventually(has_pending, NULL));
    atomic_store(&script.count.pend_inits, false);
    laws_on_shard(0, fail_pending, NULL);
    caller_expect(&waiter, COREPOOL_OK);
    corepool_stats_t stats = awaited_idle(pool, 1);
    cr_expect_eq(stats.open_failures, 1);
    cr_expect_eq(stats.opens, 2);
}

PROMISE(n25_failing_inits_back_off)
{
    atomic_store(&script.count.fail_inits, -1);
    corepool_pool_t pool = script_open(
        &script_class, 1, &(corepool_pool_options_t){.backoff_min_ms = 60000, .backoff_max_ms = 60000});
    time_out(pool, NULL);
    cr_expect_eq(laws_stats(pool).opens, 1, "half a minute has not passed");
}

static void take_and_check_in(corepool_pool_t pool)
{
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

PROMISE(n26_a_slow_terminate_or_init_blocks_no_checkout)
{
    laws_warm_thread_pool();
    corepool_pool_t pool = script_open(&laws_blocking_class, 2, NULL);
    laws_await_idle(pool, 2);
    atomic_store(&script.count.hold, true);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    laws_await_count(&script.count.held, 1); /* terminate, or the init that follows it */
    take_and_check_in(pool);
    take_and_check_in(pool);
    atomic_store(&script.count.hold, false);
    laws_await_idle(pool, 2);
}

PROMISE(n27_with_a_limit_of_pings_each_idle_worker_has_its_turn)
{
    open_with_idle(&(corepool_pool_options_t){.idle_timeout_ms = IDLE_TIMEOUT_MS, .max_idle_pings = 1},
                   (struct visit_outcomes){{0}});
    expect_visits(0, 2, 0, 1);
}
