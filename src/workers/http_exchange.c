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

void cp_http_begin(struct cp_http_call *call, const struct cp_http_connection *connection)
{
    const struct cp_http_settings *settings = connection->settings;
    cp_reply_start(&call->reply, call->to_head, settings->max_head, settings->max_body);
    call->connection = connection;
    call->sent = 0;
    call->deaf = false;
    call->was_reused = connection->served > 0;
}

static size_t total(const struct cp_http_call *call)
{
    return call->head.used + call->connection->settings->host_line_length + call->body_length;
}

bool cp_http_is_sent(const struct cp_http_call *call)
{
    return call->deaf || call->sent == total(call);
}

/* The request in its order on the wire, without what is sent. */
static int slices(const struct cp_http_call *call, struct iovec out[4])
{
    const struct cp_http_settings *settings = call->connection->settings;
    struct iovec all[4] = {
        {call->head.at, call->line_length},
        {(char *)(uintptr_t)settings->host_line, settings->host_line_length},
        {call->head.at + call->line_length, call->head.used - call->line_length},
        {(char *)(uintptr_t)call->body, call->body_length},
    };
    size_t skip = call->sent;
    int count = 0;
    for (int i = 0; i < 4; i++) {
        size_t gone = skip < all[i].iov_len ? skip : all[i].iov_len;
        skip -= gone;
        if (gone < all[i].iov_len)
            out[count++] = (struct iovec){(char *)all[i].iov_base + gone, all[i].iov_len - gone};
    }
    return count;
}

int cp_http_send(struct cp_http_call *call)
{
    while (!cp_http_is_sent(call)) {
        struct iovec out[4];
        struct msghdr message = {.msg_iov = out, .msg_iovlen = (size_t)slices(call, out)};
        int fd = call->connection->stream.fd, flags = MSG_NOSIGNAL | MSG_DONTWAIT;
        /* Without a body there is one piece, and send is the cheaper call. */
        ssize_t count = message.msg_iovlen == 1 ? send(fd, out[0].iov_base, out[0].iov_len, flags)
                                                : sendmsg(fd, &message, flags);
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
