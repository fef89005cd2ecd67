/* machine/thread.h: what the library knows of a thread that has called it.
 *
 * Records are made at a thread's first call and reused by later threads after its end; their memory stays, so a pointer
 * to one is always safe to read. Leases are counted, not listed: only a thread that took one and did not end it itself
 * makes the library look, at the thread's end, whether it is still out. */
#ifndef CP_MACHINE_THREAD_H
#define CP_MACHINE_THREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <corepool/visibility.h>

#include "base/assert.h"
#include "base/list.h"

struct corepool_shard;
struct cp_loop;

/* Pools that a thread takes turns in and that share a counter may have a turn left out: so there are some. */
#define CP_THREAD_TURNS 8

struct cp_thread {
    /* Read and written by the usual path, see corepool/layout.h. */
    char *rseq;                    /* its area; where there is none, memory of its own that says so */
    uint32_t tag;                  /* CP_TAG_SHELVED + the record's number; fixed */
    uint32_t unsampled;            /* checkouts since the last one that noted its backtrace */
    struct corepool_shard *shard;  /* the shard that this thread is, or NULL */
    struct cp_loop *loop;          /* the loop that asynchronous checkouts complete on, or NULL */
    struct cp_list requests;       /* cache of requests for blocking */
    /* Leases that it took, and those of them that it ended itself. Behind in their line, as the usual path reads what is in
     * front of others: where two addresses end in the same twelve bits a load waits for the store before it. */
    uint64_t taken, ended;
    uint64_t turn_of;              /* a slice's opening where it has waited and may go before others, or 0 … */
    int64_t turn_ends;             /* … until then */
    void *waits_for;               /* the keyed pool's making that it waits for, or NULL; under front/keyed.c's lock */
    /* The thread's own, of policies: see front/policy.c. */
    uint64_t draws;
    uint32_t turns[CP_THREAD_TURNS];
    /* Read by others at any time. */
    _Atomic int64_t id;            /* kernel thread id */
    char name[16];                 /* as it was at the first call */
    struct cp_thread *next;        /* of the free records */
} cp_line_aligned;

/* The calling thread's record, NULL before its first call. Exported under the name that corepool/layout.h knows. */
extern _Thread_local struct cp_thread *cp_self __asm__("corepool_layout_self_2") cp_initial_exec COREPOOL_PUBLIC;

/* The same on threads that may block; NULL on shards too. So the usual checkout has one thing to test. */
extern _Thread_local struct cp_thread *cp_client __asm__("corepool_layout_client_2") cp_initial_exec COREPOOL_PUBLIC;

/* Makes the record. NULL with detail: *code is COREPOOL_ENOMEM, or COREPOOL_EFORKED in a child of a process that had a
 * runtime when it forked. */
struct cp_thread *cp_thread_register(int *code);

static inline struct cp_thread *cp_thread_self(int *code)
{
    return cp_likely(cp_self != NULL) ? cp_self : cp_thread_register(code);
}

/* Runs on every registered thread that ends, before its record is freed. Set once, before any thread registers. */
void cp_thread_on_exit(void (*fn)(struct cp_thread *thread));

/* Runtimes in existence: after a fork with any, the child is refused. Thread: any. */
void cp_thread_count_runtimes(int change);
bool cp_thread_is_forked(void);

#endif
