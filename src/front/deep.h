/* front/deep.h: the usual checkout and checkin where it takes more than the top's stamp: sequences over corepool/layout.h's
 * structures, as the steps there. They return as those do. Thread: any.
 *
 * A deep take leaves it to the caller to stamp the worker and to tell the thread's record of it. */
#ifndef CP_FRONT_DEEP_H
#define CP_FRONT_DEEP_H

#include "front/usual.h"

#if COREPOOL_LAYOUT_IS_INLINE

/* --- take: as the usual step, of a slice that is known --- */

/* The shelf is this CPU's and the open pool's, and nothing stops the usual case there. It leaves 0 in `at`. */
#define CP_TAKE_KNOWN                                    \
    "cmpl %k[handle], %c[open](%[pool])\n\t"             \
    "jne %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(1)        \
    "movl 4(%[rseq]), %k[at]\n\t"                        \
    COREPOOL_LAYOUT_STEP(2)                              \
    "cmpq %c[cpu](%[shelf]), %[at]\n\t"                  \
    "jne %l[unusual]\n\t"                                \
    "xorl %k[at], %k[at]\n\t"

/* As corepool_layout_take. handle: the pool's generation is its lower half. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
cp_take_known(const struct corepool_layout_pool *pool, uint64_t handle, const struct corepool_layout_shelf *shelf, char *rseq,
              struct corepool_layout_slot **found, uint64_t *stamp)
{
    struct corepool_layout_slot *slot;
    uint64_t at;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM CP_TAKE_KNOWN COREPOOL_LAYOUT_TAKE COREPOOL_LAYOUT_END
                          : [slot] "=&r"(slot), [at] "=&r"(at)
                          : [rseq] "r"(rseq), [pool] "r"(pool), [handle] "r"(handle), [shelf] "r"(shelf),
                            COREPOOL_LAYOUT_OFFSETS
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

/* --- take: the top, whoever had it before, or the ring's newest ------------------------------------------------------- */

/* Who takes many in a row finds each in the cache: the take so many before has asked for it. */
#define CP_TAKE_AHEAD 8

static inline __attribute__((always_inline)) enum corepool_layout_outcome
take_ring(const struct corepool_layout_pool *pool, uint64_t handle, char *rseq, struct corepool_layout_slot **found)
{
    struct corepool_layout_slot *slot;
    struct corepool_layout_shelf *shelf;
    uint64_t at, ahead;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM COREPOOL_LAYOUT_FIND
                          "movq %c[top](%[shelf]), %[slot]\n\t"
                          "testb %[is_shelved], (%[slot])\n\t"
                          "jnz %l[unusual]\n\t"
                          "movl %c[head](%[shelf]), %k[at]\n\t"
                          "cmpl %c[tail](%[shelf]), %k[at]\n\t"
                          "je %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(3)
                          "decl %k[at]\n\t"
                          "movl %c[mask](%[shelf]), %k[slot]\n\t"
                          "andl %k[at], %k[slot]\n\t"
                          "movq %c[items](%[shelf]), %[rseq]\n\t" /* done with the area: its register is free */
                          "movq (%[rseq],%[slot],8), %[slot]\n\t"
                          "leal -%c[further](%[at]), %k[ahead]\n\t"
                          "andl %c[mask](%[shelf]), %k[ahead]\n\t"
                          "movq (%[rseq],%[ahead],8), %[ahead]\n\t"
                          "cmpl $0, %c[doomed](%[slot])\n\t"
                          "jne %l[unusual]\n\t" COREPOOL_LAYOUT_STEP(4)
                          "movl %k[at], %c[head](%[shelf])\n\t"
                          COREPOOL_LAYOUT_END
                          "prefetchw (%[ahead])\n\t" /* whatever is there: it is not followed */
                          : [slot] "=&r"(slot), [shelf] "=&r"(shelf), [at] "=&r"(at), [rseq] "+&r"(rseq),
                            [ahead] "=&r"(ahead)
                          : [pool] "r"(pool), [handle] "r"(handle), [further] "i"(CP_TAKE_AHEAD),
                            COREPOOL_LAYOUT_OFFSETS
                          : "memory", "cc" COREPOOL_LAYOUT_STEP_CLOBBER
                          : unusual, restarted);
    *found = slot;
    return COREPOOL_LAYOUT_DONE;
unusual:
    return COREPOOL_LAYOUT_UNUSUAL;
restarted:
    return COREPOOL_LAYOUT_RESTARTED;
}

static inline __attribute__((always_inline)) enum corepool_layout_outcome
take_top(const struct corepool_layout_pool *pool, uint64_t handle, char *rseq, struct corepool_layout_slot **found)
{
    struct corepool_layout_slot *slot;
    struct corepool_layout_shelf *shelf;
    uint64_t at;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM COREPOOL_LAYOUT_FIND
                          "movq %c[top](%[shelf]), %[slot]\n\t" COREPOOL_LAYOUT_STEP(3)
                          "testb %[is_shelved], (%[slot])\n\t"
                          "jz %l[in_ring]\n\t"
                          "cmpl %k[at], %c[doomed](%[slot])\n\t"
                          "jne %l[unusual]\n\t"
                          "leaq cp_no_item(%%rip), %[at]\n\t" COREPOOL_LAYOUT_STEP(4)
                          "movq %[at], %c[top](%[shelf])\n\t" COREPOOL_LAYOUT_END
                          : [slot] "=&r"(slot), [shelf] "=&r"(shelf), [at] "=&r"(at)
                          : [rseq] "r"(rseq), [pool] "r"(pool), [handle] "r"(handle), COREPOOL_LAYOUT_OFFSETS
                          : "memory", "cc" COREPOOL_LAYOUT_STEP_CLOBBER
                          : unusual, in_ring, restarted);
    *found = slot;
    return COREPOOL_LAYOUT_DONE;
