/* base/latch.h: waits until a count has come down to zero: for control threads that wait for shards. */
#ifndef CP_BASE_LATCH_H
#define CP_BASE_LATCH_H

#include "base/futex.h"

struct cp_latch {
    _Atomic uint32_t left;
};

static inline void cp_latch_init(struct cp_latch *latch, uint32_t count)
{
    atomic_store(&latch->left, count);
}

/* One less. After the last one the latch may be gone: only its address is used then, and a wake-up on memory with a
 * new use is spurious there. */
static inline void cp_latch_down(struct cp_latch *latch)
{
    _Atomic uint32_t *word = &latch->left;
    if (atomic_fetch_sub(word, 1) == 1)
        cp_futex_wake(word, INT32_MAX);
}

/* False when the deadline (monotonic ns, CP_NEVER for none) came first. */
static inline bool cp_latch_wait(struct cp_latch *latch, int64_t deadline_ns)
{
    for (;;) {
        uint32_t left = atomic_load(&latch->left);
        if (left == 0)
            return true;
        if (!cp_futex_wait(&latch->left, left, deadline_ns) && atomic_load(&latch->left))
            return false;
    }
}

#endif
