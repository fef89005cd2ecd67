/* core/core.h: the state machine of one slice: what happens next to its slots and requests.
 *
 * Pure: no libuv, no clock, no lock, no shelf. The manager tells it what happened (the inputs below) and asks
 * what to do (cp_core_next), until there is nothing to do; it then carries out each action and reports the
 * result as the next input. Time comes in as an argument. One thread at a time, the slice's manager; a
 * simulation may be that manager.
 *
 * L1, conservation:  vacant + opening + live + closing == quota,
 *                    live == idle here + doomed here + held by a visit + out (shelved, leased, on the returned list)
 * Slots reach the core at init, or by cp_core_add, and never leave it; `out` slots are not in any of its lists. A core
 * that is to become smaller puts vacant slots by (`spare`, outside of the quota), until the quota is its target. What goes
 * to other slices of the pool, and comes from them: core/steal.h. */
#ifndef CP_CORE_CORE_H
#define CP_CORE_CORE_H

#include "core/evacuate.h"
#include "core/histogram.h"
#include "core/look.h"
#include "core/request.h"
#include "core/shed.h"

struct cp_core_options {
    uint32_t quota;
    bool lazy;           /* open only what requests want, and `warm` */
    uint32_t warm;       /* so many stay open, whatever else */
    bool managed;        /* never shelve */
    bool steals;         /* ask other slices when it starves */
    uint32_t most;       /* no slice's quota is ever above: the pool's size, also after a resize */
    bool movable;        /* its workers may go to other slices; else places only */
    bool fifo;           /* grant the worker that was idle longest */
    uint32_t max_opening;
    int64_t backoff_min_ns, backoff_max_ns;
    uint32_t max_waiting;                      /* 0: no limit */
    int64_t shed_target_ns, shed_interval_ns;  /* target 0: never shed */
    uint64_t seed;       /* of the back-off's jitter, and the lifetimes' */
    struct cp_look_options look;
};

struct cp_core {
    struct cp_core_options options;
    /* Counts: written by the manager, read by statistics at any time, the first of them by cp_core_snapshot. */
    _Atomic uint32_t quota;
    _Atomic uint32_t vacant, opening, live, closing;
    _Atomic uint64_t opens, open_failures, terminated;
    _Atomic uint64_t stolen, given; /* workers and places that came from other slices, and went there */
    _Atomic uint32_t changes; /* odd while the manager is changing the lines above */
    _Atomic uint32_t waiting;
    _Atomic uint32_t idle; /* in the manager's hands; read by neighbours */
    _Atomic uint64_t grants, timeouts, cancels;
    _Atomic uint64_t sheds; /* refused as overloaded or shed */
    _Atomic uint64_t asks, withdrawals; /* wants sent to other slices, and of those, called back */
    _Atomic(struct cp_histogram *) waits; /* the owner's, set before the first grant; NULL: nobody counts them */
    /* The manager's. */
    struct cp_list vacant_slots, idle_slots, doomed_slots, spare_slots;
    struct cp_list requests;
    uint32_t doomed;
    uint32_t owed;       /* given-up requests that were found in the queue before their notice came */
    uint32_t unstocked;  /* eager: closed as idle, and to be opened again only for requests */
    bool listening;      /* the shelf says `waiting` */
    uint32_t target;     /* what the quota is to fall to */
    uint32_t spare;
    uint32_t warming;    /* so many are to be open, at least once; 0: reached */
    bool paused, draining;
    bool refreshing;     /* workers that a gentle flush is to replace may be left */
    struct cp_shed shed;
    bool closed;
    bool done;           /* CP_DO_FINISH was returned */
    uint8_t close_reason;
    uint32_t failures;   /* failed rounds of opens in a row */
    uint32_t round;      /* opens that begin between two failures are one round */
    int64_t open_not_before;
    uint64_t random;
    struct cp_look look;
    struct cp_steal steal;
    struct cp_evacuation evacuation;
};

/* What the counts are at one moment: L1 holds of them whenever it is taken. */
struct cp_core_counts {
    uint64_t quota, vacant, opening, live, closing;
    uint64_t opens, open_failures, terminated;
    uint64_t stolen, given;
};

