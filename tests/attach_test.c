/* tests/attach_test.c: asynchronous checkouts that complete on a program's own libuv loop. */
#include <criterion/criterion.h>

#include <string.h>
#include <unistd.h>

#include "support/callers.h"

#define CHAIN 10000

static uv_loop_t loop;
static corepool_attachment_t *attachment;

/* One shard, `size` idle workers, and the test's loop attached. */
static corepool_pool_t start_attached(struct laws_count *count, unsigned size)
{
    corepool_pool_t pool = laws_start_one(&laws_class, count, size, 0);
    laws_await_idle(pool, size);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return pool;
}

static void close_loop(void)
{
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0, "the attachment left a handle");
}

static void end_attached(void)
{
    corepool_loop_detach(attachment);
    close_loop();
    laws_end();
}

static corepool_request_t ask(corepool_pool_t pool, int64_t timeout_ms, struct outcome *outcome)
{
    corepool_request_t request;
    const corepool_checkout_options_t options = {.timeout_ms = timeout_ms};
    cr_assert_eq(corepool_checkout_async(pool, &options, outcome_note, outcome, &request), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return request;
}

static void check_in(corepool_lease_t *lease)
{
    cr_expect_eq(corepool_checkin(lease), COREPOOL_OK, "%s", corepool_error_detail());
}

/* --- outcomes --- */

Test(attach, an_idle_worker_is_had_at_once)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    cr_expect_null(ask(pool, 0, &outcome).impl);
    cr_expect_eq(atomic_load(&outcome.called), 1);
    cr_expect_null(outcome.on);
    check_in(&outcome.lease);
    end_attached();
}

Test(attach, a_request_keeps_the_loop_alive_until_it_is_granted_and_no_longer)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    cr_expect_not(uv_loop_alive(&loop), "an attachment alone does not keep it");
    corepool_lease_t lease = laws_take(pool);
    ask(pool, COREPOOL_INFINITE, &outcome);
    cr_expect(uv_loop_alive(&loop));
    check_in(&lease);
    uv_run(&loop, UV_RUN_DEFAULT); /* ends by itself */
    cr_expect_eq(atomic_load(&outcome.called), 1);
    cr_expect_eq(outcome.status, COREPOOL_OK);
    cr_expect_not(uv_loop_alive(&loop));
    check_in(&outcome.lease);
    end_attached();
}

Test(attach, requests_are_granted_in_their_order)
{
    struct laws_count count = {0};
    struct outcome outcomes[5] = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < 5; i++)
        ask(pool, COREPOOL_INFINITE, &outcomes[i]);
    for (unsigned i = 0; i < 5; i++) {
        check_in(&lease);
        while (atomic_load(&outcomes[i].called) == 0)
            uv_run(&loop, UV_RUN_ONCE);
        cr_expect(i == 4 || atomic_load(&outcomes[i + 1].called) == 0);
        lease = outcomes[i].lease;
    }
    check_in(&lease);
    end_attached();
}

Test(attach, a_request_that_waits_too_long_times_out_on_the_loop)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    int64_t before = laws_now_ms();
    ask(pool, LAWS_SHORT_MS, &outcome);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_geq(laws_now_ms() - before, LAWS_SHORT_MS - 1);
    cr_expect_eq(outcome.status, COREPOOL_ETIMEDOUT);
    cr_expect_not_null(strstr(outcome.detail, "timed out"), "%s", outcome.detail);
    check_in(&lease);
    end_attached();
    cr_expect_eq(atomic_load(&outcome.called), 1);
}

Test(attach, cancel_ends_a_request_and_a_second_cancel_is_stale)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    corepool_request_t request = ask(pool, COREPOOL_INFINITE, &outcome);
    cr_expect_eq(corepool_request_cancel(request), COREPOOL_OK);
    cr_expect_eq(atomic_load(&outcome.called), 1);
    cr_expect_eq(outcome.status, COREPOOL_ECANCELED);
    cr_expect_eq(corepool_request_cancel(request), COREPOOL_ESTALE);
    cr_expect_not(uv_loop_alive(&loop));
    check_in(&lease);
    end_attached();
}

static bool is_granted(void *arg)
{
    return laws_stats(*(corepool_pool_t *)arg).grants == 1;
}

Test(attach, cancel_of_a_grant_on_its_way_is_stale_and_the_callback_brings_it)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    corepool_request_t request = ask(pool, COREPOOL_INFINITE, &outcome);
    check_in(&lease);
    cr_assert(laws_eventually(is_granted, &pool));
    cr_expect_eq(corepool_request_cancel(request), COREPOOL_ESTALE);
    cr_expect_eq(atomic_load(&outcome.called), 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(outcome.status, COREPOOL_OK);
    check_in(&outcome.lease);
    end_attached();
}

