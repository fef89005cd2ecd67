/* shard/slice.c: the manager: brings messages and the shelf's events to the core, and carries out what it decides.
 *
 * States of a slice: spare block → open → closing (core.closed) → finished → spare block. All by who plays the
 * manager (slice.h says what the thread alone does); most of what slice.h marks *any* stands in slice_any.c. */
#include "shard/slice.h"

#include <string.h>

#include "base/error.h"
#include "base/point.h"
#include "core/verdict.h"
#include "shard/call.h"
#include "shard/home.h"
#include "shard/shard.h"
#include "shard/steal.h"
#include "shard/visit.h"
#include "shard/worker.h"

/* How long until a refused membarrier is tried again. */
#define RETRY_NS (10 * CP_NS_PER_MS)

/* So many workers are opened in one go, far more than a burst needs; then the loop has its turn. Where an init succeeds at
 * once and a checkout callback refuses every worker there is no end to it. */
#define OPENS_IN_A_ROW 1024
#define REST_NS CP_NS_PER_MS

/* So many requests that callbacks of grants make are taken in by the pump that granted: a turn of the loop for all of them
 * costs little each. Then the loop has its turn, for there may be no end to it. */
#define TAKEN_IN_MOST 32

static _Atomic uint64_t epochs;

/* --- slots changing hands ----------------------------------------------------------------------------------------- */

/* The manager has just become the owner: it goes on, or it goes. */
static void adopt(struct cp_slice *slice, cp_slot *slot)
{
    cp_slot_pass(slot, CP_TAG_MANAGER);
    if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed))
        cp_core_doom(&slice->core, slot, slot->doom);
    else
        cp_core_idle(&slice->core, slot);
}

static void adopt_removed(struct cp_slice *slice, cp_slot *slot, uint32_t reason)
{
    cp_slot_pass(slot, CP_TAG_MANAGER);
    if (reason & CP_VERDICT_NONSENSE)
        cp_slice_warn(slice, slot, 0, "a callback returned a value that means nothing, which counts as COREPOOL_REMOVE");
    if (reason == COREPOOL_REASON_DOWN || reason == COREPOOL_REASON_FAILED)
        cp_call_cancelled(slice, COREPOOL_CANCELLED_LEASED, slice->cls->enqueue ? atomic_load(&slot->wrapped) : NULL);
    /* What lease_limit_ms promises: TIMEOUT when the lease comes back, or when its thread ends. */
    if (reason == COREPOOL_REASON_DOWN && atomic_load_explicit(&slot->item.doomed, memory_order_relaxed) &&
        slot->doom == COREPOOL_REASON_TIMEOUT)
        reason = COREPOOL_REASON_TIMEOUT;
    cp_core_doom(&slice->core, slot, (uint8_t)reason);
}

void cp_slice_adopt(struct cp_slice *slice, cp_slot *slot, uint32_t reason)
{
    if (reason == COREPOOL_REASON_NONE)
        adopt(slice, slot);
    else
        adopt_removed(slice, slot, reason);
}

/* The whole list, in the order in which it came. Nobody else touches the link of a slot that is `listed`. */
static cp_slot *take_returned(struct cp_slice *slice)
{
    cp_slot *last = atomic_exchange(&slice->returned, NULL), *first = NULL;
    while (last) {
        cp_slot *before = atomic_load_explicit(&last->returned_next, memory_order_relaxed);
        atomic_store_explicit(&last->returned_next, first, memory_order_relaxed);
        first = last;
        last = before;
    }
    return first;
}

static void take_in(struct cp_slice *slice, cp_slot *slot)
{
    uint32_t tag = cp_stamp_tag(cp_slot_stamp(slot));
    if (slot->phase != CP_LIVE) { /* as below, and the worker is gone since */
    } else if (tag == CP_TAG_RETURNED) {
        cp_slot_pass(slot, CP_TAG_MANAGER); /* before the callback: it may evict the worker */
        cp_slice_adopt(slice, slot, cp_call_checkin(slice, slot));
    } else if (tag == CP_TAG_REMOVED) {
        adopt_removed(slice, slot, atomic_load(&slot->reason));
    } /* else one lease was ended on two CPUs at once, and the other ending stands: see shelf.h */
}

