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
    /* Who has slept leaves the mark when it takes the lock, so that its own freeing wakes the next, if there is one. */
    for (;;) {
        atomic_store(&lock->sleepers, 1);
        if (cp_lock_try(lock))
            return;
        cp_futex_wait(&lock->held, 1, cp_now_ns() + CP_LOCK_NAP_NS);
    }
}

/* Once per sleeper, however long that takes to get a CPU. */
void cp_lock_wake(struct cp_lock *lock)
{
    if (atomic_exchange(&lock->sleepers, 0))
        cp_futex_wake(&lock->held, 1);
}