enum cp_do {
    CP_DO_NOTHING,   /* until the next input, or cp_core_wake_at */
    CP_DO_GRANT,     /* slot to request; if it was given up: cp_core_undecided and cp_core_idle */
    CP_DO_REFUSE,    /* request ends with `outcome`; if it was given up: cp_core_undecided */
    CP_DO_SHELVE,    /* slot onto the shelf; if that is not possible: cp_core_idle again */
    CP_DO_LISTEN,    /* set the shelf's `waiting`, or bring what is on it: cp_core_idle and cp_core_not_listening */
    CP_DO_UNLISTEN,  /* clear it */
    CP_DO_OPEN,      /* init slot's worker; later cp_core_opened or cp_core_open_failed */
    CP_DO_REFRESH,   /* doom one idle worker that a gentle flush is to replace; if none is idle: cp_core_refreshed */
    CP_DO_TERMINATE, /* end slot's worker for `reason`; later cp_core_gone */
    CP_DO_LOOK,      /* show all slots to core/look.h */
    CP_DO_FETCH,     /* the oldest off the shelf: cp_visit_fetched; a doomed one is cp_core_doom and the next */
    CP_DO_PING,      /* slot's worker by its class's callback: cp_visit_answered */
    CP_DO_INFO,      /* the same */
    CP_DO_PUT_BACK,  /* slot onto the shelf as its oldest; if that is not possible: cp_core_idle_again */
    CP_DO_MEET,      /* make the slice's wants: cp_steal_meet; no memory: cp_steal_rest */
    CP_DO_ASK,       /* make room for cp_steal_room slots; if cp_steal_lend says so, send the want: cp_steal_asked there */
    CP_DO_WITHDRAW,  /* nudge the want's neighbour: cp_steal_nudged there */
    CP_DO_BRING,     /* the oldest off the shelf: cp_steal_brought; a doomed one is cp_core_doom and the next */
    CP_DO_MOVE,      /* slot's worker into the want's last entry; the slot is put by */
    CP_DO_ANSWER,    /* send the want back: cp_steal_answered there */
    CP_DO_PUSH,      /* send the want to its neighbour: cp_evacuate_pushed there; if that has finished: cp_evacuate_returned */
    CP_DO_TAKE,      /* if there is room for cp_evacuate_room slots, as CP_DO_ADOPT but then cp_evacuate_taken; in any case send it
                      * back: cp_evacuate_returned there */
    CP_DO_ADOPT,     /* give what the want brings slots, by cp_steal_adopt and cp_steal_adopt_place; then cp_steal_home */
    CP_DO_FINISH,    /* closed and every slot is vacant; returned once */
};

struct cp_action {
    enum cp_do what;
    cp_slot *slot;
    struct cp_request *request;
    struct cp_want *want;
    uint8_t reason; /* corepool_reason_t */
    enum cp_outcome outcome;
};

/* slots: `options->quota` of them, all VACANT. */
void cp_core_init(struct cp_core *core, const struct cp_core_options *options, cp_slot *slots);

/* A request arrives: at the end of the queue, or at its front with `again`. After close it will be refused. */
void cp_core_request(struct cp_core *core, struct cp_request *request);

/* Whether all workers are out and requests wait, and nothing else is going on: then another request only waits behind them,
 * and a worker that comes back goes to the first of them. Asked when cp_core_next or cp_core_next_anywhere has nothing to do
 * (and leaves nothing); until another input, the two steps below are all that these would decide, but for what time brings. */
bool cp_core_is_crowded(const struct cp_core *core);

/* cp_core_request has added one more. */
void cp_core_crowd(struct cp_core *core, int64_t now_ns);

/* Who gets a worker that has come back: go on as after CP_DO_GRANT. NULL: nobody would be left waiting, so there is more to
 * decide. */
struct cp_request *cp_core_next_of_crowd(struct cp_core *core, int64_t now_ns);

/* Its caller gave up (outcome TIMED_OUT or CANCELLED). O(1). The core does not know it afterwards. */
void cp_core_give_up(struct cp_core *core, struct cp_request *request);

/* A LIVE slot is in the manager's hands and usable: back from the shelf, or from a client. */
void cp_core_idle(struct cp_core *core, cp_slot *slot);

/* A LIVE slot is in the manager's hands and to be terminated. */
void cp_core_doom(struct cp_core *core, cp_slot *slot, uint8_t reason);

/* The idle slot is no longer to be used. */
void cp_core_doom_idle(struct cp_core *core, cp_slot *slot, uint8_t reason);

/* After CP_DO_GRANT or CP_DO_REFUSE: the request had been given up; its notice (cp_core_give_up) is still to come and
 * CP_DO_FINISH waits for it. The slot of a grant is to be brought back by cp_core_idle. */