void cp_slice_collect(struct cp_slice *slice)
{
    cp_slot *slot = take_returned(slice);
    cp_point(COLLECT_TAKEN);
    while (slot) {
        cp_slot *next = atomic_load_explicit(&slot->returned_next, memory_order_relaxed);
        atomic_exchange(&slot->listed, 0); /* full fence: who finds it set has swapped a stamp that we see below */
        take_in(slice, slot);
        slot = next;
    }
}

/* A membarrier was refused, as only a shard off its CPU needs one: again soon, by then perhaps with the CPU. */
static void try_again_later(struct cp_slice *slice)
{
    cp_home_lost(slice->shard);
    cp_shard_wake_at(slice->shard, slice, cp_now_ns() + RETRY_NS);
}

bool cp_slice_leave_cpu(struct cp_slice *slice)
{
    if (!cp_shelf_change(&slice->shelf, CP_SHELF_PORTABLE, 0)) {
        try_again_later(slice);
        return false;
    }
    slice->lost_cpu = true;
    cp_home_lost(slice->shard);
    cp_slice_nudge_later(slice); /* no caller looks at the returned list any more; pairs with cp_slice_return */
    return true;
}

void cp_slice_park(struct cp_slice *slice)
{
    uint64_t epoch;
    if (!slice->config.portable && !slice->lost_cpu)
        cp_slice_leave_cpu(slice);
    /* A pool that is being opened has not all its slices yet. */
    if (slice->config.shared || !slice->config.sibling(slice->config.context, slice->shard->index, &epoch))
        return;
    cp_evacuate(&slice->core, true);
    cp_slice_touch(slice);
}

void cp_slice_regain(struct cp_slice *slice)
{
    cp_evacuate(&slice->core, false);
    cp_slice_touch(slice);
    if (slice->lost_cpu && cp_shelf_change(&slice->shelf, 0, CP_SHELF_PORTABLE))
        slice->lost_cpu = false;
}

/* --- actions ---------------------------------------------------------------------------------------------------------- */

static bool has_histogram(struct cp_slice *slice, _Atomic(struct cp_histogram *) *histogram)
{
    if (cp_unlikely(!atomic_load_explicit(histogram, memory_order_relaxed)))
        atomic_store(histogram, cp_shard_alloc(slice->shard, sizeof(struct cp_histogram)));
    return atomic_load_explicit(histogram, memory_order_relaxed);
}

void cp_slice_need_histogram(struct cp_slice *slice, _Atomic(struct cp_histogram *) *histogram)
{
    if (cp_unlikely(!has_histogram(slice, histogram)))
        cp_slice_tell(slice, &(corepool_event_t){.kind = COREPOOL_EVENT_WARNING, .code = COREPOOL_ENOMEM,
                                                 .text = "no memory to measure"});
}

/* A request may have come after `now` was read. */
static int64_t time_since(int64_t then, int64_t now)
{
    return now > then ? now - then : 0;
}

static void do_grant(struct cp_slice *slice, cp_slot *slot, struct cp_request *request, int64_t now)
{
    if (!cp_call_checkout(slice, slot, request))
        return;
    uint64_t before = cp_slot_stamp(slot);
    uint64_t leased = cp_stamp_next_lease(before);
    int64_t waited = time_since(request->posted_at, now);
    cp_slice_need_histogram(slice, &slice->core.waits);
    atomic_store_explicit(&slot->holder, NULL, memory_order_relaxed); /* until its caller has got it */
    atomic_store_explicit(&slot->wrapped, cp_request_wrapped(request), memory_order_relaxed);
    cp_slot_set_stamp(slot, leased);
    request->slot = slot;
    request->stamp = leased;
    cp_point(GRANT_DECIDED);
    void (*notify)(struct cp_request *) = request->notify;
    if (cp_slice_decide(request, CP_GRANTED)) {
        cp_core_granted(&slice->core, waited);
        cp_slice_tell(slice, &(corepool_event_t){.kind = COREPOOL_EVENT_WAITED, .worker = slot->number,
                                                 .duration_ms = waited / CP_NS_PER_MS});
        slice->between_steps = true;
        cp_slice_notify(slice->shard, request, notify);
        slice->between_steps = false;
        return;
    }
    cp_core_undecided(&slice->core);
    cp_slot_set_stamp(slot, before); /* nobody has seen this lease */
    cp_core_idle(&slice->core, slot);
}

