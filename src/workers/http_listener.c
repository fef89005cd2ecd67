/* workers/http_listener.c: a shard's HTTP listener and its clients.
 *
 * A client:  reading ─► serving (the program has its request) ─► replying ─► reading …
 *               └─────────────────► closing ◄─────────────────────┘
 *
 * While it is serving the program knows it, so it is only marked as `ended` then, and closed when it is
 * answered. It is read from all the time, as long as there is room: stopping costs a system call.
 *
 * The door is watched, and clients are accepted, without libuv's listening handle: that tries again and again,
 * without a pause, what fails for want of descriptors or memory. Here the door rests for a moment then, and who
 * waits there is served later. One timer looks at all clients' deadlines; it runs while there are any. The
 * listener is freed with the last of its handles. Thread: the listener's shard. */
#include <corepool/http_relay.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/list.h"
#include "workers/bytes.h"

#define BACKLOG 1024
/* Room that the listener's output keeps between replies. */
#define OUTPUT_KEPT_BYTES 65536
/* So many come in at most, before the others get their turn. */
#define CLIENTS_AT_ONCE 64
/* How long the door rests after a client could not be let in. */
#define REST_MS 50
/* How often the deadlines are looked at: so many times in the shortest, but not more seldom than each second.
 */
#define LOOKS 8
#define LOOK_MS_MAX 1000

enum state { READING, SERVING, REPLYING };

struct corepool_http_listener {
    int fd;
    uv_poll_t door;
    uv_timer_t timer;
    unsigned handles; /* of these, that are not gone */
    bool rests;       /* the door is not watched: a client could not be let in */
    corepool_http_serve_cb serve;
    void *arg;
    corepool_http_listener_limits_t limits; /* CP_NEVER: none */
    struct cp_list clients;
    struct cp_bytes output; /* each reply is put together here */
};

/* A client, and its exchange when it is serving. */
struct corepool_http_exchange {
    uv_tcp_t tcp; /* first */
    int fd;
    corepool_http_listener_t *listener;
    struct cp_list link; /* in listener->clients */
    enum state state;
    bool reading;
    bool ended;          /* sends no more: hang up when what it has sent is answered */
    bool taking;         /* its requests are being looked at: who answers one at once returns there */
    uint64_t since;      /* the loop's time, in ms: when it began what it does by now */
    size_t used, length; /* of the input; of the request in it */
    char *rest;          /* of the reply that did not go out at once */
    uv_write_t write;
    corepool_http_incoming_t incoming;
    char input[COREPOOL_HTTP_LISTENER_REQUEST_MAX];
};

typedef struct corepool_http_exchange client_t;

static void free_if_empty(corepool_http_listener_t *listener)
{
    if (listener->handles || !cp_list_is_empty(&listener->clients))
        return;
    cp_bytes_finish(&listener->output);
    free(listener);
}

static void on_client_closed(uv_handle_t *handle)
{
    client_t *client = (client_t *)handle;
    corepool_http_listener_t *listener = client->listener;
    cp_list_unlink(&client->link);
    free(client);
    free_if_empty(listener);
}

static void hang_up(client_t *client)
{
    if (client->state == SERVING)
        client->incoming.keep_alive = false;
    else if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_client_closed);
}

static void take_requests(client_t *client);

static void note_time(client_t *client)
{
    client->since = uv_now(client->tcp.loop);
}

/* The reply is out, or never will be; the next request may be there already. */
static void end_reply(client_t *client, int status)
{
    free(client->rest);
    client->rest = NULL;
    client->state = READING;
    note_time(client);
    client->used -= client->length;
    if (client->used > 0)
        memmove(client->input, client->input + client->length, client->used);
    if (status < 0 || !client->incoming.keep_alive)
        hang_up(client);
    else
        take_requests(client);
}

static void on_written(uv_write_t *write, int status)
{
    end_reply(write->data, status);
}

