/* bench/layers/core.c: what the slice's state machine takes for typical episodes of a slice's life.
 *
 * The benchmark is the manager: it tells the core what happened, carries out what the core says on an imagined shelf, and
 * counts the steps (calls of cp_core_next), of which each episode has a number that is checked. */
#include <corepool/worker.h>
#include <string.h>

#include "base/clock.h"
#include "core/core.h"
#include "layers.h"

#define SLOTS 1000

static struct cp_core core;
static struct cp_histogram waits;
static cp_slot slots[SLOTS];
static struct cp_request request;
static int64_t now;
static uint64_t steps;

static struct cp_action expect(enum cp_do what)
{
    struct cp_action action;
    cp_core_next(&core, now, &action);
    steps++;
    BENCH_REQUIRE(action.what == what, "the core says %d, not %d", action.what, what);
    return action;
}

static void ask(void)
{
    atomic_store_explicit(&request.outcome, CP_PENDING, memory_order_relaxed);
    cp_core_request(&core, &request);
}

/* --- episodes; `slot` is out before and after, on the shelf or leased --- */

/* A worker is found bad, and replaced. */
static void replace(cp_slot *slot)
{
    cp_core_doom(&core, slot, COREPOOL_REASON_HANGUP);
    cp_core_gone(&core, expect(CP_DO_TERMINATE).slot);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
    expect(CP_DO_NOTHING);
}

/* The same, and the first attempt fails: the core waits for its time. */
static void replace_after_failure(cp_slot *slot)
{
    cp_core_doom(&core, slot, COREPOOL_REASON_HANGUP);
    cp_core_gone(&core, expect(CP_DO_TERMINATE).slot);
    cp_core_open_failed(&core, expect(CP_DO_OPEN).slot, now);
    expect(CP_DO_NOTHING);
    now = cp_core_wake_at(&core, now);
    cp_core_opened(&core, expect(CP_DO_OPEN).slot);
    expect(CP_DO_SHELVE);
    expect(CP_DO_NOTHING);
}

/* A worker comes back from another CPU while nobody waits. */
static void return_home(cp_slot *slot)
{
    cp_core_idle(&core, slot);
    expect(CP_DO_SHELVE);
    expect(CP_DO_NOTHING);
}

/* A request that was on its way when a worker was given: it is found on the shelf. */
static void find_on_shelf(cp_slot *slot)
{
    ask();
    expect(CP_DO_LISTEN);
    cp_core_idle(&core, slot);
    cp_core_not_listening(&core);
    expect(CP_DO_GRANT);
    cp_core_granted(&core, 0);
    expect(CP_DO_NOTHING);
}

/* A request waits until a worker is checked in. */
static void wait_and_grant(cp_slot *slot)
{
    ask();
    expect(CP_DO_LISTEN);
    expect(CP_DO_NOTHING);
    cp_core_idle(&core, slot);
    expect(CP_DO_GRANT);
    cp_core_granted(&core, 0);
    expect(CP_DO_UNLISTEN);
    expect(CP_DO_NOTHING);
}

/* A request waits and gives up. */
static void wait_in_vain(cp_slot *slot)
{
    (void)slot;
    ask();
    expect(CP_DO_LISTEN);
    expect(CP_DO_NOTHING);
    atomic_store_explicit(&request.outcome, CP_TIMED_OUT, memory_order_relaxed);
    cp_core_give_up(&core, &request);
    expect(CP_DO_UNLISTEN);
    expect(CP_DO_NOTHING);
}

/* Through the manager: a checkout and a checkin of a pool without a shelf. */
static void managed_pair(cp_slot *slot)
{
    cp_core_idle(&core, slot);
    expect(CP_DO_NOTHING);
    ask();
    expect(CP_DO_GRANT);
    cp_core_granted(&core, 0);
    expect(CP_DO_NOTHING);
}

static void look_at_all(void)
{
    expect(CP_DO_LOOK);
    cp_look_begin(&core);
    for (unsigned i = 0; i < SLOTS; i++)
        BENCH_REQUIRE(cp_look_at(&core, &slots[i], now) == COREPOOL_REASON_NONE, "a look ends a worker");
    BENCH_REQUIRE(!cp_look_end(&core, now), "a look wants to close workers");
}

/* The next look is due; all workers are leased. */
static void look(cp_slot *slot)
{
    (void)slot;
    now += core.look.interval;
    look_at_all();
    expect(CP_DO_NOTHING);
}

static void snapshot(cp_slot *slot)
{
    struct cp_core_counts counts;
    (void)slot;
    BENCH_REQUIRE(cp_core_snapshot(&core, &counts) && counts.live == counts.quota, "a snapshot shows a change");
}

