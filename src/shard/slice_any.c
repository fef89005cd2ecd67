/* shard/slice_any.c: the half of a slice that any thread may call: requests to the manager, the returned list, counts. */
#include <string.h>

#include "base/point.h"
#include "shard/call.h"
#include "shard/shard.h"

/* --- requests --------------------------------------------------------------------------------------------------------- */

void cp_slice_let_go(struct cp_request *request, enum cp_outcome outcome)
{
    request->held = false;
    if (atomic_exchange(&request->outcome, outcome) == CP_HELD_AWAITED)
        cp_futex_wake(&request->outcome, 1);
}

bool cp_slice_decide(struct cp_request *request, enum cp_outcome outcome)
{
    if (!request->held)
        return cp_request_decide(request, outcome);
    cp_slice_let_go(request, outcome);
    return true;
}

void cp_slice_notify(struct corepool_shard *shard, struct cp_request *request, void (*notify)(struct cp_request *))
{
    if (notify)
        notify(request);
    else /* the request may be reused already: only its address is used */
        cp_shard_wake_sleeper(shard, &request->outcome);
}

bool cp_slice_answer(struct cp_request *request, enum cp_outcome outcome)
{
    void (*notify)(struct cp_request *) = request->notify;
    struct corepool_shard *shard = request->shard;
    bool decided = cp_slice_decide(request, outcome);
    if (decided)
        cp_slice_notify(shard, request, notify);
    return decided;
}

void cp_slice_await_hold(struct cp_request *request)
{
    uint32_t found = CP_HELD;
    if (atomic_compare_exchange_strong(&request->outcome, &found, CP_HELD_AWAITED) || found == CP_HELD_AWAITED)
        cp_futex_wait(&request->outcome, CP_HELD_AWAITED, CP_NEVER);
}

bool cp_slice_withdraw(struct cp_request *request, enum cp_outcome outcome)
{
    while (!cp_request_decide(request, outcome)) {
        uint32_t found = atomic_load(&request->outcome);
        if (found == CP_PENDING) /* let go in between */
            continue;
        if ((found != CP_HELD && found != CP_HELD_AWAITED) || cp_on_shard(request->shard))
            return false; /* decided, or asked from within that callback */
        cp_slice_await_hold(request);
    }
    return true;
}

bool cp_slice_ask(struct cp_slice *slice, struct cp_message *message)
{
    bool threaded = cp_shelf_is(&slice->shelf, CP_TRAIT_THREADED);
    return threaded ? cp_shard_send(slice->shard, message)
                    : cp_shard_ask(slice->shard, message, cp_slice_is_here(slice));
}

bool cp_slice_accept(struct cp_request *request)
{
    struct cp_slice *slice = request->slice;
    /* A slice that was closed meanwhile, and perhaps is another pool's by now, refuses by itself. */
    if (atomic_load(&slice->epoch) != request->epoch) {
        if (!cp_slice_answer(request, CP_CLOSED))
            request->slice = NULL; /* its notice finds nobody */
        return false;
    }
    if (!cp_call_enqueue(slice, request))
        return false;
    cp_core_request(&slice->core, request);
    return true;
}

static void deliver_request(struct cp_message *message)
{
    struct cp_request *request = cp_container(message, struct cp_request, posted);
    struct cp_slice *slice = request->slice; /* answered, it may be its caller's again */
    if (!cp_slice_accept(request))
        return;
    if (slice->crowded)
        cp_core_crowd(&slice->core, request->posted_at);
    else
        cp_slice_touch(slice);
}

static void tell_timeout(const struct cp_request *request)
{
    if (atomic_load_explicit(&request->outcome, memory_order_relaxed) != CP_TIMED_OUT ||
        !request->slice->config.on_event)
        return;
    cp_slice_tell(request->slice,
                  &(corepool_event_t){.kind = COREPOOL_EVENT_TIMEOUT, .code = COREPOOL_ETIMEDOUT,
                                      .duration_ms = (cp_now_ns() - request->posted_at) / CP_NS_PER_MS});
}

static void deliver_given_up(struct cp_message *message)
{
    struct cp_request *request = cp_container(message, struct cp_request, given_up);
    if (request->slice) {
        cp_core_give_up(&request->slice->core, request);
        tell_timeout(request);
        cp_call_cancelled(request->slice, COREPOOL_CANCELLED_QUEUED, cp_request_wrapped(request));
        cp_slice_touch(request->slice);
    }
    cp_request_release(request);
}

bool cp_slice_send_request(struct cp_slice *slice, struct cp_request *request, uint64_t epoch)
{
    request->slice = slice;
    request->shard = slice->shard;
    request->epoch = epoch;
    request->asked = !cp_shelf_is(&slice->shelf, CP_TRAIT_THREADED);
    request->posted.deliver = deliver_request;
    request->given_up.deliver = deliver_given_up;
    if (cp_slice_serve_at_once(slice, request))
        return true;
    return request->asked ? cp_shard_ask(slice->shard, &request->posted, cp_slice_is_here(slice))
                          : cp_shard_send(slice->shard, &request->posted);
}