/* The slot has come back to a crowded slice: the first of those who wait gets it. False: it is for the regular way. */
static bool hand_on(struct cp_slice *slice, cp_slot *slot)
{
    bool usable = cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_RETURNED && slot->phase == CP_LIVE &&
                  !atomic_load_explicit(&slot->item.doomed, memory_order_relaxed);
    int64_t now = cp_now_ns();
    struct cp_request *request = usable ? cp_core_next_of_crowd(&slice->core, now) : NULL;
    if (!request)
        return false;
    cp_slot_pass(slot, CP_TAG_MANAGER);
    do_grant(slice, slot, request, now);
    if (slice->core.idle) /* it had been given up */
        cp_slice_touch(slice);
    return true;
}

bool cp_slice_take_back(cp_slot *slot)
{
    struct cp_slice *slice = slot->slice;
    struct corepool_shard *shard = slice->shard;
    /* Of one lease that was ended on two CPUs at once (shelf.h): its entry is still on the list, where a caller may take it. */
    if (atomic_load_explicit(&slot->listed, memory_order_relaxed))
        return false;
    /* Who is here after the swap sees what a give that was under way then has made of the stamp: see shelf.h. */
    if (!cp_slice_is_here(slice) || !cp_shard_begin_play(shard))
        return false;
    if (!slice->crowded || !hand_on(slice, slot)) {
        take_in(slice, slot);
        cp_slice_touch(slice);
    }
    cp_shard_end_play(shard);
    return true;
}

static void tell_shed(const struct cp_slice *slice, enum cp_outcome outcome, int64_t waited_ns)
{
    if (outcome == CP_SHED || outcome == CP_OVERLOADED)
        cp_slice_tell(slice, &(corepool_event_t){.kind = COREPOOL_EVENT_SHED,
                                                 .code = outcome == CP_SHED ? COREPOOL_ESHED : COREPOOL_EOVERLOAD,
                                                 .duration_ms = waited_ns / CP_NS_PER_MS});
}

static void do_refuse(struct cp_slice *slice, struct cp_request *request, enum cp_outcome outcome, int64_t now)
{
    void (*notify)(struct cp_request *) = request->notify;
    void *wrapped = cp_request_wrapped(request); /* afterwards it is its caller's again */
    int64_t waited = time_since(request->posted_at, now);
    if (!cp_slice_decide(request, outcome)) {
        cp_core_undecided(&slice->core);
        return;
    }
    tell_shed(slice, outcome, waited);
    cp_slice_notify(slice->shard, request, notify);
    cp_call_cancelled(slice, COREPOOL_CANCELLED_QUEUED, wrapped);
}

/* The shelf is on another CPU. False: nothing can be done now, a timer is set, or the thread must. */
static bool leave_cpu(struct cp_slice *slice)
{
    return cp_on_shard(slice->shard) && cp_slice_leave_cpu(slice);
}

/* False: as above. */
static bool do_shelve(struct cp_slice *slice, cp_slot *slot)
{
    uint64_t stamp = cp_slot_stamp(slot);
    switch (cp_shelf_give(&slice->shelf, &slot->item, stamp, cp_stamp_passed(stamp, CP_TAG_SHELVED))) {
    case CP_SHELF_DONE: return true;
    case CP_SHELF_DOOMED: cp_core_doom(&slice->core, slot, slot->doom); return true;
    case CP_SHELF_ELSEWHERE: cp_core_idle(&slice->core, slot); return leave_cpu(slice);
    default: cp_core_idle(&slice->core, slot); return true;
    }
}

/* Whom to bring from the shelf: the one that is to be granted; or all, the newest last, as the core's list has it. */
static enum cp_shelf_end end_to_bring(const struct cp_slice *slice)
{
    return cp_core_brings_oldest(&slice->core) ? CP_OLDEST : cp_slice_end(slice);
}

