/* front/async.c: checkouts that complete on a libuv loop: a shard's own, or one that a program attached.
 *
 * One object per waiting checkout, cached per loop. States: spare → waiting (in loop->requests, its outcome PENDING) →
 * decided by the manager (grant or close: a message brings it home), by its timer, or by a cancel → spare. All on the
 * loop's thread but on_notify, which runs where the manager is. Objects and attachments stay what they are until the
 * runtime is destroyed, so that a handle kept too long is stale and a manager that is late finds its request. */
#include <stdlib.h>

#include "base/error.h"
#include "front/checkout.h"

struct async {
    struct cp_request request;
    struct cp_message decided; /* manager → loop */
    struct cp_loop *loop;
    struct cp_checkout checkout;
    int64_t timeout_ms;
    corepool_checkout_cb cb;
    void *arg;
    uint64_t generation;       /* of its uses: a handle to an earlier one is stale */
    bool waiting;              /* its callback has not run */
    uv_timer_t timer;          /* data: the loop */
    struct cp_list link;       /* in loop->requests or loop->spare */
    struct cp_list made;       /* in loop->made */
};

struct corepool_attachment {
    struct cp_loop loop;
    struct cp_list link; /* in the runtime's list of all */
    /* Under the runtime's lock. */
    bool closed;         /* its handles are gone: may be used again */
    bool abandoned;      /* its thread ended without detaching: a dead loop may still point to it */
};

/* --- objects --------------------------------------------------------------------------------------------------------- */

static void hold_loop(struct cp_loop *loop)
{
    if (!loop->thread->shard)
        uv_ref((uv_handle_t *)&loop->wake);
}

static void let_loop_end(struct cp_loop *loop)
{
    if (!loop->thread->shard && cp_list_is_empty(&loop->requests))
        uv_unref((uv_handle_t *)&loop->wake);
}

static void close_made(struct cp_loop *loop);

static void open_timer(struct async *async)
{
    uv_timer_init(async->loop->uv, &async->timer); /* cannot fail */
    async->timer.data = async->loop;
    cp_loop_handle_opened(async->loop);
}

static struct async *make_async(struct cp_loop *loop)
{
    struct async *async = calloc(1, sizeof *async);
    if (!async)
        return NULL;
    loop->close_made = close_made;
    async->loop = loop;
    cp_list_init(&async->request.link);
    cp_list_init(&async->link);
    cp_list_push_back(&loop->made, &async->made);
    open_timer(async);
    return async;
}

static struct async *take_async(struct cp_loop *loop)
{
    for (struct cp_list *at = loop->spare.next; at != &loop->spare; at = at->next) {
        struct async *spare = cp_container(at, struct async, link);
        if (atomic_load(&spare->request.life) == CP_LIFE_FREE) {
            cp_list_unlink(&spare->link);
            return spare;
        }
    }
    return make_async(loop);
}

/* Ends its use: from here on a handle to it is stale, and its callback may start another. */
static void retire(struct async *async)
{
    async->waiting = false;
    async->generation++;
    cp_list_unlink(&async->link);
    cp_list_push_front(&async->loop->spare, &async->link);
}

static void finish(struct async *async, int status, const corepool_lease_t *lease)
{
    corepool_checkout_cb cb = async->cb;
    void *arg = async->arg;
    uv_timer_stop(&async->timer);
    retire(async);
    let_loop_end(async->loop);
    if (!async->loop->thread->shard) {
        cb(status, status == COREPOOL_OK ? lease : NULL, arg);
        return;
    }
    CP_MARKED(async->loop->thread->shard, NULL, CP_CALLS_COMPLETED);
    cb(status, status == COREPOOL_OK ? lease : NULL, arg);
}

/* --- waiting ------------------------------------------------------------------------------------------------------------ */

static void on_notify(struct cp_request *request);

static int post(struct async *async)
{
    struct cp_request *request = &async->request;
    cp_checkout_fill(&async->checkout, request);
    request->notify = on_notify;
    if (cp_slice_send_request(async->checkout.slice, request, async->checkout.epoch))
        return COREPOOL_OK;
    atomic_store(&request->life, CP_LIFE_FREE);
    return cp_pool_closed(async->checkout.pool);
}

static void start_timer(struct async *async);

