/* tests/support/script.c: see script.h. */
#include "support/script.h"

#include <criterion/criterion.h>
#include <string.h>

struct script script;
corepool_class_t script_class, script_unwrapped_class, script_bare_class;

/* --- callbacks --- */

static void judge_place(void *pool_state)
{
    bool right = script.serialised ? pool_state == &script && corepool_shard_current() : !pool_state;
    atomic_fetch_add(&script.strangers, !right);
}

static struct wrapped *wrapped_of(void *command)
{
    struct wrapped *wrapped = command;
    if (wrapped >= script.wraps && wrapped < script.wraps + SCRIPT_WRAPS)
        return wrapped;
    atomic_fetch_add(&script.unwrapped, 1);
    return NULL;
}

static int enqueue(void *pool_state, void *command, void **wrapped)
{
    const struct order *order = command;
    judge_place(pool_state);
    atomic_fetch_add(&script.enqueues, 1);
    if (order && order->enqueue != COREPOOL_OK)
        return order->enqueue;
    struct wrapped *made = &script.wraps[atomic_fetch_add(&script.wrap_count, 1)];
    if (order)
        made->order = *order;
    *wrapped = made;
    return COREPOOL_OK;
}

static int answer(struct order *order, void **client)
{
    if (order->refusals > 0) {
        order->refusals--;
        return order->refusal ? order->refusal : COREPOOL_REMOVE;
    }
    if (order->client)
        *client = order->client;
    return order->checkout;
}

static int check_out(void *pool_state, void *resource, void *command, void **client)
{
    struct wrapped *wrapped = wrapped_of(command);
    judge_place(pool_state);
    atomic_fetch_add(&script.checkouts, 1);
    int outcome = wrapped ? answer(&wrapped->order, client) : COREPOOL_OK;
    if (wrapped && (outcome == COREPOOL_OK || outcome == COREPOOL_SKIP))
        atomic_fetch_add(&wrapped->ended, 1);
    if (outcome == COREPOOL_OK && atomic_exchange(&((struct laws_unit *)resource)->in_use, 1))
        atomic_fetch_add(&script.count.overlaps, 1);
    return outcome;
}

static int check_in(void *pool_state, void *resource, void *client)
{
    judge_place(pool_state);
    atomic_store(&((struct laws_unit *)resource)->in_use, 0);
    atomic_store(&script.client, client);
    atomic_fetch_add(&script.checkins, 1);
    return atomic_load(&script.checkin_outcome);
}

static void cancelled(void *pool_state, corepool_cancelled_t how, void *command)
{
    atomic_fetch_add(&script.strangers, pool_state != &script || !corepool_shard_current());
    struct wrapped *wrapped = command ? wrapped_of(command) : NULL;
    if (how == COREPOOL_CANCELLED_QUEUED) {
        if (wrapped)
            atomic_fetch_add(&wrapped->ended, 1);
        atomic_fetch_add(&script.queued, 1);
    } else {
        if (wrapped)
            atomic_fetch_add(&wrapped->leased, 1);
        atomic_fetch_add(&script.late_leased,
                         atomic_load(&script.count.terminated) != atomic_load(&script.leased));
        atomic_fetch_add(&script.leased, 1);
    }
}

static int update(corepool_worker_t *worker, void *pool_state, void *resource, void *message)
{
    atomic_fetch_add(&script.strangers,
                     pool_state != &script || corepool_shard_current() != corepool_worker_shard(worker));
    atomic_store(&script.message, message);
    if (message == &script.instead) {
        script.instead = resource;
        corepool_worker_set_resource(worker, &script.instead);
    }
    atomic_fetch_add(&script.updates, 1);
    return atomic_load(&script.update_outcome);
}

static int visit(void *pool_state, const struct laws_unit *unit)
{
    unsigned at = atomic_load(&script.visits);
    atomic_fetch_add(&script.strangers, pool_state != &script || !corepool_shard_current());
    script.visited[at % SCRIPT_VISITS] = unit->serial;
    atomic_store(&script.visits, at + 1);
    return atomic_load(&script.visit_outcome[unit->serial % SCRIPT_UNITS]);
}

