/* tests/policy_test.c: dispatch policies: whom each asks, by draws on a machine of eight shards that is not here. */
#include <criterion/criterion.h>

#include <sched.h>
#include <stdio.h>

#include "support/callers.h"

#define MACHINE "pack:2 core:4 pu:1"
#define SHARDS 8u
#define EACH 4u /* workers per shard, where it does not matter */
#define DRAWS 8000u

static corepool_pool_t open_with(struct laws_count *count, unsigned each, const corepool_pool_options_t *options)
{
    corepool_pool_t pool = laws_open_with(&laws_class, count, each * SHARDS, options);
    if (!(options->flags & COREPOOL_POOL_LAZY))
        laws_await_idle(pool, (uint64_t)each * SHARDS);
    return pool;
}

static corepool_pool_t start(struct laws_count *count, unsigned each, corepool_policy_t policy)
{
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    return open_with(count, each, &(corepool_pool_options_t){.policy = policy});
}

static unsigned shard_of(const corepool_lease_t *lease)
{
    return corepool_shard_index(corepool_worker_shard(lease->worker));
}

static corepool_lease_t take_key(corepool_pool_t pool, uint64_t key)
{
    corepool_lease_t lease;
    const corepool_checkout_options_t options = {.timeout_ms = LAWS_PATIENCE_MS, .key = key};
    cr_assert_eq(corepool_checkout(pool, &options, &lease), COREPOOL_OK, "%s", corepool_error_detail());
    return lease;
}

/* Where the next checkout with that key goes. */
static unsigned draw(corepool_pool_t pool, uint64_t key)
{
    corepool_lease_t lease = take_key(pool, key);
    unsigned shard = shard_of(&lease);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    return shard;
}

/* --- options --- */

static unsigned choose_first(const corepool_choice_t *choice, void *arg)
{
    (void)choice, (void)arg;
    return 0;
}

static void expect_refused(corepool_pool_options_t options, const char *word)
{
    corepool_pool_t pool;
    cr_expect_eq(corepool_pool_open(laws_runtime(), &laws_class, NULL, 1, &options, &pool), COREPOOL_EINVAL);
    laws_expect_detail(word);
}

Test(policy, options_that_do_not_go_together_are_refused_by_name)
{
    laws_start(NULL);
    expect_refused((corepool_pool_options_t){.policy = COREPOOL_POLICY_CUSTOM + 1}, "policy: 9");
    expect_refused((corepool_pool_options_t){.policy = (corepool_policy_t)-1}, "policy: -1");
    expect_refused((corepool_pool_options_t){.policy = COREPOOL_POLICY_CUSTOM}, "choose: NULL");
    expect_refused((corepool_pool_options_t){.policy = COREPOOL_POLICY_HASH, .choose = choose_first}, "policy is hash");
    expect_refused((corepool_pool_options_t){.choose_arg = &(int){0}}, "choose_arg");
    laws_end();
}

Test(policy, each_has_a_name_of_its_own)
{
    for (int i = 0; i <= COREPOOL_POLICY_CUSTOM; i++)
        for (int j = 0; j < i; j++)
            cr_expect_str_neq(corepool_policy_name((corepool_policy_t)i), corepool_policy_name((corepool_policy_t)j));
    cr_expect_str_eq(corepool_policy_name(COREPOOL_POLICY_TWO_CHOICES), "two-choices");
    cr_expect_str_eq(corepool_policy_name((corepool_policy_t)(COREPOOL_POLICY_CUSTOM + 1)), "unknown");
}

/* --- local --- */

static void take_on_cpu(void *arg)
{
    corepool_pool_t pool = *(corepool_pool_t *)arg;
    corepool_lease_t lease = laws_take(pool);
    cr_expect_eq(corepool_shard_cpu(corepool_worker_shard(lease.worker)), sched_getcpu());
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
}

Test(policy, local_asks_the_shard_of_the_callers_cpu)
{
    const corepool_runtime_t *runtime = laws_start(NULL);
    for (corepool_policy_t policy = COREPOOL_POLICY_LOCAL; policy <= COREPOOL_POLICY_LOCAL_ONLY; policy++) {
        static struct laws_count counts[2];
        corepool_pool_t pool = laws_open_with(&laws_class, &counts[policy], 16, &(corepool_pool_options_t){.policy = policy});
        laws_await_idle(pool, 16);
        for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
            laws_pin(laws_cpu_of(i));
            take_on_cpu(&pool);
        }
    }
    laws_end();
}

