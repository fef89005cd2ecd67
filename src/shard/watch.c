/* shard/watch.c: one registration with the shard's loop for a worker's whole life, so that it costs nothing per checkout.
 *
 *   noted (by a blocking init, on libuv's thread pool) ──► watching ──► hung up ──► closed, freed
 *
 * A hang-up stops the poll, as epoll would go on saying so, and evicts the worker. */
#include "shard/watch.h"

#include <stdlib.h>

#include "base/error.h"
#include "shard/shard.h"

struct cp_watch {
    uv_poll_t poll;
    cp_slot *slot;
    int fd;
    bool polls;   /* poll is a handle of the loop */
    bool hung_up;
};

static void on_hangup(uv_poll_t *poll, int status, int events)
{
    struct cp_watch *watch = poll->data;
    (void)status, (void)events; /* an error is no better than a hang-up */
    uv_poll_stop(poll);
    watch->hung_up = true;
    corepool_worker_evict(watch->slot, COREPOOL_REASON_HANGUP); /* while its init is pending: cp_watch_ready will */
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static int start(struct cp_watch *watch)
{
    int code = uv_poll_init(&watch->slot->slice->shard->uv, &watch->poll, watch->fd);
    if (code < 0)
        return cp_fail(COREPOOL_ESYSTEM, "watch of descriptor %d: %s", watch->fd, uv_strerror(code));
    watch->poll.data = watch;
    watch->polls = true;
    code = uv_poll_start(&watch->poll, UV_DISCONNECT, on_hangup);
    return code < 0 ? cp_fail(COREPOOL_ESYSTEM, "watch of descriptor %d: %s", watch->fd, uv_strerror(code)) : COREPOOL_OK;
}

int cp_watch_fd(const cp_slot *slot)
{
    return slot->watch ? slot->watch->fd : -1;
}

void cp_watch_end(cp_slot *slot)
{
    struct cp_watch *watch = slot->watch;
    slot->watch = NULL;
    if (watch && watch->polls)
        uv_close((uv_handle_t *)&watch->poll, on_closed);
    else
        free(watch);
}

void cp_watch_ready(cp_slot *slot)
{
    struct cp_watch *watch = slot->watch;
    if (watch && !watch->polls && start(watch) < 0) {
        cp_slice_warn(slot->slice, slot, COREPOOL_ESYSTEM, corepool_error_detail());
        cp_watch_end(slot);
    } else if (watch && watch->hung_up) {
        corepool_worker_evict(slot, COREPOOL_REASON_HANGUP);
    }
}

/* OK on the shard, and in a blocking init. */
static int check_thread(const cp_slot *slot)
{
    bool blocking_init = slot->slice->cls->flags & COREPOOL_CLASS_BLOCKING && slot->phase == CP_OPENING;
    return cp_on_shard(slot->slice->shard) || blocking_init
               ? COREPOOL_OK
               : cp_fail(COREPOOL_ETHREAD, "a worker's descriptor is named on its shard, or in a blocking init");
}

int corepool_worker_watch(corepool_worker_t *worker, int fd)
{
    if (fd < 0)
        return cp_fail(COREPOOL_EINVAL, "fd: %d", fd);
    int status = check_thread(worker);
    if (status != COREPOOL_OK)
        return status;
    if (worker->phase != CP_OPENING && worker->phase != CP_LIVE)
        return cp_fail(COREPOOL_EINVAL, "worker: its terminate has begun");
    if (worker->watch)
        return cp_fail(COREPOOL_EBUSY, "the worker has named a descriptor before");
    struct cp_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return cp_fail(COREPOOL_ENOMEM, "no memory to watch a descriptor");
    watch->slot = worker;
    watch->fd = fd;
    worker->watch = watch;
    if (cp_on_shard(worker->slice->shard))
        status = start(watch);
    if (status != COREPOOL_OK)
        cp_watch_end(worker);
    return status;
}
