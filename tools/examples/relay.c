/* examples/relay.c: an HTTP relay whose requests never leave their CPU: relay PORT ORIGIN-HOST ORIGIN-PORT
 *
 * Each shard has its own listener (the kernel spreads the clients), its own clients, and its own slice of one
 * pool of origin connections. A request goes on with corepool_http_perform_async; the reply goes out from the
 * callback, in one write. Nothing is allocated per request. What it knows of HTTP is in relay_message.c. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay_message.h"

#define INPUT_BYTES 32768 /* largest request, head and body */
#define CONNECTIONS 1024  /* to the origin, per shard; opened when they are wanted */
#define SHARDS_MAX 1024

struct client {
    uv_tcp_t tcp;
    uv_write_t write;
    struct door *door;
    struct client *next, *next_free;
    struct relay_request request;
    bool busy; /* its request is at the origin, or its reply on the way out */
    bool closed;
    char *output;
    size_t room, used, request_length;
    char input[INPUT_BYTES];
};

/* A shard's own: its listener, the clients that it ever had, those that are free. */
static struct door {
    uv_tcp_t listener;
    struct client *all, *free;
} doors[SHARDS_MAX];

static corepool_http_options_t origin = {.stream.flags = COREPOOL_STREAM_ON_SHARD};
static corepool_pool_t pool;
static uint16_t port;
static _Atomic bool failed;

static void take_request(struct client *client);

/* ---- clients go ---- */

/* Free again once neither libuv nor a request knows it. */
static void release(struct client *client)
{
    if (!client->closed || client->busy)
        return;
    client->next_free = client->door->free;
    client->door->free = client;
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->closed = true;
    release(client);
}

static void hang_up(struct client *client)
{
    if (!uv_is_closing((uv_handle_t *)&client->tcp))
        uv_close((uv_handle_t *)&client->tcp, on_closed);
}

/* ---- from the origin to the client ---- */

/* The reply is out, or never will be. The client's next request may be there already. */
static void finish(struct client *client, bool written)
{
    client->busy = false;
    if (!written || !client->request.keep_alive)
        hang_up(client);
    if (uv_is_closing((uv_handle_t *)&client->tcp)) {
        release(client);
        return;
    }
    client->used -= client->request_length;
    memmove(client->input, client->input + client->request_length, client->used);
    if (client->used > 0)
        take_request(client);
}

static void on_written(uv_write_t *write, int status)
{
    finish(write->data, status == 0);
}

/* At once as far as the socket takes it, the rest when it can. */
static void send_response(struct client *client, const corepool_http_response_t *response)
{
    uv_stream_t *stream = (uv_stream_t *)&client->tcp;
    size_t room = relay_format_room(response);
    if (room > client->room) {
        free(client->output);
        client->output = malloc(room);
        client->room = client->output ? room : 0;
    }
    if (!client->output || uv_is_closing((uv_handle_t *)stream)) {
        finish(client, false);
        return;
    }
    size_t length = relay_format(client->output, &client->request, response);
    uv_buf_t buffer = uv_buf_init(client->output, (unsigned)length);
    int sent = uv_try_write(stream, &buffer, 1);
    if (sent == (int)length || (sent < 0 && sent != UV_EAGAIN)) {
        finish(client, sent > 0);
        return;
    }
    size_t done = sent > 0 ? (size_t)sent : 0;
    buffer = uv_buf_init(client->output + done, (unsigned)(length - done));
    client->write.data = client;
    if (uv_write(&client->write, stream, &buffer, 1, on_written) < 0)
        finish(client, false);
}

/* The relay's own answer. */
static void refuse(struct client *client, int status, bool keep_alive)
{
    corepool_http_response_t response = {.status = status, .body = ""};
    client->request.keep_alive = client->request.keep_alive && keep_alive;
    send_response(client, &response);
}

static void on_reply(int status, const corepool_http_response_t *response, void *arg)
{
    if (status == COREPOOL_OK)
        send_response(arg, response);
    else
        refuse(arg, status == COREPOOL_ETIMEDOUT ? 504 : 502, true);
}

/* ---- from the client to the origin ---- */

