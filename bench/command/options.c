/* bench/command/options.c: reads the command line; what makes no sense together is refused before anything is
 * measured. */
#include "options.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

#define SECONDS_DEFAULT 1
#define SECONDS_MAX 86400
#define ROUNDS_DEFAULT 5
#define ROUNDS_MAX 1001
#define SIZE_DEFAULT 16
/* More threads measure the scheduler, and their histograms fill the memory. */
#define CALLERS_MAX 4096
#define HOLD_MAX_US 10e6
/* An arrival costs some ten ns to count, also one that nobody began. */
#define RATE_MAX 1e8
/* Runs of one matrix. */
#define CELLS_MAX 10000

enum {
    KEY_POLICY = 256, /* no short ones: each command's would mean something else */
    KEY_THREADS,
    KEY_SIZE,
    KEY_HOLD,
    KEY_SKEW,
    KEY_PIN,
    KEY_FREE,
    KEY_CALLERS,
    KEY_CLOSED,
    KEY_RATE,
    KEY_SECONDS,
    KEY_ROUNDS,
    KEY_SHELF,
    KEY_SYNTHETIC,
    KEY_PEERS,
    KEY_JSON,
    KEY_CSV,
    KEY_PLOT,
};

static const struct argp_option table[] = {
    {0, 0, NULL, 0, "The matrix: each takes a LIST, separated by commas; all combinations are measured", 1},
    {"policy", KEY_POLICY, "LIST", 0,
     "Who serves a checkout: local (with stealing), local-only, round-robin, random, two-choices, "
     "least-loaded, hash (each "
     "caller has a key), single (one slice), managed (NimblePool's: one manager, no shelf), all (default "
     "local,managed)",
     1},
    {"threads", KEY_THREADS, "LIST", 0, "Callers (default: one per CPU)", 1},
    {"size", KEY_SIZE, "LIST", 0, "Workers in the pool (default 16)", 1},
    {"hold", KEY_HOLD, "LIST", 0,
     "What a caller does with a worker: N us of work on the CPU, or Nsleep: sleep for N us (default 0: touch "
     "it only)",
     1},
    {"skew", KEY_SKEW, "LIST", 0,
     "uniform (default); one-cpu: all callers on one CPU; hot: the first caller never rests, the others pause "
     "for 1 ms after "
     "each checkout (open loop: half of all arrivals are the first's); bursts: 64 checkouts, then a pause of 1 "
     "ms (open "
     "loop: 64 arrivals at a time)",
     1},
    {0, 0, NULL, 0, "The load", 2},
    {"pin", KEY_PIN, NULL, 0, "Callers are bound to their CPUs, in turn (default)", 2},
    {"free", KEY_FREE, NULL, 0, "The kernel moves them about", 2},
    {"callers", KEY_CALLERS, "WHAT", 0,
     "blocking: threads (default); loop: code on the shards' loops, which asks asynchronously", 2},
    {"closed", KEY_CLOSED, NULL, 0, "Each caller asks again when it has given back (default)", 2},
    {"rate", KEY_RATE, "R", 0,
     "Open loop: R arrivals a second in all, on a schedule of which each caller has a part. The wait is "
     "counted "
     "from the INTENDED arrival: a "
     "caller is at one at a time, and if late it owes what came meanwhile, so that one long wait does not hide "
     "the many behind it (coordinated "
     "omission). How late "
     "the kernel wakes a caller, or its shard's loop, counts too; arrivals that nobody began count as having "
     "waited to the end",
     2},
    {0, 0, NULL, 0, "The runs", 3},
    {"seconds", KEY_SECONDS, "S", 0, "Of each run (default 1)", 3},
    {"rounds", KEY_ROUNDS, "N", 0,
     "Each runs every configuration once: what disturbs the machine hits all alike (default 5)", 3},
    {"shelf", KEY_SHELF, "KIND", 0, "auto (default), rseq or portable", 3},
    {"synthetic", KEY_SYNTHETIC, "MACHINE", 0,
     "Shards of another machine, such as \"pack:2 l3:4 core:8 pu:2\": unpinned, on the portable shelf. Callers "
     "are free, and "
     "dealt to the shards in turn",
     3},
    {"peers", KEY_PEERS, NULL, 0,
     "Other pools in the same rounds: those that the build found (-Dbench=true); the rest are named, with what "
     "is missing",
     3},
    {0, 0, NULL, 0, "Output, besides the table", 4},
    {"json", KEY_JSON, "FILE", 0,
     "All figures of all rounds; - is standard output, the table is then on standard error", 4},
    {"csv", KEY_CSV, "FILE", 0, "A line for each run; - as above", 4},
    {"plot", KEY_PLOT, "DIR", 0,
     "SVG and PNG by gnuplot: throughput by callers, wait by percentile, the shards' checkouts over time", 4},
    {0},
};

