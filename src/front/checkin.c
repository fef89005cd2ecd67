/* front/checkin.c: giving back workers, from any thread.
 *
 * A lease ends once: whoever swaps the stamp has ended it. On the slice's CPU, with nobody waiting, the worker goes
 * onto the shelf; else onto the slice's returned list, and the manager sees to it. */
#include "front/checkout.h"

#include "base/error.h"
#include "base/point.h"
#include "core/verdict.h"
#include "front/deep.h"
#include "shard/lease.h"

void cp_slot_hand_over(cp_slot *slot, uint32_t tag, corepool_reason_t reason)
{
    atomic_store_explicit(&slot->reason, reason, memory_order_relaxed);
    cp_slot_pass(slot, tag);
    cp_slice_return(slot, true);
}

static int stale(void)
{
    return cp_fail(COREPOOL_ESTALE, "the lease was ended before: checked in twice, or reclaimed");
}

/* What becomes of a worker on the returned list. */
enum ending {
    LEAVE, /* the manager is woken if it wants that */
    WAKE,  /* the manager is woken */
    KEEP,  /* for this thread, while its turn lasts */
};

static void hand_back(cp_slot *slot, enum ending ending)
{
    if (ending == KEEP)
        cp_slice_keep(slot);
    else if (ending == LEAVE || !cp_slice_take_back(slot))
        cp_slice_return(slot, ending == WAKE);
}

static int end_by_message(corepool_lease_t *lease, uint32_t reason, enum ending ending)
{
    cp_slot *slot = lease->worker;
    uint32_t tag = reason == COREPOOL_REASON_NONE ? CP_TAG_RETURNED : CP_TAG_REMOVED;
    if (!cp_shelf_claim(&slot->slice->shelf, &slot->item, lease->generation,
                        cp_stamp_passed(lease->generation, tag)))
        return stale();
    /* Not read before the slot is on the returned list. */
    atomic_store_explicit(&slot->reason, reason, memory_order_relaxed);
    atomic_store_explicit(&slot->client, lease->resource, memory_order_relaxed);
    hand_back(slot, ending);
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}

static enum ending ending_after(enum cp_shelf_outcome outcome, const struct cp_slice *slice, const struct cp_thread *self)
{
    if (outcome == CP_SHELF_SOMEONE_WAITS && cp_slice_is_turn(slice, self))
        return KEEP;
    return outcome == CP_SHELF_ELSEWHERE ? LEAVE : WAKE;
}

/* `first`: the outcome of a first attempt to put it on the shelf. */
static int end_after(corepool_lease_t *lease, struct cp_thread *self, enum cp_shelf_outcome first)
{
    cp_slot *slot = lease->worker;
    enum cp_shelf_outcome outcome =
        cp_shelf_give_again(&slot->slice->shelf, &slot->item, lease->generation,
                            cp_stamp_passed(lease->generation, CP_TAG_SHELVED), first);
    if (outcome == CP_SHELF_STALE)
        return stale();
    if (outcome != CP_SHELF_DONE)
        return end_by_message(lease, COREPOOL_REASON_NONE, ending_after(outcome, slot->slice, self));
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}

static enum cp_shelf_outcome put_on_shelf(const corepool_lease_t *lease, uint32_t stop)
{
    cp_slot *slot = lease->worker;
    return cp_shelf_give_once(&slot->slice->shelf, &slot->item, lease->generation,
                              cp_stamp_passed(lease->generation, CP_TAG_SHELVED), stop);
}

int cp_lease_end(corepool_lease_t *lease, struct cp_thread *self, uint32_t reason)
{
    if (cp_slot_stamp(lease->worker) == lease->generation)
        cp_lease_count_hold(lease->worker, lease->generation);
    if (reason != COREPOOL_REASON_NONE)
        return end_by_message(lease, reason, WAKE);
    enum cp_shelf_outcome outcome = put_on_shelf(lease, CP_SHELF_STOP_GIVE);
    if (outcome != CP_SHELF_DONE)
        return end_after(lease, self, outcome);
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}

