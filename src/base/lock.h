/* base/lock.h: a small lock for critical sections of a handful of instructions: one atomic exchange to take, a plain
 * store to free.
 *
 * For the portable shelf, and for cold paths. Who finds it held spins for a moment, then sleeps, so a preempted
 * holder costs a switch and not a time slice. Freeing looks for sleepers without a fence, which would cost as much
 * as the exchange: a sleeper that announces itself while the freeing store is still in the other CPU's buffer
 * may miss its wake-up, so it never sleeps longer than CP_LOCK_NAP_NS. Not recursive. Thread: any. */
#ifndef CP_BASE_LOCK_H
#define CP_BASE_LOCK_H

#include "base/assert.h"
#include "base/futex.h"

/* Far longer than a store stays in a buffer, far shorter than a time slice. */
#define CP_LOCK_NAP_NS (CP_NS_PER_MS / 2)
/* About as long as a holder that runs needs. */
#define CP_LOCK_SPINS 100

struct cp_lock {
    _Atomic uint32_t held;     /* zero: free */
    _Atomic uint32_t sleepers; /* nonzero: there may be some */
};

/* Acquire pairs with the release in cp_lock_free. */
static inline bool cp_lock_try(struct cp_lock *lock)
{
    return atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) == 0;
}

/* Out of line: the lock was held. */
void cp_lock_wait(struct cp_lock *lock);
void cp_lock_wake(struct cp_lock *lock);

static inline void cp_lock_take(struct cp_lock *lock)
{
    if (cp_unlikely(!cp_lock_try(lock)))
        cp_lock_wait(lock);
}

/* Frees it; true when cp_lock_wake is to follow. */
static inline bool cp_lock_drop(struct cp_lock *lock)
{
    atomic_store_explicit(&lock->held, 0, memory_order_release);
    return cp_unlikely(atomic_load_explicit(&lock->sleepers, memory_order_relaxed));
}

static inline void cp_lock_free(struct cp_lock *lock)
{
    if (cp_lock_drop(lock))
        cp_lock_wake(lock);
}

#endif
