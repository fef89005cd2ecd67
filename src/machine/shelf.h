/* machine/shelf.h: the idle items of one slice, where callers take and give without the manager.
 *
 * A bounded ring of item pointers, [tail, head) are idle, tail is the oldest; and above it the top, the newest of all. The top
 * is idle if its stamp says that it is shelved; else it is there for when it comes back, and the ring's newest is the shelf's. So
 * a caller that takes and gives one after the other only ever touches the top's stamp. What is in the ring is shelved, and
 * never the top. Contract, as pseudocode over all that is idle, the ring's and the top; each operation is one atomic step
 * with respect to all others on the same shelf:
 *
 *   take(end)      if closed:                           CLOSED
 *                  if not on shelf.cpu:                 ELSEWHERE       (rseq only)
 *                  if none is idle:                     EMPTY
 *                  NEWEST: the top, else head -= 1, item = ring[head]
 *                  OLDEST: item = ring[tail], tail += 1, else the top;  DONE
 *   give(item)     if item.stamp != expected:           STALE
 *                  if closed:                           CLOSED
 *                  if waiting:                          WAITING
 *                  if not on shelf.cpu:                 ELSEWHERE       (rseq only)
 *                  if item.doomed:                      DOOMED          (by the usual path, if it is not the top)
 *                  if the top is idle: ring[head] = top, head += 1; top = item; item.stamp = shelved;  DONE
 *   give_oldest(item)  as give, but: tail -= 1; ring[tail] = item;    DONE   (undoes a take of the oldest)
 *   forget_doomed() if not on shelf.cpu:                ELSEWHERE       (rseq only)
 *                  if the top is doomed and not idle: there is none;    DONE
 *   await()        if closed:                           CLOSED
 *                  if not on shelf.cpu:                 ELSEWHERE       (rseq only)
 *                  if any is idle:                      NONEMPTY
 *                  waiting = true;                                      DONE
 *
 * After any outcome but DONE nothing has changed for an observer that goes by the rules below.
 *
 * Two implementations answer to it. Restartable sequences (Linux rseq, see rseq(2) in the kernel's
 * documentation): plain loads and stores that the kernel restarts when the thread is preempted, migrated or
 * signalled before the last one, so they exclude each other because all run on one CPU. Portable: the same ring
 * under a lock, from any CPU. The PORTABLE flag selects; a shelf may be switched while in use.
 *
 * Who may write what: head, tail, top, ring and the WAITING flag: any of the operations. CLOSED and PORTABLE: the
 * manager. `cpu` and the traits are fixed while the shelf is in use, `mask` and `ring` but for cp_shelf_grow.
 *
 * The owner stamp: generation << CP_TAG_BITS | tag. The generation counts the item's leases. Law L2: whoever
 * swaps the stamp from one state to the next owns the item from there on. Give's swap is a plain store inside
 * the sequence: it excludes every giver on this CPU, but not a simultaneous compare-and-swap on another CPU by
 * a program that ends one lease twice at once. Then both swaps succeed and the plain store is the one that
 * stays; the item is also on the returned list, where the collector finds a stamp that does not say
 * RETURNED and drops that entry; or the other giver plays the manager, and finds the same. See core/slot.h. */
#ifndef CP_MACHINE_SHELF_H
#define CP_MACHINE_SHELF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/lock.h"

/* The 56 bits of generation last for 20 years of one slot at 10^8 leases a second, and a stale lease would have to be kept
 * exactly that long to be mistaken. */
#define CP_TAG_BITS 8
#define CP_TAG_MASK ((UINT64_C(1) << CP_TAG_BITS) - 1)

enum cp_tag {
    CP_TAG_LEASED = 0,   /* held by a client */
    CP_TAG_MANAGER = 1,  /* held by the shard: vacant, opening, idle in its hands, closing */
    CP_TAG_RETURNED = 2, /* on the returned list, to be used again */
    CP_TAG_REMOVED = 3,  /* on the returned list, to be terminated */
    CP_TAG_SHELVED = 4,  /* on the shelf; a bit that no other has */
};