Test(attach, a_stop_ends_requests_that_wait_on_the_loop)
{
    struct laws_count count = {.fail_inits = -1};
    struct outcome outcome = {0};
    corepool_pool_t pool = laws_start_one(&laws_class, &count, 1, 0);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK);
    ask(pool, COREPOOL_INFINITE, &outcome);
    cr_expect_eq(corepool_runtime_stop(laws_runtime(), LAWS_PATIENCE_MS), COREPOOL_OK);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(outcome.status, COREPOOL_ECLOSED);
    end_attached();
    cr_expect_eq(atomic_load(&outcome.called), 1);
}

/* --- attaching --- */

static void attach_here(void *arg)
{
    uv_loop_t *own = corepool_shard_loop(corepool_shard_current());
    corepool_attachment_t *none;
    *(int *)arg = corepool_loop_attach(laws_runtime(), own, &none);
}

Test(attach, one_loop_per_thread_and_none_on_a_shard)
{
    struct laws_count count = {0};
    corepool_attachment_t *second = (corepool_attachment_t *)&count;
    int on_shard = COREPOOL_OK;
    corepool_pool_t pool = start_attached(&count, 1);
    struct outcome outcome = {0};
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &loop, &second), COREPOOL_ETHREAD);
    laws_expect_detail("attached already");
    cr_expect_null(second);
    cr_expect_eq(corepool_loop_attach(NULL, &loop, &second), COREPOOL_EINVAL);
    cr_expect_eq(corepool_loop_attach(laws_runtime(), NULL, &second), COREPOOL_EINVAL);
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &loop, NULL), COREPOOL_EINVAL);
    laws_on_shard(0, attach_here, &on_shard);
    cr_expect_eq(on_shard, COREPOOL_ETHREAD);
    corepool_loop_detach(NULL);
    corepool_loop_detach(attachment);
    cr_expect_eq(corepool_checkout_async(pool, NULL, outcome_note, &outcome, NULL), COREPOOL_ETHREAD);
    cr_assert_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK, "again after a detach");
    end_attached();
}

Test(attach, detach_cancels_what_waits_each_before_it_returns)
{
    struct laws_count count = {0};
    struct outcome outcomes[3] = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    for (unsigned i = 0; i < 3; i++)
        ask(pool, COREPOOL_INFINITE, &outcomes[i]);
    corepool_loop_detach(attachment);
    for (unsigned i = 0; i < 3; i++) {
        cr_expect_eq(atomic_load(&outcomes[i].called), 1);
        cr_expect_eq(outcomes[i].status, COREPOOL_ECANCELED);
    }
    close_loop();
    check_in(&lease);
    laws_await_idle(pool, 1);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

static corepool_attachment_t *attached_again;
static corepool_pool_t again;
static struct outcome later;

static void attach_again(int status, const corepool_lease_t *lease, void *called)
{
    (void)lease;
    *(int *)called = status;
    cr_expect_eq(corepool_loop_attach(laws_runtime(), &loop, &attached_again), COREPOOL_OK, "%s", corepool_error_detail());
    ask(again, COREPOOL_INFINITE, &later);
}

Test(attach, a_callback_that_detach_runs_may_attach_again)
{
    struct laws_count count = {0};
    int status = COREPOOL_OK;
    again = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(again);
    const corepool_checkout_options_t patient = {.timeout_ms = COREPOOL_INFINITE};
    cr_assert_eq(corepool_checkout_async(again, &patient, attach_again, &status, NULL), COREPOOL_OK);
    corepool_loop_detach(attachment);
    cr_expect_eq(status, COREPOOL_ECANCELED);
    check_in(&lease);
    while (atomic_load(&later.called) == 0)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(later.status, COREPOOL_OK);
    check_in(&later.lease);
    attachment = attached_again;
    end_attached();
}

Test(attach, detach_gives_back_a_grant_that_is_on_its_way)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_pool_t pool = start_attached(&count, 1);
    corepool_lease_t lease = laws_take(pool);
    ask(pool, COREPOOL_INFINITE, &outcome);
    check_in(&lease);
    cr_assert(laws_eventually(is_granted, &pool));
    corepool_loop_detach(attachment);
    cr_expect_eq(atomic_load(&outcome.called), 1);
    cr_expect_eq(outcome.status, COREPOOL_ECANCELED);
    close_loop();
    laws_await_idle(pool, 1);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 1, "the worker was not lost");
}

/* --- callbacks that call --- */

struct chain {
    corepool_pool_t pool;
    unsigned left, failed;
};

