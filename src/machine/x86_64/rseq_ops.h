/* machine/x86_64/rseq_ops.h: the shelf's restartable sequences for x86-64 Linux. Included by machine/shelf.h only.
 *
 * Each sequence: store the address of its descriptor in the thread's rseq area, which glibc has registered;
 * test the flags; compare the area's cpu_id with the shelf's CPU; work on registers, and on memory that no one
 * reads before the commit or that says the same as before to who goes by the rules of shelf.h; then one store, the
 * commit, as the last instruction. If the kernel interrupts the thread in between it continues at the abort label
 * instead. No call and no system call inside.
 *
 * Facts used: struct rseq has cpu_id at 4 and rseq_cs at 8 (linux/rseq.h); abort targets are preceded by the
 * signature that glibc registered (RSEQ_SIG in sys/rseq.h). */
#include <stddef.h>
#include <sys/rseq.h>

/* Copy of glibc's __rseq_offset, so that the fast path needs no GOT. Set by a constructor in probe.c. */
extern ptrdiff_t cp_rseq_offset __attribute__((visibility("hidden")));


/* The CPU that the calling thread runs on, by the area's always valid field. */
static inline uint32_t cp_rseq_cpu(void)
{
    uint32_t cpu;
    __asm__ volatile("movl %%fs:0(%[area]), %[cpu]" : [cpu] "=r"(cpu) : [area] "r"(cp_rseq_offset));
    return cpu;
}

/* The same, or a number that no CPU has when this thread is not registered. */
static inline uint32_t cp_rseq_cpu_registered(void)
{
    uint32_t cpu;
    __asm__ volatile("movl %%fs:4(%[area]), %[cpu]" : [cpu] "=r"(cpu) : [area] "r"(cp_rseq_offset));
    return cpu;
}

/* Where the calling thread's struct rseq is, registered or not. */
static inline char *cp_rseq_area(void)
{
    char *thread;
    __asm__("movq %%fs:0, %[thread]" : [thread] "=r"(thread)); /* the thread pointer itself is there */
    return thread + cp_rseq_offset;
}

/* Before the thread sleeps: the kernel copies the descriptor of a sequence that is armed at every switch, though the thread has long
 * left it. */
static inline void cp_rseq_disarm(void)
{
    __asm__ volatile("movq $0, %%fs:8(%[area])" ::[area] "r"(cp_rseq_offset) : "memory");
}

/* A storm build (-DCP_STORM) delays at every step, for as many turns as the program has put in the table. */
#ifdef CP_STORM
#define CP_STORM_STEPS 8
extern uint32_t cp_storm[CP_STORM_STEPS];
#define CP_STEP(n)                           \
    "movl cp_storm+4*" #n "(%%rip), %%r10d\n\t" \
    "7" #n ":\n\t"                           \
    "testl %%r10d, %%r10d\n\t"               \
    "jz 8" #n "f\n\t"                        \
    "decl %%r10d\n\t"                        \
    "jmp 7" #n "b\n\t"                       \
    "8" #n ":\n\t"
#define CP_STEP_CLOBBER , "r10"
#else
#define CP_STEP(n) ""
#define CP_STEP_CLOBBER
#endif

/* Descriptor 3 for the sequence from 1 to 2 with abort label 4; then arm it. */
#define CP_RSEQ_BEGIN                                     \
    ".pushsection __rseq_cs, \"aw\"\n\t"                  \
    ".balign 32\n\t"                                      \
    "3:\n\t"                                              \
    ".long 0, 0\n\t"                                      \
    ".quad 1f, 2f - 1f, 4f\n\t"                           \
    ".popsection\n\t"                                     \
    "leaq 3b(%%rip), %%rax\n\t"                           \
    "movq %%rax, %%fs:8(%[area])\n\t"                     \
    "1:\n\t" CP_STEP(0)

