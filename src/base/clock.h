/* base/clock.h: the monotonic clock, absolute deadlines inside the library. Thread: any. */
#ifndef CP_BASE_CLOCK_H
#define CP_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* "No deadline", as an absolute time. */
#define CP_NEVER INT64_MAX

#define CP_NS_PER_MS INT64_C(1000000)
#define CP_NS_PER_S INT64_C(1000000000)

/* Nanoseconds of CLOCK_MONOTONIC. Cannot fail for that clock. */
static inline int64_t cp_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * CP_NS_PER_S + ts.tv_nsec;
}

/* The same as of the kernel's last tick, some milliseconds old at most, for a fifth of the price. */
static inline int64_t cp_coarse_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * CP_NS_PER_S + ts.tv_nsec;
}

/* `timeout_ms` from `now` as an absolute time; a negative timeout means never; saturates. */
static inline int64_t cp_deadline_ns(int64_t now_ns, int64_t timeout_ms)
{
    if (timeout_ms < 0 || timeout_ms > (CP_NEVER - now_ns) / CP_NS_PER_MS)
        return CP_NEVER;
    return now_ns + timeout_ms * CP_NS_PER_MS;
}

/* What poll(2) and libuv want: milliseconds left, rounded up; 0 when over; -1 for never. */
static inline int cp_left_ms(int64_t deadline_ns, int64_t now_ns)
{
    if (deadline_ns == CP_NEVER)
        return -1;
    if (deadline_ns <= now_ns)
        return 0;
    int64_t left = (deadline_ns - now_ns + CP_NS_PER_MS - 1) / CP_NS_PER_MS;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

#endif