int cp_lease_check(const corepool_lease_t *lease)
{
    if (cp_unlikely(!lease))
        return cp_fail(COREPOOL_EINVAL, "lease: NULL");
    if (cp_unlikely(!lease->worker))
        return cp_fail(COREPOOL_ESTALE, "the lease is zero: ended before, or never filled by a checkout");
    return COREPOOL_OK;
}

/* What every ending checks first. */
static int check_lease(const corepool_lease_t *lease, struct cp_thread **self)
{
    int code = cp_lease_check(lease);
    if (cp_unlikely(code != COREPOOL_OK))
        return code;
    *self = cp_thread_self(&code);
    return cp_likely(*self != NULL) ? COREPOOL_OK : code;
}

/* The class's checkin callback, if the lease is still one (else its class may be gone) and its manager does not call it. */
static uint32_t ask_class(const corepool_lease_t *lease)
{
    const struct cp_slice *slice = lease->worker->slice;
    if (cp_slot_stamp(lease->worker) != lease->generation)
        return COREPOOL_REASON_NONE;
    const corepool_class_t *cls = slice->cls;
    if (cp_likely(!cls->checkin) || cp_slice_is_serialised(slice))
        return COREPOOL_REASON_NONE;
    void *resource = atomic_load_explicit(&lease->worker->resource, memory_order_relaxed);
    return cp_verdict(cls->checkin(NULL, resource, lease->resource), COREPOOL_REASON_CHECKIN);
}

/* Everything but the usual case. */
__attribute__((noinline)) static int checkin_slowly(corepool_lease_t *lease)
{
    struct cp_thread *self;
    int status = check_lease(lease, &self);
    return status == COREPOOL_OK ? cp_lease_end(lease, self, ask_class(lease)) : status;
}

__attribute__((noinline)) static int wake_and_succeed(struct cp_lock *lock)
{
    cp_lock_wake(lock);
    return COREPOOL_OK;
}

/* The usual case on a portable shelf whose lock is free; without calls but at its end. */
__attribute__((noinline)) static int checkin_portably(corepool_lease_t *lease)
{
    cp_slot *slot = lease->worker;
    struct cp_shelf *shelf = &slot->slice->shelf;
    if (cp_unlikely(atomic_load_explicit(&shelf->flags, memory_order_relaxed) & CP_SHELF_LOOK_GIVE) ||
        cp_unlikely(!cp_lock_try(&shelf->lock)))
        return checkin_slowly(lease);
    enum cp_shelf_outcome outcome = cp_shelf_give_locked(shelf, &slot->item, lease->generation,
                                                         cp_stamp_passed(lease->generation, CP_TAG_SHELVED));
    bool wake = cp_lock_drop(&shelf->lock);
    if (cp_unlikely(outcome != CP_SHELF_DONE)) {
        if (wake)
            cp_lock_wake(&shelf->lock);
        return checkin_slowly(lease);
    }
    *lease = (corepool_lease_t){0};
    return wake ? wake_and_succeed(&shelf->lock) : COREPOOL_OK;
}

/* The usual case on an rseq shelf where only a checkout has something to look at. */
__attribute__((noinline)) static int checkin_plainly(corepool_lease_t *lease, struct cp_thread *self)
{
    enum cp_shelf_outcome outcome = put_on_shelf(lease, CP_SHELF_STOP_GIVE | CP_SHELF_LOOK_GIVE);
    if (cp_unlikely(outcome == CP_SHELF_LOOK))
        return checkin_slowly(lease);
    if (cp_unlikely(outcome != CP_SHELF_DONE))
        return end_after(lease, self, outcome);
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}