/* --- round robin --- */

static void expect_rounds(corepool_pool_t pool, unsigned rounds)
{
    while (rounds--) {
        unsigned seen = 0;
        for (unsigned i = 0; i < SHARDS; i++)
            seen |= 1u << draw(pool, 0);
        cr_expect_eq(seen, (1u << SHARDS) - 1, "a round left out %x", ~seen);
    }
}

Test(policy, round_robin_asks_each_slice_once_a_round)
{
    struct laws_count count = {0};
    expect_rounds(start(&count, EACH, COREPOOL_POLICY_ROUND_ROBIN), 10);
    laws_end();
}

Test(policy, round_robin_keeps_its_round_while_the_thread_uses_another_pool)
{
    struct laws_count counts[2] = {0};
    corepool_pool_t pools[2];
    unsigned seen[2] = {0};
    pools[0] = start(&counts[0], EACH, COREPOOL_POLICY_ROUND_ROBIN);
    pools[1] = open_with(&counts[1], EACH, &(corepool_pool_options_t){.policy = COREPOOL_POLICY_ROUND_ROBIN});
    for (unsigned i = 0; i < 2 * SHARDS; i++)
        seen[i % 2] |= 1u << draw(pools[i % 2], 0);
    cr_expect_eq(seen[0], (1u << SHARDS) - 1);
    cr_expect_eq(seen[1], (1u << SHARDS) - 1);
    laws_end();
}

Test(policy, round_robin_asks_only_shards_that_have_a_slice)
{
    struct laws_count count = {0};
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    corepool_pool_t pool =
        laws_open_with(&laws_class, &count, 4, &(corepool_pool_options_t){.policy = COREPOOL_POLICY_ROUND_ROBIN});
    laws_await_idle(pool, 4);
    unsigned first = draw(pool, 0);
    for (unsigned i = 1; i < 10; i++)
        cr_expect_eq(draw(pool, 0), i % 2 ? 4 - first : first, "a slice for each package");
    laws_end();
}

/* --- random, and two choices --- */

Test(policy, random_asks_every_slice_equally_often)
{
    struct laws_count count = {0};
    unsigned drawn[SHARDS] = {0};
    corepool_pool_t pool = start(&count, EACH, COREPOOL_POLICY_RANDOM);
    for (unsigned i = 0; i < DRAWS; i++)
        drawn[draw(pool, 0)]++;
    for (unsigned i = 0; i < SHARDS; i++) /* five standard deviations of a thousand */
        cr_expect(drawn[i] > 850 && drawn[i] < 1150, "shard %u: %u of %u", i, drawn[i], DRAWS);
    laws_end();
}

#define BALLS 400u
#define ROOM 100u /* more than any shard gets */

/* Takes BALLS leases that stay out; how many more the fullest shard gave than the emptiest. */
static unsigned spread_of(corepool_policy_t policy)
{
    struct laws_count count = {0};
    unsigned given[SHARDS] = {0}, most = 0, least = BALLS;
    static corepool_lease_t leases[BALLS];
    corepool_pool_t pool = start(&count, ROOM, policy);
    for (unsigned i = 0; i < BALLS; i++) {
        leases[i] = take_key(pool, 0);
        given[shard_of(&leases[i])]++;
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        most = given[i] > most ? given[i] : most;
        least = given[i] < least ? given[i] : least;
    }
    for (unsigned i = 0; i < BALLS; i++)
        cr_assert_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    laws_end();
    return most - least;
}

Test(policy, two_choices_balance_better_than_one)
{
    unsigned random = spread_of(COREPOOL_POLICY_RANDOM), two = spread_of(COREPOOL_POLICY_TWO_CHOICES);
    cr_expect_lt(2 * two, random, "two choices: %u, random: %u", two, random);
}

Test(policy, two_choices_of_one_slice_are_that_slice)
{
    struct laws_count count = {0};
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    corepool_pool_t pool =
        laws_open_with(&laws_class, &count, 1, &(corepool_pool_options_t){.policy = COREPOOL_POLICY_TWO_CHOICES});
    laws_await_idle(pool, 1);
    cr_expect_eq(draw(pool, 0), 0);
    laws_end();
}

/* --- least loaded --- */

