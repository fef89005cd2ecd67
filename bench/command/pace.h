/* bench/command/pace.h: the schedule of an open loop: when each of a caller's arrivals is meant to be, whatever
 * became of those before it. Pure: takes the time as an argument. Times in ns. */
#ifndef BENCH_PACE_H
#define BENCH_PACE_H

#include <stdint.h>

struct pace {
    int64_t first_ns;   /* the first arrival */
    double interval_ns; /* the mean between two */
    unsigned burst;     /* so many arrive at the same moment, so many intervals after those before; 1: evenly */
};

/* When arrival number `n`, from 0, is meant to be. */
int64_t pace_time(const struct pace *pace, uint64_t n);

/* How many arrivals are meant to be before `now`. */
uint64_t pace_due(const struct pace *pace, int64_t now_ns);

#endif