/* The same checkout tries the next worker: OK with a lease, PENDING when it waits (again), or an error. */
static int try_next(struct async *async, corepool_lease_t *lease)
{
    struct cp_checkout *checkout = &async->checkout;
    cp_slot *slot;
    for (;;) {
        checkout->again = true;
        enum cp_shelf_outcome outcome = cp_checkout_take(checkout, &slot);
        if (outcome != CP_SHELF_DONE) {
            int status = outcome == CP_SHELF_EMPTY ? post(async) : cp_pool_closed(checkout->pool);
            if (status != COREPOOL_OK)
                return status;
            start_timer(async); /* it may have fired while the first grant was on its way */
            return COREPOOL_PENDING;
        }
        cp_checkout_lease(slot, checkout->self, lease);
        int status = cp_checkout_validate(checkout, lease);
        if (status != COREPOOL_REMOVE)
            return status;
    }
}

/* A grant that nobody is told of, and that has no holder. */
static void give_back(struct cp_request *request)
{
    corepool_lease_t lease = {.resource = request->client, .worker = request->slot, .generation = request->stamp};
    cp_lease_end(&lease, cp_self, COREPOOL_REASON_NONE);
    cp_slice_unused(request);
}

/* The manager has decided against it. */
static void refuse(struct async *async)
{
    atomic_store(&async->request.life, CP_LIFE_FREE);
    if (async->waiting)
        finish(async, cp_checkout_refused(&async->checkout, &async->request), NULL);
}

/* The manager has decided. */
static void complete(struct async *async)
{
    corepool_lease_t lease;
    struct cp_request *request = &async->request;
    if (atomic_load(&request->outcome) != CP_GRANTED) {
        refuse(async);
        return;
    }
    if (!async->waiting) { /* detached meanwhile */
        give_back(request);
        return;
    }
    cp_slot *slot = request->slot;
    uint64_t stamp = request->stamp;
    void *client = request->client;
    atomic_store(&request->life, CP_LIFE_FREE);
    int status = cp_checkout_granted(&async->checkout, slot, stamp, client, &lease);
    if (status == COREPOOL_REMOVE)
        status = try_next(async, &lease);
    if (status != COREPOOL_PENDING)
        finish(async, status, &lease);
}

static void deliver_decided(struct cp_message *message)
{
    complete(cp_container(message, struct async, decided));
}

/* By who plays the manager. The loop may have been detached, or its thread may have ended, at any moment before. */
static void on_notify(struct cp_request *request)
{
    struct async *async = cp_container(request, struct async, request);
    if (cp_self->loop == async->loop && cp_on_shard(request->shard)) { /* not a caller who plays the manager */
        complete(async);
        return;
    }
    async->decided.deliver = deliver_decided;
    if (cp_loop_send(async->loop, &async->decided))
        return;
    if (atomic_load(&request->outcome) == CP_GRANTED)
        give_back(request);
    else
        cp_request_release(request); /* never an orphan: it stays with its loop */
}

/* libuv's idea of now may be old when a timer is started, so it may fire early: the deadline decides. */
static void on_timer(uv_timer_t *timer)
{
    struct async *async = cp_container(timer, struct async, timer);
    if (cp_now_ns() < async->checkout.deadline) {
        start_timer(async);
    } else if (cp_slice_withdraw(&async->request, CP_TIMED_OUT)) {
        int status = cp_checkout_timed_out(&async->checkout, async->timeout_ms);
        cp_slice_give_up(&async->request);
        finish(async, status, NULL);
    } /* else the manager was faster, its message is on the way */
}

static void start_timer(struct async *async)
{
    int left = cp_left_ms(async->checkout.deadline, cp_now_ns());
    if (left >= 0)
        uv_timer_start(&async->timer, on_timer, (uint64_t)left, 0); /* fails without a callback only */
}

static int start_waiting(struct cp_loop *loop, const struct cp_checkout *checkout, int64_t timeout_ms,
                         corepool_checkout_cb cb, void *arg, corepool_request_t *handle)
{
    int status = cp_checkout_admit(checkout);
    if (status != COREPOOL_OK)
        return status;
    struct async *async = take_async(loop);
    if (!async)
        return cp_fail(COREPOOL_ENOMEM, "no memory to wait");
    async->checkout = *checkout;
    async->checkout.since = cp_now_ns();
    async->checkout.deadline = cp_deadline_ns(async->checkout.since, timeout_ms);
    async->timeout_ms = timeout_ms;
    async->cb = cb;
    async->arg = arg;
    async->waiting = true;
    cp_list_push_back(&loop->requests, &async->link);
    hold_loop(loop);
    corepool_request_t own = {.impl = async, .generation = async->generation};
    status = post(async);
    if (status != COREPOOL_OK) {
        retire(async);
        let_loop_end(loop);
        return status;
    }
    if (async->generation != own.generation) /* served on the spot */
        return COREPOOL_OK;
    start_timer(async);
    if (handle)
        *handle = own;
    return COREPOOL_OK;
}

