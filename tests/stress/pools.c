/* tests/stress/pools.c: the pools of a scene, from open to close, and what must be true of them when nobody
 * moves.
 *
 * Thread: main, or control while clients run. */
#include <poll.h>
#include <stdlib.h>

#include "stress.h"

struct life *open_life(unsigned plan)
{
    const struct plan *what = &scene.plans[plan];
    corepool_pool_options_t how = {
        .name = what->name, .flags = what->flags, .backoff_min_ms = 1, .backoff_max_ms = 4,
        .barging_us = what->barging_us, .policy = what->policy};
    struct life *life = calloc(1, sizeof *life);
    if (!life)
        broke("oracle", "no memory for a pool's life");
    life->plan = what;
    int status = corepool_pool_open(scene.runtime, what->cls, life, what->size, &how, &life->pool);
    if (status != COREPOOL_OK)
        broke("oracle", "pool %s cannot be opened: %s", what->name, corepool_error_detail());
    life->next = scene.all;
    scene.all = life;
    atomic_store_explicit(&scene.lives[plan], life, memory_order_release);
    return life;
}

void close_life(struct life *life, void (*meanwhile)(void))
{
    int64_t deadline = now_ms() + options.patience_s * INT64_C(1000);
    int status = corepool_pool_close(life->pool, 0);
    bool begun = status == COREPOOL_EBUSY;
    while (status == COREPOOL_EBUSY && now_ms() < deadline) {
        meanwhile();
        status = corepool_pool_close(life->pool, 1);
    }
    if (status != COREPOOL_OK && !(begun && status == COREPOOL_ECLOSED)) /* gone between two calls */
        broke("L5", "pool %s does not close: %s", life->plan->name, corepool_error_detail());
    life->closed = true;
    uint64_t inits = atomic_load(&life->inits), terminated = life_terminated(life);
    if (inits != terminated)
        broke("L6", "pool %s: %llu workers were initialised and %llu terminated", life->plan->name,
              (unsigned long long)inits, (unsigned long long)terminated);
    if (life->plan->cls->flags & COREPOOL_CLASS_MOVABLE &&
        atomic_load(&life->terminated[COREPOOL_REASON_MOVED]))
        broke("L6", "pool %s: workers that may move were terminated for their places", life->plan->name);
    if (atomic_load(&life->pool_inits) != atomic_load(&life->pool_terminates))
        broke("L6", "pool %s: its state was initialised on %llu shards and terminated on %llu",
              life->plan->name, (unsigned long long)atomic_load(&life->pool_inits),
              (unsigned long long)atomic_load(&life->pool_terminates));
}

void free_lives(void)
{
    while (scene.all) {
        struct life *life = scene.all;
        scene.all = life->next;
        free(life);
    }
    for (unsigned i = 0; i < PLANS_MAX; i++)
        atomic_store(&scene.lives[i], NULL);
}

/* --- when nobody moves ------------------------------------------------------------------------------------ */

static corepool_stats_t stats_of(const struct life *life)
{
    corepool_stats_t stats;
    if (corepool_pool_stats(life->pool, &stats) != COREPOOL_OK)
        broke("oracle", "pool %s has no statistics: %s", life->plan->name, corepool_error_detail());
    return stats;
}

/* Eager pools are full again; in all, everything has come home and every time-out is known to the manager. */
static bool is_at_rest(const struct life *life, const corepool_stats_t *stats)
{
    return !stats->leased && !stats->waiting && !stats->closing && !stats->opening && !stats->moving &&
           (life->plan->flags & COREPOOL_POOL_LAZY || !stats->vacant) &&
           stats->timeouts == atomic_load(&life->timeouts);
}

static corepool_stats_t wait_for_rest(const struct life *life)
{
    int64_t deadline = now_ms() + options.patience_s * INT64_C(1000);
    corepool_stats_t stats = stats_of(life);
    while (!is_at_rest(life, &stats)) {
        if (now_ms() > deadline)
            broke("L1", "pool %s does not come to rest: %llu requests had timed out, its managers know of %llu",
                  life->plan->name, (unsigned long long)atomic_load(&life->timeouts),
                  (unsigned long long)stats.timeouts);
        poll(NULL, 0, 1);
        stats = stats_of(life);
    }
    return stats;
}

