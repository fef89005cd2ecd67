/* workers/dial.c: event-driven look-up and connect. Thread: the loop's.
 *
 * looking ──► trying an address ──► connected ─┐
 *    │            ▲       └─ failed ──┤        ├─► ending: handles close ──► callback, freed
 *    └────────────┘      next address │ none ──┘
 *
 * `pending` counts what libuv still holds of this memory: open handles and an unanswered look-up. The callback
 * runs, and the memory goes, when it is zero. Addresses are tried one after the other; each gets an equal share
 * of the time that is left, so that one black hole does not use up the time of the others. */
#include "workers/dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define CONNECT_TIMEOUT_DEFAULT_MS 5000
/* Longest name in the DNS, in its text form (RFC 1035, 2.3.4). */
#define HOST_LENGTH_MAX 253
/* As much as corepool_worker_explain keeps. */
#define WHY_BYTES 128

struct cp_dial {
    uv_loop_t *loop;
    const corepool_stream_options_t *options;
    cp_dial_cb cb;
    void *arg;

    uv_getaddrinfo_t lookup;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned pending;
    bool looking, polling, ending;

    struct sockaddr_storage address; /* of a path or a numeric host */
    struct addrinfo single;          /* describes it */
    struct addrinfo *found;          /* the look-up's answer */
    const struct addrinfo *next;     /* still to be tried */
    int64_t deadline;                /* of the whole */
    int64_t share;                   /* of the step under way */

    int fd, status;
    char why[WHY_BYTES];
};

static void try_next(struct cp_dial *dial);

int cp_dial_check(const corepool_stream_options_t *options)
{
    if (!options)
        return cp_fail(COREPOOL_EINVAL, "arg: NULL: the stream options are required");
    if (!options->host == !options->path)
        return cp_fail(COREPOOL_EINVAL, "host, path: exactly one of them is required");
    if (options->host && (!*options->host || strlen(options->host) > HOST_LENGTH_MAX))
        return cp_fail(COREPOOL_EINVAL, "host: \"%.32s\": must have 1 to %d characters", options->host,
                       HOST_LENGTH_MAX);
    if (options->host && options->port == 0)
        return cp_fail(COREPOOL_EINVAL, "port: 0: must be 1 to 65535");
    if (options->path &&
        (!*options->path || strlen(options->path) >= sizeof((struct sockaddr_un *)0)->sun_path))
        return cp_fail(COREPOOL_EINVAL, "path: \"%.32s\": must have 1 to %zu characters", options->path,
                       sizeof((struct sockaddr_un *)0)->sun_path - 1);
    if (options->connect_timeout_ms < COREPOOL_INFINITE)
        return cp_fail(COREPOOL_EINVAL, "connect_timeout_ms: %lld: must not be negative",
                       (long long)options->connect_timeout_ms);
    return COREPOOL_OK;
}

static void explain(struct cp_dial *dial, int status, const char *verb, const char *problem)
{
    const corepool_stream_options_t *to = dial->options;
    bool bare_v6 = to->host && strchr(to->host, ':');
    dial->status = status;
    if (to->path)
        snprintf(dial->why, sizeof dial->why, "%s %s: %s", verb, to->path, problem);
    else
        snprintf(dial->why, sizeof dial->why, "%s %s%s%s:%u: %s", verb, bare_v6 ? "[" : "", to->host,
                 bare_v6 ? "]" : "", to->port, problem);
}

static void settle(struct cp_dial *dial)
{
    if (--dial->pending > 0)
        return;
    uv_freeaddrinfo(dial->found);
    dial->cb(dial->arg, dial->status, dial->fd, dial->why);
    free(dial);
}

static void on_timer_closed(uv_handle_t *timer)
{
    settle(timer->data);
}

static void on_poll_closed(uv_handle_t *poll)
{
    struct cp_dial *dial = poll->data;
    if (!dial->ending)
        try_next(dial);
    settle(dial);
}

