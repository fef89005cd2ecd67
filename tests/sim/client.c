/* tests/sim/client.c: clients: a checkout step by step, as src/front/checkout.c makes it. Between any two steps
 * its thread may be moved to another CPU, and anyone else may act. */
#include "sim.h"

/* How often a client that is moved on its way follows before it asks by message. */
#define FOLLOW_CPU 4

static void look(struct client *client);
static void wait(struct client *client);

static int number(const struct client *client)
{
    return (int)client->number;
}

void client_goes_on(struct client *client, void (*step)(struct client *), int64_t wait_for)
{
    client->step = step;
    schedule(EVENT_CLIENT, client, 0, world.now + wait_for);
}

static void next(struct client *client, void (*step)(struct client *))
{
    client_goes_on(client, step, delay(world.step_bits));
}

bool pool_is_open(const struct client *client)
{
    return client->pool->open && client->pool->generation == client->generation;
}

void client_ends(struct client *client, enum ending ending)
{
    note(NOTE_END, number(client), (int)ending, 0);
    if (!client->under_way)
        broke("L5", "client %u's checkout ends twice", client->number);
    client->under_way = false;
    world.ended++;
    if (ending != ENDED_LEASED)
        client_goes_on(client, client_begin, 1 + delay(world.hold_bits));
}

/* Messages of one sender arrive in the order in which they were sent. */
static int64_t arrival(struct client *client)
{
    int64_t at = world.now + delay(world.mail_bits);
    client->last_arrival = at > client->last_arrival ? at : client->last_arrival;
    return client->last_arrival;
}

/* --- with a lease --- */

static void lease_ended(struct client *client)
{
    client_goes_on(client, client_begin, 1 + delay(world.hold_bits));
}

/* The manager lets it go on. */
static void wait_for_detach(struct client *client)
{
    broke("oracle", "client %u goes on in the midst of a detach", client->number);
}

static void begin_detach(struct client *client)
{
    cp_slot *slot = client->slot;
    note(NOTE_DETACH, number(client), (int)slot->number, (int)slot->slice->number);
    client->after = lease_ended;
    client->step = wait_for_detach;
    send_mail(MAIL_DETACH, slot->slice, NULL, NULL, arrival(client))->client = client;
}

static void stop_holding(struct client *client)
{
    cp_slot *slot = client->slot;
    uint64_t how = world.phase == SAFETY ? draw(16) : 16;
    if (how == 3) {
        begin_detach(client);
        return;
    }
    if (how == 0)
        note(NOTE_DIE_HOLDING, number(client), (int)slot->number, (int)slot->slice->number);
    give_back(client,
              how == 0   ? REASON_DOWN
              : how == 1 ? REASON_FAILED
              : how == 2 ? REASON_REMOVED
                         : REASON_NONE,
              lease_ended);
}

static void skipped(struct client *client)
{
    client_ends(client, ENDED_SKIPPED);
}

/* The class's checkout callback. A worker that it refuses is removed, and the same checkout tries the next. */
static void validate(struct client *client)
{
    cp_slot *slot = client->slot;
    uint64_t verdict = world.phase == SAFETY ? draw(32) : 32;
    if (verdict == 0) {
        note(NOTE_SKIP, number(client), (int)slot->number, (int)slot->slice->number);
        give_back(client, REASON_NONE, skipped);
    } else if (verdict == 1) {
        note(NOTE_REFUSE_WORKER, number(client), (int)slot->number, (int)slot->slice->number);
        client->again = true;
        client->tries = 0;
        give_back(client, REASON_CHECKOUT, look);
    } else {
        client_ends(client, ENDED_LEASED);
        client_goes_on(client, stop_holding, delay(world.hold_bits));
    }
}

/* The slot in its hands becomes its lease. */
static void lease(struct client *client)
{
    client->stamp = cp_stamp_next_lease(cp_slot_stamp(client->slot));
    cp_slot_set_stamp(client->slot, client->stamp);
    move(client->slot, TAKEN, LEASED);
    note(NOTE_LEASE, number(client), (int)client->slot->number, (int)client->slot->slice->number);
    next(client, validate);
}

/* It was taken when its pool may have been closed, or its worker evicted. */
static void judge(struct client *client)
{
    if (pool_is_open(client) && !atomic_load(&client->slot->item.doomed)) {
        next(client, lease);
        return;
    }
    note(NOTE_HAND_OVER, number(client), (int)client->slot->number, (int)client->slot->slice->number);
    hand_over(client, CP_TAG_RETURNED, look);
}