/* The usual case where someone waits. */
__attribute__((noinline)) static int checkin_to_manager(corepool_lease_t *lease, struct cp_thread *self)
{
    return end_by_message(lease, COREPOOL_REASON_NONE,
                          ending_after(CP_SHELF_SOMEONE_WAITS, lease->worker->slice, self));
}

/* The shelf did not take it at once, and nothing has happened yet. */
__attribute__((noinline)) static int checkin_unusually(corepool_lease_t *lease)
{
    struct cp_thread *self = cp_self;
    if (!lease->worker || self == &cp_nobody)
        return checkin_slowly(lease);
    uint32_t flags = atomic_load_explicit(&lease->worker->slice->shelf.flags, memory_order_relaxed);
    if (flags & CP_SHELF_PORTABLE)
        return checkin_portably(lease);
    if ((flags & (CP_SHELF_STOP_GIVE | CP_SHELF_LOOK_GIVE)) == CP_SHELF_WAITING)
        return checkin_to_manager(lease, self);
    return flags == CP_SHELF_LOOK_TAKE ? checkin_plainly(lease, self) : checkin_slowly(lease);
}

__attribute__((noinline)) static int checkin_restarted(corepool_lease_t *lease)
{
    cp_rseq_aborted();
    return checkin_slowly(lease);
}

static int checkin_otherwise(enum corepool_layout_outcome outcome, corepool_lease_t *lease)
{
    return outcome == COREPOOL_LAYOUT_UNUSUAL ? checkin_unusually(lease) : checkin_restarted(lease);
}

/* Another is on top of the shelf: as usual, but if that one is idle it goes into the ring. */
__attribute__((noinline)) static int checkin_deep(corepool_lease_t *lease)
{
    struct corepool_layout_slot *slot = (struct corepool_layout_slot *)(void *)lease->worker;
    enum corepool_layout_outcome outcome =
        cp_give_deep(slot->shelf, slot, lease->generation, lease->generation | CP_TAG_SHELVED, COREPOOL_LAYOUT_SELF);
    if (cp_unlikely(outcome != COREPOOL_LAYOUT_DONE))
        return checkin_otherwise(outcome, lease);
    *lease = (corepool_lease_t){0};
    return COREPOOL_OK;
}

/* The usual case, a lease of a class without a checkin callback that is given back on its CPU, is kept free of calls. */
cp_hot int corepool_checkin(corepool_lease_t *lease)
{
    if (cp_unlikely(!lease))
        return checkin_slowly(lease);
    enum corepool_layout_outcome outcome = corepool_layout_checkin(COREPOOL_LAYOUT_SELF, lease);
    if (cp_likely(outcome == COREPOOL_LAYOUT_DONE))
        return COREPOOL_OK;
    return outcome == COREPOOL_LAYOUT_DEEP ? checkin_deep(lease) : checkin_otherwise(outcome, lease);
}

int corepool_checkin_remove(corepool_lease_t *lease)
{
    struct cp_thread *self;
    int status = check_lease(lease, &self);
    return status == COREPOOL_OK ? cp_lease_end(lease, self, COREPOOL_REASON_REMOVED) : status;
}

int corepool_checkin_fail(corepool_lease_t *lease)
{
    struct cp_thread *self;
    int status = check_lease(lease, &self);
    return status == COREPOOL_OK ? cp_lease_end(lease, self, COREPOOL_REASON_FAILED) : status;
}

int corepool_checkin_because(corepool_lease_t *lease, corepool_reason_t reason)
{
    struct cp_thread *self;
    if (reason < COREPOOL_REASON_USER || reason > COREPOOL_REASON_MAX)
        return cp_fail(COREPOOL_EINVAL, "reason: %u: a program's own are %d to %d", (unsigned)reason,
                       COREPOOL_REASON_USER, COREPOOL_REASON_MAX);
    int status = check_lease(lease, &self);
    return status == COREPOOL_OK ? cp_lease_end(lease, self, reason) : status;
}
