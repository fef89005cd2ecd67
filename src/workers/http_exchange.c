/* workers/http_exchange.c: one try of a call over one connection: what both clients, blocking and not, have in
 * common.
 *
 *   begin ─► send … ─► receive … ─► complete | failed ─► lease ended
 *
 * Nothing here waits. A peer may answer before it has taken the whole request, and close on it: so a send that
 * fails only stops sending, and what the peer said decides. Thread: the holder of the connection. */
#include "workers/http.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/error.h"

/* One read: on the stack, so that idle connections cost no buffer; what it brings is parsed while it is in the
 * cache. */
#define READ_BYTES 16384
/* Reads of one receive, so that a fast peer does not keep a shard from its other work. */
#define READS_AT_ONCE 8

/* So that a request is one piece. All connections of a pool have the same Host: a second try has it already. */
static bool put_host(struct cp_http_call *call, const struct cp_http_settings *settings)
{
    struct cp_bytes *head = &call->head;
    if (call->has_host)
        return true;
    if (!cp_bytes_reserve(head, settings->host_line_length))
        return false;
    char *at = head->at + call->line_length;
    memmove(at + settings->host_line_length, at, head->used - call->line_length);
    memcpy(at, settings->host_line, settings->host_line_length);
    head->used += settings->host_line_length;
    return call->has_host = true;
}

int cp_http_begin(struct cp_http_call *call, const struct cp_http_connection *connection)
{
    const struct cp_http_settings *settings = connection->settings;
    if (!put_host(call, settings))
        return cp_fail(COREPOOL_ENOMEM, "request: out of memory");
    cp_reply_start(&call->reply, call->to_head, settings->max_head, settings->max_body);
    call->connection = connection;
    call->sent = 0;
    call->deaf = false;
    call->was_reused = connection->served > 0;
    return COREPOOL_OK;
}

static size_t total(const struct cp_http_call *call)
{
    return call->head.used + call->body_length;
}

bool cp_http_is_sent(const struct cp_http_call *call)
{
    return call->deaf || call->sent == total(call);
}

/* What is left of the request: head and body are two pieces. Without a body, or with the head gone, send is the cheaper
 * call. */
static ssize_t send_rest(const struct cp_http_call *call)
{
    int fd = call->connection->stream.fd, flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    size_t head = call->head.used, sent = call->sent;
    if (sent >= head)
        return send(fd, call->body + (sent - head), call->body_length - (sent - head), flags);
    if (call->body_length == 0)
        return send(fd, call->head.at + sent, head - sent, flags);
    struct iovec pieces[] = {{call->head.at + sent, head - sent}, {(char *)(uintptr_t)call->body, call->body_length}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    return sendmsg(fd, &message, flags);
}

int cp_http_send(struct cp_http_call *call)
{
    while (!cp_http_is_sent(call)) {
        ssize_t count = send_rest(call);
        if (count >= 0)
            call->sent += (size_t)count;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return COREPOOL_PENDING;
        else if (errno == EPIPE || errno == ECONNRESET)
            call->deaf = true;
        else if (errno != EINTR)
            return cp_fail(COREPOOL_EPEER, "send: %s", strerror(errno));
    }
    return COREPOOL_OK;
}

int cp_http_receive(struct cp_http_call *call)
{
    char buffer[READ_BYTES];
    for (int reads = 0; reads < READS_AT_ONCE; reads++) {
        ssize_t count = recv(call->connection->stream.fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return COREPOOL_PENDING;
        if (count < 0)
            return cp_fail(COREPOOL_EPEER, "receive: %s", strerror(errno));
        int code = count > 0 ? cp_reply_feed(&call->reply, buffer, (size_t)count) : cp_reply_end(&call->reply);
        if (code != COREPOOL_PENDING || (size_t)count < sizeof buffer)
            return code;
    }
    return COREPOOL_PENDING;
}

int cp_http_timed_out(const struct cp_http_call *call)
{
    const struct cp_reply *reply = &call->reply;
    long long after = (long long)call->receive_timeout_ms;
    if (!cp_http_is_sent(call))
        return cp_fail(COREPOOL_ETIMEDOUT, "receive_timeout_ms: %lld: while sending, %zu bytes left", after,
                       total(call) - call->sent);
    if (!reply->begun)
        return cp_fail(COREPOOL_ETIMEDOUT, "receive_timeout_ms: %lld: no byte of a reply came", after);
    return cp_fail(COREPOOL_ETIMEDOUT, "receive_timeout_ms: %lld: %zu bytes into the reply's %s", after,
                   reply->headed ? reply->body.used : reply->head_seen, reply->headed ? "body" : "head");
}

bool cp_http_may_retry(const struct cp_http_call *call, int status)
{
    return status == COREPOOL_EPEER && call->repeatable && call->was_reused && !call->reply.begun;
}

void cp_http_end_lease(struct cp_http_call *call, corepool_lease_t *lease, int status)
{
    struct cp_http_connection *connection = lease->resource;
    bool keep = call->reply.reusable && call->sent == total(call);
    /* The lease is ours and ended here only: it cannot be stale. */
    if (status < 0) {
        (void)corepool_checkin_fail(lease);
    } else if (!keep) {
        (void)corepool_checkin_remove(lease);
    } else {
        connection->served++;
        (void)corepool_checkin(lease);
    }
    call->connection = NULL;
}
