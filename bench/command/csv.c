/* bench/command/csv.c: for spreadsheets: a line for each run. No field needs quotes. */
#include <math.h>

#include "report.h"

/* Empty where there is nothing to say. */
static void print_optional(FILE *out, double value)
{
    if (value >= 0 && !isinf(value))
        fprintf(out, ",%.6g", value);
    else
        fputc(',', out);
}

static void print_run(FILE *out, const struct cell *cell, unsigned round)
{
    char hold[HOLD_TEXT];
    const struct run *run = &cell->runs[round];
    fprintf(out, "%s,%u,%u,%s,%s,%u,%.6f,%llu,%.1f,%.6f", cell->contender->name, cell->threads, cell->size,
            hold_text(hold, &cell->hold), skew_name(cell->skew), round + 1, run->seconds,
            (unsigned long long)run->pairs, run->per_s, run->ratio);
    print_optional(out, run->useful);
    fprintf(out, ",%.6g", run->cpu_us);
    print_optional(out, run->balance);
    fprintf(out, ",%llu,%llu,%llu\n", (unsigned long long)run->stolen, (unsigned long long)run->arrivals,
            (unsigned long long)run->behind);
}

void report_csv(FILE *out, const struct options *options, const struct matrix *matrix)
{
    (void)options;
    fputs("contender,threads,size,hold_us,skew,round,seconds,pairs,pairs_per_s,ratio,useful,cpu_us_per_pair,"
          "balance,stolen,arrivals,behind\n",
          out);
    for (unsigned i = 0; i < matrix->count; i++)
        for (unsigned round = 0; round < matrix->cells[i].done; round++)
            print_run(out, &matrix->cells[i], round);
}
