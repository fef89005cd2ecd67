/* shard/shard.h: a pinned thread with its libuv loop, which manages its slices of all pools.
 *
 * Thread default: the shard's own; exceptions are marked. */
#ifndef CP_SHARD_SHARD_H
#define CP_SHARD_SHARD_H

#include <pthread.h>

#include <corepool/runtime.h>

#include "base/latch.h"
#include "shard/loop.h"
#include "shard/slice.h"
#include "shard/stall.h"

/* Size classes of slice blocks, four to a doubling: 1 … 2^21 slots, twice what a pool may have, for one that grows. */
#define CP_BLOCK_CLASSES 80

struct corepool_shard {
    /* Fixed. */
    struct corepool_runtime *runtime;
    const corepool_topology_t *topology;
    unsigned index;
    int cpu;
    bool pinned;             /* pin wanted and (at start) had */
    bool single_cpu;         /* stands for one CPU only: its shelves may be rseq */
    corepool_shard_cb on_start, on_stop;
    void *arg;
    char name[16];
    pthread_t thread;
    /* The shard's own line, read by the watchdog. */
    struct cp_mark mark;
    /* Any thread posts here. */
    struct cp_loop loop;
    /* The shard's own. */
    uv_loop_t uv;
    uv_idle_t soon;          /* active while there is local work: keeps the loop from sleeping */
    uv_timer_t timer;        /* next wake-up of a sleeping slice, or attempt to regain the CPU */
    struct cp_message *local_first, **local_last; /* messages from this thread to itself */
    struct cp_list slices, dirty;
    struct cp_heap sleeping; /* slices by their wake-up time: thousands may have one */
    struct cp_list spare_blocks[CP_BLOCK_CLASSES];
    struct cp_chunk *chunks; /* what the blocks are cut from */
    bool lost_cpu;
    bool stop_wanted, stopping;
};

/* Starts the thread; returns when it runs its loop, or negative with detail (nothing left behind). Thread: control. */
int cp_shard_start(struct corepool_shard *shard);

/* Runs on_stop, ends the loop, joins. All slices must be closed. Thread: control. Blocks. */
void cp_shard_stop(struct corepool_shard *shard);

/* Frees the blocks of a stopped shard (or one that never started). Thread: control. */
void cp_shard_finish(struct corepool_shard *shard);

/* Whether the calling thread is this shard. Thread: any. */
static inline bool cp_on_shard(const struct corepool_shard *shard)
{
    return cp_self && cp_self->shard == shard;
}

/* Posts to a shard, in order per thread; from the shard itself without a system call, delivered from its loop.
 * False: stopped, not consumed. Thread: any. */
bool cp_shard_send(struct corepool_shard *shard, struct cp_message *message);

/* Runs fn(shard, arg) on the shard and waits for it. fn's result, or COREPOOL_ECLOSED. Thread: control. Blocks. */
int cp_shard_call(struct corepool_shard *shard, int (*fn)(struct corepool_shard *, void *), void *arg);

/* Does what there is to do, as if the loop had come round. */
void cp_shard_settle(struct corepool_shard *shard);

/* The loop is to look after `slice` before it sleeps, or no later than `when_ns`. */
void cp_shard_look_after(struct corepool_shard *shard, struct cp_slice *slice);
void cp_shard_wake_at(struct corepool_shard *shard, struct cp_slice *slice, int64_t when_ns);

/* The shard found itself off its CPU: tries to regain it from time to time. */
void cp_shard_lost_cpu(struct corepool_shard *shard);

/* Memory of the shard's NUMA node, zeroed, kept until cp_shard_finish; NULL: none. */
void *cp_shard_alloc(struct corepool_shard *shard, size_t bytes);

#endif
