/* shard/slice.h: one pool's part on one shard: the shelf, the slots, the core, and the manager that drives it.
 *
 * Thread default: who plays the manager, the shard's thread or in its place a caller (see shard.h; what calls the class, or
 * asks something of the loop, is the thread's alone); exceptions are marked. Memory: a block {slots, slice, ring} of a size class, made by its
 * shard and a slice until the runtime is destroyed; so a caller that has read a slice's address
 * may always look at it, and then finds by the pool's generation whether it was still its pool's. A slice that grows gets
 * further segments of slots, each as large as all before it, and another ring; both stay with it: it is of a larger size
 * class from then on.
 *
 * How a slot comes back: give puts it on the shelf; when that cannot be (someone waits, elsewhere, closed, doomed, to
 * be removed) it goes on the slice's returned list; or, if someone waits or it is to be removed, and nobody plays the manager,
 * its giver does so and takes the slot in at once. The manager empties that list whenever it is nudged, and after it
 * has set `waiting`. A giver from elsewhere nudges only when the shelf wants the manager:
 *
 *     giver:    push on returned         then read `waiting`   → nudge if set
 *     manager:  set `waiting`            then empty returned (an exchange, also when it looks empty)
 *
 * Push and exchange change the same word, so one comes after the other and sees what went before it. (The model of the same
 * protocol is tests/model/wait.pml.) It is the same with CLOSED, and with PORTABLE, when a shard leaves its CPU: callers look
 * at the list of an rseq shelf only. */
#ifndef CP_SHARD_SLICE_H
#define CP_SHARD_SLICE_H

#include <corepool/event.h>

#include "base/heap.h"
#include "core/core.h"
#include "machine/thread.h"

struct cp_slice_config {
    const corepool_class_t *cls;
    void *arg;
    const char *name;
    bool portable;  /* callers from several CPUs: the portable shelf */
    bool shared;    /* other shards' callers come here, too */
    bool fifo;
    bool serialised; /* enqueue, checkout and checkin callbacks run here; managed, too */
    bool timed;     /* how long leases are held is measured */
    int64_t barging_ns; /* how long a turn lasts; 0: as long as a lease */
    uint32_t backtrace_every; /* 0: no checkout notes its backtrace */
    struct cp_core_options core;
    corepool_event_cb on_event; /* may be NULL */
    void *event_arg;
    /* On the shard, when the last worker and the pool state are gone. The slice must not be used afterwards. */
    void (*finished)(struct cp_slice *slice, void *context);
    /* On the shard, while the slice is watched: something may have changed. False: it need not be watched any more. */
    bool (*changed)(struct cp_slice *slice, void *context);
    /* On the shard: a worker's ping has said that the whole pool is to close. */
    void (*stop)(struct cp_slice *slice, void *context, corepool_reason_t reason);
    /* The slice of the same pool on that shard, with *epoch; NULL: there is none, or it has finished, or the pool is still being
     * opened. On the shard. */
    struct cp_slice *(*sibling)(void *context, unsigned shard, uint64_t *epoch);
    void *context;
};

#define CP_ERROR_BYTES 128

