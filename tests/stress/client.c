/* tests/stress/client.c: what a client thread does, step by step.
 *
 * A client that holds a lease never waits long for another one, and between steps it holds nothing, so that
 * clients cannot wait for each other in a ring: whoever waits without end waits for the library. */
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include "stress.h"

/* Pairs in one step's burst. */
#define BURST 8

/* --- taking and ending ------------------------------------------------------------------------------------ */

static void count_outcome(struct client *client, struct life *life, int status)
{
    enum outcome outcome = outcome_of(status);
    BUMP(client->tally.outcomes[outcome]);
    if (outcome == OUTCOME_TIMED_OUT)
        atomic_fetch_add(&life->timeouts, 1);
}

struct life *pick_life(struct client *client)
{
    unsigned at = (unsigned)(draw(&client->random) % scene.weights), plan = 0;
    while (at >= scene.plans[plan].weight)
        at -= scene.plans[plan++].weight;
    return atomic_load_explicit(&scene.lives[plan], memory_order_acquire);
}

/* Mostly the local shard's, now and then one by name. */
corepool_pool_t pick_handle(struct client *client, const struct life *life)
{
    uint64_t chance = draw(&client->random);
    return chance % 16 ? life->pool : corepool_pool_at(life->pool, (unsigned)(chance >> 8) % scene.shards);
}

int take(struct client *client, struct life *life, const corepool_checkout_options_t *how, struct hand *hand)
{
    *hand = (struct hand){.life = life};
    BUMP(client->tally.issued);
    int status = corepool_checkout(pick_handle(client, life), how, &hand->lease);
    count_outcome(client, life, status);
    if (status == COREPOOL_OK)
        oracle_grab(hand, client->number);
    else if (hand->lease.worker || hand->lease.resource)
        broke("L5", "a checkout that failed left a lease");
    return status;
}

static int64_t pick_timeout(struct client *client)
{
    uint64_t chance = draw(&client->random) % 16;
    return chance < 3 ? 1 : chance < 5 ? 1 + (int64_t)(draw(&client->random) % 20) : COREPOOL_INFINITE;
}

static bool take_any(struct client *client, struct hand *hand)
{
    corepool_checkout_options_t how = {.timeout_ms = pick_timeout(client)};
    return take(client, pick_life(client), &how, hand) == COREPOOL_OK;
}

static void ended(int status, const struct hand *hand)
{
    if (status != COREPOOL_OK)
        broke("L2", "the holder of a worker of %s cannot end its lease: %s", hand->life->plan->name,
              corepool_error_detail());
}

void end(struct client *client, struct hand *hand)
{
    oracle_drop(hand, client->number);
    ended(corepool_checkin(&hand->lease), hand);
}

/* --- kinds of steps --------------------------------------------------------------------------------------- */

static void do_pair(struct client *client)
{
    struct hand hand;
    struct life *life = pick_life(client);
    corepool_checkout_options_t how = {.timeout_ms = pick_timeout(client)};
    for (unsigned i = 0; i < BURST; i++)
        if (take(client, life, &how, &hand) == COREPOOL_OK)
            end(client, &hand);
}

static void do_try(struct client *client)
{
    struct hand hand = {.life = pick_life(client)};
    if (hand.life->plan->flags & COREPOOL_POOL_MANAGED)
        return;
    BUMP(client->tally.issued);
    int status = corepool_checkout_try(pick_handle(client, hand.life), NULL, &hand.lease);
    count_outcome(client, hand.life, status);
    if (status != COREPOOL_OK)
        return;
    oracle_grab(&hand, client->number);
    end(client, &hand);
}

static void do_hold(struct client *client, struct hand *hand)
{
    for (uint64_t turns = draw(&client->random) % 2048; turns; turns--)
        relax();
    if (draw(&client->random) % 2)
        step_aside();
    end(client, hand);
}

static void do_long_hold(struct client *client, struct hand *hand)
{
    poll(NULL, 0, 2);
    end(client, hand);
}

static void do_remove(struct client *client, struct hand *hand)
{
    oracle_drop(hand, client->number);
    ended(corepool_checkin_remove(&hand->lease), hand);
}

