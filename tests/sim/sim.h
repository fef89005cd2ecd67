/* tests/sim/sim.h: a simulated machine around the slice's state machine (src/core): many shards, clients and
 * faults under a virtual clock, in one thread, drawn from one seed.
 *
 * The core is the real one. Everything else is played: the manager (src/shard/slice.c), the shelf (by the
 * contract in machine/shelf.h), mailboxes, the returned list, clients (src/front/checkout.c), workers and
 * pools. Whatever threads do to each other in one atomic step is one event here, and the queue decides between
 * which of them others get in.
 *
 * Beside the play stands the oracle: it knows by itself where each slot is, in which order requests arrived and
 * what they came to, and says which law broke (L1 to L6). One world at a time, so it is global. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <corepool/worker.h>

#include "base/clock.h"
#include "core/core.h"

/* --- what happens, as the trace tells it: name, words with up to three numbers --- */

#define NOTE_TABLE(X)                                                                                          \
    X(BEGIN, "client %d on cpu %d asks pool %d")                                                               \
    X(TAKE, "client %d takes slot %d off slice %d's shelf")                                                    \
    X(MISS, "client %d misses on slice %d: outcome %d")                                                        \
    X(COLLECT_ONE, "client %d empties slice %d's returned list")                                               \
    X(PICK, "client %d keeps slot %d of slice %d's returned list")                                             \
    X(PUT_BACK, "client %d puts slot %d back on slice %d's shelf")                                             \
    X(HAND_OVER, "client %d may not use slot %d of slice %d")                                                  \
    X(LEASE, "client %d leases slot %d of slice %d")                                                           \
    X(SKIP, "client %d's checkout is skipped beside slot %d of slice %d")                                      \
    X(REFUSE_WORKER, "client %d's checkout refuses slot %d of slice %d")                                       \
    X(POST, "client %d posts request %d to slice %d")                                                          \
    X(WAKE, "client %d wakes, request %d has outcome %d")                                                      \
    X(GIVE_UP, "client %d gives up request %d with outcome %d")                                                \
    X(LATE, "client %d was too late to give up request %d: outcome %d")                                        \
    X(NOTICE, "client %d sends the notice of request %d")                                                      \
    X(DIE_WAITING, "client %d dies and leaves request %d behind")                                              \
    X(DIE_HOLDING, "client %d dies with slot %d of slice %d")                                                  \
    X(GIVE, "client %d gives slot %d back: outcome %d")                                                        \
    X(STALE, "client %d ends its lease of slot %d once more")                                                  \
    X(CROWD, "slice %d is crowded: request %d only waits")                                                    \
    X(HAND_ON, "slice %d is crowded: slot %d goes to request %d at once")                                     \
    X(CLAIM, "client %d claims slot %d of slice %d")                                                           \
    X(PUSH, "client %d pushes slot %d on slice %d's returned list")                                            \
    X(QUIET, "client %d leaves slice %d's manager asleep")                                                     \
    X(NUDGE, "client %d nudges slice %d")                                                                      \
    X(END, "client %d's checkout has ended as %d")                                                             \
    X(RETIRE, "client %d retires")                                                                             \
    X(MIGRATE, "client %d moves to cpu %d")                                                                    \
    X(DELIVER, "shard %d gets a message of kind %d for slice %d")                                              \
    X(STRAY, "slice %d refuses request %d of another life")                                                    \
    X(COLLECT, "slice %d's manager empties the returned list")                                                 \
    X(ADOPT, "slice %d's manager has slot %d again, doomed %d")                                                \
    X(GRANT, "slice %d: slot %d is meant for request %d")                                                      \
    X(GRANTED, "slice %d: slot %d is request %d's")                                                            \
    X(UNGRANTED, "slice %d: slot %d came too late for request %d")                                             \
    X(REFUSE, "slice %d refuses request %d: decided %d")                                                       \
    X(SHELVE, "slice %d shelves slot %d: outcome %d")                                                          \
    X(LISTEN, "slice %d listens: outcome %d")                                                                  \
    X(UNLISTEN, "slice %d no longer listens")                                                                  \
    X(OPEN, "slice %d opens a worker in slot %d, to end as %d")                                                \
    X(OPENED, "slice %d: slot %d has a worker")                                                                \
    X(OPEN_FAILED, "slice %d: slot %d has none")                                                               \
    X(TERMINATE, "slice %d terminates slot %d for reason %d")                                                  \
    X(TERMINATED, "slice %d: slot %d is vacant")                                                               \
    X(REST, "slice %d rests, %d waiting, %d opening")                                                          \
    X(DOOM, "slice %d dooms slot %d for reason %d")                                                            \
    X(LOOK, "slice %d looks at its workers")                                                                   \
    X(FETCH, "slice %d visits slot %d")                                                                        \
    X(ASK, "slice %d asks slot %d's worker, to end as %d")                                                     \
    X(PUT_OLDEST, "slice %d puts slot %d back as its oldest: outcome %d")                                      \
    X(MEET, "slice %d starves, and knows %d neighbours")                                                       \
    X(NO_ROOM, "slice %d has no room for what slice %d may give")                                              \
    X(PASS, "slice %d passes slice %d: %d on its shelf")                                                       \
    X(LEND, "slice %d asks slice %d for %d")                                                                   \
    X(ASKED, "slice %d is asked by slice %d")                                                                  \
    X(ASKED_LATE, "slice %d is asked by slice %d for another life of it")                                      \
    X(CALL_BACK, "slice %d calls back its want from slice %d")                                                 \
    X(MOVE, "slice %d: slot %d's worker goes to slice %d")                                                     \
    X(ANSWER, "slice %d answers: %d workers, %d places")                                                       \
    X(ADOPT_WORKER, "slice %d: slot %d adopts worker %d")                                                      \
    X(ADOPT_PLACE, "slice %d: slot %d is a place more")                                                        \
    X(SEND_AWAY, "slice %d sends away %d workers, %d places")                                                  \
    X(PUSHED_LATE, "slice %d is pushed what slice %d had, in another life of it")                              \
    X(TAKE_PUSH, "slice %d takes what slice %d had: %d units")                                                 \
    X(RETURNED_PUSH, "slice %d has its want for slice %d again, with %d units")                                \
    X(PARK, "slice %d is parked: %d")                                                                          \
    X(BRING, "slice %d looks at its coldest, slot %d: kept %d")                                                \
    X(HELD, "slice %d has nothing on its way")                                                                 \
    X(DETACH, "client %d takes slot %d out of slice %d's pool")                                                \
    X(OPERATE, "pool %d: operation %d, %d")                                                                    \
    X(LEAVE_CPU, "slice %d goes on on the portable shelf: %d")                                                 \
    X(REGAIN_CPU, "slice %d has its CPU again")                                                                \
    X(CLOSE_SHELF, "slice %d's shelf closes: %d")                                                              \
    X(CLOSE_CORE, "slice %d closes")                                                                           \
    X(FINISH, "slice %d has finished")                                                                         \
    X(REOPEN, "slice %d opens with %d slots")                                                                  \
    X(POOL_CLOSE, "pool %d closes")                                                                            \
    X(POOL_OPEN, "pool %d opens")                                                                              \
    X(STALL, "shard %d stalls")                                                                                \
    X(OFF_CPU, "shard %d is off its CPU: %d")                                                                  \
    X(OUTAGE, "the workers' origin is down: %d")                                                               \
    X(PHASE, "phase %d begins")

