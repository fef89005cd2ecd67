/* bench/command/report.h: what is shown of a matrix: a table, JSON, CSV, plots. Only cells with at least one
 * round are. One thread. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "matrix.h"

/* The machine and the load, ahead of all runs. */
void report_head(FILE *out, const struct options *options, const struct matrix *matrix);

void report_table(FILE *out, const struct options *options, const struct matrix *matrix);
/* whole: every run was made. */
void report_json(FILE *out, const struct options *options, const struct matrix *matrix, bool whole);
void report_csv(FILE *out, const struct options *options, const struct matrix *matrix);

/* Makes the directory, and sees that gnuplot is there: ends the program when it is not. */
void plot_prepare(const char *directory);

/* Draws into it; ends the program when gnuplot fails. Blocks for a second or two. */
void plot_draw(const struct options *options, const struct matrix *matrix);

/* The kind of shelf in words, and of callers. */
const char *report_shelf(const struct options *options);
const char *report_callers(const struct options *options);

/* The percentiles of waits that are shown. */
#define REPORT_PARTS 4
extern const struct report_part {
    const char *name;
    double part;
} report_parts[REPORT_PARTS];

#endif
