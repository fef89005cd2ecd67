/* bench/command/plot.c: writes one gnuplot script that holds its data, bench.gp, and has gnuplot run it where
 * it lies: whoever wants other plots has what these are made of. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "report.h"

extern char **environ;

#define SCRIPT "bench.gp"
/* Lines that can be told apart; beyond, colours say how much. */
#define LINES_MAX 16u
/* In pixels. */
#define PLOT_HEIGHT 500u
#define KEY_HEIGHT 20u

/* ---- gnuplot ---- */

/* In the directory; returns its exit status, or -1 when it could not be started, with errno set. */
static int run_gnuplot(const char *directory, char *argument)
{
    char *argv[] = {(char[]){"gnuplot"}, argument, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status, err;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    err = posix_spawnp(&child, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (err != 0) {
        errno = err;
        return -1;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static FILE *open_script(const char *directory)
{
    char path[4096];
    REQUIRE((size_t)snprintf(path, sizeof path, "%s/" SCRIPT, directory) < sizeof path,
            "--plot: the name is too long");
    FILE *script = fopen(path, "w");
    REQUIRE(script != NULL, "--plot: %s: %s", path, strerror(errno));
    return script;
}

void plot_prepare(const char *directory)
{
    REQUIRE(mkdir(directory, 0777) == 0 || errno == EEXIST, "--plot: %s: %s", directory, strerror(errno));
    fclose(open_script(directory));
    int status = run_gnuplot(directory, (char[]){"--version"});
    REQUIRE(status >= 0, "--plot: gnuplot cannot be run: %s (Debian: gnuplot-nox)", strerror(errno));
    REQUIRE(status == 0, "--plot: gnuplot --version ended with status %d", status);
}

/* ---- script ---- */

/* One plot, as SVG and as PNG, with room below for a key of so many lines. What follows draws it. */
static void begin_plot(FILE *script, const char *name, unsigned lines)
{
    unsigned height = PLOT_HEIGHT + lines * KEY_HEIGHT;
    fprintf(script,
            "\ndo for [kind in \"svg png\"] {\n"
            "  if (kind eq \"svg\") { set terminal svg noenhanced size 1000,%u background \"white\" }"
            " else { set terminal pngcairo noenhanced size 1000,%u }\n"
            "  set output \"%s.\".kind\n",
            height, height, name);
}

static void end_plot(FILE *script)
{
    fputs("\n  unset output\n}\nreset\n", script);
}

/* All but the callers: cells with the same are one line. */
static void label_line(char label[160], const struct cell *cell)
{
    char hold[HOLD_TEXT];
    (void)snprintf(label, 160, "%s, size %u, hold %s us, %s", cell->contender->name, cell->size,
                   hold_text(hold, &cell->hold), skew_name(cell->skew));
}

/* The cells of the line that cell `first` begins; false: it begins none. */
static bool begins_line(const struct matrix *matrix, unsigned first)
{
    char label[160], other[160];
    if (matrix->cells[first].done == 0)
        return false;
    label_line(label, &matrix->cells[first]);
    for (unsigned i = 0; i < first; i++) {
        label_line(other, &matrix->cells[i]);
        if (matrix->cells[i].done > 0 && strcmp(label, other) == 0)
            return false;
    }
    return true;
}

static void write_line(FILE *script, const struct matrix *matrix, unsigned first)
{
    char label[160], other[160];
    label_line(label, &matrix->cells[first]);
    fprintf(script, "$throughput%u << EOD\n", first);
    for (unsigned i = first; i < matrix->count; i++) {
        const struct cell *cell = &matrix->cells[i];
        label_line(other, cell);
        if (cell->done == 0 || strcmp(label, other) != 0)
            continue;
        struct spread spread = cell_spread(cell, run_per_s);
        fprintf(script, "%u %.1f %.1f %.1f\n", cell->threads, spread.median, spread.least, spread.most);
    }
    fputs("EOD\n", script);
}

static unsigned most_callers(const struct matrix *matrix)
{
    unsigned most = 0;
    for (unsigned i = 0; i < matrix->count; i++)
        most = matrix->cells[i].threads > most ? matrix->cells[i].threads : most;
    return most;
}

static void plot_throughput(FILE *script, const struct matrix *matrix)
{
    char label[160];
    const char *separator = "  plot";
    for (unsigned i = 0; i < matrix->count; i++)
        if (begins_line(matrix, i))
            write_line(script, matrix, i);
    begin_plot(script, "throughput", matrix->count);
    fputs("  set xlabel \"callers\"\n  set ylabel \"pairs/s: median, lowest and highest round\"\n  set yrange "
          "[0:*]\n"
          "  set key outside bottom center\n  set grid\n",
          script);
    fprintf(script, "  set xrange [0:%u]\n", most_callers(matrix) + 1);
    for (unsigned i = 0; i < matrix->count; i++)
        if (begins_line(matrix, i)) {
            label_line(label, &matrix->cells[i]);
            fprintf(script, "%s $throughput%u with yerrorlines title \"%s\"", separator, i, label);
            separator = ", \\\n   ";
        }
    end_plot(script);
}

/* 1 / (1 - part) against µs, a point for each class: on a logarithmic scale each nine takes the same room. The
 * scale begins at 1, and a wait of nothing is drawn as one of a nanosecond. */
static void write_waits(FILE *script, const struct cell *cell, unsigned number)
{
    uint64_t sum = 0;
    fprintf(script, "$wait%u << EOD\n", number);
    for (unsigned i = 0; i < HISTOGRAM_CLASSES; i++) {
        double before = (double)sum / (double)cell->waits.total;
        if (cell->waits.count[i] == 0)
            continue;
        sum += cell->waits.count[i];
        uint64_t ns = histogram_limit(i) < cell->waits.most_ns ? histogram_limit(i) : cell->waits.most_ns;
        fprintf(script, "%.9g %.6g\n", 1 / (1 - before), ns > 0 ? (double)ns / 1e3 : 1e-3);
    }
    fputs("EOD\n", script);
}

static void plot_waits(FILE *script, const struct matrix *matrix)
{
    const char *separator = "  plot";
    bool any = false;
    for (unsigned i = 0; i < matrix->count; i++)
        if (matrix->cells[i].waits.total > 0) {
            write_waits(script, &matrix->cells[i], i);
            any = true;
        }
    if (!any)
        return;
    begin_plot(script, "wait", matrix->count);
    fputs("  set xlabel \"percentile\"\n  set ylabel \"wait, us\"\n  set logscale xy\n  set xrange [1:20000]\n"
          "  set xtics (\"0\" 1, \"50\" 2, \"90\" 10, \"99\" 100, \"99.9\" 1000, \"99.99\" 10000)\n"
          "  set key outside bottom center\n  set grid\n",
          script);
    for (unsigned i = 0; i < matrix->count; i++)
        if (matrix->cells[i].waits.total > 0) {
            fprintf(script, "%s $wait%u with lines linewidth 2 title \"%s\"", separator, i,
                    matrix->cells[i].title);
            separator = ", \\\n   ";
        }
    end_plot(script);
}

/* ---- shards over time ---- */

static unsigned count_slices(const struct run *run)
{
    unsigned count = 0;
    for (unsigned i = 0; i < run->shards; i++)
        count += run->has_slice[i];
    return count;
}

/* Checkouts per second of each shard that has a slice, between one moment and the next: "seconds shard rate".
 */
static void write_history(FILE *script, const struct run *run, unsigned number)
{
    fprintf(script, "$balance%u << EOD\n", number);
    for (unsigned shard = 0; shard < run->shards; shard++) {
        if (!run->has_slice[shard])
            continue;
        for (unsigned i = 1; i < run->moments; i++) {
            const struct moment *from = &run->history[i - 1], *to = &run->history[i];
            double seconds = to->seconds - from->seconds;
            if (seconds > 0)
                fprintf(script, "%.6f %u %.1f\n", to->seconds, shard,
                        (double)(to->checkouts[shard] - from->checkouts[shard]) / seconds);
        }
        fputs("\n\n", script); /* gnuplot's index counts blocks */
    }
    fputs("EOD\n", script);
}

static void plot_shards(FILE *script, const struct run *run, unsigned number)
{
    const char *separator = "  plot";
    unsigned block = 0;
    if (count_slices(run) > LINES_MAX) {
        fprintf(script,
                "  set ylabel \"shard\"\n  set cblabel \"checkouts/s\"\n  set cbrange [0:*]\n"
                "  plot $balance%u using 1:2:3 with points pointtype 5 pointsize 1 palette notitle",
                number);
        return;
    }
    fputs("  set ylabel \"checkouts/s\"\n  set yrange [0:*]\n  set grid\n  set key outside right\n", script);
    for (unsigned shard = 0; shard < run->shards; shard++)
        if (run->has_slice[shard]) {
            fprintf(script, "%s $balance%u index %u using 1:3 with linespoints title \"shard %u\"", separator,
                    number, block++, shard);
            separator = ", \\\n   ";
        }
}

/* The last round of each cell, in a plot of its own. */
static void plot_balance(FILE *script, const struct matrix *matrix)
{
    for (unsigned i = 0; i < matrix->count; i++) {
        const struct cell *cell = &matrix->cells[i];
        char name[32];
        if (cell->done == 0 || cell->runs[cell->done - 1].shards == 0)
            continue;
        const struct run *run = &cell->runs[cell->done - 1];
        write_history(script, run, i);
        (void)snprintf(name, sizeof name, "balance-%02u", i + 1);
        begin_plot(script, name, 0);
        fprintf(script, "  set title \"%s\"\n  set xlabel \"seconds\"\n  set xrange [0:*]\n", cell->title);
        plot_shards(script, run, i);
        end_plot(script);
    }
}

void plot_draw(const struct options *options, const struct matrix *matrix)
{
    FILE *script = open_script(options->plot);
    fputs("# Written by corepool bench --plot. Again: gnuplot " SCRIPT "\n", script);
    plot_throughput(script, matrix);
    plot_waits(script, matrix);
    plot_balance(script, matrix);
    REQUIRE(!ferror(script) && fclose(script) == 0, "--plot: cannot write the script");
    int status = run_gnuplot(options->plot, (char[]){SCRIPT});
    REQUIRE(status == 0, "--plot: gnuplot failed on %s/" SCRIPT, options->plot);
}
