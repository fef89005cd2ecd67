/* tests/core_walk_test.c: seeded random walks of the slice's state machine against a model of its
 * surroundings, and the histogram. A walk replays bit for bit from its seed. */
#include <criterion/criterion.h>

#include <string.h>

#include "base/clock.h"
#include "core/core.h"

#define SLOTS 6
#define REQUESTS 24
#define STEPS 4000
#define SEEDS 60
#define MS CP_NS_PER_MS

/* Where a slot is, as the surroundings know it. */
enum place { WITH_CORE, ON_SHELF, LEASED, OPENING, CLOSING };
/* What has become of a request. */
enum fate { UNUSED, QUEUED, NOTICE_DUE };

struct walk {
    struct cp_core core;
    cp_slot slots[SLOTS];
    struct cp_request requests[REQUESTS];
    enum place place[SLOTS];
    enum fate fate[REQUESTS];
    uint64_t arrival[REQUESTS]; /* order of arrival; 0: keeps its place at the front */
    uint64_t arrivals, last_granted;
    bool waiting; /* the shelf's flag */
    bool finished, closed;
    uint64_t random;
    int64_t now;
    uint64_t grants, refusals, opened, gone;
};

static uint64_t draw(struct walk *walk, uint64_t below)
{
    walk->random = walk->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (walk->random >> 33) % below;
}

static unsigned slot_number(const struct walk *walk, const cp_slot *slot)
{
    return (unsigned)(slot - walk->slots);
}

