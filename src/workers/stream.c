/* workers/stream.c: a connected socket as a worker, and the watch over it.
 *
 *   dialling ──► live (idle or leased) ──► closing ──► freed
 *       └────────► undone: init fails ───────┘
 *
 * A socket is registered with its home loop once, for life, for what tells that it has gone bad: the peer's
 * hang-up; with ON_SHARD its bytes too. While a holder watches, the events are the holder's. Else they mean
 * that the worker is not to be used again: it is evicted, and the poll stopped, because epoll would go on
 * saying so.
 *
 * Thread: callbacks of the loop and of the class on the home shard; checkout, checkin and the calls on a lease
 * on the holder's thread. A holder on another shard brings an eye of its own (`visitor`); it never touches the
 * home loop's. */
#include "workers/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

static void on_poll(uv_poll_t *poll, int status, int events);

/* What the home shard watches for without a holder. */
static int life_events(const struct cp_stream *stream)
{
    return stream->flags & COREPOOL_STREAM_ON_SHARD ? UV_READABLE | UV_DISCONNECT : UV_DISCONNECT;
}

/* A change costs two system calls, so none is made without need. */
static int arm(struct cp_eye *eye, int events)
{
    int code = events == eye->armed ? 0 : uv_poll_start(&eye->poll, events, on_poll);
    if (code < 0)
        return cp_fail(COREPOOL_ESYSTEM, "uv_poll_start: %s", uv_strerror(code));
    eye->armed = events;
    return COREPOOL_OK;
}

static void disarm(struct cp_eye *eye)
{
    uv_poll_stop(&eye->poll); /* cannot fail */
    eye->armed = 0;
}

static int open_eye(struct cp_eye *eye, struct cp_stream *stream, uv_loop_t *loop)
{
    int code = uv_poll_init(loop, &eye->poll, stream->fd);
    if (code < 0)
        return cp_fail(COREPOOL_ESYSTEM, "uv_poll_init: %s", uv_strerror(code));
    uv_timer_init(loop, &eye->timer); /* cannot fail */
    eye->stream = stream;
    eye->deadline_ns = eye->due_ns = CP_NEVER;
    eye->poll.data = eye->timer.data = eye;
    eye->handles = 2;
    return COREPOOL_OK;
}

static void on_eye_closed(uv_handle_t *handle)
{
    struct cp_eye *eye = handle->data;
    struct cp_stream *stream = eye->stream;
    if (--eye->handles > 0)
        return;
    if (!stream) {
        free(eye);
        return;
    }
    corepool_worker_t *worker = stream->worker;
    int failure = stream->failure;
    free(stream);
    if (failure)
        corepool_worker_failed(worker, failure);
    else
        corepool_worker_gone(worker);
}

static void close_eye(struct cp_eye *eye)
{
    uv_close((uv_handle_t *)&eye->poll, on_eye_closed);
    uv_close((uv_handle_t *)&eye->timer, on_eye_closed);
}

/* ---- the life of a worker: home shard ---- */

static void fail_init(struct cp_stream *stream, int code)
{
    corepool_worker_t *worker = stream->worker;
    corepool_worker_set_context(worker, NULL);
    if (stream->home.handles > 0) {
        stream->failure = code; /* told when the handles are closed */
        close_eye(&stream->home);
    }
    if (stream->fd >= 0)
        close(stream->fd);
    if (stream->home.handles == 0) {
        free(stream);
        corepool_worker_failed(worker, code);
    }
}

static void on_dialled(void *arg, int status, int fd, const char *why)
{
    struct cp_stream *stream = arg;
    stream->dial = NULL;
    stream->fd = fd;
    if (status < 0) {
        corepool_worker_explain(stream->worker, "%s", why);
    } else {
        status = open_eye(&stream->home, stream, corepool_worker_loop(stream->worker));
        if (status == COREPOOL_OK)
            status = arm(&stream->home, life_events(stream));
        if (status < 0)
            corepool_worker_explain(stream->worker, "%s", corepool_error_detail());
    }
    if (status < 0)
        fail_init(stream, status);
    else
        corepool_worker_ready(stream->worker, stream);
}

int cp_stream_open(corepool_worker_t *worker, const corepool_stream_options_t *options, unsigned flags,
                   size_t bytes)
{
    struct cp_stream *stream = calloc(1, bytes);
    if (!stream) {
        corepool_worker_explain(worker, "connection: out of memory");
        return COREPOOL_ENOMEM;
    }
    stream->worker = worker;
    stream->flags = flags;
    stream->fd = -1;
    int code = cp_dial_start(corepool_worker_loop(worker), options, on_dialled, stream, &stream->dial);
    if (code < 0) {
        corepool_worker_explain(worker, "%s", corepool_error_detail());
        free(stream);
        return code;
    }
    corepool_worker_set_context(worker, stream);
    return COREPOOL_PENDING;
}

void cp_stream_cancel(corepool_worker_t *worker, void *pool_state)
{
    struct cp_stream *stream = corepool_worker_context(worker);
    (void)pool_state;
    if (stream && stream->dial)
        cp_dial_cancel(stream->dial);
}

int cp_stream_terminate(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    struct cp_stream *stream = resource;
    (void)worker, (void)pool_state, (void)reason;
    close_eye(&stream->home);
    close(stream->fd);
    return COREPOOL_PENDING; /* on_eye_closed ends it */
}

/* The socket is a client's from now on. */
int cp_stream_detach(corepool_worker_t *worker, void *pool_state, void *resource)
{
    struct cp_stream *stream = resource;
    (void)worker, (void)pool_state;
    close_eye(&stream->home);
    return COREPOOL_PENDING; /* on_eye_closed ends it */
}

