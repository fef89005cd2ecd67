/* bench/command/callers.h: the callers of one run: threads that block, or code on the shards' loops. Both first
 * warm up, then are measured, then stop; whatever phase they are in, they check out, touch, hold and check in.
 * Thread: the command's. */
#ifndef BENCH_CALLERS_H
#define BENCH_CALLERS_H

#include <stdatomic.h>
#include <stdalign.h>

#include "pace.h"
#include "subject.h"

enum phase { PHASE_WARM, PHASE_MEASURE, PHASE_STOP };

/* What one caller counts; no other writes it. */
struct tally {
    uint64_t all;    /* pairs that it has ended */
    uint64_t pairs;  /* of these, while measured; in the open loop those of arrivals only */
    uint64_t begun;  /* arrivals whose worker was asked for */
    uint64_t behind; /* arrivals that were due and not begun when time was up */
    struct histogram waits;
};

/* Of the open loop, when all callers have ended: pairs <= begun, begun + behind == waits.total. */

struct callers {
    const struct options *options;
    const struct cell *cell;
    struct subject *subject;
    void *own;                     /* threads.c's or loops.c's */
    int64_t begin_ns, end_ns;      /* of the measurement; each written before its phase */
    alignas(64) _Atomic int phase; /* released by the command, acquired by callers */
};

/* Starts the callers; returns when all run. */
void callers_start(struct callers *load, const struct options *options, const struct cell *cell,
                   struct subject *subject);

/* From now on it counts. In the open loop it blocks for a few ms: who rests between two pairs that are to warm
 * up is not to be late for the first arrival. */
void callers_measure(struct callers *load);

/* Ends the measurement, and the callers, each after the pair that it is in. `sum` is filled. Blocks for that
 * long. */
void callers_stop(struct callers *load, struct tally *sum);

/* ---- for both kinds of callers ---- */

/* Whoever neither works nor waits for long: a hot caller's neighbours, and all between bursts. */
#define THINK_US 1000
#define BURST 64u

static inline enum phase callers_phase(const struct callers *load)
{
    return (enum phase)atomic_load_explicit(&load->phase, memory_order_acquire);
}

/* Now, if the wait of the caller's next checkout is to be noted, else 0. Reading the clock costs as much as a
 * checkout: where nothing is held and nobody arrives only some are noted; a prime, to keep no time with
 * anything. */
int64_t callers_ask(const struct callers *load, const struct tally *tally);

/* A worker has come; asked: callers_ask's. */
static inline void callers_granted(struct tally *tally, int64_t asked)
{
    if (asked != 0)
        histogram_add(&tally->waits, clock_ns() - asked);
}

/* A pair has ended; asked: as above, or its arrival. */
static inline void callers_ended(const struct callers *load, struct tally *tally, int64_t asked)
{
    bool counts = asked != 0 || load->options->rate == 0;
    tally->all++;
    if (counts && callers_phase(load) == PHASE_MEASURE)
        tally->pairs++;
}

/* How long caller `number` is to think after its pair `pair` (from 1), in µs; 0: not at all. Closed loop only.
 */
unsigned callers_think_us(const struct callers *load, unsigned number, uint64_t pair);

/* The schedule of caller `number`. Open loop only, once it is measured. */
struct pace callers_plan(const struct callers *load, unsigned number);

/* The handle for caller `number`: of a machine that is not there each shard has its callers, where it matters.
 */
corepool_pool_t callers_handle(const struct callers *load, unsigned number);

void threads_start(struct callers *load);
void threads_stop(struct callers *load, struct tally *sum);
void loops_start(struct callers *load);
void loops_stop(struct callers *load, struct tally *sum);

/* Caller `number` has ended: adds its counts to the sum, and the arrivals that it did not begin. */
void callers_collect(const struct callers *load, unsigned number, const struct tally *tally, struct tally *sum);

#endif
