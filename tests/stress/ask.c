/* tests/stress/ask.c: asynchronous checkouts, on shards and on loops that clients attach; and evictions.
 *
 * An ask is one asynchronous request. Its callback must run exactly once, on the thread that asked, unless
 * that thread ended: then never. Asks stay allocated until the scene ends, so that a callback too many is
 * seen and not a crash. */
#include <stdlib.h>

#include "stress.h"

/* So many asks and evictions may be under way on shards. */
#define ASKING_MAX 200u
/* Asks of one session on a client's loop. */
#define SESSION 4

enum ending { END_NOW, END_LATER, END_REMOVE, END_FAIL, LEAVE };

struct ask {
    struct ask *next;
    struct client *client; /* NULL: on a shard */
    unsigned number;       /* owner word */
    uint64_t random;
    corepool_pool_t pool;
    corepool_checkout_options_t how;
    enum ending ending;
    struct hand hand;
    corepool_request_t request;
    _Atomic uint32_t completions;
    int status;
};

static _Atomic(struct ask *) asks;

void free_asks(void)
{
    while (asks) {
        struct ask *ask = asks;
        asks = ask->next;
        free(ask);
    }
}

static struct ask *make_ask(struct client *client, bool on_shard)
{
    static const int64_t timeouts[] = {1, 1, 3, 20, COREPOOL_INFINITE, COREPOOL_INFINITE, COREPOOL_INFINITE, 0};
    static const enum ending endings[] = {END_NOW,   END_NOW,   END_NOW,    END_LATER,
                                          END_LATER, END_LATER, END_REMOVE, END_FAIL};
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask)
        broke("oracle", "no memory to ask");
    ask->client = on_shard ? NULL : client;
    ask->number = client->number;
    ask->random = draw(&client->random) | 1;
    ask->hand.life = pick_life(client);
    ask->pool = pick_handle(client, ask->hand.life);
    ask->how.timeout_ms = timeouts[draw(&client->random) % 8];
    ask->ending = endings[draw(&client->random) % 8];
    ask->next = atomic_load(&asks);
    while (!atomic_compare_exchange_weak(&asks, &ask->next, ask))
        ;
    return ask;
}

/* --- the answer ------------------------------------------------------------------------------------------- */

static void count_kind(const struct ask *ask, enum kind kind)
{
    if (ask->client)
        BUMP(ask->client->tally.kinds[kind]);
    else
        atomic_fetch_add(&shared.kinds[kind], 1);
}

static void count_outcome(struct ask *ask, int status)
{
    enum outcome outcome = outcome_of(status);
    if (ask->client)
        BUMP(ask->client->tally.outcomes[outcome]);
    else
        atomic_fetch_add(&shared.outcomes[outcome], 1);
    if (outcome == OUTCOME_TIMED_OUT)
        atomic_fetch_add(&ask->hand.life->timeouts, 1);
}

static void end_ask(struct ask *ask)
{
    int status;
    oracle_drop(&ask->hand, ask->number);
    if (ask->ending == END_REMOVE)
        status = corepool_checkin_remove(&ask->hand.lease);
    else if (ask->ending == END_FAIL)
        status = corepool_checkin_fail(&ask->hand.lease);
    else
        status = corepool_checkin(&ask->hand.lease);
    if (status != COREPOOL_OK)
        broke("L2", "a lease that a callback brought cannot be ended: %s", corepool_error_detail());
    if (ask->ending == END_REMOVE || ask->ending == END_FAIL)
        count_kind(ask, ask->ending == END_REMOVE ? KIND_REMOVE : KIND_FAIL);
    if (!ask->client)
        atomic_fetch_sub(&scene.asking, 1);
}

static void end_on_shard(corepool_shard_t *shard, void *ask)
{
    (void)shard;
    end_ask(ask);
}