/* Behind the commit: the end of the sequence, and its abort target out of line. 0x53053053 is RSEQ_SIG, put as the
 * operand of an undefined instruction so that disassemblers stay in step. */
#define CP_RSEQ_END                                       \
    "2:\n\t"                                              \
    ".pushsection .text.cp_rseq_abort, \"ax\"\n\t"        \
    ".byte 0x0f, 0xb9, 0x3d\n\t"                          \
    ".long 0x53053053\n\t"                                \
    "4:\n\t"                                              \
    "jmp %l[aborted]\n\t"                                 \
    ".popsection\n\t"

/* Flags that stop the operation (an immediate, where the compiler knows them), then the CPU. */
#define CP_RSEQ_CHECK                                     \
    "testl %[stop], %c[flags](%[shelf])\n\t"              \
    "jnz %l[flagged]\n\t" CP_STEP(1)                      \
    "movl %c[cpu](%[shelf]), %%eax\n\t"                   \
    "cmpl %%fs:4(%[area]), %%eax\n\t"                     \
    "jne %l[elsewhere]\n\t" CP_STEP(2)

#define CP_RSEQ_FIELDS                                                                           \
    [area] "r"(cp_rseq_offset), [shelf] "r"(shelf), [stop] "ri"(stop),      \
        [flags] "i"(offsetof(struct cp_shelf, flags)),                                           \
        [cpu] "i"(offsetof(struct cp_shelf, cpu)), [head] "i"(offsetof(struct cp_shelf, head)),  \
        [tail] "i"(offsetof(struct cp_shelf, tail)), [top] "i"(offsetof(struct cp_shelf, top)),  \
        [mask] "i"(offsetof(struct cp_shelf, mask)),                                             \
        [ring] "i"(offsetof(struct cp_shelf, ring)), [stamp] "i"(offsetof(struct cp_item, stamp)), \
        [is_shelved] "i"(CP_TAG_SHELVED)

/* Goes on behind label 5 unless the top is idle; leaves the top in `in`. */
#define CP_RSEQ_TOP_IS_IDLE(in)                           \
    "movq %c[top](%[shelf]), " in "\n\t"                  \
    "testb %[is_shelved], %c[stamp](" in ")\n\t"        \
    "jz 5f\n\t"

static inline enum cp_shelf_outcome cp_rseq_aborted(void)
{
    /* Not one atomic step, so a few of many at once are lost: it is there to tell none from some. */
    uint64_t seen = atomic_load_explicit(&cp_shelf_aborts, memory_order_relaxed);
    atomic_store_explicit(&cp_shelf_aborts, seen + 1, memory_order_relaxed);
    return CP_SHELF_ABORT;
}

/* What a set flag means, looked up again outside the sequence; flags that are gone by now mean: try again. */
static inline enum cp_shelf_outcome cp_rseq_flagged(const struct cp_shelf *shelf, uint32_t stop)
{
    uint32_t flags = atomic_load_explicit(&shelf->flags, memory_order_relaxed) & stop;
    if (flags & CP_SHELF_PORTABLE)
        return CP_SHELF_SWITCH;
    if (flags & CP_SHELF_CLOSED)
        return CP_SHELF_CLOSED_NOW;
    if (flags & CP_SHELF_WAITING)
        return CP_SHELF_SOMEONE_WAITS;
    return flags ? CP_SHELF_LOOK : CP_SHELF_ABORT;
}

/* A take is of the top or of the ring; the one that comes second finds the first still empty, or has to begin again. */
static inline enum cp_shelf_outcome cp_rseq_take_top(struct cp_shelf *shelf, struct cp_item **item,
                                                     uint32_t stop)
{
    struct cp_item *found;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 "movq %c[top](%[shelf]), %[found]\n\t"
                 "testb %[is_shelved], %c[stamp](%[found])\n\t"
                 "jz %l[empty]\n\t" CP_STEP(3)
                 "leaq cp_no_item(%%rip), %%rax\n\t" CP_STEP(4)
                 "movq %%rax, %c[top](%[shelf])\n\t" CP_RSEQ_END
                 : [found] "=&r"(found)
                 : CP_RSEQ_FIELDS
                 : "memory", "cc", "rax", "rcx" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, empty);
    *item = found;
    return CP_SHELF_DONE;
