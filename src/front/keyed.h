/* front/keyed.h: sets of keyed pools: what stands behind the handle, and what its files have of each other. The
 * states are in front/keyed.c.
 *
 * Thread default: any that holds the set's lock; exceptions are marked. Lock order: the set's, then the
 * runtime's. */
#ifndef CP_FRONT_KEYED_H
#define CP_FRONT_KEYED_H

#include "front/keys.h"

struct corepool_keyed_impl {
    /* Read by every get. Odd: open, and a handle's generation equals it. */
    _Atomic uint32_t generation;
    uint64_t seed[2];    /* fixed */
    struct cp_keys keys; /* its table and mask are fixed; the rest under the lock */
    /* Fixed while known. */
    struct corepool_runtime *runtime cp_line_aligned;
    struct corepool_shard *shard; /* where its timer is; fixed for good */
    uint32_t max_pools;           /* fixed for good */
    corepool_keyed_options_t options;
    corepool_pool_options_t pool_options;
    char name[CP_POOL_NAME_BYTES];
    /* Under its lock. */
    pthread_mutex_t lock;
    pthread_cond_t made;
    struct cp_heap order;
    uint64_t opened, reaped;
    bool armed;  /* the timer is set, or about to be */
    bool posted; /* the message that sets it is on its way */
    struct cp_message arm;
    /* The shard's. */
    uv_timer_t timer;
    bool has_timer;
    /* Under the runtime's lock. */
    uint32_t known;      /* generation of the handles to a set that is open or closing; 0: none */
    uint32_t left;       /* pools not gone, those being opened among them */
    struct cp_list link; /* in the runtime's keyed */
};

/* Thread: any, no lock. */
static inline bool cp_keyed_is_open(corepool_keyed_t keyed)
{
    return atomic_load_explicit(&keyed.impl->generation, memory_order_acquire) == keyed.generation;
}

/* ECLOSED with its words. Thread: any, no lock. */
int cp_keyed_closed(void);

/* corepool_keyed_get at a time of the coarse clock. Thread: as there, no lock. */
int cp_keyed_get_at(corepool_keyed_t keyed, const void *key, size_t key_length, int64_t now,
                    corepool_pool_t *pool);

/* Takes the entry out of table and order. */
void cp_keyed_forget(struct corepool_keyed_impl *impl, struct cp_key_entry *entry);

/* A pool in use counts as got now. */
void cp_keyed_note_used(struct corepool_keyed_impl *impl, struct cp_key_entry *entry, int64_t now);

/* Closes one pool, if one is idle. */
bool cp_keyed_make_room(struct corepool_keyed_impl *impl);

/* Begins to close the pool, whoever uses it. */
void cp_keyed_close_pool(struct corepool_keyed_impl *impl, corepool_pool_t pool);

/* There is a pool: the timer is to run, if the set wants one. */
void cp_keyed_arm(struct corepool_keyed_impl *impl);

/* Closes pools whose time is over. When the next look is due; CP_NEVER: when there is a pool again. Thread:
 * any, no lock. */
int64_t cp_keyed_look(struct corepool_keyed_impl *impl, int64_t now);

#endif
