/* corepool/runtime.h: the shards of one process: start, stop, code on a shard.
 *
 * Thread default of this header: control, that is any thread that is not a shard; exceptions are marked. */
#ifndef COREPOOL_RUNTIME_H
#define COREPOOL_RUNTIME_H

#include <stdint.h>

#include <uv.h>

#include <corepool/error.h>
#include <corepool/topology.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct corepool_runtime corepool_runtime_t;
typedef struct corepool_shard corepool_shard_t;

/* "Wait as long as it takes", for every timeout of the library. Less than that is COREPOOL_EINVAL everywhere. 0: in options,
 * where zero means the default, the default; as an argument of a call that closes, stops, drains or warms, no wait; of one
 * that sends, receives or asks a child, COREPOOL_EINVAL. */
#define COREPOOL_INFINITE ((int64_t)-1)

/* How idle workers are kept for callers. The environment variable COREPOOL_SHELF ("rseq", "portable")
 * overrides COREPOOL_SHELF_AUTO; set to anything else it fails the start (COREPOOL_EINVAL). */
typedef enum corepool_shelf_kind {
    COREPOOL_SHELF_AUTO = 0, /* rseq where this machine and process have it, else portable (default) */
    COREPOOL_SHELF_RSEQ,     /* restartable sequences, or COREPOOL_ENOTSUP at start */
    COREPOOL_SHELF_PORTABLE, /* C11 atomics and a futex lock */
} corepool_shelf_kind_t;

typedef enum corepool_pin {
    COREPOOL_PIN_REQUIRED = 0, /* a pin that the kernel refuses fails the start (default) */
    COREPOOL_PIN_PREFERRED,    /* such a shard runs unpinned, on the portable shelf */
    COREPOOL_PIN_NONE,         /* no shard is pinned; all on the portable shelf. Implied by `synthetic` */
} corepool_pin_t;

/* Runs on a shard's thread, once at start when all shards' loops are up, once at stop after its last pool is
 * gone. Handles that on_start opened on the loop are to be closed in on_stop (uv_close); what is left open
 * is closed by the runtime without a callback. Signals are blocked on the shards' threads. */
typedef void (*corepool_shard_cb)(corepool_shard_t *shard, void *arg);

/* A callback keeps `shard` from its loop and has run for duration_ms by now (by up to an eighth of stall_ms longer).
 * callback: "init", "on_start", "a posted function"…; pool: its pool's name, or NULL. Once for each such callback, and again
 * each time that this has doubled; its pool's COREPOOL_EVENT_STALL comes just before. Callbacks of the program's own libuv
 * handles are not seen. Thread: the watchdog's. Must not block; calls that may wait for a shard are COREPOOL_EDEADLK. */
typedef void (*corepool_stall_cb)(unsigned shard, const char *pool, const char *callback, int64_t duration_ms, void *arg);

/* Zero means the default in every field. */
typedef struct corepool_runtime_options {
    const char *cpus;            /* as in corepool_topology_options_t */
    const char *except;          /* as there */
    corepool_place_t place;      /* as there */
    const char *synthetic;       /* as there; its shards run unpinned */
    corepool_shelf_kind_t shelf; /* default COREPOOL_SHELF_AUTO */
    corepool_pin_t pin;          /* default COREPOOL_PIN_REQUIRED */
    const char *name;            /* threads are named NAME/SHARD in the process list; default "corepool";
                                  * 1 to 10 characters */
    corepool_shard_cb on_start;  /* default none */
    corepool_shard_cb on_stop;   /* default none */
    void *arg;                   /* for these callbacks */
    int64_t stall_ms;            /* report callbacks that run on a shard for longer than this, by a watchdog thread that looks
                                  * eight times in it; at most a day; default: none, and no such thread */
    corepool_stall_cb on_stall;  /* default none; COREPOOL_EINVAL without stall_ms */
} corepool_runtime_options_t;

/* Starts one pinned thread with its libuv loop, of four descriptors, per shard; all or nothing. options: NULL for the
 * defaults, caller keeps. Blocks until every shard runs. Returns COREPOOL_OK with *runtime to be stopped and destroyed
 * by the caller; else nothing was started, *runtime is NULL and the detail says why: COREPOOL_EINVAL (a
 * field), COREPOOL_ENOTSUP (rseq asked for and not there), COREPOOL_ESYSTEM (no usable CPU, no thread, no
 * descriptor, pin refused), COREPOOL_ENOMEM, COREPOOL_EDEADLK (called on a shard). */
COREPOOL_PUBLIC int corepool_runtime_start(const corepool_runtime_options_t *options, corepool_runtime_t **runtime);

