/* shard/visit.h: what a manager does to workers that nobody uses: looks, pings, infos, evictions. Thread: the shard's. */
#ifndef CP_SHARD_VISIT_H
#define CP_SHARD_VISIT_H

#include "shard/slice.h"

/* The core's CP_DO_LOOK, CP_DO_FETCH, CP_DO_PING, CP_DO_INFO and CP_DO_PUT_BACK. */
void cp_slice_look(struct cp_slice *slice);
void cp_slice_fetch(struct cp_slice *slice);
void cp_slice_ping(struct cp_slice *slice, cp_slot *slot);
void cp_slice_info(struct cp_slice *slice, cp_slot *slot);
void cp_slice_put_back(struct cp_slice *slice, cp_slot *slot);

/* What is the oldest on the shelf, or NULL: there is nothing within reach. The caller owns it; its stamp is still the shelf's. */
cp_slot *cp_slice_take_oldest(struct cp_slice *slice);

/* Runs the class's info for every worker that is idle now; returns after that. COREPOOL_OK; ENOTSUP: there is none; EDEADLK
 * from a callback of the same slice; ESYSTEM: the shelf is out of reach. */
int cp_slice_tell_idle(struct cp_slice *slice, void *message);

#endif
