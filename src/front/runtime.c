/* front/runtime.c: start and stop of the shards of one process.
 *
 * States: RUNNING → STOPPING (no new pools; every pool closing) → JOINING (one of the stoppers ends the threads) → STOPPED. Control threads only; the
 * lock orders them, shards take it for a moment when a slice finishes. */
#include "front/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/condition.h"
#include "base/error.h"
#include "base/point.h"
#include "front/watchdog.h"
#include "machine/probe.h"

/* A day: far above any use, far below an overflow in nanoseconds. */
#define STALL_LIMIT_MS (INT64_C(24) * 3600 * 1000)

#define THREAD_NAME_MAX 10 /* leaves room for "/SHARD" in the kernel's 15 characters */

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static bool fork_guarded;
static struct cp_list registry = {&registry, &registry};

void cp_each_runtime(void (*fn)(struct corepool_runtime *, void *), void *arg)
{
    pthread_mutex_lock(&registry_lock);
    for (struct cp_list *at = registry.next; at != &registry; at = at->next)
        fn(cp_container(at, struct corepool_runtime, link), arg);
    pthread_mutex_unlock(&registry_lock);
}

/* A child is not to find it held by a thread that it has not. */
static void before_fork(void)
{
    pthread_mutex_lock(&registry_lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&registry_lock);
}

static void guard_registry(void)
{
    fork_guarded = pthread_atfork(before_fork, after_fork, after_fork) == 0;
}

static int enter_registry(struct corepool_runtime *runtime)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, guard_registry);
    if (!fork_guarded)
        return cp_fail(COREPOOL_ENOMEM, "no memory to be told of a fork");
    cp_thread_runtime_begins();
    pthread_mutex_lock(&registry_lock);
    cp_list_push_back(&registry, &runtime->link);
    pthread_mutex_unlock(&registry_lock);
    return COREPOOL_OK;
}

static void leave_registry(struct corepool_runtime *runtime)
{
    pthread_mutex_lock(&registry_lock);
    cp_list_unlink(&runtime->link);
    cp_thread_runtime_ends();
    cp_point(REGISTRY_LEFT);
    pthread_mutex_unlock(&registry_lock);
}

int cp_check_waits(const char *what)
{
    if (cp_is_watchdog())
        return cp_fail(COREPOOL_EDEADLK, "%s: called while a stall is told of, which it would wait for", what);
    return COREPOOL_OK;
}

int cp_check_control(const char *what)
{
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "%s: the runtime belongs to the parent process", what);
    if (cp_check_waits(what) != COREPOOL_OK)
        return COREPOOL_EDEADLK;
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "%s: called on a shard's thread, which it would wait for", what);
    return COREPOOL_OK;
}

int cp_check_timeout(const char *what, int64_t timeout_ms)
{
    if (timeout_ms < COREPOOL_INFINITE)
        return cp_fail(COREPOOL_EINVAL, "%s: %lld: a timeout is 0 or more milliseconds, or COREPOOL_INFINITE", what,
                       (long long)timeout_ms);
    return COREPOOL_OK;
}

/* --- start ------------------------------------------------------------------------------------------------------------ */

/* What the environment asks for: AUTO when it says nothing, or nothing that we know. */
static corepool_shelf_kind_t shelf_from_environment(const char *value)
{
    if (value && strcmp(value, "rseq") == 0)
        return COREPOOL_SHELF_RSEQ;
    return value && strcmp(value, "portable") == 0 ? COREPOOL_SHELF_PORTABLE : COREPOOL_SHELF_AUTO;
}

corepool_shelf_kind_t corepool_shelf_probe(const char **reason)
{
    if (shelf_from_environment(getenv("COREPOOL_SHELF")) == COREPOOL_SHELF_PORTABLE) {
        if (reason)
            *reason = "COREPOOL_SHELF=portable in the environment";
        return COREPOOL_SHELF_PORTABLE;
    }
    return cp_probe_rseq(reason) ? COREPOOL_SHELF_RSEQ : COREPOOL_SHELF_PORTABLE;
}

