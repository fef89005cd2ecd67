/* base/lock.h: a small sleeping lock: one word, one exchange to take, one to free when no one waits.
 *
 * For the portable shelf, whose critical sections are a handful of instructions, and for cold paths. A holder that
 * is preempted lets the others sleep instead of spin. Not recursive. Thread: any.
 * The three states (free, held, held with sleepers) are the usual ones of a futex mutex. */
#ifndef CP_BASE_LOCK_H
#define CP_BASE_LOCK_H

#include "base/assert.h"
#include "base/futex.h"

struct cp_lock {
    _Atomic uint32_t word; /* zero: free */
};

enum { CP_LOCK_FREE, CP_LOCK_HELD, CP_LOCK_SLEEPERS };

static inline void cp_lock_take(struct cp_lock *lock)
{
    uint32_t seen = CP_LOCK_FREE;
    /* Acquire pairs with the release in cp_lock_free. */
    if (cp_likely(atomic_compare_exchange_strong_explicit(&lock->word, &seen, CP_LOCK_HELD, memory_order_acquire,
                                                          memory_order_relaxed)))
        return;
    while (atomic_exchange_explicit(&lock->word, CP_LOCK_SLEEPERS, memory_order_acquire) != CP_LOCK_FREE)
        cp_futex_wait(&lock->word, CP_LOCK_SLEEPERS, CP_NEVER);
}

static inline void cp_lock_free(struct cp_lock *lock)
{
    if (cp_unlikely(atomic_exchange_explicit(&lock->word, CP_LOCK_FREE, memory_order_release) == CP_LOCK_SLEEPERS))
        cp_futex_wake(&lock->word, 1);
}

#endif