struct cp_slice {
    /* Callers' line. */
    struct cp_shelf shelf;
    /* Read by callers, fixed while open. */
    cp_slot *slots cp_line_aligned; /* the first `base_slots` of them */
    cp_slot **segments;          /* the rest; NULL until it grows */
    _Atomic(const corepool_class_t *) cls;
    struct corepool_shard *shard;
    _Atomic(struct cp_item *) *ring; /* of as many as `capacity`, rounded up to a power of two */
    uint32_t base_slots;         /* slots in the block */
    _Atomic uint32_t capacity;   /* slots that there are: base_slots, or doubled so many times as it has segments */
    _Atomic uint64_t epoch;      /* one per opening, over the whole process; 0 while closed */
    struct cp_slice_config config;
    uint64_t leases_before;      /* sum of the slots' generations when it was opened */
    /* Written by callers. */
    _Atomic(cp_slot *) returned cp_line_aligned;
    _Atomic uint32_t nudged;     /* the nudge is posted */
    struct cp_message nudge;
    struct cp_message close_message;
    /* The last failed open, for callers that time out. */
    struct cp_lock error_lock;
    char error[CP_ERROR_BYTES];
    /* Counts of callers. */
    _Atomic uint64_t skips;
    _Atomic uint64_t refused;     /* by callers themselves: too many waited */
    _Atomic uint64_t reclaimed;  /* leases of threads that have ended */
    _Atomic(struct cp_histogram *) holds; /* NULL: nobody wants to know */
    /* The manager's. */
    struct cp_core core cp_line_aligned;
    void *pool_state;
    _Atomic uint64_t ended[COREPOOL_REASONS + 1]; /* workers, by reason; the last: the program's own */
    _Atomic uint64_t overdue;    /* leases that were reported */
    _Atomic(struct cp_histogram *) opens; /* how long each init took; NULL: none has ended */
    struct cp_list link;         /* in the shard's list of open slices, or of spare blocks */
    struct cp_list dirty;        /* in the shard's list of slices to look after */
    struct cp_heap_node sleeping; /* in the shard's heap of slices with a wake-up time */
    void *message;               /* of the info visit under way */
    struct cp_neighbours *neighbours; /* of shard/steal.c; NULL: it has never asked or pushed */
    bool pumping;
    bool between_steps;          /* of the pump: a granted request's caller is being told */
    uint8_t taken_in;            /* requests that the pump has taken in meanwhile */
    bool crowded;                /* cp_core_is_crowded, and nothing has happened since but what that allows */
    bool watched;                /* config.changed is told of every change */
    _Atomic bool turnless;       /* cp_core_holds, in a slice with turns: there are none now */
    _Atomic bool quiet;          /* nothing waited and nothing was out at the last change, while it is watched */
    _Atomic bool home;           /* no want was on its way, from here or to here, likewise */
    bool cannot_steal;           /* it had no memory for that, and has said so */
    bool lost_cpu;               /* the shelf was made portable because the manager lost its CPU */
    bool close_wanted;
    bool sift_wanted;            /* a doomed worker was out of reach on the shelf */
    uint8_t close_reason;
};

_Static_assert(sizeof(struct cp_slice) + sizeof(cp_slot) + CP_CACHE_LINE <= 2048,
               "a slice with one slot and its ring is at most two KiB: there may be many thousands");

/* Its slot of that number, which is below the capacity. Thread: any. */
static inline cp_slot *cp_slice_slot(const struct cp_slice *slice, uint32_t number)
{
    if (cp_likely(number < slice->base_slots))
        return &slice->slots[number];
    unsigned segment = 31 - (unsigned)__builtin_clz(number / slice->base_slots);
    return &slice->segments[segment][number - (slice->base_slots << segment)];
}

/* All slots of a slice, used or not, in the order of their numbers; NULL behind the last. Thread: any. */
static inline cp_slot *cp_slice_first(const struct cp_slice *slice)
{
    return slice->slots;
}

static inline cp_slot *cp_slice_next(const cp_slot *slot)
{
    const struct cp_slice *slice = slot->slice;
    /* Acquire: pairs with the release after a segment is in place. */
    uint32_t capacity = atomic_load_explicit(&slice->capacity, memory_order_acquire);
    return slot->number + 1 < capacity ? cp_slice_slot(slice, slot->number + 1) : NULL;
}

static inline enum cp_shelf_end cp_slice_end(const struct cp_slice *slice)
{
    return cp_shelf_is(&slice->shelf, CP_TRAIT_FIFO) ? CP_OLDEST : CP_NEWEST;
}

/* Whether the caller may play the manager of the slice's shard: there are no callbacks that are promised the shard's thread, and
 * its shelf is within reach. Thread: any. */
static inline bool cp_slice_is_here(const struct cp_slice *slice)
{
    uint32_t flags = atomic_load_explicit(&slice->shelf.flags, memory_order_relaxed);
    return !cp_shelf_is(&slice->shelf, CP_TRAIT_THREADED) && (flags & CP_SHELF_PORTABLE || cp_rseq_cpu() == slice->shelf.cpu);
}

/* Posts to who plays the manager, or to the shard's thread if that alone may. False: stopped, not consumed. Thread: any. */
bool cp_slice_ask(struct cp_slice *slice, struct cp_message *message);

/* Whether enqueue, checkout and checkin are the manager's to call. Thread: any. */
static inline bool cp_slice_is_serialised(const struct cp_slice *slice)
{
    return cp_shelf_is(&slice->shelf, CP_TRAIT_SERIALISED);
}

