/* bench/command/hold.h: what a caller does with a resource: a fixed amount of work on the CPU, or sleep. */
#ifndef BENCH_HOLD_H
#define BENCH_HOLD_H

#include <stdbool.h>
#include <stdint.h>

struct hold {
    double us;
    bool sleeps;
};

/* Counts once how much work this machine does in a microsecond when nothing disturbs it. The work of a hold is
 * fixed by that: a caller that is preempted has not worked. Blocks some 20 ms. Thread: one, before
 * hold_perform. */
void hold_calibrate(void);

/* Thread: any. */
void hold_perform(const struct hold *hold);

/* CLOCK_MONOTONIC. */
int64_t clock_ns(void);

/* Of that clock. */
void sleep_until(int64_t ns);

#endif
