/* bench/command/measure.c: one run: opens what is measured, starts the callers, lets them warm up, watches the
 * shards while time passes, stops, checks that all counts agree. */
#include "measure.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "fail.h"
#include "callers.h"

/* The balance of the shards is looked at so often in a run. */
#define MOMENTS 20u
/* Caches, thread records, the first sleeps: a twentieth of the run, but not for long. */
#define WARM_PART 0.05
#define WARM_MAX_S 0.1

static sigset_t signals;

/* Callers that never rest would keep the command's own thread from ending them, and the rest of the machine
 * from working. */
static void refuse_fifo(void)
{
    REQUIRE(sched_getscheduler(0) != SCHED_FIFO,
            "not under SCHED_FIFO: its callers would never be interrupted, to be ended");
}

void measure_init(void)
{
    refuse_fifo();
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

/* Sleeps; false as soon as a signal asks to end. */
static bool wait_until(int64_t end)
{
    for (int64_t left; (left = end - clock_ns()) > 0;) {
        const struct timespec time = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        if (sigtimedwait(&signals, NULL, &time) > 0)
            return false;
    }
    return true;
}

static double cpu_seconds(void)
{
    struct rusage used = {0};
    (void)getrusage(RUSAGE_SELF, &used); /* cannot fail for oneself */
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void note_moment(struct run *run, const struct callers *load)
{
    struct moment *moment = &run->history[run->moments];
    if (run->shards == 0)
        return;
    moment->checkouts = calloc(run->shards, sizeof *moment->checkouts);
    REQUIRE(moment->checkouts != NULL, "out of memory");
    subject_count(load->subject, moment->checkouts);
    moment->seconds = (double)(clock_ns() - load->begin_ns) / 1e9;
    run->moments++;
}

/* False: a signal. */
static bool watch(struct run *run, struct callers *load, double seconds)
{
    note_moment(run, load);
    bool on = true;
    for (unsigned i = 1; on && i <= MOMENTS; i++) {
        on = wait_until(load->begin_ns + (int64_t)(seconds * 1e9 * i / MOMENTS));
        note_moment(run, load);
    }
    return on;
}

/* The callers cannot use more CPUs than there are, or than they are. */
static double usable_cpus(const struct options *options, const struct cell *cell)
{
    if (cell->skew == SKEW_ONE_CPU && options->synthetic == NULL)
        return 1;
    return cell->threads < options->cpu_count ? cell->threads : options->cpu_count;
}

static double find_balance(const struct run *run)
{
    uint64_t least = UINT64_MAX, most = 0;
    unsigned slices = 0;
    for (unsigned i = 0; i < run->shards; i++) {
        if (!run->has_slice[i])
            continue;
        uint64_t count = run->history[run->moments - 1].checkouts[i] - run->history[0].checkouts[i];
        least = count < least ? count : least;
        most = count > most ? count : most;
        slices++;
    }
    if (slices < 2)
        return -1;
    return least > 0 ? (double)most / (double)least : HUGE_VAL;
}

static void conclude(const struct options *options, const struct cell *cell, struct run *run,
                     const struct callers *load, const struct tally *sum, double cpu_s)
{
    run->seconds = (double)(load->end_ns - load->begin_ns) / 1e9;
    run->pairs = sum->pairs;
    run->arrivals = sum->begun + sum->behind;
    run->behind = sum->behind;
    run->per_s = (double)sum->pairs / run->seconds;
    run->cpu_us = sum->pairs > 0 ? cpu_s * 1e6 / (double)sum->pairs : 0;
    run->useful = -1;
    if (cell->hold.us > 0 && !cell->hold.sleeps)
        run->useful = (double)sum->pairs * cell->hold.us / 1e6 / (run->seconds * usable_cpus(options, cell));
    run->balance = find_balance(run);
}

/* Each arrival has waited once, whatever became of it. */
static void check_arrivals(const struct tally *sum)
{
    REQUIRE(sum->waits.total == sum->begun + sum->behind, "%llu arrivals, %llu begun, %llu waits noted",
            (unsigned long long)(sum->begun + sum->behind), (unsigned long long)sum->begun,
            (unsigned long long)sum->waits.total);
}

static bool run_open(const struct options *options, const struct cell *cell, struct subject *subject,
                     struct run *run, struct tally *sum)
{
    static struct callers load; /* aligned, and outlives threads that a failure leaves behind */
    double warm = options->seconds * WARM_PART;
    callers_start(&load, options, cell, subject);
    bool on = wait_until(clock_ns() + (int64_t)((warm < WARM_MAX_S ? warm : WARM_MAX_S) * 1e9));
    if (on)
        callers_measure(&load);
    double cpu_s = cpu_seconds();
    on = on && watch(run, &load, options->seconds);
    cpu_s = cpu_seconds() - cpu_s;
    callers_stop(&load, sum);
    if (options->rate > 0)
        check_arrivals(sum);
    if (on)
        conclude(options, cell, run, &load, sum, cpu_s);
    return on;
}

static void prepare(struct run *run, struct subject *subject)
{
    *run = (struct run){.shards = subject->shards, .has_slice = subject->has_slice};
    run->history = calloc(MOMENTS + 1, sizeof *run->history);
    REQUIRE(run->history != NULL, "out of memory");
}

static void discard(struct run *run)
{
    for (unsigned i = 0; i < run->moments; i++)
        free(run->history[i].checkouts);
    free(run->history);
    free(run->has_slice);
}

static const char *shelf_of(const struct contender *contender, const corepool_stats_t *stats)
{
    if (contender->pool_flags & COREPOOL_POOL_MANAGED)
        return "none";
    return stats->portable > 0 ? "portable" : "rseq";
}

bool measure_cell(const struct options *options, struct cell *cell)
{
    static struct tally sum;
    struct subject subject;
    struct run *run = &cell->runs[cell->done];
    const char *why = "";
    fail_context(cell->title);
    if (!subject_open(&subject, options, cell, &why)) {
        (void)snprintf(cell->missing, sizeof cell->missing, "%s", why);
        return true;
    }
    prepare(run, &subject);
    bool on = run_open(options, cell, &subject, run, &sum);
    run->checkouts = sum.all;
    const corepool_stats_t stats = subject_close(&subject, sum.all);
    run->stolen = stats.stolen;
    if (subject.peer == NULL)
        cell->shelf = shelf_of(cell->contender, &stats);
    if (on) {
        histogram_merge(&cell->waits, &sum.waits);
        cell->done++;
    } else {
        discard(run);
    }
    fail_context(NULL);
    return on;
}
