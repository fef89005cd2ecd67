/* front/keys.c: the table from key to pool. See keys.h for the protocol between its owner and its readers.
 *
 * States of an entry: spare → hidden (its pool is being opened) → shown → hidden → spare. Collisions go to the
 * next place; a removal closes the gap, so there are no graves and a table does not age. */
#include "front/keys.h"

#include <stdlib.h>

static const uint32_t class_bytes[CP_KEY_CLASSES] = {32, 128, 512, COREPOOL_KEY_MAX};

bool cp_keys_init(struct cp_keys *keys, uint32_t most)
{
    uint32_t places = 2;
    while (places < 2 * most)
        places *= 2;
    *keys = (struct cp_keys){.table = calloc(places, sizeof *keys->table), .mask = places - 1};
    return keys->table != NULL;
}

static void free_spare(struct cp_key_entry *entry)
{
    while (entry) {
        struct cp_key_entry *next = entry->next;
        free(entry);
        entry = next;
    }
}

void cp_keys_finish(struct cp_keys *keys)
{
    for (uint32_t i = 0; keys->table && i <= keys->mask; i++)
        free(atomic_load(&keys->table[i]));
    for (unsigned i = 0; i < CP_KEY_CLASSES; i++)
        free_spare(keys->spare[i]);
    free(keys->table);
}

/* --- reading --- */

static inline uint64_t word_of(const struct cp_key *key, size_t index)
{
    uint64_t word = 0;
    size_t left = key->length - index * sizeof word;
    memcpy(&word, (const char *)key->bytes + index * sizeof word, left < sizeof word ? left : sizeof word);
    return word;
}

/* Loads are acquires, so that a version that is read after them is not older than they are. */
static bool has_key(const struct cp_key_entry *entry, const struct cp_key *key)
{
    if (atomic_load_explicit(&entry->hash, memory_order_acquire) != key->hash ||
        atomic_load_explicit(&entry->length, memory_order_acquire) != key->length)
        return false;
    for (size_t i = 0; i * sizeof(uint64_t) < key->length; i++)
        if (atomic_load_explicit(&entry->words[i], memory_order_acquire) != word_of(key, i))
            return false;
    return true;
}

/* False: it was removed in the same moment. */
static inline bool note_got(struct cp_key_entry *entry, uint64_t version, int64_t now)
{
    if (cp_likely(atomic_load_explicit(&entry->got_at, memory_order_relaxed) >= now))
        return true;
    atomic_store(&entry->got_at, now);
    return atomic_load(&entry->version) == version;
}

static bool read_entry(struct cp_key_entry *entry, const struct cp_key *key, int64_t now, corepool_pool_t *pool)
{
    uint64_t version = atomic_load_explicit(&entry->version, memory_order_acquire);
    if (version % 2 || !has_key(entry, key))
        return false;
    corepool_pool_t found = cp_key_pool(entry);
    if (atomic_load_explicit(&entry->version, memory_order_relaxed) != version || !cp_pool_is_open(found) ||
        !note_got(entry, version, now))
        return false;
    *pool = found;
    return true;
}

bool cp_keys_read(const struct cp_keys *keys, const struct cp_key *key, int64_t now, corepool_pool_t *pool)
{
    uint32_t at = (uint32_t)key->hash & keys->mask;
    for (uint32_t steps = 0; steps <= keys->mask; steps++, at = (at + 1) & keys->mask) {
        struct cp_key_entry *entry = atomic_load_explicit(&keys->table[at], memory_order_acquire);
        if (!entry)
            return false;
        if (read_entry(entry, key, now, pool))
            return true;
    }
    return false; /* entries moved along with it */
}

/* --- changing --- */

struct cp_key_entry *cp_keys_find(const struct cp_keys *keys, const struct cp_key *key)
{
    for (uint32_t at = (uint32_t)key->hash & keys->mask;; at = (at + 1) & keys->mask) {
        struct cp_key_entry *entry = atomic_load_explicit(&keys->table[at], memory_order_relaxed);
        if (!entry || has_key(entry, key))
            return entry;
    }
}

