/* shard/worker.h: runs a class's init and terminate for the manager. Thread: the shard's. */
#ifndef CP_SHARD_WORKER_H
#define CP_SHARD_WORKER_H

#include "shard/slice.h"

/* Starts init of the slot's worker; cp_core_opened or cp_core_open_failed follows, at once or later. */
void cp_worker_open(cp_slot *slot);

/* Starts terminate; cp_core_gone follows, at once or later. */
void cp_worker_terminate(cp_slot *slot, corepool_reason_t reason);

/* The worker has become a client's: its class forgets it; cp_core_gone follows, at once or later. */
void cp_worker_detach(cp_slot *slot);

/* The worker leaves its slot for another slice's, and is there: what was fd-watched is so again, or a COREPOOL_EVENT_WARNING
 * tells why not. */
void cp_worker_leave(cp_slot *slot, struct cp_moved *moved);
void cp_worker_join(cp_slot *slot, const struct cp_moved *moved);

/* Asks a pending init to end soon. */
void cp_worker_cancel_open(cp_slot *slot);

#endif
