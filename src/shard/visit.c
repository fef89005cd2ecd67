/* shard/visit.c: what a manager does to workers that nobody uses. The core decides (core/look.h); here is what touches the
 * shelf and calls the class. */
#include "shard/visit.h"

#include "base/error.h"
#include "core/verdict.h"
#include "shard/lease.h"
#include "shard/shard.h"

/* Off the CPU, by the portable shelf; ELSEWHERE: that is out of reach too, until a wake-up that is set. */
static enum cp_shelf_outcome take_oldest(struct cp_slice *slice, struct cp_item **item)
{
    enum cp_shelf_outcome outcome = cp_shelf_take(&slice->shelf, CP_OLDEST, item);
    if (outcome == CP_SHELF_ELSEWHERE && cp_slice_leave_cpu(slice))
        outcome = cp_shelf_take(&slice->shelf, CP_OLDEST, item);
    return outcome;
}

/* --- evicting ----------------------------------------------------------------------------------------------------- */

/* What is doomed and leased goes to the manager when it comes back. */
static void forget_doomed(struct cp_slice *slice)
{
    enum cp_shelf_outcome outcome = cp_shelf_forget_doomed(&slice->shelf);
    if (outcome == CP_SHELF_ELSEWHERE && cp_slice_leave_cpu(slice))
        outcome = cp_shelf_forget_doomed(&slice->shelf);
    if (outcome == CP_SHELF_ELSEWHERE)
        slice->sift_wanted = true; /* with the next wake-up */
}

/* Runs between two callers on this CPU, or under the portable shelf's lock step by step. */
void cp_slice_sift(struct cp_slice *slice)
{
    struct cp_item *item;
    slice->sift_wanted = false;
    forget_doomed(slice);
    for (uint32_t left = cp_shelf_idle(&slice->shelf); left > 0; left--) {
        enum cp_shelf_outcome outcome = take_oldest(slice, &item);
        if (outcome == CP_SHELF_ELSEWHERE)
            slice->sift_wanted = true;
        if (outcome != CP_SHELF_DONE)
            return;
        cp_slot *slot = cp_slot_of(item);
        cp_slot_pass(slot, CP_TAG_MANAGER); /* on top while it is shelved it would be idle before the give is done */
        uint64_t stamp = cp_slot_stamp(slot);
        if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed) ||
            cp_shelf_give(&slice->shelf, item, stamp, cp_stamp_passed(stamp, CP_TAG_SHELVED)) !=
                CP_SHELF_DONE)
            cp_slice_adopt(slice, slot, COREPOOL_REASON_NONE);
    }
}

/* The live worker is not to be used again. True when it is to be brought in from the shelf or the returned list; one in
 * other hands ends when it leaves them. */
static bool doom(struct cp_slice *slice, cp_slot *slot, uint8_t reason)
{
    slot->doom = reason;
    cp_shelf_doom(&slice->shelf, &slot->item);
    forget_doomed(slice);
    uint32_t tag = cp_stamp_tag(cp_slot_stamp(slot));
    if (tag == CP_TAG_MANAGER && !cp_list_is_empty(&slot->link) && !slot->held && !slice->core.closed)
        cp_core_doom_idle(&slice->core, slot, reason);
    return tag == CP_TAG_SHELVED || tag == CP_TAG_RETURNED;
}

/* One sift for all that were doomed. */
static void bring_in(struct cp_slice *slice)
{
    cp_slice_sift(slice);
    cp_slice_collect(slice);
}

void corepool_worker_evict(corepool_worker_t *worker, corepool_reason_t reason)
{
    struct cp_slice *slice = worker->slice;
    cp_shard_enter(slice->shard);
    if (worker->phase != CP_LIVE || atomic_load(&worker->item.doomed))
        return;
    if (doom(slice, worker, (uint8_t)reason))
        bring_in(slice);
    cp_slice_touch(slice);
}

/* --- looks -------------------------------------------------------------------------------------------------------- */

/* Shows every slot to one of core/look.h's judges. True: some are to be brought in. */
static bool show_all(struct cp_slice *slice, uint8_t (*judge)(struct cp_core *, cp_slot *, int64_t), int64_t now_ns)
{
    bool found = false;
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        uint8_t reason = judge(&slice->core, slot, now_ns);
        if (reason != COREPOOL_REASON_NONE && doom(slice, slot, reason))
            found = true;
    }
    return found;
}

static void look_at_leases(struct cp_slice *slice, int64_t now_ns)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        if (!cp_look_saw_lease(slot))
            continue;
        cp_lease_seen(slot);
        bool first = slot->reports == 0;
        int64_t age = cp_look_overdue(&slice->core, slot, now_ns);
        if (age)
            cp_lease_report(slot, age, first);
    }
}

void cp_slice_look(struct cp_slice *slice)
{
    int64_t now = cp_now_ns();
    cp_slice_collect(slice);
    cp_look_begin(&slice->core);
    bool found = show_all(slice, cp_look_at, now);
    if (cp_look_end(&slice->core, now) && show_all(slice, cp_look_close, now))
        found = true;
    if (found)
        bring_in(slice);
    if (slice->core.options.look.lease_report_ns || slice->core.options.look.lease_limit_ns)
        look_at_leases(slice, now);
}

