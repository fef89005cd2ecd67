/* shard/shard.h: a pinned thread with its libuv loop, which manages its slices of all pools.
 *
 * Thread default: the shard's own; exceptions are marked.
 *
 * The manager is a role. Whoever has the shard's token plays it: the shard's thread from its first step after it woke until
 * its loop is about to sleep; in between any caller on the shard's CPU, for its own message, so that handing a worker from
 * one caller to another does not take a third thread. A caller does what any thread may do (grant, shelve, listen…) and
 * leaves the rest to the thread, which it wakes for that. Messages to whoever plays are `asks`:
 *
 *     who asks:   try the token         → play, if it was free; else
 *                 push the message      then try the token again
 *     who plays:  drop the token        then look at the asks → play on, if there are some
 *
 * Both sides are sequentially consistent, so one of them finds the message. Slices with callbacks that are promised the
 * shard's thread (CP_TRAIT_THREADED) are not played by callers; their messages go to the loop. */
#ifndef CP_SHARD_SHARD_H
#define CP_SHARD_SHARD_H

#include <pthread.h>

#include <corepool/runtime.h>

#include "base/latch.h"
#include "base/token.h"
#include "shard/loop.h"
#include "shard/slice.h"
#include "shard/stall.h"

/* Sleepers that a caller who plays has granted, to be woken when it has dropped the token: one that is woken before may
 * take the CPU at once, and find the token held. */
#define CP_WAKES 32

/* Size classes of slice blocks, four to a doubling: 1 … 2^21 slots, twice what a pool may have, for one that grows. */
#define CP_BLOCK_CLASSES 80

struct corepool_shard {
    /* Fixed. */
    struct corepool_runtime *runtime;
    const corepool_topology_t *topology;
    unsigned index;
    int cpu;
    bool pinned;             /* pin wanted and (at start) had */
    bool pin_refused;        /* the last start failed for that */
    bool single_cpu;         /* stands for one CPU only: its shelves may be rseq */
    corepool_shard_cb on_start, on_stop;
    void *arg;
    char name[16];
    pthread_t thread;
    /* The shard's own line, read by the watchdog. */
    struct cp_mark mark;
    /* Any thread posts here. */
    struct cp_loop loop;
    struct cp_mailbox asks cp_line_aligned;
    struct cp_token token;
    _Atomic uint32_t askers; /* callers inside: stopping waits for them */
    /* Who plays. */
    bool thread_wanted;      /* something is left for the thread */
    unsigned wakes;
    _Atomic uint32_t *wake[CP_WAKES];
    /* The shard's own; dirty, sleeping, spare_blocks and chunks are whose who plays. */
    bool playing;            /* the thread has the token */
    uv_loop_t uv;
    uv_prepare_t leaving;    /* drops it before the loop sleeps */
    uv_idle_t soon;          /* active while there is local work: keeps the loop from sleeping */
    uv_timer_t timer;        /* next wake-up of a sleeping slice */
    uv_timer_t homing;       /* while away: the next attempt to come home */
    struct cp_message *local_first, **local_last; /* messages from this thread to itself */
    struct cp_list slices, dirty;
    struct cp_heap sleeping; /* slices by their wake-up time: thousands may have one */
    struct cp_list spare_blocks[CP_BLOCK_CLASSES];
    struct cp_chunk *chunks; /* what the blocks are cut from */
    bool away;               /* the thread was found off its CPU: see home.c */
    _Atomic bool parked;     /* it is away, and its CPU cannot be had; read by anyone */
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
    return cp_self->shard == shard;
}

/* Posts to a shard, in order per thread; from the shard itself without a system call, delivered from its loop.
 * False: stopped, not consumed. Thread: any. */
bool cp_shard_send(struct corepool_shard *shard, struct cp_message *message);

/* Plays from here on, until the loop is about to sleep. Idempotent. Everything that the loop or the program calls and that
 * touches a slice begins with it. */
void cp_shard_enter(struct corepool_shard *shard);

/* Between the two calls the shard's memory, and its slices', stays: stopping waits. The first comes while something else still keeps
 * the shard from stopping, such as a lease. Thread: any. */
static inline void cp_shard_hold(struct corepool_shard *shard)
{
    atomic_fetch_add(&shard->askers, 1); /* pairs with the load in refuse_asks */
}

static inline void cp_shard_let_go(struct corepool_shard *shard)
{
    atomic_fetch_sub(&shard->askers, 1);
}

/* Posts to whoever plays the manager, in order per thread. here: the caller is on the shard's CPU, or its slice is
 * portable: it plays itself if nobody does. False: stopped, not consumed. Thread: any. Never blocks. */
bool cp_shard_ask(struct corepool_shard *shard, struct cp_message *message, bool here);

/* The calling thread plays; it is on the shard's CPU, or what it does is for portable slices. What was asked before is delivered;
 * then, between the two calls, the caller does its own, as if it had posted it. False: another plays, or the shard has
 * stopped, or the caller is a shard. Thread: any. Never blocks. */
bool cp_shard_begin_play(struct corepool_shard *shard);
void cp_shard_end_play(struct corepool_shard *shard);

/* Wakes who sleeps on the word: now, or when a caller who plays has dropped the token. Thread: who plays. */
void cp_shard_wake_sleeper(struct corepool_shard *shard, _Atomic uint32_t *word);

/* Runs fn(shard, arg) on the shard and waits for it. fn's result, or COREPOOL_ECLOSED. Thread: control. Blocks. */
int cp_shard_call(struct corepool_shard *shard, int (*fn)(struct corepool_shard *, void *), void *arg);

/* Does what there is to do, as if the loop had come round. */
void cp_shard_settle(struct corepool_shard *shard);

/* The loop is to look after `slice` before it sleeps (thread: who plays), or no later than `when_ns`. */
void cp_shard_look_after(struct corepool_shard *shard, struct cp_slice *slice);
void cp_shard_wake_at(struct corepool_shard *shard, struct cp_slice *slice, int64_t when_ns);

/* Memory of the shard's NUMA node, zeroed, kept until cp_shard_finish; NULL: none. */
void *cp_shard_alloc(struct corepool_shard *shard, size_t bytes);

#endif