static const struct contender contenders[] = {
    {.name = "local", .policy = COREPOOL_POLICY_LOCAL, .local = true},
    {.name = "local-only", .policy = COREPOOL_POLICY_LOCAL_ONLY, .local = true},
    {.name = "round-robin", .policy = COREPOOL_POLICY_ROUND_ROBIN},
    {.name = "random", .policy = COREPOOL_POLICY_RANDOM},
    {.name = "two-choices", .policy = COREPOOL_POLICY_TWO_CHOICES},
    {.name = "least-loaded", .policy = COREPOOL_POLICY_LEAST_LOADED},
    {.name = "hash", .policy = COREPOOL_POLICY_HASH},
    {.name = "single", .policy = COREPOOL_POLICY_SINGLE},
    {.name = "managed", .policy = COREPOOL_POLICY_SINGLE, .pool_flags = COREPOOL_POOL_MANAGED},
};
#define CONTENDERS (sizeof contenders / sizeof contenders[0])

/* What is known only when all options have been read. */
struct parsing {
    struct options *options;
    bool pin, free, closed, rate;
};

/* ---- values ---- */

static double parse_number(const char *name, const char *arg, double least, double most,
                           struct argp_state *state)
{
    char *end;
    errno = 0;
    double number = strtod(arg, &end);
    if (*arg < '0' || *arg > '9' || *end != '\0' || errno != 0 || !(number >= least && number <= most))
        argp_error(state, "--%s: '%s' is not a number from %g to %g", name, arg, least, most);
    return number;
}

static unsigned parse_count(const char *name, const char *arg, unsigned most, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end != '\0' || errno != 0 || number < 1 || number > most)
        argp_error(state, "--%s: '%s' is not a whole number from 1 to %u", name, arg, most);
    return (unsigned)number;
}

static unsigned parse_word(const char *name, const char *arg, const char *const *words, unsigned count,
                           struct argp_state *state)
{
    char list[256] = "";
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(arg, words[i]) == 0)
            return i;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    argp_error(state, "--%s: '%s' is none of: %s", name, arg, list);
    return 0;
}

/* ---- lists ---- */

typedef void (*entry_parser)(struct options *options, unsigned number, const char *arg,
                             struct argp_state *state);

/* Returns how many entries there were. */
static unsigned parse_list(struct options *options, const char *name, const char *arg, entry_parser parse,
                           struct argp_state *state)
{
    unsigned count = 0;
    char *copy = strdup(arg), *rest = copy;
    REQUIRE(copy != NULL, "out of memory");
    for (char *entry; (entry = strsep(&rest, ",")) != NULL; count++) {
        if (*entry == '\0')
            argp_error(state, "--%s: '%s' has an empty entry", name, arg);
        if (count == LIST_MAX)
            argp_error(state, "--%s: more than %u entries", name, LIST_MAX);
        parse(options, count, entry, state);
    }
    free(copy);
    return count;
}

static void parse_contender(struct options *options, unsigned number, const char *arg, struct argp_state *state)
{
    const char *names[CONTENDERS];
    for (unsigned i = 0; i < CONTENDERS; i++)
        names[i] = contenders[i].name;
    options->contenders[number] = &contenders[parse_word("policy", arg, names, CONTENDERS, state)];
}

static unsigned parse_policies(struct options *options, const char *arg, struct argp_state *state)
{
    if (strcmp(arg, "all") != 0)
        return parse_list(options, "policy", arg, parse_contender, state);
    for (unsigned i = 0; i < CONTENDERS; i++)
        options->contenders[i] = &contenders[i];
    return CONTENDERS;
}

static void parse_threads(struct options *options, unsigned number, const char *arg, struct argp_state *state)
{
    options->threads[number] = parse_count("threads", arg, CALLERS_MAX, state);
}

static void parse_size(struct options *options, unsigned number, const char *arg, struct argp_state *state)
{
    options->sizes[number] = parse_count("size", arg, COREPOOL_SIZE_MAX, state);
}

