/* bench/command/measure.h: runs. Thread: the command's. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "matrix.h"

/* SIGINT and SIGTERM end it early from here on; to be called before any thread is started. */
void measure_init(void);

/* Runs the cell once and adds the run to it. A peer that cannot be had is noted in the cell, and never run
 * again. False: a signal ended it; that run does not count. Blocks for options->seconds and a little. */
bool measure_cell(const struct options *options, struct cell *cell);

#endif
