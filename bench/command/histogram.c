/* bench/command/histogram.c: below 2^BITS a class is a value; above, the power of two and the BITS bits that
 * follow the first. */
#include "histogram.h"

#include <math.h>

static unsigned class_of(uint64_t ns)
{
    if (ns < (1u << HISTOGRAM_BITS))
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_BITS;
    return ((shift + 1u) << HISTOGRAM_BITS) + (unsigned)((ns >> shift) - (1u << HISTOGRAM_BITS));
}

uint64_t histogram_limit(unsigned number)
{
    if (number < (1u << HISTOGRAM_BITS))
        return number;
    unsigned shift = (number >> HISTOGRAM_BITS) - 1u;
    uint64_t top = (number & ((1u << HISTOGRAM_BITS) - 1u)) + (1u << HISTOGRAM_BITS);
    return (top << shift) + ((UINT64_C(1) << shift) - 1u);
}

void histogram_add(struct histogram *histogram, int64_t ns)
{
    uint64_t value = ns < 0 ? 0 : (uint64_t)ns;
    histogram->count[class_of(value)]++;
    histogram->total++;
    if (value > histogram->most_ns)
        histogram->most_ns = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_CLASSES; i++)
        into->count[i] += from->count[i];
    into->total += from->total;
    if (from->most_ns > into->most_ns)
        into->most_ns = from->most_ns;
}

uint64_t histogram_quantile(const struct histogram *histogram, double part)
{
    uint64_t sum = 0, wanted = (uint64_t)ceil((double)histogram->total * part);
    for (unsigned i = 0; i < HISTOGRAM_CLASSES && histogram->total > 0; i++) {
        sum += histogram->count[i];
        if (sum > 0 && sum >= wanted)
            return histogram_limit(i) < histogram->most_ns ? histogram_limit(i) : histogram->most_ns;
    }
    return histogram->most_ns;
}
