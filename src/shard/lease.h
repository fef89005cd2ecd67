/* shard/lease.h: what is noted of a lease beside its holder: when it began, from where.
 *
 * Only for pools that ask for it: with backtrace_every their shelves have LOOK_TAKE, with COREPOOL_POOL_TIME_LEASES also
 * LOOK_GIVE, so that callers come by here; with lease_report_ms and lease_limit_ms the manager's looks find out. A note
 * belongs to one lease by its stamp; who reads it looks whether the stamp is still the same afterwards. Thread default: the
 * holder's. */
#ifndef CP_SHARD_LEASE_H
#define CP_SHARD_LEASE_H

#include "shard/slice.h"

/* Of a slot; made at the first sample, freed with the pool's use of the slice. */
struct cp_trace {
    _Atomic uint64_t stamp; /* of the lease that it is of; 0: it is being written */
    _Atomic uint32_t length;
    _Atomic(void *) address[COREPOOL_BACKTRACE_MAX];
};

void cp_lease_note(cp_slot *slot, uint64_t stamp, struct cp_thread *self);

/* A lease has just begun, with that stamp. */
static inline void cp_lease_begun(cp_slot *slot, uint64_t stamp, struct cp_thread *self)
{
    const struct cp_slice_config *config = &slot->slice->config;
    if (cp_unlikely(config->timed || config->backtrace_every))
        cp_lease_note(slot, stamp, self);
}

/* The lease is about to end, or its end has been claimed by the caller: counts how long it was held. */
void cp_lease_count_hold(cp_slot *slot, uint64_t stamp);

/* Says what is known of a lease that is out. False: it has ended. Thread: any that keeps the slice from being finished. */
bool cp_lease_describe(const cp_slot *slot, int64_t now_ns, corepool_lease_info_t *info);

/* A look saw the slot leased (cp_look_saw_lease): others may know since when, unless its holder has noted it. Thread: the
 * shard's. */
void cp_lease_seen(cp_slot *slot);

/* Tells the program that the lease which a look saw is out for so long by now; `first`: it is told of this one for the
 * first time. Thread: the shard's. */
void cp_lease_report(cp_slot *slot, int64_t age_ns, bool first);

/* No lease is out, and nobody describes one. Thread: the shard's. */
void cp_lease_forget(struct cp_slice *slice);

#endif
