/* tests/event_test.c: what a pool tells the program while it runs, when and how often. */
#include <criterion/criterion.h>

#include <string.h>

#include "support/callers.h"

/* Counts each kind, and keeps the last of it. Written on the shard; read after a count was awaited. */
struct log {
    _Atomic unsigned told[COREPOOL_EVENT_WARNING + 1];
    corepool_event_t last[COREPOOL_EVENT_WARNING + 1];
    char text[128];
    _Atomic unsigned elsewhere; /* events that did not come on the shard */
};

static void note(const corepool_event_t *event, void *arg)
{
    struct log *log = arg;
    log->last[event->kind] = *event;
    if (event->text)
        strncpy(log->text, event->text, sizeof log->text - 1);
    if (!corepool_shard_current() || corepool_shard_index(corepool_shard_current()) != event->shard)
        atomic_fetch_add(&log->elsewhere, 1);
    atomic_fetch_add(&log->told[event->kind], 1);
}

static corepool_pool_t start_told(const corepool_class_t *cls, struct laws_count *count, unsigned size, struct log *log)
{
    return laws_start_one_with(cls, count, size,
                               &(corepool_pool_options_t){.name = "told",
                                                          .backoff_min_ms = 1,
                                                          .backoff_max_ms = 5,
                                                          .on_event = note,
                                                          .event_arg = log});
}

static const corepool_event_t *await_event(struct log *log, corepool_event_kind_t kind, unsigned count)
{
    laws_await_count(&log->told[kind], count);
    cr_expect_str_eq(log->last[kind].pool, "told");
    cr_expect_eq(log->last[kind].shard, 0);
    return &log->last[kind];
}

Test(event, each_kind_has_a_text_and_other_values_say_so)
{
    for (int kind = 0; kind <= COREPOOL_EVENT_WARNING; kind++)
        cr_expect_str_neq(corepool_event_text((corepool_event_kind_t)kind), "unknown event");
    cr_expect_str_eq(corepool_event_text((corepool_event_kind_t)77), "unknown event");
}

Test(event, each_worker_that_opens_and_closes_is_told_once_with_its_reason)
{
    struct laws_count count = {0};
    struct log log = {0};
    corepool_pool_t pool = start_told(&laws_class, &count, 3, &log);
    await_event(&log, COREPOOL_EVENT_OPENED, 3);
    corepool_lease_t lease = laws_take(pool);
    unsigned worker = corepool_worker_number(lease.worker);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    const corepool_event_t *closed = await_event(&log, COREPOOL_EVENT_CLOSED, 1);
    cr_expect_eq(closed->reason, COREPOOL_REASON_FAILED);
    cr_expect_eq(closed->worker, worker);
    await_event(&log, COREPOOL_EVENT_OPENED, 4);
    laws_end();
    cr_expect_eq(atomic_load(&log.told[COREPOOL_EVENT_OPENED]), 4);
    cr_expect_eq(atomic_load(&log.told[COREPOOL_EVENT_CLOSED]), 4);
    cr_expect_eq(log.last[COREPOOL_EVENT_CLOSED].reason, COREPOOL_REASON_STOP);
    cr_expect_eq(atomic_load(&log.elsewhere), 0);
}

Test(event, an_open_that_fails_is_told_with_its_code_and_its_words)
{
    struct laws_count count = {.fail_inits = 2};
    struct log log = {0};
    start_told(&laws_class, &count, 1, &log);
    await_event(&log, COREPOOL_EVENT_OPENED, 1);
    const corepool_event_t *failed = await_event(&log, COREPOOL_EVENT_OPEN_FAILED, 2);
    cr_expect_eq(failed->code, COREPOOL_EOPEN);
    cr_expect_str_eq(log.text, "the test wants no worker 0");
    laws_end();
    cr_expect_eq(atomic_load(&log.told[COREPOOL_EVENT_OPEN_FAILED]), 2);
}

Test(event, who_waited_is_told_and_who_did_not_is_not)
{
    struct laws_count count = {0};
    struct log log = {0};
    struct caller caller = {.pool = start_told(&laws_class, &count, 1, &log)};
    laws_await_idle(caller.pool, 1);
    corepool_lease_t lease = laws_take(caller.pool);
    cr_expect_eq(atomic_load(&log.told[COREPOOL_EVENT_WAITED]), 0);
    caller_start(&caller);
    laws_await_waiting(caller.pool, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    caller_expect(&caller, COREPOOL_OK);
    await_event(&log, COREPOOL_EVENT_WAITED, 1);
    laws_end();
}

Test(event, a_timeout_is_told_with_how_long_it_waited)
{
    struct laws_count count = {0};
    struct log log = {0};
    corepool_lease_t second;
    corepool_pool_t pool = start_told(&laws_class, &count, 1, &log);
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(laws_checkout(pool, LAWS_SHORT_MS, &second), COREPOOL_ETIMEDOUT);
    const corepool_event_t *event = await_event(&log, COREPOOL_EVENT_TIMEOUT, 1);
    cr_expect_geq(event->duration_ms, LAWS_SHORT_MS - 1);
    cr_expect_eq(event->code, COREPOOL_ETIMEDOUT);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

struct counted {
    corepool_pool_t pool;
    _Atomic unsigned calls, wrong;
};

/* The statistics hold what the event says. */
static void compare(const corepool_event_t *event, void *arg)
{
    struct counted *counted = arg;
    corepool_stats_t stats;
    if (event->kind != COREPOOL_EVENT_CLOSED || !counted->pool.impl)
        return;
    if (corepool_pool_stats(counted->pool, &stats) != COREPOOL_OK || stats.terminated != 1)
        atomic_fetch_add(&counted->wrong, 1);
    counted->pool.impl = NULL;
    atomic_fetch_add(&counted->calls, 1);
}

Test(event, its_callback_may_ask_for_statistics_which_count_it_already)
{
    struct laws_count count = {0};
    struct counted counted = {0};
    corepool_pool_t pool = laws_start_one_with(
        &laws_class, &count, 1, &(corepool_pool_options_t){.on_event = compare, .event_arg = &counted});
    counted.pool = pool;
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    laws_await_count(&counted.calls, 1);
    cr_expect_eq(atomic_load(&counted.wrong), 0);
    laws_end();
}