static void parse_hold(struct options *options, unsigned number, const char *arg, struct argp_state *state)
{
    static const char suffix[] = "sleep";
    char digits[64];
    size_t length = strlen(arg);
    struct hold *hold = &options->holds[number];
    hold->sleeps = length > strlen(suffix) && strcmp(arg + length - strlen(suffix), suffix) == 0;
    (void)snprintf(digits, sizeof digits, "%.*s", (int)(hold->sleeps ? length - strlen(suffix) : length), arg);
    hold->us = parse_number("hold", digits, 0, HOLD_MAX_US, state);
}

static void parse_skew(struct options *options, unsigned number, const char *arg, struct argp_state *state)
{
    const char *names[SKEWS];
    for (unsigned i = 0; i < SKEWS; i++)
        names[i] = skew_name((enum skew)i);
    options->skews[number] = (enum skew)parse_word("skew", arg, names, SKEWS, state);
}

/* ---- what goes together ---- */

static bool has_skew(const struct options *options, enum skew skew)
{
    for (unsigned i = 0; i < options->skew_count; i++)
        if (options->skews[i] == skew)
            return true;
    return false;
}

static void check_load(const struct parsing *parsing, struct argp_state *state)
{
    const struct options *options = parsing->options;
    if (parsing->pin && parsing->free)
        argp_error(state, "--pin and --free exclude each other");
    if (parsing->closed && parsing->rate)
        argp_error(state, "--closed and --rate exclude each other");
    if (parsing->free && has_skew(options, SKEW_ONE_CPU) && options->synthetic == NULL)
        argp_error(state, "--free: --skew one-cpu binds all callers to one CPU");
    if (parsing->pin && options->synthetic != NULL)
        argp_error(state, "--pin: the CPUs of a --synthetic machine are not there");
    if (options->synthetic != NULL && options->shelf == COREPOOL_SHELF_RSEQ)
        argp_error(state, "--shelf: a --synthetic machine has portable shelves only");
}

static void check_loops(const struct parsing *parsing, struct argp_state *state)
{
    const struct options *options = parsing->options;
    if (!options->on_loops)
        return;
    if (parsing->free)
        argp_error(state, "--free: with --callers loop they never leave their shard");
    if (options->with_peers)
        argp_error(state, "--peers: needs --callers blocking");
    for (unsigned i = 0; i < options->hold_count; i++)
        if (options->holds[i].sleeps && fmod(options->holds[i].us, 1000) != 0)
            argp_error(
                state,
                "--hold: with --callers loop a sleep is a multiple of 1000 us, the unit of a loop's timers");
}

static bool is_dash(const char *name)
{
    return name != NULL && strcmp(name, "-") == 0;
}

static void check_all(struct parsing *parsing, struct argp_state *state)
{
    const struct options *options = parsing->options;
    double cells = (double)options->contender_count * options->thread_count * options->size_count *
                   options->hold_count * options->skew_count;
    check_load(parsing, state);
    check_loops(parsing, state);
    if (is_dash(options->json) && is_dash(options->csv))
        argp_error(state, "--csv: standard output is --json's already");
    if (options->json != NULL && options->csv != NULL && strcmp(options->json, options->csv) == 0)
        argp_error(state, "--csv: %s is --json's already", options->csv);
    if (cells > CELLS_MAX)
        argp_error(state, "%.0f configurations: more than %d", cells, CELLS_MAX);
    if (options->rate * options->seconds > RATE_MAX)
        argp_error(state, "--rate: more than %g arrivals in a run", RATE_MAX);
}

/* ---- argp ---- */

static void parse_callers(struct options *options, const char *arg, struct argp_state *state)
{
    static const char *const words[] = {"blocking", "loop"};
    options->on_loops = parse_word("callers", arg, words, 2, state) == 1;
}

static void parse_shelf(struct options *options, const char *arg, struct argp_state *state)
{
    static const char *const words[] = {"auto", "rseq", "portable"};
    static const corepool_shelf_kind_t kinds[] = {COREPOOL_SHELF_AUTO, COREPOOL_SHELF_RSEQ,
                                                  COREPOOL_SHELF_PORTABLE};
    options->shelf = kinds[parse_word("shelf", arg, words, 3, state)];
}

