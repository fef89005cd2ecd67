/* corepool/layout.h: what a checkout and a checkin read and write in the usual case, and the two steps themselves. The library
 * compiles its own usual path from this header; programs use corepool/inline.h, which is made of it. Nothing else
 * here is for programs.
 *
 * The structures are the first fields of the library's own, which asserts that they match. Any change to them, or to what
 * the steps mean, is another COREPOOL_LAYOUT_VERSION; the threads of the version that a library speaks are under that
 * version's names, and under those of every version before it there is for ever a thread that is on no CPU. So a program that
 * was compiled for one of these finds its case never usual and calls the exported functions, at no cost to those that match.
 *
 * Both steps are restartable sequences (Linux rseq): plain loads and stores between arming and the last store, the
 * commit; if the kernel preempts, migrates or signals the thread in between it goes on at the abort label. The commit of the
 * usual case is the worker's new stamp: who takes what is on top and puts it back there writes nothing else. All of a
 * step's checks are inside, so they hold when it commits: the shelf's manager runs on the shelf's CPU, so it has
 * changed nothing in between, or else it restarts the CPU's sequences (membarrier) before it goes by its change. A pool's
 * generation changes before its managers hear of it: whoever finds it unchanged takes from a slice that is still
 * the pool's. */
#ifndef COREPOOL_LAYOUT_H
#define COREPOOL_LAYOUT_H

#include <stdint.h>

#include <corepool/checkout.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version that this header describes, unless the program has chosen 0: no layout, never inline. */
#ifndef COREPOOL_LAYOUT_VERSION
#define COREPOOL_LAYOUT_VERSION 4
#endif
#if COREPOOL_LAYOUT_VERSION != 4 && COREPOOL_LAYOUT_VERSION != 0
#error "COREPOOL_LAYOUT_VERSION: this header describes version 4; 0 means none"
#endif

#define COREPOOL_LAYOUT_TLS __attribute__((tls_model("initial-exec"))) /* as the library itself; one load to find */
#define COREPOOL_LAYOUT_READ __attribute__((may_alias)) /* the library knows the same memory by types of its own */

struct COREPOOL_LAYOUT_READ corepool_layout_shelf {
    uint32_t head, tail;              /* of the ring: [tail, head) are idle; free running */
    struct corepool_layout_slot *top; /* if its stamp says that it is shelved, the newest of all; never NULL; one store of 16
                                       * bytes with head and tail */
    uint32_t cpu;
    uint32_t flags;                   /* not 0: something stops the usual case; one comparison of 8 bytes with the CPU */
    struct corepool_layout_slot **ring;
    uint32_t mask;
};

/* Of a corepool_worker_t. */
struct COREPOOL_LAYOUT_READ corepool_layout_slot {
    uint64_t stamp;  /* generation << 8 | who holds it; 0: a client; COREPOOL_LAYOUT_SHELVED: the shelf */
    uint32_t doomed; /* nonzero: to be looked at before use; then it is not a shelf's top while a client holds it */
    uint32_t unused[3];
    char *holder;    /* the area of the thread that took it last */
    void *resource;
    struct corepool_layout_shelf *shelf; /* of its slice */
};

/* What a pool handle points to. */
struct COREPOOL_LAYOUT_READ corepool_layout_pool {
    uint64_t other[32]; /* nothing of the usual case */
    uint64_t handle;    /* as in handles while it is open: generation, COREPOOL_SHARD_LOCAL */
    struct corepool_layout_shelf *nowhere;   /* by_cpu[-1]: no CPU's */
    struct corepool_layout_shelf *by_cpu[1]; /* of all CPUs that the machine may ever have */
};

#define COREPOOL_LAYOUT_SHELVED UINT64_C(4)  /* this bit of a stamp: shelved */
#define COREPOOL_LAYOUT_NEXT UINT64_C(0xFC)  /* from shelved to leased, of the next generation */

/* The calling thread's area, which is its struct rseq (linux/rseq.h: cpu_id at 4, rseq_cs at 8) and tells it from all
 * other threads; before its first call one of a thread on no CPU, whose number is -1. `client` is that also on shards, which
 * do not block. */
