/* bench/waiting.h: the pools that the benchmark of waiting compares: few resources of every CPU for many threads. */
#ifndef BENCH_WAITING_H
#define BENCH_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#define WAITING_CPUS_MAX 64
#define WAITING_RESOURCES_MAX 4096

/* One cache line. Written by who holds it. */
struct resource {
    unsigned holders;  /* never more than one */
    unsigned home;     /* number of the CPU that it belongs to, where the pool has such */
    uint64_t uses;
    struct resource *next;
} __attribute__((aligned(64)));

/* Those of this run: `per_cpu` of each of `cpus`, each made free for the pool to hand out, once. */
extern struct resource resources[WAITING_RESOURCES_MAX];

/* How long a turn may last, for corepool with barging. */
extern unsigned waiting_barging_us;

struct contender {
    const char *name;
    void (*open)(unsigned cpus, unsigned per_cpu);
    struct resource *(*take)(void); /* waits for as long as it takes */
    void (*give)(struct resource *resource);
    /* Checks that all resources are back and, where it counts, that it has handed out as many as `uses`. */
    void (*close)(uint64_t uses);
};

extern const struct contender waiting_corepool, waiting_barging, waiting_handoff, waiting_condvar;
#ifdef BENCH_APR
extern const struct contender waiting_apr;
#endif

#endif