enum note {
#define NOTE_ENUM(name, words) NOTE_##name,
    NOTE_TABLE(NOTE_ENUM)
#undef NOTE_ENUM
        NOTES
};

/* --- the world --- */

enum phase {
    SAFETY,   /* anything may fail */
    LIVENESS, /* nothing fails any more: everything that waits must end */
    FINALE,   /* everything closes */
};

/* Where a slot is, as the oracle knows it. */
enum place {
    VACANT,
    OPENING,
    CLOSING,
    HELD, /* LIVE, the manager's: idle, doomed or on its way into a client's hands */
    SHELVED,
    TAKEN, /* off the shelf or the returned list, in the hands of a client who has no lease of it */
    LEASED,
    CLAIMED, /* on its way to the returned list */
    RETURNED,
    PLACES
};

enum reason {
    REASON_NONE = COREPOOL_REASON_NONE,
    REASON_CLOSED = COREPOOL_REASON_STOP,
    REASON_DOWN = COREPOOL_REASON_DOWN,
    REASON_FAILED = COREPOOL_REASON_FAILED,
    REASON_REMOVED = COREPOOL_REASON_REMOVED,
    REASON_CHECKOUT = COREPOOL_REASON_CHECKOUT,
    REASON_EVICTED = COREPOOL_REASON_EVICTED,
    REASON_FLUSHED = COREPOOL_REASON_FLUSHED,
    REASON_PING = COREPOOL_REASON_PING,
    REASON_INFO = COREPOOL_REASON_INFO,
};