/* Takes a block for `quota` slots from its shard. NULL: no memory. */
struct cp_slice *cp_slice_create(struct corepool_shard *shard, uint32_t quota);
void cp_slice_release(struct cp_slice *slice);

/* The length of its shelf's ring. */
uint32_t cp_slice_ring_size(const struct cp_slice *slice);

/* Makes room for `quota` slots. ENOMEM, ESYSTEM (a membarrier was refused): with detail, and as many as before. */
int cp_slice_reserve(struct cp_slice *slice, uint32_t quota);

/* Opens: pool_init, then workers as the core wants them. Else pool_init's code or COREPOOL_IGNORE; the slice is as before. */
int cp_slice_open(struct cp_slice *slice, const struct cp_slice_config *config);

/* Closes; `finished` is called later. Idempotent. */
void cp_slice_close(struct cp_slice *slice, corepool_reason_t reason);

/* Something changed: look after it before the loop sleeps. */
void cp_slice_touch(struct cp_slice *slice);

/* Does all there is to do. Called by the shard for dirty slices. */
void cp_slice_pump(struct cp_slice *slice);

/* Does what any thread may do. True: the shard's thread is to look after the rest. Thread: who plays the manager. */
bool cp_slice_pump_anywhere(struct cp_slice *slice);

/* On its shard, between two steps of the manager: a request is served, or what has come back is taken in, without another turn
 * of the loop. With nobody waiting that is done here and now, for returns to a managed slice only; within the callback of a grant
 * of the same slice the pump that granted goes on with it, so that callbacks which ask again do not nest. False: not
 * now, it is to be posted. Thread: any. */
bool cp_slice_serve_at_once(struct cp_slice *slice, struct cp_request *request);
bool cp_slice_collect_at_once(struct cp_slice *slice);

/* A request has reached the manager. False: it is not the core's, but has been answered. */
bool cp_slice_accept(struct cp_request *request);

/* The shelf is out of reach from this CPU: callers go on on the portable shelf. False: not now, a timer is set. */
bool cp_slice_leave_cpu(struct cp_slice *slice);

/* Its shard is parked: the shelf is portable from now on; if callers come here from this shard's CPUs only, workers and places
 * go to the pool's other slices, as far as they may. May be repeated. */
void cp_slice_park(struct cp_slice *slice);

/* Brings the shelf back to rseq after the shard has its CPU again. */
void cp_slice_regain(struct cp_slice *slice);

/* --- operations; each is followed by cp_slice_pump or cp_slice_touch --- */

/* The quota is to be `quota`, for which there is room: see cp_core_resize. */
void cp_slice_resize(struct cp_slice *slice, uint32_t quota);

/* Every worker whose init has begun is to be replaced. */
void cp_slice_flush(struct cp_slice *slice, bool gently);

/* CP_DO_REFRESH. */
void cp_slice_refresh_one(struct cp_slice *slice);

/* Ends the lease of that stamp and hands its resource to a client: ESTALE, or OK with *resource. */
int cp_slice_detach(cp_slot *slot, uint64_t stamp, void **resource);

/* Whether what cp_core_holds asks for has come about: callers find the shelf empty, and all else in the manager's hands. */
bool cp_slice_is_held(const struct cp_slice *slice);

/* Turns the shelf round once: what is doomed comes out, the rest is back in the same order. What is doomed and leased comes to the
 * manager afterwards. */
void cp_slice_sift(struct cp_slice *slice);

/* Adopts what is on the returned list. */
void cp_slice_collect(struct cp_slice *slice);

/* Checks L1 to L4 by counting everything there is; NULL or what is broken. Exact when quiescent. */
const char *cp_slice_check(struct cp_slice *slice);

/* Posts a filled-in request to the slice's manager. False: the shard has stopped, not consumed. Thread: any. */
bool cp_slice_send_request(struct cp_slice *slice, struct cp_request *request, uint64_t epoch);

/* Decides a request, held or not. False: it had been given up. It may be its caller's again afterwards. */
bool cp_slice_decide(struct cp_request *request, enum cp_outcome outcome);

/* Tells the caller of a decided request, whose `notify` was read before. */
void cp_slice_notify(struct corepool_shard *shard, struct cp_request *request, void (*notify)(struct cp_request *));

