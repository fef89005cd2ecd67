/* bench/command/table.c: for people. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "report.h"

const struct report_part report_parts[REPORT_PARTS] = {
    {"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};

const char *report_shelf(const struct options *options)
{
    corepool_shelf_kind_t shelf = options->shelf;
    if (options->synthetic != NULL)
        return "portable";
    if (shelf == COREPOOL_SHELF_AUTO)
        shelf = corepool_shelf_probe(NULL);
    return shelf == COREPOOL_SHELF_RSEQ ? "rseq" : "portable";
}

const char *report_callers(const struct options *options)
{
    if (options->on_loops)
        return "code on the shards' loops";
    return options->pinned ? "pinned threads" : "free threads";
}

void report_head(FILE *out, const struct options *options, const struct matrix *matrix)
{
    fprintf(out, "machine  %u CPU%s, %s shelf\n", options->cpu_count, options->cpu_count > 1 ? "s" : "",
            report_shelf(options));
    if (options->synthetic != NULL)
        fprintf(out,
                "shards   of \"%s\", which is not this machine: they are unpinned and on the portable shelf\n",
                options->synthetic);
    fprintf(out, "callers  %s, ", report_callers(options));
    if (options->rate > 0)
        fprintf(out, "open loop: %.10g arrivals/s, waits counted from the intended arrival\n", options->rate);
    else
        fputs("closed loop\n", out);
    fprintf(out, "runs     %u round%s of %u configuration%s, %.10g s each\n", options->rounds,
            options->rounds > 1 ? "s" : "", matrix->count, matrix->count > 1 ? "s" : "", options->seconds);
    fflush(out);
}

static void print_us(FILE *out, double ns)
{
    double us = ns / 1e3;
    fprintf(out, " %9.*f", us < 10 ? 2 : us < 1000 ? 1 : 0, us);
}

static void print_optional(FILE *out, int width, int decimals, double value)
{
    if (value < 0)
        fprintf(out, " %*s", width, "-");
    else
        fprintf(out, " %*.*f", width, decimals, value);
}

/* Of fewer waits the last is no percentile but the one that it happens to be. */
static bool can_tell(const struct histogram *waits, double part)
{
    return (double)waits->total * (1 - part) >= 1 - 1e-9;
}

static void print_waits(FILE *out, const struct histogram *waits)
{
    for (unsigned i = 0; i < REPORT_PARTS; i++)
        if (can_tell(waits, report_parts[i].part))
            print_us(out, (double)histogram_quantile(waits, report_parts[i].part));
        else
            fprintf(out, " %9s", "-");
    print_us(out, (double)waits->most_ns);
}

static void print_names(FILE *out, const struct cell *cell)
{
    char hold[HOLD_TEXT];
    const struct peer *peer = cell->contender->peer;
    fprintf(out, "%-15s%c %-8s %5u %7u %9s %-8s", cell->contender->name, peer != NULL && peer->floor ? '*' : ' ',
            cell->shelf != NULL ? cell->shelf : "-", cell->threads, cell->size, hold_text(hold, &cell->hold), skew_name(cell->skew));
}

static void print_cell(FILE *out, const struct cell *cell)
{
    struct spread per_s = cell_spread(cell, run_per_s);
    double useful = cell_spread(cell, run_useful).median;
    print_names(out, cell);
    fprintf(out, " %12.0f %12.0f %12.0f %7.3f", per_s.median, per_s.least, per_s.most,
            cell_spread(cell, run_ratio).median);
    print_waits(out, &cell->waits);
    print_optional(out, 8, 1, useful < 0 ? useful : useful * 100);
    print_optional(out, 8, 3, cell_spread(cell, run_stolen).median);
    print_optional(out, 8, 2, cell_spread(cell, run_balance).median);
    fputc('\n', out);
}

/* How many arrivals were left, over all rounds. */
static void print_behind(FILE *out, const struct cell *cell)
{
    uint64_t behind = 0, arrivals = 0;
    for (unsigned i = 0; i < cell->done; i++) {
        behind += cell->runs[i].behind;
        arrivals += cell->runs[i].arrivals;
    }
    if (behind > 0)
        fprintf(out, "note: %s: %llu of %llu arrivals had not begun when time was up\n", cell->title,
                (unsigned long long)behind, (unsigned long long)arrivals);
}

static void print_missing(FILE *out, const struct matrix *matrix)
{
    for (unsigned i = 0; i < matrix->count; i++)
        if (matrix->cells[i].missing[0] != '\0')
            fprintf(out, "without %s: %s\n", matrix->cells[i].title, matrix->cells[i].missing);
}

static bool has_floor(const struct matrix *matrix)
{
    for (unsigned i = 0; i < matrix->count; i++)
        if (matrix->cells[i].contender->peer != NULL && matrix->cells[i].contender->peer->floor)
            return true;
    return false;
}

void report_table(FILE *out, const struct options *options, const struct matrix *matrix)
{
    (void)options;
    fprintf(out, "\n%-16s %-8s %5s %7s %9s %-8s %12s %12s %12s %7s %9s %9s %9s %9s %9s %8s %8s %8s\n", "", "shelf", "thr",
            "size", "hold us", "skew", "pairs/s", "least", "most", "ratio", "p50 us", "p99", "p99.9", "p99.99",
            "max", "useful%", "stolen", "balance");
    for (unsigned i = 0; i < matrix->count; i++)
        if (matrix->cells[i].done > 0)
            print_cell(out, &matrix->cells[i]);
    if (has_floor(matrix))
        fputs("(*) has more resources than the size, some for each thread: nobody waits; a floor\n", out);
    for (unsigned i = 0; i < matrix->count; i++)
        print_behind(out, &matrix->cells[i]);
    print_missing(out, matrix);
    fflush(out);
}
