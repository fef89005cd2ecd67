/* bench/command/json.c: for programs: all runs of all rounds. */
#include <math.h>

#include <jansson.h>

#include "fail.h"
#include "report.h"

static void set_new(json_t *object, const char *key, json_t *value)
{
    REQUIRE(value != NULL && json_object_set_new(object, key, value) == 0, "out of memory");
}

static void append_new(json_t *array, json_t *value)
{
    REQUIRE(value != NULL && json_array_append_new(array, value) == 0, "out of memory");
}

static json_t *count(uint64_t number)
{
    return json_integer((json_int_t)number);
}

/* Null where there is nothing to say. */
static json_t *optional(double value)
{
    return value < 0 || isinf(value) ? json_null() : json_real(value);
}

static json_t *describe_spread(const struct cell *cell, double (*field)(const struct run *))
{
    struct spread spread = cell_spread(cell, field);
    return json_pack("{s:f, s:f, s:f}", "median", spread.median, "least", spread.least, "most", spread.most);
}

/* [µs, waits up to there] for each class that has any. */
static json_t *describe_classes(const struct histogram *waits)
{
    json_t *classes = json_array();
    uint64_t sum = 0;
    for (unsigned i = 0; i < HISTOGRAM_CLASSES; i++)
        if (waits->count[i] > 0) {
            sum += waits->count[i];
            append_new(classes, json_pack("[f, I]", (double)histogram_limit(i) / 1e3, (json_int_t)sum));
        }
    return classes;
}

static json_t *describe_waits(const struct histogram *waits)
{
    json_t *object = json_object();
    set_new(object, "count", count(waits->total));
    for (unsigned i = 0; i < REPORT_PARTS; i++)
        set_new(object, report_parts[i].name,
                json_real((double)histogram_quantile(waits, report_parts[i].part) / 1e3));
    set_new(object, "max", json_real((double)waits->most_ns / 1e3));
    set_new(object, "classes", describe_classes(waits));
    return object;
}

/* For each moment: seconds, and the checkouts of each shard since the run began to count. */
static json_t *describe_history(const struct run *run)
{
    json_t *history = json_array();
    for (unsigned i = 0; i < run->moments; i++) {
        json_t *shards = json_array();
        for (unsigned j = 0; j < run->shards; j++)
            append_new(shards, run->has_slice[j]
                                   ? count(run->history[i].checkouts[j] - run->history[0].checkouts[j])
                                   : json_null());
        append_new(history, json_pack("{s:f, s:o}", "seconds", run->history[i].seconds, "checkouts", shards));
    }
    return history;
}

static json_t *describe_run(const struct run *run)
{
    json_t *object = json_object();
    set_new(object, "seconds", json_real(run->seconds));
    set_new(object, "pairs", count(run->pairs));
    set_new(object, "pairs_per_s", json_real(run->per_s));
    set_new(object, "ratio", json_real(run->ratio));
    set_new(object, "checkouts", count(run->checkouts));
    set_new(object, "stolen", run->shards > 0 ? count(run->stolen) : json_null());
    set_new(object, "arrivals", count(run->arrivals));
    set_new(object, "behind", count(run->behind));
    set_new(object, "useful", optional(run->useful));
    set_new(object, "cpu_us_per_pair", json_real(run->cpu_us));
    set_new(object, "balance", optional(run->balance));
    if (run->shards > 0)
        set_new(object, "history", describe_history(run));
    return object;
}

static json_t *describe_cell(const struct cell *cell)
{
    char hold[HOLD_TEXT];
    json_t *object = json_object(), *runs = json_array();
    set_new(object, "contender", json_string(cell->contender->name));
    set_new(object, "peer", json_boolean(cell->contender->peer != NULL));
    set_new(object, "floor", json_boolean(cell->contender->peer != NULL && cell->contender->peer->floor));
    set_new(object, "shelf", cell->shelf != NULL ? json_string(cell->shelf) : json_null());
    set_new(object, "threads", count(cell->threads));
    set_new(object, "size", count(cell->size));
    set_new(object, "hold", json_string(hold_text(hold, &cell->hold)));
    set_new(object, "skew", json_string(skew_name(cell->skew)));
    if (cell->missing[0] != '\0')
        set_new(object, "missing", json_string(cell->missing));
    for (unsigned i = 0; i < cell->done; i++)
        append_new(runs, describe_run(&cell->runs[i]));
    set_new(object, "runs", runs);
    if (cell->done > 0) {
        set_new(object, "pairs_per_s", describe_spread(cell, run_per_s));
        set_new(object, "ratio", describe_spread(cell, run_ratio));
        set_new(object, "wait_us", describe_waits(&cell->waits));
    }
    return object;
}

void report_json(FILE *out, const struct options *options, const struct matrix *matrix, bool whole)
{
    json_t *object = json_object(), *cells = json_array();
    set_new(object, "complete", json_boolean(whole));
    set_new(object, "cpus", count(options->cpu_count));
    set_new(object, "shelf", json_string(report_shelf(options)));
    set_new(object, "synthetic", options->synthetic != NULL ? json_string(options->synthetic) : json_null());
    set_new(object, "callers", json_string(options->on_loops ? "loop" : "blocking"));
    set_new(object, "pinned", json_boolean(options->pinned));
    set_new(object, "rate", options->rate > 0 ? json_real(options->rate) : json_null());
    set_new(object, "seconds", json_real(options->seconds));
    set_new(object, "rounds", count(options->rounds));
    for (unsigned i = 0; i < matrix->count; i++)
        append_new(cells, describe_cell(&matrix->cells[i]));
    set_new(object, "configurations", cells);
    REQUIRE(json_dumpf(object, out, JSON_INDENT(1)) == 0, "--json: cannot write");
    fputc('\n', out);
    json_decref(object);
}