static void on_granted(struct ask *ask, const corepool_lease_t *lease)
{
    ask->hand.lease = *lease;
    oracle_grab(&ask->hand, ask->number);
    if (ask->ending == LEAVE) {
        count_kind(ask, KIND_LEFT_BEHIND);
        return;
    }
    if (ask->ending != END_LATER) {
        end_ask(ask);
        return;
    }
    if (ask->client) /* when its session ends */
        return;
    unsigned shard = corepool_shard_index(corepool_shard_current());
    if (corepool_shard_post(scene.runtime, shard, end_on_shard, ask) != COREPOOL_OK)
        broke("oracle", "a shard does not take a post: %s", corepool_error_detail());
}

static void on_answer(int status, const corepool_lease_t *lease, void *arg)
{
    struct ask *ask = arg;
    if (atomic_fetch_add(&ask->completions, 1))
        broke("L5", "an asynchronous checkout from %s was answered twice, now: %s", ask->hand.life->plan->name,
              corepool_error_name(status));
    if ((status == COREPOOL_OK) != (lease != NULL))
        broke("L5", "a callback got %s and %s", corepool_error_name(status), lease ? "a lease" : "no lease");
    if (ask->client && !pthread_equal(ask->client->thread, pthread_self()))
        broke("L5", "a callback ran on another thread than its loop's");
    ask->status = status;
    count_outcome(ask, status);
    if (status == COREPOOL_OK)
        on_granted(ask, lease);
    else if (!ask->client)
        atomic_fetch_sub(&scene.asking, 1);
}

/* --- asking ----------------------------------------------------------------------------------------------- */

static void issue(struct ask *ask)
{
    int status = corepool_checkout_async(ask->pool, &ask->how, on_answer, ask, &ask->request);
    if (status == COREPOOL_OK)
        return;
    if (atomic_fetch_add(&ask->completions, 1))
        broke("L5", "an asynchronous checkout was answered and refused");
    count_outcome(ask, status);
    ask->status = status;
    if (!ask->client)
        atomic_fetch_sub(&scene.asking, 1);
}

static void cancel(struct ask *ask)
{
    bool answered = atomic_load(&ask->completions);
    int status = corepool_request_cancel(ask->request);
    if (status == COREPOOL_ESTALE)
        return;
    if (status != COREPOOL_OK || answered || !atomic_load(&ask->completions) ||
        ask->status != COREPOOL_ECANCELED)
        broke("L5", "a cancel of %s ended with %s", answered ? "an answered request" : "a waiting request",
              corepool_error_name(status));
    count_kind(ask, KIND_CANCEL);
}

static void ask_here(corepool_shard_t *shard, void *arg)
{
    struct ask *ask = arg;
    ask->number = NUMBER_SHARD + corepool_shard_index(shard);
    issue(ask);
    if (draw(&ask->random) % 4 == 0)
        cancel(ask);
}

void ask_on_shard(struct client *client)
{
    if (atomic_fetch_add(&scene.asking, 1) >= ASKING_MAX) {
        atomic_fetch_sub(&scene.asking, 1);
        step_aside();
        return;
    }
    struct ask *ask = make_ask(client, true);
    unsigned shard = (unsigned)(draw(&client->random) % scene.shards);
    atomic_fetch_add(&shared.issued, 1);
    if (corepool_shard_post(scene.runtime, shard, ask_here, ask) != COREPOOL_OK)
        broke("oracle", "a shard does not take a post: %s", corepool_error_detail());
}

/* Asks on the client's attached loop. */
struct ask *start_ask(struct client *client, bool leave)
{
    struct ask *ask = make_ask(client, false);
    if (leave) {
        ask->ending = LEAVE;
        ask->how.timeout_ms = COREPOOL_INFINITE;
    }
    BUMP(client->tally.issued);
    issue(ask);
    return ask;
}

/* The thread of an ask has ended: true when it had not been answered, and never will be. */
bool forget_ask(struct ask *ask, struct client *client)
{
    if (atomic_fetch_add(&ask->completions, 1))
        return false;
    BUMP(client->tally.outcomes[OUTCOME_FORGOTTEN]);
    BUMP(client->tally.kinds[KIND_FORGET]);
    return true;
}

