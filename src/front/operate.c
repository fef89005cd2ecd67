/* front/operate.c: operations on pools that run.
 *
 * One operation of a pool at a time changes its slices (impl->operating), each on its own shard; what then has to be waited
 * for is waited for without that, on the runtime's `changed`: slices that are watched tell of their changes under the lock.
 * A call under way keeps the runtime from being stopped under it, and a pool that closes ends every wait. Control threads. */
#include <corepool/operate.h>

#include <stdlib.h>

#include "base/condition.h"
#include "base/error.h"
#include "front/runtime.h"
#include "shard/steal.h"

/* --- one after the other ------------------------------------------------------------------------------------------ */

/* Under the lock. */
static int wait_for_turn(corepool_pool_t pool)
{
    struct corepool_pool_impl *impl = pool.impl;
    while (cp_pool_is_open(pool) && impl->operating)
        cp_condition_wait(&impl->runtime->changed, &impl->runtime->lock, CP_NEVER);
    return cp_pool_is_open(pool) ? COREPOOL_OK : cp_pool_closed(pool);
}

static int begin(corepool_pool_t pool, const char *what)
{
    int status = cp_check_control(what);
    if (status == COREPOOL_OK)
        status = cp_pool_check_handle(pool);
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&pool.impl->runtime->lock);
    pool.impl->runtime->calls++;
    status = wait_for_turn(pool);
    if (status == COREPOOL_OK)
        pool.impl->operating = true;
    else
        pool.impl->runtime->calls--;
    pthread_cond_broadcast(&pool.impl->runtime->changed);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return status;
}

/* Lets the next one have its turn; this call goes on. Under the lock. */
static void end_turn(struct corepool_pool_impl *impl)
{
    impl->operating = false;
    pthread_cond_broadcast(&impl->runtime->changed);
}

/* Under the lock. */
static void end_call(struct corepool_runtime *runtime)
{
    runtime->calls--;
    pthread_cond_broadcast(&runtime->changed);
}

