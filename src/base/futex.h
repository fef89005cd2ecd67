/* base/futex.h: Linux futex on a C11 atomic word: wait with an absolute CLOCK_MONOTONIC deadline, wake. Thread: any. */
#ifndef CP_BASE_FUTEX_H
#define CP_BASE_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

/* Sleeps while *word == expected, until woken, a signal, or `deadline_ns` (CP_NEVER: none). Returns false when the
 * deadline has passed. Wakes up spuriously: the caller looks at the word again. */
static inline bool cp_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    struct timespec ts = {.tv_sec = deadline_ns / CP_NS_PER_S, .tv_nsec = deadline_ns % CP_NS_PER_S};
    /* WAIT_BITSET is the form that takes an absolute time, so a signal cannot lengthen the wait. */
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                          deadline_ns == CP_NEVER ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
    return !(result == -1 && errno == ETIMEDOUT);
}

static inline void cp_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#endif