/* With the object that it may need at hand first, so that what enqueue accepted is not lost for want of memory. */
static int enqueue(struct cp_loop *loop, struct cp_checkout *checkout)
{
    const corepool_class_t *cls = cp_checkout_enqueuer(checkout);
    if (!cls)
        return COREPOOL_OK;
    struct async *async = take_async(loop);
    if (!async)
        return cp_fail(COREPOOL_ENOMEM, "no memory to wait");
    cp_list_push_front(&loop->spare, &async->link);
    return cp_checkout_enqueue(checkout, cls, &async->request);
}

/* The usual case, as cp_checkout_at_once. */
static int try_at_once(corepool_pool_t *pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    const struct cp_loop *loop = cp_self->loop;
    bool plain = cp_checkout_is_plain(*pool, options) && loop && loop->runtime == pool->impl->runtime;
    return plain ? cp_checkout_at_once(pool, options, lease) : COREPOOL_EEMPTY;
}

static int ask(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_checkout_cb cb, void *arg,
               corepool_request_t *request)
{
    struct cp_checkout checkout;
    corepool_lease_t lease;
    cp_slot *slot;
    int status = cp_checkout_begin(&checkout, pool, options);
    if (status != COREPOOL_OK)
        return status;
    struct cp_loop *loop = checkout.self->loop;
    if (!loop)
        return cp_fail(COREPOOL_ETHREAD, "this thread is no shard and has no loop attached: see corepool_loop_attach");
    if (loop->runtime != pool.impl->runtime)
        return cp_fail(COREPOOL_EINVAL, "pool: of another runtime than the one that this loop belongs to");
    status = enqueue(loop, &checkout);
    if (status == COREPOOL_ENOMEM)
        return status;
    if (status != COREPOOL_OK) {
        cb(status, NULL, arg);
        return COREPOOL_OK;
    }
    do {
        enum cp_shelf_outcome outcome = cp_checkout_take(&checkout, &slot);
        if (outcome == CP_SHELF_CLOSED_NOW)
            return cp_pool_closed(pool);
        if (outcome == CP_SHELF_EMPTY)
            return start_waiting(loop, &checkout, options && options->timeout_ms ? options->timeout_ms
                                                                               : COREPOOL_TIMEOUT_DEFAULT_MS,
                                 cb, arg, request);
        cp_checkout_lease(slot, checkout.self, &lease);
        status = cp_checkout_validate(&checkout, &lease);
        checkout.again = true;
    } while (status == COREPOOL_REMOVE);
    cb(status, status == COREPOOL_OK ? &lease : NULL, arg);
    return COREPOOL_OK;
}

/* --- public ---------------------------------------------------------------------------------------------------------------- */

int corepool_checkout_async(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_checkout_cb cb,
                            void *arg, corepool_request_t *request)
{
    corepool_lease_t lease;
    if (request)
        *request = (corepool_request_t){0};
    if (!cb)
        return cp_fail(COREPOOL_EINVAL, "cb: NULL");
    int status = try_at_once(&pool, options, &lease);
    if (status == COREPOOL_EEMPTY)
        return ask(pool, options, cb, arg, request);
    if (status == COREPOOL_OK)
        cb(status, &lease, arg);
    return status;
}

int corepool_request_cancel(corepool_request_t request)
{
    struct async *async = request.impl;
    if (!async)
        return cp_fail(COREPOOL_ESTALE, "the request did not wait");
    if (cp_self->loop != async->loop)
        return cp_fail(COREPOOL_ETHREAD, "a request is cancelled on the thread that asked");
    if (async->generation != request.generation || !async->waiting)
        return cp_fail(COREPOOL_ESTALE, "the request has completed");
    if (!cp_slice_withdraw(&async->request, CP_CANCELLED))
        return cp_fail(COREPOOL_ESTALE, "the request has been decided, its callback is about to run");
    cp_slice_give_up(&async->request);
    finish(async, cp_fail(COREPOOL_ECANCELED, "the request was cancelled"), NULL);
    return COREPOOL_OK;
}

/* --- attach and detach ------------------------------------------------------------------------------------------------------- */

/* One that was detached and is as good as new, or a new one. */
static struct corepool_attachment *take_attachment(struct corepool_runtime *runtime)
{
    struct corepool_attachment *attachment = NULL;
    pthread_mutex_lock(&runtime->lock);
    for (struct cp_list *at = runtime->attachments.next; at != &runtime->attachments && !attachment; at = at->next) {
        struct corepool_attachment *candidate = cp_container(at, struct corepool_attachment, link);
        if (candidate->closed && !candidate->abandoned)
            attachment = candidate;
    }
    if (!attachment && (attachment = calloc(1, sizeof *attachment))) {
        cp_loop_init(&attachment->loop);
        attachment->loop.runtime = runtime;
        cp_list_push_back(&runtime->attachments, &attachment->link);
    }
    if (attachment)
        attachment->closed = false;
    pthread_mutex_unlock(&runtime->lock);
    return attachment;
}

