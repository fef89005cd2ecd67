/* front/policy.c: which slice serves a caller.
 *
 * Where the caller's CPU does not decide, a checkout begins by a choice: the handle becomes one for the chosen shard, and all
 * that follows (looking at the shelf, waiting, trying the next worker) goes there. Nothing is written that another thread
 * reads: turns and random numbers are the thread's own, loads are read as they are at the moment.
 *
 * A handle may be stale and the pool behind it another by now, or about to be: all that is read here is atomic, numbers of
 * shards stay in range, and an own policy is only called once the pool was seen open after it was read. */
#include "front/policy.h"

#include <sched.h>

#include "base/error.h"

#define KNOWN_POLICY(name, text) text,
static const char *const names[] = {COREPOOL_POLICY_TABLE(KNOWN_POLICY)};
#undef KNOWN_POLICY

#define POLICIES (sizeof names / sizeof names[0])

const char *corepool_policy_name(corepool_policy_t policy)
{
    return (unsigned)policy < POLICIES ? names[policy] : "unknown";
}

int cp_policy_check(const corepool_pool_options_t *options)
{
    if ((unsigned)options->policy >= POLICIES)
        return cp_fail(COREPOOL_EINVAL, "policy: %d is none of COREPOOL_POLICY_…", (int)options->policy);
    if (options->policy == COREPOOL_POLICY_CUSTOM && !options->choose)
        return cp_fail(COREPOOL_EINVAL, "choose: NULL: COREPOOL_POLICY_CUSTOM needs it");
    if (options->policy != COREPOOL_POLICY_CUSTOM && options->choose)
        return cp_fail(COREPOOL_EINVAL, "choose: set, but policy is %s: nobody would call it", names[options->policy]);
    if (options->choose_arg && !options->choose)
        return cp_fail(COREPOOL_EINVAL, "choose_arg: set, but choose is not");
    return COREPOOL_OK;
}

/* --- numbers ---------------------------------------------------------------------------------------------------------- */

/* A bijection of 64 bits in which each input bit changes each output bit in about half of the cases (the finaliser of
 * SplitMix64, Steele, Lea and Flood 2014): what two multiplications can do, as a checkout has no time for SipHash. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ value >> 27) * UINT64_C(0x94D049BB133111EB);
    return value ^ value >> 31;
}

/* Below `limit`, by the upper bits: no division. */
static uint32_t scale(uint64_t random, uint32_t limit)
{
    return (uint32_t)((random >> 32) * limit >> 32);
}

/* A sequence of the thread's own: a counter, and the thread's number above all that it will reach. */
static uint64_t draw(struct cp_thread *self)
{
    return mix((uint64_t)self->number << 40 ^ ++self->draws);
}

/* --- loads ------------------------------------------------------------------------------------------------------------ */

static int64_t load_of(const struct corepool_pool_impl *impl, uint32_t shard)
{
    const struct cp_slice *slice = atomic_load_explicit(&impl->by_shard[shard], memory_order_relaxed);
    return (int64_t)atomic_load_explicit(&slice->core.waiting, memory_order_relaxed) -
           (int64_t)cp_shelf_idle(&slice->shelf);
}

int64_t corepool_choice_load(const corepool_choice_t *choice, unsigned shard)
{
    return shard < choice->shards ? load_of(choice->impl, shard) : INT64_MAX;
}

/* --- policies: each returns a shard ------------------------------------------------------------------------------------ */

static uint32_t home(const struct corepool_pool_impl *impl, uint32_t rank)
{
    return atomic_load_explicit(&impl->homes[rank], memory_order_relaxed);
}

static uint32_t next_in_turn(const struct corepool_pool_impl *impl, uint32_t slices, struct cp_thread *self)
{
    uint32_t *turn = &self->turns[atomic_load_explicit(&impl->salt, memory_order_relaxed) % CP_THREAD_TURNS];
    uint32_t next = *turn + 1;
    if (cp_unlikely(next >= slices))
        next = next == slices ? 0 : next % slices;
    *turn = next;
    return home(impl, next);
}

static uint32_t better_of_two(const struct corepool_pool_impl *impl, uint32_t slices, struct cp_thread *self)
{
    if (slices == 1)
        return home(impl, 0);
    uint64_t random = draw(self);
    uint32_t first = scale(random, slices), second = scale(random << 32, slices - 1);
    second += second >= first;
    uint32_t a = home(impl, first), b = home(impl, second);
    return load_of(impl, b) < load_of(impl, a) ? b : a;
}

/* The shard of the CPU that the caller runs on; on a shard's thread that shard. */
static unsigned local_shard(const struct corepool_pool_impl *impl, const struct cp_thread *self)
{
    if (self->shard && self->shard->runtime == impl->runtime)
        return self->shard->index;
    return corepool_topology_shard_of(impl->runtime->topology,
                                      impl->is_cpu_known ? cp_rseq_cpu() : (unsigned)sched_getcpu());
}

