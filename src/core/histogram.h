/* core/histogram.h: durations in microseconds, four buckets per power of two (at most 25 % wide). One writer, or many; readers
 * may look at any time. */
#ifndef CP_CORE_HISTOGRAM_H
#define CP_CORE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* Up to 2^34 µs, about five hours; longer waits count in the last bucket. */
#define CP_HISTOGRAM_BUCKETS 132

struct cp_histogram {
    _Atomic uint64_t count[CP_HISTOGRAM_BUCKETS];
    _Atomic uint64_t highest;
};

/* The bucket of a value, and the highest value of a bucket. */
unsigned cp_histogram_bucket(uint64_t value);
uint64_t cp_histogram_limit(unsigned bucket);

/* Thread: the one writer. */
void cp_histogram_add(struct cp_histogram *histogram, uint64_t value);

/* The same for a histogram of many writers, who all use this one. Thread: any. */
void cp_histogram_add_shared(struct cp_histogram *histogram, uint64_t value);

/* Adds `from`, NULL: nothing, to a plain array of counts; returns the highest value seen. */
uint64_t cp_histogram_sum(const struct cp_histogram *from, uint64_t counts[CP_HISTOGRAM_BUCKETS]);

/* The value that `part` (0 … 1) of all do not exceed; `zeros` further values of 0 count too. */
uint64_t cp_histogram_quantile(const uint64_t counts[CP_HISTOGRAM_BUCKETS], uint64_t zeros, double part);

#endif