static int end(corepool_pool_t pool, int status)
{
    struct corepool_runtime *runtime = pool.impl->runtime;
    pthread_mutex_lock(&runtime->lock);
    end_turn(pool.impl);
    end_call(runtime);
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

/* --- every slice --------------------------------------------------------------------------------------------------- */

struct visit {
    corepool_pool_t pool;
    int (*fn)(struct cp_slice *slice, const struct visit *visit);
    uint32_t amount; /* for the whole pool */
    bool on;
    unsigned rank, slices;
    uint32_t *shares; /* by rank */
    uint64_t total, *before; /* shares: of all slices, and of those that were visited */
};

static struct cp_slice *own_slice(corepool_pool_t pool, unsigned shard)
{
    pthread_mutex_lock(&pool.impl->runtime->lock);
    struct cp_slice *slice = cp_pool_is_known(pool) ? pool.impl->own[shard] : NULL;
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return slice;
}

/* A slice finishes on this thread only, so it is there until fn has returned. One that closes meanwhile fails at what it was told,
 * and that it closes is why. */
static int visit_on_shard(struct corepool_shard *shard, void *arg)
{
    const struct visit *visit = arg;
    struct cp_slice *slice = own_slice(visit->pool, shard->index);
    int status = slice ? visit->fn(slice, visit) : COREPOOL_ECLOSED;
    return status == COREPOOL_OK || cp_pool_is_open(visit->pool) ? status : cp_pool_closed(visit->pool);
}

static unsigned count_slices(corepool_pool_t pool)
{
    pthread_mutex_lock(&pool.impl->runtime->lock);
    unsigned slices = cp_pool_is_open(pool) ? pool.impl->slices_left : 0;
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return slices;
}

/* In the order of the shards; the first failure is reported, the others are visited all the same. */
static int visit_slices(struct visit *visit)
{
    struct corepool_runtime *runtime = visit->pool.impl->runtime;
    int status = COREPOOL_OK;
    visit->rank = 0;
    visit->slices = count_slices(visit->pool);
    if (visit->slices == 0)
        return cp_pool_closed(visit->pool);
    for (unsigned i = 0; i < runtime->shards; i++)
        if (own_slice(visit->pool, i)) {
            int code = cp_shard_call(&runtime->shard[i], visit_on_shard, visit);
            status = status == COREPOOL_OK ? code : status;
            visit->rank++;
        }
    return status == COREPOOL_OK && visit->rank < visit->slices ? cp_pool_closed(visit->pool) : status;
}

static void set_size(struct corepool_pool_impl *impl, uint32_t size)
{
    impl->size = size;
}

static void set_draining(struct corepool_pool_impl *impl, uint32_t draining)
{
    atomic_store(&impl->draining, draining);
}

/* Not of the pool that may have taken this one's place meanwhile. */
static int set(corepool_pool_t pool, void (*fn)(struct corepool_pool_impl *, uint32_t), uint32_t value)
{
    int status = COREPOOL_OK;
    pthread_mutex_lock(&pool.impl->runtime->lock);
    if (cp_pool_is_open(pool))
        fn(pool.impl, value);
    else
        status = cp_pool_closed(pool);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return status;
}

/* The slice does what follows at once; callers are kept off where that is asked for. */
static int pump(struct cp_slice *slice)
{
    unsigned shard = slice->shard->index;
    cp_slice_pump(slice);
    if (cp_slice_is_held(slice))
        return COREPOOL_OK;
    return cp_fail(COREPOOL_ESYSTEM, "shard %u has lost its CPU, and the kernel refuses the membarrier to reach it", shard);
}

/* --- nothing on its way -------------------------------------------------------------------------------------------- */

static void watch(struct corepool_pool_impl *impl)
{
    pthread_mutex_lock(&impl->runtime->lock);
    impl->watchers++;
    pthread_mutex_unlock(&impl->runtime->lock);
}

/* What moves between slices would miss an operation that goes from one to the next. So their moves are held first, and
 * released when it is over. */
static int hold_slice(struct cp_slice *slice, const struct visit *visit)
{
    cp_slice_hold_moves(slice, visit->on);
    slice->watched |= visit->on;
    return pump(slice);
}

static void see_home(struct cp_slice *slice, void *all)
{
    *(bool *)all &= atomic_load(&slice->home);
}

/* Under the lock. */
static bool is_home(struct corepool_pool_impl *impl)
{
    bool all = true;
    cp_pool_each_slice(impl, see_home, &all);
    return all;
}

static int hold_moves(corepool_pool_t pool)
{
    struct visit visit = {.pool = pool, .fn = hold_slice, .on = true};
    struct corepool_runtime *runtime = pool.impl->runtime;
    watch(pool.impl);
    int status = visit_slices(&visit);
    pthread_mutex_lock(&runtime->lock);
    while (status == COREPOOL_OK && cp_pool_is_open(pool) && !is_home(pool.impl))
        cp_condition_wait(&runtime->changed, &runtime->lock, CP_NEVER);
    pool.impl->watchers--;
    if (status == COREPOOL_OK && !cp_pool_is_open(pool))
        status = cp_pool_closed(pool);
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

/* Also when they could not all be held. The status of what was done meanwhile goes on. */
static int release_moves(corepool_pool_t pool, int status)
{
    struct visit visit = {.pool = pool, .fn = hold_slice, .on = false};
    int released = visit_slices(&visit);
    return status == COREPOOL_OK ? released : status;
}

/* --- size ---------------------------------------------------------------------------------------------------------- */

/* What it has, also if it was to shrink and could not yet. */
static int note_quota(struct cp_slice *slice, const struct visit *visit)
{
    visit->shares[visit->rank] = atomic_load(&slice->core.quota);
    return COREPOOL_OK;
}

static uint32_t to_level(uint32_t share, uint32_t level, bool grows)
{
    return (share < level) == grows ? level : share;
}

static uint64_t sum_at_level(const uint32_t *shares, unsigned slices, uint32_t level, bool grows)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < slices; i++)
        sum += to_level(shares[i], level, grows);
    return sum;
}