/* --- a session on a client's loop ------------------------------------------------------------------------- */

static bool is_answered(struct ask *const *session, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!atomic_load(&session[i]->completions))
            return false;
    return true;
}

static void detach(struct client *client, struct ask *const *session, unsigned count)
{
    corepool_loop_detach(client->attachment);
    client->attachment = NULL;
    if (!is_answered(session, count))
        broke("L5", "a detached loop left a request without an answer");
    BUMP(client->tally.kinds[KIND_DETACH]);
    uv_run(&client->loop, UV_RUN_NOWAIT);
}

static void run_session(struct client *client, struct ask *const *session, unsigned count)
{
    bool hasty = draw(&client->random) % 8 == 0;
    for (unsigned i = 0; i < count; i++)
        if (draw(&client->random) % 4 == 0)
            cancel(session[i]);
    if (!hasty)
        while (!is_answered(session, count)) {
            /* What is kept for later may be what the others wait for. */
            for (unsigned i = 0; i < count; i++)
                if (session[i]->hand.lease.worker)
                    end_ask(session[i]);
            uv_run(&client->loop, UV_RUN_ONCE);
        }
    if (hasty || draw(&client->random) % 16 == 0)
        detach(client, session, count);
    for (unsigned i = 0; i < count; i++)
        if (session[i]->hand.lease.worker)
            end_ask(session[i]);
}

void ask_on_loop(struct client *client)
{
    struct ask *session[SESSION];
    unsigned count = 1 + (unsigned)(draw(&client->random) % SESSION);
    if (!client->attachment &&
        corepool_loop_attach(scene.runtime, &client->loop, &client->attachment) != COREPOOL_OK)
        broke("oracle", "a loop cannot be attached: %s", corepool_error_detail());
    for (unsigned i = 0; i < count; i++)
        session[i] = start_ask(client, false);
    run_session(client, session, count);
}

/* --- evictions -------------------------------------------------------------------------------------------- */

struct eviction {
    corepool_worker_t *slot;
    _Atomic uint32_t done;
    bool is_waited_for;
};

static void evict_here(corepool_shard_t *shard, void *arg)
{
    struct eviction *eviction = arg;
    (void)shard;
    corepool_worker_evict(eviction->slot, COREPOOL_REASON_EVICTED);
    if (eviction->is_waited_for) {
        atomic_store(&eviction->done, 1);
    } else {
        free(eviction);
        atomic_fetch_sub(&scene.asking, 1);
    }
}

static void post_eviction(struct eviction *eviction)
{
    unsigned shard = corepool_shard_index(corepool_worker_shard(eviction->slot));
    if (corepool_shard_post(scene.runtime, shard, evict_here, eviction) != COREPOOL_OK)
        broke("oracle", "a shard does not take a post: %s", corepool_error_detail());
}

/* Evicted while it is leased: terminated at checkin, so nobody is to see it again. */
void evict_leased(struct client *client, struct hand *hand)
{
    struct eviction eviction = {.slot = hand->lease.worker, .is_waited_for = true};
    post_eviction(&eviction);
    while (!atomic_load(&eviction.done))
        step_aside();
    atomic_store(&hand->worker->condemned, 1);
    end(client, hand);
}

/* Evicted at about the time of its checkin, or removal, wherever it is by then. */
void evict_later(struct client *client, struct hand *hand)
{
    struct eviction *eviction = calloc(1, sizeof *eviction);
    if (!eviction)
        broke("oracle", "no memory for an eviction");
    eviction->slot = hand->lease.worker;
    atomic_fetch_add(&scene.asking, 1);
    if (draw(&client->random) % 2) {
        end(client, hand);
        post_eviction(eviction);
        return;
    }
    oracle_drop(hand, client->number);
    if (corepool_checkin_remove(&hand->lease) != COREPOOL_OK)
        broke("L2", "a holder cannot remove its worker: %s", corepool_error_detail());
    BUMP(client->tally.kinds[KIND_REMOVE]);
    post_eviction(eviction);
}
