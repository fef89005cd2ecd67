/* bench/command/command.c: `corepool bench`: measures a matrix of configurations, round by round.
 *
 * Whatever could make the output fail is tried before anything is measured. */
#include "command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "measure.h"
#include "options.h"
#include "peers.h"
#include "report.h"

struct outputs {
    FILE *table, *json, *csv; /* the last two NULL: not wanted */
};

static FILE *open_output(const char *option, const char *name)
{
    if (name == NULL)
        return NULL;
    FILE *file = strcmp(name, "-") == 0 ? stdout : fopen(name, "w");
    REQUIRE(file != NULL, "--%s: %s: %s", option, name, strerror(errno));
    return file;
}

static void open_outputs(struct outputs *outputs, const struct options *options)
{
    outputs->json = open_output("json", options->json);
    outputs->csv = open_output("csv", options->csv);
    outputs->table = outputs->json == stdout || outputs->csv == stdout ? stderr : stdout;
    if (options->plot != NULL)
        plot_prepare(options->plot);
}

/* Standard output is looked at by the program's end. */
static void close_output(const char *option, FILE *file)
{
    if (file != NULL && file != stdout)
        REQUIRE(fclose(file) == 0, "--%s: %s", option, strerror(errno));
}

/* Those that were built join the contenders; the others are named. */
static void add_peers(FILE *out, struct options *options, struct contender made[LIST_MAX])
{
    const struct peer_entry *entry = peers_load();
    for (unsigned i = 0; entry->name != NULL; entry++, i++) {
        if (entry->peer == NULL) {
            fprintf(out, "without %s: %s\n", entry->name, entry->missing);
            continue;
        }
        REQUIRE(options->contender_count < LIST_MAX, "--policy: with the peers more than %u contenders",
                LIST_MAX);
        made[i] = (struct contender){.name = entry->peer->name, .peer = entry->peer};
        options->contenders[options->contender_count++] = &made[i];
    }
}

/* The ratio of each run to the first contender's under the same load and in the same round. That is never a peer and so never
 * missing; 0 where it had no pair. */
static void relate(const struct matrix *matrix, unsigned contenders, unsigned round)
{
    for (unsigned i = 0; i < matrix->count; i++) {
        struct cell *cell = &matrix->cells[i];
        const struct cell *first = &matrix->cells[i - i % contenders];
        if (cell->done > round)
            cell->runs[round].ratio =
                first->runs[round].per_s > 0 ? cell->runs[round].per_s / first->runs[round].per_s : 0;
    }
}

static void show_progress(const struct options *options, unsigned round, const struct cell *cell)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\033[2K\rround %u of %u: %.60s", round + 1, options->rounds, cell->title);
}

/* False: a signal ended it; runs that were whole count. */
static bool run_round(const struct options *options, struct matrix *matrix, unsigned round)
{
    for (unsigned i = 0; i < matrix->count; i++) {
        if (matrix->cells[i].missing[0] != '\0')
            continue;
        show_progress(options, round, &matrix->cells[i]);
        if (!measure_cell(options, &matrix->cells[i]))
            return false;
    }
    return true;
}

/* False: as run_round. */
static bool run_rounds(const struct options *options, struct matrix *matrix)
{
    bool on = true;
    for (unsigned round = 0; on && round < options->rounds; round++) {
        on = run_round(options, matrix, round);
        relate(matrix, options->contender_count, round);
    }
    if (isatty(STDERR_FILENO))
        fputs("\033[2K\r", stderr);
    return on;
}

int bench_command(int argc, char **argv)
{
    static struct contender peers[LIST_MAX];
    struct options options;
    struct outputs outputs;
    struct matrix matrix;
    options_parse(&options, argc, argv);
    measure_init();
    open_outputs(&outputs, &options);
    if (options.with_peers)
        add_peers(outputs.table, &options, peers);
    matrix_init(&matrix, &options);
    report_head(outputs.table, &options, &matrix);
    hold_calibrate();
    bool whole = run_rounds(&options, &matrix);
    if (!whole)
        fputs("ended early by a signal\n", outputs.table);
    report_table(outputs.table, &options, &matrix);
    if (outputs.json != NULL)
        report_json(outputs.json, &options, &matrix, whole);
    if (outputs.csv != NULL)
        report_csv(outputs.csv, &options, &matrix);
    close_output("json", outputs.json);
    close_output("csv", outputs.csv);
    if (options.plot != NULL)
        plot_draw(&options, &matrix);
    matrix_finish(&matrix);
    options_finish(&options);
    return 0;
}