/* A new entry is hidden: so it is while it is spare. */
static struct cp_key_entry *take_entry(struct cp_keys *keys, size_t length)
{
    unsigned class = 0;
    while (class_bytes[class] < length)
        class ++;
    struct cp_key_entry *entry = keys->spare[class];
    if (entry) {
        keys->spare[class] = entry->next;
        return entry;
    }
    size_t bytes = sizeof *entry + class_bytes[class];
    entry = aligned_alloc(CP_CACHE_LINE, (bytes + CP_CACHE_LINE - 1) & ~(size_t)(CP_CACHE_LINE - 1));
    if (!entry)
        return NULL;
    memset(entry, 0, bytes);
    entry->class = class;
    atomic_store(&entry->version, 1);
    cp_heap_node_init(&entry->order);
    return entry;
}

struct cp_key_entry *cp_keys_add(struct cp_keys *keys, const struct cp_key *key)
{
    struct cp_key_entry *entry = take_entry(keys, key->length);
    if (!entry)
        return NULL;
    /* Releases: not before the version that hides it, for a reader that saw this memory as another key's. */
    atomic_store_explicit(&entry->hash, key->hash, memory_order_release);
    atomic_store_explicit(&entry->length, (uint32_t)key->length, memory_order_release);
    for (size_t i = 0; i * sizeof(uint64_t) < key->length; i++)
        atomic_store_explicit(&entry->words[i], word_of(key, i), memory_order_release);
    uint32_t at = (uint32_t)key->hash & keys->mask;
    while (atomic_load_explicit(&keys->table[at], memory_order_relaxed))
        at = (at + 1) & keys->mask;
    atomic_store_explicit(&keys->table[at], entry, memory_order_release);
    keys->used++;
    return entry;
}

void cp_keys_show(struct cp_key_entry *entry, corepool_pool_t pool, int64_t now)
{
    atomic_store_explicit(&entry->pool, pool.impl, memory_order_release);
    atomic_store_explicit(&entry->generation, pool.generation, memory_order_release);
    if (atomic_load(&entry->got_at) < now)
        atomic_store(&entry->got_at, now);
    atomic_store_explicit(&entry->version, atomic_load(&entry->version) + 1, memory_order_release);
}

void cp_keys_hide(struct cp_key_entry *entry)
{
    atomic_fetch_add(&entry->version, 1);
}

/* The place that an entry has; it is in the table. */
static uint32_t place_of(const struct cp_keys *keys, const struct cp_key_entry *entry)
{
    uint32_t at = (uint32_t)atomic_load(&entry->hash) & keys->mask;
    while (atomic_load_explicit(&keys->table[at], memory_order_relaxed) != entry)
        at = (at + 1) & keys->mask;
    return at;
}

/* Whoever stands behind the gap because that place was taken when it came moves there, and leaves a gap. */
static void close_gap(struct cp_keys *keys, uint32_t gap)
{
    for (uint32_t at = (gap + 1) & keys->mask;; at = (at + 1) & keys->mask) {
        struct cp_key_entry *entry = atomic_load_explicit(&keys->table[at], memory_order_relaxed);
        if (!entry)
            break;
        uint32_t from_home = (at - (uint32_t)atomic_load(&entry->hash)) & keys->mask;
        if (from_home < ((at - gap) & keys->mask))
            continue;
        atomic_store_explicit(&keys->table[gap], entry, memory_order_release);
        gap = at;
    }
    atomic_store_explicit(&keys->table[gap], NULL, memory_order_release);
}

void cp_keys_remove(struct cp_keys *keys, struct cp_key_entry *entry)
{
    if (atomic_load(&entry->version) % 2 == 0)
        cp_keys_hide(entry);
    close_gap(keys, place_of(keys, entry));
    keys->used--;
    entry->next = keys->spare[entry->class];
    keys->spare[entry->class] = entry;
}
