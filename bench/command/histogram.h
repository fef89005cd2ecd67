/* bench/command/histogram.h: durations in ns, 64 classes to each power of two: at most 1.6 % wide. One thread
 * at a time. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 6u
#define HISTOGRAM_CLASSES ((64u - HISTOGRAM_BITS + 1u) << HISTOGRAM_BITS)

/* total == the sum of all counts. Zero is empty. */
struct histogram {
    uint64_t total;
    uint64_t most_ns;
    uint64_t count[HISTOGRAM_CLASSES];
};

/* A negative duration counts as 0. */
void histogram_add(struct histogram *histogram, int64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* `part` (0 … 1) of all durations took at most so long: the highest of its class, never above the longest. 0
 * when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double part);

/* The highest value of a class. */
uint64_t histogram_limit(unsigned class_number);

#endif
