/* workers/stream_io.c: the class of plain streams, and the calls on a lease of it.
 *
 * No state of its own. Thread: the class's pool_init and init on the shard, everything else the holder's. */
#include "workers/stream.h"

#include <corepool/operate.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/error.h"
#include "shard/slice.h"

static int check_options(void *arg, corepool_shard_t *shard, void **pool_state)
{
    const corepool_stream_options_t *options = arg;
    unsigned known = COREPOOL_STREAM_QUIET | COREPOOL_STREAM_ON_SHARD;
    (void)shard, (void)pool_state; /* the default is the argument */
    int code = cp_dial_check(options);
    if (code == COREPOOL_OK && (options->flags & ~known))
        return cp_fail(COREPOOL_EINVAL, "flags: %#x: unknown", options->flags & ~known);
    return code;
}

static int connect_stream(corepool_worker_t *worker, void *pool_state, void **resource)
{
    const corepool_stream_options_t *options = pool_state;
    (void)resource; /* given when it is ready */
    return cp_stream_open(worker, options, options->flags, sizeof(struct cp_stream));
}

const corepool_class_t corepool_stream_class = {
    .name = "stream",
    .pool_init = check_options,
    .init = connect_stream,
    .init_cancel = cp_stream_cancel,
    .checkout = cp_stream_checkout,
    .checkin = cp_stream_checkin,
    .terminate = cp_stream_terminate,
    .detach = cp_stream_detach,
};

static int forked(void)
{
    return cp_fail(COREPOOL_EFORKED, "the connection is the parent process's");
}

struct cp_stream *cp_stream_of(const corepool_lease_t *lease, const corepool_class_t *cls)
{
    if (cp_thread_is_forked()) {
        forked();
        return NULL;
    }
    if (lease && lease->worker && lease->worker->slice->cls == cls)
        return lease->resource;
    cp_fail(COREPOOL_EINVAL, "lease: not one of class %s", cls->name);
    return NULL;
}

int corepool_stream_fd(const corepool_lease_t *lease)
{
    const struct cp_stream *stream = cp_stream_of(lease, &corepool_stream_class);
    return stream ? stream->fd : -1;
}

int corepool_stream_detach(corepool_lease_t *lease, int *fd)
{
    void *resource;
    if (!fd)
        return cp_fail(COREPOOL_EINVAL, "fd: NULL");
    *fd = -1;
    const struct cp_stream *stream = cp_stream_of(lease, &corepool_stream_class);
    if (!stream)
        return COREPOOL_EINVAL;
    if (cp_slot_stamp(lease->worker) != lease->generation) /* the connection may be gone */
        return cp_fail(COREPOOL_ESTALE, "the lease was ended before: checked in, or reclaimed");
    int socket = stream->fd;
    int status = corepool_detach(lease, &resource);
    if (status == COREPOOL_OK)
        *fd = socket;
    return status;
}

int corepool_stream_watch(const corepool_lease_t *lease, int events, corepool_stream_cb cb, void *arg)
{
    struct cp_stream *stream = cp_stream_of(lease, &corepool_stream_class);
    if (!stream)
        return COREPOOL_EINVAL;
    if (!corepool_shard_current())
        return cp_fail(COREPOOL_ETHREAD, "watch: only a shard has a loop to watch with");
    if (!cb) {
        cp_stream_unwatch(stream);
        return COREPOOL_OK;
    }
    if (events != UV_READABLE && events != (UV_READABLE | UV_WRITABLE))
        return cp_fail(COREPOOL_EINVAL, "events: %#x: must be UV_READABLE, with or without UV_WRITABLE",
                       events);
    return cp_stream_watch(stream, events, cb, arg);
}

int cp_stream_await(const struct cp_stream *stream, short events, int64_t deadline_ns)
{
    struct pollfd poller = {.fd = stream->fd, .events = events};
    for (;;) {
        int count = poll(&poller, 1, cp_left_ms(deadline_ns, cp_now_ns()));
        if (count > 0)
            return COREPOOL_OK;
        if (count < 0 && errno != EINTR)
            return cp_fail(COREPOOL_ESYSTEM, "poll: %s", strerror(errno));
        if (cp_now_ns() >= deadline_ns)
            return COREPOOL_ETIMEDOUT;
    }
}

/* What both directions ask first; *stream is the lease's. */
static int check_blocking(const corepool_lease_t *lease, int64_t timeout_ms, struct cp_stream **stream)
{
    if (cp_thread_is_forked())
        return forked();
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "a shard cannot block on a stream: watch it instead");
    if (timeout_ms <= 0 && timeout_ms != COREPOOL_INFINITE)
        return cp_fail(COREPOOL_EINVAL, "timeout_ms: %lld: must be positive or COREPOOL_INFINITE",
                       (long long)timeout_ms);
    *stream = cp_stream_of(lease, &corepool_stream_class);
    return *stream ? COREPOOL_OK : COREPOOL_EINVAL;
}

int corepool_stream_send(const corepool_lease_t *lease, const void *data, size_t length, int64_t timeout_ms)
{
    struct cp_stream *stream = NULL;
    const char *at = data;
    int code = check_blocking(lease, timeout_ms, &stream);
    if (code < 0)
        return code;
    if (!data && length > 0)
        return cp_fail(COREPOOL_EINVAL, "data: NULL with length %zu", length);
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    while (length > 0) {
        ssize_t count = send(stream->fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) {
            at += count;
            length -= (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            code = cp_stream_await(stream, POLLOUT, deadline);
            if (code == COREPOOL_ETIMEDOUT)
                return cp_fail(code, "send: %zu bytes left after timeout_ms: %lld", length,
                               (long long)timeout_ms);
            if (code < 0)
                return code;
        } else if (errno != EINTR) {
            return cp_fail(COREPOOL_EPEER, "send: %s", strerror(errno));
        }
    }
    return COREPOOL_OK;
}

ssize_t corepool_stream_receive(const corepool_lease_t *lease, void *buffer, size_t capacity,
                                int64_t timeout_ms)
{
    struct cp_stream *stream = NULL;
    int code = check_blocking(lease, timeout_ms, &stream);
    if (code < 0)
        return code;
    if (!buffer || capacity == 0)
        return cp_fail(COREPOOL_EINVAL, "buffer: at least one byte of room is required");
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    for (;;) {
        ssize_t count = recv(stream->fd, buffer, capacity, MSG_DONTWAIT);
        if (count >= 0)
            return count;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            code = cp_stream_await(stream, POLLIN, deadline);
            if (code == COREPOOL_ETIMEDOUT)
                return cp_fail(code, "receive: nothing came in timeout_ms: %lld", (long long)timeout_ms);
            if (code < 0)
                return code;
        } else if (errno != EINTR) {
            return cp_fail(COREPOOL_EPEER, "receive: %s", strerror(errno));
        }
    }
}
