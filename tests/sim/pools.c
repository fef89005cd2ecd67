/* tests/sim/pools.c: pools and their slices, opened and closed again and again in the same memory. */
#include <string.h>

#include "sim.h"

/* Which is the caller's to send; all slices of a pool in any order. */
static void tell_slices(struct pool *pool, enum mail kind)
{
    pool->busy = world.shard_count;
    for (unsigned i = 0; i < world.shard_count; i++)
        send_mail(kind, &pool->slices[i], NULL, NULL, world.now + delay(world.mail_bits));
}

void pool_close(struct pool *pool)
{
    note(NOTE_POOL_CLOSE, (int)pool->number, 0, 0);
    pool->open = false;
    pool->holding = pool->operating = 0;
    tell_slices(pool, MAIL_CLOSE);
}

void pool_open(struct pool *pool)
{
    pool->fifo = draw(3) == 0;
    pool->lazy = draw(2);
    pool->managed = draw(8) == 0;
    pool->portable = draw(4) == 0;
    pool->looks = fault(3);
    pool->steals = draw(4) != 0;
    pool->movable = draw(3) != 0;
    pool->size = 0;
    tell_slices(pool, MAIL_OPEN);
}

/* Zero is: never. */
static int64_t draw_time(void)
{
    return draw(2) ? 0 : 1 + delay(world.hold_bits + 3);
}

static struct cp_look_options draw_looks(void)
{
    return (struct cp_look_options){
        .idle_timeout_ns = draw_time(),
        .max_idle_pings = (uint32_t)draw(4),
        .idle_close_ns = draw_time(),
        .max_lifetime_ns = draw_time(),
        .lifetime_jitter_percent = (uint32_t)draw(101),
        .validate_after_ns = draw_time(),
    };
}

static struct cp_core_options draw_options(const struct cp_slice *slice)
{
    int64_t shortest = 1 + delay(world.mail_bits);
    return (struct cp_core_options){
        .quota = 1 + (uint32_t)draw(slice->limit),
        .max_waiting = draw(4) ? 0 : 1 + (uint32_t)draw(6),
        .shed_target_ns = draw(4) ? 0 : 1 + delay(world.hold_bits),
        .shed_interval_ns = 1 + delay(world.hold_bits + 2),
        .lazy = slice->pool->lazy,
        .managed = slice->pool->managed,
        .steals = slice->pool->steals,
        .most = slice->pool->most,
        .movable = slice->pool->movable,
        .fifo = slice->pool->fifo,
        .max_opening = 1 + (uint32_t)draw(4),
        .backoff_min_ns = shortest,
        .backoff_max_ns = shortest << draw(6),
        .warm = draw(4) ? 0 : (uint32_t)draw(slice->limit),
        .seed = draw(UINT32_MAX),
        .look = slice->pool->looks && world.phase == SAFETY ? draw_looks() : (struct cp_look_options){0},
    };
}

void slice_open(struct cp_slice *slice)
{
    struct cp_core_options options = draw_options(slice);
    const struct pool *pool = slice->pool;
    note(NOTE_REOPEN, (int)slice->number, (int)options.quota, 0);
    slice->lost_cpu = slice->close_wanted = slice->sift_wanted = slice->paused = slice->draining = slice->holding = false;
    slice->hungry_at = slice->stocked_at = CP_NEVER;
    slice->close_reason = REASON_CLOSED;
    shelf_init(slice, (pool->portable ? CP_SHELF_PORTABLE : 0u) | (pool->managed ? CP_SHELF_WAITING : 0u),
               (pool->fifo ? CP_TRAIT_FIFO : 0u) | (pool->managed ? CP_TRAIT_MANAGED : 0u));
    cp_core_init(&slice->core, &options, slice->slots);
    atomic_store(&slice->core.waits, &slice->waits);
    slice->core.listening = pool->managed; /* for good: every give and take goes to the manager */
    slice->epoch = ++world.epochs;
    slice->dirty = slice->for_thread = true;
    memset(slice->at, 0, sizeof slice->at);
    slice->at[VACANT] = options.quota;
    slice->failures = 0;
    slice->target = options.quota;
    slice->pool->size += options.quota;
    if (--slice->pool->busy == 0) {
        slice->pool->open = true;
        slice->pool->generation++;
        note(NOTE_POOL_OPEN, (int)pool->number, 0, 0);
    }
}

void slice_finished(struct cp_slice *slice)
{
    struct pool *pool = slice->pool;
    slice->epoch = 0;
    slice->dirty = false;
    if (--pool->busy == 0 && world.phase != FINALE)
        schedule(EVENT_REOPEN, pool, 0, world.now + delay(world.hold_bits));
}
