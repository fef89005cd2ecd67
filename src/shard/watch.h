/* shard/watch.h: the library's watch over a descriptor that a worker has named, for the peer's hang-up. Thread: the shard's. */
#ifndef CP_SHARD_WATCH_H
#define CP_SHARD_WATCH_H

#include "core/slot.h"

/* The worker is ready: begins the watch that a blocking init asked for, and evicts a worker whose peer has hung up since. */
void cp_watch_ready(cp_slot *slot);

/* The descriptor that is watched; -1: none. */
int cp_watch_fd(const cp_slot *slot);

/* The class may close the descriptor from here on. */
void cp_watch_end(cp_slot *slot);

#endif