#if COREPOOL_LAYOUT_VERSION
extern COREPOOL_PUBLIC COREPOOL_LAYOUT_TLS __thread char *corepool_layout_self_4;
extern COREPOOL_PUBLIC COREPOOL_LAYOUT_TLS __thread char *corepool_layout_client_4;
#define COREPOOL_LAYOUT_SELF corepool_layout_self_4
#define COREPOOL_LAYOUT_CLIENT corepool_layout_client_4
#else
#define COREPOOL_LAYOUT_SELF ((char *)0)
#define COREPOOL_LAYOUT_CLIENT ((char *)0)
#endif

/* The version that the library speaks. Thread: any. Never blocks. */
COREPOOL_PUBLIC unsigned corepool_layout_version(void);

/* Generation and shard, as the pool has them in one word. */
static inline uint64_t corepool_layout_handle(corepool_pool_t pool)
{
    uint64_t handle;
    __builtin_memcpy(&handle, &pool.generation, sizeof handle);
    return handle;
}

enum corepool_layout_outcome {
    COREPOOL_LAYOUT_DONE,
    COREPOOL_LAYOUT_UNUSUAL,   /* nothing has happened: the exported function knows what to do */
    COREPOOL_LAYOUT_DEEP,      /* nothing has happened: it is not as simple as to have the top again */
    COREPOOL_LAYOUT_RESTARTED, /* nothing has happened: the kernel got in the way */
};

#if defined(__x86_64__) && defined(__linux__) && COREPOOL_LAYOUT_VERSION
#define COREPOOL_LAYOUT_IS_INLINE 1

/* The library's own builds with delays at every step of a sequence define these. */
#ifndef COREPOOL_LAYOUT_STEP
#define COREPOOL_LAYOUT_STEP(n) ""
#define COREPOOL_LAYOUT_STEP_CLOBBER
#endif

#define COREPOOL_LAYOUT_AT(type, field) [field] "i"(__builtin_offsetof(struct corepool_layout_##type, field))
#define COREPOOL_LAYOUT_OFFSETS                                                                           \
    COREPOOL_LAYOUT_AT(pool, by_cpu), COREPOOL_LAYOUT_AT(shelf, head),                                    \
        COREPOOL_LAYOUT_AT(shelf, tail), COREPOOL_LAYOUT_AT(shelf, top), COREPOOL_LAYOUT_AT(shelf, cpu),  \
        COREPOOL_LAYOUT_AT(shelf, mask), COREPOOL_LAYOUT_AT(slot, doomed), COREPOOL_LAYOUT_AT(slot, holder), \
        [is_shelved] "i"(COREPOOL_LAYOUT_SHELVED), [next] "i"(COREPOOL_LAYOUT_NEXT),                       \
        [items] "i"(__builtin_offsetof(struct corepool_layout_shelf, ring)),                              \
        [open] "i"(__builtin_offsetof(struct corepool_layout_pool, handle))

/* Descriptor 3 of the sequence from 1 to 2 with abort label 4, in the code's own section group; then arm it. */
#define COREPOOL_LAYOUT_ARM                              \
    ".pushsection __rseq_cs, \"aw?\"\n\t"                \
    ".balign 32\n\t"                                     \
    "3:\n\t"                                             \
    ".long 0, 0\n\t"                                     \
    ".quad 1f, 2f - 1f, 4f\n\t"                          \
    ".popsection\n\t"                                    \
    "leaq 3b(%%rip), %[at]\n\t"                          \
    "movq %[at], 8(%[rseq])\n\t"                         \
    "1:\n\t" COREPOOL_LAYOUT_STEP(0)

/* Behind the commit; label `restarted` is where the kernel goes on. 0x53053053 is RSEQ_SIG, as the operand of an undefined
 * instruction. */
