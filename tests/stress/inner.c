/* tests/stress/inner.c: for builds with the library's objects, -DCP_POINTS and -DCP_STORM: delays at the
 * library's schedule-injection points and within its restartable sequences, and the count of those that were
 * restarted. */
#include <poll.h>
#include <sched.h>

#include "base/point.h"
#include "machine/shelf.h"
#include "stress.h"

const bool inner_build = true;

#define STEPS 8

/* Turns that a sequence waits at each of its steps. Read inside the sequences, which take any value. */
extern uint32_t cp_storm[STEPS];
uint32_t cp_storm[STEPS];

static _Thread_local uint64_t random_state;

uint64_t inner_aborts(void)
{
    return atomic_load(&cp_shelf_aborts);
}

/* Some microseconds; and so long that a thread which is often interrupted does not get through before this
 * changes. */
#define SLOW_TURNS 20000
#define STUCK_TURNS 400000

/* One step at a time is slow, so that each window is wide in its turn; now and then none is. */
void inner_stir(uint64_t random)
{
    uint32_t turns = (uint32_t)(random >> 16) % (random >> 8 & 7 ? SLOW_TURNS : STUCK_TURNS);
    for (unsigned i = 0; i < STEPS; i++)
        __atomic_store_n(&cp_storm[i], random && random % (STEPS + 1) == i ? turns : 0, __ATOMIC_RELAXED);
}

void inner_unstick(void)
{
    for (unsigned i = 0; i < STEPS; i++)
        if (__atomic_load_n(&cp_storm[i], __ATOMIC_RELAXED) > SLOW_TURNS)
            __atomic_store_n(&cp_storm[i], SLOW_TURNS, __ATOMIC_RELAXED);
}

/* Mostly nothing, sometimes a moment, seldom long enough for everyone else to pass by. */
void cp_point_hook(enum cp_point point)
{
    (void)point;
    if (!random_state)
        random_state = mix(options.seed ^ (uint64_t)(uintptr_t)&random_state) | 1;
    uint64_t chance = draw(&random_state);
    if (chance % 256 == 0)
        poll(NULL, 0, 1);
    else if (chance % 16 == 1)
        step_aside();
    else if (chance % 8 == 2)
        for (uint64_t turns = (chance >> 8) % 4096; turns; turns--)
            relax();
}

/* libuv's loop waits, in a loop of yields, for a sender that is inside uv_async_send. The storm stops
 * senders there for milliseconds; newer kernels then keep a thread that yields so often, which is a shard,
 * off the CPU for seconds, and that would drown what the storm looks for. This program's own yield sleeps
 * instead, for libuv, too. */
__attribute__((visibility("default"))) int sched_yield(void)
{
    step_aside();
    return 0;
}
