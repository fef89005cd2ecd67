/* bench/command/csv.c: for spreadsheets: a line for each run. No field needs quotes; what there is not for a peer is empty. */
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
    const struct run *run = &cell->runs[round];
    fprintf(out, "%s,%s,%u,%u,%.10g,%s,%s,%u,%.6f,%llu,%.1f,%.6f", cell->contender->name,
            cell->shelf != NULL ? cell->shelf : "", cell->threads, cell->size, cell->hold.us,
            cell->hold.sleeps ? "sleep" : "work", skew_name(cell->skew), round + 1, run->seconds,
            (unsigned long long)run->pairs, run->per_s, run->ratio);
    print_optional(out, run->useful);
    fprintf(out, ",%.6g", run->cpu_us);
    print_optional(out, run->balance);
    print_optional(out, run->shards > 0 ? (double)run->stolen : -1);
    fprintf(out, ",%llu,%llu\n", (unsigned long long)run->arrivals, (unsigned long long)run->behind);
}

void report_csv(FILE *out, const struct options *options, const struct matrix *matrix)
{
    (void)options;
    fputs("contender,shelf,threads,size,hold_us,hold_kind,skew,round,seconds,pairs,pairs_per_s,ratio,useful,cpu_us_per_pair,"
          "balance,stolen,arrivals,behind\n",
          out);
    for (unsigned i = 0; i < matrix->count; i++)
        for (unsigned round = 0; round < matrix->cells[i].done; round++)
            print_run(out, &matrix->cells[i], round);
}