/* Brings everything down, rung by rung: (1) every pool stops accepting, its waiting requests end with
 * COREPOOL_ECLOSED; (2) idle workers are terminated, leased ones as they are checked in; (3) once no worker
 * is left, on_stop runs on each shard, the loops end, the threads are joined. Blocks for at most `timeout_ms`
 * (COREPOOL_INFINITE; 0: no wait) in rung 2. Returns COREPOOL_OK when all is down; COREPOOL_EBUSY when
 * leases (or workers that are still opening or terminating) are left at the deadline: the detail names the
 * first ones, corepool_pool_leases lists all; rung 2 goes on, late workers are terminated at their checkin,
 * and the call is to be repeated. COREPOOL_EDEADLK on a shard; COREPOOL_EINVAL; COREPOOL_EFORKED. Idempotent. */
COREPOOL_PUBLIC int corepool_runtime_stop(corepool_runtime_t *runtime, int64_t timeout_ms);

/* Frees a stopped runtime; pool handles, leases and requests of it must not be used afterwards. Checkins, and checkouts that
 * waited, of other threads may still be returning from what stop has waited for (not checkins on the portable shelf). NULL is
 * allowed. Returns COREPOOL_OK; COREPOOL_EBUSY, and does nothing, when it is not stopped, or when an attached loop has not been
 * detached and run since; COREPOOL_EDEADLK on a shard. */
COREPOOL_PUBLIC int corepool_runtime_destroy(corepool_runtime_t *runtime);

/* The number of shards. Thread: any. */
COREPOOL_PUBLIC unsigned corepool_runtime_shards(const corepool_runtime_t *runtime);

/* How many of its shards are parked at this moment: their CPU went offline, or out of the process's cpuset, after the start.
 * A shard notices at its next activity, tries to come back every 150 ms, and parks at the first attempt that the kernel
 * refuses. Parked it serves its requests from another CPU, on the portable shelf. In pools with stealing and a slice on
 * every shard, its places and those idle workers that may move (COREPOOL_CLASS_MOVABLE) go to the nearest shards that are
 * not parked; once it is back it gets others as its callers ask. Thread: any. */
COREPOOL_PUBLIC unsigned corepool_runtime_parked(const corepool_runtime_t *runtime);

/* The topology that it runs on; valid as long as the runtime. Thread: any. */
COREPOOL_PUBLIC const corepool_topology_t *corepool_runtime_topology(const corepool_runtime_t *runtime);

/* The shelf in use: COREPOOL_SHELF_RSEQ or COREPOOL_SHELF_PORTABLE. Thread: any. */
COREPOOL_PUBLIC corepool_shelf_kind_t corepool_runtime_shelf(const corepool_runtime_t *runtime);

/* What COREPOOL_SHELF_AUTO would choose here and now; `reason` (may be NULL) receives why, static storage.
 * Thread: any. */
COREPOOL_PUBLIC corepool_shelf_kind_t corepool_shelf_probe(const char **reason);

/* Checks on every slice of every pool, each on its own shard, what can be told from its state: L1, L2, and L3 within the
 * slice. Blocks until all have answered. Exact when no call is under way (quiescent). Returns COREPOOL_OK, or
 * COREPOOL_ELAW with the detail naming law, pool and shard; COREPOOL_EDEADLK on a shard. */
COREPOOL_PUBLIC int corepool_runtime_audit(corepool_runtime_t *runtime);

/* Runs fn(shard, arg) on shard `index`, in the order of posting per calling thread. Thread: any; never
 * blocks. Returns COREPOOL_OK, COREPOOL_EINVAL (unknown shard, no fn), COREPOOL_ENOMEM, COREPOOL_ECLOSED
 * (stopped). What was accepted runs, at the latest before on_stop. */
COREPOOL_PUBLIC int corepool_shard_post(corepool_runtime_t *runtime, unsigned index, corepool_shard_cb fn, void *arg);

/* The shard that the calling thread is, or NULL on any other thread. Thread: any. */
COREPOOL_PUBLIC corepool_shard_t *corepool_shard_current(void);

/* Of a shard. Thread: any; the loop itself may be touched on the shard's thread only. */
COREPOOL_PUBLIC uv_loop_t *corepool_shard_loop(corepool_shard_t *shard);
COREPOOL_PUBLIC unsigned corepool_shard_index(const corepool_shard_t *shard);
COREPOOL_PUBLIC int corepool_shard_cpu(const corepool_shard_t *shard);
COREPOOL_PUBLIC corepool_runtime_t *corepool_shard_runtime(const corepool_shard_t *shard);

#ifdef __cplusplus
}
#endif
#endif