/* --- waiting --- */

static void free_ask(struct cp_request *request)
{
    struct ask *ask = ask_of(request);
    if (ask->fate == UNUSED)
        broke("L5", "request %u is freed twice", ask->number);
    ask->fate = UNUSED;
    cp_list_push_back(&world.spare_asks, &ask->arrival);
}

static struct ask *new_ask(void)
{
    struct ask *ask;
    if (cp_list_is_empty(&world.spare_asks)) {
        ask = provide(1, sizeof *ask);
        ask->number = world.ask_count++;
        ask->request.free = free_ask;
        cp_list_init(&ask->request.link);
        return ask;
    }
    ask = cp_container(world.spare_asks.next, struct ask, arrival);
    cp_list_unlink(&ask->arrival);
    return ask;
}

static void set_deadline(struct client *client)
{
    client->waits++;
    if (draw(8))
        schedule(EVENT_DEADLINE, client, client->waits, world.now + delay(world.timeout_bits));
}

static void post(struct client *client)
{
    struct ask *ask = client->ask = new_ask();
    cp_list_init(&ask->arrival);
    ask->client = client;
    ask->fate = SENT;
    ask->queued = false;
    atomic_store(&ask->request.outcome, CP_PENDING);
    atomic_store(&ask->request.life, CP_LIFE_LENT);
    ask->request.again = client->again;
    ask->request.posted_at = world.now;
    ask->request.slice = client->slice;
    ask->request.epoch = client->epoch;
    note(NOTE_POST, number(client), (int)ask->number, (int)client->slice->number);
    client->step = wait;
    send_mail(MAIL_REQUEST, client->slice, ask, NULL, arrival(client));
    set_deadline(client);
}

static void take_outcome(struct client *client, enum cp_outcome outcome)
{
    struct ask *ask = client->ask;
    if (ask->fate != DECIDED)
        broke("L5", "client %u: request %u has an outcome that nobody decided", client->number, ask->number);
    client->ask = NULL;
    client->slot = ask->request.slot;
    client->stamp = ask->request.stamp;
    atomic_store(&ask->request.life, CP_LIFE_FREE);
    free_ask(&ask->request);
    if (outcome == CP_GRANTED)
        next(client, validate);
    else
        client_ends(client, outcome == CP_CLOSED ? ENDED_CLOSED : ENDED_REFUSED);
}

/* Wakes, whoever woke it. */
static void wait(struct client *client)
{
    enum cp_outcome outcome = (enum cp_outcome)atomic_load(&client->ask->request.outcome);
    note(NOTE_WAKE, number(client), (int)client->ask->number, (int)outcome);
    if (outcome != CP_PENDING)
        take_outcome(client, outcome);
}

void client_woken(struct client *client)
{
    if (client->step == wait)
        wait(client);
}

/* Its slice knows that the request was given up once this has arrived. */
static void send_notice(struct client *client)
{
    struct ask *ask = client->ask;
    note(NOTE_NOTICE, number(client), (int)ask->number, 0);
    client->ask = NULL;
    /* The address of the slice is the sender's to know: the manager may have taken it out of the request. */
    send_mail(MAIL_GIVEN_UP, client->slice, ask, NULL, arrival(client));
}

static void notify_and_end(struct client *client)
{
    bool timed_out = atomic_load(&client->ask->request.outcome) == CP_TIMED_OUT;
    send_notice(client);
    client_ends(client, timed_out ? ENDED_TIMED_OUT : ENDED_CANCELLED);
}

/* Its requests are forgotten; another client takes its place. */
static void notify_and_die(struct client *client)
{
    struct ask *ask = client->ask;
    note(NOTE_DIE_WAITING, number(client), (int)ask->number, 0);
    send_notice(client);
    cp_request_disown(&ask->request);
    client_ends(client, ENDED_CANCELLED);
}

void client_deadline(struct client *client, uint32_t wait_number)
{
    if (client->step != wait || client->waits != wait_number || world.phase != SAFETY)
        return;
    struct ask *ask = client->ask;
    enum cp_outcome outcome = draw(3) ? CP_TIMED_OUT : CP_CANCELLED;
    if (!cp_request_decide(&ask->request, outcome)) {
        note(NOTE_LATE, number(client), (int)ask->number, (int)atomic_load(&ask->request.outcome));
        wait(client);
        return;
    }
    note(NOTE_GIVE_UP, number(client), (int)ask->number, (int)outcome);
    if (ask->fate != STRAY)
        ask->fate = ABANDONED;
    next(client, outcome == CP_CANCELLED && draw(2) ? notify_and_die : notify_and_end);
}

