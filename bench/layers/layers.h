/* bench/layers/layers.h: what the layers' benchmarks share: cases that are run in rounds, timed, and watched.
 *
 * Each benchmark here times one piece of src/ by itself, with the machine around it played by the benchmark: so it
 * reaches inside, up to the core. A case checks its own counts; the watch makes sure that what is timed neither
 * allocates nor, where it is quiet, calls the system. */
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "bench.h"

#define LAYER_ROUNDS_MAX 101

struct layer_case {
    const char *name;
    /* Runs `operations` of them, or a few less; returns the ns of one. `arg` is the case's. */
    double (*run)(uint64_t operations, uint64_t arg);
    uint64_t arg;
    uint64_t dearer; /* gets so much fewer operations; 0 is 1 */
    double steps;    /* of the state machine in one operation, as the case has checked; 0: none */
    const char *without; /* set: not run here, and why */
    double ns[LAYER_ROUNDS_MAX];
};

/* From here to layer_end the calling thread is timed, and ends the program if it allocates memory or, with `quiet`,
 * makes a system call. */
int64_t layer_begin(bool quiet);
/* The ns since. */
int64_t layer_end(int64_t begin);

/* Runs `threads` threads on `body(number, arg)`, where each calls layer_begin and layer_end once after layer_meet; thread
 * i is pinned to the CPU numbered i / per_cpu. Returns the ns from the first begin to the last end. */
int64_t layer_threads(unsigned threads, unsigned per_cpu, void (*body)(unsigned number, void *arg), void *arg);
/* Waits until all threads of layer_threads are here. */
void layer_meet(void);

/* The benchmark: every round runs each case once. Arguments: [ROUNDS [OPERATIONS]]. Prints a line per case. */
int layer_main(int argc, char **argv, const char *title, struct layer_case *cases, unsigned count,
               uint64_t operations);

#endif
