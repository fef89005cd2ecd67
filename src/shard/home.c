/* shard/home.c: a shard and its CPU: losing it, parking, coming back.
 *
 * States: at home → away (the thread runs elsewhere) → at home, if somebody had merely moved it; or → parked (the kernel
 * refuses the pin, as the CPU is offline or outside of the process's cpuset) → at home, when the CPU is back. Service goes on
 * in all of them. A slice whose shelf the manager finds out of reach goes on on the portable one; parked, all do.
 *
 * It is noticed by a shelf that says ELSEWHERE, and in the loop whenever anything has woken it. A shard that nothing wakes
 * does not notice, and need not: a request or a neighbour's ask wakes it, and callers on its CPU are on another by then.
 * Only while away a timer is set. */
#include "shard/home.h"

#include <errno.h>
#include <sched.h>

#include "base/clock.h"
#include "machine/topology.h"
#include "shard/shard.h"

/* How often a shard that is away tries to come home: rare enough to cost nothing, soon enough that a CPU that is given
 * back is used within a breath. An absence shorter than this moves no worker. */
#define HOMING_INTERVAL_MS 150

static bool is_at_home(const struct corepool_shard *shard)
{
    int cpu = sched_getcpu();
    return cpu < 0 || (corepool_topology_covers(shard->topology, (unsigned)cpu) &&
                       corepool_topology_shard_of(shard->topology, (unsigned)cpu) == shard->index);
}

static void each_slice(struct corepool_shard *shard, void (*fn)(struct cp_slice *))
{
    for (struct cp_list *at = shard->slices.next; at != &shard->slices; at = at->next)
        fn(cp_container(at, struct cp_slice, link));
}

static void come_home(struct corepool_shard *shard)
{
    uv_timer_stop(&shard->homing);
    shard->away = false;
    atomic_store(&shard->parked, false);
    each_slice(shard, cp_slice_regain);
}

/* Again at each attempt that is refused: slices are opened meanwhile, and workers come back. */
static void park(struct corepool_shard *shard)
{
    atomic_store(&shard->parked, true);
    each_slice(shard, cp_slice_park);
}

static void on_homing(uv_timer_t *homing)
{
    struct corepool_shard *shard = homing->data;
    int error = cp_topology_try_pin(shard->topology, shard->index);
    cp_shard_enter(shard);
    if (error == 0 && is_at_home(shard))
        come_home(shard);
    else if (error == EINVAL)
        park(shard);
}

void cp_home_open(struct corepool_shard *shard)
{
    uv_timer_init(&shard->uv, &shard->homing);
    uv_unref((uv_handle_t *)&shard->homing);
    shard->homing.data = shard;
}

void cp_home_close(struct corepool_shard *shard)
{
    uv_close((uv_handle_t *)&shard->homing, NULL);
}

void cp_home_look(struct corepool_shard *shard)
{
    if (shard->pinned && !shard->away && !is_at_home(shard))
        cp_home_lost(shard);
}

void cp_home_lost(struct corepool_shard *shard)
{
    if (shard->away)
        return;
    shard->away = true;
    uv_update_time(&shard->uv);
    uv_timer_start(&shard->homing, on_homing, HOMING_INTERVAL_MS, HOMING_INTERVAL_MS); /* fails without a callback only */
}