static inline uint64_t cp_stamp(uint64_t generation, uint32_t tag)
{
    return generation << CP_TAG_BITS | tag;
}

static inline uint64_t cp_stamp_generation(uint64_t stamp)
{
    return stamp >> CP_TAG_BITS;
}

/* The same generation with another owner. */
static inline uint64_t cp_stamp_passed(uint64_t stamp, uint32_t tag)
{
    return (stamp & ~CP_TAG_MASK) | tag;
}

/* The next lease of an item that nobody else can reach. */
static inline uint64_t cp_stamp_next_lease(uint64_t stamp)
{
    return (stamp & ~CP_TAG_MASK) + (UINT64_C(1) << CP_TAG_BITS);
}

static inline uint32_t cp_stamp_tag(uint64_t stamp)
{
    return (uint32_t)(stamp & CP_TAG_MASK);
}

static inline bool cp_stamp_is_shelved(uint64_t stamp)
{
    return stamp & CP_TAG_SHELVED;
}

/* What a shelf holds: the first member of a slot. */
struct cp_item {
    _Atomic uint64_t stamp;
    _Atomic uint32_t doomed; /* nonzero: not to be shelved again, see cp_shelf_doom; written by the manager */
};

/* Any of them stops the usual path (corepool/layout.h), which asks for none and for its CPU in one comparison. */
enum cp_shelf_flag {
    CP_SHELF_WAITING = 0x1,
    CP_SHELF_CLOSED = 0x2,
    CP_SHELF_PORTABLE = 0x4,
    /* The owner's: a caller that asks for it (see cp_rseq_take_newest's `stop`) stops on them, others pass. */
    CP_SHELF_LOOK_TAKE = 0x10,
    CP_SHELF_LOOK_GIVE = 0x20,
};

/* The owner's, of no meaning to a shelf. */
enum cp_trait {
    CP_TRAIT_FIFO = 0x1,
    CP_TRAIT_MANAGED = 0x2,
    CP_TRAIT_SERIALISED = 0x4,
    CP_TRAIT_THREADED = 0x8, /* only the shard's thread may play the manager */
    CP_TRAIT_ORDERED = 0x10, /* FIFO, and that is all that a take has to look at */
};

/* What stops every take or await, and every give. */
#define CP_SHELF_STOP_TAKE (CP_SHELF_CLOSED | CP_SHELF_PORTABLE)
#define CP_SHELF_STOP_GIVE (CP_SHELF_STOP_TAKE | CP_SHELF_WAITING)

enum cp_shelf_outcome {
    CP_SHELF_DONE,
    CP_SHELF_EMPTY,
    CP_SHELF_NONEMPTY,
    CP_SHELF_ELSEWHERE,
    CP_SHELF_CLOSED_NOW,
    CP_SHELF_SOMEONE_WAITS,
    CP_SHELF_STALE,
    CP_SHELF_DOOMED,
    CP_SHELF_LOOK, /* one of the owner's flags, for a caller that asked to stop on it */
    /* Private to the implementations: */
    CP_SHELF_SWITCH, /* to the portable one */
    CP_SHELF_ABORT,  /* look again: the kernel restarted the sequence, or the kind or flags have just changed */
};

enum cp_shelf_end { CP_NEWEST, CP_OLDEST };

struct cp_shelf {
    _Atomic uint32_t head; /* free running; head - tail items are idle, and the top */
    _Atomic uint32_t tail;
    _Atomic(struct cp_item *) top; /* see above; never NULL */
    uint32_t cpu;
    _Atomic uint32_t flags;  /* enum cp_shelf_flag */
    _Atomic(struct cp_item *) *ring;
    uint32_t mask;
    _Atomic uint32_t traits; /* enum cp_trait; fixed while the shelf is in use */
    struct cp_lock lock;     /* portable only */
} cp_line_aligned;

_Static_assert(offsetof(struct cp_shelf, head) % 16 == 0 && offsetof(struct cp_shelf, tail) == offsetof(struct cp_shelf, head) + 4 &&
                   offsetof(struct cp_shelf, top) == offsetof(struct cp_shelf, head) + 8,
               "head, tail and top are changed by one store");