in_ring:
    return COREPOOL_LAYOUT_DEEP;
unusual:
    return COREPOOL_LAYOUT_UNUSUAL;
restarted:
    return COREPOOL_LAYOUT_RESTARTED;
}

/* The newest idle worker of the caller's CPU in *found, with the stamp of who gave it, and no more on the shelf; or nothing has
 * changed. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
cp_take_deep(const struct corepool_layout_pool *pool, uint64_t handle, char *rseq, struct corepool_layout_slot **found)
{
    enum corepool_layout_outcome outcome = take_top(pool, handle, rseq, found);
    return outcome == COREPOOL_LAYOUT_DEEP ? take_ring(pool, handle, rseq, found) : outcome;
}

/* --- give: it goes on top unless it is doomed, and what was idle there into the ring -------------------------------- */

/* Until the commit says that the slot is shelved it is no part of the shelf, though it is on top: what is done before may be
 * seen by all. */
static inline __attribute__((always_inline)) enum corepool_layout_outcome
cp_give_deep(struct corepool_layout_shelf *shelf, struct corepool_layout_slot *slot, uint64_t leased, uint64_t shelved,
             char *rseq)
{
    uint64_t at, before, ring;
    __asm__ volatile goto(COREPOOL_LAYOUT_ARM COREPOOL_LAYOUT_ADMIT
                          "cmpl $0, %c[doomed](%[slot])\n\t"
                          "jne %l[unusual]\n\t"
                          "movq %c[top](%[shelf]), %[at]\n\t"
                          "testb %[is_shelved], (%[at])\n\t"
                          "jz 5f\n\t"
                          "movl %c[head](%[shelf]), %k[before]\n\t"
                          "movl %c[mask](%[shelf]), %k[rseq]\n\t" /* done with the area: its register is free */
                          "andl %k[before], %k[rseq]\n\t"
                          "movq %c[items](%[shelf]), %[ring]\n\t"
                          "movq %[at], (%[ring],%[rseq],8)\n\t"
                          "incl %k[before]\n\t"
                          "movl %c[tail](%[shelf]), %k[rseq]\n\t"
                          "shlq $32, %[rseq]\n\t"
                          "orq %[rseq], %[before]\n\t"
                          "movq %[before], %%xmm0\n\t"
                          "movq %[slot], %%xmm1\n\t"
                          "punpcklqdq %%xmm1, %%xmm0\n\t" COREPOOL_LAYOUT_STEP(4)
                          "movaps %%xmm0, %c[head](%[shelf])\n\t"
                          "5:\n\t"
                          "movq %[slot], %c[top](%[shelf])\n\t" COREPOOL_LAYOUT_STEP(5)
                          "movq %[shelved], (%[slot])\n\t" COREPOOL_LAYOUT_END
                          : [at] "=&r"(at), [before] "=&r"(before), [ring] "=&r"(ring), [rseq] "+&r"(rseq)
                          : [shelf] "r"(shelf), [slot] "r"(slot), [leased] "r"(leased), [shelved] "r"(shelved),
                            COREPOOL_LAYOUT_OFFSETS
                          : "memory", "cc", "xmm0", "xmm1" COREPOOL_LAYOUT_STEP_CLOBBER
                          : unusual, restarted);
    return COREPOOL_LAYOUT_DONE;
unusual:
    return COREPOOL_LAYOUT_UNUSUAL;
restarted:
    return COREPOOL_LAYOUT_RESTARTED;
}

#else

static inline enum corepool_layout_outcome cp_take_known(const struct corepool_layout_pool *pool, uint64_t handle,
                                                         const struct corepool_layout_shelf *shelf, char *rseq,
                                                         struct corepool_layout_slot **found, uint64_t *stamp)
{
    (void)pool, (void)handle, (void)shelf, (void)rseq, (void)found, (void)stamp;
    return COREPOOL_LAYOUT_UNUSUAL;
}

static inline enum corepool_layout_outcome cp_take_deep(const struct corepool_layout_pool *pool, uint64_t handle, char *rseq,
                                                        struct corepool_layout_slot **found)
{
    (void)pool, (void)handle, (void)rseq, (void)found;
    return COREPOOL_LAYOUT_UNUSUAL;
}

static inline enum corepool_layout_outcome cp_give_deep(struct corepool_layout_shelf *shelf, struct corepool_layout_slot *slot,
                                                        uint64_t leased, uint64_t shelved, char *rseq)
{
    (void)shelf, (void)slot, (void)leased, (void)shelved, (void)rseq;
    return COREPOOL_LAYOUT_UNUSUAL;
}

#endif
#endif