/* The shares sum to `size` afterwards: the smallest grow, or the largest shrink, to one level. None does the contrary: with
 * leases out there would be more workers than either size allows. The first take the remainder. */
static void share_out(uint32_t *shares, unsigned slices, uint32_t size)
{
    bool grows = sum_at_level(shares, slices, 0, true) < size;
    uint32_t level = 0, above = size + 1; /* the highest level that is not too high, and one that is */
    while (above - level > 1) {
        uint32_t middle = level + (above - level) / 2;
        if (sum_at_level(shares, slices, middle, grows) <= size)
            level = middle;
        else
            above = middle;
    }
    uint64_t left = size - sum_at_level(shares, slices, level, grows);
    for (unsigned i = 0; i < slices; i++) {
        bool one_more = left > 0 && (grows ? shares[i] <= level : shares[i] > level);
        shares[i] = to_level(shares[i], level, grows) + one_more;
        left -= one_more;
    }
}

static int reserve(struct cp_slice *slice, const struct visit *visit)
{
    return cp_slice_reserve(slice, visit->shares[visit->rank]);
}

static int resize(struct cp_slice *slice, const struct visit *visit)
{
    struct cp_core_options *options = &slice->core.options;
    options->most = options->most < visit->amount ? visit->amount : options->most;
    cp_slice_resize(slice, visit->shares[visit->rank]);
    return pump(slice);
}

/* While nothing moves. */
static int resize_held(struct visit *visit)
{
    visit->fn = note_quota;
    int status = visit_slices(visit);
    if (status != COREPOOL_OK)
        return status;
    share_out(visit->shares, visit->slices, visit->amount);
    visit->fn = reserve;
    status = visit_slices(visit);
    if (status == COREPOOL_OK)
        status = set(visit->pool, set_size, visit->amount);
    visit->fn = resize;
    return status == COREPOOL_OK ? visit_slices(visit) : status;
}

static int resize_all(corepool_pool_t pool, unsigned size)
{
    struct corepool_pool_impl *impl = pool.impl;
    int status = cp_pool_check_size(impl->runtime, size, impl->flags);
    if (status != COREPOOL_OK)
        return status;
    struct visit visit = {.pool = pool, .amount = size};
    if (impl->flags & COREPOOL_POOL_PER_SHARD)
        visit.amount *= impl->runtime->shards;
    if (visit.amount < count_slices(pool))
        return cp_fail(COREPOOL_EINVAL, "size: %u: the pool has %u slices, each with at least one worker", size,
                       count_slices(pool));
    visit.shares = calloc(impl->runtime->shards, sizeof *visit.shares);
    if (!visit.shares)
        return cp_fail(COREPOOL_ENOMEM, "no memory to resize a pool");
    status = hold_moves(pool);
    status = release_moves(pool, status == COREPOOL_OK ? resize_held(&visit) : status);
    free(visit.shares);
    return status;
}

int corepool_pool_resize(corepool_pool_t pool, unsigned size)
{
    int status = begin(pool, "corepool_pool_resize");
    return status == COREPOOL_OK ? end(pool, resize_all(pool, size)) : status;
}

/* --- flush --------------------------------------------------------------------------------------------------------- */

static int flush(struct cp_slice *slice, const struct visit *visit)
{
    cp_slice_flush(slice, visit->on);
    return pump(slice);
}

int corepool_pool_flush(corepool_pool_t pool, corepool_flush_t how)
{
    struct visit visit = {.pool = pool, .fn = flush, .on = how == COREPOOL_FLUSH_GENTLY};
    if ((unsigned)how > COREPOOL_FLUSH_NOW)
        return cp_fail(COREPOOL_EINVAL, "how: %d is none of COREPOOL_FLUSH_…", (int)how);
    int status = begin(pool, "corepool_pool_flush");
    if (status != COREPOOL_OK)
        return status;
    status = hold_moves(pool);
    return end(pool, release_moves(pool, status == COREPOOL_OK ? visit_slices(&visit) : status));
}

