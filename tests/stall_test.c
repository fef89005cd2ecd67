/* tests/stall_test.c: a callback that keeps its shard from its loop is told of, by name. */
#include <criterion/criterion.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "support/callers.h"

#define STALL_MS 8

/* What the watchdog said last. Written on its thread before `told` is counted. */
struct report {
    _Atomic unsigned told, events;
    char pool[32], callback[64], event_text[64];
    int64_t ms;
    _Atomic int stopped, closed; /* what control calls came to on the watchdog's thread */
    _Atomic int updated, detached, informed;
    corepool_pool_t victim;
    corepool_lease_t lease;
};

static struct report report;

static void note_stall(unsigned shard, const char *pool, const char *callback, int64_t duration_ms, void *arg)
{
    struct report *noted = arg;
    (void)shard;
    snprintf(noted->pool, sizeof noted->pool, "%s", pool ? pool : "");
    snprintf(noted->callback, sizeof noted->callback, "%s", callback);
    noted->ms = duration_ms;
    atomic_store(&noted->stopped, corepool_runtime_stop(laws_runtime(), 0));
    if (noted->victim.impl)
        atomic_store(&noted->closed, corepool_pool_close(noted->victim, 0));
    atomic_fetch_add(&noted->told, 1);
}

static void note_event(const corepool_event_t *event, void *arg)
{
    struct report *noted = arg;
    corepool_stats_t stats;
    if (event->kind != COREPOOL_EVENT_STALL)
        return;
    snprintf(noted->event_text, sizeof noted->event_text, "%s of %s", event->text, event->pool);
    if (noted->victim.impl)
        corepool_pool_stats(noted->victim, &stats);
    atomic_fetch_add(&noted->events, 1);
}

/* Keeps the shard until so many stalls have been told of; gives up after a while. */
static void stall_until(unsigned told)
{
    int64_t deadline = laws_now_ms() + LAWS_PATIENCE_MS;
    while (atomic_load(&report.told) < told && laws_now_ms() < deadline)
        poll(NULL, 0, 1);
}

static void start(void)
{
    laws_start(&(corepool_runtime_options_t){.stall_ms = STALL_MS, .on_stall = note_stall, .arg = &report});
}

static int slow_checkin(void *pool_state, void *resource, void *client)
{
    (void)pool_state, (void)resource, (void)client;
    stall_until(2);
    return COREPOOL_OK;
}

static int open_at_once(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static int note_message(corepool_worker_t *worker, void *pool_state, void *resource, void *message)
{
    (void)worker, (void)pool_state, (void)resource, (void)message;
    return COREPOOL_OK;
}

/* What waits for a shard would wait for the one that stalls. */
static void call_shards(unsigned shard, const char *pool, const char *callback, int64_t duration_ms, void *arg)
{
    struct report *noted = arg;
    corepool_lease_t lease = noted->lease;
    void *resource;
    (void)shard, (void)pool, (void)callback, (void)duration_ms;
    atomic_store(&noted->updated, corepool_update(&lease, NULL));
    atomic_store(&noted->detached, corepool_detach(&lease, &resource));
    atomic_store(&noted->informed, corepool_pool_info(noted->victim, NULL));
    atomic_fetch_add(&noted->told, 1);
}

static const corepool_class_t told_class = {
    .name = "told", .init = open_at_once, .update = note_message, .info = note_message};

static const corepool_class_t slow_class = {.name = "slow", .init = open_at_once, .checkin = slow_checkin};

Test(stall, a_class_s_callback_is_told_with_its_pool_and_again_when_it_has_doubled)
{
    corepool_pool_t pool;
    start();
    cr_assert_eq(corepool_pool_open(laws_runtime(), &slow_class, NULL, 1,
                                    &(corepool_pool_options_t){.flags = COREPOOL_POOL_SERIALISED,
                                                               .on_event = note_event,
                                                               .event_arg = &report},
                                    &pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
    report.victim = pool;
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&report.told, 2);
    cr_expect_str_eq(report.pool, "slow");
    cr_expect_str_eq(report.callback, "checkin");
    cr_expect_geq(report.ms, 2 * STALL_MS);
    cr_expect_str_eq(report.event_text, "checkin of slow");
    cr_expect_eq(atomic_load(&report.events), 2);
    cr_expect_eq(atomic_load(&report.stopped), COREPOOL_EDEADLK, "it would wait for itself");
    cr_expect_eq(atomic_load(&report.closed), COREPOOL_EDEADLK);
    laws_end();
}

static void stall_posted(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    stall_until(1);
}

Test(stall, who_is_told_may_not_wait_for_a_shard)
{
    laws_start(&(corepool_runtime_options_t){.stall_ms = STALL_MS, .on_stall = call_shards, .arg = &report});
    cr_assert_eq(corepool_pool_open(laws_runtime(), &told_class, NULL, 1, NULL, &report.victim), COREPOOL_OK);
    report.lease = laws_take(report.victim);
    for (unsigned i = 0; i < corepool_runtime_shards(laws_runtime()); i++)
        cr_assert_eq(corepool_shard_post(laws_runtime(), i, stall_posted, NULL), COREPOOL_OK);
    laws_await_count(&report.told, 1);
    cr_expect_eq(atomic_load(&report.updated), COREPOOL_EDEADLK);
    cr_expect_eq(atomic_load(&report.detached), COREPOOL_EDEADLK);
    cr_expect_eq(atomic_load(&report.informed), COREPOOL_EDEADLK);
    cr_expect_eq(corepool_checkin(&report.lease), COREPOOL_OK);
    laws_end();
}

Test(stall, a_posted_function_is_told_without_a_pool)
{
    start();
    cr_assert_eq(corepool_shard_post(laws_runtime(), 0, stall_posted, NULL), COREPOOL_OK);
    laws_await_count(&report.told, 1);
    cr_expect_str_eq(report.pool, "");
    cr_expect_str_eq(report.callback, "a posted function");
    laws_end();
}

static void stall_on_start(corepool_shard_t *shard, void *arg)
{
    (void)arg;
    if (corepool_shard_index(shard) == 0)
        stall_until(1);
}

Test(stall, on_start_is_told)
{
    laws_start(&(corepool_runtime_options_t){
        .stall_ms = STALL_MS, .on_start = stall_on_start, .on_stall = note_stall, .arg = &report});
    cr_expect_eq(atomic_load(&report.told), 1);
    cr_expect_str_eq(report.callback, "on_start");
    laws_end();
}

Test(stall, options_that_make_no_sense_are_refused_by_name)
{
    corepool_runtime_t *runtime;
    cr_expect_eq(corepool_runtime_start(&(corepool_runtime_options_t){.on_stall = note_stall}, &runtime),
                 COREPOOL_EINVAL);
    laws_expect_detail("on_stall");
    cr_expect_eq(corepool_runtime_start(&(corepool_runtime_options_t){.stall_ms = -1}, &runtime), COREPOOL_EINVAL);
    laws_expect_detail("stall_ms: -1");
}