#define COREPOOL_LAYOUT_END                              \
    "2:\n\t"                                             \
    ".pushsection .text.corepool_restarted, \"ax?\"\n\t" \
    ".byte 0x0f, 0xb9, 0x3d\n\t"                         \
    ".long 0x53053053\n\t"                               \
    "4:\n\t"                                             \
    "jmp %l[restarted]\n\t"                              \
    ".popsection\n\t"

/* --- take: what is on top --- */

/* The open pool's shelf of this CPU, where nothing stops the usual case. What `nowhere` points to serves no CPU. It leaves 0 in
 * `at`: a comparison of memory with a register is one operation with the branch behind it. */
#define COREPOOL_LAYOUT_FIND                             \
    "cmpq %[handle], %c[open](%[pool])\n\t"              \
    "jne %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(1)        \
    "movslq 4(%[rseq]), %[at]\n\t"                       \
    "movq %c[by_cpu](%[pool],%[at],8), %[shelf]\n\t"     \
    COREPOOL_LAYOUT_STEP(2)                              \
    "cmpq %c[cpu](%[shelf]), %[at]\n\t"                  \
    "jne %l[unusual]\n\t"                                \
    "xorl %k[at], %k[at]\n\t"

/* What is on top of `shelf`, if it is idle and the caller had it last: its next generation, leased, is the commit. */
#define COREPOOL_LAYOUT_TAKE                             \
    "movq %c[top](%[shelf]), %[slot]\n\t"                \
    COREPOOL_LAYOUT_STEP(3)                              \
    "cmpl %k[at], %c[doomed](%[slot])\n\t"               \
    "jne %l[unusual]\n\t"                                \
    "movq (%[slot]), %[at]\n\t"                          \
    "testb %[is_shelved], %b[at]\n\t"                    \
    "jz %l[other]\n\t" COREPOOL_LAYOUT_STEP(4)           \
    "cmpq %[rseq], %c[holder](%[slot])\n\t"              \
    "jne %l[other]\n\t"                                  \
    "addq %[next], %[at]\n\t" COREPOOL_LAYOUT_STEP(5)    \
    "movq %[at], (%[slot])\n\t"

/* What is on top of the shelf of the caller's CPU, in *found, leased to the caller with *stamp, if it is idle and the caller had it
 * last; else nothing has changed. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
corepool_layout_take(const struct corepool_layout_pool *pool, uint64_t handle, char *rseq,
                     struct corepool_layout_slot **found, uint64_t *stamp)
{
    struct corepool_layout_slot *slot;
    struct corepool_layout_shelf *shelf;
    uint64_t at;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM COREPOOL_LAYOUT_FIND COREPOOL_LAYOUT_TAKE COREPOOL_LAYOUT_END
                          : [slot] "=&r"(slot), [shelf] "=&r"(shelf), [at] "=&r"(at)
                          : [rseq] "r"(rseq), [pool] "r"(pool), [handle] "r"(handle), COREPOOL_LAYOUT_OFFSETS
                          : "memory", "cc" COREPOOL_LAYOUT_STEP_CLOBBER
                          : unusual, other, restarted);
    *found = slot;
    *stamp = at;
    return COREPOOL_LAYOUT_DONE;
other:
    return COREPOOL_LAYOUT_DEEP;
unusual:
    return COREPOOL_LAYOUT_UNUSUAL;
restarted:
    return COREPOOL_LAYOUT_RESTARTED;
}

/* --- give: what is on top already --- */

/* The shelf is this CPU's, nothing stops the usual case there, and the lease is one. */
#define COREPOOL_LAYOUT_ADMIT                            \
    "movl 4(%[rseq]), %k[at]\n\t"                        \
    COREPOOL_LAYOUT_STEP(1)                              \
    "cmpq %c[cpu](%[shelf]), %[at]\n\t"                  \
    "jne %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(2)        \
    "cmpq %[leased], (%[slot])\n\t"                      \
    "jne %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(3)

