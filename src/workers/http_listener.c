/* workers/http_listener.c: a shard's HTTP listener and its clients.
 *
 * A client:  reading ─► serving (the program has its request) ─► replying ─► reading …
 *               └─────────────────► closing ◄─────────────────────┘
 *
 * While it is serving the program knows it, so it is only marked as `ended` then, and closed when it is
 * answered. It is read from all the time, as long as there is room: stopping costs a system call. The listener
 * is freed with the last of its handles. Thread: the listener's shard. */
#include <corepool/http_relay.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/list.h"
#include "workers/bytes.h"

#define BACKLOG 1024
/* Room that the listener's output keeps between replies. */
#define OUTPUT_KEPT_BYTES 65536

enum state { READING, SERVING, REPLYING };

struct corepool_http_listener {
    uv_tcp_t door;
    bool closed;  /* door is gone */
    bool stalled; /* a client waits at the door: there was no memory for it */
    corepool_http_serve_cb serve;
    void *arg;
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
    size_t used, length; /* of the input; of the request in it */
    char *rest;          /* of the reply that did not go out at once */
    uv_write_t write;
    corepool_http_incoming_t incoming;
    char input[COREPOOL_HTTP_LISTENER_REQUEST_MAX];
};

typedef struct corepool_http_exchange client_t;

static void accept_client(corepool_http_listener_t *listener);

static void free_if_empty(corepool_http_listener_t *listener)
{
    if (!listener->closed || !cp_list_is_empty(&listener->clients))
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
    if (listener->stalled && !uv_is_closing((uv_handle_t *)&listener->door))
        accept_client(listener);
    free_if_empty(listener);
}

static void hang_up(client_t *client)
{
    if (client->state == SERVING)
        client->incoming.keep_alive = false;
    else if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_client_closed);
}

static void take_request(client_t *client);

/* The reply is out, or never will be; the next request may be there already. */
static void end_reply(client_t *client, int status)
{
    free(client->rest);
    client->rest = NULL;
    client->state = READING;
    client->used -= client->length;
    if (client->used > 0)
        memmove(client->input, client->input + client->length, client->used);
    if (status < 0 || !client->incoming.keep_alive)
        hang_up(client);
    else
        take_request(client);
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

static void take_request(client_t *client)
{
    static const corepool_http_response_t bad = {.status = 400};
    ssize_t length = corepool_http_incoming_parse(&client->incoming, client->input, client->used);
    client->length = length > 0 ? (size_t)length : 0;
    if (length > 0) {
        client->state = SERVING;
        client->listener->serve(client, &client->incoming.request, client->listener->arg);
    } else if (length < 0 || client->used == sizeof client->input) {
        reply(client, &bad);
    } else {
        read_on(client);
    }
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    client_t *client = (client_t *)stream;
    (void)buffer;
    if (count < 0)
        client->ended = true;
    else
        client->used += (size_t)count;
    if (client->ended || client->used == sizeof client->input) { /* until there is room */
        uv_read_stop(stream);
        client->reading = false;
    }
    if (client->state == READING && count != 0)
        take_request(client);
}

static void accept_client(corepool_http_listener_t *listener)
{
    client_t *client = calloc(1, sizeof *client);
    listener->stalled = !client;
    if (!client)
        return;
    client->listener = listener;
    uv_tcp_init(listener->door.loop, &client->tcp);
    cp_list_push_back(&listener->clients, &client->link);
    if (uv_accept((uv_stream_t *)&listener->door, (uv_stream_t *)client) < 0 ||
        uv_tcp_nodelay(&client->tcp, 1) < 0 || uv_fileno((uv_handle_t *)client, &client->fd) < 0)
        hang_up(client);
    else
        read_on(client);
}

static void on_connection(uv_stream_t *door, int status)
{
    if (status == 0)
        accept_client((corepool_http_listener_t *)door);
}

static void on_door_closed(uv_handle_t *handle)
{
    corepool_http_listener_t *listener = (corepool_http_listener_t *)handle;
    listener->closed = true;
    free_if_empty(listener);
}

/* 0 or libuv's code. */
static int open_door(uv_tcp_t *door, const struct sockaddr *address)
{
    int fd, on = 1;
    int status = uv_fileno((uv_handle_t *)door, &fd);
    if (status == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        status = uv_translate_sys_error(errno);
    if (status == 0)
        status = uv_tcp_bind(door, address, 0);
    return status < 0 ? status : uv_listen((uv_stream_t *)door, BACKLOG, on_connection);
}

int corepool_http_listener_open(const struct sockaddr *address, corepool_http_serve_cb serve, void *arg,
                                corepool_http_listener_t **listener)
{
    corepool_shard_t *shard = corepool_shard_current();
    if (!listener)
        return cp_fail(COREPOOL_EINVAL, "listener: NULL");
    *listener = NULL;
    if (!address || !serve)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL", address ? "serve" : "address");
    if (!shard)
        return cp_fail(COREPOOL_ETHREAD, "a listener is opened on its shard: post to one");
    corepool_http_listener_t *made = calloc(1, sizeof *made);
    if (!made)
        return cp_fail(COREPOOL_ENOMEM, "listener: out of memory");
    made->serve = serve;
    made->arg = arg;
    cp_list_init(&made->clients);
    int status = uv_tcp_init_ex(corepool_shard_loop(shard), &made->door, address->sa_family);
    if (status < 0) {
        free(made);
        return cp_fail(COREPOOL_ESYSTEM, "listen: %s", uv_strerror(status));
    }
    status = open_door(&made->door, address);
    if (status < 0) {
        uv_close((uv_handle_t *)&made->door, on_door_closed);
        return cp_fail(COREPOOL_ESYSTEM, "listen: %s", uv_strerror(status));
    }
    *listener = made;
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
    uv_close((uv_handle_t *)&listener->door, on_door_closed);
}

void corepool_http_exchange_reply(corepool_http_exchange_t *exchange, const corepool_http_response_t *response)
{
    reply(exchange, response);
}
