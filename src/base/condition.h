/* base/condition.h: waiting for a change that is made under a mutex: for control threads. Thread: any. */
#ifndef CP_BASE_CONDITION_H
#define CP_BASE_CONDITION_H

#include <pthread.h>
#include <stdbool.h>

#include "base/clock.h"

/* Lets go of the lock until `changed` was signalled. False: the deadline (CP_NEVER for none; else `changed` goes by the monotonic
 * clock) came first. No cancellation point: a thread that ended in here would keep the lock, and all that it has counted under it. */
static inline bool cp_condition_wait(pthread_cond_t *changed, pthread_mutex_t *lock, int64_t deadline_ns)
{
    struct timespec until = {.tv_sec = deadline_ns / CP_NS_PER_S, .tv_nsec = deadline_ns % CP_NS_PER_S};
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    int error = deadline_ns == CP_NEVER ? pthread_cond_wait(changed, lock) : pthread_cond_timedwait(changed, lock, &until);
    pthread_setcancelstate(before, NULL);
    return error == 0;
}

#endif
