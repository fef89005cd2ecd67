/* tests/keyed_test.c: a pool per key: who gets which, who makes it, when it goes. */
#include <criterion/criterion.h>

#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/callers.h"

#define TENANTS 30000

/* The class argument of one pool: what the counting classes saw of it, and whose it is. */
struct tenant {
    struct laws_count count;
    size_t length;
    char key[16];
    _Atomic unsigned freed;
};

static struct tenant tenants[TENANTS];
static _Atomic unsigned made, freed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int outcome; /* of make_tenant, if it is not OK */
static corepool_keyed_t set;

static int make_tenant(const void *key, size_t length, void *context, void **arg)
{
    (void)context;
    if (outcome != COREPOOL_OK)
        return outcome;
    unsigned index = atomic_fetch_add(&made, 1);
    if (index >= TENANTS || length > sizeof tenants[0].key)
        return COREPOOL_ENOMEM;
    struct tenant *tenant = &tenants[index];
    tenant->length = length;
    memcpy(tenant->key, key, length);
    pthread_mutex_lock(&lock);
    laws_judge(&tenant->count);
    pthread_mutex_unlock(&lock);
    *arg = tenant;
    return COREPOOL_OK;
}

static void free_tenant(void *arg, void *context)
{
    struct tenant *tenant = arg;
    (void)context;
    if (atomic_load(&tenant->count.terminated) == atomic_load(&tenant->count.opened) &&
        atomic_fetch_add(&tenant->freed, 1) == 0)
        atomic_fetch_add(&freed, 1);
}

static corepool_keyed_options_t usual(void)
{
    return (corepool_keyed_options_t){
        .cls = &laws_class, .make_arg = make_tenant, .free_arg = free_tenant, .size = 2};
}

