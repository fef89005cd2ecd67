/* machine/shelf.c: the portable shelf, and what both kinds share: init, changes of flags.
 *
 * Portable: the contract of shelf.h under a lock, from any CPU. The lock's critical sections are a few loads and
 * stores; a sleeping lock, so that a preempted holder costs a switch and not a time slice. */
#include "machine/shelf.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

_Atomic uint64_t cp_shelf_aborts;
struct cp_item cp_no_item cp_line_aligned;
struct cp_shelf cp_no_shelf = {.top = &cp_no_item, .flags = CP_SHELF_CLOSED};

void cp_shelf_init(struct cp_shelf *shelf, _Atomic(struct cp_item *) *ring, uint32_t capacity, uint32_t cpu,
                   bool portable)
{
    cp_assert(capacity && !(capacity & (capacity - 1)));
    shelf->cpu = cpu;
    shelf->ring = ring;
    shelf->mask = capacity - 1;
    atomic_store_explicit(&shelf->head, 0, memory_order_relaxed);
    atomic_store_explicit(&shelf->tail, 0, memory_order_relaxed);
    atomic_store_explicit(&shelf->top, &cp_no_item, memory_order_relaxed);
    /* Last: a caller that is late by a whole life of the shelf finds it closed until everything else is in place. */
    atomic_store_explicit(&shelf->flags, portable ? CP_SHELF_PORTABLE : 0, memory_order_release);
}

enum cp_shelf_outcome cp_shelf_take_again(struct cp_shelf *shelf, enum cp_shelf_end end, struct cp_item **item,
                                          enum cp_shelf_outcome outcome)
{
    while (outcome == CP_SHELF_ABORT || outcome == CP_SHELF_SWITCH) {
        if (outcome == CP_SHELF_SWITCH)
            outcome = cp_shelf_portable_take(shelf, end, item);
        else
            outcome = end == CP_NEWEST ? cp_rseq_take_newest(shelf, item, CP_SHELF_STOP_TAKE)
                                       : cp_rseq_take_oldest(shelf, item, CP_SHELF_STOP_TAKE);
    }
    return outcome;
}

/* What goes into the ring is not the top. Before it is shelved: then the top is not idle either way. */
static void forget_top(struct cp_shelf *shelf, const struct cp_item *item)
{
    if (atomic_load_explicit(&shelf->top, memory_order_relaxed) == item)
        atomic_store_explicit(&shelf->top, &cp_no_item, memory_order_relaxed);
}

static enum cp_shelf_outcome portable_give_oldest(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                                  uint64_t shelved)
{
    cp_lock_take(&shelf->lock);
    enum cp_shelf_outcome outcome = cp_shelf_check_give_locked(shelf, item, expected);
    if (outcome == CP_SHELF_DONE) {
        uint32_t tail = atomic_load_explicit(&shelf->tail, memory_order_relaxed) - 1;
        forget_top(shelf, item);
        atomic_store_explicit(&item->stamp, shelved, memory_order_relaxed);
        atomic_store_explicit(&shelf->ring[tail & shelf->mask], item, memory_order_relaxed);
        atomic_store_explicit(&shelf->tail, tail, memory_order_relaxed);
    }
    cp_lock_free(&shelf->lock);
    return outcome;
}

enum cp_shelf_outcome cp_shelf_give_again(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                          uint64_t shelved, enum cp_shelf_outcome outcome)
{
    while (outcome == CP_SHELF_ABORT || outcome == CP_SHELF_SWITCH)
        outcome = outcome == CP_SHELF_SWITCH ? cp_shelf_portable_give(shelf, item, expected, shelved)
                                             : cp_shelf_give_once(shelf, item, expected, shelved, CP_SHELF_STOP_GIVE);
    return outcome;
}

/* After a restart the stamp may already say `shelved`: it did not say so before the first attempt, and nobody else gives what
 * the caller has, so an aborted attempt of this call wrote it. */
enum cp_shelf_outcome cp_shelf_give_oldest(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                           uint64_t shelved)
{
    uint64_t found = expected;
    if (atomic_load_explicit(&item->stamp, memory_order_relaxed) != expected)
        return CP_SHELF_STALE;
    enum cp_shelf_outcome outcome = cp_rseq_give_oldest(shelf, item, expected, shelved, CP_SHELF_STOP_GIVE);
    while (outcome == CP_SHELF_ABORT || outcome == CP_SHELF_SWITCH) {
        if (atomic_load_explicit(&item->stamp, memory_order_relaxed) == shelved)
            found = shelved;
        outcome = outcome == CP_SHELF_SWITCH ? portable_give_oldest(shelf, item, found, shelved)
                                             : cp_rseq_give_oldest(shelf, item, found, shelved, CP_SHELF_STOP_GIVE);
    }
    if (outcome != CP_SHELF_DONE && found == shelved) /* take back what the aborted attempt wrote */
        atomic_store_explicit(&item->stamp, expected, memory_order_relaxed);
    return outcome;
}

enum cp_shelf_outcome cp_shelf_portable_take(struct cp_shelf *shelf, enum cp_shelf_end end, struct cp_item **item)
{
    cp_lock_take(&shelf->lock);
    enum cp_shelf_outcome outcome = cp_shelf_take_locked(shelf, end, item);
    cp_lock_free(&shelf->lock);
    return outcome;
}

enum cp_shelf_outcome cp_shelf_portable_give(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected,
                                             uint64_t shelved)
{
    cp_lock_take(&shelf->lock);
    enum cp_shelf_outcome outcome = cp_shelf_give_locked(shelf, item, expected, shelved);
    cp_lock_free(&shelf->lock);
    return outcome;
}

