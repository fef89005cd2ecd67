/* tests/async_test.c: asynchronous checkouts of code that lives on a shard. */
#include <criterion/criterion.h>

#include <poll.h>
#include <string.h>

#include "support/callers.h"

#define CHAIN 10000
/* Each link that is served at once is a call deeper. */
#define DEEP 500

/* One checkout as shard code makes it; the fields below `pool` are filled in there. */
struct shard_call {
    corepool_pool_t pool;
    int64_t timeout_ms;
    void *command;
    struct outcome outcome;
    corepool_request_t request;
    int accepted, again, ended;
    unsigned called_within;
};

static corepool_pool_t start_one(struct laws_count *count, unsigned size)
{
    corepool_pool_t pool = laws_start_one(&laws_class, count, size, 0);
    laws_await_idle(pool, size);
    return pool;
}

static void ask(void *arg)
{
    struct shard_call *call = arg;
    const corepool_checkout_options_t options = {.timeout_ms = call->timeout_ms, .command = call->command};
    call->accepted =
        corepool_checkout_async(call->pool, &options, outcome_note, &call->outcome, &call->request);
    call->called_within = atomic_load(&call->outcome.called);
}

static void check_in(void *arg)
{
    struct shard_call *call = arg;
    call->ended = corepool_checkin(&call->outcome.lease);
}

static void cancel_twice(void *arg)
{
    struct shard_call *call = arg;
    call->accepted = corepool_request_cancel(call->request);
    call->called_within = atomic_load(&call->outcome.called);
    call->again = corepool_request_cancel(call->request);
}

/* --- outcomes --- */

Test(async, an_idle_worker_is_had_before_the_call_returns)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1)};
    laws_on_shard(0, ask, &call);
    cr_expect_eq(call.accepted, COREPOOL_OK);
    cr_expect_eq(call.called_within, 1);
    cr_expect_eq(call.outcome.status, COREPOOL_OK);
    cr_expect_null(call.request.impl, "it did not wait");
    laws_on_shard(0, check_in, &call);
    cr_expect_eq(call.ended, COREPOOL_OK);
    laws_end();
}

static void *check_in_cancelled(void *lease)
{
    pthread_cancel(pthread_self());
    corepool_checkin(lease);
    return NULL;
}

Test(async, who_is_cancelled_in_its_checkin_wakes_who_waits_first)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1), .timeout_ms = COREPOOL_INFINITE};
    corepool_lease_t lease = laws_take(call.pool);
    pthread_t thread;
    laws_on_shard(0, ask, &call);
    laws_await_waiting(call.pool, 1);
    poll(NULL, 0, LAWS_SHORT_MS); /* its loop sleeps by then */
    cr_assert_eq(pthread_create(&thread, NULL, check_in_cancelled, &lease), 0);
    pthread_join(thread, NULL);
    laws_await_count(&call.outcome.called, 1);
    cr_expect_eq(call.outcome.status, COREPOOL_OK);
    laws_on_shard(0, check_in, &call);
    laws_end();
}

Test(async, a_miss_is_granted_later_on_the_same_shard)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1)};
    corepool_lease_t lease = laws_take(call.pool);
    laws_on_shard(0, ask, &call);
    cr_expect_eq(call.accepted, COREPOOL_OK);
    cr_expect_eq(call.called_within, 0);
    laws_await_waiting(call.pool, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&call.outcome.called, 1);
    cr_expect_eq(call.outcome.status, COREPOOL_OK);
    cr_expect_not_null(call.outcome.on);
    laws_on_shard(0, check_in, &call);
    cr_expect_eq(call.ended, COREPOOL_OK);
    laws_end();
    cr_expect_eq(atomic_load(&call.outcome.called), 1);
}

Test(async, a_request_that_waits_too_long_is_told_why_and_costs_no_worker)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1), .timeout_ms = LAWS_SHORT_MS};
    corepool_lease_t lease = laws_take(call.pool);
    laws_on_shard(0, ask, &call);
    laws_await_count(&call.outcome.called, 1);
    cr_expect_eq(call.outcome.status, COREPOOL_ETIMEDOUT);
    cr_expect_not_null(strstr(call.outcome.detail, "timed out after 20 ms"), "%s", call.outcome.detail);
    cr_expect_not_null(call.outcome.on);
    laws_await_waiting(call.pool, 0);
    cr_expect_eq(laws_stats(call.pool).timeouts, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
    cr_expect_eq(atomic_load(&call.outcome.called), 1);
}