/* Asks for the next while it holds this one, so that each of them waits. */
static void link_chain(int status, const corepool_lease_t *held, void *arg)
{
    struct chain *chain = arg;
    corepool_lease_t lease = held ? *held : (corepool_lease_t){0};
    chain->failed += status != COREPOOL_OK;
    if (chain->left-- > 0)
        chain->failed += corepool_checkout_async(chain->pool, NULL, link_chain, chain, NULL) != COREPOOL_OK;
    chain->failed += corepool_checkin(&lease) != COREPOOL_OK;
}

Test(attach, ten_thousand_in_a_row_each_asked_for_by_the_callback_before)
{
    struct laws_count count = {0};
    struct chain chain = {.left = CHAIN};
    chain.pool = start_attached(&count, 1);
    cr_assert_eq(corepool_checkout_async(chain.pool, NULL, link_chain, &chain, NULL), COREPOOL_OK);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(chain.left, (unsigned)-1);
    cr_expect_eq(chain.failed, 0);
    cr_expect_eq(laws_stats(chain.pool).checkouts, CHAIN + 1);
    end_attached();
    cr_expect_eq(atomic_load(&count.opened), 1);
}

static void detach_inside(int status, const corepool_lease_t *held, void *arg)
{
    corepool_lease_t lease = *held;
    unsigned *failed = arg;
    *failed += status != COREPOOL_OK;
    corepool_loop_detach(attachment);
    *failed += corepool_checkin(&lease) != COREPOOL_OK;
}

static bool both_granted(void *arg)
{
    return laws_stats(*(corepool_pool_t *)arg).grants == 2;
}

Test(attach, a_callback_may_detach_while_the_next_grant_is_on_its_way)
{
    struct laws_count count = {0};
    struct outcome outcome = {0};
    unsigned failed = 0;
    corepool_pool_t pool = start_attached(&count, 2);
    corepool_lease_t first = laws_take(pool), second = laws_take(pool);
    cr_assert_eq(corepool_checkout_async(pool, NULL, detach_inside, &failed, NULL), COREPOOL_OK);
    ask(pool, COREPOOL_INFINITE, &outcome);
    check_in(&first);
    check_in(&second);
    cr_assert(laws_eventually(both_granted, &pool));
    close_loop();
    cr_expect_eq(failed, 0);
    cr_expect_eq(atomic_load(&outcome.called), 1);
    cr_expect_eq(outcome.status, COREPOOL_ECANCELED);
    laws_await_idle(pool, 2);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 2);
}

/* --- threads that end without detaching --- */

struct leaver {
    corepool_pool_t pool;
    struct outcome waiting, held;
    int attached, asked;
    uv_loop_t loop; /* of no use afterwards: the program has broken its promise to detach */
};

static void attach_and_leave(void *arg)
{
    struct leaver *leaver = arg;
    corepool_attachment_t *mine;
    uv_loop_init(&leaver->loop);
    leaver->attached = corepool_loop_attach(laws_runtime(), &leaver->loop, &mine);
    leaver->asked = corepool_checkout_async(leaver->pool, NULL, outcome_note, &leaver->held, NULL);
    for (unsigned i = 0; i < 3; i++)
        leaver->asked |= corepool_checkout_async(leaver->pool, NULL, outcome_note, &leaver->waiting, NULL);
}

/* What the loop's end would have closed. */
static void close_descriptors(const uv_loop_t *abandoned)
{
    close(uv_backend_fd(abandoned));
    close(abandoned->signal_pipefd[0]);
    close(abandoned->signal_pipefd[1]);
    close(abandoned->async_io_watcher.fd);
}

Test(attach, a_thread_that_ends_without_detaching_leaves_no_request_and_no_lease)
{
    static struct leaver leaver;
    struct laws_count count = {0};
    leaver.pool = laws_start_one(&laws_class, &count, 1, 0);
    laws_await_idle(leaver.pool, 1);
    laws_in_thread(-1, attach_and_leave, &leaver);
    cr_expect_eq(leaver.attached, COREPOOL_OK);
    cr_expect_eq(leaver.asked, COREPOOL_OK);
    cr_expect_eq(atomic_load(&leaver.held.called), 1);
    cr_expect_eq(atomic_load(&leaver.waiting.called), 0, "nobody is left to be called");
    laws_await_count(&count.reasons[COREPOOL_REASON_DOWN], 1);
    laws_await_waiting(leaver.pool, 0);
    corepool_lease_t lease = laws_take(leaver.pool);
    check_in(&lease);
    laws_await_idle(leaver.pool, 1);
    close_descriptors(&leaver.loop);
    laws_end();
    cr_expect_eq(atomic_load(&count.opened), 2);
}