empty:
    return CP_SHELF_EMPTY;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
}

static inline enum cp_shelf_outcome cp_rseq_take_ring(struct cp_shelf *shelf, struct cp_item **item,
                                                      uint32_t stop)
{
    struct cp_item *found;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 CP_RSEQ_TOP_IS_IDLE("%[found]")
                 "jmp %l[changed]\n\t"
                 "5:\n\t"
                 "movl %c[head](%[shelf]), %%eax\n\t"
                 "cmpl %c[tail](%[shelf]), %%eax\n\t"
                 "je %l[empty]\n\t" CP_STEP(3)
                 "decl %%eax\n\t"
                 "movl %%eax, %%ecx\n\t"
                 "andl %c[mask](%[shelf]), %%ecx\n\t"
                 "movq %c[ring](%[shelf]), %[found]\n\t"
                 "movq (%[found],%%rcx,8), %[found]\n\t" CP_STEP(4)
                 "movl %%eax, %c[head](%[shelf])\n\t" CP_RSEQ_END
                 : [found] "=&r"(found)
                 : CP_RSEQ_FIELDS
                 : "memory", "cc", "rax", "rcx" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, empty, changed);
    *item = found;
    return CP_SHELF_DONE;
empty:
    return CP_SHELF_EMPTY;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
changed:
    return CP_SHELF_ABORT;
}

static inline enum cp_shelf_outcome cp_rseq_take_newest(struct cp_shelf *shelf, struct cp_item **item,
                                                        uint32_t stop)
{
    enum cp_shelf_outcome outcome = cp_rseq_take_top(shelf, item, stop);
    return outcome == CP_SHELF_EMPTY ? cp_rseq_take_ring(shelf, item, stop) : outcome;
}

/* Whoever goes round finds each item in the cache: the take so many before has asked for it. */
#define CP_RSEQ_AHEAD 8

static inline enum cp_shelf_outcome cp_rseq_take_tail(struct cp_shelf *shelf, struct cp_item **item,
                                                      uint32_t stop)
{
    struct cp_item *found, *ahead;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 "movl %c[tail](%[shelf]), %%eax\n\t"
                 "cmpl %c[head](%[shelf]), %%eax\n\t"
                 "je %l[empty]\n\t" CP_STEP(3)
                 "movq %c[ring](%[shelf]), %[found]\n\t"
                 "leal %c[further](%%rax), %%ecx\n\t"
                 "andl %c[mask](%[shelf]), %%ecx\n\t"
                 "movq (%[found],%%rcx,8), %[ahead]\n\t"
                 "movl %%eax, %%ecx\n\t"
                 "andl %c[mask](%[shelf]), %%ecx\n\t"
                 "movq (%[found],%%rcx,8), %[found]\n\t"
                 "incl %%eax\n\t" CP_STEP(4)
                 "movl %%eax, %c[tail](%[shelf])\n\t" CP_RSEQ_END
                 "prefetchw (%[ahead])\n\t" /* whatever is there: it is not followed */
                 : [found] "=&r"(found), [ahead] "=&r"(ahead)
                 : CP_RSEQ_FIELDS, [further] "i"(CP_RSEQ_AHEAD)
                 : "memory", "cc", "rax", "rcx" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, empty);
    *item = found;
    return CP_SHELF_DONE;
empty:
    return CP_SHELF_EMPTY;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
}