/* What is used: as asked for in the options, else in the environment, else what there is. */
static int choose_shelf(const corepool_runtime_options_t *options, corepool_shelf_kind_t *shelf)
{
    const char *reason, *forced = getenv("COREPOOL_SHELF");
    corepool_shelf_kind_t wanted = options->shelf;
    if (wanted == COREPOOL_SHELF_AUTO && forced && *forced && strcmp(forced, "auto") != 0) {
        wanted = shelf_from_environment(forced);
        if (wanted == COREPOOL_SHELF_AUTO)
            return cp_fail(COREPOOL_EINVAL, "COREPOOL_SHELF: \"%s\" is none of auto, rseq, portable", forced);
    }
    *shelf = wanted != COREPOOL_SHELF_PORTABLE && cp_probe_rseq(&reason) ? COREPOOL_SHELF_RSEQ : COREPOOL_SHELF_PORTABLE;
    if (wanted == COREPOOL_SHELF_RSEQ && *shelf != wanted)
        return cp_fail(COREPOOL_ENOTSUP, "shelf: rseq is not to be had: %s", reason);
    return COREPOOL_OK;
}

static int check_options(const corepool_runtime_options_t *options)
{
    if ((unsigned)options->shelf > COREPOOL_SHELF_PORTABLE)
        return cp_fail(COREPOOL_EINVAL, "shelf: %d is none of COREPOOL_SHELF_…", (int)options->shelf);
    if ((unsigned)options->pin > COREPOOL_PIN_NONE)
        return cp_fail(COREPOOL_EINVAL, "pin: %d is none of COREPOOL_PIN_…", (int)options->pin);
    if (options->name && (!*options->name || strlen(options->name) > THREAD_NAME_MAX))
        return cp_fail(COREPOOL_EINVAL, "name: \"%s\": 1 to %d characters are allowed", options->name, THREAD_NAME_MAX);
    if (options->shelf == COREPOOL_SHELF_RSEQ && (options->synthetic || options->pin == COREPOOL_PIN_NONE))
        return cp_fail(COREPOOL_EINVAL, "shelf: rseq is for shards that are pinned to CPUs of this machine");
    if (options->stall_ms < 0 || options->stall_ms > STALL_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "stall_ms: %lld: 0 (none) to a day", (long long)options->stall_ms);
    if (options->on_stall && options->stall_ms == 0)
        return cp_fail(COREPOOL_EINVAL, "on_stall: set, but stall_ms is not: nobody would call it");
    return COREPOOL_OK;
}

static void describe_shard(struct corepool_runtime *runtime, const corepool_runtime_options_t *options, unsigned index)
{
    corepool_shard_place_t place;
    struct corepool_shard *shard = &runtime->shard[index];
    corepool_topology_place(runtime->topology, index, &place);
    shard->runtime = runtime;
    shard->topology = runtime->topology;
    shard->index = index;
    shard->cpu = place.cpu;
    shard->single_cpu = place.members == 1;
    shard->pinned = options->pin != COREPOOL_PIN_NONE && corepool_topology_is_real(runtime->topology);
    shard->on_start = options->on_start;
    shard->on_stop = options->on_stop;
    shard->arg = options->arg;
    shard->mark.on = options->stall_ms > 0;
    snprintf(shard->name, sizeof shard->name, "%.*s/%u", THREAD_NAME_MAX, options->name ? options->name : "corepool",
             index % 10000);
}

/* With PREFERRED, a pin that is refused leaves the shard unpinned, and its shelves portable. */
static int start_shard(struct corepool_shard *shard, corepool_pin_t pin)
{
    int status = cp_shard_start(shard);
    if (status < 0 && shard->pin_refused && pin == COREPOOL_PIN_PREFERRED) {
        shard->pinned = false;
        status = cp_shard_start(shard);
    }
    return status;
}

static int run_on_start(struct corepool_shard *shard, void *arg)
{
    (void)arg;
    CP_MARKED(shard, NULL, CP_CALLS_ON_START);
    shard->on_start(shard, shard->arg);
    return COREPOOL_OK;
}

