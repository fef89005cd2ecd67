/* front/runtime.h: what stands behind the handles: runtime, pools. Thread: control, unless marked. */
#ifndef CP_FRONT_RUNTIME_H
#define CP_FRONT_RUNTIME_H

#include <pthread.h>
#include <string.h>

#include <corepool/checkout.h>

#include "shard/shard.h"

enum cp_runtime_state { CP_RUNNING, CP_STOPPING, CP_JOINING, CP_STOPPED };

struct corepool_runtime {
    /* Fixed. */
    corepool_topology_t *topology;
    corepool_shelf_kind_t shelf;
    unsigned shards;
    struct corepool_shard *shard; /* [shards] */
    struct cp_watchdog *watchdog; /* NULL: none */
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;       /* a pool is gone, an open or an operation has ended, a watched slice or the state is another */
    enum cp_runtime_state state;
    unsigned calls;               /* of corepool_pool_open and of operations under way */
    struct cp_list pools;         /* open and closing */
    struct cp_list spare_pools;
    struct cp_list attachments;
    struct cp_list keyed;         /* sets of keyed pools, those closed and to be used again among them */
    unsigned keyed_made;          /* so many of them */
    struct cp_list link;          /* in the registry of runtimes */
};

#define CP_POOL_NAME_BYTES 32

/* Who wants to know that a pool is gone: told once, after its last callback, with the class argument. Thread: the shard of
 * its last slice. */
struct cp_pool_owner {
    void (*gone)(void *context, void *arg); /* may be NULL */
    void *context;
};

/* Stays a pool of this runtime until the runtime is destroyed. */
struct corepool_pool_impl {
    /* Control. */
    struct corepool_runtime *runtime;
    _Atomic uint32_t close_reason;   /* corepool_reason_t; set before the generation becomes even */
    _Atomic uint32_t draining;       /* new checkouts are refused */
    _Atomic uint32_t max_waiting;    /* per slice; 0: no limit */
    uint32_t flags;                  /* COREPOOL_POOL_…; fixed while open */
    const corepool_class_t *cls;
    char name[CP_POOL_NAME_BYTES];
    struct cp_pool_owner owner;
    /* Under the runtime's lock. */
    uint32_t known;                  /* generation of the handles to the pool that is open or closing; 0: none */
    uint32_t slices_left;            /* not yet finished */
    uint32_t watchers;               /* calls that wait for a change of its slices */
    uint32_t size;                   /* of the whole pool */
    bool operating;                  /* an operation is changing its slices; `size` is that one's */
    uint8_t stop_early;              /* corepool_reason_t: a ping has stopped it before it was known; or NONE */
    struct cp_slice **own;           /* [shards]: each shard's own slice until it has finished, else NULL */
    struct cp_list link;             /* in pools or spare_pools */
    /* Read by checkouts that the usual path by rseq is not for. */
    bool is_cpu_known;               /* cp_rseq_cpu tells the CPU */
    uint32_t possible_cpus;          /* length of by_cpu */
    _Atomic uint32_t cpus;           /* the same, if a slice has an rseq shelf; else 0 */
    _Atomic uint32_t portable_cpus;  /* the same for the usual path on portable shelves; 0: the policy decides, or the CPU is not
                                      * known */
    _Atomic uint32_t policy;         /* corepool_policy_t */
    _Atomic uint32_t slices;         /* at least 1 once it has been open; fixed while open */
    _Atomic uint32_t salt;           /* of keys, or which of a thread's turns is the pool's */
    _Atomic(struct cp_slice *) *by_shard; /* [shards]: the slice that serves it, its own or its group's */
    _Atomic uint32_t *homes;         /* [slices]: the shards that have a slice, ascending */
    _Atomic(corepool_choose_cb) choose;
    _Atomic(void *) choose_arg;
    uint64_t spare[8];               /* so that the above may grow, and what is published stays where it is */
    /* Read by every checkout; a line of its own with the first CPUs' slices. Odd: open, and a handle's generation equals it.
     * Even: closing, gone or spare. */
    _Atomic uint32_t generation cp_line_aligned;
    int32_t local;                   /* COREPOOL_SHARD_LOCAL: with generation, what an unbound handle's value must be */
    struct cp_shelf *nowhere;        /* by_cpu[-1], for a thread on no CPU; fixed */
    _Atomic(struct cp_slice *) by_cpu[]; /* [possible_cpus]: the slice that serves it, by its shard; behind them by_shard, own
                                          * and homes */
};

/* Whether the handle's pool is open, at the moment of the load. Acquire: what is read before it belongs to that pool if
 * it is. Thread: any. */
static inline bool cp_pool_is_open(corepool_pool_t pool)
{
    return atomic_load_explicit(&pool.impl->generation, memory_order_acquire) == pool.generation;
}