static void stop_polling(struct cp_dial *dial)
{
    if (dial->polling)
        uv_close((uv_handle_t *)&dial->poll, on_poll_closed);
    dial->polling = false;
}

/* Gives up the socket that is being tried. The poll leaves the loop before its descriptor is closed. */
static void drop_socket(struct cp_dial *dial)
{
    stop_polling(dial);
    if (dial->fd >= 0)
        close(dial->fd);
    dial->fd = -1;
}

/* Leads to the callback. dial->status and dial->why are set, unless `connected`. */
static void end(struct cp_dial *dial, bool connected)
{
    if (dial->ending)
        return;
    dial->ending = true;
    if (connected) {
        dial->status = COREPOOL_OK;
        stop_polling(dial);
    } else {
        drop_socket(dial);
    }
    if (dial->looking)
        uv_cancel((uv_req_t *)&dial->lookup); /* refused once it runs: then its answer is waited for */
    uv_close((uv_handle_t *)&dial->timer, on_timer_closed);
}

/* A client that dials a free port of its own range may meet itself: both ends are then the same. */
static bool met_itself(int fd)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_length = sizeof here, there_length = sizeof there;
    return getsockname(fd, (struct sockaddr *)&here, &here_length) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &there_length) == 0 && here.ss_family != AF_UNIX &&
           here_length == there_length && memcmp(&here, &there, here_length) == 0;
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
    struct cp_dial *dial = poll->data;
    int error = 0;
    socklen_t length = sizeof error;
    (void)status, (void)events; /* the socket itself tells which it is */
    if (getsockopt(dial->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
        error = errno;
    if (error == 0 && met_itself(dial->fd))
        error = ECONNREFUSED;
    if (error == 0) {
        end(dial, true);
        return;
    }
    explain(dial, COREPOOL_EOPEN, "connect", uv_strerror(-error));
    drop_socket(dial); /* the next address follows when the poll is closed */
}

static int await_writable(struct cp_dial *dial)
{
    int code = uv_poll_init(dial->loop, &dial->poll, dial->fd);
    if (code < 0)
        return -code;
    dial->poll.data = dial;
    dial->pending++;
    dial->polling = true;
    return -uv_poll_start(&dial->poll, UV_WRITABLE, on_writable);
}

/* 0: connected; EINPROGRESS: on_writable will tell; else what is wrong. */
static int try_address(struct cp_dial *dial, const struct addrinfo *address)
{
    int on = 1;
    dial->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dial->fd < 0)
        return errno;
    if (address->ai_family != AF_UNIX && setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        return errno;
    if (connect(dial->fd, address->ai_addr, address->ai_addrlen) == 0)
        return met_itself(dial->fd) ? ECONNREFUSED : 0;
    return errno;
}

static void arm_timer(struct cp_dial *dial, int64_t at);

static void try_next(struct cp_dial *dial)
{
    while (dial->next) {
        const struct addrinfo *address = dial->next;
        int64_t now = cp_now_ns(), left = 1;
        for (const struct addrinfo *other = address->ai_next; other; other = other->ai_next)
            left++;
        dial->next = address->ai_next;
        int error = try_address(dial, address);
        if (error == EINPROGRESS)
            error = await_writable(dial);
        else if (error == 0) {
            end(dial, true);
            return;
        }
        if (error == 0) {
            if (dial->deadline != CP_NEVER)
                arm_timer(dial, now + (dial->deadline - now) / left);
            return;
        }
        explain(dial, dial->fd < 0 ? COREPOOL_ESYSTEM : COREPOOL_EOPEN, "connect", uv_strerror(-error));
        bool reused = dial->polling;
        drop_socket(dial);
        if (reused)
            return; /* on_poll_closed goes on */
    }
    end(dial, false);
}

static void on_timer(uv_timer_t *timer)
{
    struct cp_dial *dial = timer->data;
    char problem[48];
    if (dial->ending)
        return;
    if (cp_now_ns() < dial->share) { /* the loop's clock was behind when the timer was set */
        arm_timer(dial, dial->share);
        return;
    }
    snprintf(problem, sizeof problem, "timed out (connect_timeout_ms: %lld)",
             (long long)(dial->options->connect_timeout_ms ? dial->options->connect_timeout_ms
                                                           : CONNECT_TIMEOUT_DEFAULT_MS));
    explain(dial, COREPOOL_ETIMEDOUT, dial->looking ? "look up" : "connect", problem);
    if (dial->next && dial->polling)
        drop_socket(dial);
    else
        end(dial, false);
}

static void arm_timer(struct cp_dial *dial, int64_t at)
{
    dial->share = at;
    if (at != CP_NEVER)
        uv_timer_start(&dial->timer, on_timer, (uint64_t)cp_left_ms(at, cp_now_ns()), 0);
}

static void on_found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct cp_dial *dial = lookup->data;
    dial->looking = false;
    dial->found = found;
    if (!dial->ending) {
        dial->next = found;
        if (status < 0)
            explain(dial, COREPOOL_EOPEN, "look up", uv_strerror(status));
        try_next(dial);
    }
    settle(dial);
}