enum cp_shelf_outcome cp_shelf_portable_await(struct cp_shelf *shelf)
{
    cp_lock_take(&shelf->lock);
    enum cp_shelf_outcome outcome = cp_shelf_check_locked(shelf);
    if (outcome == CP_SHELF_DONE) {
        if (cp_shelf_idle(shelf))
            outcome = CP_SHELF_NONEMPTY;
        else /* ordered against foreign givers by the manager's exchange of the returned list, see slice.h */
            atomic_fetch_or_explicit(&shelf->flags, CP_SHELF_WAITING, memory_order_relaxed);
    }
    cp_lock_free(&shelf->lock);
    return outcome;
}

bool cp_shelf_claim(struct cp_shelf *shelf, struct cp_item *item, uint64_t expected, uint64_t wanted)
{
    cp_lock_take(&shelf->lock);
    /* Acquire and release: the item goes to another thread with all that its holder did to it. */
    bool claimed = atomic_compare_exchange_strong_explicit(&item->stamp, &expected, wanted, memory_order_acq_rel,
                                                           memory_order_relaxed);
    cp_lock_free(&shelf->lock);
    return claimed;
}

static enum cp_shelf_outcome portable_forget_doomed(struct cp_shelf *shelf)
{
    cp_lock_take(&shelf->lock);
    struct cp_item *top = atomic_load_explicit(&shelf->top, memory_order_relaxed);
    if (atomic_load_explicit(&top->doomed, memory_order_relaxed) && !cp_shelf_idle_top(shelf))
        forget_top(shelf, top);
    cp_lock_free(&shelf->lock);
    return CP_SHELF_DONE;
}

enum cp_shelf_outcome cp_shelf_forget_doomed(struct cp_shelf *shelf)
{
    enum cp_shelf_outcome outcome;
    do {
        outcome = cp_rseq_forget_doomed(shelf);
        if (outcome == CP_SHELF_SWITCH)
            outcome = portable_forget_doomed(shelf);
    } while (outcome == CP_SHELF_ABORT);
    return outcome;
}

/* The lock excludes the gives of a portable shelf; those of an rseq shelf restart because we run on its CPU, or else are
 * at most one, whose taker finds the item doomed. */
void cp_shelf_doom(struct cp_shelf *shelf, struct cp_item *item)
{
    cp_lock_take(&shelf->lock);
    atomic_store(&item->doomed, 1); /* before the look at the returned list: pairs with the giver's look after its push */
    cp_lock_free(&shelf->lock);
}

bool cp_shelf_drain(struct cp_shelf *shelf, struct cp_item **item)
{
    cp_lock_take(&shelf->lock);
    *item = cp_shelf_take_ring_locked(shelf, CP_OLDEST);
    if (!*item)
        *item = cp_shelf_take_top_locked(shelf);
    cp_lock_free(&shelf->lock);
    return *item != NULL;
}

/* Restarts every sequence that runs on `cpu` at this moment. */
static bool restart_sequences(uint32_t cpu)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU, (int)cpu) == 0;
}

bool cp_shelf_change(struct cp_shelf *shelf, uint32_t set, uint32_t clear)
{
    bool ok = true;
    cp_lock_take(&shelf->lock);
    uint32_t before = atomic_load_explicit(&shelf->flags, memory_order_relaxed);
    uint32_t after = (before | set) & ~clear;
    atomic_store_explicit(&shelf->flags, after, memory_order_seq_cst);
    /* On the shelf's own CPU every other sequence is interrupted by our running here, and will restart. A portable
     * shelf is excluded by the lock. A manager that has lost its CPU must interrupt them by other means. Nothing
     * is needed to clear WAITING: a give that still sees it goes to the manager, who looks. */
    if (!(before & CP_SHELF_PORTABLE) && set && cp_rseq_cpu_registered() != shelf->cpu)
        ok = restart_sequences(shelf->cpu);
    if (!ok)
        atomic_store_explicit(&shelf->flags, before, memory_order_seq_cst);
    cp_lock_free(&shelf->lock);
    return ok;
}

static void move_items(struct cp_shelf *shelf, _Atomic(struct cp_item *) *ring, uint32_t capacity)
{
    cp_lock_take(&shelf->lock);
    uint32_t head = atomic_load_explicit(&shelf->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&shelf->tail, memory_order_relaxed);
    for (uint32_t i = tail; i != head; i++) {
        struct cp_item *item = atomic_load_explicit(&shelf->ring[i & shelf->mask], memory_order_relaxed);
        atomic_store_explicit(&ring[i & (capacity - 1)], item, memory_order_relaxed);
    }
    shelf->ring = ring;
    shelf->mask = capacity - 1;
    cp_lock_free(&shelf->lock);
}

/* While it is portable no sequence looks at the ring, and the lock keeps the others out. */
bool cp_shelf_grow(struct cp_shelf *shelf, _Atomic(struct cp_item *) *ring, uint32_t capacity)
{
    bool portable = atomic_load_explicit(&shelf->flags, memory_order_relaxed) & CP_SHELF_PORTABLE;
    if (!portable && !cp_shelf_change(shelf, CP_SHELF_PORTABLE, 0))
        return false;
    move_items(shelf, ring, capacity);
    if (!portable)
        cp_shelf_change(shelf, 0, CP_SHELF_PORTABLE);
    return true;
}