/* --- running them --- */

static const struct episode {
    const char *name;
    void (*run)(cp_slot *slot);
    unsigned steps;
    unsigned slots;
    uint64_t opens, failures, grants, timeouts; /* of one */
    bool managed;
    int64_t close_idle_ns; /* the core's idle_close_ns; 0: never looked at */
} episodes[] = {
    {.name = "a worker is replaced", .run = replace, .steps = 4, .slots = 10, .opens = 1},
    {.name = "a worker is replaced, once the first open failed", .run = replace_after_failure, .steps = 6, .slots = 10,
     .opens = 2, .failures = 1},
    {.name = "a worker comes home to the shelf", .run = return_home, .steps = 2, .slots = 10},
    {.name = "a request is served from the shelf", .run = find_on_shelf, .steps = 3, .slots = 10, .grants = 1},
    {.name = "a request waits and is granted", .run = wait_and_grant, .steps = 5, .slots = 10, .grants = 1},
    {.name = "a request waits and times out", .run = wait_in_vain, .steps = 4, .slots = 10, .timeouts = 1},
    {.name = "a checkout and a checkin without a shelf", .run = managed_pair, .steps = 3, .slots = 10, .grants = 1,
     .managed = true},
    {.name = "a look at 1,000 workers, all leased", .run = look, .steps = 2, .slots = SLOTS, .close_idle_ns = 3600 * CP_NS_PER_S},
    {.name = "a snapshot of the counts", .run = snapshot, .slots = 10},
};
#define EPISODES (sizeof episodes / sizeof episodes[0])

static void open_core(const struct episode *episode)
{
    const struct cp_core_options options = {.quota = episode->slots, .managed = episode->managed,
                                            .max_opening = episode->slots, .backoff_min_ns = CP_NS_PER_MS,
                                            .backoff_max_ns = CP_NS_PER_S, .seed = 1,
                                            .look.idle_close_ns = episode->close_idle_ns};
    now = CP_NS_PER_S;
    memset(slots, 0, sizeof slots);
    memset(&waits, 0, sizeof waits);
    cp_core_init(&core, &options, slots);
    atomic_store(&core.waits, &waits);
    core.listening = episode->managed; /* as its manager sets it for good */
    for (unsigned i = 0; i < episode->slots; i++)
        expect(CP_DO_OPEN);
    for (unsigned i = 0; i < episode->slots; i++) {
        slots[i].since = now;
        cp_core_opened(&core, &slots[i]);
    }
    if (episode->close_idle_ns) /* the first look is due */
        look_at_all();
    for (unsigned i = 0; i < episode->slots; i++)
        if (episode->managed)
            cp_core_take_oldest_idle(&core); /* and a client has it */
        else
            expect(CP_DO_SHELVE);
    steps = 0;
}

static void check(const struct episode *episode, uint64_t times)
{
    const char *broken = cp_core_check(&core);
    BENCH_REQUIRE(!broken, "%s: %s", episode->name, broken);
    BENCH_REQUIRE(core.live == episode->slots && core.idle == 0 && core.waiting == 0, "%s: not as it was before",
                  episode->name);
    BENCH_REQUIRE(core.opens == episode->slots + times * episode->opens && core.open_failures == times * episode->failures &&
                      core.grants == times * episode->grants && core.timeouts == times * episode->timeouts,
                  "%s: %llu opens, %llu failures, %llu grants, %llu timeouts", episode->name,
                  (unsigned long long)core.opens, (unsigned long long)core.open_failures,
                  (unsigned long long)core.grants, (unsigned long long)core.timeouts);
    BENCH_REQUIRE(steps == times * episode->steps, "%s: %llu steps, not %u times %llu", episode->name,
                  (unsigned long long)steps, episode->steps, (unsigned long long)times);
}

static double play(uint64_t times, uint64_t number)
{
    const struct episode *episode = &episodes[number];
    open_core(episode);
    int64_t begin = layer_begin(true);
    for (uint64_t n = 0; n < times; n++)
        episode->run(&slots[0]);
    int64_t ns = layer_end(begin);
    check(episode, times);
    return (double)ns / (double)times;
}

int main(int argc, char **argv)
{
    static struct layer_case cases[EPISODES];
    for (unsigned i = 0; i < EPISODES; i++)
        cases[i] = (struct layer_case){.name = episodes[i].name, .run = play, .arg = i, .steps = episodes[i].steps,
                                       .dearer = episodes[i].slots / 10};
    return layer_main(argc, argv, "core: ns of an episode", cases, EPISODES, 2000000);
}