static void do_fail(struct client *client, struct hand *hand)
{
    oracle_drop(hand, client->number);
    ended(corepool_checkin_fail(&hand->lease), hand);
}

/* Ended once, the lease and its copies are stale in every form. */
static void do_stale(struct client *client, struct hand *hand)
{
    static int (*const endings[])(corepool_lease_t *) = {corepool_checkin, corepool_checkin_remove,
                                                         corepool_checkin_fail};
    corepool_lease_t copy = hand->lease;
    end(client, hand);
    int status = endings[draw(&client->random) % 3](&copy);
    if (status != COREPOOL_ESTALE)
        broke("L2", "a second ending of a lease on %s: %s", hand->life->plan->name,
              corepool_error_name(status));
    if (hand->lease.worker || corepool_checkin(&hand->lease) != COREPOOL_ESTALE)
        broke("L2", "an ended lease is not zero");
}

static void do_checkin_removes(struct client *client)
{
    struct hand hand;
    struct life *life = pick_life(client);
    if (!life->plan->cls->checkin || take(client, life, NULL, &hand) != COREPOOL_OK)
        return;
    oracle_drop(&hand, client->number);
    hand.lease.resource = NULL;
    ended(corepool_checkin(&hand.lease), &hand);
    BUMP(client->tally.kinds[KIND_CHECKIN_REMOVES]);
}

static void do_command(struct client *client, enum kind kind)
{
    struct hand hand;
    struct command command = {.skip = kind == KIND_SKIP, .removals = 1 + (int)(draw(&client->random) % 2)};
    corepool_checkout_options_t how = {.timeout_ms = pick_timeout(client), .command = &command};
    struct life *life = pick_life(client);
    int status = take(client, life, &how, &hand);
    if (status == COREPOOL_OK && life->plan->cls->checkout &&
        (command.skip || atomic_load(&command.removals) > 0))
        broke("L5", "a checkout from %s was granted against its class's word", life->plan->name);
    if (status == COREPOOL_OK)
        end(client, &hand);
}

/* Kinds that begin with a lease. */
static void with_lease(struct client *client, enum kind kind)
{
    struct hand hand;
    if (!take_any(client, &hand))
        return;
    BUMP(client->tally.kinds[kind]);
    switch (kind) {
    case KIND_HOLD: do_hold(client, &hand); break;
    case KIND_LONG_HOLD: do_long_hold(client, &hand); break;
    case KIND_REMOVE: do_remove(client, &hand); break;
    case KIND_FAIL: do_fail(client, &hand); break;
    case KIND_STALE: do_stale(client, &hand); break;
    case KIND_PARCEL: send_parcel(client, &hand); break;
    case KIND_DUEL: offer_duel(client, &hand); break;
    case KIND_EVICT_LEASED: evict_leased(client, &hand); break;
    case KIND_EVICT_LATER: evict_later(client, &hand); break;
    default: end(client, &hand); break;
    }
}

/* --- the thread ------------------------------------------------------------------------------------------- */

static enum kind pick_kind(struct client *client)
{
    unsigned at = (unsigned)(draw(&client->random) % 100000);
    for (enum kind kind = KIND_TRY; kind < KINDS; kind++) {
        if (at < kind_weight(kind))
            return kind;
        at -= kind_weight(kind);
    }
    return KIND_PAIR;
}

static void step(struct client *client)
{
    enum kind kind = pick_kind(client);
    atomic_store_explicit(&client->doing, kind, memory_order_relaxed);
    switch (kind) {
    case KIND_PAIR: do_pair(client); break;
    case KIND_TRY: do_try(client); break;
    case KIND_SKIP:
    case KIND_CHECKOUT_REMOVES: do_command(client, kind); break;
    case KIND_CHECKIN_REMOVES: do_checkin_removes(client); return; /* counts itself */
    case KIND_VISITOR: visit(client); break;
    case KIND_LOOP: ask_on_loop(client); break;
    case KIND_SHARD: ask_on_shard(client); break;
    default: with_lease(client, kind); return;
    }
    BUMP(client->tally.kinds[kind]);
}

