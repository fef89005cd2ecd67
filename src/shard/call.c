/* shard/call.c: runs a class's enqueue, checkout, checkin and cancelled for the manager. See call.h. */
#include "shard/call.h"

#include "core/verdict.h"
#include "shard/shard.h"

/* The request is held. */
static void skip(struct cp_slice *slice, struct cp_request *request, int verdict)
{
    request->verdict = verdict;
    atomic_fetch_add_explicit(&slice->skips, 1, memory_order_relaxed);
    if (verdict != COREPOOL_SKIP)
        cp_slice_warn_of_enqueue(slice, verdict);
    cp_slice_answer(request, CP_SKIPPED);
}

static int run_enqueue(const struct cp_slice *slice, void *command, void **wrapped)
{
    CP_MARKED(slice->shard, slice, CP_CALLS_ENQUEUE);
    return slice->cls->enqueue(slice->pool_state, command, wrapped);
}

bool cp_call_enqueue(struct cp_slice *slice, struct cp_request *request)
{
    void *wrapped = request->command;
    if (!slice->config.serialised || !slice->cls->enqueue || !cp_request_hold(request))
        return true; /* given up: its notice finds it in the queue */
    int verdict = run_enqueue(slice, request->command, &wrapped);
    if (verdict != COREPOOL_OK) {
        skip(slice, request, verdict);
        return false;
    }
    request->command = wrapped;
    request->enqueued = true;
    cp_slice_let_go(request, CP_PENDING);
    return true;
}

/* NONE, or why the worker is not to be used: the class's word on one that a look found idle for long. */
static uint32_t ask_if_usable(const struct cp_slice *slice, const cp_slot *slot, void *resource)
{
    uint32_t next = cp_slot_validation(cp_stamp_next_lease(cp_slot_stamp(slot)));
    bool asks = slice->cls->validate && atomic_load_explicit(&slot->validate, memory_order_relaxed) == next;
    if (!asks)
        return COREPOOL_REASON_NONE;
    CP_MARKED(slice->shard, slice, CP_CALLS_VALIDATE);
    return cp_verdict(slice->cls->validate(resource), COREPOOL_REASON_VALIDATE);
}

bool cp_call_checkout(struct cp_slice *slice, cp_slot *slot, struct cp_request *request)
{
    void *resource = atomic_load_explicit(&slot->resource, memory_order_relaxed);
    request->client = resource;
    if (!slice->config.serialised)
        return true; /* on the caller's thread */
    uint32_t unusable = ask_if_usable(slice, slot, resource);
    if (unusable != COREPOOL_REASON_NONE) {
        cp_slice_adopt(slice, slot, unusable);
        request->again = true;
        cp_core_request(&slice->core, request);
        return false;
    }
    if (!slice->cls->checkout)
        return true;
    if (!cp_request_hold(request)) {
        cp_core_undecided(&slice->core);
        cp_core_idle(&slice->core, slot);
        return false;
    }
    CP_MARKED(slice->shard, slice, CP_CALLS_CHECKOUT);
    int verdict = slice->cls->checkout(slice->pool_state, resource, request->command, &request->client);
    if (verdict == COREPOOL_OK)
        return true;
    if (verdict == COREPOOL_SKIP) {
        cp_slice_adopt(slice, slot, COREPOOL_REASON_NONE);
        skip(slice, request, verdict);
        return false;
    }
    cp_slice_adopt(slice, slot, cp_verdict(verdict, COREPOOL_REASON_CHECKOUT));
    request->again = true;
    cp_slice_let_go(request, CP_PENDING);
    cp_core_request(&slice->core, request);
    return false;
}

uint32_t cp_call_checkin(struct cp_slice *slice, cp_slot *slot)
{
    if (!slice->config.serialised || !slice->cls->checkin)
        return COREPOOL_REASON_NONE;
    void *resource = atomic_load_explicit(&slot->resource, memory_order_relaxed);
    void *client = atomic_load_explicit(&slot->client, memory_order_relaxed);
    CP_MARKED(slice->shard, slice, CP_CALLS_CHECKIN);
    return cp_verdict(slice->cls->checkin(slice->pool_state, resource, client), COREPOOL_REASON_CHECKIN);
}

void cp_call_cancelled(struct cp_slice *slice, corepool_cancelled_t how, void *wrapped)
{
    if (!slice->cls->cancelled) /* so it may be another thread than the shard's */
        return;
    CP_MARKED(slice->shard, slice, CP_CALLS_CANCELLED);
    slice->cls->cancelled(slice->pool_state, how, wrapped);
}
