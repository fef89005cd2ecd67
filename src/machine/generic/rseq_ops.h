/* machine/generic/rseq_ops.h: for architectures without our restartable sequences: every shelf is portable.
 * Included by machine/shelf.h only. */
#include <sched.h>

static inline uint32_t cp_rseq_cpu(void)
{
    int cpu = sched_getcpu();
    return cpu < 0 ? 0 : (uint32_t)cpu;
}

static inline uint32_t cp_rseq_cpu_registered(void)
{
    return UINT32_MAX;
}

static inline char *cp_rseq_area(void)
{
    return NULL;
}

static inline void cp_rseq_disarm(void)
{
}

static inline enum cp_shelf_outcome cp_rseq_aborted(void)
{
    return CP_SHELF_ABORT;
}

static inline enum cp_shelf_outcome cp_rseq_take_newest(struct cp_shelf *shelf, struct cp_item **item,
                                                        uint32_t stop)
{
    (void)shelf, (void)item, (void)stop;
    return CP_SHELF_SWITCH;
}

static inline enum cp_shelf_outcome cp_rseq_take_oldest(struct cp_shelf *shelf, struct cp_item **item,
                                                        uint32_t stop)
{
    return cp_rseq_take_newest(shelf, item, stop);
}

static inline enum cp_shelf_outcome cp_rseq_give(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                                 uint64_t shelved, uint32_t stop)
{
    (void)shelf, (void)item, (void)expected, (void)shelved, (void)stop;
    return CP_SHELF_SWITCH;
}

static inline enum cp_shelf_outcome cp_rseq_give_oldest(struct cp_shelf *shelf, struct cp_item *item,
                                                        uint64_t expected, uint64_t shelved, uint32_t stop)
{
    return cp_rseq_give(shelf, item, expected, shelved, stop);
}

static inline enum cp_shelf_outcome cp_rseq_forget_doomed(struct cp_shelf *shelf)
{
    (void)shelf;
    return CP_SHELF_SWITCH;
}

static inline enum cp_shelf_outcome cp_rseq_await(struct cp_shelf *shelf)
{
    (void)shelf;
    return CP_SHELF_SWITCH;
}
