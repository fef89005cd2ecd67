/* front/checkout.c: taking workers, from any thread, where that is more than front/usual.c does.
 *
 * A checkout looks at the shelf of the caller's CPU, or of the shard that the pool's policy chooses; on a miss at the
 * slice's returned list; then it posts a request and sleeps on it. The pool's generation is compared before (a closed
 * handle reaches nothing) and after a worker was taken (the slice may have become another pool's in between; the worker goes
 * back there). */
#include "front/checkout.h"

#include <sched.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/point.h"
#include "core/verdict.h"
#include "front/policy.h"
#include "shard/lease.h"

/* How often a caller that is moved to another CPU on its way follows there before it asks by message. */
#define FOLLOW_CPU 4

__attribute__((noinline)) struct cp_slice *cp_slice_of_cpu(struct corepool_pool_impl *impl)
{
    uint32_t cpu = impl->is_cpu_known ? cp_rseq_cpu() : (uint32_t)sched_getcpu(); /* -1: no answer, out of range */
    return atomic_load_explicit(&impl->by_cpu[cpu < impl->possible_cpus ? cpu : 0], memory_order_relaxed);
}

/* --- take ---------------------------------------------------------------------------------------------------------------- */

/* Whether a taken slot may be used; else it is handed on and the checkout has to look again. */
static bool is_usable(const struct cp_checkout *checkout, cp_slot *slot)
{
    if (cp_unlikely(!cp_pool_is_open(checkout->pool)) ||
        cp_unlikely(atomic_load_explicit(&slot->item.doomed, memory_order_relaxed))) {
        cp_slot_hand_over(slot, CP_TAG_RETURNED, COREPOOL_REASON_NONE);
        return false;
    }
    return true;
}

/* Only who runs on the shelf's CPU may look at the returned list: see shelf.h on double endings. Of a portable shelf whose
 * turn it is. */
static cp_slot *look_at_returned(struct cp_checkout *checkout)
{
    const struct cp_shelf *shelf = &checkout->slice->shelf;
    bool portable = atomic_load_explicit(&shelf->flags, memory_order_relaxed) & CP_SHELF_PORTABLE;
    bool turn = cp_slice_is_turn(checkout->slice, checkout->self);
    if (portable ? !turn : cp_rseq_cpu() != shelf->cpu)
        return NULL;
    return cp_slice_collect_one(checkout->slice, turn);
}

/* What a shelf that had nothing leaves to do. */
static enum cp_shelf_outcome take_missed(struct cp_checkout *checkout, enum cp_shelf_outcome outcome, cp_slot **slot)
{
    checkout->epoch = atomic_load_explicit(&checkout->slice->epoch, memory_order_acquire);
    if (outcome == CP_SHELF_CLOSED_NOW || !cp_pool_is_open(checkout->pool))
        return CP_SHELF_CLOSED_NOW; /* else the epoch was read while the slice was this pool's */
    if (outcome == CP_SHELF_EMPTY) {
        *slot = look_at_returned(checkout);
        if (*slot && is_usable(checkout, *slot))
            return CP_SHELF_DONE;
    }
    return cp_pool_is_open(checkout->pool) ? CP_SHELF_EMPTY : CP_SHELF_CLOSED_NOW;
}

enum cp_shelf_outcome cp_checkout_take(struct cp_checkout *checkout, cp_slot **slot)
{
    enum cp_shelf_outcome outcome = CP_SHELF_CLOSED_NOW;
    struct cp_item *item;
    for (unsigned tries = 0; cp_pool_is_open(checkout->pool);) {
        struct cp_slice *slice = cp_slice_for(checkout->pool);
        checkout->slice = slice;
        outcome = cp_shelf_take(&slice->shelf, cp_slice_end(slice), &item);
        if (cp_likely(outcome == CP_SHELF_DONE)) {
            *slot = cp_slot_of(item);
            if (cp_likely(is_usable(checkout, *slot)))
                return outcome;
        } else if (outcome != CP_SHELF_ELSEWHERE || ++tries == FOLLOW_CPU) {
            return take_missed(checkout, outcome, slot);
        }
    }
    return CP_SHELF_CLOSED_NOW;
}

const corepool_class_t *cp_checkout_enqueuer(const struct cp_checkout *checkout)
{
    const struct cp_slice *slice = cp_slice_for(checkout->pool);
    if (!cp_pool_is_open(checkout->pool)) /* then its class may be gone */
        return NULL;
    const corepool_class_t *cls = slice->cls;
    return cp_unlikely(cls->enqueue != NULL) && !cp_slice_is_serialised(slice) && cp_pool_is_open(checkout->pool) ? cls : NULL;
}