static inline enum cp_shelf_outcome cp_rseq_take_last(struct cp_shelf *shelf, struct cp_item **item,
                                                      uint32_t stop)
{
    struct cp_item *found;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 "movl %c[tail](%[shelf]), %%eax\n\t"
                 "cmpl %c[head](%[shelf]), %%eax\n\t"
                 "jne %l[changed]\n\t"
                 "movq %c[top](%[shelf]), %[found]\n\t"
                 "testb %[is_shelved], %c[stamp](%[found])\n\t"
                 "jz %l[empty]\n\t" CP_STEP(3)
                 "leaq cp_no_item(%%rip), %%rax\n\t" CP_STEP(4)
                 "movq %%rax, %c[top](%[shelf])\n\t" CP_RSEQ_END
                 : [found] "=&r"(found)
                 : CP_RSEQ_FIELDS
                 : "memory", "cc", "rax", "rcx" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, empty, changed);
    *item = found;
    return CP_SHELF_DONE;
empty:
    return CP_SHELF_EMPTY;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
changed:
    return CP_SHELF_ABORT;
}

static inline enum cp_shelf_outcome cp_rseq_take_oldest(struct cp_shelf *shelf, struct cp_item **item,
                                                        uint32_t stop)
{
    enum cp_shelf_outcome outcome = cp_rseq_take_tail(shelf, item, stop);
    return outcome == CP_SHELF_EMPTY ? cp_rseq_take_last(shelf, item, stop) : outcome;
}

/* The gives. `steps`: all that comes once the item may be given; the last of its instructions is the commit. */
#define CP_RSEQ_DEFINE_GIVE(name, steps)                                                                        \
    static inline enum cp_shelf_outcome name(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,   \
                                             uint64_t shelved, uint32_t stop)                                   \
    {                                                                                                           \
        __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK                                                                \
                     "cmpq %[expected], %c[stamp](%[item])\n\t"                                                 \
                     "jne %l[stale]\n\t" CP_STEP(3)                                                             \
                     "cmpl $0, %c[doomed](%[item])\n\t"                                                         \
                     "jne %l[doomed_now]\n\t"                                                                   \
                     steps CP_RSEQ_END                                                                          \
                     :                                                                                          \
                     : CP_RSEQ_FIELDS, [item] "r"(item), [expected] "r"(expected), [shelved] "r"(shelved),      \
                       [doomed] "i"(offsetof(struct cp_item, doomed))                                           \
                     : "memory", "cc", "rax", "rcx", "rdx", "xmm0", "xmm1" CP_STEP_CLOBBER                      \
                     : aborted, elsewhere, flagged, stale, doomed_now);                                         \
        return CP_SHELF_DONE;                                                                                   \
    stale:                                                                                                      \
        return CP_SHELF_STALE;                                                                                  \
    doomed_now:                                                                                                 \
        return CP_SHELF_DOOMED;                                                                                 \
    elsewhere:                                                                                                  \
        return CP_SHELF_ELSEWHERE;                                                                              \
    flagged:                                                                                                    \
        return cp_rseq_flagged(shelf, stop);                                                                    \
    aborted:                                                                                                    \
        return cp_rseq_aborted();                                                                               \
    }

/* Head, tail and top are 16 bytes: the old top goes into the ring in the same store that sets the new one. The item is no part of
 * the shelf before its stamp says so: until then nothing has happened that anybody could see. */
CP_RSEQ_DEFINE_GIVE(cp_rseq_give,
                    CP_RSEQ_TOP_IS_IDLE("%%rdx")
                    "movl %c[head](%[shelf]), %%eax\n\t"
                    "movl %%eax, %%ecx\n\t"
                    "andl %c[mask](%[shelf]), %%ecx\n\t"
                    "shlq $3, %%rcx\n\t"
                    "addq %c[ring](%[shelf]), %%rcx\n\t"
                    "movq %%rdx, (%%rcx)\n\t"
                    "incl %%eax\n\t"
                    "movl %c[tail](%[shelf]), %%ecx\n\t"
                    "shlq $32, %%rcx\n\t"
                    "orq %%rcx, %%rax\n\t"
                    "movq %%rax, %%xmm0\n\t"
                    "movq %[item], %%xmm1\n\t"
                    "punpcklqdq %%xmm1, %%xmm0\n\t" CP_STEP(4)
                    "movaps %%xmm0, %c[head](%[shelf])\n\t"
                    "5:\n\t"
                    "movq %[item], %c[top](%[shelf])\n\t" CP_STEP(5)
                    "movq %[shelved], %c[stamp](%[item])\n\t")

