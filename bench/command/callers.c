/* bench/command/callers.c: what threads and loops share. */
#include "callers.h"

/* Of so many checkouts one is timed. */
#define SAMPLE 17u
/* A few times what a caller rests while it warms up. */
#define LEAD_NS (4 * THINK_US * INT64_C(1000))

void callers_start(struct callers *load, const struct options *options, const struct cell *cell,
                   struct subject *subject)
{
    *load = (struct callers){.options = options, .cell = cell, .subject = subject};
    atomic_init(&load->phase, PHASE_WARM);
    if (options->on_loops)
        loops_start(load);
    else
        threads_start(load);
}

void callers_measure(struct callers *load)
{
    load->begin_ns = clock_ns() + (load->options->rate > 0 ? LEAD_NS : 0);
    atomic_store_explicit(&load->phase, PHASE_MEASURE, memory_order_release);
    sleep_until(load->begin_ns);
}

void callers_stop(struct callers *load, struct tally *sum)
{
    /* In this order, and all see the store before the clock is read: whoever reads the clock, and then sees
     * that it is not over, has read a time before the end. */
    atomic_store(&load->phase, PHASE_STOP);
    load->end_ns = clock_ns();
    if (load->options->on_loops)
        loops_stop(load, sum);
    else
        threads_stop(load, sum);
}

int64_t callers_ask(const struct callers *load, const struct tally *tally)
{
    bool every = load->cell->hold.us > 0;
    if (callers_phase(load) != PHASE_MEASURE || !(every || tally->all % SAMPLE == 0))
        return 0;
    return clock_ns();
}

unsigned callers_think_us(const struct callers *load, unsigned number, uint64_t pair)
{
    if (load->cell->skew == SKEW_HOT && number > 0)
        return THINK_US;
    if (load->cell->skew == SKEW_BURSTS && pair % BURST == 0)
        return THINK_US;
    return 0;
}

corepool_pool_t callers_handle(const struct callers *load, unsigned number)
{
    const struct subject *subject = load->subject;
    if (load->options->synthetic == NULL || !load->cell->contender->local)
        return subject->pool;
    return corepool_pool_at(subject->pool, load->cell->skew == SKEW_ONE_CPU ? 0 : number % subject->shards);
}

/* ---- open loop ---- */

/* A hot caller has half of all arrivals. */
static double share_of(const struct callers *load, unsigned number)
{
    unsigned callers = load->cell->threads;
    if (load->cell->skew != SKEW_HOT || callers == 1)
        return load->options->rate / callers;
    return load->options->rate / 2 / (number == 0 ? 1 : callers - 1);
}

struct pace callers_plan(const struct callers *load, unsigned number)
{
    struct pace pace = {.interval_ns = 1e9 / share_of(load, number),
                        .burst = load->cell->skew == SKEW_BURSTS ? BURST : 1};
    double offset = pace.interval_ns * pace.burst * number / load->cell->threads;
    pace.first_ns = load->begin_ns + (int64_t)offset;
    return pace;
}

/* Arrivals that nobody began have waited until the end at least. */
static void count_behind(const struct callers *load, unsigned number, uint64_t begun, struct tally *sum)
{
    struct pace pace = callers_plan(load, number);
    for (uint64_t due = pace_due(&pace, load->end_ns); begun < due; begun++) {
        sum->behind++;
        histogram_add(&sum->waits, load->end_ns - pace_time(&pace, begun));
    }
}

void callers_collect(const struct callers *load, unsigned number, const struct tally *tally, struct tally *sum)
{
    bool was_measured = load->begin_ns != 0; /* not when a signal came first */
    sum->all += tally->all;
    sum->pairs += tally->pairs;
    sum->begun += tally->begun;
    histogram_merge(&sum->waits, &tally->waits);
    if (load->options->rate > 0 && was_measured)
        count_behind(load, number, tally->begun, sum);
}
