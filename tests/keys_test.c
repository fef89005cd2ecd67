/* tests/keys_test.c: what keyed pools stand on, by itself: the hash, the heap, the table that is read without a
 * lock; and their times, with the clock in the test's hand. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/siphash.h"
#include "front/keyed.h"

/* --- hash --- */

/* The example at the end of the paper: key 00 … 0f, message 00 … 0e; and its reference code's first and last
 * vectors. */
Test(siphash, it_is_the_one_that_was_published)
{
    static const uint64_t seed[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    unsigned char message[64];
    for (unsigned i = 0; i < sizeof message; i++)
        message[i] = (unsigned char)i;
    cr_expect_eq(cp_siphash(seed, message, 15), UINT64_C(0xa129ca6149be45e5));
    cr_expect_eq(cp_siphash(seed, message, 0), UINT64_C(0x726fdb47dd0e0e31));
    cr_expect_eq(cp_siphash(seed, message, 63), UINT64_C(0x958a324ceb064572));
}

/* --- heap --- */

#define NODES 200

static uint64_t draw(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

Test(heap, whatever_is_added_and_removed_the_least_comes_first)
{
    static struct cp_heap_node nodes[NODES];
    struct cp_heap heap = {0};
    uint64_t random = 88172645463325252;
    for (unsigned i = 0; i < NODES; i++)
        cp_heap_node_init(&nodes[i]);
    for (unsigned step = 0; step < 20000; step++) {
        struct cp_heap_node *node = &nodes[draw(&random) % NODES];
        int64_t least = INT64_MAX;
        if (cp_heap_has(node))
            cp_heap_remove(&heap, node);
        else
            cp_heap_add(&heap, node, (int64_t)(draw(&random) % 50));
        for (unsigned i = 0; i < NODES; i++)
            if (cp_heap_has(&nodes[i]) && nodes[i].key < least)
                least = nodes[i].key;
        cr_assert_eq(heap.least ? heap.least->key : INT64_MAX, least, "step %u", step);
    }
}

Test(heap, it_gives_back_what_it_was_given_in_order)
{
    static struct cp_heap_node nodes[NODES];
    struct cp_heap heap = {0};
    uint64_t random = 7;
    for (unsigned i = 0; i < NODES; i++)
        cp_heap_add(&heap, &nodes[i], (int64_t)(draw(&random) % 1000));
    int64_t last = -1;
    for (unsigned i = 0; i < NODES; i++) {
        struct cp_heap_node *node = heap.least;
        cr_assert_geq(node->key, last);
        last = node->key;
        cp_heap_remove(&heap, node);
        cr_assert(!cp_heap_has(node));
    }
    cr_expect_null(heap.least);
}

/* --- table --- */

#define KEYS 64

static struct cp_keys table;
static char memory[KEYS]
                  [sizeof(struct corepool_pool_impl)] cp_line_aligned; /* only their generation is looked at */

static struct corepool_pool_impl *impl_of(unsigned number)
{
    return (struct corepool_pool_impl *)(void *)memory[number];
}

static struct cp_key key_of(const unsigned *number)
{
    /* Few homes, so that the table is full of collisions. */
    return (struct cp_key){.bytes = number, .length = sizeof *number, .hash = *number % 5};
}

static corepool_pool_t pool_of(unsigned number)
{
    return (corepool_pool_t){.impl = impl_of(number), .generation = 1, .shard = COREPOOL_SHARD_LOCAL};
}

static void open_table(void)
{
    cr_assert(cp_keys_init(&table, KEYS));
    for (unsigned i = 0; i < KEYS; i++)
        atomic_store(&impl_of(i)->generation, 1);
}

Test(keys, among_collisions_what_was_added_is_found_and_what_was_removed_is_not)
{
    bool there[KEYS] = {false};
    uint64_t random = 4711;
    open_table();
    for (unsigned step = 0; step < 5000; step++) {
        unsigned number = (unsigned)(draw(&random) % KEYS);
        struct cp_key key = key_of(&number);
        corepool_pool_t pool;
        if (there[number])
            cp_keys_remove(&table, cp_keys_find(&table, &key));
        else
            cp_keys_show(cp_keys_add(&table, &key), pool_of(number), 1);
        there[number] = !there[number];
        for (unsigned i = 0; i < KEYS; i++) {
            key = key_of(&i);
            cr_assert_eq(cp_keys_find(&table, &key) != NULL, there[i]);
            cr_assert_eq(cp_keys_read(&table, &key, 1, &pool), there[i]);
            cr_assert(!there[i] || pool.impl == impl_of(i));
        }
    }
    cp_keys_finish(&table);
}

Test(keys, a_reader_does_not_find_what_is_hidden_or_closed)
{
    corepool_pool_t pool;
    unsigned number = 3;
    struct cp_key key = key_of(&number);
    open_table();
    struct cp_key_entry *entry = cp_keys_add(&table, &key);
    cr_expect(!cp_keys_read(&table, &key, 1, &pool), "not shown yet");
    cp_keys_show(entry, pool_of(number), 1);
    cr_expect(cp_keys_read(&table, &key, 5, &pool));
    cr_expect_eq(atomic_load(&entry->got_at), 5);
    cr_expect(cp_keys_read(&table, &key, 4, &pool));
    cr_expect_eq(atomic_load(&entry->got_at), 5, "a time does not go back");
    atomic_store(&impl_of(number)->generation, 2);
    cr_expect(!cp_keys_read(&table, &key, 6, &pool), "its pool is closed");
    atomic_store(&impl_of(number)->generation, 1);
    cp_keys_hide(entry);
    cr_expect(!cp_keys_read(&table, &key, 7, &pool));
    cp_keys_finish(&table);
}

static _Atomic bool stop;
static _Atomic unsigned found, wrong;

static void *read_keys(void *arg)
{
    uint64_t random = (uintptr_t)arg;
    while (!atomic_load(&stop)) {
        unsigned number = (unsigned)(draw(&random) % KEYS);
        struct cp_key key = key_of(&number);
        corepool_pool_t pool;
        if (!cp_keys_read(&table, &key, (int64_t)(random >> 40), &pool))
            continue;
        atomic_fetch_add(&found, 1);
        if (pool.impl != impl_of(number) || pool.generation != 1)
            atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

Test(keys, readers_find_their_own_keys_pool_or_nothing_while_entries_move_and_are_used_again)
{
    pthread_t readers[2];
    bool there[KEYS] = {false};
    uint64_t random = 99;
    open_table();
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&readers[i], NULL, read_keys, (void *)(uintptr_t)(i + 1)), 0);
    for (unsigned step = 0; step < 200000 || atomic_load(&found) < 1000; step++) {
        unsigned number = (unsigned)(draw(&random) % KEYS);
        struct cp_key key = key_of(&number);
        if (there[number])
            cp_keys_remove(&table, cp_keys_find(&table, &key));
        else
            cp_keys_show(cp_keys_add(&table, &key), pool_of(number), 1);
        there[number] = !there[number];
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    cr_expect_eq(atomic_load(&wrong), 0, "of %u", atomic_load(&found));
    cp_keys_finish(&table);
}

/* --- times --- */

#define HOUR_MS (INT64_C(3600) * 1000)
#define MS CP_NS_PER_MS

static corepool_runtime_t *runtime;
static corepool_keyed_t set;
static int64_t start;

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

/* Its own timer is far off: the test looks. */
static void open_set(unsigned max_pools)
{
    static const corepool_class_t cls = {.name = "nothing", .init = init};
    const corepool_keyed_options_t options = {
        .cls = &cls, .size = 1, .max_pools = max_pools, .reap_after_ms = HOUR_MS};
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_keyed_open(runtime, &options, &set), COREPOOL_OK, "%s", corepool_error_detail());
    start = cp_coarse_now_ns() + CP_NS_PER_S; /* later than all that the set's timer has seen */
}

static void end(void)
{
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(corepool_keyed_close(set, 10000), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(runtime, 10000), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}

static corepool_pool_t get_at(const char *key, int64_t ms)
{
    corepool_pool_t pool;
    cr_assert_eq(cp_keyed_get_at(set, key, strlen(key), start + ms * MS, &pool), COREPOOL_OK, "%s",
                 corepool_error_detail());
    return pool;
}

static int64_t look_at(int64_t ms)
{
    int64_t due = cp_keyed_look(set.impl, start + ms * MS);
    return due == CP_NEVER ? -1 : (due - start) / MS;
}

static bool is_open(corepool_pool_t pool)
{
    return cp_pool_is_open(pool);
}

Test(keyed_time, a_pool_is_reaped_when_its_time_is_over_and_not_before)
{
    open_set(0);
    corepool_pool_t one = get_at("one", 0), two = get_at("two", 10);
    cr_expect_eq(look_at(HOUR_MS - 1), HOUR_MS);
    cr_expect(is_open(one));
    cr_expect_eq(look_at(HOUR_MS), HOUR_MS + 10);
    cr_expect(!is_open(one));
    cr_expect(is_open(two));
    cr_expect_eq(look_at(HOUR_MS + 10), -1, "nothing to look at, no timer");
    cr_expect(!is_open(two));
    end();
}

Test(keyed_time, a_get_gives_a_pool_its_whole_time_again)
{
    open_set(0);
    corepool_pool_t one = get_at("one", 0);
    cr_expect_eq(get_at("one", HOUR_MS - 1).generation, one.generation);
    cr_expect_eq(look_at(HOUR_MS), 2 * HOUR_MS - 1);
    cr_expect(is_open(one));
    cr_expect_eq(look_at(2 * HOUR_MS - 1), -1);
    cr_expect(!is_open(one));
    end();
}

Test(keyed_time, a_pool_that_took_long_to_open_has_its_whole_time)
{
    open_set(0);
    corepool_pool_t one = get_at("one", -3 * HOUR_MS); /* asked for then, open now */
    cr_expect_gt(look_at(0), HOUR_MS / 2);
    cr_expect(is_open(one));
    end();
}

Test(keyed_time, a_pool_in_use_counts_as_got_when_it_is_looked_at)
{
    corepool_lease_t lease;
    open_set(0);
    corepool_pool_t one = get_at("one", 0);
    cr_assert_eq(corepool_checkout(one, NULL, &lease), COREPOOL_OK);
    cr_expect_eq(look_at(HOUR_MS), 2 * HOUR_MS);
    corepool_checkin(&lease);
    cr_expect_eq(look_at(2 * HOUR_MS - 1), 2 * HOUR_MS);
    cr_expect(is_open(one));
    cr_expect_eq(look_at(2 * HOUR_MS), -1);
    end();
}

Test(keyed_time, the_least_recently_got_makes_room)
{
    open_set(3);
    corepool_pool_t one = get_at("one", 1), two = get_at("two", 2), three = get_at("three", 3);
    get_at("one", 4);
    get_at("four", 5);
    cr_expect(is_open(one) && !is_open(two) && is_open(three));
    get_at("three", 6);
    get_at("five", 7);
    cr_expect(!is_open(one) && is_open(three));
    end();
}

Test(keyed_time, room_is_made_by_the_next_when_the_least_recently_got_is_used)
{
    corepool_lease_t lease;
    corepool_pool_t pool;
    open_set(2);
    corepool_pool_t one = get_at("one", 1), two = get_at("two", 2);
    cr_assert_eq(corepool_checkout(one, NULL, &lease), COREPOOL_OK);
    get_at("three", 3);
    cr_expect(is_open(one) && !is_open(two));
    corepool_lease_t other;
    cr_assert_eq(corepool_checkout(get_at("three", 3), NULL, &other), COREPOOL_OK);
    cr_expect_eq(cp_keyed_get_at(set, "four", 4, start + 4 * MS, &pool), COREPOOL_ELIMIT);
    cr_expect(is_open(one));
    corepool_checkin(&other);
    corepool_checkin(&lease);
    get_at("four", 5);
    cr_expect(!is_open(one), "it was got before three");
    end();
}

Test(keyed_time, many_whose_time_is_over_are_reaped_in_turns)
{
    char key[8];
    open_set(0);
    for (unsigned i = 0; i < 600; i++) {
        snprintf(key, sizeof key, "%u", i);
        get_at(key, 0);
    }
    cr_expect_eq(look_at(HOUR_MS), HOUR_MS + 1, "others are served between");
    cr_expect_eq(look_at(HOUR_MS + 1), HOUR_MS + 2);
    cr_expect_eq(look_at(HOUR_MS + 2), -1);
    end();
}