/* Ends the first so many, whose on_start has not run. Returns `status`, with its detail. */
static int undo_shards(struct corepool_runtime *runtime, unsigned started, int status)
{
    char detail[256];
    snprintf(detail, sizeof detail, "%s", corepool_error_detail());
    while (started-- > 0) {
        runtime->shard[started].on_stop = NULL;
        cp_shard_stop(&runtime->shard[started]);
        cp_shard_finish(&runtime->shard[started]);
    }
    return cp_fail(status, "%s", detail);
}

/* First every loop, then on_start on each: it may post to any. */
static int start_shards(struct corepool_runtime *runtime, const corepool_runtime_options_t *options)
{
    for (unsigned i = 0; i < runtime->shards; i++)
        describe_shard(runtime, options, i);
    for (unsigned i = 0; i < runtime->shards; i++) {
        int status = start_shard(&runtime->shard[i], options->pin);
        if (status == COREPOOL_OK)
            continue;
        return undo_shards(runtime, i, status);
    }
    int status = cp_watchdog_start(runtime, options);
    if (status != COREPOOL_OK)
        return undo_shards(runtime, runtime->shards, status);
    for (unsigned i = 0; options->on_start && i < runtime->shards; i++)
        cp_shard_call(&runtime->shard[i], run_on_start, NULL); /* none has stopped */
    return COREPOOL_OK;
}

static int init_locks(struct corepool_runtime *runtime)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0)
        return cp_fail(COREPOOL_ENOMEM, "no memory for a condition variable");
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* a constant that is known to be valid */
    int error = pthread_cond_init(&runtime->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error || pthread_mutex_init(&runtime->lock, NULL) != 0)
        return cp_fail(COREPOOL_ENOMEM, "no memory for a lock");
    return COREPOOL_OK;
}

static void free_runtime(struct corepool_runtime *runtime)
{
    corepool_topology_close(runtime->topology);
    free(runtime->shard);
    free(runtime);
}

/* The topology, and memory for the shards. */
static int prepare(struct corepool_runtime *runtime, const corepool_runtime_options_t *options)
{
    corepool_topology_options_t where = {
        .cpus = options->cpus, .except = options->except, .place = options->place, .synthetic = options->synthetic};
    int status = choose_shelf(options, &runtime->shelf);
    if (status == COREPOOL_OK)
        status = corepool_topology_open(&where, &runtime->topology);
    if (status != COREPOOL_OK)
        return status;
    if (options->synthetic || options->pin == COREPOOL_PIN_NONE)
        runtime->shelf = COREPOOL_SHELF_PORTABLE;
    runtime->shards = corepool_topology_shards(runtime->topology);
    size_t bytes = runtime->shards * sizeof *runtime->shard;
    runtime->shard = aligned_alloc(CP_CACHE_LINE, (bytes + CP_CACHE_LINE - 1) & ~(size_t)(CP_CACHE_LINE - 1));
    if (!runtime->shard)
        return cp_fail(COREPOOL_ENOMEM, "no memory for %u shards", runtime->shards);
    memset(runtime->shard, 0, bytes);
    return init_locks(runtime);
}

int corepool_runtime_start(const corepool_runtime_options_t *options, corepool_runtime_t **out)
{
    static const corepool_runtime_options_t defaults;
    if (!out)
        return cp_fail(COREPOOL_EINVAL, "runtime: NULL");
    *out = NULL;
    options = options ? options : &defaults;
    int status = cp_check_control("corepool_runtime_start");
    if (status == COREPOOL_OK)
        status = check_options(options);
    if (status != COREPOOL_OK)
        return status;
    struct corepool_runtime *runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return cp_fail(COREPOOL_ENOMEM, "no memory for a runtime");
    cp_list_init(&runtime->pools);
    cp_list_init(&runtime->spare_pools);
    cp_list_init(&runtime->attachments);
    cp_list_init(&runtime->keyed);
    cp_list_init(&runtime->link);
    cp_reclaim_install();
    status = prepare(runtime, options);
    if (status == COREPOOL_OK)
        status = enter_registry(runtime);
    if (status == COREPOOL_OK) {
        status = start_shards(runtime, options);
        if (status != COREPOOL_OK)
            leave_registry(runtime);
    }
    if (status != COREPOOL_OK) {
        free_runtime(runtime);
        return status;
    }
    *out = runtime;
    return COREPOOL_OK;
}