static void take_request(struct client *client)
{
    long length = relay_parse(&client->request, client->input, client->used);
    int status = COREPOOL_EINVAL;
    if (length == 0 && client->used < INPUT_BYTES)
        return; /* the rest is on its way */
    client->busy = true;
    client->request_length = (size_t)length;
    if (length > 0)
        status = corepool_http_perform_async(pool, &client->request.http, on_reply, client);
    if (status < 0)
        refuse(client, status == COREPOOL_EINVAL ? 400 : 502, false);
}

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *client = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(client->input + client->used, (unsigned)(INPUT_BYTES - client->used));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct client *client = stream->data;
    (void)buffer;
    if (count < 0)
        hang_up(client);
    else
        client->used += (size_t)count;
    if (count > 0 && !client->busy)
        take_request(client);
}

static void on_client(uv_stream_t *listener, int status)
{
    struct door *door = listener->data;
    struct client *client = door->free ? door->free : calloc(1, sizeof *client);
    if (status < 0 || !client)
        return;
    if (client == door->free) {
        door->free = client->next_free;
    } else {
        client->next = door->all;
        door->all = client;
    }
    client->door = door;
    client->used = 0;
    client->closed = false;
    client->tcp.data = client;
    uv_tcp_init(listener->loop, &client->tcp);
    if (uv_accept(listener, (uv_stream_t *)&client->tcp) < 0 || uv_tcp_nodelay(&client->tcp, 1) < 0 ||
        uv_read_start((uv_stream_t *)&client->tcp, give_room, on_read) < 0)
        hang_up(client);
}

/* ---- shards ---- */

/* On each shard, once there is a pool. */
static void open_door(corepool_shard_t *shard, void *arg)
{
    struct door *door = &doors[corepool_shard_index(shard)];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd, on = 1, code = uv_tcp_init_ex(corepool_shard_loop(shard), &door->listener, AF_INET);
    (void)arg;
    door->listener.data = door;
    if (code == 0)
        code = uv_fileno((uv_handle_t *)&door->listener, &fd);
    if (code == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        code = -errno;
    if (code == 0)
        code = uv_tcp_bind(&door->listener, (struct sockaddr *)&address, 0);
    if (code == 0)
        code = uv_listen((uv_stream_t *)&door->listener, 1024, on_client);
    if (code == 0)
        return;
    fprintf(stderr, "relay: port %u: %s\n", port, uv_strerror(code));
    failed = true;
    kill(getpid(), SIGTERM);
}

static void close_door(corepool_shard_t *shard, void *arg)
{
    struct door *door = &doors[corepool_shard_index(shard)];
    (void)arg;
    if (door->listener.data)
        uv_close((uv_handle_t *)&door->listener, NULL);
    for (struct client *client = door->all; client; client = client->next)
        if (!client->closed)
            hang_up(client);
}

static void free_clients(struct door *door)
{
    for (struct client *client = door->all, *next; client; client = next) {
        next = client->next;
        free(client->output);
        free(client);
    }
}

/* Until a signal. */
static int relay(corepool_runtime_t *runtime, const sigset_t *signals)
{
    corepool_pool_options_t options = {.flags = COREPOOL_POOL_LAZY | COREPOOL_POOL_PER_SHARD};
    int signal, code = corepool_pool_open(runtime, &corepool_http_class, &origin, CONNECTIONS, &options, &pool);
    for (unsigned i = 0; code == COREPOOL_OK && i < corepool_runtime_shards(runtime); i++)
        code = corepool_shard_post(runtime, i, open_door, NULL);
    if (code < 0)
        fprintf(stderr, "relay: %s\n", corepool_error_detail());
    else
        sigwait(signals, &signal);
    return code < 0 || failed;
}

int main(int argc, char **argv)
{
    corepool_runtime_options_t options = {.name = "relay", .on_stop = close_door};
    corepool_runtime_t *runtime;
    sigset_t signals;
    if (argc != 4)
        return fprintf(stderr, "usage: relay PORT ORIGIN-HOST ORIGIN-PORT\n"), 2;
    port = (uint16_t)atoi(argv[1]);
    origin.stream.host = argv[2];
    origin.stream.port = (uint16_t)atoi(argv[3]);
    sigemptyset(&signals); /* blocked before there are threads, so that only sigwait gets them */
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (corepool_runtime_start(&options, &runtime) < 0)
        return fprintf(stderr, "relay: %s\n", corepool_error_detail()), 1;
    int status = corepool_runtime_shards(runtime) <= SHARDS_MAX ? relay(runtime, &signals) : 1;
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    for (unsigned i = 0; i < SHARDS_MAX; i++)
        free_clients(&doors[i]);
    corepool_runtime_destroy(runtime);
    return status;
}