void cp_core_undecided(struct cp_core *core);

/* After CP_DO_GRANT: it happened; the request had waited `waited_ns`. */
void cp_core_granted(struct cp_core *core, int64_t waited_ns);

/* After CP_DO_LISTEN: `waiting` could not be set because the shelf was not empty. */
void cp_core_not_listening(struct cp_core *core);

/* Init has succeeded, at slot->since, which the manager has set. If the slot was doomed meanwhile its worker is terminated
 * for that. */
void cp_core_opened(struct cp_core *core, cp_slot *slot);
void cp_core_open_failed(struct cp_core *core, cp_slot *slot, int64_t now_ns);
void cp_core_gone(struct cp_core *core, cp_slot *slot);

/* Instead of CP_DO_TERMINATE: a client takes the worker of the LIVE slot, in the manager's hands, out of the pool;
 * cp_core_gone when its class has forgotten it. */
void cp_core_detach(struct cp_core *core, cp_slot *slot);

/* The quota is to be `target`: at once when that is more, else as slots become vacant. Returns how many further
 * slots are needed, each to be handed over by cp_core_add. */
uint32_t cp_core_resize(struct cp_core *core, uint32_t target);
void cp_core_add(struct cp_core *core, cp_slot *slot);

/* While paused no request is granted, and idle workers stay in the manager's hands. */
void cp_core_pause(struct cp_core *core, bool paused);

/* While draining new requests are refused and idle workers stay in the manager's hands. */
void cp_core_drain(struct cp_core *core, bool draining);

/* Nothing waits and nothing is out; stays so while draining. */
bool cp_core_is_quiet(const struct cp_core *core);

/* Whether the manager is to have all idle workers in hand, and callers none; it has once the shelf says `waiting`. */
bool cp_core_holds(const struct cp_core *core);

/* `count` workers are to be open, at least for a moment. */
void cp_core_warm(struct cp_core *core, uint32_t count);

/* Workers are to be replaced one at a time, by CP_DO_REFRESH, until cp_core_refreshed. */
void cp_core_refresh(struct cp_core *core);
void cp_core_refreshed(struct cp_core *core);

/* Nothing more is opened before that time, or the next success of an open that is under way. */
void cp_core_rest(struct cp_core *core, int64_t until_ns);

/* No more requests; everything that is idle now or later is terminated for `reason`. Idempotent. */
void cp_core_close(struct cp_core *core, uint8_t reason);

/* CP_DO_LISTEN is to bring the oldest on the shelf, not the one that is to be granted. */
bool cp_core_brings_oldest(const struct cp_core *core);

/* For the core's own files: how many workers are to be open though no request wants them; an idle worker's place need not be
 * filled again before a request wants it, and one such place less, as it was filled or has left; the idle slot in the manager's
 * hands that is so for longest (there is one), looked at or taken, and back to where it was; the end of the first that is doomed (there is one); the next random number. */
uint32_t cp_core_stock(const struct cp_core *core);
void cp_core_stock_less(struct cp_core *core);
void cp_core_restock(struct cp_core *core);
cp_slot *cp_core_oldest_idle(const struct cp_core *core);
void cp_core_terminate_next(struct cp_core *core, struct cp_action *action);
cp_slot *cp_core_take_oldest_idle(struct cp_core *core);
void cp_core_idle_again(struct cp_core *core, cp_slot *slot);
uint64_t cp_core_draw(struct cp_core *core);

/* What to do next; *action is filled in. */
void cp_core_next(struct cp_core *core, int64_t now_ns, struct cp_action *action);

/* The same for a thread that is not the shard's and plays its manager: only what any thread may do (GRANT, REFUSE, SHELVE,
 * LISTEN, UNLISTEN). *left: set if something else is to be done, by cp_core_next; an idle worker may be left to it beside
 * requests, see cp_steal_outweighs. */
void cp_core_next_anywhere(struct cp_core *core, int64_t now_ns, struct cp_action *action, bool *left);

/* When cp_core_next is to be asked again though nothing happened; CP_NEVER: not. */
int64_t cp_core_wake_at(const struct cp_core *core, int64_t now_ns);

/* Fills *counts. False: the manager is in the midst of a change, a few stores long: ask again. Thread: any. */
bool cp_core_snapshot(const struct cp_core *core, struct cp_core_counts *counts);

/* Checks the sums above; NULL when they hold, else which is broken. */
const char *cp_core_check(const struct cp_core *core);

#endif