/* False: as above. */
static bool do_listen(struct cp_slice *slice)
{
    struct cp_item *item;
    enum cp_shelf_outcome outcome = cp_shelf_await(&slice->shelf);
    if (outcome == CP_SHELF_DONE) {
        cp_point(AWAIT_SET);
        /* Its exchange and the push of a giver elsewhere are atomic changes of one word: either ours finds the push, or the
         * push comes after ours and the giver's look at `waiting`, which follows it, finds it set. */
        cp_slice_collect(slice);
        return true;
    }
    cp_core_not_listening(&slice->core);
    if (outcome == CP_SHELF_ELSEWHERE)
        return leave_cpu(slice);
    if (outcome == CP_SHELF_NONEMPTY && cp_shelf_take(&slice->shelf, end_to_bring(slice), &item) == CP_SHELF_DONE)
        cp_slice_adopt(slice, cp_slot_of(item), COREPOOL_REASON_NONE);
    return true;
}

static void end_pool_state(struct cp_slice *slice)
{
    CP_MARKED(slice->shard, slice, CP_CALLS_POOL_TERMINATE);
    if (slice->cls->pool_terminate)
        slice->cls->pool_terminate(slice->pool_state, slice->close_reason);
}

static void do_finish(struct cp_slice *slice)
{
    atomic_store(&slice->epoch, 0);
    end_pool_state(slice);
    cp_list_unlink(&slice->link);
    cp_list_unlink(&slice->dirty);
    cp_heap_remove(&slice->shard->sleeping, &slice->sleeping);
    slice->config.finished(slice, slice->config.context);
}

/* What was kept in a turn is idle for all now; on a portable shelf nobody without a turn would look for it. Pairs with
 * cp_slice_keep: who pushed before the change is found here, who pushes after it sees that. */
static void do_unlisten(struct cp_slice *slice)
{
    cp_shelf_change(&slice->shelf, 0, CP_SHELF_WAITING);
    if (slice->config.barging_ns && atomic_load(&slice->shelf.flags) & CP_SHELF_PORTABLE)
        cp_slice_collect(slice);
}

/* False: nothing is left to do, or the slice is gone. */
static bool perform(struct cp_slice *slice, const struct cp_action *action, int64_t now)
{
    switch (action->what) {
    case CP_DO_NOTHING: return false;
    case CP_DO_GRANT: do_grant(slice, action->slot, action->request, now); return true;
    case CP_DO_REFUSE: do_refuse(slice, action->request, action->outcome, now); return true;
    case CP_DO_SHELVE: return do_shelve(slice, action->slot);
    case CP_DO_LISTEN: return do_listen(slice);
    case CP_DO_UNLISTEN: do_unlisten(slice); return true;
    case CP_DO_OPEN: cp_worker_open(action->slot); return true;
    case CP_DO_REFRESH: cp_slice_refresh_one(slice); return true;
    case CP_DO_TERMINATE: cp_worker_terminate(action->slot, action->reason); return true;
    case CP_DO_LOOK: cp_slice_look(slice); return true;
    case CP_DO_FETCH: cp_slice_fetch(slice); return true;
    case CP_DO_PING: cp_slice_ping(slice, action->slot); return true;
    case CP_DO_INFO: cp_slice_info(slice, action->slot); return true;
    case CP_DO_PUT_BACK: cp_slice_put_back(slice, action->slot); return true;
    case CP_DO_MEET:
    case CP_DO_ASK:
    case CP_DO_WITHDRAW:
    case CP_DO_BRING:
    case CP_DO_MOVE:
    case CP_DO_ANSWER:
    case CP_DO_PUSH:
    case CP_DO_TAKE:
    case CP_DO_ADOPT: cp_slice_steal(slice, action); return true;
    case CP_DO_FINISH: do_finish(slice); return false;
    }
    return false;
}

/* Closing begins once no caller can reach the shelf any more. */
static bool begin_close(struct cp_slice *slice)
{
    struct cp_item *item;
    if (!cp_shelf_change(&slice->shelf, CP_SHELF_CLOSED, 0)) {
        try_again_later(slice);
        return false;
    }
    slice->close_wanted = false;
    while (cp_shelf_drain(&slice->shelf, &item))
        cp_slice_adopt(slice, cp_slot_of(item), COREPOOL_REASON_NONE);
    cp_slice_collect(slice); /* pairs as in do_listen: givers elsewhere look at CLOSED after their push */
    cp_core_close(&slice->core, slice->close_reason);
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        if (slot->phase == CP_OPENING)
            cp_worker_cancel_open(slot);
    return true;
}

static void tell_watcher(struct cp_slice *slice)
{
    atomic_store(&slice->quiet, cp_core_is_quiet(&slice->core));
    atomic_store(&slice->home, cp_steal_is_home(&slice->core));
    slice->watched = slice->config.changed(slice, slice->config.context);
}