/* --- stop -------------------------------------------------------------------------------------------------------------- */

static bool are_pools_gone(const struct corepool_runtime *runtime)
{
    return cp_list_is_empty(&runtime->pools) && runtime->calls == 0;
}

static bool is_down(const struct corepool_runtime *runtime)
{
    return runtime->state == CP_STOPPED;
}

/* Under the lock. False: the deadline came first. */
static bool wait_until(struct corepool_runtime *runtime, bool (*holds)(const struct corepool_runtime *), int64_t deadline)
{
    while (!holds(runtime))
        if (!cp_condition_wait(&runtime->changed, &runtime->lock, deadline))
            return holds(runtime);
    return true;
}

static int report_left(struct corepool_runtime *runtime)
{
    char text[200] = "";
    for (struct cp_list *at = runtime->pools.next; at != &runtime->pools; at = at->next) {
        size_t length = strlen(text);
        cp_pool_describe_leases(cp_container(at, struct corepool_pool_impl, link), text + length, sizeof text - length);
    }
    return cp_fail(COREPOOL_EBUSY, "still in use: %s", text);
}

/* Under the lock, which is let go meanwhile. Joining is a cancellation point, and who has begun is to end it. */
static void join_shards(struct corepool_runtime *runtime)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    runtime->state = CP_JOINING;
    pthread_mutex_unlock(&runtime->lock);
    for (unsigned i = 0; i < runtime->shards; i++)
        cp_shard_stop(&runtime->shard[i]);
    cp_watchdog_stop(runtime);
    pthread_setcancelstate(before, NULL);
    pthread_mutex_lock(&runtime->lock);
    runtime->state = CP_STOPPED;
    pthread_cond_broadcast(&runtime->changed);
}

int corepool_runtime_stop(corepool_runtime_t *runtime, int64_t timeout_ms)
{
    int status = runtime ? cp_check_control("corepool_runtime_stop") : cp_fail(COREPOOL_EINVAL, "runtime: NULL");
    if (status == COREPOOL_OK)
        status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status != COREPOOL_OK)
        return status;
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    pthread_mutex_lock(&runtime->lock);
    if (runtime->state == CP_RUNNING)
        runtime->state = CP_STOPPING;
    for (struct cp_list *at = runtime->pools.next; at != &runtime->pools; at = at->next)
        cp_pool_begin_close(cp_container(at, struct corepool_pool_impl, link), COREPOOL_REASON_STOP);
    if (!wait_until(runtime, are_pools_gone, deadline))
        status = report_left(runtime);
    else if (runtime->state == CP_STOPPING)
        join_shards(runtime);
    else if (!wait_until(runtime, is_down, deadline)) /* another thread is joining them */
        status = cp_fail(COREPOOL_EBUSY, "the shards are about to end");
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

static void free_pools(struct corepool_runtime *runtime)
{
    while (!cp_list_is_empty(&runtime->spare_pools)) {
        struct corepool_pool_impl *impl = cp_container(runtime->spare_pools.next, struct corepool_pool_impl, link);
        cp_list_unlink(&impl->link);
        free(impl);
    }
}

int corepool_runtime_destroy(corepool_runtime_t *runtime)
{
    if (!runtime)
        return COREPOOL_OK;
    int status = cp_check_control("corepool_runtime_destroy");
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&runtime->lock);
    bool stopped = runtime->state == CP_STOPPED, attached = cp_attachments_open(runtime);
    pthread_mutex_unlock(&runtime->lock);
    if (!stopped)
        return cp_fail(COREPOOL_EBUSY, "the runtime is not stopped: corepool_runtime_stop must have returned COREPOOL_OK");
    if (attached)
        return cp_fail(COREPOOL_EBUSY, "a loop is attached, or was detached and has not run since");
    leave_registry(runtime);
    cp_attachments_free(runtime);
    for (unsigned i = 0; i < runtime->shards; i++)
        cp_shard_finish(&runtime->shard[i]);
    cp_keyed_free(runtime);
    free_pools(runtime);
    pthread_cond_destroy(&runtime->changed);
    pthread_mutex_destroy(&runtime->lock);
    free_runtime(runtime);
    return COREPOOL_OK;
}

