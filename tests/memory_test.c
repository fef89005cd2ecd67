/* tests/memory_test.c: requests when there is no more memory: an error before anything was done for them, or
 * all that they are owed. The allocator of this program fails on a thread that says so. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "support/callers.h"

static _Thread_local bool starved;

void *__libc_calloc(size_t count, size_t size);

/* Before the C library's, for all libraries of this program. */
__attribute__((visibility("default"))) void *calloc(size_t count, size_t size)
{
    if (!starved)
        return __libc_calloc(count, size);
    errno = ENOMEM;
    return NULL;
}

static struct {
    _Atomic unsigned enqueued, checked_out, cancelled;
} seen;

static int enqueue(void *pool_state, void *command, void **wrapped)
{
    (void)pool_state, (void)command;
    *wrapped = &seen;
    atomic_fetch_add(&seen.enqueued, 1);
    starved = true; /* from here on it must do with what it has */
    return COREPOOL_OK;
}

static int check_out(void *pool_state, void *resource, void *command, void **client)
{
    (void)pool_state, (void)resource, (void)client;
    atomic_fetch_add(&seen.checked_out, command == &seen);
    return COREPOOL_OK;
}

static void cancelled(void *pool_state, corepool_cancelled_t how, void *wrapped)
{
    (void)pool_state;
    atomic_fetch_add(&seen.cancelled, how == COREPOOL_CANCELLED_QUEUED && wrapped == &seen);
}

/* A pool whose one worker is out, and on whose callers' threads enqueue runs. */
static corepool_pool_t start_held(struct laws_count *count, corepool_lease_t *held)
{
    static corepool_class_t cls;
    cls = laws_plain_class;
    cls.enqueue = enqueue;
    cls.checkout = check_out;
    cls.cancelled = cancelled;
    corepool_pool_t pool = laws_start_one(&cls, count, 1, 0);
    *held = laws_take(pool);
    starved = false;
    return pool;
}

struct client {
    corepool_pool_t pool;
    int64_t timeout_ms;
    bool starved;
    int status, ended;
};

static void *check_out_once(void *arg)
{
    struct client *client = arg;
    corepool_lease_t lease;
    (void)corepool_pool_stats(client->pool, &(corepool_stats_t){0});
    starved = client->starved;
    client->status = laws_checkout(client->pool, client->timeout_ms, &lease);
    starved = false;
    client->ended = client->status == COREPOOL_OK ? corepool_checkin(&lease) : COREPOOL_OK;
    return NULL;
}

static void run_client(struct client *client)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, check_out_once, client), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(memory, a_request_that_there_is_no_memory_for_fails_before_its_enqueue)
{
    struct laws_count count = {0};
    corepool_lease_t held;
    struct client client = {
        .pool = start_held(&count, &held), .timeout_ms = COREPOOL_INFINITE, .starved = true};
    unsigned before = atomic_load(&seen.enqueued);
    run_client(&client);
    cr_expect_eq(client.status, COREPOOL_ENOMEM);
    cr_expect_eq(atomic_load(&seen.enqueued), before);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    laws_await_idle(client.pool, 1);
    laws_end();
}

Test(memory, what_enqueue_has_accepted_waits_and_is_granted_without_any)
{
    pthread_t thread;
    struct laws_count count = {0};
    corepool_lease_t held;
    struct client client = {.pool = start_held(&count, &held), .timeout_ms = LAWS_PATIENCE_MS};
    cr_assert_eq(pthread_create(&thread, NULL, check_out_once, &client), 0);
    laws_await_waiting(client.pool, 1);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(client.status, COREPOOL_OK);
    cr_expect_eq(client.ended, COREPOOL_OK);
    cr_expect_eq(atomic_load(&seen.enqueued), 2);
    cr_expect_eq(atomic_load(&seen.checked_out), 2);
    laws_end();
}

Test(memory, what_enqueue_has_accepted_is_cancelled_without_any)
{
    struct laws_count count = {0};
    corepool_lease_t held;
    struct client client = {.pool = start_held(&count, &held), .timeout_ms = LAWS_SHORT_MS};
    run_client(&client);
    cr_expect_eq(client.status, COREPOOL_ETIMEDOUT);
    laws_await_count(&seen.cancelled, 1);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    laws_end();
}

struct ask {
    corepool_pool_t pool;
    bool starved;
    int status;
    struct outcome outcome;
};

static void ask_on_shard(void *arg)
{
    struct ask *ask = arg;
    starved = ask->starved;
    ask->status = corepool_checkout_async(ask->pool, NULL, outcome_note, &ask->outcome, NULL);
    starved = false;
}

Test(memory, the_same_holds_for_requests_on_a_loop)
{
    struct laws_count count = {0};
    corepool_lease_t held;
    struct ask ask = {.pool = start_held(&count, &held), .starved = true};
    unsigned before = atomic_load(&seen.enqueued);
    laws_on_shard(0, ask_on_shard, &ask);
    cr_expect_eq(ask.status, COREPOOL_ENOMEM);
    cr_expect_eq(atomic_load(&seen.enqueued), before);
    cr_expect_eq(atomic_load(&ask.outcome.called), 0);
    ask.starved = false;
    laws_on_shard(0, ask_on_shard, &ask);
    cr_expect_eq(ask.status, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&held), COREPOOL_OK);
    laws_await_count(&ask.outcome.called, 1);
    cr_expect_eq(ask.outcome.status, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&ask.outcome.lease), COREPOOL_OK);
    laws_end();
}

/* --- a thread's first call --- */

/* So many keys of a thread are part of it; for more there is memory at the first use. */
#define KEYS_OF_THREAD 32

static void take_and_give(void *pool)
{
    corepool_lease_t lease;
    if (laws_checkout(*(corepool_pool_t *)pool, LAWS_PATIENCE_MS, &lease) == COREPOOL_OK)
        corepool_checkin(&lease);
}

static void adopt_starved(void *status)
{
    starved = true;
    *(int *)status = corepool_adopt(&(corepool_lease_t){0});
    starved = false;
}

/* The one that cannot be registered has had the record of an ended one, which had the worker. */
Test(memory, a_thread_that_cannot_be_registered_takes_nothing_with_it)
{
    pthread_key_t key;
    struct laws_count count = {0};
    struct outcome outcome = {0};
    corepool_attachment_t *attachment;
    uv_loop_t loop;
    int status = COREPOOL_OK;
    for (unsigned i = 0; i < KEYS_OF_THREAD; i++)
        cr_assert_eq(pthread_key_create(&key, NULL), 0);
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(corepool_loop_attach(laws_runtime(), &loop, &attachment), COREPOOL_OK);
    laws_in_thread(-1, take_and_give, &pool);
    corepool_lease_t lease = laws_take(pool);
    cr_assert_eq(corepool_checkout_async(pool, NULL, outcome_note, &outcome, NULL), COREPOOL_OK);
    laws_await_waiting(pool, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_waiting(pool, 0); /* granted, and not yet its client's */
    laws_in_thread(-1, adopt_starved, &status);
    cr_expect_eq(status, COREPOOL_ENOMEM);
    while (!atomic_load(&outcome.called))
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(outcome.status, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&outcome.lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(laws_stats(pool).reclaimed, 0);
    corepool_loop_detach(attachment);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
    laws_end();
}