Test(async, cancel_runs_the_callback_before_it_returns_and_a_second_cancel_is_stale)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1)};
    corepool_lease_t lease = laws_take(call.pool);
    laws_on_shard(0, ask, &call);
    cr_expect_eq(corepool_request_cancel(call.request), COREPOOL_ETHREAD);
    laws_on_shard(0, cancel_twice, &call);
    cr_expect_eq(call.accepted, COREPOOL_OK);
    cr_expect_eq(call.called_within, 1);
    cr_expect_eq(call.again, COREPOOL_ESTALE);
    cr_expect_eq(call.outcome.status, COREPOOL_ECANCELED);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_waiting(call.pool, 0);
    cr_expect_eq(laws_stats(call.pool).cancels, 1);
    laws_end();
    cr_expect_eq(atomic_load(&call.outcome.called), 1);
}

Test(async, cancel_after_the_grant_is_stale_and_leaves_later_requests_alone)
{
    struct laws_count count = {0};
    struct shard_call first = {.pool = start_one(&count, 1)}, second = first;
    corepool_lease_t lease = laws_take(first.pool);
    laws_on_shard(0, ask, &first);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&first.outcome.called, 1);
    laws_on_shard(0, ask, &second); /* its object is the first one's */
    laws_on_shard(0, cancel_twice, &first);
    cr_expect_eq(first.accepted, COREPOOL_ESTALE);
    cr_expect_eq(atomic_load(&second.outcome.called), 0);
    laws_on_shard(0, check_in, &first);
    laws_await_count(&second.outcome.called, 1);
    cr_expect_eq(second.outcome.status, COREPOOL_OK);
    laws_on_shard(0, check_in, &second);
    laws_end();
}