/* verdict: the callback's. */
static int skipped(const corepool_class_t *cls, int verdict)
{
    if (verdict == COREPOOL_SKIP)
        return cp_fail(COREPOOL_ESKIPPED, "class %s skipped this checkout", cls->name);
    return cp_fail(COREPOOL_ESKIPPED, "enqueue of class %s returned %d, which means nothing", cls->name,
                   verdict);
}

/* The manager tells the program, unless the pool has closed. */
static void send_nonsense(const struct cp_checkout *checkout, struct cp_request *request, int verdict)
{
    struct cp_slice *slice = cp_slice_for(checkout->pool);
    uint64_t epoch = atomic_load_explicit(&slice->epoch, memory_order_acquire);
    if (cp_pool_is_open(checkout->pool)) /* so the epoch was read while the slice was this pool's */
        cp_slice_send_nonsense(slice, request, epoch, verdict);
    else
        cp_request_release(request);
}

int cp_checkout_enqueue(struct cp_checkout *checkout, const corepool_class_t *cls, struct cp_request *request)
{
    void *wrapped = checkout->command;
    atomic_store(&request->life, CP_LIFE_LENT);
    int verdict = cls->enqueue(NULL, checkout->command, &wrapped);
    if (verdict != COREPOOL_OK)
        atomic_fetch_add_explicit(&cp_slice_for(checkout->pool)->skips, 1, memory_order_relaxed);
    if (verdict == COREPOOL_OK || verdict == COREPOOL_SKIP)
        cp_request_release(request);
    else
        send_nonsense(checkout, request, verdict);
    if (verdict != COREPOOL_OK)
        return skipped(cls, verdict);
    checkout->command = wrapped;
    checkout->enqueued = true;
    return COREPOOL_OK;
}

void cp_checkout_fill(const struct cp_checkout *checkout, struct cp_request *request)
{
    /* Seen with the message that brings it to the manager. */
    atomic_store_explicit(&request->outcome, CP_PENDING, memory_order_relaxed);
    atomic_store_explicit(&request->life, CP_LIFE_LENT, memory_order_relaxed);
    request->command = checkout->command;
    request->enqueued = checkout->enqueued;
    request->again = checkout->again;
    request->posted_at = checkout->since;
}

static int overloaded(const struct cp_checkout *checkout)
{
    const struct cp_slice *slice = checkout->slice;
    return cp_fail(COREPOOL_EOVERLOAD, "%u requests wait on shard %u: no more than %u may",
                   atomic_load(&slice->core.waiting), slice->shard->index, atomic_load(&checkout->pool.impl->max_waiting));
}

static int draining(void)
{
    return cp_fail(COREPOOL_ECLOSED, "the pool is draining");
}

int cp_checkout_admit(const struct cp_checkout *checkout)
{
    struct cp_slice *slice = checkout->slice;
    uint32_t most = atomic_load_explicit(&checkout->pool.impl->max_waiting, memory_order_relaxed);
    if (checkout->again || checkout->enqueued)
        return COREPOOL_OK;
    if (atomic_load(&checkout->pool.impl->draining))
        return draining();
    /* A manager without a shelf has requests in its queue for which workers are idle. */
    if (!most || atomic_load_explicit(&slice->core.waiting, memory_order_relaxed) < most ||
        cp_shelf_is(&slice->shelf, CP_TRAIT_MANAGED))
        return COREPOOL_OK;
    atomic_fetch_add_explicit(&slice->refused, 1, memory_order_relaxed);
    return overloaded(checkout);
}

int cp_checkout_refused(const struct cp_checkout *checkout, const struct cp_request *request)
{
    switch (atomic_load(&request->outcome)) {
    case CP_SKIPPED: return skipped(checkout->slice->cls, request->verdict);
    case CP_DRAINING: return draining();
    case CP_OVERLOADED: return overloaded(checkout);
    case CP_SHED:
        return cp_fail(COREPOOL_ESHED, "shed on shard %u: requests wait too long there", checkout->slice->shard->index);
    default: return cp_pool_closed(checkout->pool);
    }
}

/* NONE, or why the worker is not to be used: the class's word on one that a look found idle for long. */
static uint32_t ask_if_usable(const corepool_lease_t *lease, const corepool_class_t *cls)
{
    bool asks = cls->validate && atomic_load_explicit(&lease->worker->validate, memory_order_relaxed) ==
                                     cp_slot_validation(lease->generation);
    return cp_unlikely(asks) ? cp_verdict(cls->validate(lease->resource), COREPOOL_REASON_VALIDATE)
                             : COREPOOL_REASON_NONE;
}