static int pick_slot(struct walk *walk, enum place place)
{
    unsigned from = (unsigned)draw(walk, SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        if (walk->place[(from + i) % SLOTS] == place)
            return (int)((from + i) % SLOTS);
    return -1;
}

static int pick_request(struct walk *walk, enum fate fate)
{
    unsigned from = (unsigned)draw(walk, REQUESTS);
    for (unsigned i = 0; i < REQUESTS; i++)
        if (walk->fate[(from + i) % REQUESTS] == fate)
            return (int)((from + i) % REQUESTS);
    return -1;
}

/* --- what the manager carries out --- */

/* One in eight loses the race to its caller, who has given up and whose notice is still on its way. */
static bool decided(struct walk *walk, unsigned r)
{
    if (draw(walk, 8) != 0) {
        walk->fate[r] = UNUSED;
        return true;
    }
    atomic_store(&walk->requests[r].outcome, CP_TIMED_OUT);
    walk->fate[r] = NOTICE_DUE;
    cp_core_undecided(&walk->core);
    return false;
}

static void grant(struct walk *walk, const struct cp_action *action)
{
    unsigned r = (unsigned)(action->request - walk->requests);
    cr_assert_eq(walk->fate[r], QUEUED, "granted, but not waiting");
    cr_assert_eq(walk->place[slot_number(walk, action->slot)], WITH_CORE);
    if (!decided(walk, r)) {
        cp_core_idle(&walk->core, action->slot);
        return;
    }
    if (walk->arrival[r]) {
        cr_assert_gt(walk->arrival[r], walk->last_granted, "overtaken");
        walk->last_granted = walk->arrival[r];
    }
    walk->place[slot_number(walk, action->slot)] = LEASED;
    walk->grants++;
    cp_core_granted(&walk->core, (int64_t)draw(walk, 1000000));
}

static void listen(struct walk *walk)
{
    int shelved = pick_slot(walk, ON_SHELF);
    if (shelved < 0) {
        walk->waiting = true;
        return;
    }
    cp_core_not_listening(&walk->core);
    walk->place[shelved] = WITH_CORE;
    cp_core_idle(&walk->core, &walk->slots[shelved]);
}

static void shelve(struct walk *walk, cp_slot *slot)
{
    cr_assert_not(walk->waiting, "shelved beside a waiting request");
    walk->place[slot_number(walk, slot)] = ON_SHELF;
}

/* False when there is nothing to do. */
static bool step(struct walk *walk)
{
    struct cp_action action;
    cp_core_next(&walk->core, walk->now, &action);
    switch (action.what) {
    case CP_DO_NOTHING: return false;
    case CP_DO_GRANT: grant(walk, &action); break;
    case CP_DO_REFUSE:
        decided(walk, (unsigned)(action.request - walk->requests));
        walk->refusals++;
        break;
    case CP_DO_SHELVE: shelve(walk, action.slot); break;
    case CP_DO_LISTEN: listen(walk); break;
    case CP_DO_UNLISTEN: walk->waiting = false; break;
    case CP_DO_OPEN: walk->place[slot_number(walk, action.slot)] = OPENING; break;
    case CP_DO_REFRESH: cp_core_refreshed(&walk->core); break;
    case CP_DO_TERMINATE: walk->place[slot_number(walk, action.slot)] = CLOSING; break;
    case CP_DO_LOOK:
    case CP_DO_FETCH:
    case CP_DO_PING:
    case CP_DO_INFO:
    case CP_DO_PUT_BACK: cr_assert_fail("no time is set"); break;
    case CP_DO_MEET:
    case CP_DO_ASK:
    case CP_DO_WITHDRAW:
    case CP_DO_BRING:
    case CP_DO_MOVE:
    case CP_DO_ANSWER:
    case CP_DO_PUSH:
    case CP_DO_TAKE:
    case CP_DO_ADOPT: cr_assert_fail("there is no other slice"); break;
    case CP_DO_FINISH:
        cr_assert_not(walk->finished);
        cr_assert_lt(pick_request(walk, NOTICE_DUE), 0, "finished before a notice that is on its way");
        walk->finished = true;
        break;
    }
    return true;
}

static void settle(struct walk *walk)
{
    for (unsigned steps = 0; step(walk); steps++)
        cr_assert_lt(steps, 1000, "the core never comes to rest");
    const char *broken = cp_core_check(&walk->core);
    cr_assert_null(broken, "%s", broken);
    if (!walk->closed && atomic_load(&walk->core.waiting))
        cr_assert(walk->waiting && pick_slot(walk, ON_SHELF) < 0, "L3: a request waits beside an idle worker");
}

/* --- what comes from outside --- */

static void arrive(struct walk *walk)
{
    int r = pick_request(walk, UNUSED);
    if (r < 0)
        return;
    bool again = draw(walk, 16) == 0;
    walk->requests[r].again = again;
    walk->arrival[r] = again ? 0 : ++walk->arrivals;
    walk->fate[r] = QUEUED;
    atomic_store(&walk->requests[r].outcome, CP_PENDING);
    cp_core_request(&walk->core, &walk->requests[r]);
}

static void leave(struct walk *walk, enum fate fate)
{
    int r = pick_request(walk, fate);
    if (r < 0)
        return;
    if (fate == QUEUED)
        atomic_store(&walk->requests[r].outcome, draw(walk, 2) ? CP_TIMED_OUT : CP_CANCELLED);
    walk->fate[r] = UNUSED;
    cp_core_give_up(&walk->core, &walk->requests[r]);
}

static void end_lease(struct walk *walk)
{
    int s = pick_slot(walk, LEASED);
    if (s < 0)
        return;
    if (!walk->waiting && !walk->closed && draw(walk, 4)) {
        walk->place[s] = ON_SHELF;
        return;
    }
    walk->place[s] = WITH_CORE;
    if (draw(walk, 4))
        cp_core_idle(&walk->core, &walk->slots[s]);
    else
        cp_core_doom(&walk->core, &walk->slots[s], 5);
}

static void end_open(struct walk *walk)
{
    int s = pick_slot(walk, OPENING);
    if (s < 0)
        return;
    walk->place[s] = WITH_CORE;
    if (draw(walk, 3)) {
        cp_core_opened(&walk->core, &walk->slots[s]);
        walk->opened++;
    } else {
        cp_core_open_failed(&walk->core, &walk->slots[s], walk->now);
    }
}

static void end_close(struct walk *walk)
{
    int s = pick_slot(walk, CLOSING);
    if (s < 0)
        return;
    walk->place[s] = WITH_CORE;
    walk->gone++;
    cp_core_gone(&walk->core, &walk->slots[s]);
}

static void take_from_shelf(struct walk *walk)
{
    int s = pick_slot(walk, ON_SHELF);
    if (s >= 0 && !walk->waiting && !walk->closed)
        walk->place[s] = LEASED;
}

static void happen(struct walk *walk)
{
    switch (draw(walk, 8)) {
    case 0: arrive(walk); break;
    case 1: leave(walk, QUEUED); break;
    case 2: leave(walk, NOTICE_DUE); break;
    case 3: end_lease(walk); break;
    case 4: end_open(walk); break;
    case 5: end_close(walk); break;
    case 6: take_from_shelf(walk); break;
    default: walk->now += (int64_t)draw(walk, 30) * MS; break;
    }
}

static void begin(struct walk *walk, uint64_t seed)
{
    *walk = (struct walk){.random = seed, .now = 1};
    for (unsigned i = 0; i < REQUESTS; i++)
        cp_list_init(&walk->requests[i].link);
    struct cp_core_options options = {.quota = 1 + (uint32_t)draw(walk, SLOTS),
                                      .lazy = draw(walk, 2),
                                      .max_opening = 1 + (uint32_t)draw(walk, 3),
                                      .backoff_min_ns = 5 * MS,
                                      .backoff_max_ns = 50 * MS,
                                      .seed = seed};
    cp_core_init(&walk->core, &options, walk->slots);
}

/* The manager closes the shelf and brings what was on it. */
static void close_walk(struct walk *walk)
{
    walk->closed = true;
    for (int s = pick_slot(walk, ON_SHELF); s >= 0; s = pick_slot(walk, ON_SHELF)) {
        walk->place[s] = WITH_CORE;
        cp_core_idle(&walk->core, &walk->slots[s]);
    }
    cp_core_close(&walk->core, 1);
}

static void walk_to_the_end(struct walk *walk)
{
    close_walk(walk);
    for (unsigned turns = 0; !walk->finished; turns++) {
        cr_assert_lt(turns, 100000, "closing never ends");
        settle(walk);
        happen(walk);
    }
}

Test(core_walk, keeps_the_laws_through_any_order_of_events_and_finishes)
{
    static struct walk walk;
    uint64_t grants = 0, gone = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(&walk, seed);
        for (unsigned i = 0; i < STEPS; i++) {
            happen(&walk);
            settle(&walk);
        }
        walk_to_the_end(&walk);
        cr_assert_eq(walk.core.vacant, walk.core.quota);
        cr_assert_eq(walk.opened, walk.gone, "L6: seed %llu", (unsigned long long)seed);
        cr_assert_eq(walk.core.grants, walk.grants);
        cr_assert_eq(walk.core.terminated, walk.gone);
        grants += walk.grants;
        gone += walk.gone;
    }
    cr_expect_gt(grants, SEEDS * 100, "a walk that grants nothing shows nothing");
    cr_expect_gt(gone, SEEDS * 10);
}