/* A leased worker is back, or nothing has changed. It is not doomed: else it would not be the top. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
corepool_layout_give(struct corepool_layout_shelf *shelf, struct corepool_layout_slot *slot, uint64_t leased,
                     uint64_t shelved, char *rseq)
{
    uint64_t at;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM COREPOOL_LAYOUT_ADMIT
                          "cmpq %[slot], %c[top](%[shelf])\n\t"
                          "jne %l[other]\n\t" COREPOOL_LAYOUT_STEP(4) COREPOOL_LAYOUT_STEP(5)
                          "movq %[shelved], (%[slot])\n\t" COREPOOL_LAYOUT_END
                          : [at] "=&r"(at)
                          : [rseq] "r"(rseq), [shelf] "r"(shelf), [slot] "r"(slot), [leased] "r"(leased),
                            [shelved] "r"(shelved), COREPOOL_LAYOUT_OFFSETS
                          : "memory", "cc" COREPOOL_LAYOUT_STEP_CLOBBER
                          : unusual, other, restarted);
    return COREPOOL_LAYOUT_DONE;
other:
    return COREPOOL_LAYOUT_DEEP;
unusual:
    return COREPOOL_LAYOUT_UNUSUAL;
restarted:
    return COREPOOL_LAYOUT_RESTARTED;
}

#else /* no sequences for this machine, or none wanted */
#define COREPOOL_LAYOUT_IS_INLINE 0

static inline enum corepool_layout_outcome corepool_layout_take(const struct corepool_layout_pool *pool, uint64_t handle,
                                                                char *rseq, struct corepool_layout_slot **found,
                                                                uint64_t *stamp)
{
    (void)pool, (void)handle, (void)rseq, (void)found, (void)stamp;
    return COREPOOL_LAYOUT_UNUSUAL;
}

static inline enum corepool_layout_outcome corepool_layout_give(struct corepool_layout_shelf *shelf,
                                                                struct corepool_layout_slot *slot, uint64_t leased,
                                                                uint64_t shelved, char *rseq)
{
    (void)shelf, (void)slot, (void)leased, (void)shelved, (void)rseq;
    return COREPOOL_LAYOUT_UNUSUAL;
}

#endif

static inline __attribute__((always_inline)) void corepool_layout_fill(corepool_lease_t *lease,
                                                                       struct corepool_layout_slot *slot, uint64_t stamp)
{
    lease->resource = __atomic_load_n(&slot->resource, __ATOMIC_RELAXED);
    lease->worker = (corepool_worker_t *)(void *)slot;
    lease->generation = stamp;
}

/* The usual checkout: *lease filled on DONE, else untouched. rseq: the calling thread's area; pool.impl not NULL. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
corepool_layout_checkout(corepool_pool_t pool, char *rseq, corepool_lease_t *lease)
{
    struct corepool_layout_slot *slot;
    uint64_t stamp;
    enum corepool_layout_outcome outcome =
        corepool_layout_take((const struct corepool_layout_pool *)(const void *)pool.impl, corepool_layout_handle(pool), rseq,
                             &slot, &stamp);
    if (__builtin_expect(outcome != COREPOOL_LAYOUT_DONE, 0))
        return outcome;
    corepool_layout_fill(lease, slot, stamp);
    return COREPOOL_LAYOUT_DONE;
}

/* The usual checkin: *lease zeroed on DONE, else untouched. rseq: the calling thread's area; lease not NULL. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
corepool_layout_checkin(char *rseq, corepool_lease_t *lease)
{
    struct corepool_layout_slot *slot = (struct corepool_layout_slot *)(void *)lease->worker;
    uint64_t leased = lease->generation;
    if (__builtin_expect(!slot, 0))
        return COREPOOL_LAYOUT_UNUSUAL;
    enum corepool_layout_outcome outcome = corepool_layout_give(slot->shelf, slot, leased, leased | COREPOOL_LAYOUT_SHELVED, rseq);
    if (__builtin_expect(outcome != COREPOOL_LAYOUT_DONE, 0))
        return outcome;
    lease->resource = NULL;
    lease->worker = NULL;
    lease->generation = 0;
    return COREPOOL_LAYOUT_DONE;
}

#ifdef __cplusplus
}
#endif
#endif