int cp_checkout_validate(struct cp_checkout *checkout, corepool_lease_t *lease)
{
    struct corepool_shard *shard = lease->worker->slice->shard;
    const corepool_class_t *cls = lease->worker->slice->cls;
    cp_checkout_let_go(checkout);
    if (cp_unlikely(checkout->enqueued))
        atomic_store_explicit(&lease->worker->wrapped, checkout->command, memory_order_relaxed);
    cp_lease_begun(lease->worker, lease->generation, checkout->self);
    uint32_t unusable = ask_if_usable(lease, cls);
    if (cp_unlikely(unusable != COREPOOL_REASON_NONE)) {
        cp_checkout_hold(checkout, shard);
        cp_lease_end(lease, checkout->self, unusable);
        *lease = (corepool_lease_t){0};
        return COREPOOL_REMOVE;
    }
    if (cp_likely(!cls->checkout))
        return COREPOOL_OK;
    int verdict = cls->checkout(NULL, lease->resource, checkout->command, &lease->resource);
    if (cp_likely(verdict == COREPOOL_OK))
        return COREPOOL_OK;
    bool skip = verdict == COREPOOL_SKIP;
    if (skip)
        atomic_fetch_add_explicit(&lease->worker->slice->skips, 1, memory_order_relaxed);
    cp_checkout_hold(checkout, shard);
    cp_lease_end(lease, checkout->self, skip ? COREPOOL_REASON_NONE : cp_verdict(verdict, COREPOOL_REASON_CHECKOUT));
    *lease = (corepool_lease_t){0}; /* also if the callback ended it itself */
    return skip ? skipped(cls, verdict) : COREPOOL_REMOVE;
}

/* Code on a shard has no turns: it does not stay on its own. */
static void begin_turn(struct cp_slice *slice, struct cp_thread *self)
{
    if (cp_likely(!slice->config.barging_ns) || self->shard)
        return;
    self->turn_of = atomic_load(&slice->epoch);
    self->turn_ends = cp_now_ns() + slice->config.barging_ns;
}

int cp_checkout_granted(struct cp_checkout *checkout, cp_slot *slot, uint64_t stamp, void *client,
                        corepool_lease_t *lease)
{
    cp_slot_is_held_by(slot, checkout->self);
    begin_turn(slot->slice, checkout->self);
    lease->resource = atomic_load_explicit(&slot->resource, memory_order_relaxed);
    lease->worker = slot;
    lease->generation = stamp;
    if (cp_unlikely(cp_slice_is_serialised(slot->slice))) {
        lease->resource = client;
        cp_lease_begun(slot, stamp, checkout->self);
        return COREPOOL_OK;
    }
    return cp_checkout_validate(checkout, lease);
}

int cp_checkout_choose(corepool_pool_t *pool, const corepool_checkout_options_t *options, struct cp_thread *self)
{
    int status = cp_policy_bind(pool, options ? options->key : 0, self);
    /* Code on a shard is else served by that shard, also while it is off its CPU. */
    const struct corepool_shard *shard = self->shard;
    if (shard && pool->shard == COREPOOL_SHARD_LOCAL && shard->runtime == pool->impl->runtime)
        pool->shard = (int32_t)shard->index;
    return status;
}

int cp_checkout_begin(struct cp_checkout *checkout, corepool_pool_t pool, const corepool_checkout_options_t *options)
{
    int code = COREPOOL_OK;
    if (cp_unlikely(!pool.impl || pool.shard != COREPOOL_SHARD_LOCAL))
        code = cp_pool_check_handle(pool);
    if (code == COREPOOL_OK && options && cp_unlikely(options->timeout_ms < COREPOOL_INFINITE))
        code = cp_check_timeout("timeout_ms", options->timeout_ms);
    if (cp_unlikely(code != COREPOOL_OK))
        return code;
    checkout->self = cp_thread_self(&code);
    if (cp_unlikely(!checkout->self))
        return code;
    checkout->pool = pool;
    checkout->command = options ? options->command : NULL;
    checkout->again = checkout->enqueued = checkout->holds = false;
    checkout->held = NULL;
    return pool.shard == COREPOOL_SHARD_LOCAL ? cp_checkout_choose(&checkout->pool, options, checkout->self) : COREPOOL_OK;
}

/* --- wait ------------------------------------------------------------------------------------------------------------------ */

static int64_t timeout_of(const corepool_checkout_options_t *options)
{
    return options && options->timeout_ms ? options->timeout_ms : COREPOOL_TIMEOUT_DEFAULT_MS;
}

