/* tests/support/fixture.h: a runtime for one test that has peers in its own process, which keep threads and close their
 * descriptors in their own time; laws.h is for all others. Thread: the test's. */
#ifndef SUPPORT_FIXTURE_H
#define SUPPORT_FIXTURE_H

#include "support/laws.h"

struct fixture {
    corepool_runtime_t *runtime;
};

/* A runtime with the default options. */
struct fixture fixture_start(void);

/* The laws hold, the stop is complete, and every descriptor is back. */
void fixture_end(struct fixture *fixture);

/* Until `idle` workers of the pool are idle and none is on its way. */
bool eventually_idle(corepool_pool_t pool, uint64_t idle);

/* Until at least `count` workers have been terminated. */
bool eventually_terminated(corepool_pool_t pool, uint64_t count);

/* Runs fn(arg) on a shard; true when it has called fixture_done within LAWS_PATIENCE_MS. One at a time. */
bool on_shard(struct fixture *fixture, unsigned shard, void (*fn)(corepool_shard_t *shard, void *arg),
              void *arg);
void fixture_done(void);

#endif
