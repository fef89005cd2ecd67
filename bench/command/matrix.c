/* bench/command/matrix.c: combinations, and sums over rounds. */
#include "matrix.h"

#include <stdio.h>
#include <stdlib.h>

#include "fail.h"

const char *skew_name(enum skew skew)
{
    static const char *const names[SKEWS] = {"uniform", "one-cpu", "hot", "bursts"};
    return names[skew];
}

const char *hold_text(char text[HOLD_TEXT], const struct hold *hold)
{
    (void)snprintf(text, HOLD_TEXT, "%.10g%s", hold->us, hold->sleeps ? "sleep" : "");
    return text;
}

static void fill_cell(struct cell *cell, const struct options *options, unsigned number)
{
    char hold[HOLD_TEXT];
    cell->contender = options->contenders[number % options->contender_count];
    number /= options->contender_count;
    cell->threads = options->threads[number % options->thread_count];
    number /= options->thread_count;
    cell->size = options->sizes[number % options->size_count];
    number /= options->size_count;
    cell->hold = options->holds[number % options->hold_count];
    cell->skew = options->skews[number / options->hold_count];
    (void)snprintf(cell->title, sizeof cell->title, "%s, %u caller%s, size %u, hold %s us, %s",
                   cell->contender->name, cell->threads, cell->threads > 1 ? "s" : "", cell->size,
                   hold_text(hold, &cell->hold), skew_name(cell->skew));
    cell->runs = calloc(options->rounds, sizeof *cell->runs);
    REQUIRE(cell->runs != NULL, "out of memory");
}

void matrix_init(struct matrix *matrix, const struct options *options)
{
    matrix->count = options->contender_count * options->thread_count * options->size_count *
                    options->hold_count * options->skew_count;
    matrix->cells = calloc(matrix->count, sizeof *matrix->cells);
    REQUIRE(matrix->cells != NULL, "out of memory for %u configurations", matrix->count);
    for (unsigned i = 0; i < matrix->count; i++)
        fill_cell(&matrix->cells[i], options, i);
}

static void finish_run(struct run *run)
{
    for (unsigned i = 0; i < run->moments; i++)
        free(run->history[i].checkouts);
    free(run->history);
    free(run->has_slice);
}

void matrix_finish(struct matrix *matrix)
{
    for (unsigned i = 0; i < matrix->count; i++) {
        for (unsigned round = 0; round < matrix->cells[i].done; round++)
            finish_run(&matrix->cells[i].runs[round]);
        free(matrix->cells[i].runs);
    }
    free(matrix->cells);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread cell_spread(const struct cell *cell, double (*field)(const struct run *))
{
    unsigned count = cell->done;
    double *values = calloc(count, sizeof *values);
    REQUIRE(values != NULL, "out of memory");
    for (unsigned i = 0; i < count; i++)
        values[i] = field(&cell->runs[i]);
    qsort(values, count, sizeof *values, compare);
    struct spread spread = {.median = (values[(count - 1) / 2] + values[count / 2]) / 2,
                            .least = values[0],
                            .most = values[count - 1]};
    free(values);
    return spread;
}

double run_per_s(const struct run *run)
{
    return run->per_s;
}

double run_ratio(const struct run *run)
{
    return run->ratio;
}

double run_useful(const struct run *run)
{
    return run->useful;
}

double run_cpu_us(const struct run *run)
{
    return run->cpu_us;
}

double run_stolen(const struct run *run)
{
    if (run->shards == 0)
        return -1;
    return run->checkouts > 0 ? (double)run->stolen * 1000 / (double)run->checkouts : 0;
}

double run_balance(const struct run *run)
{
    return run->balance;
}