/* The same, and that the handle is for the caller's own shard: one comparison of eight bytes. */
static inline bool cp_pool_is_local(corepool_pool_t pool)
{
    uint64_t wanted, is;
    _Static_assert(offsetof(corepool_pool_t, shard) == offsetof(corepool_pool_t, generation) + 4, "one word");
    memcpy(&wanted, &pool.generation, sizeof wanted);
    is = __atomic_load_n((const uint64_t *)(const void *)&pool.impl->generation, __ATOMIC_ACQUIRE);
    return wanted == is;
}

/* Open or closing, and not yet gone. Under the runtime's lock. */
static inline bool cp_pool_is_known(corepool_pool_t pool)
{
    return pool.impl->known == pool.generation;
}

/* EINVAL for the zero handle and shard numbers that are none, else OK. Thread: any. */
int cp_pool_check_handle(corepool_pool_t pool);

/* What corepool_pool_open checks of its arguments; options not NULL. */
int cp_pool_check_open(corepool_runtime_t *runtime, const corepool_class_t *cls, unsigned size,
                       const corepool_pool_options_t *options);

/* The manager's form of options that have been checked; those that this class makes of no effect are told as events. `name`
 * must outlive the pool. */
void cp_pool_configure(struct cp_slice_config *config, const corepool_class_t *cls, void *arg,
                       const corepool_pool_options_t *options, const char *name, unsigned shards);

/* Opens a pool from arguments that have been checked. `owner` hears of a pool that was opened only. */
int cp_pool_open(corepool_runtime_t *runtime, const corepool_class_t *cls, void *arg, unsigned size,
                 const corepool_pool_options_t *options, struct cp_pool_owner owner, corepool_pool_t *pool);

/* EINVAL naming size, or OK. */
int cp_pool_check_size(const struct corepool_runtime *runtime, unsigned size, unsigned flags);

/* The share of slice `rank` of so many in `size` workers; the sum is `size`, and 0 is possible with fewer. */
uint32_t cp_pool_quota_of(unsigned rank, unsigned of, unsigned size);

/* A slice's `changed`: tells the calls that wait for it. Thread: the slice's shard. */
bool cp_pool_changed(struct cp_slice *slice, void *context);

/* Calls fn for each slice that has not finished, under the runtime's lock. */
void cp_pool_each_slice(struct corepool_pool_impl *impl, void (*fn)(struct cp_slice *, void *), void *arg);

/* The same for those that the handle is for: all, or the one that serves its shard. */
void cp_pool_each_slice_of(corepool_pool_t pool, void (*fn)(struct cp_slice *, void *), void *arg);

/* Starts closing, unless that has begun; under the runtime's lock. Thread: any. */
void cp_pool_begin_close(struct corepool_pool_impl *impl, corepool_reason_t reason);

/* ECLOSED, with a detail that tells the reason if the handle's pool is the last that was closed here. Thread: any. */
int cp_pool_closed(corepool_pool_t pool);

/* Runs fn(slice, arg) on the shard of each slice that the handle is for and that is not closed, one after the other, until
 * one returns a negative code. From a shard's own thread: EDEADLK, unless all are its own. ECLOSED: the pool is. Thread:
 * any. Blocks; not under the lock. */
int cp_pool_call_slices(corepool_pool_t pool, int (*fn)(struct cp_slice *, void *), void *arg);

/* L1 over an open pool: its quotas, and what moves between them, are its size; or more, while it shrinks. Under the lock. */
bool cp_pool_is_whole(struct corepool_pool_impl *impl, bool shrinks);

/* Puts the first leases that are out into words, for an error's detail; under the runtime's lock. */
void cp_pool_describe_leases(struct corepool_pool_impl *impl, char *text, size_t bytes);

/* EDEADLK on the watchdog's thread, for calls that wait for a shard; else OK. Thread: any. */
int cp_check_waits(const char *what);

/* EDEADLK on a shard, EFORKED in a forked child, else OK. Thread: any. */
int cp_check_control(const char *what);

/* timeout_ms ≥ COREPOOL_INFINITE, else EINVAL naming it. */
int cp_check_timeout(const char *what, int64_t timeout_ms);

/* Every runtime of the process, under the registry's lock. Thread: any. */
void cp_each_runtime(void (*fn)(struct corepool_runtime *, void *), void *arg);

/* Whether a loop is attached, or was detached and has not run since; under the lock. */
bool cp_attachments_open(const struct corepool_runtime *runtime);

/* Frees what is left of detached loops, and of the shards' asynchronous checkouts. */
void cp_attachments_free(struct corepool_runtime *runtime);

/* A thread has ended: cancels what it waits for on its attached loop. */
void cp_async_thread_ended(struct cp_thread *thread);

/* Frees the sets of keyed pools; their pools are gone. */
void cp_keyed_free(struct corepool_runtime *runtime);

/* Sets the hook that reclaims what an ending thread holds. */
void cp_reclaim_install(void);

#endif
