/* bench/command/subject.h: what one run measures: a pool of its own runtime, or a peer. Thread: the command's.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include "matrix.h"

struct subject {
    const struct peer *peer; /* NULL: corepool */
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    unsigned shards;          /* 0 for a peer */
    bool *has_slice;          /* of the pool, by shard */
    _Atomic uint64_t opened;  /* resources; on the shards */
    _Atomic uint64_t touched; /* of resources that have been terminated */
};

/* Opens it and waits until every resource is idle. False: a peer cannot be had, *why says why (static storage).
 * Whatever else fails ends the program. */
bool subject_open(struct subject *subject, const struct options *options, const struct cell *cell,
                  const char **why);

/* The checkouts of each shard that has a slice, up to now; others' stay as they are. */
void subject_count(const struct subject *subject, uint64_t *checkouts);

/* When nobody uses it any more: closes it, after all counts agreed with `pairs`, those that the callers
 * counted: checkouts, checkins (nothing is out), touches of resources; and the laws held. Returns the stats,
 * zero for a peer. */
corepool_stats_t subject_close(struct subject *subject, uint64_t pairs);

#endif
