/* core/slot.h: a slot, the place that holds a worker, and its returned list.
 *
 * States, by stamp (who holds it) and phase (what the manager knows of it):
 *
 *   phase     stamp                       held by
 *   VACANT    MANAGER                     the shard, no worker in it
 *   OPENING   MANAGER                     the shard, init under way
 *   LIVE      MANAGER                     the shard, about to be granted, shelved or terminated
 *   LIVE      SHELVED                     the shelf
 *   LIVE      LEASED                      a client
 *   LIVE      RETURNED or REMOVED         the returned list
 *   CLOSING   MANAGER                     the shard, terminate under way
 *
 * Slots live in their slice's block, which stays a slice of the same shape until the runtime is destroyed: a stale
 * lease may always look at the stamp, and generations go on counting when the block is used again. */
#ifndef CP_CORE_SLOT_H
#define CP_CORE_SLOT_H

#include "base/list.h"
#include "machine/shelf.h"

struct cp_slice;
struct cp_trace;
struct cp_watch;

enum cp_phase { CP_VACANT, CP_OPENING, CP_LIVE, CP_CLOSING };

/* Public name corepool_worker_t: a slot is what a worker class gets to see. */
struct corepool_worker {
    /* Written by whoever swaps the stamp. */
    struct cp_item item;
    _Atomic uint32_t listed;               /* on the returned list: its link is in use */
    _Atomic uint32_t validate;             /* the next lease's cp_slot_validation: ask the class first; by the manager */
    _Atomic(char *) holder;                /* area of who took it last, and remembers it; NULL: nobody yet, or a grant on its way */
    _Atomic(void *) resource;              /* the worker; written on the shard */
    struct cp_slice *slice;                /* fixed */
    _Atomic(struct corepool_worker *) returned_next;
    _Atomic uint32_t reason;               /* with stamp REMOVED: as from cp_verdict */
    uint32_t number;                       /* fixed: index in its slice */
    _Atomic(void *) client;                /* with stamp RETURNED: the lease's resource, for a serialised checkin */
    _Atomic(void *) wrapped;               /* while LEASED: what enqueue made of the command, in classes that have it */
    /* Notes on a lease, see shard/lease.h. */
    _Atomic uint64_t noted;                /* its stamp, if it was noted when it began; else another or 0 */
    _Atomic int64_t noted_at;              /* when that was */
    _Atomic(struct cp_trace *) trace;      /* NULL: none so far */
    /* The manager's. */
    struct cp_list link;                   /* in one of the core's lists, by phase */
    void *context;                         /* the class's, while opening */
    void *job;                             /* shard/worker.c's, for classes that block */
    struct cp_watch *watch;                /* over a descriptor that the worker has named; NULL: none */
    int64_t since;                         /* while OPENING: when init began; then when it was ready */
    uint64_t seen;                         /* core/look.c: stamp at the last look, as LEASED or MANAGER, … */
    int64_t seen_at;                       /* … and since when, by the looks, it is that */
    int64_t expires_at;                    /* end of its lifetime; CP_NEVER */
    uint32_t pinged;                       /* the turn of pings in which it had its own */
    uint32_t round;                        /* of the core's opens, in which this one began */
    uint8_t phase;                         /* enum cp_phase */
    uint8_t reports;                       /* of the lease that was seen, as overdue */
    bool held;                             /* in the hands of a visit */
    bool counted;                          /* by the check that is under way */
    bool explained;                        /* this init has said why it fails */
    bool stale;                            /* a gentle flush is to replace it */
    uint8_t doom;                          /* corepool_reason_t that item.doomed stands for */
} cp_line_aligned;

typedef struct corepool_worker cp_slot;

_Static_assert(sizeof(cp_slot) <= 192, "a slot is at most three cache lines");
_Static_assert(offsetof(cp_slot, item) == 0, "an item is a slot's head");

static inline cp_slot *cp_slot_of(struct cp_item *item)
{
    return cp_container(item, cp_slot, item);
}

static inline uint64_t cp_slot_stamp(const cp_slot *slot)
{
    return atomic_load_explicit(&slot->item.stamp, memory_order_relaxed);
}

/* The new owner writes the stamp; nobody else does at that moment (L2). Release: who finds the slot LEASED by this
 * stamp also finds its holder. */
static inline void cp_slot_set_stamp(cp_slot *slot, uint64_t stamp)
{
    atomic_store_explicit(&slot->item.stamp, stamp, memory_order_release);
}

/* The same lease count, another owner. */
static inline void cp_slot_pass(cp_slot *slot, uint32_t tag)
{
    cp_slot_set_stamp(slot, cp_stamp_passed(cp_slot_stamp(slot), tag));
}

/* What was so of the slot's last worker; the slot is the manager's. */
static inline void cp_slot_forget(cp_slot *slot)
{
    atomic_store_explicit(&slot->item.doomed, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->holder, NULL, memory_order_relaxed); /* another thread may have that area by now */
}

/* What names a lease in `validate`: part of its generation. Another lease of the same name is validated without need. */
static inline uint32_t cp_slot_validation(uint64_t lease)
{
    return (uint32_t)cp_stamp_generation(lease);
}

#endif
