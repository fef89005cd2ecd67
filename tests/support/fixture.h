/* tests/support/fixture.h: a runtime for one test, and what must hold at the test's end. Thread: the test's. */
#ifndef SUPPORT_FIXTURE_H
#define SUPPORT_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include <corepool.h>

/* How long anything may take before a test says that it does not happen. */
#define PATIENCE_MS 10000

struct fixture {
    corepool_runtime_t *runtime;
    int descriptors; /* before the start */
};

/* A runtime with the default options. */
struct fixture fixture_start(void);

/* The laws hold, the stop is complete, and every descriptor is back. */
void fixture_end(struct fixture *fixture);

/* Milliseconds of the monotonic clock. */
int64_t now_ms(void);

/* Asks `holds` again and again until it is true; false after PATIENCE_MS. */
bool eventually(bool (*holds)(void *arg), void *arg);

/* Until `idle` workers of the pool are idle and none is on its way. */
bool eventually_idle(corepool_pool_t pool, uint64_t idle);

/* Until at least `count` workers have been terminated. */
bool eventually_terminated(corepool_pool_t pool, uint64_t count);

corepool_stats_t stats_of(corepool_pool_t pool);

/* Runs fn(arg) on a shard; true when it has called fixture_done within PATIENCE_MS. One at a time. */
bool on_shard(struct fixture *fixture, unsigned shard, void (*fn)(corepool_shard_t *shard, void *arg),
              void *arg);
void fixture_done(void);

#endif