/* --- look inside ------------------------------------------------------------------------------------------------------------ */

unsigned corepool_runtime_shards(const corepool_runtime_t *runtime)
{
    return runtime->shards;
}

unsigned corepool_runtime_parked(const corepool_runtime_t *runtime)
{
    unsigned parked = 0;
    for (unsigned i = 0; i < runtime->shards; i++)
        parked += atomic_load(&runtime->shard[i].parked);
    return parked;
}

const corepool_topology_t *corepool_runtime_topology(const corepool_runtime_t *runtime)
{
    return runtime->topology;
}

corepool_shelf_kind_t corepool_runtime_shelf(const corepool_runtime_t *runtime)
{
    return runtime->shelf;
}

static int audit_shard(struct corepool_shard *shard, void *shrinks)
{
    cp_shard_settle(shard);
    for (struct cp_list *at = shard->slices.next; at != &shard->slices; at = at->next) {
        struct cp_slice *slice = cp_container(at, struct cp_slice, link);
        const char *broken = cp_slice_check(slice);
        if (broken)
            return cp_fail(COREPOOL_ELAW, "pool %s, shard %u: %s", slice->config.name, shard->index, broken);
        *(bool *)shrinks |= atomic_load(&slice->core.quota) != slice->core.target;
    }
    return COREPOOL_OK;
}

static int audit_pools(corepool_runtime_t *runtime, bool shrinks)
{
    int status = COREPOOL_OK;
    pthread_mutex_lock(&runtime->lock);
    for (struct cp_list *at = runtime->pools.next; status == COREPOOL_OK && at != &runtime->pools; at = at->next) {
        struct corepool_pool_impl *impl = cp_container(at, struct corepool_pool_impl, link);
        if (atomic_load(&impl->generation) == impl->known && !cp_pool_is_whole(impl, shrinks))
            status = cp_fail(COREPOOL_ELAW, "pool %s: L1: the quotas of its slices do not sum to its size", impl->name);
    }
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

int corepool_runtime_audit(corepool_runtime_t *runtime)
{
    bool shrinks = false;
    int status = runtime ? cp_check_control("corepool_runtime_audit") : cp_fail(COREPOOL_EINVAL, "runtime: NULL");
    for (unsigned i = 0; status == COREPOOL_OK && i < runtime->shards; i++) {
        status = cp_shard_call(&runtime->shard[i], audit_shard, &shrinks);
        if (status == COREPOOL_ECLOSED) /* stopped: nothing is left to break a law */
            return COREPOOL_OK;
    }
    return status == COREPOOL_OK ? audit_pools(runtime, shrinks) : status;
}

/* --- posting ------------------------------------------------------------------------------------------------------------------ */

struct task {
    struct cp_message message;
    struct corepool_shard *shard;
    corepool_shard_cb fn;
    void *arg;
};

static void deliver_task(struct cp_message *message)
{
    struct task *task = cp_container(message, struct task, message);
    CP_MARKED(task->shard, NULL, CP_CALLS_POSTED);
    task->fn(task->shard, task->arg);
    free(task);
}

int corepool_shard_post(corepool_runtime_t *runtime, unsigned index, corepool_shard_cb fn, void *arg)
{
    if (!runtime || !fn)
        return cp_fail(COREPOOL_EINVAL, runtime ? "fn: NULL" : "runtime: NULL");
    if (index >= runtime->shards)
        return cp_fail(COREPOOL_EINVAL, "index: %u: there are shards 0 to %u", index, runtime->shards - 1);
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    struct task *task = malloc(sizeof *task);
    if (!task)
        return cp_fail(COREPOOL_ENOMEM, "no memory to post to shard %u", index);
    *task = (struct task){.message.deliver = deliver_task, .shard = &runtime->shard[index], .fn = fn, .arg = arg};
    if (cp_shard_send(task->shard, &task->message))
        return COREPOOL_OK;
    free(task);
    return cp_fail(COREPOOL_ECLOSED, "shard %u has stopped", index);
}