static uint64_t idle_on(corepool_pool_t pool, unsigned shard)
{
    return laws_stats(corepool_pool_at(pool, shard)).idle;
}

Test(policy, least_loaded_never_asks_a_fuller_slice)
{
    struct laws_count count = {0};
    corepool_lease_t leases[EACH * SHARDS];
    corepool_pool_t pool = start(&count, EACH, COREPOOL_POLICY_LEAST_LOADED);
    for (unsigned i = 0; i < EACH * SHARDS; i++) {
        leases[i] = take_key(pool, 0);
        uint64_t left = idle_on(pool, shard_of(&leases[i])) + 1;
        for (unsigned other = 0; other < SHARDS; other++)
            cr_expect_leq(idle_on(pool, other), left, "draw %u", i);
    }
    for (unsigned i = 0; i < EACH * SHARDS; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    laws_end();
}

Test(policy, least_loaded_waits_where_fewest_wait)
{
    struct laws_count count = {0};
    corepool_lease_t leases[SHARDS];
    struct caller callers[2 * SHARDS] = {0};
    corepool_pool_t pool = start(&count, 1, COREPOOL_POLICY_LEAST_LOADED);
    for (unsigned i = 0; i < SHARDS; i++)
        leases[i] = take_key(pool, 0);
    for (unsigned i = 0; i < 2 * SHARDS; i++) {
        callers[i].pool = pool;
        caller_start(&callers[i]);
        laws_await_waiting(pool, i + 1);
    }
    for (unsigned i = 0; i < SHARDS; i++)
        cr_expect_eq(laws_stats(corepool_pool_at(pool, i)).waiting, 2);
    for (unsigned i = 0; i < SHARDS; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    for (unsigned i = 0; i < 2 * SHARDS; i++)
        caller_expect(&callers[i], COREPOOL_OK);
    laws_end();
}

/* --- hash --- */

#define KEYS 1000u

struct keys {
    corepool_pool_t pool;
    unsigned slice[KEYS];
};

static void draw_keys(void *arg)
{
    struct keys *keys = arg;
    for (unsigned i = 0; i < KEYS; i++)
        keys->slice[i] = draw(keys->pool, i);
}

Test(policy, hash_asks_the_same_slice_for_the_same_key_on_every_thread)
{
    struct laws_count count = {0};
    static struct keys here, there;
    here.pool = there.pool = start(&count, EACH, COREPOOL_POLICY_HASH);
    draw_keys(&here);
    laws_in_thread(-1, draw_keys, &there);
    cr_expect_arr_eq(here.slice, there.slice, sizeof here.slice);
    cr_expect_eq(corepool_pool_resize(here.pool, 2 * EACH * SHARDS), COREPOOL_OK);
    draw_keys(&there);
    cr_expect_arr_eq(here.slice, there.slice, sizeof here.slice, "resized");
    laws_end();
}

Test(policy, hash_spreads_keys_that_follow_each_other)
{
    struct laws_count count = {0};
    static struct keys keys;
    unsigned drawn[SHARDS] = {0};
    keys.pool = start(&count, EACH, COREPOOL_POLICY_HASH);
    draw_keys(&keys);
    for (unsigned i = 0; i < KEYS; i++)
        drawn[keys.slice[i]]++;
    for (unsigned i = 0; i < SHARDS; i++) /* six standard deviations of 125: its salt is another each time */
        cr_expect(drawn[i] > 62 && drawn[i] < 188, "shard %u: %u of %u", i, drawn[i], KEYS);
    laws_end();
}

Test(policy, hash_waits_for_its_slice_though_others_are_idle)
{
    struct laws_count count = {0};
    corepool_lease_t lease, other;
    corepool_pool_t pool = start(&count, 1, COREPOOL_POLICY_HASH);
    lease = take_key(pool, 7);
    const corepool_checkout_options_t same = {.key = 7, .timeout_ms = LAWS_SHORT_MS};
    cr_expect_eq(corepool_checkout_try(pool, &same, &other), COREPOOL_EEMPTY);
    cr_expect_eq(corepool_checkout(pool, &same, &other), COREPOOL_ETIMEDOUT);
    char words[32];
    snprintf(words, sizeof words, "1 leased on shard %u", shard_of(&lease));
    laws_expect_detail(words);
    cr_expect_eq(laws_stats(pool).idle, SHARDS - 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

/* --- single --- */

Test(policy, single_has_one_slice_for_callers_of_every_shard)
{
    struct laws_count count = {0};
    corepool_pool_t pool = start(&count, EACH, COREPOOL_POLICY_SINGLE);
    for (unsigned i = 0; i < SHARDS; i++) {
        cr_expect_eq(draw(corepool_pool_at(pool, i), 0), 0);
        cr_expect_eq(laws_stats(corepool_pool_at(pool, i)).quota, EACH * SHARDS, "all of them");
    }
    cr_expect_eq(draw(pool, 0), 0);
    laws_end();
    cr_expect_eq(atomic_load(&count.pool_inits), 1);
}

Test(policy, single_serves_a_thread_on_each_cpu_at_once)
{
    struct laws_count count = {0};
    const corepool_runtime_t *runtime = laws_start(NULL);
    corepool_pool_t pool =
        laws_open_with(&laws_class, &count, 4, &(corepool_pool_options_t){.policy = COREPOOL_POLICY_SINGLE});
    laws_await_idle(pool, 4);
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
        corepool_lease_t lease;
        laws_pin(laws_cpu_of(i));
        cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_OK, "from the shelf, whatever the CPU");
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    laws_end();
}

/* --- own --- */

/* What a choice says next, and what it was asked. */
struct chooser {
    _Atomic unsigned answer, asked;
    corepool_choice_t choice;
    int64_t loads[SHARDS + 1];
};

static unsigned choose(const corepool_choice_t *choice, void *arg)
{
    struct chooser *chooser = arg;
    atomic_fetch_add(&chooser->asked, 1);
    chooser->choice = *choice;
    for (unsigned i = 0; i <= SHARDS; i++)
        chooser->loads[i] = corepool_choice_load(choice, i);
    return atomic_load(&chooser->answer);
}

static corepool_pool_t start_own(struct laws_count *count, unsigned each, struct chooser *chooser)
{
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    return open_with(count, each,
                     &(corepool_pool_options_t){
                         .policy = COREPOOL_POLICY_CUSTOM, .choose = choose, .choose_arg = chooser});
}

Test(policy, an_own_policy_is_asked_once_per_checkout_and_obeyed)
{
    struct laws_count count = {0};
    struct chooser chooser = {0};
    corepool_lease_t lease;
    corepool_pool_t pool = start_own(&count, EACH, &chooser);
    for (unsigned i = 0; i < SHARDS; i++) {
        atomic_store(&chooser.answer, i);
        cr_expect_eq(draw(pool, 1000 + i), i);
        cr_expect_eq(chooser.choice.key, 1000 + i);
        cr_expect_eq(corepool_checkout_try(pool, &(corepool_checkout_options_t){.key = i}, &lease), COREPOOL_OK);
        cr_expect_eq(shard_of(&lease), i);
        cr_expect_eq(chooser.choice.key, i);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_expect_eq(atomic_load(&chooser.asked), 2 * SHARDS);
    cr_expect_eq(chooser.choice.shards, SHARDS);
    cr_expect_lt(chooser.choice.local, SHARDS);
    laws_end();
}

Test(policy, an_own_policy_sees_who_is_idle_and_who_waits)
{
    struct laws_count count = {0};
    struct chooser chooser = {.answer = 3};
    struct caller caller = {0};
    corepool_pool_t pool = caller.pool = start_own(&count, 2, &chooser);
    corepool_lease_t a = take_key(pool, 0), b = take_key(pool, 0);
    caller_start(&caller);
    laws_await_waiting(corepool_pool_at(pool, 3), 1);
    cr_expect_eq(atomic_load(&chooser.asked), 3, "the one that waits was asked for once, too");
    cr_expect_eq(chooser.loads[3], 0);
    atomic_store(&chooser.answer, 5);
    cr_expect_eq(draw(pool, 0), 5);
    cr_expect_eq(chooser.loads[3], 1);
    cr_expect_eq(chooser.loads[5], -2);
    cr_expect_eq(chooser.loads[SHARDS], INT64_MAX, "there is no such shard");
    cr_expect_eq(corepool_checkin(&a), COREPOOL_OK);
    caller_expect(&caller, COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&b), COREPOOL_OK);
    laws_end();
}

Test(policy, an_own_policy_that_names_no_shard_fails_the_checkout)
{
    struct laws_count count = {0};
    struct chooser chooser = {.answer = SHARDS};
    corepool_pool_t pool = start_own(&count, 1, &chooser);
    corepool_lease_t lease;
    draw(corepool_pool_at(pool, 0), 0); /* from here on the thread is known: the usual path */
    lease.generation = 99;
    cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_EINVAL);
    laws_expect_detail("choose returned shard 8: there are 8");
    cr_expect_eq(lease.generation, 0);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_EINVAL);
    cr_expect_eq(atomic_load(&chooser.asked), 2);
    laws_end();
}

Test(policy, an_own_policy_is_not_asked_once_its_pool_is_closed)
{
    struct laws_count counts[2] = {0};
    struct chooser chooser = {0};
    corepool_lease_t lease;
    corepool_pool_t pool = start_own(&counts[0], 1, &chooser);
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ECLOSED);
    struct chooser next = {0};
    corepool_pool_t other = open_with(&counts[1], 1,
                                      &(corepool_pool_options_t){
                                          .policy = COREPOOL_POLICY_CUSTOM, .choose = choose, .choose_arg = &next});
    cr_expect_eq(other.impl, pool.impl, "the old handle points to the new pool");
    cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_checkout_try(pool, NULL, &lease), COREPOOL_ECLOSED);
    cr_expect_eq(atomic_load(&chooser.asked) + atomic_load(&next.asked), 0);
    laws_end();
}

