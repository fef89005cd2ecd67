/* base/lock.c: what a taker does when the lock is held, and waking it. */
#include "base/lock.h"

static bool spin(struct cp_lock *lock)
{
    for (unsigned i = 0; i < CP_LOCK_SPINS; i++) {
        if (!atomic_load_explicit(&lock->held, memory_order_relaxed) && cp_lock_try(lock))
            return true;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    return false;
}

void cp_lock_wait(struct cp_lock *lock)
{
    if (spin(lock))
        return;
    atomic_fetch_add(&lock->sleepers, 1);
    while (!cp_lock_try(lock))
        cp_futex_wait(&lock->held, 1, cp_now_ns() + CP_LOCK_NAP_NS);
    atomic_fetch_sub(&lock->sleepers, 1);
}

void cp_lock_wake(struct cp_lock *lock)
{
    cp_futex_wake(&lock->held, 1);
}