/* `length` bytes that the socket did not take at once. The output is needed for other replies. */
static int write_later(client_t *client, const char *data, size_t length)
{
    client->rest = malloc(length);
    if (!client->rest)
        return UV_ENOMEM;
    memcpy(client->rest, data, length);
    client->write.data = client;
    uv_buf_t buffer = uv_buf_init(client->rest, (unsigned)length);
    return uv_write(&client->write, (uv_stream_t *)client, &buffer, 1, on_written);
}

/* Nearly always the socket takes all of it: then libuv has no part in it. None of its writes is under way. */
static void write_reply(client_t *client, const char *data, size_t length)
{
    ssize_t sent = send(client->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    int status = 0;
    if (sent < (ssize_t)length) {
        size_t done = sent > 0 ? (size_t)sent : 0; /* an error: libuv meets it too */
        status = write_later(client, data + done, length - done);
        if (status == 0)
            return;
    }
    end_reply(client, status);
}

static void reply(client_t *client, const corepool_http_response_t *response)
{
    struct cp_bytes *output = &client->listener->output; /* which outlives the client */
    client->state = REPLYING;
    note_time(client);
    ssize_t length = corepool_http_incoming_reply(&client->incoming, response, &output->at, &output->room);
    if (length < 0)
        end_reply(client, UV_ENOMEM);
    else
        write_reply(client, output->at, (size_t)length);
    cp_bytes_clear(output, OUTPUT_KEPT_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer);

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    client_t *client = (client_t *)handle;
    (void)suggested;
    buffer->base = client->input + client->used;
    buffer->len = sizeof client->input - client->used;
}

static void read_on(client_t *client)
{
    if (!client->reading && !client->ended)
        client->reading = uv_read_start((uv_stream_t *)client, give_room, on_read) == 0;
    if (!client->reading)
        hang_up(client);
}

/* False: nothing more can be done with it now. */
static bool take_request(client_t *client)
{
    static const corepool_http_response_t bad = {.status = 400};
    ssize_t length = corepool_http_incoming_parse(&client->incoming, client->input, client->used);
    client->length = length > 0 ? (size_t)length : 0;
    if (length > 0) {
        client->state = SERVING;
        client->listener->serve(client, &client->incoming.request, client->listener->arg);
        return client->state == READING && !uv_is_closing((uv_handle_t *)client);
    }
    if (length < 0 || client->used == sizeof client->input)
        reply(client, &bad);
    else
        read_on(client);
    return false;
}

/* One after the other, not one within the other: a client may send a thousand at once. */
static void take_requests(client_t *client)
{
    if (client->taking)
        return;
    client->taking = true;
    while (take_request(client))
        ;
    client->taking = false;
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    client_t *client = (client_t *)stream;
    (void)buffer;
    if (client->state == READING && client->used == 0 && count > 0)
        note_time(client);
    if (count < 0)
        client->ended = true;
    else
        client->used += (size_t)count;
    if (client->ended || client->used == sizeof client->input) { /* until there is room */
        uv_read_stop(stream);
        client->reading = false;
    }
    if (client->state == READING && count != 0)
        take_requests(client);
}

/* ---- deadlines ---- */

static int64_t limit_of(const client_t *client)
{
    const corepool_http_listener_limits_t *limits = &client->listener->limits;
    switch (client->state) {
    case READING: return client->used ? limits->request_ms : limits->idle_ms;
    case REPLYING: return limits->reply_ms;
    case SERVING: break; /* the program's own affair */
    }
    return CP_NEVER;
}

static bool is_over(const client_t *client)
{
    return (int64_t)(uv_now(client->tcp.loop) - client->since) >= limit_of(client);
}

static uint64_t interval_of(const corepool_http_listener_limits_t *limits)
{
    int64_t shortest = limits->request_ms < limits->idle_ms ? limits->request_ms : limits->idle_ms;
    shortest = shortest < limits->reply_ms ? shortest : limits->reply_ms;
    int64_t interval = shortest / LOOKS < LOOK_MS_MAX ? shortest / LOOKS : LOOK_MS_MAX;
    return interval > 0 ? (uint64_t)interval : 1;
}

static void watch_door(corepool_http_listener_t *listener);

static void on_timer(uv_timer_t *timer)
{
    corepool_http_listener_t *listener = timer->data;
    for (struct cp_list *at = listener->clients.next, *next; at != &listener->clients; at = next) {
        client_t *client = cp_container(at, client_t, link);
        next = at->next;
        if (is_over(client))
            hang_up(client);
    }
    if (listener->rests)
        watch_door(listener);
    else if (cp_list_is_empty(&listener->clients))
        uv_timer_stop(timer);
}

/* The first time after `ms`. */
static void start_timer(corepool_http_listener_t *listener, uint64_t ms)
{
    uint64_t interval = interval_of(&listener->limits);
    uv_timer_start(&listener->timer, on_timer, ms < interval ? ms : interval,
                   interval); /* fails without a callback only */
}

/* ---- the door ---- */

static void rest(corepool_http_listener_t *listener)
{
    uv_poll_stop(&listener->door);
    listener->rests = true;
    start_timer(listener, REST_MS);
}

/* False: out of memory; the descriptor is closed. */
static bool let_in(corepool_http_listener_t *listener, int fd)
{
    client_t *client = calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        return false;
    }
    client->listener = listener;
    client->fd = fd;
    uv_tcp_init(listener->door.loop, &client->tcp);
    cp_list_push_back(&listener->clients, &client->link);
    note_time(client);
    if (!uv_is_active((uv_handle_t *)&listener->timer))
        start_timer(listener, LOOK_MS_MAX);
    if (uv_tcp_open(&client->tcp, fd) < 0) {
        close(fd);
        hang_up(client);
    } else if (uv_tcp_nodelay(&client->tcp, 1) < 0) {
        hang_up(client);
    } else {
        read_on(client);
    }
    return true;
}