static void check_life(const struct life *life)
{
    corepool_stats_t stats = wait_for_rest(life);
    uint64_t size =
        life->plan->flags & COREPOOL_POOL_PER_SHARD ? life->plan->size * scene.shards : life->plan->size;
    uint64_t sum = stats.vacant + stats.opening + stats.idle + stats.leased + stats.closing;
    uint64_t live = atomic_load(&life->inits) - life_terminated(life);
    if (stats.quota != size || sum != size)
        broke("L1", "pool %s of %llu: the quotas are %llu, the counts sum to %llu", life->plan->name,
              (unsigned long long)size, (unsigned long long)stats.quota, (unsigned long long)sum);
    if (stats.stolen != stats.given)
        broke("L1", "pool %s: its slices gave %llu workers and places and got %llu", life->plan->name,
              (unsigned long long)stats.given, (unsigned long long)stats.stolen);
    if (live != stats.idle)
        broke("L6", "pool %s has %llu workers, and counts %llu", life->plan->name, (unsigned long long)live,
              (unsigned long long)stats.idle);
    if (stats.checkouts != stats.shelf_hits + stats.grants)
        broke("L5", "pool %s: %llu checkouts are not %llu hits and %llu grants", life->plan->name,
              (unsigned long long)stats.checkouts, (unsigned long long)stats.shelf_hits,
              (unsigned long long)stats.grants);
}

static void wait_for_shards(void)
{
    int64_t deadline = now_ms() + options.patience_s * INT64_C(1000);
    while (atomic_load(&scene.asking)) {
        if (now_ms() > deadline)
            broke("L5", "%u asynchronous requests never end", atomic_load(&scene.asking));
        poll(NULL, 0, 1);
    }
}

void check_quiescent(void)
{
    wait_for_shards();
    check_outcomes();
    for (unsigned i = 0; i < scene.plan_count; i++)
        check_life(atomic_load(&scene.lives[i]));
    if (corepool_runtime_audit(scene.runtime) != COREPOOL_OK)
        broke("audit", "%s", corepool_error_detail());
}

/* --- reasons ---------------------------------------------------------------------------------------------- */

static void expect(corepool_reason_t reason, uint64_t least, uint64_t most)
{
    uint64_t sum = 0;
    for (const struct life *life = scene.all; life; life = life->next)
        sum += atomic_load(&life->terminated[reason]);
    if (sum < least || sum > most)
        broke("L6", "%llu workers were terminated because \"%s\", and between %llu and %llu should have been",
              (unsigned long long)sum, corepool_reason_text(reason), (unsigned long long)least,
              (unsigned long long)most);
}

/* Of two that end one lease, either may be the one that counts; an exit may also find a grant that came too
 * late. */
void check_reasons(void)
{
    struct tally sum = {0};
    add_tally(&sum, &total);
    add_tally(&sum, &shared);
    uint64_t duels = sum.kinds[KIND_DUEL];
    expect(COREPOOL_REASON_REMOVED, sum.kinds[KIND_REMOVE], sum.kinds[KIND_REMOVE] + duels);
    expect(COREPOOL_REASON_FAILED, sum.kinds[KIND_FAIL], sum.kinds[KIND_FAIL] + duels);
    expect(COREPOOL_REASON_DOWN, sum.kinds[KIND_LEFT_BEHIND],
           sum.kinds[KIND_LEFT_BEHIND] + sum.kinds[KIND_VISITOR]);
    expect(COREPOOL_REASON_EVICTED, 0, sum.kinds[KIND_EVICT_LEASED] + sum.kinds[KIND_EVICT_LATER]);
    expect(COREPOOL_REASON_CHECKIN, sum.kinds[KIND_CHECKIN_REMOVES], sum.kinds[KIND_CHECKIN_REMOVES]);
    expect(COREPOOL_REASON_HANGUP, 0, 0);
    expect(COREPOOL_REASON_NONE, 0, 0);
}