/* --- all of them --- */

static corepool_policy_t policy_of(int i)
{
    return (corepool_policy_t)i;
}

static corepool_pool_options_t options_of(corepool_policy_t policy, struct chooser *chooser)
{
    bool own = policy == COREPOOL_POLICY_CUSTOM;
    return (corepool_pool_options_t){
        .policy = policy, .choose = own ? choose : NULL, .choose_arg = own ? chooser : NULL};
}

Test(policy, a_handle_for_one_shard_overrides_every_policy)
{
    static struct laws_count counts[COREPOOL_POLICY_CUSTOM + 1];
    struct chooser chooser = {0};
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    for (int i = 0; i <= COREPOOL_POLICY_CUSTOM; i++) {
        corepool_pool_options_t options = options_of(policy_of(i), &chooser);
        corepool_pool_t pool = open_with(&counts[i], 1, &options);
        for (unsigned shard = 0; shard < SHARDS && i != COREPOOL_POLICY_SINGLE; shard++)
            cr_expect_eq(draw(corepool_pool_at(pool, shard), 0), shard, "%s", corepool_policy_name(policy_of(i)));
    }
    cr_expect_eq(atomic_load(&chooser.asked), 0);
    laws_end();
}

Test(policy, a_handle_for_one_shard_is_served_there_also_where_the_class_has_no_callbacks)
{
    struct laws_count count = {0};
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    corepool_pool_t pool = laws_open(&laws_plain_class, &count, 1, COREPOOL_POOL_PER_SHARD);
    laws_await_idle(pool, SHARDS);
    for (unsigned shard = 0; shard < SHARDS; shard++)
        cr_expect_eq(draw(corepool_pool_at(pool, shard), 0), shard);
    laws_end();
}