_Static_assert(offsetof(struct cp_shelf, cpu) % 8 == 0 && offsetof(struct cp_shelf, flags) == offsetof(struct cp_shelf, cpu) + 4,
               "CPU and flags are compared as one word");
_Static_assert(sizeof(struct cp_shelf) == CP_CACHE_LINE, "a shelf is one line");

/* The top of a shelf that has none: an item that is never idle. */
extern struct cp_item cp_no_item __attribute__((visibility("hidden")));

/* The shelf of a thread on no CPU: closed, and no CPU's. */
extern struct cp_shelf cp_no_shelf __attribute__((visibility("hidden")));

/* For memory the caller owns. ring: room for `capacity` pointers, a power of two; at most that many items may
 * exist. A shelf that starts PORTABLE has no CPU of its own. */
void cp_shelf_init(struct cp_shelf *shelf, _Atomic(struct cp_item *) *ring, uint32_t capacity, uint32_t cpu,
                   bool portable);

/* Under the lock: why an operation cannot go on, or DONE. */
static inline enum cp_shelf_outcome cp_shelf_check_locked(const struct cp_shelf *shelf)
{
    uint32_t flags = atomic_load_explicit(&shelf->flags, memory_order_relaxed);
    if (!(flags & CP_SHELF_PORTABLE))
        return CP_SHELF_ABORT; /* it has become an rseq shelf: look again */
    return flags & CP_SHELF_CLOSED ? CP_SHELF_CLOSED_NOW : CP_SHELF_DONE;
}

/* The top, if it is idle. Thread: any; for good under the lock. */
static inline struct cp_item *cp_shelf_idle_top(const struct cp_shelf *shelf)
{
    struct cp_item *top = atomic_load_explicit(&shelf->top, memory_order_relaxed);
    return cp_stamp_is_shelved(atomic_load_explicit(&top->stamp, memory_order_relaxed)) ? top : NULL;
}

/* Under the lock. NULL: nothing on top. The taker has yet to change the stamp: it is the top no more. */
static inline struct cp_item *cp_shelf_take_top_locked(struct cp_shelf *shelf)
{
    struct cp_item *top = cp_shelf_idle_top(shelf);
    if (top)
        atomic_store_explicit(&shelf->top, &cp_no_item, memory_order_relaxed);
    return top;
}

/* Under the lock. NULL: nothing in the ring. */
static inline struct cp_item *cp_shelf_take_ring_locked(struct cp_shelf *shelf, enum cp_shelf_end end)
{
    uint32_t head = atomic_load_explicit(&shelf->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&shelf->tail, memory_order_relaxed);
    if (head == tail)
        return NULL;
    if (end == CP_NEWEST)
        atomic_store_explicit(&shelf->head, head - 1, memory_order_relaxed);
    else
        atomic_store_explicit(&shelf->tail, tail + 1, memory_order_relaxed);
    return atomic_load_explicit(&shelf->ring[(end == CP_NEWEST ? head - 1 : tail) & shelf->mask], memory_order_relaxed);
}

static inline enum cp_shelf_outcome cp_shelf_take_locked(struct cp_shelf *shelf, enum cp_shelf_end end,
                                                         struct cp_item **item)
{
    enum cp_shelf_outcome outcome = cp_shelf_check_locked(shelf);
    if (outcome != CP_SHELF_DONE)
        return outcome;
    *item = end == CP_NEWEST ? cp_shelf_take_top_locked(shelf) : cp_shelf_take_ring_locked(shelf, CP_OLDEST);
    if (!*item)
        *item = end == CP_NEWEST ? cp_shelf_take_ring_locked(shelf, CP_NEWEST) : cp_shelf_take_top_locked(shelf);
    return *item ? CP_SHELF_DONE : CP_SHELF_EMPTY;
}