struct known {
    enum place place;
    bool alive;         /* its worker was initialised and not terminated */
    enum reason doom;   /* for which the manager ends it */
    enum reason reason; /* for which a client ended it */
    uint32_t worker;    /* its number, while alive */
    uint32_t opens;     /* count: the late result of an older open is void */
    uint32_t round;     /* of opens, see struct cp_slice */
};

/* What has become of a request. */
enum fate {
    UNUSED,
    SENT, /* on its way to the manager */
    QUEUED,
    DECIDING,  /* the core has let it go, the manager is about to decide */
    DECIDED,   /* the manager has: its client takes notice */
    ABANDONED, /* its client has decided; the notice is on its way, and the core may still have it queued */
    STRAY,     /* the same, of a life of the slice that is over: nobody waits for the notice */
};

struct ask {
    struct cp_request request;
    struct client *client;
    enum fate fate;
    bool queued;            /* the core has it */
    struct cp_list arrival; /* in cp_slice.arrivals, or in world.spare_asks */
    unsigned number;
};

/* One of a slice's records for its neighbours. */
struct record {
    struct cp_want want;
    struct cp_slice *asker, *neighbour;
    uint64_t epoch; /* the neighbour's */
    bool under_way; /* lent or pushed, as the oracle knows it */
    bool sent;      /* its places are counted as gone */
};

struct shelf {
    uint32_t flags;  /* enum cp_shelf_flag */
    uint32_t traits; /* enum cp_trait */
    uint32_t head, tail, mask;
    cp_slot **ring;
};

struct cp_slice {
    unsigned number;
    struct shard *shard;
    struct pool *pool;
    /* As the real one has it. */
    struct shelf shelf;
    cp_slot *slots;
    uint32_t capacity; /* slots that there are */
    uint32_t limit;    /* of its share of the pool's size */
    struct record *records;
    struct cp_want **wants;
    cp_slot *returned;
    bool nudged;
    uint64_t epoch;
    struct cp_core core;
    struct cp_histogram waits;
    bool lost_cpu, close_wanted, sift_wanted;
    enum reason close_reason;
    bool dirty;             /* to be looked after … */
    bool for_thread;        /* … by the shard's thread, which has had a message for it that no caller takes */
    bool crowded;           /* cp_core_is_crowded when it came to rest, and nothing has happened since but what that allows */
    int64_t rested_at;
    int64_t timer;          /* when its wake-up is due */
    int64_t last_operation; /* on its way; they stay in order */
    bool paused, draining;
    bool holding;           /* its moves are held, and it has yet to say that none is under way */
    /* The oracle's. */
    struct known *known;     /* of each slot */
    uint32_t at[PLACES];     /* slots by place */
    struct cp_list arrivals; /* of queued requests */
    uint32_t notices;        /* requests that the manager found abandoned and whose notice it must await */
    uint32_t returning;      /* clients that have a part of the returned list or owe a look at `waiting` */
    uint64_t opened, terminated, adopted, moved; /* workers */
    int64_t hungry_at, stocked_at; /* since then it starves, or has workers on its shelf; CP_NEVER: it does not */
    uint32_t target;             /* of its quota */
    uint32_t failures, round;    /* of opens: those that begin between two failures are one round */
    int64_t not_before, overdue; /* between these the next open after a failure begins */
};

