/* shard/worker.c: a worker's init and terminate, and what a class may ask of the library.
 *
 * An init or terminate ends in one of three ways: at once, later by corepool_worker_ready/failed/gone from the shard's
 * loop, or, for a class that may block, on libuv's thread pool with the result brought back to the loop. For the last
 * kind the job is allocated before init, so that terminate cannot fail for want of memory. */
#include "shard/worker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "shard/shard.h"
#include "shard/watch.h"

struct job {
    uv_work_t work;
    cp_slot *slot;
    void *resource;
    int status;
    uint8_t reason;
    bool terminates;
};

static const corepool_class_t *class_of(const cp_slot *slot)
{
    return slot->slice->cls;
}

static void *resource_of(const cp_slot *slot)
{
    return atomic_load_explicit(&slot->resource, memory_order_relaxed);
}

/* --- results ------------------------------------------------------------------------------------------------------- */

static void forget_error(struct cp_slice *slice)
{
    cp_lock_take(&slice->error_lock);
    slice->error[0] = '\0';
    cp_lock_free(&slice->error_lock);
}

static int64_t ms_between(int64_t from_ns, int64_t to_ns)
{
    return (to_ns - from_ns) / CP_NS_PER_MS;
}

static void tell(const cp_slot *slot, corepool_event_t *event)
{
    event->worker = slot->number;
    cp_slice_tell(slot->slice, event);
}

static void note_open(struct cp_slice *slice, int64_t took_ns)
{
    cp_slice_need_histogram(slice, &slice->opens);
    struct cp_histogram *opens = atomic_load_explicit(&slice->opens, memory_order_relaxed);
    if (opens)
        cp_histogram_add(opens, (uint64_t)took_ns / 1000);
}

static void tell_failure(const cp_slot *slot, int code, int64_t now_ns)
{
    char why[CP_ERROR_BYTES];
    if (!slot->slice->config.on_event)
        return;
    cp_slice_last_error(slot->slice, why);
    tell(slot, &(corepool_event_t){.kind = COREPOOL_EVENT_OPEN_FAILED, .code = code, .text = why,
                                   .duration_ms = ms_between(slot->since, now_ns)});
}

void corepool_worker_ready(corepool_worker_t *worker, void *resource)
{
    cp_shard_enter(worker->slice->shard);
    if (worker->phase != CP_OPENING)
        return;
    int64_t began = worker->since;
    atomic_store_explicit(&worker->resource, resource, memory_order_relaxed);
    worker->since = cp_now_ns();
    forget_error(worker->slice);
    note_open(worker->slice, worker->since - began);
    cp_core_opened(&worker->slice->core, worker);
    cp_watch_ready(worker);
    tell(worker, &(corepool_event_t){.kind = COREPOOL_EVENT_OPENED, .duration_ms = ms_between(began, worker->since)});
    cp_slice_touch(worker->slice);
}

void corepool_worker_failed(corepool_worker_t *worker, int code)
{
    cp_shard_enter(worker->slice->shard);
    if (worker->phase != CP_OPENING)
        return;
    struct cp_slice *slice = worker->slice;
    if (!worker->explained)
        corepool_worker_explain(worker, "init of %s: %s", slice->cls->name, corepool_error_text(code));
    cp_watch_end(worker);
    free(worker->job);
    worker->job = NULL;
    int64_t now = cp_now_ns();
    cp_core_open_failed(&slice->core, worker, now);
    tell_failure(worker, code, now);
    cp_slice_touch(slice);
}

/* One writer. */
static void count_end(const cp_slot *slot)
{
    uint8_t reason = slot->doom < COREPOOL_REASONS ? slot->doom : COREPOOL_REASONS;
    _Atomic uint64_t *ended = &slot->slice->ended[reason];
    atomic_store_explicit(ended, atomic_load_explicit(ended, memory_order_relaxed) + 1, memory_order_relaxed);
}