void cp_slice_give_up(struct cp_request *request)
{
    cp_point(REQUEST_GIVEN_UP);
    /* The shard cannot have stopped: its slice waits for this notice before it finishes. Except a request that was
     * refused for its epoch; then nothing refers to it any more. The notice takes the way that the request took. */
    bool sent = request->asked ? cp_shard_ask(request->shard, &request->given_up, true)
                               : cp_shard_send(request->shard, &request->given_up);
    if (!sent)
        cp_request_release(request);
}

static void deliver_unused(struct cp_message *message)
{
    struct cp_request *request = cp_container(message, struct cp_request, given_up);
    if (atomic_load(&request->slice->epoch) == request->epoch && !request->slice->config.serialised)
        cp_call_cancelled(request->slice, COREPOOL_CANCELLED_QUEUED, cp_request_wrapped(request));
    cp_request_release(request);
}

void cp_slice_unused(struct cp_request *request)
{
    request->given_up.deliver = deliver_unused;
    if (!cp_shard_send(request->shard, &request->given_up))
        cp_request_release(request);
}

static void deliver_nonsense(struct cp_message *message)
{
    struct cp_request *request = cp_container(message, struct cp_request, posted);
    if (atomic_load(&request->slice->epoch) == request->epoch)
        cp_slice_warn_of_enqueue(request->slice, request->verdict);
    cp_request_release(request);
}

void cp_slice_send_nonsense(struct cp_slice *slice, struct cp_request *request, uint64_t epoch, int verdict)
{
    request->slice = slice;
    request->epoch = epoch;
    request->verdict = verdict;
    request->posted.deliver = deliver_nonsense;
    if (!cp_shard_send(slice->shard, &request->posted))
        cp_request_release(request);
}

/* --- the returned list -------------------------------------------------------------------------------------------------- */

void cp_slice_nudge(struct cp_slice *slice)
{
    if (!cp_slice_collect_at_once(slice))
        cp_slice_nudge_later(slice);
}

void cp_slice_nudge_later(struct cp_slice *slice)
{
    if (atomic_exchange(&slice->nudged, 1) == 0)
        if (!cp_slice_ask(slice, &slice->nudge))
            atomic_store(&slice->nudged, 0); /* stopped: no worker is left that could be returned */
}

static void push_returned(struct cp_slice *slice, cp_slot *slot)
{
    /* Set already: one lease was ended on two CPUs at once (shelf.h), and its entry is still there to be collected. */
    if (atomic_exchange(&slot->listed, 1))
        return;
    cp_slot *first = atomic_load_explicit(&slice->returned, memory_order_relaxed);
    do
        atomic_store_explicit(&slot->returned_next, first, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&slice->returned, &first, slot));
}

void cp_slice_return(cp_slot *slot, bool wake)
{
    struct cp_slice *slice = slot->slice;
    struct corepool_shard *shard = slice->shard;
    cp_shard_hold(shard); /* once it is pushed the slot keeps nobody from stopping */
    push_returned(slice, slot);
    cp_point(GIVE_FOREIGN_PUSHED);
    /* After the push: pairs with the manager's exchange after it has set `waiting`, CLOSED, PORTABLE, or the slot's doom. */
    if (wake || cp_shelf_wants_returned(&slice->shelf) || atomic_load(&slot->item.doomed))
        cp_slice_nudge(slice);
    cp_shard_let_go(shard);
}

void cp_slice_keep(cp_slot *slot)
{
    struct cp_slice *slice = slot->slice;
    struct corepool_shard *shard = slice->shard;
    cp_point(TURN_KEEPS);
    cp_shard_hold(shard);
    push_returned(slice, slot);
    /* As in cp_slice_return; and in the meantime turns may have ended, or nobody waits any more. Who waits is served by the
     * shard's timer if this thread does not come back. */
    bool kept = (atomic_load(&slice->shelf.flags) & (CP_SHELF_WAITING | CP_SHELF_CLOSED)) == CP_SHELF_WAITING &&
                !atomic_load(&slice->turnless) && !atomic_load(&slot->item.doomed);
    if (!kept)
        cp_slice_nudge(slice);
    cp_shard_let_go(shard);
}

/* A slot that this caller took off the returned list and does not keep. */
static void put_back(struct cp_slice *slice, cp_slot *slot)
{
    uint64_t stamp = cp_slot_stamp(slot);
    uint64_t shelved = cp_stamp_passed(stamp, CP_TAG_SHELVED);
    enum cp_shelf_outcome outcome = CP_SHELF_DOOMED;
    if (cp_stamp_tag(stamp) == CP_TAG_RETURNED)
        outcome = cp_shelf_give(&slice->shelf, &slot->item, stamp, shelved);
    if (outcome != CP_SHELF_DONE)
        cp_slice_return(slot, outcome != CP_SHELF_ELSEWHERE);
}

/* Whether one that takes now would go before those who wait, or the pool closes. */
static bool is_forbidden(const struct cp_slice *slice, bool turn)
{
    if (!turn)
        return cp_shelf_wants_manager(&slice->shelf);
    return atomic_load(&slice->shelf.flags) & CP_SHELF_CLOSED || atomic_load(&slice->turnless);
}