/* What lies in the socket: > 0 bytes, 0 nothing, < 0 the end or an error. */
static int peek(const struct cp_stream *stream)
{
    char byte;
    ssize_t count;
    do
        count = recv(stream->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    return count > 0 ? 1 : -1;
}

/* The socket spoke while no one watched it. Where only the hang-up is watched for, that is what it said; a
 * thread that has the connection may still read what came before it. */
static void on_unwatched(struct cp_stream *stream)
{
    bool bytes = (stream->flags & COREPOOL_STREAM_ON_SHARD) && peek(stream) > 0;
    disarm(&stream->home);
    if (bytes && stream->on_loan)
        return; /* the holder has yet to read; its watch, or checkin, arms the poll again */
    corepool_worker_evict(stream->worker, bytes ? COREPOOL_REASON_EVICTED : COREPOOL_REASON_HANGUP);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct cp_eye *eye = poll->data;
    if (status < 0)
        eye->armed = 0; /* libuv has stopped a poll that reports an error; recv will say which */
    if (!eye->ready)
        on_unwatched(eye->stream);
    else if (status < 0 || (events & (UV_DISCONNECT | UV_READABLE)))
        eye->ready(UV_READABLE | (events & UV_WRITABLE), eye->arg);
    else
        eye->ready(UV_WRITABLE, eye->arg);
}

/* ---- checkout and checkin: the holder ---- */

int cp_stream_checkout(void *pool_state, void *resource, void *command, void **client)
{
    struct cp_stream *stream = resource;
    (void)pool_state, (void)command, (void)client;
    if (stream->flags & COREPOOL_STREAM_ON_SHARD) {
        if (corepool_shard_current() != corepool_worker_shard(stream->worker))
            return COREPOOL_SKIP;
        if (stream->home.armed == 0)
            return COREPOOL_REMOVE; /* its eviction is on the way */
        stream->on_loan = true;
    } else if ((stream->flags & COREPOOL_STREAM_QUIET) && peek(stream) != 0) {
        return COREPOOL_REMOVE;
    }
    return COREPOOL_OK;
}

int cp_stream_checkin(void *pool_state, void *resource, void *client)
{
    struct cp_stream *stream = resource;
    (void)pool_state, (void)client;
    if (!(stream->flags & COREPOOL_STREAM_ON_SHARD))
        return COREPOOL_OK;
    stream->on_loan = false;
    return arm(&stream->home, life_events(stream)) < 0 ? COREPOOL_REMOVE : COREPOOL_OK;
}

/* ---- watching: the holder, on a shard ---- */

static int invite_visitor(struct cp_stream *stream, corepool_shard_t *shard)
{
    struct cp_eye *eye = calloc(1, sizeof *eye);
    if (!eye)
        return cp_fail(COREPOOL_ENOMEM, "watch: out of memory");
    int code = open_eye(eye, stream, corepool_shard_loop(shard));
    if (code < 0)
        free(eye);
    else
        stream->visitor = eye;
    return code;
}

static struct cp_eye *watching_eye(struct cp_stream *stream)
{
    return stream->visitor ? stream->visitor : &stream->home;
}

int cp_stream_watch(struct cp_stream *stream, int events, cp_stream_ready ready, void *arg)
{
    corepool_shard_t *here = corepool_shard_current();
    bool at_home = here == corepool_worker_shard(stream->worker);
    if (!here)
        return cp_fail(COREPOOL_ETHREAD, "watch: only a shard has a loop to watch with");
    if (!at_home && !stream->visitor) {
        int code = invite_visitor(stream, here);
        if (code < 0)
            return code;
    }
    struct cp_eye *eye = watching_eye(stream);
    eye->ready = ready;
    eye->arg = arg;
    return arm(eye, at_home ? events | life_events(stream) : events);
}

static void on_timer(uv_timer_t *timer);

static void arm_timer(struct cp_eye *eye)
{
    eye->due_ns = eye->deadline_ns;
    uv_timer_start(&eye->timer, on_timer, (uint64_t)cp_left_ms(eye->deadline_ns, cp_now_ns()), 0);
}

/* For the deadline of now, that of an earlier watch, or before either: the loop's clock may have been behind when the
 * timer was armed. */
static void on_timer(uv_timer_t *timer)
{
    struct cp_eye *eye = timer->data;
    eye->due_ns = CP_NEVER;
    if (eye->deadline_ns == CP_NEVER)
        return;
    if (cp_now_ns() < eye->deadline_ns)
        arm_timer(eye);
    else
        eye->ready(0, eye->arg);
}

void cp_stream_set_deadline(struct cp_stream *stream, int64_t deadline_ns)
{
    struct cp_eye *eye = watching_eye(stream);
    eye->deadline_ns = deadline_ns;
    if (deadline_ns < eye->due_ns)
        arm_timer(eye);
}

void cp_stream_unwatch(struct cp_stream *stream)
{
    if (stream->visitor) {
        stream->visitor->ready = NULL;
        stream->visitor->deadline_ns = CP_NEVER;
        stream->visitor->stream = NULL; /* it may outlive the lease by a turn of its loop */
        close_eye(stream->visitor);
        stream->visitor = NULL;
    } else if (stream->home.ready) {
        stream->home.ready = NULL;
        stream->home.deadline_ns = CP_NEVER;
        if (arm(&stream->home, life_events(stream)) < 0)
            corepool_worker_evict(stream->worker, COREPOOL_REASON_EVICTED);
    }
}