static void free_request(struct cp_request *request)
{
    free(request);
}

/* One of this thread's requests that no manager looks at any more, or a new one. */
static struct cp_request *take_request(struct cp_thread *self)
{
    for (struct cp_list *at = self->requests.next; at != &self->requests; at = at->next) {
        struct cp_request *request = cp_container(at, struct cp_request, owner_link);
        if (atomic_load(&request->life) == CP_LIFE_FREE)
            return request;
    }
    struct cp_request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    request->free = free_request;
    cp_list_init(&request->link);
    cp_list_init(&request->owner_link);
    cp_list_push_back(&self->requests, &request->owner_link);
    return request;
}

int cp_checkout_timed_out(const struct cp_checkout *checkout, int64_t timeout_ms)
{
    char error[CP_ERROR_BYTES];
    struct cp_slice *slice = checkout->slice;
    cp_slice_last_error(slice, error);
    return cp_fail(COREPOOL_ETIMEDOUT, "timed out after %lld ms: %u waiting, %u opening, %u leased on shard %u%s%s",
                   (long long)timeout_ms, atomic_load(&slice->core.waiting), atomic_load(&slice->core.opening),
                   cp_slice_leased(slice),
                   slice->shard->index, *error ? "; last open error: " : "", error);
}

/* Sleeps until the outcome is decided, by the manager or by the deadline. */
static enum cp_outcome sleep_on(struct cp_request *request, int64_t deadline)
{
    cp_rseq_disarm();
    for (;;) {
        enum cp_outcome outcome = atomic_load(&request->outcome);
        if (outcome == CP_HELD || outcome == CP_HELD_AWAITED)
            cp_slice_await_hold(request);
        else if (outcome != CP_PENDING)
            return outcome;
        if (!cp_futex_wait(&request->outcome, CP_PENDING, deadline) && cp_slice_withdraw(request, CP_TIMED_OUT))
            return CP_TIMED_OUT;
    }
}

/* The request, which is at hand, until it has come to something. As wait_for_grant. */
static int wait_on(struct cp_checkout *checkout, struct cp_request *request, int64_t timeout_ms, corepool_lease_t *lease)
{
    cp_checkout_fill(checkout, request);
    request->notify = NULL;
    if (!cp_slice_send_request(checkout->slice, request, checkout->epoch)) {
        atomic_store(&request->life, CP_LIFE_FREE);
        return cp_pool_closed(checkout->pool);
    }
    cp_point(REQUEST_POSTED);
    enum cp_outcome outcome = sleep_on(request, checkout->deadline);
    cp_point(REQUEST_ENDED);
    if (outcome == CP_TIMED_OUT) {
        int status = cp_checkout_timed_out(checkout, timeout_ms);
        cp_slice_give_up(request);
        return status;
    }
    cp_slot *slot = request->slot;
    uint64_t stamp = request->stamp;
    void *client = request->client;
    atomic_store(&request->life, CP_LIFE_FREE);
    return outcome == CP_GRANTED ? cp_checkout_granted(checkout, slot, stamp, client, lease)
                                 : cp_checkout_refused(checkout, request);
}

/* OK with a validated lease, COREPOOL_REMOVE to look again, or an error. */
static int wait_for_grant(struct cp_checkout *checkout, int64_t timeout_ms, corepool_lease_t *lease)
{
    int status = cp_checkout_admit(checkout);
    if (status != COREPOOL_OK)
        return status;
    struct cp_request *request = take_request(checkout->self);
    if (!request)
        return cp_fail(COREPOOL_ENOMEM, "no memory to wait");
    cp_checkout_hold(checkout, checkout->slice->shard);
    return wait_on(checkout, request, timeout_ms, lease);
}

/* --- public ------------------------------------------------------------------------------------------------------------------ */

/* Waits, and looks again when a class refused a worker. */
static int wait_and_retry(struct cp_checkout *checkout, enum cp_shelf_outcome outcome,
                          const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    int64_t timeout_ms = timeout_of(options);
    checkout->since = cp_now_ns();
    checkout->deadline = cp_deadline_ns(checkout->since, timeout_ms);
    for (;;) {
        int status = COREPOOL_REMOVE;
        cp_slot *slot;
        if (outcome == CP_SHELF_CLOSED_NOW)
            return cp_pool_closed(checkout->pool);
        if (outcome == CP_SHELF_EMPTY)
            status = wait_for_grant(checkout, timeout_ms, lease);
        if (status != COREPOOL_REMOVE)
            return status;
        /* A worker was refused by its class: the same request tries the next, and keeps its place. */
        cp_point(LOOKS_FURTHER);
        checkout->again = true;
        outcome = cp_checkout_take(checkout, &slot);
        if (outcome == CP_SHELF_DONE) {
            cp_checkout_lease(slot, checkout->self, lease);
            status = cp_checkout_validate(checkout, lease);
            if (status != COREPOOL_REMOVE)
                return status;
        }
    }
}