static void set_closed(struct corepool_attachment *attachment, bool abandoned)
{
    struct corepool_runtime *runtime = attachment->loop.runtime;
    pthread_mutex_lock(&runtime->lock);
    attachment->closed = true;
    attachment->abandoned = abandoned;
    pthread_mutex_unlock(&runtime->lock);
}

int corepool_loop_attach(corepool_runtime_t *runtime, uv_loop_t *loop, corepool_attachment_t **out)
{
    int code = COREPOOL_OK;
    if (!runtime || !loop || !out)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL", !runtime ? "runtime" : !loop ? "loop" : "attachment");
    *out = NULL;
    struct cp_thread *self = cp_thread_self(&code);
    if (!self)
        return code;
    if (self->loop)
        return cp_fail(COREPOOL_ETHREAD, self->shard ? "a shard's loop needs no attaching"
                                                     : "this thread has a loop attached already");
    struct corepool_attachment *attachment = take_attachment(runtime);
    if (!attachment)
        return cp_fail(COREPOOL_ENOMEM, "no memory to attach a loop");
    code = cp_loop_open(&attachment->loop, loop, self);
    if (code != COREPOOL_OK) {
        set_closed(attachment, false);
        return code;
    }
    for (struct cp_list *at = attachment->loop.made.next; at != &attachment->loop.made; at = at->next)
        open_timer(cp_container(at, struct async, made));
    self->loop = &attachment->loop;
    *out = attachment;
    return COREPOOL_OK;
}

static void on_loop_closed(struct cp_loop *loop)
{
    set_closed(cp_container(loop, struct corepool_attachment, loop), false);
}

static void close_made(struct cp_loop *loop)
{
    for (struct cp_list *at = loop->made.next; at != &loop->made; at = at->next)
        uv_close((uv_handle_t *)&cp_container(at, struct async, made)->timer, cp_loop_handle_closed);
}

/* Ends every request that waits. One that the manager has decided meanwhile is no longer waiting when its message
 * comes: then its worker goes back. */
static void cancel_all(struct cp_loop *loop, void (*end)(struct async *))
{
    while (!cp_list_is_empty(&loop->requests)) {
        struct async *async = cp_container(loop->requests.next, struct async, link);
        if (cp_slice_withdraw(&async->request, CP_CANCELLED))
            cp_slice_give_up(&async->request);
        end(async);
    }
}

static void finish_detached(struct async *async)
{
    finish(async, cp_fail(COREPOOL_ECANCELED, "the loop was detached"), NULL);
}

void corepool_loop_detach(corepool_attachment_t *attachment)
{
    if (!attachment || cp_self->loop != &attachment->loop)
        return;
    cp_self->loop = NULL; /* callbacks that ask again are refused */
    cancel_all(&attachment->loop, finish_detached);
    struct cp_loop *next = cp_self->loop; /* one of them may have attached another */
    cp_self->loop = &attachment->loop;    /* messages that are in the box still come home */
    cp_loop_close(&attachment->loop, on_loop_closed);
    cp_self->loop = next;
}

void cp_async_thread_ended(struct cp_thread *thread)
{
    struct cp_loop *loop = thread->loop;
    if (!loop || thread->shard)
        return;
    cancel_all(loop, retire);
    cp_loop_abandon(loop);
    thread->loop = NULL;
    set_closed(cp_container(loop, struct corepool_attachment, loop), true);
}

bool cp_attachments_open(const struct corepool_runtime *runtime)
{
    for (struct cp_list *at = runtime->attachments.next; at != &runtime->attachments; at = at->next)
        if (!cp_container(at, struct corepool_attachment, link)->closed)
            return true;
    return false;
}

static void free_made(struct cp_loop *loop)
{
    while (loop->made.next && !cp_list_is_empty(&loop->made)) { /* a shard that never started has no list */
        struct async *async = cp_container(loop->made.next, struct async, made);
        cp_list_unlink(&async->made);
        free(async);
    }
}

void cp_attachments_free(struct corepool_runtime *runtime)
{
    for (unsigned i = 0; i < runtime->shards; i++)
        free_made(&runtime->shard[i].loop);
    while (!cp_list_is_empty(&runtime->attachments)) {
        struct corepool_attachment *attachment =
            cp_container(runtime->attachments.next, struct corepool_attachment, link);
        cp_list_unlink(&attachment->link);
        free_made(&attachment->loop);
        free(attachment);
    }
}
