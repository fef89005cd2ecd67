/* tests/sim/main.c: the program: many seeds on several processors, or one seed told step by step. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define JOBS_MAX 256
/* So many worlds show everything that can happen; fewer need not. */
#define SEEDS_FOR_ALL_NOTES 2000

static struct {
    uint64_t seeds, first, trace;
    unsigned jobs;
    bool twice, careful, traces, counts;
} options = {.seeds = 1000, .first = 1};

/* What the jobs bring home. */
static struct result {
    uint64_t counts[JOBS_MAX][NOTES];
    uint64_t hashes[]; /* one for each seed */
} * results;

static void usage(FILE *out)
{
    fputs("usage: sim [--seeds N] [--first S] [--jobs J] [--twice] [--careful] [--counts]\n"
          "       sim --trace SEED [--careful]\n"
          "Runs seeds S to S + N - 1 (1 to 1000), each a world of shards, clients and faults around the "
          "slice's state\n"
          "machine, J at a time (as many as there are processors). Stops at the first that breaks a law, with "
          "the law,\n"
          "the seed and the trace's end, and exits with status 1.\n"
          "  --trace SEED  one seed, with every step\n"
          "  --twice       each seed twice; both traces must be the same\n"
          "  --careful     all laws at every step\n"
          "  --counts      how often what happened\n",
          out);
}

static bool read_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && *number >= least && *number <= most;
}

static bool read_option(int option)
{
    uint64_t number = 0;
    switch (option) {
    case 'n': return read_number(optarg, 1, UINT32_MAX, &options.seeds);
    case 'f': return read_number(optarg, 0, UINT64_MAX - UINT32_MAX, &options.first);
    case 'j': return read_number(optarg, 1, JOBS_MAX, &number) && (options.jobs = (unsigned)number);
    case 't': return options.traces = read_number(optarg, 0, UINT64_MAX, &options.trace);
    case '2': return options.twice = true;
    case 'c': return options.careful = true;
    case 'C': return options.counts = true;
    case 'h': usage(stdout), exit(0);
    default: return false;
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"seeds", 1, NULL, 'n'},  {"first", 1, NULL, 'f'}, {"jobs", 1, NULL, 'j'},
        {"trace", 1, NULL, 't'},  {"twice", 0, NULL, '2'}, {"careful", 0, NULL, 'c'},
        {"counts", 0, NULL, 'C'}, {"help", 0, NULL, 'h'},  {NULL, 0, NULL, 0}};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int option, last;
    options.jobs = processors < 1 ? 1 : processors > JOBS_MAX ? JOBS_MAX : (unsigned)processors;
    while (last = optind, (option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (read_option(option))
            continue;
        if (option != '?') /* else getopt has said it */
            fprintf(stderr, "sim: %s: not a number that makes sense here\n", argv[last]);
        usage(stderr);
        exit(2);
    }
    if (optind < argc) {
        fprintf(stderr, "sim: %s: what is that?\n", argv[optind]);
        usage(stderr);
        exit(2);
    }
}

/* --- many seeds --- */

static void run_one(uint64_t index)
{
    uint64_t seed = options.first + index;
    uint64_t hash = run_seed(seed, options.careful, false);
    results->hashes[index] = hash;
    if (options.twice && run_seed(seed, options.careful, false) != hash)
        broke("replay", "the second run of the same seed was another");
}

/* Every jobs-th seed, so that all jobs have as much to do. */
static _Noreturn void run_job(unsigned job)
{
    for (uint64_t i = job; i < options.seeds; i += options.jobs)
        run_one(i);
    memcpy(results->counts[job], note_counts, sizeof note_counts);
    _exit(0);
}

static void share_results(void)
{
    size_t bytes = sizeof *results + options.seeds * sizeof *results->hashes;
    results = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED) {
        fprintf(stderr, "sim: no memory for %" PRIu64 " results: %s\n", options.seeds, strerror(errno));
        exit(1);
    }
}

/* The first that fails ends the others: one report is enough. */
static bool run_jobs(void)
{
    pid_t jobs[JOBS_MAX];
    bool ok = true;
    for (unsigned i = 0; i < options.jobs; i++) {
        jobs[i] = fork();
        if (jobs[i] == 0)
            run_job(i);
        if (jobs[i] < 0) {
            fprintf(stderr, "sim: no process for a job: %s\n", strerror(errno));
            exit(1);
        }
    }
    for (unsigned left = options.jobs; left > 0; left--) {
        int status;
        pid_t ended = wait(&status);
        for (unsigned i = 0; i < options.jobs; i++)
            jobs[i] = jobs[i] == ended ? 0 : jobs[i];
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        ok = false;
        for (unsigned i = 0; i < options.jobs; i++)
            if (jobs[i])
                kill(jobs[i], SIGKILL);
    }
    return ok;
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t count_distinct(void)
{
    uint64_t distinct = 1;
    qsort(results->hashes, options.seeds, sizeof *results->hashes, compare);
    for (uint64_t i = 1; i < options.seeds; i++)
        distinct += results->hashes[i] != results->hashes[i - 1];
    return distinct;
}

/* A simulation in which something never happens says nothing about it. */
static bool check_counts(void)
{
    bool ok = true;
    for (enum note note = 0; note < NOTES; note++) {
        uint64_t sum = 0;
        for (unsigned job = 0; job < options.jobs; job++)
            sum += results->counts[job][note];
        if (options.counts)
            printf("%12" PRIu64 "  %s\n", sum, note_name(note));
        if (sum || options.seeds < SEEDS_FOR_ALL_NOTES)
            continue;
        fprintf(stderr, "BROKEN coverage: it never came to %s\n", note_name(note));
        ok = false;
    }
    return ok;
}

static int run_seeds(void)
{
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    share_results();
    if (!run_jobs() || !check_counts())
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
    printf("%" PRIu64 " seeds from %" PRIu64 "%s, %" PRIu64
           " different traces, %.1f s (%.0f seeds/s): all laws held\n",
           options.seeds, options.first, options.twice ? ", each twice alike" : "", count_distinct(), seconds,
           (double)options.seeds / seconds);
    return 0;
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    trace_catch_signals();
    if (!options.traces)
        return run_seeds();
    uint64_t hash = run_seed(options.trace, options.careful, true);
    printf("seed %" PRIu64 ", %" PRIu64 " steps, trace %016" PRIx64 ": all laws held\n", options.trace,
           world.steps, hash);
    return 0;
}