enum mail {
    MAIL_REQUEST,
    MAIL_GIVEN_UP,
    MAIL_NUDGE,
    MAIL_OPENED,
    MAIL_OPEN_FAILED,
    MAIL_GONE,
    MAIL_TIMER,
    MAIL_SPURIOUS,
    MAIL_EVICT,
    MAIL_CPU,
    MAIL_OPEN,
    MAIL_CLOSE,
    MAIL_PAUSE,
    MAIL_DRAIN,
    MAIL_RESIZE,
    MAIL_WARM,
    MAIL_FLUSH,
    MAIL_DETACH,
    MAIL_INFO,
    MAIL_HOLD,
    MAIL_RELEASE,
    MAIL_ASK,
    MAIL_ANSWER,
    MAIL_PARK,
    MAIL_PUSH,
    MAIL_RETURN,
};

struct message {
    enum mail kind;
    struct cp_slice *slice;
    struct ask *ask;
    cp_slot *slot;
    struct client *client; /* of a detach */
    struct record *record;
    uint64_t epoch;        /* of an operation: which life of the slice it is for */
    uint32_t value;        /* of an operation: a count, or whether */
    uint32_t serial;       /* known.opens, where that matters */
    struct message *next;  /* behind it in the inbox, or spare */
};

/* A shard and its manager. One step of it is one event. */
struct shard {
    unsigned number;
    struct message *inbox, **inbox_end;
    bool awake; /* its next step is in the event queue */
    bool off_cpu;
    int64_t stalled_until;
    struct cp_slice **slices; /* one for each pool */
    struct cp_slice *pumping;
    bool plays; /* a caller does it in its place, until something is left that is for the thread */
    void (*then)(struct cp_slice *); /* the rest of a step that others may get into; NULL: none */
    struct cp_slice *slice;          /* that `then` is about */
    struct cp_action action;         /* the same */
    uint64_t stamp;                  /* of the slot that a grant is about, before it */
    uint32_t left;                   /* slots on the shelf to look at */
};

struct pool {
    unsigned number;
    bool open;
    uint64_t generation;                       /* of its handles */
    unsigned busy;                             /* slices that have not opened, or not finished, yet */
    struct cp_slice *slices;                   /* one for each shard */
    bool fifo, managed, lazy, portable, looks, steals, movable; /* drawn at each opening */
    uint32_t size, most;     /* what the quotas sum to, and may at most */
    unsigned holding;        /* slices that have yet to say that nothing is on its way; then the operation goes on */
    unsigned operating;      /* slices that have yet to perform it */
    enum mail operation;
    uint32_t value;
};

/* How a client's checkout ends. */
enum ending {
    ENDED_LEASED,
    ENDED_EMPTY,
    ENDED_CLOSED,
    ENDED_TIMED_OUT,
    ENDED_CANCELLED,
    ENDED_SKIPPED,
    ENDED_REFUSED,
    ENDINGS
};

struct client {
    unsigned number, cpu;
    void (*step)(struct client *);  /* what it does next */
    void (*after)(struct client *); /* what follows when a slot is given back */
    bool retired;
    unsigned rounds; /* checkouts that it will still make, once nothing fails any more */
    /* The checkout. */
    struct pool *pool;
    uint64_t generation;
    struct cp_slice *slice;
    unsigned tries;
    enum cp_shelf_outcome outcome;
    bool only_tries, again, under_way;
    uint64_t epoch;
    struct ask *ask; /* while it waits */
    uint32_t waits;  /* count: deadlines of earlier waits are void */
    /* The returned list, taken off to look at. */
    cp_slot *list, *kept;
    bool overtakes;
    /* The slot in its hands, its lease, and the way back. */
    cp_slot *slot;
    uint64_t stamp;
    uint32_t tag;
    enum reason reason;
    bool wake;
    int64_t last_arrival; /* of its messages: they stay in order */
};

enum event_kind {
    EVENT_CLIENT,
    EVENT_DEADLINE,
    EVENT_WAKE,
    EVENT_MAIL,
    EVENT_MANAGER,
    EVENT_FAULT,
    EVENT_REOPEN
};

struct event {
    int64_t at;
    uint32_t sequence;
    enum event_kind kind;
    void *object;
    uint32_t serial;
};