/* What fails for another reason than the client's own would fail again at once. */
static void on_door(uv_poll_t *door, int status, int events)
{
    corepool_http_listener_t *listener = door->data;
    (void)status, (void)events;
    for (unsigned i = 0; i < CLIENTS_AT_ONCE; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 ? let_in(listener, fd) : errno == EINTR || errno == ECONNABORTED)
            continue;
        if (fd >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            rest(listener);
        return;
    }
}

static void watch_door(corepool_http_listener_t *listener)
{
    listener->rests = uv_poll_start(&listener->door, UV_READABLE, on_door) < 0;
    if (listener->rests)
        start_timer(listener, REST_MS);
}

static void on_handle_closed(uv_handle_t *handle)
{
    corepool_http_listener_t *listener = handle->data;
    listener->handles--;
    free_if_empty(listener);
}

static int bind_door(int fd, const struct sockaddr *address)
{
    int on = 1;
    socklen_t length =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    bool bound = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                 setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
                 bind(fd, address, length) == 0 && listen(fd, BACKLOG) == 0;
    return bound ? COREPOOL_OK : cp_fail(COREPOOL_ESYSTEM, "listen: %s", strerror(errno));
}

static int open_door(const struct sockaddr *address, int *fd)
{
    *fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return cp_fail(COREPOOL_ESYSTEM, "socket: %s", strerror(errno));
    int status = bind_door(*fd, address);
    if (status < 0)
        close(*fd);
    return status;
}

/* ---- the listener ---- */

static int check_open(const struct sockaddr *address, corepool_http_serve_cb serve)
{
    if (!address || !serve)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL", address ? "serve" : "address");
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return cp_fail(COREPOOL_EINVAL, "address: family %d is neither IPv4 nor IPv6", address->sa_family);
    return corepool_shard_current()
               ? COREPOOL_OK
               : cp_fail(COREPOOL_ETHREAD, "a listener is opened on its shard: post to one");
}

