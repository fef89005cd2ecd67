/* tools/load.h: client threads that work a pool, and what they measured. Thread: one at a time, none of its
 * own. */
#ifndef TOOLS_LOAD_H
#define TOOLS_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <corepool.h>

typedef struct load load_t;

typedef struct load_plan {
    corepool_pool_t pool;
    const char *path; /* to fetch; NULL: only check out and check in */
    const int *cpus;  /* where clients run */
    unsigned cpu_count;
    unsigned clients; /* per CPU */
} load_plan_t;

typedef struct load_result {
    double seconds;
    uint64_t done; /* requests answered, or pairs */
    uint64_t failed;
    uint64_t p50_ns, p99_ns; /* of requests, in the client, waiting included; upper edges of 6 % wide classes */
    int odd_status;          /* the last HTTP status that was not 200; 0: none */
    char failure[256];       /* words of the first failure */
} load_result_t;

/* Starts the threads, each pinned to its CPU where the kernel allows it. All or nothing. Returns 0 or an errno
 * value. */
int load_start(const load_plan_t *plan, load_t **load);

/* Sums so far, while they run. */
void load_count(const load_t *load, uint64_t *done, uint64_t *failed);

/* Ends them, each after the request it is in, and frees the load. Blocks for that long. */
void load_stop(load_t *load, load_result_t *result);

#endif