struct world {
    uint64_t seed, random;
    int64_t now;
    enum phase phase;
    uint64_t steps;
    uint32_t sequence;
    struct event *queue; /* a heap */
    size_t queued, room;
    /* The seed's temper: log2 of the longest usual delay of a step, of a message, of a hold; of a timeout. */
    unsigned step_bits, mail_bits, hold_bits, timeout_bits;
    unsigned fault_bits;
    bool outage;
    int64_t settled_at; /* nothing fails since then */
    unsigned shard_count, pool_count, client_count, ask_count;
    struct shard *shards;
    struct pool *pools;
    struct client *clients;
    struct cp_list spare_asks;
    struct message *spare_mail;
    uint64_t epochs;
    uint64_t begun, ended;
};

extern struct world world;

/* --- draw.c: chance, time, memory --- */

uint64_t draw(uint64_t below);
/* One in `n`; never once faults are off. */
bool fault(uint64_t n);
/* 0 to 2^bits - 1 ticks, small ones far more often. */
#define TICK (CP_NS_PER_MS / 8)
int64_t delay(unsigned bits);
/* Zeroed memory of this world, gone with it. */
void *provide(size_t count, size_t bytes);
void clear_world(void);

void schedule(enum event_kind kind, void *object, uint32_t serial, int64_t at);
/* False: nothing will ever happen again. */
bool next_event(struct event *event);

/* --- trace.c --- */

void note(enum note note, int a, int b, int c);
void trace_begin(bool aloud);
uint64_t trace_hash(void);
/* How often each note was written, over all worlds of this process. */
extern uint64_t note_counts[NOTES];
const char *note_name(enum note note);

