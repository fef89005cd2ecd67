/* shard/steal.h: what goes from one slice of a pool to another: the doing to core/steal.h's deciding. Thread: the shard's. */
#ifndef CP_SHARD_STEAL_H
#define CP_SHARD_STEAL_H

#include "shard/slice.h"

/* A slice's record for one neighbour: the asker's memory, its shard's as long as that has the slice's block. The one message
 * goes there as the ask and comes back as the answer. */
struct cp_record {
    struct cp_want want;
    struct cp_message message;
    struct cp_slice *asker, *neighbour;
    uint64_t epoch; /* the neighbour's, while it was this pool's */
};

/* CP_DO_MEET to CP_DO_ADOPT. */
void cp_slice_steal(struct cp_slice *slice, const struct cp_action *action);

/* Nothing is to be on its way to or from this slice, or may be again. */
void cp_slice_hold_moves(struct cp_slice *slice, bool held);

#endif