/* Under the lock: why the item cannot be given, or DONE. */
static inline enum cp_shelf_outcome cp_shelf_check_give_locked(const struct cp_shelf *shelf, const struct cp_item *item,
                                                               uint64_t expected)
{
    enum cp_shelf_outcome outcome = cp_shelf_check_locked(shelf);
    if (outcome == CP_SHELF_ABORT)
        return outcome;
    if (atomic_load_explicit(&item->stamp, memory_order_relaxed) != expected)
        return CP_SHELF_STALE;
    if (outcome != CP_SHELF_DONE)
        return outcome;
    if (atomic_load_explicit(&shelf->flags, memory_order_relaxed) & CP_SHELF_WAITING)
        return CP_SHELF_SOMEONE_WAITS;
    return atomic_load_explicit(&item->doomed, memory_order_relaxed) ? CP_SHELF_DOOMED : CP_SHELF_DONE;
}

static inline enum cp_shelf_outcome cp_shelf_give_locked(struct cp_shelf *shelf, struct cp_item *item,
                                                         uint64_t expected, uint64_t shelved)
{
    enum cp_shelf_outcome outcome = cp_shelf_check_give_locked(shelf, item, expected);
    if (outcome != CP_SHELF_DONE)
        return outcome;
    struct cp_item *top = cp_shelf_idle_top(shelf);
    if (top) {
        uint32_t head = atomic_load_explicit(&shelf->head, memory_order_relaxed);
        atomic_store_explicit(&shelf->ring[head & shelf->mask], top, memory_order_relaxed);
        atomic_store_explicit(&shelf->head, head + 1, memory_order_relaxed);
    }
    atomic_store_explicit(&shelf->top, item, memory_order_relaxed);
    atomic_store_explicit(&item->stamp, shelved, memory_order_relaxed);
    return CP_SHELF_DONE;
}

static inline bool cp_shelf_is(const struct cp_shelf *shelf, enum cp_trait trait)
{
    return atomic_load_explicit(&shelf->traits, memory_order_relaxed) & trait;
}

/* The portable half; also reached through the inline functions below. */
enum cp_shelf_outcome cp_shelf_portable_take(struct cp_shelf *shelf, enum cp_shelf_end end, struct cp_item **item);
enum cp_shelf_outcome cp_shelf_portable_give(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                             uint64_t shelved);
enum cp_shelf_outcome cp_shelf_portable_await(struct cp_shelf *shelf);

/* Sets or clears flags; the manager only. Afterwards no operation that did not see the change can still
 * take effect: by the lock, by running on the shelf's CPU, or else by a membarrier. WAITING is only ever cleared
 * this way (await sets it). False when the membarrier was refused: nothing was changed. */
bool cp_shelf_change(struct cp_shelf *shelf, uint32_t set, uint32_t clear);

/* Moves what is on the shelf to a larger ring, in the same order; the old one is not used afterwards. The manager only.
 * False: a membarrier was refused, nothing was changed. */
bool cp_shelf_grow(struct cp_shelf *shelf, _Atomic(struct cp_item *) *ring, uint32_t capacity);

/* Swaps the stamp from `expected` to `wanted` by anyone but a give: for an item that goes to the manager. False: the
 * stamp said something else, nothing was changed (stale). Thread: any. Takes the lock, which excludes the gives of a
 * portable shelf; for rseq see above. */
bool cp_shelf_claim(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected, uint64_t wanted);

/* The item is not to be shelved again: a give that does not see it has put the item on the shelf before this returns; but for
 * the usual give, see next. The manager only. */
void cp_shelf_doom(struct cp_shelf *shelf, struct cp_item *item);

/* The usual give (corepool/layout.h) looks only whether its item is the top. Afterwards what is on top and doomed is idle there:
 * it was, or it is the top no more. To follow each doom. DONE or ELSEWHERE. The manager only. */
enum cp_shelf_outcome cp_shelf_forget_doomed(struct cp_shelf *shelf);

/* Takes the oldest item of a CLOSED shelf; false when there is none. The manager only. */
bool cp_shelf_drain(struct cp_shelf *shelf, struct cp_item **item);

/* Items on the shelf at this moment. Thread: any; exact when quiescent. */
static inline uint32_t cp_shelf_idle(const struct cp_shelf *shelf)
{
    uint32_t head = atomic_load_explicit(&shelf->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&shelf->tail, memory_order_relaxed);
    uint32_t top = cp_shelf_idle_top(shelf) != NULL;
    /* Not one snapshot: a take of the oldest in between may make the difference negative. */
    return ((int32_t)(head - tail) > 0 ? head - tail : 0) + top;
}

