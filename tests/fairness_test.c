/* tests/fairness_test.c: how long those at the end wait, next to those in the middle: many clients, few
 * workers, equal holds, on a clock of the test's own. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/heap.h"
#include "core/core.h"

#define CLIENTS 1000
#define WORKERS 50
#define HOLD_NS (2 * CP_NS_PER_MS)
#define ROUNDS 30

/* Asks, waits, holds, checks in, asks again. */
struct client {
    struct cp_request request;
    struct cp_heap_node event; /* the end of its hold, or of its pause */
    cp_slot *slot;             /* while it holds one */
    unsigned rounds;
};

static struct cp_core core;
static cp_slot slots[WORKERS];
static struct client clients[CLIENTS];
static struct cp_heap events;
static int64_t now;
static int64_t waits[CLIENTS * ROUNDS];
static unsigned granted;

static void grant(const struct cp_action *action)
{
    struct client *client = cp_container(action->request, struct client, request);
    cr_assert(cp_request_decide(action->request, CP_GRANTED));
    waits[granted++] = now - action->request->posted_at;
    cp_core_granted(&core, now - action->request->posted_at);
    client->slot = action->slot;
    cp_heap_add(&events, &client->event, now + HOLD_NS);
}

static void settle(void)
{
    struct cp_action action;
    for (;;) {
        cp_core_next(&core, now, &action);
        switch (action.what) {
        case CP_DO_NOTHING: cr_assert_null(cp_core_check(&core), "%s", cp_core_check(&core)); return;
        case CP_DO_GRANT: grant(&action); break;
        case CP_DO_OPEN: cp_core_opened(&core, action.slot); break;
        default: break; /* no shelf here: nobody takes from it */
        }
    }
}

static void ask(struct client *client)
{
    atomic_store(&client->request.outcome, CP_PENDING);
    client->request.posted_at = now;
    cp_core_request(&core, &client->request);
}

static void happen(struct client *client)
{
    cp_heap_remove(&events, &client->event);
    if (client->slot)
        cp_core_idle(&core, client->slot);
    client->slot = NULL;
    if (client->rounds++ < ROUNDS)
        ask(client);
    settle();
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Clients arrive over `spread_ns`. */
static double run(int64_t spread_ns)
{
    const struct cp_core_options options = {.quota = WORKERS,
                                            .managed = true,
                                            .max_opening = WORKERS,
                                            .backoff_min_ns = CP_NS_PER_MS,
                                            .backoff_max_ns = CP_NS_PER_MS};
    now = 1;
    cp_core_init(&core, &options, slots);
    core.listening = true;
    settle();
    for (unsigned i = 0; i < CLIENTS; i++) {
        cp_list_init(&clients[i].request.link);
        cp_heap_add(&events, &clients[i].event, now + spread_ns * (i * 7919 % CLIENTS) / CLIENTS);
    }
    while (events.least) {
        now = events.least->key > now ? events.least->key : now;
        happen(cp_container(events.least, struct client, event));
    }
    cr_assert_eq(granted, CLIENTS * ROUNDS, "each request was granted once");
    qsort(waits, granted, sizeof waits[0], compare);
    int64_t median = waits[granted / 2], last = waits[granted - 1 - granted / 10000];
    cr_assert_geq(median, (CLIENTS - WORKERS) / WORKERS * HOLD_NS / 2, "the queue was there");
    return (double)last / (double)median;
}

Test(fairness, the_last_wait_at_most_three_times_the_median_when_all_come_at_once)
{
    double ratio = run(0);
    cr_expect_leq(ratio, 3.0, "p99.99/p50 of wait is %.2f", ratio);
}

Test(fairness, the_last_wait_at_most_three_times_the_median_when_they_trickle_in)
{
    double ratio = run(40 * CP_NS_PER_MS);
    cr_expect_leq(ratio, 3.0, "p99.99/p50 of wait is %.2f", ratio);
}
