/* machine/thread.h: what the library knows of a thread that has called it.
 *
 * Records are made at a thread's first call and reused by later threads after its end; their memory stays, so a pointer
 * to one is always safe to read. Others know a thread by its area, which is its struct rseq, or memory of its record where it
 * has none. Leases are neither counted nor listed: a record remembers the first few workers that its thread has taken, which
 * are looked at when it ends. It is told of a worker that somebody else held last, so a worker whose holder is the thread is
 * one that it remembers; at the thread's end its area is no worker's holder any more. */
#ifndef CP_MACHINE_THREAD_H
#define CP_MACHINE_THREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <corepool/visibility.h>

#include "base/assert.h"
#include "base/list.h"

struct corepool_shard;
struct corepool_worker;
struct cp_loop;

/* Pools that a thread takes turns in and that share a counter may have a turn left out: so there are some. */
#define CP_THREAD_TURNS 8

/* How many workers a thread takes before all of all pools are looked at when it ends. */
#define CP_THREAD_SEEN 8

/* As far as sequences look at a struct rseq. */
struct cp_area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t rseq_cs; /* written by all that try */
};

struct cp_thread {
    uint32_t number;               /* the record's; fixed */
    /* The thread's own, for its end. */
    bool many;                     /* it has taken more workers than `seen` holds */
    struct corepool_worker *seen[CP_THREAD_SEEN]; /* those that it has taken, the newest first */
    uint64_t seen_since;           /* runtimes that had ended when it began: if there are more, `seen` may point nowhere */
    uint32_t unsampled;            /* checkouts since the last one that noted its backtrace */
    struct corepool_shard *shard;  /* the shard that this thread is, or NULL */
    struct cp_loop *loop;          /* the loop that asynchronous checkouts complete on, or NULL */
    struct cp_list requests;       /* cache of requests for blocking */
    uint64_t turn_of;              /* a slice's opening where it has waited and may go before others, or 0 … */
    int64_t turn_ends;             /* … until then */
    void *waits_for;               /* the keyed pool's making that it waits for, or NULL; under front/keyed.c's lock */
    /* The thread's own, of policies: see front/policy.c. */
    uint64_t draws;
    uint32_t turns[CP_THREAD_TURNS];
    /* Read by others at any time. */
    _Atomic int64_t id;            /* kernel thread id */
    char name[16];                 /* as it was at the first call */
    _Atomic(char *) area;          /* NULL: free */
    struct cp_area none;           /* its area, if the thread is not registered for rseq */
    struct cp_thread *next;        /* of the free records */
    struct cp_thread *before;      /* of all records, the one that was made before it; fixed */
} cp_line_aligned;

/* Stands for a thread without a record: it is on no CPU, so what it tries by a sequence is never done. */
extern struct cp_thread cp_nobody __attribute__((visibility("hidden")));

/* The calling thread's record, cp_nobody before its first call. */
extern _Thread_local struct cp_thread *cp_self cp_initial_exec __attribute__((visibility("hidden")));

/* Its area. Exported under the name that corepool/layout.h knows. */
extern _Thread_local char *cp_area __asm__("corepool_layout_self_4") cp_initial_exec COREPOOL_PUBLIC;

/* The same on threads that may block; nobody's on shards. So the usual checkout has nothing to test. */
extern _Thread_local char *cp_client_area __asm__("corepool_layout_client_4") cp_initial_exec COREPOOL_PUBLIC;

/* The calling thread is a shard from here on. */
void cp_thread_never_blocks(void);

/* Whether it has a record and is no shard. */
static inline bool cp_thread_may_block(void)
{
    return cp_client_area != (const char *)&cp_nobody.none;
}

/* Makes the record. NULL with detail: *code is COREPOOL_ENOMEM, or COREPOOL_EFORKED in a child of a process that had a
 * runtime when it forked. */
struct cp_thread *cp_thread_register(int *code);

static inline struct cp_thread *cp_thread_self(int *code)
{
    return cp_likely(cp_self != &cp_nobody) ? cp_self : cp_thread_register(code);
}

/* The thread that has this area, NULL when it has ended. Thread: any; a little for each thread that there has been. */
const struct cp_thread *cp_thread_of(const char *area);

/* The thread has taken that worker; it remembers it for its end. Thread: that one. */
void cp_thread_remember(struct cp_thread *thread, struct corepool_worker *worker);

static inline void cp_thread_note(struct cp_thread *thread, struct corepool_worker *worker)
{
    if (thread->seen[0] != worker && !thread->many)
        cp_thread_remember(thread, worker);
}

/* Whether `seen` is all that the thread has ever taken, and still there. While no runtime can be destroyed. */
bool cp_thread_remembers(const struct cp_thread *thread);

/* Runs on every registered thread that ends, before its record is freed. Set once, before any thread registers. */
void cp_thread_on_exit(void (*fn)(struct cp_thread *thread));

/* Runtimes in existence: after a fork with any, the child is refused. Thread: any; the end of one while none can be
 * destroyed. */
void cp_thread_runtime_begins(void);
void cp_thread_runtime_ends(void);
bool cp_thread_is_forked(void);

#endif
