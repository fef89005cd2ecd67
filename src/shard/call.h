/* shard/call.h: a class's callbacks about requests and leases, as far as the manager runs them: cancelled in every pool;
 * enqueue, checkout and checkin in a serialised one. Thread: the shard's.
 *
 * A command may be memory of a caller that goes on as soon as it has given up. So a request is HELD while enqueue or
 * checkout looks at its command: its caller cannot give up before the callback has returned. */
#ifndef CP_SHARD_CALL_H
#define CP_SHARD_CALL_H

#include "shard/slice.h"

/* A request has arrived. False: enqueue skipped it, and its caller is told. */
bool cp_call_enqueue(struct cp_slice *slice, struct cp_request *request);

/* The slot, which the core has given away, for the request, which it has dequeued. True: to be granted, and held where there is
 * a callback. False: both are back with the core, or the caller is told. */
bool cp_call_checkout(struct cp_slice *slice, cp_slot *slot, struct cp_request *request);

/* The slot has come back. NONE, or why its worker ends, as from cp_verdict. */
uint32_t cp_call_checkin(struct cp_slice *slice, cp_slot *slot);

/* What enqueue made of the command. */
static inline void *cp_request_wrapped(const struct cp_request *request)
{
    return request->enqueued ? request->command : NULL;
}

void cp_call_cancelled(struct cp_slice *slice, corepool_cancelled_t how, void *wrapped);

#endif