static corepool_keyed_t open_set(corepool_keyed_options_t options)
{
    corepool_keyed_t keyed;
    cr_assert_eq(corepool_keyed_open(laws_runtime(), &options, &keyed), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return keyed;
}

static corepool_pool_t get(corepool_keyed_t keyed, const char *key)
{
    corepool_pool_t pool;
    cr_assert_eq(corepool_keyed_get(keyed, key, strlen(key), &pool), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return pool;
}

static int get_status(corepool_keyed_t keyed, const char *key)
{
    corepool_pool_t pool = {.shard = 99};
    int status = corepool_keyed_get(keyed, key, strlen(key), &pool);
    cr_expect_eq(pool.impl == NULL, status != COREPOOL_OK);
    return status;
}

static bool is_same(corepool_pool_t a, corepool_pool_t b)
{
    return a.impl == b.impl && a.generation == b.generation && a.shard == b.shard;
}

static int status_of(corepool_pool_t pool)
{
    corepool_stats_t stats;
    return corepool_pool_stats(pool, &stats);
}

static corepool_keyed_counts_t stats_of(corepool_keyed_t keyed)
{
    corepool_keyed_counts_t stats;
    cr_assert_eq(corepool_keyed_stats(keyed, &stats), COREPOOL_OK, "%s", corepool_error_detail());
    return stats;
}

/* What was made for keys was freed, once, after its workers. */
static void end(void)
{
    laws_end();
    cr_expect_eq(atomic_load(&freed), atomic_load(&made), "%u arguments made, %u freed", atomic_load(&made),
                 atomic_load(&freed));
}

/* --- keys --- */

Test(keyed, a_key_has_one_pool_and_it_is_the_keys_own)
{
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(usual());
    corepool_pool_t one = get(keyed, "one"), two = get(keyed, "two");
    cr_expect(is_same(get(keyed, "one"), one));
    cr_expect(!is_same(one, two));
    corepool_lease_t lease = laws_take(two);
    struct tenant *tenant = (struct tenant *)((struct laws_unit *)lease.resource)->count;
    cr_expect_eq(memcmp(tenant->key, "two", 3), 0, "its worker is another key's");
    corepool_checkin(&lease);
    cr_expect_eq(stats_of(keyed).opened, 2);
    end();
}

Test(keyed, keys_differ_by_any_byte_and_by_length)
{
    static const struct {
        const char *bytes;
        size_t length;
    } keys[] = {{"a", 1},    {"a\0", 2},      {"a\0\0", 3},      {"\0", 1},
                {"\0\0", 2}, {"12345678", 8}, {"12345678\0", 9}, {"12345679", 8}};
    corepool_pool_t pools[8], again;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(usual());
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(corepool_keyed_get(keyed, keys[i].bytes, keys[i].length, &pools[i]), COREPOOL_OK);
    cr_expect_eq(stats_of(keyed).pools, 8);
    for (unsigned i = 0; i < 8; i++) {
        cr_assert_eq(corepool_keyed_get(keyed, keys[i].bytes, keys[i].length, &again), COREPOOL_OK);
        cr_expect(is_same(again, pools[i]), "key %u", i);
    }
    end();
}

Test(keyed, keys_of_every_length_up_to_the_longest_are_told_apart)
{
    static char key[COREPOOL_KEY_MAX + 1];
    corepool_pool_t pool;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(
        (corepool_keyed_options_t){.cls = &laws_class, .max_pools = COREPOOL_KEY_MAX, .context = &tenants[0]});
    for (unsigned round = 0; round < 2; round++)
        for (size_t length = 1; length <= COREPOOL_KEY_MAX; length++)
            cr_assert_eq(corepool_keyed_get(keyed, key, length, &pool), COREPOOL_OK, "%s",
                         corepool_error_detail());
    cr_expect_eq(stats_of(keyed).opened, COREPOOL_KEY_MAX);
    cr_expect_eq(corepool_keyed_get(keyed, key, COREPOOL_KEY_MAX + 1, &pool), COREPOOL_EINVAL);
    laws_expect_detail("key_length: 1025");
    laws_judge(&tenants[0].count);
    laws_end();
}

/* --- what is refused --- */

static void expect_refused(corepool_keyed_options_t options, const char *word)
{
    corepool_keyed_t keyed = {.generation = 99};
    cr_expect_eq(corepool_keyed_open(laws_runtime(), &options, &keyed), COREPOOL_EINVAL);
    cr_expect_null(keyed.impl);
    laws_expect_detail(word);
}

Test(keyed, a_bad_argument_is_an_error_that_names_it)
{
    static const corepool_pool_options_t bad = {.backoff_min_ms = -1};
    corepool_keyed_options_t options = usual();
    corepool_keyed_t keyed, none = {0};
    corepool_pool_t pool;
    laws_start(NULL);
    expect_refused((corepool_keyed_options_t){0}, "cls");
    options.max_pools = COREPOOL_KEYED_POOLS_MAX + 1;
    expect_refused(options, "max_pools: 1000001");
    options = usual();
    options.reap_after_ms = -1;
    expect_refused(options, "reap_after_ms: -1");
    options = usual();
    options.pool = &bad;
    expect_refused(options, "backoff_min_ms");
    options = usual();
    options.size = COREPOOL_SIZE_MAX + 1;
    expect_refused(options, "size");
    cr_expect_eq(corepool_keyed_open(laws_runtime(), NULL, &keyed), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_open(laws_runtime(), &options, NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_get(none, "a", 1, &pool), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_close(none, 0), COREPOOL_EINVAL);
    keyed = open_set(usual());
    cr_expect_eq(corepool_keyed_get(keyed, "", 0, &pool), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_get(keyed, NULL, 1, &pool), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_get(keyed, "a", 1, NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_keyed_close(keyed, -2), COREPOOL_EINVAL);
    end();
}

/* --- making --- */

Test(keyed, a_failure_is_not_kept)
{
    corepool_pool_t pool;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(usual());
    outcome = COREPOOL_EPEER;
    cr_expect_eq(get_status(keyed, "one"), COREPOOL_EPEER);
    laws_expect_detail("make_arg");
    cr_expect_eq(stats_of(keyed).pools, 0);
    outcome = COREPOOL_OK;
    tenants[0].count.fail_pool_init_on = 1;
    cr_expect_eq(get_status(keyed, "one"), COREPOOL_ENOTSUP, "pool_init's code");
    cr_expect_eq(atomic_load(&freed), 1, "its argument is freed");
    pool = get(keyed, "one");
    cr_expect_eq(status_of(pool), COREPOOL_OK);
    end();
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

struct asker {
    const char *key;
    int status;
    corepool_pool_t pool;
    char detail[256];
    pthread_t thread;
};

static sem_t begun, let;
static _Atomic unsigned slow_makings;

/* A key that begins with an s takes until it is let. */
static int make_slowly(const void *key, size_t length, void *context, void **arg)
{
    if (*(const char *)key == 's') {
        atomic_fetch_add(&slow_makings, 1);
        sem_post(&begun);
        sem_wait(&let);
    }
    return make_tenant(key, length, context, arg);
}

static void *ask(void *arg)
{
    struct asker *asker = arg;
    asker->status = corepool_keyed_get(set, asker->key, strlen(asker->key), &asker->pool);
    strncpy(asker->detail, corepool_error_detail(), sizeof asker->detail - 1);
    return NULL;
}

static void start_askers(struct asker *askers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
}

static void start_slow(void)
{
    corepool_keyed_options_t options = usual();
    options.make_arg = make_slowly;
    sem_init(&begun, 0, 0);
    sem_init(&let, 0, 0);
    laws_start(NULL);
    set = open_set(options);
}

Test(keyed, a_key_that_is_being_made_keeps_nobody_else_waiting_and_is_made_once)
{
    struct asker askers[4] = {{.key = "slow"}, {.key = "slow"}, {.key = "slow"}, {.key = "slow"}};
    start_slow();
    start_askers(askers, 4);
    sem_wait(&begun);
    corepool_pool_t other = get(set, "other");
    cr_expect(is_same(get(set, "other"), other));
    cr_expect_eq(stats_of(set).opened, 1);
    sem_post(&let);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(askers[i].thread, NULL);
        cr_expect_eq(askers[i].status, COREPOOL_OK);
        cr_expect(is_same(askers[i].pool, askers[0].pool));
    }
    cr_expect_eq(atomic_load(&slow_makings), 1);
    end();
}

Test(keyed, who_waits_for_a_making_that_fails_is_told_why)
{
    struct asker askers[3] = {{.key = "slow"}, {.key = "slow"}, {.key = "slow"}};
    unsigned failed = 0;
    start_slow();
    start_askers(askers, 3);
    sem_wait(&begun);
    outcome = COREPOOL_EPROTO;
    for (unsigned i = 0; i < 3; i++) /* who comes after the failure makes it again */
        sem_post(&let);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(askers[i].thread, NULL);
        failed +=
            askers[i].status == COREPOOL_EPROTO && strstr(askers[i].detail, "make_arg") && !askers[i].pool.impl;
    }
    cr_expect_eq(failed, 3);
    end();
}

Test(keyed, a_set_that_is_closed_while_a_pool_is_made_closes_that_pool)
{
    struct asker asker = {.key = "slow"};
    start_slow();
    start_askers(&asker, 1);
    sem_wait(&begun);
    cr_expect_eq(corepool_keyed_close(set, 0), COREPOOL_EBUSY);
    laws_expect_detail("1 keyed pools of counted");
    sem_post(&let);
    pthread_join(asker.thread, NULL);
    cr_expect_eq(asker.status, COREPOOL_ECLOSED);
    cr_expect_eq(corepool_keyed_close(set, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(atomic_load(&freed), 1);
    cr_expect_eq(corepool_keyed_close(set, 0), COREPOOL_ECLOSED);
    end();
}

static int own_status, other_status;

static int make_with_others(const void *key, size_t length, void *context, void **arg)
{
    corepool_pool_t pool;
    if (*(const char *)key == 'x') {
        own_status = corepool_keyed_get(set, key, length, &pool);
        other_status = corepool_keyed_get(set, "y", 1, &pool);
    }
    return make_tenant(key, length, context, arg);
}

Test(keyed, make_arg_may_ask_for_other_keys_and_is_refused_its_own)
{
    corepool_keyed_options_t options = usual();
    options.make_arg = make_with_others;
    laws_start(NULL);
    set = open_set(options);
    get(set, "x");
    cr_expect_eq(own_status, COREPOOL_EDEADLK);
    cr_expect_eq(other_status, COREPOOL_OK);
    cr_expect_eq(stats_of(set).pools, 2);
    end();
}

static pthread_barrier_t both;

/* Asks for the other one's key while that one's maker asks for this. */
static int make_crosswise(const void *key, size_t length, void *context, void **arg)
{
    corepool_pool_t pool;
    (void)length, (void)context, (void)arg;
    pthread_barrier_wait(&both);
    int status = corepool_keyed_get(set, *(const char *)key == 'a' ? "b" : "a", 1, &pool);
    return status == COREPOOL_OK ? COREPOOL_EPROTO : status;
}

Test(keyed, two_make_args_that_wait_for_each_other_are_told_so, .timeout = 60)
{
    corepool_keyed_options_t options = usual();
    struct asker askers[2] = {{.key = "a"}, {.key = "b"}};
    options.make_arg = make_crosswise;
    pthread_barrier_init(&both, NULL, 2);
    laws_start(NULL);
    set = open_set(options);
    start_askers(askers, 2);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(askers[i].thread, NULL);
        cr_expect_eq(askers[i].status, COREPOOL_EDEADLK, "%s", askers[i].detail);
    }
    end();
}

static int on_shard[2];

static void ask_on_shard(void *arg)
{
    corepool_pool_t pool;
    (void)arg;
    on_shard[0] = corepool_keyed_get(set, "old", 3, &pool);
    on_shard[1] = corepool_keyed_get(set, "new", 3, &pool);
}

Test(keyed, a_shard_gets_what_is_open_and_is_refused_what_it_would_wait_for)
{
    laws_start(NULL);
    set = open_set(usual());
    get(set, "old");
    laws_on_shard(0, ask_on_shard, NULL);
    cr_expect_eq(on_shard[0], COREPOOL_OK);
    cr_expect_eq(on_shard[1], COREPOOL_EDEADLK);
    end();
}

/* --- the end of pools --- */

Test(keyed, a_pool_that_was_closed_by_hand_is_made_anew)
{
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(usual());
    corepool_pool_t first = get(keyed, "one");
    cr_assert_eq(corepool_pool_close(first, LAWS_PATIENCE_MS), COREPOOL_OK);
    corepool_pool_t second = get(keyed, "one");
    cr_expect(!is_same(first, second));
    cr_expect_eq(status_of(second), COREPOOL_OK);
    cr_expect_eq(stats_of(keyed).pools, 1);
    end();
}

Test(keyed, at_the_limit_an_idle_pool_makes_room_and_one_in_use_does_not)
{
    corepool_keyed_options_t options = usual();
    options.max_pools = 2;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(options);
    corepool_pool_t one = get(keyed, "one"), two = get(keyed, "two");
    corepool_lease_t first = laws_take(one), second = laws_take(two);
    cr_expect_eq(get_status(keyed, "three"), COREPOOL_ELIMIT);
    laws_expect_detail("max_pools: 2");
    corepool_checkin(&second);
    cr_expect_eq(get_status(keyed, "three"), COREPOOL_OK);
    cr_expect_eq(status_of(one), COREPOOL_OK, "it has a lease out");
    cr_expect_eq(corepool_checkout_try(two, NULL, &second), COREPOOL_ECLOSED);
    cr_expect_eq(stats_of(keyed).pools, 2);
    cr_expect_eq(stats_of(keyed).reaped, 1);
    corepool_checkin(&first);
    end();
}

static bool has_one_pool(void *keyed)
{
    return stats_of(*(corepool_keyed_t *)keyed).pools == 1;
}

static bool has_no_pool(void *keyed)
{
    return stats_of(*(corepool_keyed_t *)keyed).pools == 0;
}

/* Also on a machine so busy that the pool is reaped in between. */
static corepool_lease_t take_soon(corepool_keyed_t keyed, const char *key, corepool_pool_t *pool)
{
    corepool_lease_t lease;
    int status;
    do {
        *pool = get(keyed, key);
        status = corepool_checkout(*pool, NULL, &lease);
    } while (status == COREPOOL_ECLOSED);
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
    return lease;
}

Test(keyed, pools_that_nobody_gets_are_reaped_but_not_under_a_lease)
{
    corepool_keyed_options_t options = usual();
    corepool_stats_t stats;
    options.reap_after_ms = 5;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(options);
    corepool_pool_t held;
    corepool_lease_t lease = take_soon(keyed, "held", &held);
    corepool_pool_t idle = get(keyed, "idle");
    cr_assert(laws_eventually(has_one_pool, &keyed));
    cr_expect_eq(corepool_pool_stats(held, &stats), COREPOOL_OK);
    cr_expect_eq(corepool_checkout_try(idle, NULL, &(corepool_lease_t){0}), COREPOOL_ECLOSED);
    corepool_checkin(&lease);
    cr_assert(laws_eventually(has_no_pool, &keyed));
    cr_expect_geq(stats_of(keyed).reaped, 2);
    corepool_pool_t again = get(keyed, "idle");
    cr_expect(!is_same(again, idle));
    cr_assert(laws_eventually(has_no_pool, &keyed), "the timer is set again");
    end();
}

static void do_nothing(void *arg)
{
    (void)arg;
}

/* Opens and closes one that has had a pool and whose timer is set, and opens the next in its place. */
static corepool_keyed_t open_after(int64_t reap_before_ms, int64_t reap_after_ms)
{
    corepool_keyed_options_t options = usual();
    options.reap_after_ms = reap_before_ms;
    corepool_keyed_t before = open_set(options);
    get(before, "x");
    laws_on_shard(0, do_nothing, NULL); /* which is the first set's */
    cr_assert_eq(corepool_keyed_close(before, LAWS_PATIENCE_MS), COREPOOL_OK);
    options.reap_after_ms = reap_after_ms;
    corepool_keyed_t keyed = open_set(options);
    cr_assert_eq(keyed.impl, before.impl, "else nothing is shown");
    return keyed;
}

Test(keyed, the_timer_of_a_set_that_was_closed_reaps_nothing_of_the_next)
{
    laws_start(NULL);
    corepool_keyed_t keyed = open_after(50, 0);
    corepool_pool_t pool = get(keyed, "x");
    pause_ms(200);
    cr_expect(is_same(get(keyed, "x"), pool));
    cr_expect_eq(stats_of(keyed).reaped, 0);
    end();
}

Test(keyed, the_timer_of_a_set_that_was_closed_does_not_delay_the_next_ones)
{
    laws_start(NULL);
    corepool_keyed_t keyed = open_after(COREPOOL_KEYED_REAP_MAX_MS, 5);
    get(keyed, "x");
    cr_expect(laws_eventually(has_no_pool, &keyed));
    end();
}

Test(keyed, close_names_leases_still_out_and_may_be_repeated)
{
    laws_start(NULL);
    corepool_keyed_options_t options = usual();
    options.name = "origin";
    corepool_keyed_t keyed = open_set(options);
    get(keyed, "b.example");
    corepool_lease_t lease = laws_take(get(keyed, "a.example"));
    cr_expect_eq(corepool_keyed_close(keyed, LAWS_SHORT_MS), COREPOOL_EBUSY);
    laws_expect_detail("pool origin:a.example");
    laws_expect_detail("1 leased");
    cr_expect_eq(get_status(keyed, "a.example"), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_keyed_close(keyed, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(atomic_load(&freed), 2);
    cr_expect_eq(corepool_keyed_close(keyed, 0), COREPOOL_ECLOSED);
    corepool_keyed_t next = open_set(options); /* in the same memory */
    cr_expect_eq(next.impl, keyed.impl);
    cr_expect_eq(get_status(keyed, "a.example"), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_keyed_stats(keyed, &(corepool_keyed_counts_t){0}), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_keyed_close(keyed, 0), COREPOOL_ECLOSED);
    cr_expect_eq(get_status(next, "a.example"), COREPOOL_OK);
    end();
}

Test(keyed, a_stop_closes_what_a_set_has_open_and_a_stopped_runtime_opens_none)
{
    corepool_keyed_options_t options = usual();
    options.reap_after_ms = 1;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set(options);
    for (unsigned i = 0; i < 50; i++)
        get(keyed, (char[]){(char)('a' + i), 0});
    cr_assert_eq(corepool_runtime_stop(laws_runtime(), LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(get_status(keyed, "a"), COREPOOL_ECLOSED);
    cr_expect_eq(corepool_keyed_open(laws_runtime(), &options, &keyed), COREPOOL_ECLOSED);
    end();
}

/* --- many --- */

/* What they cost, and that it grows with their number only, is bench/many's. */
Test(keyed, ten_thousand_keys_have_ten_thousand_pools_and_each_its_own)
{
    enum { KEYS_OF_ALL = 10000 };
    static corepool_pool_t pools[KEYS_OF_ALL];
    static struct laws_count count;
    corepool_pool_t pool;
    laws_start(NULL);
    corepool_keyed_t keyed = open_set((corepool_keyed_options_t){.cls = &laws_plain_class,
                                                                  .context = &count,
                                                                  .size = corepool_runtime_shards(laws_runtime()),
                                                                  .max_pools = KEYS_OF_ALL});
    for (unsigned i = 0; i < KEYS_OF_ALL; i++)
        cr_assert_eq(corepool_keyed_get(keyed, &i, sizeof i, &pools[i]), COREPOOL_OK, "%s", corepool_error_detail());
    for (unsigned i = 0; i < KEYS_OF_ALL; i++) {
        cr_assert_eq(corepool_keyed_get(keyed, &i, sizeof i, &pool), COREPOOL_OK, "%s", corepool_error_detail());
        cr_assert(is_same(pool, pools[i]), "key %u has another pool by now", i);
        cr_assert(i == 0 || !is_same(pool, pools[i - 1]), "key %u has its neighbour's pool", i);
    }
    cr_expect_eq(stats_of(keyed).pools, KEYS_OF_ALL);
    laws_end();
}

/* --- all at once --- */

#define THREADS 4
#define ROUNDS 4000
#define KEYS 24

static _Atomic unsigned strangers, refused, served;

static void use_pool(corepool_pool_t pool, const char *key)
{
    corepool_lease_t lease;
    int status = corepool_checkout(pool, NULL, &lease);
    if (status == COREPOOL_ECLOSED) /* reaped since */
        return;
    if (status != COREPOOL_OK) {
        atomic_fetch_add(&refused, 1);
        return;
    }
    const struct tenant *tenant = (struct tenant *)((struct laws_unit *)lease.resource)->count;
    if (tenant->length != strlen(key) || memcmp(tenant->key, key, tenant->length) != 0)
        atomic_fetch_add(&strangers, 1);
    atomic_fetch_add(&served, 1);
    corepool_checkin(&lease);
}

static void *use_keys(void *arg)
{
    unsigned random = *(unsigned *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char key[8];
        corepool_pool_t pool;
        random = random * 1103515245 + 12345;
        snprintf(key, sizeof key, "key%u", (random >> 16) % KEYS);
        int status = corepool_keyed_get(set, key, strlen(key), &pool);
        if (status == COREPOOL_OK)
            use_pool(pool, key);
        else if (status != COREPOOL_ELIMIT)
            atomic_fetch_add(&refused, 1);
    }
    return NULL;
}

Test(keyed, who_asks_for_a_key_never_gets_another_keys_worker_while_pools_come_and_go)
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    corepool_keyed_options_t options = usual();
    options.max_pools = KEYS * 3 / 4;
    options.reap_after_ms = 1;
    laws_start(NULL);
    set = open_set(options);
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        cr_assert_eq(pthread_create(&threads[i], NULL, use_keys, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(atomic_load(&strangers), 0);
    cr_expect_eq(atomic_load(&refused), 0);
    cr_expect_geq(atomic_load(&served), THREADS * ROUNDS / 2);
    cr_expect_gt(stats_of(set).reaped, KEYS, "pools came and went");
    cr_expect_eq(corepool_keyed_close(set, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(atomic_load(&freed), atomic_load(&made));
    end();
}