Test(core_walk, replays_from_its_seed)
{
    static struct walk first, second;
    begin(&first, 99);
    begin(&second, 99);
    for (unsigned i = 0; i < STEPS; i++) {
        happen(&first);
        settle(&first);
    }
    for (unsigned i = 0; i < STEPS; i++) {
        happen(&second);
        settle(&second);
    }
    cr_expect_eq(first.random, second.random);
    cr_expect_eq(first.grants, second.grants);
    cr_expect_eq(first.now, second.now);
}

/* Serves everyone that waits once nothing fails any more: liveness after any history. */
Test(core_walk, serves_everyone_once_inits_succeed_and_leases_come_back)
{
    static struct walk walk;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(&walk, seed);
        for (unsigned i = 0; i < STEPS / 10; i++) {
            happen(&walk);
            settle(&walk);
        }
        for (unsigned turns = 0; atomic_load(&walk.core.waiting); turns++) {
            cr_assert_lt(turns, 10000, "seed %llu: a request starves", (unsigned long long)seed);
            walk.now += 10 * MS;
            end_open(&walk);
            end_close(&walk);
            end_lease(&walk);
            settle(&walk);
        }
    }
}

/* --- histogram --- */

Test(histogram, every_value_lies_in_its_bucket_and_a_bucket_is_at_most_a_quarter_wide)
{
    for (uint64_t value = 0; value < 100000; value++) {
        unsigned bucket = cp_histogram_bucket(value);
        uint64_t limit = cp_histogram_limit(bucket);
        cr_assert_geq(limit, value);
        cr_assert_leq(limit - value, value / 4);
        if (bucket)
            cr_assert_lt(cp_histogram_limit(bucket - 1), value);
    }
    cr_expect_eq(cp_histogram_bucket(UINT64_MAX), CP_HISTOGRAM_BUCKETS - 1);
}

Test(histogram, quantiles_count_the_zeros_that_were_never_written)
{
    static struct cp_histogram histogram;
    uint64_t counts[CP_HISTOGRAM_BUCKETS] = {0};
    for (unsigned i = 0; i < 10; i++)
        cp_histogram_add(&histogram, 1000);
    cr_expect_eq(cp_histogram_sum(&histogram, counts), 1000);
    cr_expect_eq(cp_histogram_quantile(counts, 90, 0.5), 0);
    cr_expect_eq(cp_histogram_quantile(counts, 90, 0.89), 0);
    cr_expect_geq(cp_histogram_quantile(counts, 90, 0.95), 1000);
    cr_expect_geq(cp_histogram_quantile(counts, 0, 0.01), 1000);
    cr_expect_eq(cp_histogram_quantile((uint64_t[CP_HISTOGRAM_BUCKETS]){0}, 0, 0.5), 0);
}

Test(histogram, the_highest_value_is_exact)
{
    static struct cp_histogram histogram;
    uint64_t counts[CP_HISTOGRAM_BUCKETS] = {0};
    cp_histogram_add(&histogram, 123457);
    cp_histogram_add(&histogram, 5);
    cr_expect_eq(cp_histogram_sum(&histogram, counts), 123457);
    cr_expect_eq(counts[cp_histogram_bucket(5)], 1);
}