Test(async, a_request_that_waits_ends_as_closed_with_its_pool)
{
    struct laws_count count = {.fail_inits = -1};
    struct shard_call call = {.pool = laws_start_one(&laws_class, &count, 1, 0),
                              .timeout_ms = COREPOOL_INFINITE};
    laws_on_shard(0, ask, &call);
    laws_await_waiting(call.pool, 1);
    cr_expect_eq(corepool_pool_close(call.pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    laws_await_count(&call.outcome.called, 1);
    cr_expect_eq(call.outcome.status, COREPOOL_ECLOSED);
    laws_end();
}

/* --- what is refused --- */

static void ask_for_nothing(void *arg)
{
    struct shard_call *call = arg;
    call->accepted = corepool_checkout_async(call->pool, NULL, NULL, NULL, NULL);
}

Test(async, what_is_refused_never_calls_back)
{
    struct laws_count count = {0};
    struct shard_call call = {.pool = start_one(&count, 1), .timeout_ms = -7};
    ask(&call);
    cr_expect_eq(call.accepted, COREPOOL_EINVAL);
    laws_expect_detail("timeout_ms: -7");
    call.timeout_ms = 0;
    ask(&call);
    cr_expect_eq(call.accepted, COREPOOL_ETHREAD, "neither a shard nor a loop");
    laws_on_shard(0, ask_for_nothing, &call);
    cr_expect_eq(call.accepted, COREPOOL_EINVAL);
    cr_expect_eq(corepool_request_cancel((corepool_request_t){0}), COREPOOL_ESTALE);
    cr_expect_eq(atomic_load(&call.outcome.called), 0);
    laws_end();
}

/* --- the class's callbacks --- */

static int obey(void *command)
{
    _Atomic int *left = command;
    if (!left)
        return COREPOOL_OK;
    return atomic_load(left) < 0           ? COREPOOL_SKIP
           : atomic_fetch_sub(left, 1) > 0 ? COREPOOL_REMOVE
                                           : COREPOOL_OK;
}

Test(async, skip_and_remove_mean_what_they_mean_to_a_blocking_checkout)
{
    struct laws_count count = {.on_checkout = obey};
    _Atomic int skip = -1, remove_four = 4;
    struct shard_call call = {.pool = start_one(&count, 2), .command = (void *)&skip}, next = call;
    laws_on_shard(0, ask, &call);
    cr_expect_eq(call.outcome.status, COREPOOL_ESKIPPED);
    cr_expect_eq(atomic_load(&count.terminated), 0);
    next.command = (void *)&remove_four;
    laws_on_shard(0, ask, &next);
    laws_await_count(&next.outcome.called, 1);
    cr_expect_eq(next.outcome.status, COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_CHECKOUT], 4);
    laws_on_shard(0, check_in, &next);
    laws_await_idle(call.pool, 2);
    laws_end();
    cr_expect_eq(atomic_load(&call.outcome.called) + atomic_load(&next.outcome.called), 2);
}

/* --- callbacks that call --- */

struct chain {
    corepool_pool_t pool;
    unsigned left, failed;
    bool keeps_while_asking; /* so that each waits for the one before */
    unsigned depth, deepest; /* of calls within calls */
    _Atomic unsigned ended;
};

static void link_chain(int status, const corepool_lease_t *held, void *arg)
{
    struct chain *chain = arg;
    corepool_lease_t lease = held ? *held : (corepool_lease_t){0};
    if (++chain->depth > chain->deepest)
        chain->deepest = chain->depth;
    chain->failed += status != COREPOOL_OK;
    if (status == COREPOOL_OK && !chain->keeps_while_asking)
        chain->failed += corepool_checkin(&lease) != COREPOOL_OK;
    if (chain->left-- == 0)
        atomic_store(&chain->ended, 1);
    else
        chain->failed += corepool_checkout_async(chain->pool, NULL, link_chain, chain, NULL) != COREPOOL_OK;
    if (lease.worker)
        chain->failed += corepool_checkin(&lease) != COREPOOL_OK;
    chain->depth--;
}

static void start_chain(void *arg)
{
    struct chain *chain = arg;
    chain->failed += corepool_checkout_async(chain->pool, NULL, link_chain, chain, NULL) != COREPOOL_OK;
}

Test(async, ten_thousand_in_a_row_each_asked_for_by_the_callback_before)
{
    struct laws_count count = {0};
    struct chain chain = {.pool = start_one(&count, 1), .left = CHAIN, .keeps_while_asking = true};
    laws_on_shard(0, start_chain, &chain);
    laws_await_count(&chain.ended, 1);
    cr_expect_eq(chain.failed, 0);
    laws_await_idle(chain.pool, 1);
    cr_expect_eq(laws_stats(chain.pool).checkouts, CHAIN + 1);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

Test(async, a_callback_may_check_in_and_out_again_before_it_returns)
{
    struct laws_count count = {0};
    struct chain chain = {.pool = start_one(&count, 1), .left = DEEP};
    laws_on_shard(0, start_chain, &chain);
    cr_expect_eq(atomic_load(&chain.ended), 1, "all within the first call");
    cr_expect_eq(chain.failed, 0);
    cr_expect_eq(laws_stats(chain.pool).shelf_hits, DEEP + 1);
    laws_end();
}

/* The turns of a shard's loop. */
struct turns {
    uv_check_t check;
    unsigned count;
    _Atomic unsigned closed;
};

static void count_turn(uv_check_t *check)
{
    ((struct turns *)check->data)->count++;
}

static void begin_turns(void *arg)
{
    struct turns *turns = arg;
    turns->check.data = turns;
    uv_check_init(corepool_shard_loop(corepool_shard_current()), &turns->check);
    uv_check_start(&turns->check, count_turn);
}

static void note_closed(uv_handle_t *check)
{
    atomic_store(&((struct turns *)check->data)->closed, 1);
}

static void end_turns(void *arg)
{
    uv_close((uv_handle_t *)&((struct turns *)arg)->check, note_closed);
}

/* A chain that begins with a grant to who waits: its links take few turns of the loop, but the loop has its turns. */
static void chain_from_a_grant(unsigned flags, bool keeps_while_asking)
{
    struct laws_count count = {0};
    struct turns turns = {.count = 0};
    struct chain chain = {.pool = laws_start_one(&laws_class, &count, 1, flags), .left = CHAIN,
                          .keeps_while_asking = keeps_while_asking};
    corepool_lease_t lease = laws_take(chain.pool);
    laws_on_shard(0, begin_turns, &turns);
    laws_on_shard(0, start_chain, &chain);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&chain.ended, 1);
    laws_on_shard(0, end_turns, &turns);
    laws_await_count(&turns.closed, 1);
    cr_expect_eq(chain.failed, 0);
    cr_expect_eq(chain.deepest, 1, "%u deep", chain.deepest);
    cr_expect_leq(turns.count, CHAIN / 16, "%u turns", turns.count);
    cr_expect_geq(turns.count, CHAIN / 64, "%u turns", turns.count);
    laws_await_idle(chain.pool, 1);
    cr_expect_eq(laws_stats(chain.pool).checkouts, CHAIN + 2);
    laws_end();
}

Test(async, callbacks_of_grants_that_ask_again_are_served_many_in_one_turn_of_the_loop_and_do_not_nest)
{
    chain_from_a_grant(0, true);
}

Test(async, serialised_callbacks_of_grants_that_ask_again_are_served_many_in_one_turn_and_do_not_nest)
{
    chain_from_a_grant(COREPOOL_POOL_SERIALISED, false);
}

Test(async, serialised_ones_that_ask_before_they_give_back_likewise)
{
    chain_from_a_grant(COREPOOL_POOL_SERIALISED, true);
}

struct pair {
    corepool_pool_t pool;
    corepool_request_t other;
    struct outcome second;
    int cancelled, ended;
    _Atomic unsigned called;
};

static void cancel_the_other(int status, const corepool_lease_t *held, void *arg)
{
    struct pair *pair = arg;
    corepool_lease_t lease = *held;
    (void)status;
    pair->cancelled = corepool_request_cancel(pair->other);
    pair->ended = corepool_checkin(&lease);
    atomic_store(&pair->called, 1);
}

static void ask_for_two(void *arg)
{
    struct pair *pair = arg;
    pair->cancelled = corepool_checkout_async(pair->pool, NULL, cancel_the_other, pair, NULL);
    pair->ended = corepool_checkout_async(pair->pool, NULL, outcome_note, &pair->second, &pair->other);
}

Test(async, a_callback_may_cancel_the_request_behind_it)
{
    struct laws_count count = {0};
    struct pair pair = {.pool = start_one(&count, 1)};
    corepool_lease_t lease = laws_take(pair.pool);
    laws_on_shard(0, ask_for_two, &pair);
    cr_expect_eq(pair.cancelled, COREPOOL_OK);
    cr_expect_eq(pair.ended, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&pair.called, 1);
    cr_expect_eq(pair.cancelled, COREPOOL_OK);
    cr_expect_eq(pair.second.status, COREPOOL_ECANCELED);
    cr_expect_eq(pair.ended, COREPOOL_OK);
    laws_await_idle(pair.pool, 1);
    laws_end();
}

/* --- between shards --- */

static void end_for_other(void *arg)
{
    struct shard_call *call = arg;
    call->ended = corepool_checkin(&call->outcome.lease);
}

Test(async, a_shard_may_ask_another_shard_s_slice_and_gets_its_answer_at_home)
{
    struct laws_count count = {0};
    laws_need_second_cpu();
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&laws_class, &count, 1, COREPOOL_POOL_PER_SHARD);
    struct shard_call call = {.pool = corepool_pool_at(pool, 1)};
    laws_await_idle(call.pool, 1);
    for (unsigned i = 1; i <= 50; i++) {
        laws_on_shard(0, ask, &call);
        laws_await_count(&call.outcome.called, i);
        cr_assert_eq(call.outcome.status, COREPOOL_OK);
        cr_assert_eq(corepool_shard_index(call.outcome.on), 0);
        cr_assert_eq(corepool_shard_index(corepool_worker_shard(call.outcome.lease.worker)), 1);
        laws_on_shard(i % 2, end_for_other, &call); /* given back at home, or elsewhere */
        cr_assert_eq(call.ended, COREPOOL_OK);
    }
    laws_end();
}