static int begin_anywhere(struct cp_checkout *checkout, corepool_pool_t pool, const corepool_checkout_options_t *options,
                          corepool_lease_t *lease)
{
    if (!lease)
        return cp_fail(COREPOOL_EINVAL, "lease: NULL");
    *lease = (corepool_lease_t){0};
    return cp_checkout_begin(checkout, pool, options);
}

/* With the request that it may need at hand first, so that what enqueue accepted is not lost for want of memory. */
static int enqueue(struct cp_checkout *checkout)
{
    const corepool_class_t *cls = cp_checkout_enqueuer(checkout);
    if (cp_likely(!cls))
        return COREPOOL_OK;
    struct cp_request *request = take_request(checkout->self);
    return request ? cp_checkout_enqueue(checkout, cls, request)
                   : cp_fail(COREPOOL_ENOMEM, "no memory to wait");
}

static int check_out(struct cp_checkout *checkout, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    cp_slot *slot;
    if (checkout->self->shard)
        return cp_fail(COREPOOL_EDEADLK, "a blocking checkout on a shard's thread would wait for itself: use "
                                         "corepool_checkout_async");
    int status = cp_check_waits("corepool_checkout");
    if (status == COREPOOL_OK)
        status = enqueue(checkout);
    if (status != COREPOOL_OK)
        return status;
    enum cp_shelf_outcome outcome = cp_checkout_take(checkout, &slot);
    if (outcome == CP_SHELF_DONE) {
        cp_checkout_lease(slot, checkout->self, lease);
        status = cp_checkout_validate(checkout, lease);
        if (status != COREPOOL_REMOVE)
            return status;
        outcome = CP_SHELF_ABORT; /* look again */
    }
    return wait_and_retry(checkout, outcome, options, lease);
}

int cp_checkout_slowly(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    struct cp_checkout checkout;
    int status = begin_anywhere(&checkout, pool, options, lease);
    if (status != COREPOOL_OK)
        return status;
    checkout.holds = true;
    status = check_out(&checkout, options, lease);
    cp_checkout_let_go(&checkout);
    return status;
}

/* A try that finds nothing is no request, so enqueue runs once there is a worker. */
static int enqueue_leased(struct cp_checkout *checkout, corepool_lease_t *lease)
{
    int status = checkout->enqueued ? COREPOOL_OK : enqueue(checkout);
    if (status != COREPOOL_OK) {
        cp_lease_end(lease, checkout->self, COREPOOL_REASON_NONE);
        *lease = (corepool_lease_t){0}; /* also if the callback ended it itself */
    }
    return status;
}

static int try_slowly(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    struct cp_checkout checkout;
    cp_slot *slot;
    int status = begin_anywhere(&checkout, pool, options, lease);
    if (status != COREPOOL_OK)
        return status;
    bool managed = cp_shelf_is(&cp_slice_for(checkout.pool)->shelf, CP_TRAIT_MANAGED);
    if (managed && cp_pool_is_open(pool))
        return cp_fail(COREPOOL_ENOTSUP, "a managed pool has no shelf to try: every checkout asks its manager");
    do {
        enum cp_shelf_outcome outcome = cp_checkout_take(&checkout, &slot);
        if (outcome == CP_SHELF_EMPTY && atomic_load(&pool.impl->draining))
            return draining();
        if (outcome != CP_SHELF_DONE)
            return outcome == CP_SHELF_EMPTY ? cp_fail(COREPOOL_EEMPTY, "no worker is idle on the shard that serves the caller")
                                             : cp_pool_closed(pool);
        cp_checkout_lease(slot, checkout.self, lease);
        status = enqueue_leased(&checkout, lease);
        if (status == COREPOOL_OK)
            status = cp_checkout_validate(&checkout, lease);
    } while (status == COREPOOL_REMOVE);
    return status;
}

int corepool_checkout_try(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    int status = lease && cp_checkout_is_plain(pool, options) ? cp_checkout_at_once(&pool, options, lease) : COREPOOL_EEMPTY;
    return status == COREPOOL_EEMPTY ? try_slowly(pool, options, lease) : status;
}
