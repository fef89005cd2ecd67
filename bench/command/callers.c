/* bench/command/callers.c: what threads and loops share. */
#include "callers.h"

/* Of so many checkouts one is timed. */
#define SAMPLE 17u

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
    load->begin_ns = clock_ns();
    atomic_store_explicit(&load->phase, PHASE_MEASURE, memory_order_release);
}

void callers_stop(struct callers *load, struct tally *sum)
{
    load->end_ns = clock_ns();
    atomic_store_explicit(&load->phase, PHASE_STOP, memory_order_release);
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

void tally_add(struct tally *sum, const struct tally *tally)
{
    sum->all += tally->all;
    sum->pairs += tally->pairs;
    sum->behind += tally->behind;
    histogram_merge(&sum->waits, &tally->waits);
}