/* One checkout as shard code makes it. */
struct ask {
    corepool_pool_t pool;
    struct outcome outcome;
    int accepted;
};

static void ask(void *arg)
{
    struct ask *ask = arg;
    ask->accepted = corepool_checkout_async(ask->pool, NULL, outcome_note, &ask->outcome, NULL);
}

Test(policy, code_on_a_shard_is_served_where_the_policy_says)
{
    struct laws_count counts[2] = {0};
    struct chooser chooser = {.answer = 6};
    struct ask own = {.pool = start_own(&counts[0], 1, &chooser)};
    struct ask local = {.pool = open_with(&counts[1], 1, &(corepool_pool_options_t){0})};
    laws_on_shard(2, ask, &own);
    laws_on_shard(2, ask, &local);
    cr_expect_eq(chooser.choice.local, 2);
    cr_expect_eq(shard_of(&own.outcome.lease), 6);
    cr_expect_eq(shard_of(&local.outcome.lease), 2);
    struct ask waits = {.pool = own.pool};
    laws_on_shard(2, ask, &waits);
    laws_await_waiting(corepool_pool_at(own.pool, 6), 1);
    cr_expect_eq(corepool_checkin(&own.outcome.lease), COREPOOL_OK);
    laws_await_count(&waits.outcome.called, 1);
    cr_expect_eq(corepool_shard_index(waits.outcome.on), 2, "told where it asked");
    cr_expect_eq(corepool_checkin(&waits.outcome.lease), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&local.outcome.lease), COREPOOL_OK);
    laws_end();
}