/* What needs no look-up: a path, a numeric address. */
static bool is_literal(struct cp_dial *dial)
{
    const corepool_stream_options_t *to = dial->options;
    if (to->path) {
        struct sockaddr_un *un = (struct sockaddr_un *)&dial->address;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, to->path, strlen(to->path) + 1);
        dial->single.ai_addrlen = sizeof *un;
    } else if (uv_ip4_addr(to->host, to->port, (struct sockaddr_in *)&dial->address) == 0) {
        dial->single.ai_addrlen = sizeof(struct sockaddr_in);
    } else if (uv_ip6_addr(to->host, to->port, (struct sockaddr_in6 *)&dial->address) == 0) {
        dial->single.ai_addrlen = sizeof(struct sockaddr_in6);
    } else {
        return false;
    }
    dial->single.ai_family = dial->address.ss_family;
    dial->single.ai_addr = (struct sockaddr *)&dial->address;
    return true;
}

static int look_up(struct cp_dial *dial)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port[8];
    snprintf(port, sizeof port, "%u", dial->options->port);
    int code = uv_getaddrinfo(dial->loop, &dial->lookup, on_found, dial->options->host, port, &hints);
    if (code == 0) {
        dial->lookup.data = dial;
        dial->looking = true;
        dial->pending++;
    }
    return code;
}

int cp_dial_start(uv_loop_t *loop, const corepool_stream_options_t *options, cp_dial_cb cb, void *arg,
                  struct cp_dial **result)
{
    int64_t timeout = options->connect_timeout_ms ? options->connect_timeout_ms : CONNECT_TIMEOUT_DEFAULT_MS;
    struct cp_dial *dial = calloc(1, sizeof *dial);
    if (!dial)
        return cp_fail(COREPOOL_ENOMEM, "dial: out of memory");
    dial->loop = loop;
    dial->options = options;
    dial->cb = cb;
    dial->arg = arg;
    dial->status = COREPOOL_EOPEN;
    dial->fd = -1;
    dial->deadline = cp_deadline_ns(cp_now_ns(), timeout);
    *result = dial;

    uv_timer_init(loop, &dial->timer); /* cannot fail */
    dial->timer.data = dial;
    dial->pending = 1;
    arm_timer(dial, dial->deadline);
    if (is_literal(dial)) {
        dial->next = &dial->single;
        try_next(dial);
        return COREPOOL_OK;
    }
    int code = look_up(dial);
    if (code < 0) {
        explain(dial, COREPOOL_EOPEN, "look up", uv_strerror(code));
        end(dial, false);
    }
    return COREPOOL_OK;
}

void cp_dial_cancel(struct cp_dial *dial)
{
    if (dial->ending)
        return;
    explain(dial, COREPOOL_ECANCELED, "connect", "cancelled");
    end(dial, false);
}