/* --- pause and resume ---------------------------------------------------------------------------------------------- */

static int pause_slice(struct cp_slice *slice, const struct visit *visit)
{
    (void)visit;
    cp_core_pause(&slice->core, true);
    return pump(slice);
}

static int resume_slice(struct cp_slice *slice, const struct visit *visit)
{
    (void)visit;
    cp_core_pause(&slice->core, false);
    cp_core_drain(&slice->core, false);
    return pump(slice);
}

int corepool_pool_pause(corepool_pool_t pool)
{
    struct visit visit = {.pool = pool, .fn = pause_slice};
    int status = begin(pool, "corepool_pool_pause");
    return status == COREPOOL_OK ? end(pool, visit_slices(&visit)) : status;
}

int corepool_pool_resume(corepool_pool_t pool)
{
    struct visit visit = {.pool = pool, .fn = resume_slice};
    int status = begin(pool, "corepool_pool_resume");
    if (status != COREPOOL_OK)
        return status;
    status = set(pool, set_draining, 0); /* before the slices take requests again */
    return end(pool, status == COREPOOL_OK ? visit_slices(&visit) : status);
}

/* --- waiting for a pool -------------------------------------------------------------------------------------------- */

bool cp_pool_changed(struct cp_slice *slice, void *context)
{
    struct corepool_pool_impl *impl = context;
    (void)slice;
    pthread_mutex_lock(&impl->runtime->lock);
    bool watched = impl->watchers > 0;
    pthread_cond_broadcast(&impl->runtime->changed);
    pthread_mutex_unlock(&impl->runtime->lock);
    return watched;
}

/* After the slices were visited with `status`: holds(pool, goal) is waited for. PENDING: the deadline came first. */
static int await(corepool_pool_t pool, int status, int (*holds)(corepool_pool_t, uint64_t), uint64_t goal, int64_t timeout_ms)
{
    struct corepool_runtime *runtime = pool.impl->runtime;
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    bool late = false;
    pthread_mutex_lock(&runtime->lock);
    end_turn(pool.impl);
    if (status == COREPOOL_OK)
        status = COREPOOL_PENDING;
    while (status == COREPOOL_PENDING) {
        status = cp_pool_is_open(pool) ? holds(pool, goal) : cp_pool_closed(pool);
        if (status != COREPOOL_PENDING || late)
            break;
        late = !cp_condition_wait(&runtime->changed, &runtime->lock, deadline);
    }
    pool.impl->watchers--;
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

static int finish_call(corepool_pool_t pool, int status)
{
    pthread_mutex_lock(&pool.impl->runtime->lock);
    end_call(pool.impl->runtime);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return status;
}

/* --- drain --------------------------------------------------------------------------------------------------------- */

static int drain_slice(struct cp_slice *slice, const struct visit *visit)
{
    (void)visit;
    cp_core_drain(&slice->core, true);
    slice->watched = true;
    atomic_store(&slice->quiet, false);
    return pump(slice);
}

static void see_quiet(struct cp_slice *slice, void *all)
{
    *(bool *)all &= atomic_load(&slice->quiet);
}

static int is_drained(corepool_pool_t pool, uint64_t goal)
{
    bool all = true;
    (void)goal;
    if (!atomic_load(&pool.impl->draining))
        return cp_fail(COREPOOL_ECANCELED, "the pool was resumed");
    cp_pool_each_slice(pool.impl, see_quiet, &all);
    return all ? COREPOOL_OK : COREPOOL_PENDING;
}

static int still_in_use(corepool_pool_t pool)
{
    char text[200] = "";
    pthread_mutex_lock(&pool.impl->runtime->lock);
    if (cp_pool_is_known(pool))
        cp_pool_describe_leases(pool.impl, text, sizeof text);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return cp_fail(COREPOOL_EBUSY, "still in use: %s", text);
}

int corepool_pool_drain(corepool_pool_t pool, int64_t timeout_ms)
{
    struct visit visit = {.pool = pool, .fn = drain_slice};
    int status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status == COREPOOL_OK)
        status = begin(pool, "corepool_pool_drain");
    if (status != COREPOOL_OK)
        return status;
    status = set(pool, set_draining, 1);
    watch(pool.impl);
    status = await(pool, status == COREPOOL_OK ? visit_slices(&visit) : status, is_drained, 0, timeout_ms);
    return finish_call(pool, status == COREPOOL_PENDING ? still_in_use(pool) : status);
}

