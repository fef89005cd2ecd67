/* bench/bench.h: what the benchmarks share: arguments, CPUs, clocks, medians. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Ends the program with the words: a benchmark that cannot measure must not print a figure. */
#define BENCH_REQUIRE(condition, ...)                       \
    do {                                                    \
        if (!(condition)) {                                 \
            fprintf(stderr, "bench: " __VA_ARGS__);         \
            fputc('\n', stderr);                            \
            exit(1);                                        \
        }                                                   \
    } while (0)

static inline int64_t bench_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* CPU time of the calling thread: others on the machine do not count. */
static inline int64_t bench_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* Argument `n` of the program, `otherwise` where it is not given. What is no whole number from least to most ends the program
 * with `usage`. */
static inline uint64_t bench_argument(int argc, char **argv, int n, uint64_t otherwise, uint64_t least, uint64_t most,
                                      const char *usage)
{
    char *end;
    if (n >= argc)
        return otherwise;
    errno = 0;
    uint64_t value = strtoull(argv[n], &end, 10);
    BENCH_REQUIRE(argv[n][0] >= '0' && argv[n][0] <= '9' && !*end && !errno && value >= least && value <= most,
                  "\"%s\" is not a number from %llu to %llu; usage: %s", argv[n], (unsigned long long)least,
                  (unsigned long long)most, usage);
    return value;
}

/* The CPUs that this process may use as it was started, whatever its threads have been pinned to since. */
static cpu_set_t bench_cpus;

__attribute__((constructor)) static void bench_note_cpus(void)
{
    BENCH_REQUIRE(sched_getaffinity(0, sizeof bench_cpus, &bench_cpus) == 0, "sched_getaffinity failed");
}

static inline unsigned bench_usable_cpus(void)
{
    return (unsigned)CPU_COUNT(&bench_cpus);
}

/* The n-th of them, wrapping round. */
static inline int bench_usable_cpu(unsigned n)
{
    unsigned left = n % bench_usable_cpus();
    for (int cpu = 0;; cpu++)
        if (CPU_ISSET(cpu, &bench_cpus) && left-- == 0)
            return cpu;
}

/* The calling thread. */
static inline void bench_pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    BENCH_REQUIRE(sched_setaffinity(0, sizeof set, &set) == 0, "cannot pin to CPU %d", cpu);
}

static inline int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts `values`. */
static inline double bench_median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, bench_compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

#endif