/* A law broke: says so with the trace's end, and ends the process with status 1. */
_Noreturn void broke(const char *law, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Signals that end a process are reported so, too. Only one of this process and its children reports. */
void trace_catch_signals(void);

/* --- shelf.c: each function is one atomic step --- */

#define NO_CPU UINT32_MAX

void shelf_init(struct cp_slice *slice, uint32_t flags, uint32_t traits);
enum cp_shelf_outcome shelf_take(struct cp_slice *slice, uint32_t cpu, enum cp_shelf_end end, enum place to,
                                 cp_slot **slot);
enum cp_shelf_outcome shelf_give(struct cp_slice *slice, uint32_t cpu, cp_slot *slot, uint64_t expected);
enum cp_shelf_outcome shelf_await(struct cp_slice *slice, uint32_t cpu);
enum cp_shelf_outcome shelf_give_oldest(struct cp_slice *slice, uint32_t cpu, cp_slot *slot, uint64_t expected);
bool shelf_drain(struct cp_slice *slice, cp_slot **slot);
bool shelf_wants_manager(const struct cp_slice *slice);
static inline enum cp_shelf_end shelf_end(const struct cp_slice *slice)
{
    return slice->shelf.traits & CP_TRAIT_FIFO ? CP_OLDEST : CP_NEWEST;
}
static inline uint32_t shelf_idle(const struct cp_slice *slice)
{
    return slice->shelf.head - slice->shelf.tail;
}

/* --- manager.c, action.c: a shard's thread --- */

void manager_step(struct shard *shard);
void manager_wake(struct shard *shard);
/* A message is there. */
void manager_receive(struct message *message);
/* From anyone, not before `at`. */
struct message *send_mail(enum mail kind, struct cp_slice *slice, struct ask *ask, cp_slot *slot, int64_t at);

/* What the core decided is carried out. False: the pump has nothing left to do now. */
bool perform(struct cp_slice *slice, const struct cp_action *action);

/* A client plays the manager: the slot that it has claimed goes to the first who waits, if the slice is crowded. */
bool hand_on(struct cp_slice *slice, cp_slot *slot);
/* The manager has become the owner of a slot. */
void adopt(struct cp_slice *slice, cp_slot *slot);
void collect(struct cp_slice *slice);
/* The slice's shelf is out of reach. False: a timer is set to try again. */
bool leave_cpu(struct cp_slice *slice);
void set_timer(struct cp_slice *slice, int64_t at);
uint32_t manager_cpu(const struct shard *shard);

/* --- operate.c --- */

void send_operation(enum mail kind, struct cp_slice *slice, cp_slot *slot, uint32_t value);
void operate(struct message *message);
/* Starts to look for what is doomed on the shelf and the returned list: a step for each slot. */
void bring_in(struct cp_slice *slice);
void refresh_one(struct cp_slice *slice);
/* It goes when it comes to the manager, at once if it is in its hands. */
void doom(struct cp_slice *slice, cp_slot *slot, enum reason reason);

/* --- steal.c --- */

bool is_steal(const struct cp_action *action);
bool perform_steal(struct cp_slice *slice, const struct cp_action *action);
void deliver_ask(struct record *record);
void deliver_answer(struct record *record);
void deliver_push(struct record *record);
void deliver_return(struct record *record);
void nudge_slice(struct cp_slice *slice);
/* An operation on all slices during which nothing may be on its way. */
void begin_held(struct pool *pool, enum mail kind, uint32_t value);
/* A slice has performed it: once all have, their moves are released. */
void operated(struct pool *pool);
/* The slice's manager rests. */
void tell_held(struct cp_slice *slice);
/* What of the pool is on its way. */
uint32_t units_under_way(const struct pool *pool);

/* --- visit.c --- */

void look_at_all(struct cp_slice *slice);
void fetch(struct cp_slice *slice);
void ask_worker(struct cp_slice *slice, cp_slot *slot, enum reason standard);
void put_oldest(struct cp_slice *slice, cp_slot *slot);

/* --- worker.c --- */

void worker_open(cp_slot *slot);
void worker_opened(cp_slot *slot, bool ok);
void worker_cancel_open(cp_slot *slot);
void worker_terminate(cp_slot *slot);
void worker_gone(cp_slot *slot);
/* A new world has none; and none is left when everything is closed. */
void forget_workers(void);
void check_workers(void);

/* --- client.c, giveback.c --- */

void client_begin(struct client *client);
void client_woken(struct client *client);
void client_deadline(struct client *client, uint32_t wait);
void client_ends(struct client *client, enum ending ending);
/* Schedules its next step. */
void client_goes_on(struct client *client, void (*step)(struct client *), int64_t wait);
/* Ends the lease in its hands; `after` follows. */
void give_back(struct client *client, enum reason reason, void (*after)(struct client *));
/* Hands a slot without a lease to the manager. */
void hand_over(struct client *client, uint32_t tag, void (*after)(struct client *));
/* One slot of a list that was taken off returned, to the shelf or on the list again. */
void put_back(struct client *client, void (*after)(struct client *));
bool pool_is_open(const struct client *client);

/* --- pools.c --- */

void pool_close(struct pool *pool);
void pool_open(struct pool *pool);
void slice_open(struct cp_slice *slice);
void slice_finished(struct cp_slice *slice);

/* --- laws.c: the oracle --- */

struct known *known_of(const cp_slot *slot);
static inline struct ask *ask_of(struct cp_request *request)
{
    return cp_container(request, struct ask, request);
}
/* L2: it is here and goes there. */
void move(cp_slot *slot, enum place from, enum place to);
void arrives(struct cp_slice *slice, struct ask *ask);
void leaves(struct ask *ask);
/* L4: it is its turn. */
void check_turn(const struct cp_slice *slice, const struct ask *ask);
void check_refusal(const struct cp_slice *slice, const struct ask *ask, enum cp_outcome outcome);
/* Before the open; after its end; before the end of a worker. */
void check_open(const struct cp_slice *slice, cp_slot *slot);
void open_ended(struct cp_slice *slice, cp_slot *slot, bool ok);
void check_terminate(const struct cp_slice *slice, const cp_slot *slot, uint8_t reason);
/* May be handed out. */
void check_usable(const cp_slot *slot);
/* L1 by the sums; lost wake-ups. */
void check_sums(const struct cp_slice *slice);
/* The core says that there is nothing to do. */
void check_rest(const struct cp_slice *slice);

/* After a step that cp_core_is_crowded allows: the core has nothing to do but what time brings. */
void check_crowd(struct cp_slice *slice);
void check_finish(const struct cp_slice *slice);
/* L3 over the pool: notes since when the slice starves, and breaks when that was for too long beside an idle worker. */
void check_hunger(struct cp_slice *slice);
/* Everything, at any time; when nothing is under way; when everything is closed. */
void check_world(void);
void check_quiescent(void);
void check_closed(void);

/* --- world.c --- */

/* The trace's hash. careful: all laws at every step. */
uint64_t run_seed(uint64_t seed, bool careful, bool aloud);

#endif