/* When the slice is to be looked after though nothing happens: the core's time, or when turns have ended. */
static int64_t wake_time(const struct cp_slice *slice, int64_t now)
{
    int64_t wake_at = cp_core_wake_at(&slice->core, now);
    bool turns = slice->config.barging_ns && !atomic_load(&slice->turnless) && !slice->core.closed;
    if (!turns || !slice->core.listening) /* else somebody wants what is kept: here, or on another shard */
        return wake_at;
    int64_t turn = slice->config.barging_ns < CP_NS_PER_MS ? CP_NS_PER_MS : slice->config.barging_ns;
    return wake_at < now + turn ? wake_at : now + turn;
}

/* What was kept in turns that may have ended is taken in. Who finds that the slice holds, after it has taken the list, gives
 * it back; who does not had it before. */
static void end_turns(struct cp_slice *slice)
{
    atomic_store(&slice->turnless, cp_core_holds(&slice->core));
    if (atomic_load(&slice->turnless) || slice->core.listening)
        cp_slice_collect(slice);
}

void cp_slice_pump(struct cp_slice *slice)
{
    struct cp_action action;
    unsigned opens = 0;
    cp_assert(cp_on_shard(slice->shard) && slice->shard->playing);
    if (slice->pumping) /* called from a callback of our own: the loop below goes on */
        return;
    slice->pumping = true;
    slice->taken_in = 0;
    slice->crowded = false;
    if (slice->close_wanted && !begin_close(slice)) {
        slice->pumping = false;
        return;
    }
    if (slice->sift_wanted)
        cp_slice_sift(slice);
    if (slice->config.barging_ns)
        end_turns(slice);
    int64_t now = cp_now_ns();
    for (cp_core_next(&slice->core, now, &action); perform(slice, &action, now); cp_core_next(&slice->core, now, &action)) {
        opens += action.what == CP_DO_OPEN;
        now = cp_now_ns();
        if (opens >= OPENS_IN_A_ROW)
            cp_core_rest(&slice->core, now + REST_NS);
    }
    slice->pumping = false;
    if (action.what == CP_DO_FINISH)
        return;
    if (slice->watched)
        tell_watcher(slice);
    /* By the same clock reading: what was not yet due must get its wake-up. */
    int64_t wake_at = wake_time(slice, now);
    if (action.what == CP_DO_NOTHING && wake_at != CP_NEVER)
        cp_shard_wake_at(slice->shard, slice, wake_at);
}

/* Whether the thread has something to do that the core does not know of. */
static bool wants_thread(const struct cp_slice *slice)
{
    return slice->close_wanted || slice->sift_wanted || slice->watched ||
           cp_shelf_is(&slice->shelf, CP_TRAIT_THREADED);
}

/* Whether it would be woken too late. */
static bool is_to_wake(const struct cp_slice *slice, int64_t now)
{
    int64_t wake_at = wake_time(slice, now);
    return wake_at != CP_NEVER && (!cp_heap_has(&slice->sleeping) || wake_at < slice->sleeping.key);
}

/* True: there is more, for the thread. */
static bool pump_some(struct cp_slice *slice)
{
    struct cp_action action;
    bool left = false;
    int64_t now = cp_now_ns();
    slice->pumping = true;
    slice->taken_in = 0;
    cp_core_next_anywhere(&slice->core, now, &action, &left);
    while (perform(slice, &action, now)) {
        if (cp_on_shard(slice->shard)) /* else no callback has run, and it took no time */
            now = cp_now_ns();
        cp_core_next_anywhere(&slice->core, now, &action, &left);
    }
    slice->pumping = false;
    left = left || action.what != CP_DO_NOTHING || is_to_wake(slice, now);
    slice->crowded = !left && cp_core_is_crowded(&slice->core);
    return left;
}

bool cp_slice_pump_anywhere(struct cp_slice *slice)
{
    return wants_thread(slice) || pump_some(slice);
}

/* Nothing is under way that would come after what is done now. */
static bool is_at_rest(struct cp_slice *slice)
{
    struct corepool_shard *shard = slice->shard;
    if (!cp_on_shard(shard) || shard->local_first)
        return false;
    cp_shard_enter(shard); /* until here a caller may be pumping */
    return !slice->pumping && cp_list_is_empty(&slice->dirty) && cp_list_is_empty(&slice->core.requests) && !slice->core.closed &&
           !slice->close_wanted && cp_list_is_empty(&slice->core.steal.asked);
}