Test(policy, an_asynchronous_checkout_with_a_bad_choice_is_not_accepted)
{
    struct laws_count count = {0};
    struct chooser chooser = {.answer = SHARDS};
    struct ask asked = {.pool = start_own(&count, 1, &chooser)};
    laws_on_shard(0, ask, &asked);
    cr_expect_eq(asked.accepted, COREPOOL_EINVAL);
    cr_expect_eq(atomic_load(&asked.outcome.called), 0);
    laws_end();
}

Test(policy, keyed_pools_have_the_policy_of_their_options)
{
    corepool_keyed_t keyed;
    corepool_pool_t pool;
    struct laws_count count = {0};
    struct chooser chooser = {.answer = 4};
    laws_start(&(corepool_runtime_options_t){.synthetic = MACHINE});
    const corepool_pool_options_t pools = options_of(COREPOOL_POLICY_CUSTOM, &chooser);
    const corepool_keyed_options_t options = {.cls = &laws_class, .context = &count, .size = SHARDS, .pool = &pools};
    laws_judge(&count);
    cr_assert_eq(corepool_keyed_open(laws_runtime(), &options, &keyed), COREPOOL_OK);
    cr_assert_eq(corepool_keyed_get(keyed, "a", 1, &pool), COREPOOL_OK);
    cr_expect_eq(draw(pool, 0), 4);
    laws_end();
}

/* A policy's pool that is full of callers: all are served, on every thread, and the laws hold. */
struct storm {
    corepool_pool_t pool;
    unsigned first, failures;
    pthread_t thread;
};

#define STORM_CALLERS 6u
#define STORM_PAIRS 3000u

static void *storm(void *arg)
{
    struct storm *storm = arg;
    for (unsigned i = 0; i < STORM_PAIRS; i++) {
        corepool_lease_t lease;
        const corepool_checkout_options_t options = {.timeout_ms = LAWS_PATIENCE_MS, .key = storm->first + i};
        if (corepool_checkout(storm->pool, &options, &lease) != COREPOOL_OK)
            storm->failures++;
        else if (i % 7 == 0)
            storm->failures += corepool_checkin_remove(&lease) != COREPOOL_OK;
        else
            storm->failures += corepool_checkin(&lease) != COREPOOL_OK;
    }
    return NULL;
}

static void storm_with(corepool_policy_t policy, unsigned flags, const char *synthetic)
{
    struct laws_count count = {0};
    struct chooser chooser = {0};
    struct storm storms[STORM_CALLERS];
    laws_start(&(corepool_runtime_options_t){.synthetic = synthetic});
    corepool_pool_options_t options = options_of(policy, &chooser);
    options.flags = flags;
    corepool_pool_t pool = laws_open_with(&laws_class, &count, 4, &options);
    for (unsigned i = 0; i < STORM_CALLERS; i++) {
        storms[i] = (struct storm){.pool = pool, .first = i * STORM_PAIRS};
        cr_assert_eq(pthread_create(&storms[i].thread, NULL, storm, &storms[i]), 0);
    }
    for (unsigned i = 0; i < STORM_CALLERS; i++) {
        cr_assert_eq(pthread_join(storms[i].thread, NULL), 0);
        cr_expect_eq(storms[i].failures, 0, "%s", corepool_policy_name(policy));
    }
    cr_expect_eq(laws_stats(pool).checkouts, (uint64_t)STORM_CALLERS * STORM_PAIRS);
    cr_expect_eq(atomic_load(&count.overlaps), 0);
    laws_end_quickly();
}

Test(policy, all_callers_of_every_policy_are_served)
{
    for (int i = 0; i <= COREPOOL_POLICY_CUSTOM; i++)
        storm_with(policy_of(i), i % 2 ? COREPOOL_POOL_LAZY : 0, NULL);
}

Test(policy, all_callers_are_served_by_pools_of_fewer_slices_than_shards)
{
    for (int i = 0; i <= COREPOOL_POLICY_CUSTOM; i++)
        storm_with(policy_of(i), i % 2 ? 0 : COREPOOL_POOL_FIFO, MACHINE);
}