/* --- warm ---------------------------------------------------------------------------------------------------------- */

/* In proportion to the slices' shares of the size, now that workers may have moved; the sum is the amount. */
static uint32_t part_of(const struct cp_slice *slice, const struct visit *visit)
{
    uint64_t before = *visit->before, after = before + slice->core.target;
    *visit->before = after;
    return (uint32_t)(after * visit->amount / visit->total - before * visit->amount / visit->total);
}

static int warm_slice(struct cp_slice *slice, const struct visit *visit)
{
    cp_core_warm(&slice->core, part_of(slice, visit));
    slice->watched = true;
    return pump(slice);
}

static void add_live(struct cp_slice *slice, void *sum)
{
    *(uint64_t *)sum += atomic_load(&slice->core.live);
}

static uint64_t count_open(corepool_pool_t pool)
{
    uint64_t open = 0;
    cp_pool_each_slice(pool.impl, add_live, &open);
    return open;
}

static int is_warm(corepool_pool_t pool, uint64_t goal)
{
    return count_open(pool) >= goal ? COREPOOL_OK : COREPOOL_PENDING;
}

static void find_error(struct cp_slice *slice, void *text)
{
    if (!*(char *)text)
        cp_slice_last_error(slice, text);
}

static int not_warm(corepool_pool_t pool, unsigned n, int64_t timeout_ms)
{
    char error[CP_ERROR_BYTES] = "";
    pthread_mutex_lock(&pool.impl->runtime->lock);
    uint64_t open = count_open(pool);
    cp_pool_each_slice(pool.impl, find_error, error);
    pthread_mutex_unlock(&pool.impl->runtime->lock);
    return cp_fail(COREPOOL_ETIMEDOUT, "%llu of %u workers are open after %lld ms%s%s", (unsigned long long)open, n,
                   (long long)timeout_ms, *error ? "; last open error: " : "", error);
}

static int add_share(struct cp_slice *slice, const struct visit *visit)
{
    *visit->before += slice->core.target;
    return COREPOOL_OK;
}

static int warm_held(corepool_pool_t pool, unsigned n)
{
    uint64_t total = 0, before = 0;
    struct visit sum = {.pool = pool, .fn = add_share, .before = &total};
    int status = visit_slices(&sum);
    struct visit visit = {.pool = pool, .fn = warm_slice, .amount = n, .total = total, .before = &before};
    return status == COREPOOL_OK ? visit_slices(&visit) : status;
}

static int warm_all(corepool_pool_t pool, unsigned n)
{
    if (n == 0 || n > pool.impl->size)
        return cp_fail(COREPOOL_EINVAL, "n: %u: 1 to the pool's size, %u", n, pool.impl->size);
    int status = hold_moves(pool);
    return release_moves(pool, status == COREPOOL_OK ? warm_held(pool, n) : status);
}

int corepool_pool_warm(corepool_pool_t pool, unsigned n, int64_t timeout_ms)
{
    int status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status == COREPOOL_OK)
        status = begin(pool, "corepool_pool_warm");
    if (status != COREPOOL_OK)
        return status;
    watch(pool.impl);
    status = await(pool, warm_all(pool, n), is_warm, n, timeout_ms);
    return finish_call(pool, status == COREPOOL_PENDING ? not_warm(pool, n, timeout_ms) : status);
}
