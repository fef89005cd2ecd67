/* bench/layers/queue.c: the wait queue of a slice: who gives up and who is served, with few and with many waiting.
 *
 * The benchmark is the manager of a core with one worker, which is leased. Requests must be granted in the order of their
 * arrival, every one that was posted is granted, cancelled or waits, the core's own laws hold at the end, and how many wait
 * may make no difference but for memory. */
#include <string.h>

#include "base/clock.h"
#include "core/core.h"
#include "layers.h"

#define WAITING_MAX 10000

static struct cp_core core;
static struct cp_histogram waits;
static cp_slot slot;
static struct cp_request requests[WAITING_MAX];
static uint64_t steps;

static enum cp_do step(struct cp_action *action)
{
    cp_core_next(&core, CP_NS_PER_S, action);
    steps++;
    return action->what;
}

static void expect(enum cp_do what, struct cp_action *action)
{
    enum cp_do found = step(action);
    BENCH_REQUIRE(found == what, "the core says %d, not %d", found, what);
}

static void ask(struct cp_request *request)
{
    atomic_store_explicit(&request->outcome, CP_PENDING, memory_order_relaxed);
    cp_core_request(&core, request);
}

static void rest(void)
{
    struct cp_action action;
    expect(CP_DO_NOTHING, &action);
}

/* One worker, leased; `waiting` requests, in the order of their numbers. */
static void open_queue(uint64_t waiting)
{
    const struct cp_core_options options = {.quota = 1, .max_opening = 1, .backoff_min_ns = 1, .backoff_max_ns = 1};
    struct cp_action action;
    memset(&slot, 0, sizeof slot);
    memset(&waits, 0, sizeof waits);
    cp_core_init(&core, &options, &slot);
    atomic_store(&core.waits, &waits);
    expect(CP_DO_OPEN, &action);
    cp_core_opened(&core, action.slot);
    expect(CP_DO_SHELVE, &action); /* and a caller takes it */
    for (uint64_t i = 0; i < waiting; i++)
        ask(&requests[i]);
    expect(CP_DO_LISTEN, &action);
    rest();
    steps = 0;
}

static void check(uint64_t waiting, uint64_t grants, uint64_t cancels, uint64_t all_steps)
{
    const char *broken = cp_core_check(&core);
    BENCH_REQUIRE(!broken, "%s", broken);
    BENCH_REQUIRE(core.waiting == waiting && core.grants == grants && core.cancels == cancels,
                  "%u wait, %llu were granted, %llu cancelled", core.waiting, (unsigned long long)core.grants,
                  (unsigned long long)core.cancels);
    BENCH_REQUIRE(steps == all_steps, "%llu steps, not %llu", (unsigned long long)steps, (unsigned long long)all_steps);
}

/* --- hand-over: the worker comes back, the first gets it, and a new request arrives --- */

#define HAND_OVER_STEPS 3

static double hand_over(uint64_t operations, uint64_t waiting)
{
    struct cp_action action;
    uint64_t first = 0;
    open_queue(waiting);
    int64_t begin = layer_begin(true);
    for (uint64_t n = 0; n < operations; n++) {
        cp_core_idle(&core, &slot);
        expect(CP_DO_GRANT, &action);
        BENCH_REQUIRE(action.request == &requests[first] && action.slot == &slot, "not the first is granted");
        cp_core_granted(&core, 0);
        rest();
        ask(action.request);
        rest();
        first = first + 1 == waiting ? 0 : first + 1;
    }
    int64_t ns = layer_end(begin);
    check(waiting, operations, 0, operations * HAND_OVER_STEPS);
    return (double)ns / (double)operations;
}

/* --- cancel: one somewhere in the queue gives up, and a new request arrives --- */

#define CANCEL_STEPS 2
/* Coprime to every length used, and far from the neighbour's neighbour: each takes its turn, none where it is in a cache
 * by having been next to the last. */
#define STRIDE 6007

static double cancel(uint64_t operations, uint64_t waiting)
{
    uint64_t victim = 0;
    open_queue(waiting);
    int64_t begin = layer_begin(true);
    for (uint64_t n = 0; n < operations; n++) {
        victim = (victim + STRIDE) % waiting;
        atomic_store_explicit(&requests[victim].outcome, CP_CANCELLED, memory_order_relaxed);
        cp_core_give_up(&core, &requests[victim]);
        rest();
        ask(&requests[victim]);
        rest();
    }
    int64_t ns = layer_end(begin);
    check(waiting, 0, operations, operations * CANCEL_STEPS);
    return (double)ns / (double)operations;
}

static struct layer_case cases[] = {
    {.name = "hand-over and a new request, 2 waiting", .run = hand_over, .arg = 2, .steps = HAND_OVER_STEPS},
    {.name = "hand-over and a new request, 100 waiting", .run = hand_over, .arg = 100, .steps = HAND_OVER_STEPS},
    {.name = "hand-over and a new request, 10,000 waiting", .run = hand_over, .arg = 10000, .steps = HAND_OVER_STEPS},
    {.name = "cancel and a new request, 2 waiting", .run = cancel, .arg = 2, .steps = CANCEL_STEPS},
    {.name = "cancel and a new request, 100 waiting", .run = cancel, .arg = 100, .steps = CANCEL_STEPS},
    {.name = "cancel and a new request, 10,000 waiting", .run = cancel, .arg = 10000, .steps = CANCEL_STEPS},
};

/* Neither may search the queue. That would take thousands of times as long in the long one than in the short one; memory that
 * is no longer in a cache takes a few times as long. By the least of each case, which is its first after printing. */
static void check_growth(void)
{
    const struct layer_case *pairs[][2] = {{&cases[0], &cases[2]}, {&cases[3], &cases[5]}};
    for (unsigned i = 0; i < 2; i++)
        BENCH_REQUIRE(pairs[i][1]->ns[0] < 50 * pairs[i][0]->ns[0], "%s: %.0f ns; %s: %.0f ns", pairs[i][0]->name,
                      pairs[i][0]->ns[0], pairs[i][1]->name, pairs[i][1]->ns[0]);
}

int main(int argc, char **argv)
{
    int status = layer_main(argc, argv, "wait queue: ns of an operation", cases, sizeof cases / sizeof cases[0], 2000000);
    check_growth();
    return status;
}