/* The callback of a grant runs, and the pump that granted goes on with what it brings about. */
static bool goes_on(const struct cp_slice *slice)
{
    const struct corepool_shard *shard = slice->shard;
    return cp_on_shard(shard) && shard->playing && slice->between_steps && !shard->local_first && !slice->core.closed &&
           !slice->close_wanted;
}

bool cp_slice_serve_at_once(struct cp_slice *slice, struct cp_request *request)
{
    if (goes_on(slice) && slice->taken_in < TAKEN_IN_MOST) {
        slice->taken_in++;
        cp_slice_accept(request);
        return true;
    }
    if (!is_at_rest(slice))
        return false;
    if (cp_slice_accept(request) && (pump_some(slice) || slice->watched))
        cp_slice_touch(slice);
    return true;
}

bool cp_slice_collect_at_once(struct cp_slice *slice)
{
    bool managed = cp_shelf_is(&slice->shelf, CP_TRAIT_MANAGED);
    if (goes_on(slice)) {
        cp_slice_collect(slice);
        return true;
    }
    if (!managed || !is_at_rest(slice))
        return false;
    cp_slice_collect(slice);
    if (slice->core.doomed || slice->watched || cp_core_holds(&slice->core))
        cp_slice_touch(slice);
    return true;
}

void cp_slice_touch(struct cp_slice *slice)
{
    cp_shard_look_after(slice->shard, slice);
}

static void tell_marked(const struct cp_slice *slice, const corepool_event_t *event)
{
    CP_MARKED(slice->shard, slice, CP_CALLS_ON_EVENT);
    slice->config.on_event(event, slice->config.event_arg);
}

void cp_slice_tell(const struct cp_slice *slice, const corepool_event_t *event)
{
    corepool_event_t told = *event;
    if (!slice->config.on_event)
        return;
    told.pool = slice->config.name;
    told.shard = slice->shard->index;
    if (cp_on_shard(slice->shard))
        tell_marked(slice, &told);
    else
        slice->config.on_event(&told, slice->config.event_arg);
}

void cp_slice_warn(const struct cp_slice *slice, const cp_slot *slot, int code, const char *text)
{
    corepool_event_t event = {.kind = COREPOOL_EVENT_WARNING, .worker = slot->number, .code = code, .text = text};
    cp_slice_tell(slice, &event);
}

void cp_slice_warn_of_enqueue(const struct cp_slice *slice, int verdict)
{
    cp_slice_tell(slice,
                  &(corepool_event_t){.kind = COREPOOL_EVENT_WARNING,
                                      .code = verdict,
                                      .text = "enqueue returned a value that means nothing, which counts as "
                                              "COREPOOL_SKIP"});
}

/* --- open and close -------------------------------------------------------------------------------------------------- */

static void deliver_nudge(struct cp_message *message)
{
    struct cp_slice *slice = cp_container(message, struct cp_slice, nudge);
    /* It is another pool's by now; or the caller is elsewhere, where nobody may look at the list: see shelf.h on double endings. */
    if (!cp_on_shard(slice->shard) && (wants_thread(slice) || !cp_slice_is_here(slice))) {
        cp_loop_send(&slice->shard->loop, message); /* closed: nothing is left that could be returned */
        return;
    }
    atomic_exchange(&slice->nudged, 0); /* before the look: a later push nudges again */
    if (atomic_load(&slice->epoch) == 0) /* finished meanwhile */
        return;
    cp_slice_collect(slice);
    cp_steal_nudged(&slice->core);
    cp_slice_touch(slice);
}

/* Whether a checkout has something to do besides taking a worker. */
static bool is_looked_at(const struct cp_slice_config *config)
{
    return config->cls->checkout || config->cls->enqueue || config->cls->validate || config->timed || config->backtrace_every;
}

/* What keeps callers from the usual path. */
static uint32_t flags_of(const struct cp_slice_config *config)
{
    bool look_take = config->fifo || is_looked_at(config);
    bool look_give = config->cls->checkin || config->timed;
    return (look_take ? CP_SHELF_LOOK_TAKE : 0u) | (look_give ? CP_SHELF_LOOK_GIVE : 0u);
}

