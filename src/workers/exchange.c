/* workers/exchange.c: one request and its reply over two descriptors.
 *
 * Both directions are served by one poll, never one after the other: a peer that answers while it reads (cat
 * does) stops reading once its output is full, and whoever only writes then would wait for ever. Each exchange
 * starts with a read that must find nothing: what is there belongs to somebody else's request.
 *
 *   check_quiet ─► send_some ─► await ─► receive_some ─┬─► done
 *                      ▲                              │ no delimiter yet
 *                      └──────────────────────────────┘
 *
 * Thread: any that may block; nothing is shared. */
#include "workers/exchange.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* "Not yet", between the functions of this file. */
#define MORE 1

static bool would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK;
}

static int check_quiet(const struct cp_exchange *x)
{
    char byte;
    ssize_t count;
    do
        count = read(x->out, &byte, 1);
    while (count < 0 && errno == EINTR);
    if (count > 0)
        return cp_fail(COREPOOL_EPROTO, "the child wrote before it was asked");
    if (count == 0)
        return cp_fail(COREPOOL_EPEER, "the child has closed its output");
    if (!would_block(errno))
        return cp_fail(COREPOOL_ESYSTEM, "read: %s", strerror(errno));
    return COREPOOL_OK;
}

/* As much as the socket takes. */
static int send_some(struct cp_exchange *x)
{
    while (x->unsent > 0) {
        ssize_t count = send(x->in, x->request, x->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) {
            x->request += count;
            x->unsent -= (size_t)count;
        } else if (would_block(errno)) {
            return MORE;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return cp_fail(COREPOOL_EPEER, "the child has closed its input, %zu bytes unsent", x->unsent);
        } else if (errno != EINTR) {
            return cp_fail(COREPOOL_ESYSTEM, "send: %s", strerror(errno));
        }
    }
    return COREPOOL_OK;
}

/* The bytes from `from` on are new. */
static int look_for_delimiter(const struct cp_exchange *x, size_t from)
{
    const char *end = memchr(x->reply + from, x->delimiter, x->received - from);
    if (!end)
        return x->received < x->capacity
                   ? MORE
                   : cp_fail(COREPOOL_ELIMIT, "capacity: %zu: no delimiter in as many bytes", x->capacity);
    size_t after = x->received - (size_t)(end + 1 - x->reply);
    if (after > 0)
        return cp_fail(COREPOOL_EPROTO, "%zu bytes followed the reply", after);
    if (x->unsent > 0)
        return cp_fail(COREPOOL_EPROTO, "the child replied with %zu bytes of the request unsent", x->unsent);
    return COREPOOL_OK;
}

/* One read, so that the other direction gets its turn. */
static int receive_some(struct cp_exchange *x)
{
    size_t before = x->received;
    ssize_t count = read(x->out, x->reply + before, x->capacity - before);
    if (count == 0)
        return cp_fail(COREPOOL_EPEER, "the child closed its output, %zu bytes into the reply", before);
    if (count < 0)
        return would_block(errno) || errno == EINTR ? MORE
                                                    : cp_fail(COREPOOL_ESYSTEM, "read: %s", strerror(errno));
    x->received += (size_t)count;
    return look_for_delimiter(x, before);
}

/* Until the reply goes on or the request can, or the deadline. A signal is a reason to look again, with what is
 * left of the time. */
static int await(const struct cp_exchange *x)
{
    struct pollfd fds[2] = {{.fd = x->out, .events = POLLIN},
                            {.fd = x->unsent > 0 ? x->in : -1, .events = POLLOUT}};
    int64_t now = cp_now_ns();
    if (now >= x->deadline_ns)
        return cp_fail(COREPOOL_ETIMEDOUT, "timed out with %zu bytes of the reply, %zu of the request unsent",
                       x->received, x->unsent);
    if (poll(fds, 2, cp_left_ms(x->deadline_ns, now)) < 0 && errno != EINTR)
        return cp_fail(COREPOOL_ESYSTEM, "poll: %s", strerror(errno));
    return COREPOOL_OK;
}

int cp_exchange(struct cp_exchange *x)
{
    int status = check_quiet(x);
    if (status < 0)
        return status;
    do {
        status = send_some(x);
        if (status < 0)
            return status;
        status = await(x);
        if (status < 0)
            return status;
        status = receive_some(x);
    } while (status == MORE);
    return status;
}
