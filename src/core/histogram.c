/* core/histogram.c: log-linear buckets: values below 4 have one each, then four per power of two. */
#include "core/histogram.h"

unsigned cp_histogram_bucket(uint64_t value)
{
    if (value < 4)
        return (unsigned)value;
    unsigned power = 63 - (unsigned)__builtin_clzll(value);
    unsigned bucket = (power - 1) * 4 + (unsigned)(value >> (power - 2) & 3);
    return bucket < CP_HISTOGRAM_BUCKETS ? bucket : CP_HISTOGRAM_BUCKETS - 1;
}

uint64_t cp_histogram_limit(unsigned bucket)
{
    if (bucket < 4)
        return bucket;
    unsigned power = bucket / 4 + 1;
    return ((UINT64_C(4) + bucket % 4 + 1) << (power - 2)) - 1;
}

/* One writer: load and store suffice, no order is needed. */
static void bump(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

void cp_histogram_add(struct cp_histogram *histogram, uint64_t value)
{
    bump(&histogram->count[cp_histogram_bucket(value)]);
    if (value > atomic_load_explicit(&histogram->highest, memory_order_relaxed))
        atomic_store_explicit(&histogram->highest, value, memory_order_relaxed);
}

void cp_histogram_add_shared(struct cp_histogram *histogram, uint64_t value)
{
    uint64_t highest = atomic_load_explicit(&histogram->highest, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->count[cp_histogram_bucket(value)], 1, memory_order_relaxed);
    while (value > highest && !atomic_compare_exchange_weak_explicit(&histogram->highest, &highest, value,
                                                                     memory_order_relaxed, memory_order_relaxed))
        ;
}

uint64_t cp_histogram_sum(const struct cp_histogram *from, uint64_t counts[CP_HISTOGRAM_BUCKETS])
{
    for (unsigned i = 0; from && i < CP_HISTOGRAM_BUCKETS; i++)
        counts[i] += atomic_load_explicit(&from->count[i], memory_order_relaxed);
    return from ? atomic_load_explicit(&from->highest, memory_order_relaxed) : 0;
}

uint64_t cp_histogram_quantile(const uint64_t counts[CP_HISTOGRAM_BUCKETS], uint64_t zeros, double part)
{
    uint64_t total = zeros;
    for (unsigned i = 0; i < CP_HISTOGRAM_BUCKETS; i++)
        total += counts[i];
    uint64_t wanted = (uint64_t)((double)total * part);
    uint64_t seen = zeros;
    for (unsigned i = 0; i < CP_HISTOGRAM_BUCKETS; i++) {
        seen += counts[i];
        if (seen > wanted || (seen == total && seen >= wanted))
            return cp_histogram_limit(i);
    }
    return 0;
}
