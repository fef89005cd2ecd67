/* examples/relay.c: an HTTP relay whose requests never leave their CPU: relay PORT ORIGIN-HOST ORIGIN-PORT
 *
 * Each shard has its own listener (the kernel spreads the clients), its own clients, and its own slice of one pool of
 * origin connections. A request goes on with corepool_http_perform_async, the reply goes out from its callback; nothing is
 * allocated per request. What the relay knows of HTTP is in relay_message.c. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay_message.h"

#define CONNECTIONS 1024 /* to the origin, per shard; opened when they are wanted */

struct client {
    uv_tcp_t tcp;
    uv_write_t write;
    struct relay_request request;
    bool busy, closed; /* busy: a request at the origin, or a reply on its way out */
    char *output;
    size_t room, used, request_length;
    char input[32768]; /* largest request, head and body */
};

static corepool_http_options_t origin = {.stream.flags = COREPOOL_STREAM_ON_SHARD};
static corepool_pool_t pool;
static struct sockaddr_in address;
static _Atomic int failure;

static void free_client(struct client *client)
{
    if (!client->closed || client->busy) /* libuv or a request still knows it */
        return;
    free(client->output);
    free(client);
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->closed = true;
    free_client(client);
}

static void hang_up(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void take_request(struct client *client);

/* The reply is out, or never will be; the client's next request may be there already. */
static void on_written(uv_write_t *write, int status)
{
    struct client *client = write->data;
    client->busy = false;
    if (client->closed) {
        free_client(client);
    } else if (status < 0 || !client->request.keep_alive) {
        hang_up((uv_handle_t *)&client->tcp);
    } else {
        client->used -= client->request_length;
        memmove(client->input, client->input + client->request_length, client->used);
        take_request(client);
    }
}

static void on_reply(int status, const corepool_http_response_t *response, void *arg)
{
    struct client *client = arg;
    corepool_http_response_t own = {.status = status == COREPOOL_EINVAL ? 400 : status == COREPOOL_ETIMEDOUT ? 504 : 502,
                                    .body = ""};
    response = response ? response : &own;
    size_t room = relay_format_room(response);
    if (room > client->room) {
        free(client->output);
        client->output = malloc(room);
        client->room = client->output ? room : 0;
    }
    client->write.data = client;
    status = UV_ENOMEM;
    if (client->output) {
        size_t length = relay_format(client->output, &client->request, response);
        uv_buf_t buffer = uv_buf_init(client->output, (unsigned)length);
        status = uv_try_write((uv_stream_t *)&client->tcp, &buffer, 1); /* nearly always all of it */
        if (status != (int)length) {
            size_t sent = status > 0 ? (size_t)status : 0;
            buffer = uv_buf_init(client->output + sent, (unsigned)(length - sent));
            if (uv_write(&client->write, (uv_stream_t *)&client->tcp, &buffer, 1, on_written) == 0)
                return;
            status = UV_EPIPE;
        }
    }
    on_written(&client->write, status);
}

static void take_request(struct client *client)
{
    int status = COREPOOL_EINVAL;
    long length = relay_parse(&client->request, client->input, client->used);
    if (length == 0 && client->used < sizeof client->input)
        return; /* the rest is on its way */
    client->busy = true;
    client->request_length = length > 0 ? (size_t)length : 0;
    if (length > 0)
        status = corepool_http_perform_async(pool, &client->request.http, on_reply, client);
    if (status < 0) {
        client->request.keep_alive = false;
        on_reply(status, NULL, client);
    }
}

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *client = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(client->input + client->used, (unsigned)(sizeof client->input - client->used));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct client *client = stream->data;
    (void)buffer;
    if (count < 0)
        hang_up((uv_handle_t *)stream);
    else if ((client->used += (size_t)count) && count > 0 && !client->busy)
        take_request(client);
}

static void on_client(uv_stream_t *listener, int status)
{
    struct client *client = status == 0 ? calloc(1, sizeof *client) : NULL;
    if (!client)
        return;
    client->tcp.data = client;
    uv_tcp_init(listener->loop, &client->tcp);
    if (uv_accept(listener, (uv_stream_t *)&client->tcp) < 0 || uv_tcp_nodelay(&client->tcp, 1) < 0 ||
        uv_read_start((uv_stream_t *)&client->tcp, give_room, on_read) < 0)
        hang_up((uv_handle_t *)&client->tcp);
}

/* On each shard, once there is a pool. */
static void open_door(corepool_shard_t *shard, void *doors)
{
    uv_tcp_t *door = (uv_tcp_t *)doors + corepool_shard_index(shard);
    int fd, on = 1, status = uv_tcp_init_ex(corepool_shard_loop(shard), door, AF_INET);
    if (status == 0 && (status = uv_fileno((uv_handle_t *)door, &fd)) == 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on); /* else the second bind fails */
    if (status == 0)
        status = uv_tcp_bind(door, (struct sockaddr *)&address, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)door, 1024, on_client);
    if (status < 0) {
        fprintf(stderr, "relay: port %u: %s\n", ntohs(address.sin_port), uv_strerror(status));
        failure = 1;
        kill(getpid(), SIGTERM);
    }
}

static void close_tcp(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (handle->type == UV_TCP && handle->data)
        hang_up(handle);
    else if (handle->type == UV_TCP) /* the listener */
        uv_close(handle, NULL);
}

static void close_all(corepool_shard_t *shard, void *arg)
{
    uv_walk(corepool_shard_loop(shard), close_tcp, arg);
}

int main(int argc, char **argv)
{
    corepool_runtime_options_t options = {.name = "relay", .on_stop = close_all};
    corepool_pool_options_t lazily = {.flags = COREPOOL_POOL_LAZY | COREPOOL_POOL_PER_SHARD};
    corepool_runtime_t *runtime;
    sigset_t signals;
    int signal;
    if (argc != 4)
        return fprintf(stderr, "usage: relay PORT ORIGIN-HOST ORIGIN-PORT\n"), 2;
    uv_ip4_addr("0.0.0.0", atoi(argv[1]), &address);
    origin.stream.host = argv[2];
    origin.stream.port = (uint16_t)atoi(argv[3]);
    sigemptyset(&signals); /* blocked before there are threads, so that only sigwait gets them */
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (corepool_runtime_start(&options, &runtime) < 0 ||
        corepool_pool_open(runtime, &corepool_http_class, &origin, CONNECTIONS, &lazily, &pool) < 0)
        return fprintf(stderr, "relay: %s\n", corepool_error_detail()), 1;
    uv_tcp_t *doors = calloc(corepool_runtime_shards(runtime), sizeof *doors);
    for (unsigned i = 0; doors && i < corepool_runtime_shards(runtime); i++)
        corepool_shard_post(runtime, i, open_door, doors);
    sigwait(&signals, &signal);
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    corepool_runtime_destroy(runtime);
    free(doors);
    return failure;
}
