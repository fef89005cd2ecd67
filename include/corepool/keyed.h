/* corepool/keyed.h: one pool per key (an origin, a database, a tenant), made when the key is first asked for.
 *
 * Thread default of this header: control (any thread that is not a shard); exceptions are marked. */
#ifndef COREPOOL_KEYED_H
#define COREPOOL_KEYED_H

#include <corepool/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct corepool_keyed_impl;

/* A set of keyed pools: a small value, to be copied freely. Once it is closed every use is COREPOOL_ECLOSED; it
 * must not be used after corepool_runtime_destroy. The zero value is none: COREPOOL_EINVAL. */
typedef struct corepool_keyed {
    struct corepool_keyed_impl *impl;
    uint32_t generation;
} corepool_keyed_t;

/* Longest key, in bytes. */
#define COREPOOL_KEY_MAX 1024u

#define COREPOOL_KEYED_POOLS_DEFAULT 1000u
#define COREPOOL_KEYED_POOLS_MAX 1000000u

/* Zero means the default in every field; caller keeps all but what a field says otherwise. */
typedef struct corepool_keyed_options {
    const corepool_class_t *cls; /* of every pool; required; must outlive the set */
    /* Makes the class argument of a key's pool. Runs on the thread that asked for the key, which may block; may
     * ask for other keys. COREPOOL_OK with *arg set, or a code (negative) that corepool_keyed_get returns.
     * Default: *arg is `context`. */
    int (*make_arg)(const void *key, size_t key_length, void *context, void **arg);
    /* Once for each make_arg that succeeded, after the pool's last callback. Thread: any, shards among them;
     * must not block. */
    void (*free_arg)(void *arg, void *context);
    void *context;                       /* for both; default NULL */
    unsigned size;                       /* of every pool (for each shard, with COREPOOL_POOL_PER_SHARD); default
                                          * COREPOOL_SIZE_DEFAULT */
    const corepool_pool_options_t *pool; /* of every pool, but its name; copied; default: COREPOOL_POOL_LAZY. Options that
                                          * are given are taken as they are: without that flag pools are eager */
    unsigned max_pools;                  /* so many may be open at once; default COREPOOL_KEYED_POOLS_DEFAULT */
    int64_t reap_after_ms; /* a pool is closed when nobody has got it for that long and none of its workers is
                            * leased and no request waits; up to COREPOOL_KEYED_REAP_MAX_MS; default: never, and
                            * no timer */
    const char *name; /* for messages; default: the class's name; a pool is called NAME:KEY, cut at 31 bytes */
} corepool_keyed_options_t;

/* A year. */
#define COREPOOL_KEYED_REAP_MAX_MS (INT64_C(365) * 24 * 3600 * 1000)

/* Opens a set without a pool in it. Its memory is taken for max_pools keys: 16 to 32 bytes each, the rest when
 * there is a key. COREPOOL_OK with *keyed set; COREPOOL_EINVAL (the detail names the field), COREPOOL_ENOMEM,
 * COREPOOL_ESYSTEM (no random seed), COREPOOL_ECLOSED (the runtime is stopping), COREPOOL_EDEADLK. */
COREPOOL_PUBLIC int corepool_keyed_open(corepool_runtime_t *runtime, const corepool_keyed_options_t *options,
                                        corepool_keyed_t *keyed);

/* The key's pool, which counts as got from now. Keys are the same when all their bytes are (1 to
 * COREPOOL_KEY_MAX of any value). Thread: any for a key whose pool is open: that takes no lock, and does not
 * block. A new key's pool is opened by the first who asks, while others who ask for that key wait and get the
 * same outcome, and those who ask for other keys do not wait; so it is for control threads only:
 * COREPOOL_EDEADLK on a shard, and in make_arg for the very key that it is made for, or for one whose make_arg, on
 * another thread, waits for that.
 *
 * With max_pools open, the least recently got pool with no lease and no waiting request makes room: it is
 * closed; such a pool is looked for among all, least recently got first. COREPOOL_ELIMIT when there is none.
 * "Got" is told apart by milliseconds (the kernel's coarse clock). A pool that is closed for any reason
 * (reaped, making room, corepool_pool_close) makes old handles to it COREPOOL_ECLOSED, and the next get opens a
 * new one: who gets ECLOSED from a checkout gets the pool again. A checkout in the very moment of the reaping
 * gets ECLOSED, or a worker that is terminated at its checkin.
 *
 * COREPOOL_OK with *pool set, else *pool is zero: COREPOOL_EINVAL, COREPOOL_ECLOSED (the set, or the runtime,
 * is closing), COREPOOL_ENOMEM, COREPOOL_EFORKED, and what corepool_pool_open returns, COREPOOL_IGNORE among
 * it. A failure is not kept: the next get tries again. */
COREPOOL_PUBLIC int corepool_keyed_get(corepool_keyed_t keyed, const void *key, size_t key_length,
                                       corepool_pool_t *pool);

/* Closes the set and every pool in it, as corepool_pool_close does. Blocks up to `timeout_ms` for all to be
 * gone and their arguments freed. COREPOOL_OK; COREPOOL_EBUSY (the detail names leases still out): closing goes
 * on, the call may be repeated; COREPOOL_ECLOSED: was gone already; COREPOOL_EINVAL, COREPOOL_EDEADLK.
 * corepool_runtime_stop closes the pools too; a set need not be closed before it. */
COREPOOL_PUBLIC int corepool_keyed_close(corepool_keyed_t keyed, int64_t timeout_ms);

typedef struct corepool_keyed_counts {
    uint64_t pools;  /* open or being opened */
    uint64_t opened; /* so far */
    uint64_t reaped; /* so far: closed by time, or to make room */
} corepool_keyed_counts_t;

/* Fills *stats. Thread: any; blocks for moments. COREPOOL_OK, COREPOOL_EINVAL, COREPOOL_ECLOSED, COREPOOL_EFORKED. */
COREPOOL_PUBLIC int corepool_keyed_stats(corepool_keyed_t keyed, corepool_keyed_counts_t *stats);

#ifdef __cplusplus
}
#endif
#endif