/* --- looking --- */

static void end_of_miss(struct client *client)
{
    if (!pool_is_open(client))
        client_ends(client, ENDED_CLOSED);
    else if (client->only_tries)
        client_ends(client, ENDED_EMPTY);
    else
        next(client, post);
}

static void pick(struct client *client);

static void list_is_done(struct client *client)
{
    client->slice->returning--;
    client->slot = client->kept;
    client->kept = NULL;
    if (client->slot)
        judge(client);
    else
        end_of_miss(client);
}

/* Keeps the first that it may, and brings back the rest. */
static void pick(struct client *client)
{
    cp_slot *slot = client->list;
    if (!slot) {
        list_is_done(client);
        return;
    }
    client->list = atomic_load(&slot->returned_next);
    if (!client->kept && !client->overtakes && cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_RETURNED &&
        !atomic_load(&slot->item.doomed)) {
        note(NOTE_PICK, number(client), (int)slot->number, (int)client->slice->number);
        cp_slot_pass(slot, CP_TAG_MANAGER);
        client->kept = slot;
        next(client, pick);
        return;
    }
    client->slot = slot;
    put_back(client, pick);
}

/* Again, now that the list is its own: who waits goes first. */
static void look_who_waits(struct client *client)
{
    client->overtakes = shelf_wants_manager(client->slice);
    next(client, pick);
}

static void collect_one(struct client *client)
{
    struct cp_slice *slice = client->slice;
    if (!slice->returned || shelf_wants_manager(slice)) {
        end_of_miss(client);
        return;
    }
    note(NOTE_COLLECT_ONE, number(client), (int)slice->number, 0);
    client->list = slice->returned;
    slice->returned = NULL;
    slice->returning++;
    for (cp_slot *slot = client->list; slot; slot = atomic_load(&slot->returned_next))
        move(slot, RETURNED, TAKEN);
    next(client, look_who_waits);
}

static void miss(struct client *client)
{
    struct cp_slice *slice = client->slice;
    note(NOTE_MISS, number(client), (int)slice->number, (int)client->outcome);
    client->epoch = slice->epoch;
    if (client->outcome == CP_SHELF_CLOSED_NOW || !pool_is_open(client))
        client_ends(client, ENDED_CLOSED);
    else if (client->outcome == CP_SHELF_EMPTY && !(slice->shelf.flags & CP_SHELF_PORTABLE) &&
             client->cpu == slice->shard->number)
        next(client, collect_one);
    else
        end_of_miss(client);
}

static void take(struct client *client)
{
    struct cp_slice *slice = client->slice;
    client->outcome = shelf_take(slice, client->cpu, shelf_end(slice), TAKEN, &client->slot);
    if (client->outcome == CP_SHELF_DONE) {
        note(NOTE_TAKE, number(client), (int)client->slot->number, (int)slice->number);
        next(client, judge);
    } else if (client->outcome == CP_SHELF_ELSEWHERE && ++client->tries < FOLLOW_CPU) {
        next(client, look);
    } else {
        next(client, miss);
    }
}

static void look(struct client *client)
{
    client->slice = &client->pool->slices[client->cpu];
    if (pool_is_open(client))
        next(client, take);
    else
        client_ends(client, ENDED_CLOSED);
}

/* Once nothing fails any more each makes a few more checkouts, and is gone. */
static bool retires(struct client *client)
{
    if (world.phase == SAFETY)
        return false;
    client->retired = client->rounds-- == 0;
    if (client->retired)
        note(NOTE_RETIRE, number(client), 0, 0);
    return client->retired;
}

void client_begin(struct client *client)
{
    if (retires(client))
        return;
    client->pool = &world.pools[draw(world.pool_count)];
    client->generation = client->pool->generation;
    client->tries = 0;
    client->again = false;
    client->only_tries = draw(6) == 0;
    client->under_way = true;
    world.begun++;
    note(NOTE_BEGIN, number(client), (int)client->cpu, (int)client->pool->number);
    next(client, look);
}