void corepool_worker_gone(corepool_worker_t *worker)
{
    cp_shard_enter(worker->slice->shard);
    if (worker->phase != CP_CLOSING)
        return;
    free(worker->job);
    worker->job = NULL;
    atomic_store_explicit(&worker->resource, NULL, memory_order_relaxed);
    count_end(worker);
    cp_core_gone(&worker->slice->core, worker);
    tell(worker, &(corepool_event_t){.kind = COREPOOL_EVENT_CLOSED, .reason = worker->doom,
                                     .duration_ms = ms_between(worker->since, cp_now_ns())});
    cp_slice_touch(worker->slice);
}

void corepool_worker_explain(corepool_worker_t *worker, const char *format, ...)
{
    struct cp_slice *slice = worker->slice;
    va_list args;
    va_start(args, format);
    cp_lock_take(&slice->error_lock);
    vsnprintf(slice->error, sizeof slice->error, format, args);
    cp_lock_free(&slice->error_lock);
    va_end(args);
    worker->explained = true;
}

static void finish_open(cp_slot *slot, int status, void *resource)
{
    if (status == COREPOOL_OK)
        corepool_worker_ready(slot, resource);
    else if (status < 0)
        corepool_worker_failed(slot, status);
    else if (status != COREPOOL_PENDING)
        corepool_worker_failed(slot, COREPOOL_EOPEN);
}

/* A terminate that failed has ended its worker all the same. */
static void finish_terminate(cp_slot *slot, int status)
{
    if (status < 0)
        cp_slice_warn(slot->slice, slot, status, "terminate failed, which is ignored");
    corepool_worker_gone(slot);
}

/* --- classes that may block --------------------------------------------------------------------------------------------- */

static void work(uv_work_t *request)
{
    struct job *job = request->data;
    cp_slot *slot = job->slot;
    void *pool_state = slot->slice->pool_state;
    if (job->terminates)
        job->status = class_of(slot)->terminate(slot, pool_state, job->resource, job->reason);
    else
        job->status = class_of(slot)->init(slot, pool_state, &job->resource);
}

static void after_work(uv_work_t *request, int status)
{
    struct job *job = request->data;
    cp_slot *slot = job->slot;
    if (job->terminates) {
        finish_terminate(slot, job->status);
        return;
    }
    if (status < 0) { /* cancelled before it began */
        corepool_worker_explain(slot, "init of %s was cancelled", class_of(slot)->name);
        job->status = COREPOOL_ECANCELED;
    } else if (job->status == COREPOOL_PENDING) { /* such a class cannot finish later */
        job->status = COREPOOL_EOPEN;
    }
    finish_open(slot, job->status, job->resource);
}

static void queue_work(cp_slot *slot)
{
    struct job *job = slot->job;
    job->work.data = job;
    uv_queue_work(&slot->slice->shard->uv, &job->work, work, after_work); /* fails without a callback only */
}

static void open_blocking(cp_slot *slot)
{
    struct job *job = calloc(1, sizeof *job);
    slot->job = job;
    if (!job) {
        corepool_worker_explain(slot, "no memory to open a worker");
        corepool_worker_failed(slot, COREPOOL_ENOMEM);
        return;
    }
    job->slot = slot;
    queue_work(slot);
}

/* --- what the manager asks ------------------------------------------------------------------------------------------------ */

void cp_worker_open(cp_slot *slot)
{
    void *resource = NULL;
    slot->context = NULL;
    slot->explained = false;
    slot->since = cp_now_ns();
    if (class_of(slot)->flags & COREPOOL_CLASS_BLOCKING) {
        open_blocking(slot);
        return;
    }
    CP_MARKED(slot->slice->shard, slot->slice, CP_CALLS_INIT);
    int status = class_of(slot)->init(slot, slot->slice->pool_state, &resource);
    finish_open(slot, status, resource);
}