/* --- visits ------------------------------------------------------------------------------------------------------- */

cp_slot *cp_slice_take_oldest(struct cp_slice *slice)
{
    struct cp_item *item;
    return take_oldest(slice, &item) == CP_SHELF_DONE ? cp_slot_of(item) : NULL;
}

void cp_slice_fetch(struct cp_slice *slice)
{
    cp_slot *slot = cp_slice_take_oldest(slice);
    if (!slot) {
        cp_visit_fetched(&slice->core, NULL);
        return;
    }
    if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed)) {
        cp_slice_adopt(slice, slot, COREPOOL_REASON_NONE);
        return;
    }
    cp_slot_pass(slot, CP_TAG_MANAGER);
    cp_visit_fetched(&slice->core, slot);
}

static void *resource_of(const cp_slot *slot)
{
    return atomic_load_explicit(&slot->resource, memory_order_relaxed);
}

static void answer(struct cp_slice *slice, cp_slot *slot, const char *callback, uint32_t verdict)
{
    if (verdict & CP_VERDICT_NONSENSE)
        cp_slice_warn(slice, slot, 0, callback);
    cp_visit_answered(&slice->core, slot, (uint8_t)verdict);
}

/* NONE, or why the whole pool is to close. */
static corepool_reason_t stop_reason(int outcome)
{
    if (outcome == COREPOOL_STOP)
        return COREPOOL_REASON_STOP;
    bool own = outcome >= COREPOOL_STOP_BECAUSE(COREPOOL_REASON_USER) &&
               outcome <= COREPOOL_STOP_BECAUSE(COREPOOL_REASON_MAX);
    return own ? (corepool_reason_t)(outcome - COREPOOL_STOP_BECAUSE(0)) : COREPOOL_REASON_NONE;
}

static int run_ping(struct cp_slice *slice, cp_slot *slot)
{
    CP_MARKED(slice->shard, slice, CP_CALLS_PING);
    return slice->cls->ping(slot, slice->pool_state, resource_of(slot));
}

static int run_info(struct cp_slice *slice, cp_slot *slot)
{
    CP_MARKED(slice->shard, slice, CP_CALLS_INFO);
    return slice->cls->info(slot, slice->pool_state, resource_of(slot), slice->message);
}

void cp_slice_ping(struct cp_slice *slice, cp_slot *slot)
{
    int outcome = run_ping(slice, slot);
    corepool_reason_t stop = stop_reason(outcome);
    if (stop != COREPOOL_REASON_NONE) { /* it ends as all others do, by the closing that begins here */
        cp_visit_end(&slice->core);
        slice->config.stop(slice, slice->config.context, stop);
        outcome = COREPOOL_OK;
    }
    answer(slice, slot, "ping returned a value that means nothing, which counts as COREPOOL_REMOVE",
           cp_verdict(outcome, COREPOOL_REASON_PING));
}

void cp_slice_info(struct cp_slice *slice, cp_slot *slot)
{
    answer(slice, slot, "info returned a value that means nothing, which counts as COREPOOL_REMOVE",
           cp_verdict(run_info(slice, slot), COREPOOL_REASON_INFO));
}

void cp_slice_put_back(struct cp_slice *slice, cp_slot *slot)
{
    uint64_t stamp = cp_slot_stamp(slot);
    switch (cp_shelf_give_oldest(&slice->shelf, &slot->item, stamp, cp_stamp_passed(stamp, CP_TAG_SHELVED))) {
    case CP_SHELF_DONE: return;
    case CP_SHELF_DOOMED: cp_core_doom(&slice->core, slot, slot->doom); return;
    default: cp_core_idle_again(&slice->core, slot); /* requests wait, or the slice holds what is idle */
    }
}

int cp_slice_tell_idle(struct cp_slice *slice, void *message)
{
    const struct cp_shelf *shelf = &slice->shelf;
    cp_shard_enter(slice->shard);
    bool portable = atomic_load_explicit(&shelf->flags, memory_order_relaxed) & CP_SHELF_PORTABLE;
    if (!slice->cls->info)
        return cp_fail(COREPOOL_ENOTSUP, "class %s has no info callback", slice->cls->name);
    if (slice->pumping)
        return cp_fail(COREPOOL_EDEADLK, "pool %s: info from one of its own callbacks", slice->config.name);
    if (slice->core.closed || slice->close_wanted)
        return COREPOOL_OK;
    if (!portable && cp_rseq_cpu_registered() != shelf->cpu && !cp_slice_leave_cpu(slice))
        return cp_fail(COREPOOL_ESYSTEM, "shard %u is off its CPU, and its shelf out of reach", slice->shard->index);
    cp_slice_collect(slice);
    slice->message = message;
    cp_visit_begin_info(&slice->core);
    cp_slice_pump(slice);
    return COREPOOL_OK;
}