/* Whether a worker that comes back is the manager's: a request waits, or the pool closes. Thread: any. */
static inline bool cp_shelf_wants_manager(const struct cp_shelf *shelf)
{
    return atomic_load_explicit(&shelf->flags, memory_order_seq_cst) & (CP_SHELF_WAITING | CP_SHELF_CLOSED);
}

/* Whether who has pushed on the returned list must wake the manager: for that, or because the shelf has become portable since he
 * looked, and no caller looks at the list. Sequentially consistent: pairs with the manager's exchange of the list after it has
 * set the flag, so that a giver who pushed before sees the flag, or the manager sees the push. */
static inline bool cp_shelf_wants_returned(const struct cp_shelf *shelf)
{
    return atomic_load_explicit(&shelf->flags, memory_order_seq_cst) & (CP_SHELF_WAITING | CP_SHELF_CLOSED | CP_SHELF_PORTABLE);
}

/* About how many restarts of sequences by the kernel since the program began: tells a stress that it stressed. */
extern _Atomic uint64_t cp_shelf_aborts;

/* cp_rseq_take_…, cp_rseq_give, cp_rseq_give_oldest, cp_rseq_forget_doomed, cp_rseq_await, cp_rseq_aborted, cp_rseq_cpu,
 * cp_rseq_disarm: one whole file per architecture, chosen by the build. */
#include "rseq_ops.h"

/* What follows an attempt that was not DONE: repeats it where the kernel or a change of kind got in its way, by
 * whichever implementation is in charge. */
enum cp_shelf_outcome cp_shelf_take_again(struct cp_shelf *shelf, enum cp_shelf_end end, struct cp_item **item,
                                          enum cp_shelf_outcome outcome);
enum cp_shelf_outcome cp_shelf_give_again(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                          uint64_t shelved, enum cp_shelf_outcome outcome);

static inline enum cp_shelf_outcome cp_shelf_take(struct cp_shelf *shelf, enum cp_shelf_end end, struct cp_item **item)
{
    enum cp_shelf_outcome outcome = end == CP_NEWEST ? cp_rseq_take_newest(shelf, item, CP_SHELF_STOP_TAKE)
                                                     : cp_rseq_take_oldest(shelf, item, CP_SHELF_STOP_TAKE);
    return cp_likely(outcome == CP_SHELF_DONE) ? outcome : cp_shelf_take_again(shelf, end, item, outcome);
}

/* One attempt. A stale one is refused as such before anything else. */
static inline enum cp_shelf_outcome cp_shelf_give_once(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                                       uint64_t shelved, uint32_t stop)
{
    if (cp_unlikely(atomic_load_explicit(&item->stamp, memory_order_relaxed) != expected))
        return CP_SHELF_STALE;
    return cp_rseq_give(shelf, item, expected, shelved, stop);
}

/* expected: the stamp of the lease (or of the manager's hold), which is not shelved; shelved: the same generation. */
static inline enum cp_shelf_outcome cp_shelf_give(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                                  uint64_t shelved)
{
    cp_assert(!cp_stamp_is_shelved(expected)); /* else it would be idle before the commit */
    enum cp_shelf_outcome outcome = cp_shelf_give_once(shelf, item, expected, shelved, CP_SHELF_STOP_GIVE);
    return cp_likely(outcome == CP_SHELF_DONE) ? outcome
                                               : cp_shelf_give_again(shelf, item, expected, shelved, outcome);
}

/* The same, at the end where the oldest are. */
enum cp_shelf_outcome cp_shelf_give_oldest(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                           uint64_t shelved);

static inline enum cp_shelf_outcome cp_shelf_await(struct cp_shelf *shelf)
{
    enum cp_shelf_outcome outcome;
    do {
        outcome = cp_rseq_await(shelf);
        if (outcome == CP_SHELF_SWITCH)
            outcome = cp_shelf_portable_await(shelf);
    } while (outcome == CP_SHELF_ABORT);
    return outcome;
}

#endif
