/* front/keys.h: from key to pool: a table that any thread reads without a lock while its owner, under one,
 * changes it.
 *
 * An open-addressed table of pointers to entries, never more than half full, of fixed size. The memory of an
 * entry stays an entry until the table is finished, and what a reader looks at in it is atomic. A version tells
 * whether it has read one state of one entry:
 *
 *   owner:    version odd;      then fields;            then version even, greater
 *   reader:   version (even);   then fields: the key?;  then version is still the same
 *
 * A reader that finds the key has found its pool. One that doesn't has proved nothing (entries move when
 * another is removed): it asks the owner.
 *
 * Removing against a get in the same moment. The reader notes the time in the entry; the owner must not remove
 * what was got just now. Both look after they have written, sequentially consistent, so at least one sees the
 * other:
 *
 *   owner:    version odd       then read `got_at`    → changed: show it again
 *   reader:   write `got_at`    then read version     → changed: ask the owner
 *
 * Thread default: who holds the owner's lock; exceptions are marked. */
#ifndef CP_FRONT_KEYS_H
#define CP_FRONT_KEYS_H

#include <corepool/keyed.h>

#include "base/heap.h"
#include "front/runtime.h"

struct cp_key {
    const void *bytes;
    size_t length;
    uint64_t hash;
};

/* Entries have room for keys of up to 32, 128, 512 and 1024 bytes. */
#define CP_KEY_CLASSES 4

struct cp_key_entry {
    /* The owner's. */
    struct cp_heap_node order; /* by the `got_at` that the owner last saw */
    void *making;              /* while its pool is being opened */
    struct cp_key_entry *next; /* of the spare ones */
    unsigned class;
    /* Written by the owner, read by any. */
    _Atomic uint64_t version cp_line_aligned; /* odd: hidden */
    _Atomic uint64_t hash;
    _Atomic(struct corepool_pool_impl *) pool; /* with generation: the handle */
    _Atomic uint32_t generation;
    _Atomic uint32_t length;
    /* Written by any: the kernel's coarse time in ns; at most once a tick. */
    _Atomic int64_t got_at;
    _Atomic uint64_t words[]; /* the key; the last bytes of the last word are zero */
};

struct cp_keys {
    _Atomic(struct cp_key_entry *) *table; /* fixed */
    uint32_t mask;                         /* fixed */
    uint32_t used;
    struct cp_key_entry *spare[CP_KEY_CLASSES];
};

/* For memory the caller owns: room for `most` keys. False: no memory. */
bool cp_keys_init(struct cp_keys *keys, uint32_t most);
void cp_keys_finish(struct cp_keys *keys);

/* The pool of a key, noted as got. False: ask the owner. Thread: any, no lock. */
bool cp_keys_read(const struct cp_keys *keys, const struct cp_key *key, int64_t now, corepool_pool_t *pool);

/* The key's entry, or NULL. */
struct cp_key_entry *cp_keys_find(const struct cp_keys *keys, const struct cp_key *key);

/* Adds a key that is not there, hidden. NULL: no memory. */
struct cp_key_entry *cp_keys_add(struct cp_keys *keys, const struct cp_key *key);

/* From now on readers find it, with this pool. */
void cp_keys_show(struct cp_key_entry *entry, corepool_pool_t pool, int64_t now);

/* From now on readers don't, and one that just has is seen in got_at. */
void cp_keys_hide(struct cp_key_entry *entry);

/* Takes out an entry; the memory is for another key. */
void cp_keys_remove(struct cp_keys *keys, struct cp_key_entry *entry);

static inline corepool_pool_t cp_key_pool(const struct cp_key_entry *entry)
{
    return (corepool_pool_t){.impl = atomic_load_explicit(&entry->pool, memory_order_acquire),
                             .generation = atomic_load_explicit(&entry->generation, memory_order_acquire),
                             .shard = COREPOOL_SHARD_LOCAL};
}

#endif
