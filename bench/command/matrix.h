/* bench/command/matrix.h: what is to be measured, and what was. One thread.
 *
 * A cell is one configuration: a contender (a policy or a peer) with its threads, size, hold and skew. Every
 * round runs each cell once, so that a machine whose speed changes does so for all alike. */
#ifndef BENCH_MATRIX_H
#define BENCH_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

#include <corepool.h>

#include "histogram.h"
#include "hold.h"
#include "peer.h"

/* Entries of one list option: far more than one can look at. */
#define LIST_MAX 64u

enum skew {
    SKEW_UNIFORM, /* callers are dealt to the CPUs in turn */
    SKEW_ONE_CPU, /* all callers on one CPU */
    SKEW_HOT,     /* the first caller never rests, the others think in between */
    SKEW_BURSTS,  /* many checkouts one after the other, then a pause */
    SKEWS,
};

struct contender {
    const char *name;
    const struct peer *peer; /* NULL: corepool, with … */
    unsigned pool_flags;
    corepool_policy_t policy;
    bool local; /* the caller's own shard is asked */
};

struct options {
    const struct contender *contenders[LIST_MAX];
    unsigned threads[LIST_MAX], sizes[LIST_MAX];
    struct hold holds[LIST_MAX];
    enum skew skews[LIST_MAX];
    unsigned contender_count, thread_count, size_count, hold_count, skew_count;
    bool pinned;    /* callers stay on their CPU */
    bool on_loops;  /* callers are code on the shards' loops */
    double rate;    /* arrivals per second in all; 0: closed loop */
    double seconds; /* of each run */
    unsigned rounds;
    corepool_shelf_kind_t shelf;
    const char *synthetic;
    bool with_peers;
    const char *json, *csv, *plot; /* NULL: not wanted */
    /* Not options: the machine. */
    int *cpus; /* that this process may use */
    unsigned cpu_count;
};

/* The checkouts of each shard up to a moment of a run. */
struct moment {
    double seconds;
    uint64_t *checkouts;
};

/* One run of one cell. */
struct run {
    double seconds;
    uint64_t pairs; /* ended in the time that counts */
    double per_s;
    double ratio;   /* to the first contender under the same load in the same round */
    double useful;  /* CPU time in holds / CPU time that the callers could use; negative: no work on the CPU */
    double cpu_us;  /* of the process, per pair */
    double balance; /* checkouts of the most to the least loaded shard; negative: not more than one slice;
                     * HUGE_VAL: one had none */
    uint64_t checkouts; /* of the whole run, as the pool counts */
    uint64_t stolen;    /* likewise: workers, and places without one, that came to shards from others */
    uint64_t arrivals;  /* of the open loop, as the schedules say */
    uint64_t behind;    /* of these, due and not begun when time was up */
    unsigned shards, moments;
    bool *has_slice;        /* of the pool, by shard; NULL for peers */
    struct moment *history; /* `moments` of them */
};

struct cell {
    const struct contender *contender;
    unsigned threads, size;
    struct hold hold;
    enum skew skew;
    char title[160];
    struct run *runs;       /* of each round */
    unsigned done;          /* rounds measured */
    const char *shelf;      /* of its pool: "rseq", "portable" or "none"; NULL: a peer, or not run yet */
    char missing[160];      /* not empty: the peer cannot be had, and why */
    struct histogram waits; /* of all rounds */
};

struct matrix {
    struct cell *cells;
    unsigned count;
};

const char *skew_name(enum skew skew);

/* "0", "2.5", "20sleep": as the option takes it. */
#define HOLD_TEXT 32
const char *hold_text(char text[HOLD_TEXT], const struct hold *hold);

/* All combinations; the contender changes fastest, so that what is to be compared stands together. */
void matrix_init(struct matrix *matrix, const struct options *options);
void matrix_finish(struct matrix *matrix);

/* Over the rounds measured, at least one: the middle one, the lowest and the highest of a field of the runs. */
struct spread {
    double median, least, most;
};
struct spread cell_spread(const struct cell *cell, double (*field)(const struct run *));

double run_per_s(const struct run *run);
double run_ratio(const struct run *run);
double run_useful(const struct run *run);
double run_cpu_us(const struct run *run);
double run_stolen(const struct run *run); /* per 1000 checkouts; negative for a peer */
double run_balance(const struct run *run);

#endif
