/* core/request.h: a checkout that has to wait.
 *
 * One word decides its outcome (L5): whoever moves it from PENDING to another value has decided. The manager grants
 * or refuses; the caller gives up. A caller that loses the race takes what the manager decided.
 *
 * Life of the memory: the caller's side owns the request. While the manager may still look at it (posted and neither
 * granted nor refused, or given up and not yet acknowledged) `life` is LENT. The manager hands it back by
 * cp_request_release after a given-up request is unlinked; if the owner is gone by then, the manager frees it. */
#ifndef CP_CORE_REQUEST_H
#define CP_CORE_REQUEST_H

#include <stdint.h>

#include "core/slot.h"
#include "machine/mailbox.h"

struct corepool_shard;

enum cp_outcome {
    CP_PENDING,
    CP_GRANTED,
    CP_CLOSED,
    CP_TIMED_OUT,
    CP_CANCELLED,
    CP_SKIPPED,
    CP_DRAINING,   /* refused: it came while the pool was being drained */
    CP_OVERLOADED, /* refused: too many waited already */
    CP_SHED,       /* refused: all have waited too long */
    /* Not decided, and the caller cannot give up now: the manager runs a callback that looks at the command. */
    CP_HELD,
    CP_HELD_AWAITED, /* and somebody sleeps until that has ended */
};

enum cp_life { CP_LIFE_FREE, CP_LIFE_LENT, CP_LIFE_ORPHAN };

struct cp_request {
    _Atomic uint32_t outcome;   /* enum cp_outcome; a blocking caller sleeps on it */
    _Atomic uint32_t life;      /* enum cp_life */
    struct cp_message posted;   /* caller → manager: here I am */
    struct cp_message given_up; /* caller → manager: forget me */
    /* Set by the caller before posting. */
    struct cp_slice *slice;
    struct corepool_shard *shard; /* the slice's */
    uint64_t epoch;             /* the slice's, when the caller looked up the pool */
    struct cp_list owner_link;  /* in the caller's cache */
    int64_t posted_at;          /* when its waiting began, monotonic ns */
    void *command;              /* what enqueue made of it, once that has run */
    bool enqueued;              /* it has */
    bool asked;                 /* it is for whoever plays the manager, see shard/shard.h; else for the shard's thread */
    int verdict;                /* once SKIPPED: what the callback returned */
    bool again;                 /* it had a worker that its checkout callback refused: keeps its place */
    /* How a caller that does not sleep on `outcome` is told; NULL: it sleeps. Run by who plays the manager. */
    void (*notify)(struct cp_request *request);
    void (*free)(struct cp_request *request);
    /* The manager's. */
    bool late;                  /* it came while the slice was draining */
    struct cp_list link;        /* in the slice's queue while it waits */
    cp_slot *slot;              /* valid once GRANTED, with its stamp as a lease */
    uint64_t stamp;
    void *client;               /* the lease's resource, in a serialised pool */
    bool held;                  /* by the manager, which is to let it go */
};

/* True when `outcome` is now the request's. Sequentially consistent on both sides: the loser must see the
 * winner's slot. */
static inline bool cp_request_decide(struct cp_request *request, enum cp_outcome outcome)
{
    uint32_t pending = CP_PENDING;
    return atomic_compare_exchange_strong(&request->outcome, &pending, outcome);
}

/* Manager's side: takes hold of it before a callback looks at its command. False: it has been given up. */
static inline bool cp_request_hold(struct cp_request *request)
{
    request->held = cp_request_decide(request, CP_HELD);
    return request->held;
}

/* Manager's side: done with a given-up request. */
static inline void cp_request_release(struct cp_request *request)
{
    if (atomic_exchange(&request->life, CP_LIFE_FREE) == CP_LIFE_ORPHAN)
        request->free(request);
}

/* Owner's side: done with it, now or when the manager is. */
static inline void cp_request_disown(struct cp_request *request)
{
    if (atomic_exchange(&request->life, CP_LIFE_ORPHAN) == CP_LIFE_FREE)
        request->free(request);
}

#endif