static error_t parse_load(int key, char *arg, struct argp_state *state)
{
    struct parsing *parsing = state->input;
    struct options *options = parsing->options;
    switch (key) {
    case KEY_PIN: parsing->pin = true; return 0;
    case KEY_FREE: parsing->free = true; return 0;
    case KEY_CLOSED: parsing->closed = true; return 0;
    case KEY_CALLERS: parse_callers(options, arg, state); return 0;
    case KEY_RATE:
        parsing->rate = true;
        options->rate = parse_number("rate", arg, 1, RATE_MAX, state);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END: check_all(parsing, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = ((struct parsing *)state->input)->options;
    switch (key) {
    case KEY_POLICY: options->contender_count = parse_policies(options, arg, state); return 0;
    case KEY_THREADS:
        options->thread_count = parse_list(options, "threads", arg, parse_threads, state);
        return 0;
    case KEY_SIZE: options->size_count = parse_list(options, "size", arg, parse_size, state); return 0;
    case KEY_HOLD: options->hold_count = parse_list(options, "hold", arg, parse_hold, state); return 0;
    case KEY_SKEW: options->skew_count = parse_list(options, "skew", arg, parse_skew, state); return 0;
    case KEY_SECONDS: options->seconds = parse_number("seconds", arg, 0.001, SECONDS_MAX, state); return 0;
    case KEY_ROUNDS: options->rounds = parse_count("rounds", arg, ROUNDS_MAX, state); return 0;
    case KEY_SHELF: parse_shelf(options, arg, state); return 0;
    case KEY_SYNTHETIC: options->synthetic = arg; return 0;
    case KEY_PEERS: options->with_peers = true; return 0;
    case KEY_JSON: options->json = arg; return 0;
    case KEY_CSV: options->csv = arg; return 0;
    case KEY_PLOT: options->plot = arg; return 0;
    default: return parse_load(key, arg, state);
    }
}

static void find_cpus(struct options *options)
{
    corepool_topology_t *topology;
    REQUIRE_OK(corepool_topology_open(NULL, &topology));
    options->cpu_count = corepool_topology_shards(topology);
    options->cpus = calloc(options->cpu_count, sizeof *options->cpus);
    REQUIRE(options->cpus != NULL, "out of memory");
    for (unsigned i = 0; i < options->cpu_count; i++) {
        corepool_shard_place_t place = {0};
        (void)corepool_topology_place(topology, i, &place); /* below the count: cannot fail */
        options->cpus[i] = place.cpu;
    }
    corepool_topology_close(topology);
}

/* A description that is wrong is bad input, to be told from a failure. */
static void check_synthetic(const char *synthetic)
{
    const corepool_topology_options_t wanted = {.synthetic = synthetic};
    corepool_topology_t *topology;
    if (corepool_topology_open(&wanted, &topology) != COREPOOL_OK) {
        fprintf(stderr, "corepool bench: --synthetic: %s\n", corepool_error_detail());
        exit(argp_err_exit_status);
    }
    corepool_topology_close(topology);
}

void options_parse(struct options *options, int argc, char **argv)
{
    static const struct argp argp = {
        .options = table,
        .parser = parse_option,
        .doc = "Compares policies of dispatch, and other pools, under the same load.\v"
               "Columns: pairs (checkout, touch, hold, checkin) per second, the median of the rounds with the "
               "lowest and the "
               "highest; the ratio to the first contender with the same callers, size, hold and skew, the median of each "
               "round's; the wait for a "
               "worker in us, of all "
               "rounds together, where there are enough to tell (where nothing is held and nobody arrives one checkout in 17 is timed); the "
               "useful share: CPU "
               "time in holds / CPU time that the callers could use; stolen: workers, and places without one, "
               "that "
               "came to shards from others, per 1000 checkouts; the balance: checkouts of the most / the least "
               "loaded shard.\n\nEach run checks itself: the callers' count of pairs, the pool's of checkouts "
               "and the "
               "resources' of "
               "touches must agree, all workers be back and the laws hold; else there is no figure, and the "
               "exit code is 1. 2 is "
               "a usage error. Ctrl-C ends it with the runs so far.",
    };
    struct parsing parsing = {.options = options};
    *options = (struct options){
        .contenders = {&contenders[0], &contenders[CONTENDERS - 1]},
        .sizes = {SIZE_DEFAULT},
        .contender_count = 2,
        .thread_count = 1,
        .size_count = 1,
        .hold_count = 1,
        .skew_count = 1,
        .seconds = SECONDS_DEFAULT,
        .rounds = ROUNDS_DEFAULT,
    };
    find_cpus(options);
    options->threads[0] = options->cpu_count;
    argp_parse(&argp, argc, argv, 0, NULL, &parsing);
    options->pinned = !parsing.free && options->synthetic == NULL;
    if (options->synthetic != NULL)
        check_synthetic(options->synthetic);
}

void options_finish(struct options *options)
{
    free(options->cpus);
}