cp_slot *cp_slice_collect_one(struct cp_slice *slice, bool turn)
{
    cp_slot *kept = NULL;
    if (!atomic_load_explicit(&slice->returned, memory_order_relaxed) || is_forbidden(slice, turn))
        return NULL;
    cp_slot *slot = atomic_exchange(&slice->returned, NULL);
    bool overtakes = is_forbidden(slice, turn); /* again, now that the list is ours */
    while (slot) {
        cp_slot *next = atomic_load_explicit(&slot->returned_next, memory_order_relaxed);
        atomic_exchange(&slot->listed, 0);
        uint64_t stamp = cp_slot_stamp(slot);
        uint32_t tag = cp_stamp_tag(stamp);
        if (!kept && !overtakes && tag == CP_TAG_RETURNED &&
            !atomic_load_explicit(&slot->item.doomed, memory_order_relaxed)) {
            kept = slot;
            cp_slot_pass(slot, CP_TAG_MANAGER);
        } else if (tag == CP_TAG_RETURNED || tag == CP_TAG_REMOVED) {
            put_back(slice, slot);
        }
        slot = next;
    }
    return kept;
}

/* --- counts --------------------------------------------------------------------------------------------------------------- */

void cp_slice_last_error(struct cp_slice *slice, char text[CP_ERROR_BYTES])
{
    cp_lock_take(&slice->error_lock);
    memcpy(text, slice->error, CP_ERROR_BYTES);
    cp_lock_free(&slice->error_lock);
}

uint64_t cp_slice_leases(const struct cp_slice *slice)
{
    uint64_t leases = 0;
    for (const cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        leases += cp_stamp_generation(cp_slot_stamp(slot));
    return leases - slice->leases_before;
}

uint32_t cp_slice_leased(const struct cp_slice *slice)
{
    uint32_t leased = 0;
    for (const cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        leased += cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_LEASED;
    return leased;
}

/* --- laws ------------------------------------------------------------------------------------------------------------------ */

struct census {
    uint32_t shelved, returned, leased, with_manager;
};

static const char *count_shelved(const struct cp_slice *slice, struct cp_item *item, struct census *census)
{
    if (cp_slot_of(item)->slice != slice)
        return "L2: the shelf holds a slot of another slice";
    if (!cp_stamp_is_shelved(cp_slot_stamp(cp_slot_of(item))))
        return "L2: a slot on the shelf has another owner";
    if (cp_slot_of(item)->counted)
        return "L2: a slot is on the shelf twice";
    cp_slot_of(item)->counted = true;
    census->shelved++;
    return NULL;
}

static const char *count_shelf(const struct cp_slice *slice, struct census *census)
{
    uint32_t tail = atomic_load(&slice->shelf.tail), head = atomic_load(&slice->shelf.head);
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot))
        slot->counted = false;
    for (uint32_t i = tail; i != head; i++) {
        const char *broken = count_shelved(slice, atomic_load(&slice->shelf.ring[i & slice->shelf.mask]), census);
        if (broken)
            return broken;
    }
    struct cp_item *top = cp_shelf_idle_top(&slice->shelf);
    return top ? count_shelved(slice, top, census) : NULL;
}

/* Else its client's usual checkin would shelve it: see cp_shelf_forget_doomed. */
static const char *check_top(const struct cp_slice *slice)
{
    const struct cp_item *top = atomic_load(&slice->shelf.top);
    bool leased = cp_stamp_tag(atomic_load(&top->stamp)) == CP_TAG_LEASED;
    if (leased && atomic_load(&top->doomed) && !slice->sift_wanted)
        return "L6: a leased worker that is to end is a shelf's top";
    return NULL;
}

static void count_stamps(const struct cp_slice *slice, struct census *census)
{
    for (const cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        uint32_t tag = cp_stamp_tag(cp_slot_stamp(slot));
        census->leased += tag == CP_TAG_LEASED;
        census->returned += tag == CP_TAG_RETURNED || tag == CP_TAG_REMOVED;
        census->with_manager += tag == CP_TAG_MANAGER && slot->phase == CP_LIVE;
    }
}

const char *cp_slice_check(struct cp_slice *slice)
{
    struct census census = {0};
    const char *broken = cp_core_check(&slice->core);
    if (!broken)
        broken = count_shelf(slice, &census);
    if (!broken)
        broken = check_top(slice);
    if (broken)
        return broken;
    count_stamps(slice, &census);
    if (census.with_manager != slice->core.idle + slice->core.doomed + slice->core.look.held)
        return "L1: a worker in the manager's hands is in none of its lists";
    if (census.shelved + census.returned + census.leased + census.with_manager != atomic_load(&slice->core.live))
        return "L1: shelved + returned + leased + held here is not the number of live workers";
    uint32_t idle = census.shelved + (slice->config.barging_ns ? 0 : census.returned); /* kept: see cp_slice_keep */
    if (atomic_load(&slice->core.waiting) && idle && !slice->core.closed)
        return "L3: a request waits beside an idle worker";
    return NULL;
}
