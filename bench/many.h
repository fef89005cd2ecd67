/* bench/many.h: the parts of the benchmark of many pools. */
#ifndef BENCH_MANY_H
#define BENCH_MANY_H

#include <corepool.h>

#define MANY_ROUNDS_MAX 101

/* A class whose workers are nothing. */
extern const corepool_class_t many_class;

void many_require(int status, const char *what);

/* Pairs over ever more pools, up to `pools`, and over ever more workers, up to ten times as many. */
void many_print_pairs(unsigned pools, unsigned rounds);

#endif