/* Both. */
bool cp_slice_answer(struct cp_request *request, enum cp_outcome outcome);

/* Lets go of a held request: with its outcome, or as pending. */
void cp_slice_let_go(struct cp_request *request, enum cp_outcome outcome);

/* The manager has become the slot's owner. The worker goes on if `reason` (as from cp_verdict) is NONE and it is not doomed, else it
 * goes. */
void cp_slice_adopt(struct cp_slice *slice, cp_slot *slot, uint32_t reason);

/* Decides a request for its caller, who gives up: TIMED_OUT or CANCELLED. False: the manager was faster. Waits while a callback
 * looks at the command. Thread: the one that sent it. */
bool cp_slice_withdraw(struct cp_request *request, enum cp_outcome outcome);

/* Sleeps while a callback looks at its command. */
void cp_slice_await_hold(struct cp_request *request);

/* Tells the manager that nobody took what this request was granted: its class is told that it was cancelled. The request is
 * released. Thread: any. */
void cp_slice_unused(struct cp_request *request);

/* Tells the manager that enqueue returned `verdict`, which means nothing, on a caller's thread: a COREPOOL_EVENT_WARNING.
 * The request carries it, and is released. epoch: the slice's, while it was the pool's. Thread: any. */
void cp_slice_send_nonsense(struct cp_slice *slice, struct cp_request *request, uint64_t epoch, int verdict);

/* That warning. */
void cp_slice_warn_of_enqueue(const struct cp_slice *slice, int verdict);

/* Tells the manager that a request was given up (its outcome was decided by the caller). Thread: the one that sent it. */
void cp_slice_give_up(struct cp_request *request);

/* Makes one that is missing: most slices of thousands never see a value. It stays with the slice's block; without memory
 * it stays NULL, and a COREPOOL_EVENT_WARNING tells so. */
void cp_slice_need_histogram(struct cp_slice *slice, _Atomic(struct cp_histogram *) *histogram);

/* Tells the program; pool and shard are filled in here. */
void cp_slice_tell(const struct cp_slice *slice, const corepool_event_t *event);

/* The same for a COREPOOL_EVENT_WARNING about a worker. code: what its class returned, or 0. */
void cp_slice_warn(const struct cp_slice *slice, const cp_slot *slot, int code, const char *text);

/* Asks the manager to look at the returned list: at once, where that is possible; not before the caller has gone on. Thread: any. */
void cp_slice_nudge(struct cp_slice *slice);
void cp_slice_nudge_later(struct cp_slice *slice);

/* The caller owns the slot (its stamp says RETURNED or REMOVED by the caller's swap): hands it to the manager.
 * wake: whether the manager must act in any case. Thread: any. */
void cp_slice_return(cp_slot *slot, bool wake);

/* The same in its thread's turn: the manager leaves it where it is, for that thread to come back, until the turn has ended.
 * Thread: any. */
void cp_slice_keep(cp_slot *slot);

/* Instead of cp_slice_return with `wake`: the caller plays the manager and takes the slot in. False: it is not here, or another
 * plays, or an entry of an earlier ending is still on the list; nothing has been done. Thread: any. */
bool cp_slice_take_back(cp_slot *slot);

/* Whether the thread may go before those who wait. Thread: self. */
static inline bool cp_slice_is_turn(const struct cp_slice *slice, const struct cp_thread *self)
{
    return cp_unlikely(self->turn_of != 0) && self->turn_of == atomic_load(&slice->epoch) &&
           !atomic_load(&slice->turnless) && cp_now_ns() < self->turn_ends;
}

/* The newest usable slot of the returned list, stamped MANAGER, or NULL; the rest goes to the shelf. For a caller that missed,
 * on the slice's CPU; none while a request waits (it would overtake), unless it is the caller's turn. Thread: any. */
cp_slot *cp_slice_collect_one(struct cp_slice *slice, bool turn);

/* Copies the words of the last failed open; empty when the last open succeeded. Thread: any. */
void cp_slice_last_error(struct cp_slice *slice, char text[CP_ERROR_BYTES]);

/* Leases so far; leases out. Thread: any, exact when quiescent. */
uint64_t cp_slice_leases(const struct cp_slice *slice);
uint32_t cp_slice_leased(const struct cp_slice *slice);

#endif