static int ping(corepool_worker_t *worker, void *pool_state, void *resource)
{
    (void)worker;
    return visit(pool_state, resource);
}

static int info(corepool_worker_t *worker, void *pool_state, void *resource, void *message)
{
    (void)worker;
    atomic_store(&script.message, message);
    return visit(pool_state, resource);
}

static int terminate(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    int outcome = atomic_load(&script.terminate_outcome);
    if (resource == &script.instead) {
        atomic_fetch_add(&script.replaced, 1);
        resource = script.instead;
    }
    laws_class.terminate(worker, pool_state, resource, reason);
    return outcome;
}

static void note_overdue(const corepool_lease_info_t *lease)
{
    if (script.overdue_checkout != lease->checkout)
        atomic_fetch_add(&script.overdues, 1);
    script.overdue_checkout = lease->checkout;
}

static void note_event(const corepool_event_t *event, void *arg)
{
    (void)arg;
    if (event->kind == COREPOOL_EVENT_OVERDUE)
        note_overdue(event->lease);
    if (event->kind != COREPOOL_EVENT_WARNING)
        return;
    atomic_store(&script.warning_code, event->code);
    atomic_fetch_add(&script.warnings, 1);
}

/* --- running --- */

static void make_classes(void)
{
    script_class = laws_class;
    script_class.name = "scripted";
    script_class.enqueue = enqueue;
    script_class.checkout = check_out;
    script_class.checkin = check_in;
    script_class.cancelled = cancelled;
    script_class.update = update;
    script_class.ping = ping;
    script_class.info = info;
    script_class.terminate = terminate;
    script_unwrapped_class = script_class;
    script_unwrapped_class.enqueue = NULL;
    script_bare_class = laws_plain_class;
}

unsigned script_flags(void)
{
    return script.serialised ? COREPOOL_POOL_SERIALISED : 0;
}

static corepool_pool_options_t complete(const corepool_pool_options_t *options)
{
    corepool_pool_options_t all = options ? *options : (corepool_pool_options_t){0};
    all.flags |= script_flags();
    all.backoff_min_ms = all.backoff_min_ms ? all.backoff_min_ms : 1;
    all.backoff_max_ms = all.backoff_max_ms ? all.backoff_max_ms : 5;
    if (!all.on_event)
        all.on_event = note_event;
    return all;
}

corepool_pool_t script_open(const corepool_class_t *cls, unsigned size, const corepool_pool_options_t *options)
{
    corepool_pool_options_t all = complete(options);
    return laws_start_one_with(cls, &script.count, size, &all);
}

corepool_pool_t script_open_on_two(const corepool_class_t *cls, unsigned size,
                                   const corepool_pool_options_t *options)
{
    corepool_pool_options_t all = complete(options);
    laws_start(&(corepool_runtime_options_t){.synthetic = "pu:2"});
    return laws_open_with(cls, &script.count, size, &all);
}

int script_checkout(corepool_pool_t pool, struct order *order, corepool_lease_t *lease)
{
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_PATIENCE_MS, .command = order};
    return corepool_checkout(pool, &options, lease);
}

static void judge_script(void)
{
    unsigned wraps = atomic_load(&script.wrap_count);
    cr_expect_eq(atomic_load(&script.strangers), 0, "callbacks ran elsewhere or with another pool state");
    for (unsigned i = 0; i < wraps; i++)
        cr_expect_eq(atomic_load(&script.wraps[i].ended), 1, "wrapped command %u of %u ended %u times", i,
                     wraps, atomic_load(&script.wraps[i].ended));
}

void script_in_both_modes(void (*body)(void))
{
    make_classes();
    for (int serialised = 0; serialised < 2; serialised++) {
        memset(&script, 0, sizeof script);
        script.serialised = serialised;
        body();
        laws_end();
        judge_script();
    }
}