static void begin(struct client *client)
{
    cpu_set_t set;
    if (client->cpu >= 0) {
        CPU_ZERO(&set);
        CPU_SET((unsigned)client->cpu, &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0)
            broke("oracle", "client %u cannot run on CPU %d", client->number, client->cpu);
    }
    if (uv_loop_init(&client->loop) != 0)
        broke("oracle", "client %u has no loop", client->number);
    client->attachment = NULL;
    atomic_store(&client->tid, gettid());
    if (scene.storm)
        begin_storm(client);
}

/* What the thread took and others are to end must be ended before the thread is. */
static void finish(struct client *client)
{
    while (atomic_load(&client->parcels))
        if (!end_parcel(client))
            step_aside();
    corepool_loop_detach(client->attachment);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&client->loop) != 0)
        broke("L7", "client %u: a detached loop still has handles", client->number);
    if (scene.storm)
        end_storm();
    atomic_store(&client->tid, 0);
}

void *run_client(void *arg)
{
    struct client *client = arg;
    struct hand hand;
    begin(client);
    for (uint64_t done = 0; done < atomic_load(&client->budget) && !atomic_load(&scene.stopping);) {
        step(client);
        done += atomic_load_explicit(&client->doing, memory_order_relaxed) == KIND_PAIR ? BURST : 1;
        BUMP(client->steps);
        if (draw(&client->random) % 4 == 0)
            join_duel(client);
        if (draw(&client->random) % 8 == 0)
            end_parcel(client);
    }
    finish(client);
    /* Half of them end in the possession of a worker. */
    corepool_checkout_options_t how = {.timeout_ms = 5};
    if (draw(&client->random) % 2 && take(client, pick_life(client), &how, &hand) == COREPOOL_OK)
        BUMP(client->tally.kinds[KIND_LEFT_BEHIND]);
    return NULL;
}

/* --- handover --------------------------------------------------------------------------------------------- */

static void spin(struct client *client, unsigned most)
{
    for (uint64_t turns = draw(&client->random) % most; turns; turns--)
        relax();
}

static uint64_t steps_of_others(const struct client *client)
{
    uint64_t steps = 0;
    for (unsigned i = 0; i < scene.client_count; i++)
        if (&scene.clients[i] != client)
            steps += atomic_load(&scene.clients[i].steps);
    return steps;
}

static bool others_run(const struct client *client)
{
    for (unsigned i = 0; i < scene.client_count; i++)
        if (&scene.clients[i] != client && atomic_load(&scene.clients[i].budget) > 1 &&
            !atomic_load(&scene.stopping))
            return true;
    return false;
}

/* Holds its worker until another client has been served, by the other worker: nothing that this one does
 * helps. One client at a time, so that they do not wait for each other. */
static void hold_for_others(struct client *client)
{
    static _Atomic bool busy;
    if (atomic_exchange(&busy, true))
        return;
    uint64_t before = steps_of_others(client);
    while (steps_of_others(client) == before && others_run(client))
        step_aside();
    atomic_store(&busy, false);
}

/* Few clients, one or two workers, one shard: nothing else would wake a request that was overlooked. */
void *run_handover(void *arg)
{
    struct client *client = arg;
    struct life *life = atomic_load(&scene.lives[scene.round % scene.plan_count]);
    corepool_checkout_options_t how = {.timeout_ms = COREPOOL_INFINITE};
    struct hand hand = {.life = life};
    begin(client);
    for (; client->budget > 0 && !atomic_load(&scene.stopping); client->budget--) {
        BUMP(client->tally.issued);
        int status = corepool_checkout(corepool_pool_at(life->pool, 0), &how, &hand.lease);
        count_outcome(client, life, status);
        ended(status, &hand);
        oracle_grab(&hand, client->number);
        if (life->plan->size > 1 && draw(&client->random) % 2)
            hold_for_others(client);
        spin(client, 512);
        end(client, &hand);
        BUMP(client->steps);
        spin(client, 1024);
    }
    finish(client);
    return NULL;
}
