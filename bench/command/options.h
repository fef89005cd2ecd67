/* bench/command/options.h: the command line. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "matrix.h"

/* Fills *options with what is asked for, the defaults and the machine's CPUs; peers are not among the
 * contenders yet. Bad input ends the program with exit code 2, naming the option. options_finish frees. */
void options_parse(struct options *options, int argc, char **argv);
void options_finish(struct options *options);

#endif