static int open_handles(corepool_http_listener_t *listener)
{
    uv_loop_t *loop = corepool_shard_loop(corepool_shard_current());
    int code = uv_poll_init(loop, &listener->door, listener->fd);
    if (code < 0)
        return cp_fail(COREPOOL_ESYSTEM, "listen: %s", uv_strerror(code));
    uv_timer_init(loop, &listener->timer); /* cannot fail */
    listener->door.data = listener->timer.data = listener;
    listener->handles = 2;
    watch_door(listener);
    return COREPOOL_OK;
}

int corepool_http_listener_open(const struct sockaddr *address, corepool_http_serve_cb serve, void *arg,
                                corepool_http_listener_t **listener)
{
    if (!listener)
        return cp_fail(COREPOOL_EINVAL, "listener: NULL");
    *listener = NULL;
    int status = check_open(address, serve);
    if (status < 0)
        return status;
    corepool_http_listener_t *made = calloc(1, sizeof *made);
    if (!made)
        return cp_fail(COREPOOL_ENOMEM, "listener: out of memory");
    made->serve = serve;
    made->arg = arg;
    cp_list_init(&made->clients);
    corepool_http_listener_limit(made, &(corepool_http_listener_limits_t){0});
    status = open_door(address, &made->fd);
    if (status == COREPOOL_OK) {
        status = open_handles(made);
        if (status < 0)
            close(made->fd);
    }
    if (status < 0)
        free(made);
    else
        *listener = made;
    return status;
}

/* A year, so that sums stay far from an overflow. */
#define LIMIT_MS_MAX (INT64_C(365) * 24 * 3600 * 1000)

/* In its place, what it means. */
static int set_limit(const char *name, int64_t *limit_ms, int64_t by_default)
{
    if (*limit_ms < COREPOOL_INFINITE || *limit_ms > LIMIT_MS_MAX)
        return cp_fail(COREPOOL_EINVAL, "%s: %lld: 0 (default) to a year, or COREPOOL_INFINITE", name,
                       (long long)*limit_ms);
    *limit_ms = *limit_ms == 0 ? by_default : *limit_ms == COREPOOL_INFINITE ? CP_NEVER : *limit_ms;
    return COREPOOL_OK;
}

int corepool_http_listener_limit(corepool_http_listener_t *listener,
                                 const corepool_http_listener_limits_t *given)
{
    if (!listener || !given)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL", listener ? "limits" : "listener");
    corepool_http_listener_limits_t limits = *given;
    int status = set_limit("idle_ms", &limits.idle_ms, COREPOOL_HTTP_LISTENER_IDLE_MS);
    if (status == COREPOOL_OK)
        status = set_limit("request_ms", &limits.request_ms, COREPOOL_HTTP_LISTENER_REQUEST_MS);
    if (status == COREPOOL_OK)
        status = set_limit("reply_ms", &limits.reply_ms, COREPOOL_HTTP_LISTENER_REPLY_MS);
    if (status != COREPOOL_OK)
        return status;
    listener->limits = limits;
    if (!cp_list_is_empty(&listener->clients))
        start_timer(listener, LOOK_MS_MAX);
    return COREPOOL_OK;
}

void corepool_http_listener_close(corepool_http_listener_t *listener)
{
    if (!listener)
        return;
    for (struct cp_list *at = listener->clients.next, *next; at != &listener->clients; at = next) {
        next = at->next;
        hang_up(cp_container(at, client_t, link));
    }
    uv_close((uv_handle_t *)&listener->door, on_handle_closed);
    uv_close((uv_handle_t *)&listener->timer, on_handle_closed);
    close(listener->fd);
}

void corepool_http_exchange_reply(corepool_http_exchange_t *exchange, const corepool_http_response_t *response)
{
    reply(exchange, response);
}