/* From the caller's own on, so that equals are asked by those who are near them. */
static uint32_t least_loaded(const struct corepool_pool_impl *impl, uint32_t slices, const struct cp_thread *self)
{
    uint32_t best = local_shard(impl, self), start = 0;
    int64_t least = load_of(impl, best);
    while (start < slices && home(impl, start) < best)
        start++;
    for (uint32_t i = 0; i < slices; i++) {
        uint32_t rank = start + i;
        uint32_t shard = home(impl, rank < slices ? rank : rank - slices);
        int64_t load = load_of(impl, shard);
        if (load < least) {
            least = load;
            best = shard;
        }
    }
    return best;
}

static uint32_t by_key(const struct corepool_pool_impl *impl, uint32_t slices, uint64_t key)
{
    uint64_t salt = atomic_load_explicit(&impl->salt, memory_order_relaxed);
    return home(impl, scale(mix(key ^ mix(salt)), slices));
}

/* OK with *shard, or EINVAL. */
static int ask(corepool_pool_t pool, uint64_t key, const struct cp_thread *self, uint32_t *shard)
{
    const struct corepool_pool_impl *impl = pool.impl;
    /* Acquire: what a later pool has stored here was stored after this one's generation had ended. */
    corepool_choose_cb choose = atomic_load_explicit(&impl->choose, memory_order_acquire);
    void *arg = atomic_load_explicit(&impl->choose_arg, memory_order_acquire);
    if (!cp_pool_is_open(pool))
        return COREPOOL_OK;
    corepool_choice_t choice = {
        .shards = impl->runtime->shards, .local = local_shard(impl, self), .key = key, .impl = impl};
    *shard = choose(&choice, arg);
    if (*shard >= choice.shards)
        return cp_fail(COREPOOL_EINVAL, "choose returned shard %u: there are %u", *shard, choice.shards);
    return COREPOOL_OK;
}

int cp_policy_bind(corepool_pool_t *pool, uint64_t key, struct cp_thread *self)
{
    const struct corepool_pool_impl *impl = pool->impl;
    uint32_t slices = atomic_load_explicit(&impl->slices, memory_order_relaxed), shard = home(impl, 0);
    int status = COREPOOL_OK;
    switch ((corepool_policy_t)atomic_load_explicit(&impl->policy, memory_order_acquire)) {
    case COREPOOL_POLICY_LOCAL:
    case COREPOOL_POLICY_LOCAL_ONLY:
    case COREPOOL_POLICY_SINGLE: return COREPOOL_OK;
    case COREPOOL_POLICY_ROUND_ROBIN: shard = next_in_turn(impl, slices, self); break;
    case COREPOOL_POLICY_RANDOM: shard = home(impl, scale(draw(self), slices)); break;
    case COREPOOL_POLICY_TWO_CHOICES: shard = better_of_two(impl, slices, self); break;
    case COREPOOL_POLICY_LEAST_LOADED: shard = least_loaded(impl, slices, self); break;
    case COREPOOL_POLICY_HASH: shard = by_key(impl, slices, key); break;
    case COREPOOL_POLICY_CUSTOM: status = ask(*pool, key, self, &shard); break;
    }
    if (cp_likely(status == COREPOOL_OK))
        pool->shard = (int32_t)shard;
    return status;
}

/* --- open ------------------------------------------------------------------------------------------------------------- */

/* Keys may come from outside: which of them meet in a slice is another matter for every pool. Pools that turns are taken in
 * have numbers, so that a few of them do not share a counter. */
static uint32_t draw_salt(const struct corepool_pool_impl *impl, corepool_policy_t policy)
{
    static _Atomic uint32_t pools;
    if (policy == COREPOOL_POLICY_ROUND_ROBIN)
        return atomic_fetch_add_explicit(&pools, 1, memory_order_relaxed);
    return (uint32_t)mix((uint64_t)cp_now_ns() ^ (uintptr_t)impl);
}

void cp_policy_set(struct corepool_pool_impl *impl, const corepool_pool_options_t *options)
{
    atomic_store(&impl->choose, options->choose);
    atomic_store(&impl->choose_arg, options->choose_arg);
    atomic_store(&impl->salt, draw_salt(impl, options->policy));
    atomic_store(&impl->policy, options->policy);
    bool by_cpu = cp_policy_is_local(options->policy) || options->policy == COREPOOL_POLICY_SINGLE;
    atomic_store(&impl->portable_cpus, impl->is_cpu_known && by_cpu ? impl->possible_cpus : 0);
}