/* Only what is shelved may be in the ring, so here the stamp goes before the commit: a restart may have left it. */
CP_RSEQ_DEFINE_GIVE(cp_rseq_give_oldest,
                    "cmpq %[item], %c[top](%[shelf])\n\t"
                    "jne 5f\n\t"
                    "leaq cp_no_item(%%rip), %%rax\n\t"
                    "movq %%rax, %c[top](%[shelf])\n\t" /* and it is not the top */
                    "5:\n\t"
                    "movl %c[tail](%[shelf]), %%eax\n\t"
                    "decl %%eax\n\t"
                    "movl %%eax, %%ecx\n\t"
                    "andl %c[mask](%[shelf]), %%ecx\n\t"
                    "movq %c[ring](%[shelf]), %%rdx\n\t"
                    "movq %[item], (%%rdx,%%rcx,8)\n\t" CP_STEP(4)
                    "movq %[shelved], %c[stamp](%[item])\n\t" CP_STEP(5)
                    "movl %%eax, %c[tail](%[shelf])\n\t")

/* A closed shelf has no gives, a portable one its lock. */
static inline enum cp_shelf_outcome cp_rseq_forget_doomed(struct cp_shelf *shelf)
{
    const uint32_t stop = CP_SHELF_PORTABLE;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 "movq %c[top](%[shelf]), %%rax\n\t"
                 "cmpl $0, %c[doomed](%%rax)\n\t"
                 "je %l[none]\n\t"
                 "testb %[is_shelved], %c[stamp](%%rax)\n\t"
                 "jnz %l[none]\n\t" CP_STEP(3)
                 "leaq cp_no_item(%%rip), %%rax\n\t" CP_STEP(4)
                 "movq %%rax, %c[top](%[shelf])\n\t" CP_RSEQ_END
                 :
                 : CP_RSEQ_FIELDS, [doomed] "i"(offsetof(struct cp_item, doomed))
                 : "memory", "cc", "rax" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, none);
none:
    return CP_SHELF_DONE;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
}

static inline enum cp_shelf_outcome cp_rseq_await(struct cp_shelf *shelf)
{
    const uint32_t stop = CP_SHELF_STOP_TAKE;
    __asm__ goto(CP_RSEQ_BEGIN CP_RSEQ_CHECK
                 "movl %c[head](%[shelf]), %%eax\n\t"
                 "cmpl %c[tail](%[shelf]), %%eax\n\t"
                 "jne %l[nonempty]\n\t"
                 CP_RSEQ_TOP_IS_IDLE("%%rax")
                 "jmp %l[nonempty]\n\t"
                 "5:\n\t" CP_STEP(3)
                 "movl %c[flags](%[shelf]), %%eax\n\t"
                 "orl $1, %%eax\n\t" CP_STEP(4)
                 "movl %%eax, %c[flags](%[shelf])\n\t" CP_RSEQ_END
                 :
                 : CP_RSEQ_FIELDS
                 : "memory", "cc", "rax" CP_STEP_CLOBBER
                 : aborted, elsewhere, flagged, nonempty);
    return CP_SHELF_DONE;
nonempty:
    return CP_SHELF_NONEMPTY;
elsewhere:
    return CP_SHELF_ELSEWHERE;
flagged:
    return cp_rseq_flagged(shelf, stop);
aborted:
    return cp_rseq_aborted();
}