static uint32_t traits_of(const struct cp_slice_config *config)
{
    bool threaded = config->core.managed || config->cls->cancelled || config->on_event;
    bool ordered = config->fifo && !is_looked_at(config);
    return (config->fifo ? CP_TRAIT_FIFO : 0u) | (ordered ? CP_TRAIT_ORDERED : 0u) |
           (config->core.managed ? CP_TRAIT_MANAGED : 0u) | (config->serialised ? CP_TRAIT_SERIALISED : 0u) |
           (threaded ? CP_TRAIT_THREADED : 0u);
}

static void reset_histogram(_Atomic(struct cp_histogram *) *histogram)
{
    if (atomic_load(histogram))
        memset(atomic_load(histogram), 0, sizeof(struct cp_histogram));
}

static void reset_counts(struct cp_slice *slice)
{
    reset_histogram(&slice->core.waits);
    reset_histogram(&slice->opens);
    reset_histogram(&slice->holds);
    for (unsigned i = 0; i <= COREPOOL_REASONS; i++)
        atomic_store(&slice->ended[i], 0);
    atomic_store(&slice->skips, 0);
    atomic_store(&slice->refused, 0);
    atomic_store(&slice->reclaimed, 0);
    atomic_store(&slice->overdue, 0);
}

/* A block that grew in an earlier life has slots in several pieces. */
static void init_core(struct cp_slice *slice, const struct cp_core_options *options)
{
    struct cp_core_options first = *options;
    first.quota = options->quota < slice->base_slots ? options->quota : slice->base_slots;
    cp_core_init(&slice->core, &first, slice->slots);
    cp_slice_resize(slice, options->quota);
}

static int begin_pool_state(struct cp_slice *slice, void **pool_state)
{
    const struct cp_slice_config *config = &slice->config;
    CP_MARKED(slice->shard, slice, CP_CALLS_POOL_INIT);
    int status = config->cls->pool_init ? config->cls->pool_init(config->arg, slice->shard, pool_state) : COREPOOL_OK;
    if (status > 0 && status != COREPOOL_IGNORE)
        return cp_fail(COREPOOL_EINVAL, "pool_init of %s returned %d, which means nothing", config->cls->name, status);
    return status;
}

int cp_slice_open(struct cp_slice *slice, const struct cp_slice_config *config)
{
    void *pool_state = config->arg;
    if (config->timed && !has_histogram(slice, &slice->holds))
        return cp_fail(COREPOOL_ENOMEM, "no memory to measure leases on shard %u", slice->shard->index);
    slice->config = *config;
    int status = begin_pool_state(slice, &pool_state);
    if (status != COREPOOL_OK)
        return status;
    slice->cls = config->cls;
    slice->pool_state = pool_state;
    slice->lost_cpu = slice->close_wanted = slice->sift_wanted = slice->watched = slice->cannot_steal = false;
    slice->nudge.deliver = deliver_nudge;
    slice->error[0] = '\0';
    slice->leases_before = 0;
    slice->leases_before = cp_slice_leases(slice);
    atomic_store(&slice->shelf.traits, traits_of(config));
    cp_shelf_init(&slice->shelf, slice->ring, cp_slice_ring_size(slice), (uint32_t)slice->shard->cpu, config->portable);
    struct cp_histogram *waits = atomic_load(&slice->core.waits); /* of the block's last opening */
    init_core(slice, &config->core);
    atomic_store(&slice->core.waits, waits);
    reset_counts(slice);
    atomic_fetch_or(&slice->shelf.flags, flags_of(config));
    if (config->core.managed) { /* for good: every give and take goes to the manager */
        slice->core.listening = true;
        atomic_fetch_or(&slice->shelf.flags, CP_SHELF_WAITING);
    }
    cp_list_push_back(&slice->shard->slices, &slice->link);
    atomic_store(&slice->epoch, atomic_fetch_add(&epochs, 1) + 1);
    cp_slice_touch(slice);
    return COREPOOL_OK;
}

void cp_slice_close(struct cp_slice *slice, corepool_reason_t reason)
{
    if (slice->core.closed || slice->close_wanted)
        return;
    slice->close_wanted = true;
    slice->close_reason = (uint8_t)reason;
    cp_slice_touch(slice);
}