void cp_worker_terminate(cp_slot *slot, corepool_reason_t reason)
{
    const corepool_class_t *cls = class_of(slot);
    struct job *job = slot->job;
    cp_watch_end(slot);
    if (!cls->terminate) {
        corepool_worker_gone(slot);
    } else if (cls->flags & COREPOOL_CLASS_BLOCKING) {
        job->terminates = true;
        job->resource = resource_of(slot);
        job->reason = (uint8_t)reason;
        queue_work(slot);
    } else {
        CP_MARKED(slot->slice->shard, slot->slice, CP_CALLS_TERMINATE);
        int status = cls->terminate(slot, slot->slice->pool_state, resource_of(slot), reason);
        if (status != COREPOOL_PENDING)
            finish_terminate(slot, status);
    }
}

void cp_worker_detach(cp_slot *slot)
{
    const corepool_class_t *cls = class_of(slot);
    cp_watch_end(slot);
    CP_MARKED(slot->slice->shard, slot->slice, CP_CALLS_DETACH);
    int status = cls->detach ? cls->detach(slot, slot->slice->pool_state, resource_of(slot)) : COREPOOL_OK;
    if (status == COREPOOL_PENDING)
        return;
    if (status != COREPOOL_OK)
        cp_slice_warn(slot->slice, slot, status, "detach failed, which is ignored");
    corepool_worker_gone(slot);
}

void cp_worker_leave(cp_slot *slot, struct cp_moved *moved)
{
    moved->resource = resource_of(slot);
    moved->job = slot->job;
    moved->fd = cp_watch_fd(slot);
    cp_watch_end(slot);
    slot->job = NULL;
    atomic_store_explicit(&slot->resource, NULL, memory_order_relaxed);
}

void cp_worker_join(cp_slot *slot, const struct cp_moved *moved)
{
    struct job *job = moved->job;
    atomic_store_explicit(&slot->resource, moved->resource, memory_order_relaxed);
    slot->context = NULL;
    slot->job = job;
    if (job)
        job->slot = slot;
    if (moved->fd >= 0 && corepool_worker_watch(slot, moved->fd) != COREPOOL_OK)
        cp_slice_warn(slot->slice, slot, COREPOOL_ESYSTEM, corepool_error_detail());
}

void cp_worker_cancel_open(cp_slot *slot)
{
    const corepool_class_t *cls = class_of(slot);
    struct job *job = slot->job;
    CP_MARKED(slot->slice->shard, slot->slice, CP_CALLS_INIT_CANCEL);
    if (job)
        uv_cancel((uv_req_t *)&job->work); /* no effect when it runs already: then it is waited for */
    else if (cls->init_cancel)
        cls->init_cancel(slot, slot->slice->pool_state);
}

/* --- what a class may look at ------------------------------------------------------------------------------------------- */

bool corepool_worker_is_leased(const corepool_worker_t *worker)
{
    return cp_stamp_tag(cp_slot_stamp(worker)) == CP_TAG_LEASED;
}

corepool_shard_t *corepool_worker_shard(const corepool_worker_t *worker)
{
    return worker->slice->shard;
}

uv_loop_t *corepool_worker_loop(const corepool_worker_t *worker)
{
    return &worker->slice->shard->uv;
}

unsigned corepool_worker_number(const corepool_worker_t *worker)
{
    return worker->number;
}

void corepool_worker_set_resource(corepool_worker_t *worker, void *resource)
{
    cp_assert(cp_on_shard(worker->slice->shard));
    if (worker->phase == CP_LIVE)
        atomic_store_explicit(&worker->resource, resource, memory_order_relaxed);
}

void corepool_worker_set_context(corepool_worker_t *worker, void *context)
{
    worker->context = context;
}

void *corepool_worker_context(const corepool_worker_t *worker)
{
    return worker->context;
}

const char *corepool_reason_text(corepool_reason_t reason)
{
    switch (reason) {
#define REASON_TEXT(name, text) \
    case COREPOOL_REASON_##name: return text;
        COREPOOL_REASON_TABLE(REASON_TEXT)
#undef REASON_TEXT
    default: return reason >= COREPOOL_REASON_USER && reason <= COREPOOL_REASON_MAX ? "the program's own" : "unknown reason";
    }
}
