/* front/watchdog.h: a thread that says when a callback keeps a shard from its loop. Thread: control, unless marked. */
#ifndef CP_FRONT_WATCHDOG_H
#define CP_FRONT_WATCHDOG_H

#include "front/runtime.h"

/* Starts it if options->stall_ms says so; the shards run. Negative with detail. */
int cp_watchdog_start(struct corepool_runtime *runtime, const corepool_runtime_options_t *options);

/* Ends it, if there is one; the shards have ended. Blocks. */
void cp_watchdog_stop(struct corepool_runtime *runtime);

/* Whether the calling thread is one: what waits for shards would wait for itself there. Thread: any. */
bool cp_is_watchdog(void);

/* Returns when no event about a slice that is not in a callback any more is being told. Thread: the slice's shard, without
 * the runtime's lock. */
void cp_watchdog_pass(struct corepool_runtime *runtime);

#endif
