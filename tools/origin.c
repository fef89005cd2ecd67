/* tools/origin.c: the embedded origin: keep-alive HTTP/1.1, one short reply to every request.
 *
 * Each thread runs a loop of its own. The first one listens and hands the connections round, through a small
 * queue under a lock and a wake-up, so that every thread gets the same number: with a listener per thread the
 * kernel would deal them by hash, and a handful of connections rarely falls evenly. After that a connection
 * belongs to one thread. */
#include "origin.h"

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <http_parser.h>
#include <uv.h>

#define READ_BYTES 16384u
#define BACKLOG 4096
/* Connections on their way to one thread; when it is full the listening thread keeps the connection. */
#define HANDED_MAX 256u
/* A client that sends requests and reads no replies is cut off here. */
#define UNSENT_MAX 65536u

#define REPLY_BODY "hello from the origin\n"
static char reply[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 22\r\n\r\n" REPLY_BODY;
_Static_assert(sizeof REPLY_BODY - 1 == 22, "Content-Length of the reply");

typedef struct {
    uv_loop_t loop;
    uv_async_t wake;
    pthread_t thread;
    bool running;
    char buffer[READ_BYTES]; /* for the read that is under way: its bytes are parsed before the next */
    /* Under the lock, written by others: */
    pthread_mutex_t lock;
    int handed[HANDED_MAX];
    unsigned handed_count;
    bool stop;
} server_t;

struct origin {
    uv_tcp_t listener; /* on the first server's loop; first member: its callback goes from one to the other */
    uint16_t port;
    unsigned count;
    unsigned next; /* whose turn it is; the listening thread's */
    server_t servers[];
};

typedef struct {
    uv_tcp_t tcp;
    http_parser parser;
} connection_t;

typedef struct {
    uv_write_t write;
    bool last;
} unsent_t;

/* ---- one connection ---- */

static void free_connection(uv_handle_t *handle)
{
    free(handle->data);
}

static void close_connection(connection_t *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, free_connection);
}

static void finish_write(uv_write_t *write, int err)
{
    unsent_t *unsent = write->data;
    if (err != 0 || unsent->last)
        close_connection(write->handle->data);
    free(unsent);
}

/* The rest of a reply that the socket had no room for. */
static void queue_rest(connection_t *connection, uv_buf_t rest, bool last)
{
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    unsent_t *unsent = stream->write_queue_size > UNSENT_MAX ? NULL : calloc(1, sizeof *unsent);
    if (unsent == NULL) {
        close_connection(connection);
        return;
    }
    unsent->last = last;
    unsent->write.data = unsent;
    if (uv_write(&unsent->write, stream, &rest, 1, finish_write) != 0) {
        free(unsent);
        close_connection(connection);
    }
}

static int answer(http_parser *parser)
{
    connection_t *connection = parser->data;
    bool last = !http_should_keep_alive(parser);
    size_t length = sizeof reply - 1, done;
    if (uv_is_closing((uv_handle_t *)&connection->tcp))
        return 0;
    if (parser->method == HTTP_HEAD)
        length -= sizeof REPLY_BODY - 1;
    uv_buf_t whole = uv_buf_init(reply, (unsigned)length);
    int sent = uv_try_write((uv_stream_t *)&connection->tcp, &whole, 1);
    done = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && sent != UV_EAGAIN)
        close_connection(connection);
    else if (done < length)
        queue_rest(connection, uv_buf_init(reply + done, (unsigned)(length - done)), last);
    else if (last)
        close_connection(connection);
    return 0;
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    server_t *server = handle->loop->data;
    (void)size;
    *buffer = uv_buf_init(server->buffer, sizeof server->buffer);
}

static void parse(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    static const http_parser_settings settings = {.on_message_complete = answer};
    connection_t *connection = stream->data;
    if (length == 0)
        return;
    if (length > 0) {
        size_t parsed = http_parser_execute(&connection->parser, &settings, buffer->base, (size_t)length);
        if (parsed == (size_t)length && !connection->parser.upgrade)
            return;
    }
    close_connection(connection);
}

static connection_t *open_connection(server_t *server)
{
    connection_t *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return NULL;
    http_parser_init(&connection->parser, HTTP_REQUEST);
    connection->parser.data = connection;
    if (uv_tcp_init(&server->loop, &connection->tcp) != 0) {
        free(connection);
        return NULL;
    }
    connection->tcp.data = connection;
    return connection;
}

static void serve(connection_t *connection)
{
    (void)uv_tcp_nodelay(&connection->tcp, 1); /* only slower without */
    if (uv_read_start((uv_stream_t *)&connection->tcp, give_buffer, parse) != 0)
        close_connection(connection);
}

/* ---- handing connections round ---- */

static bool hand_over(server_t *server, const connection_t *connection)
{
    uv_os_fd_t fd;
    bool taken = false;
    if (uv_fileno((const uv_handle_t *)&connection->tcp, &fd) != 0)
        return false;
    pthread_mutex_lock(&server->lock);
    if (server->handed_count < HANDED_MAX && (fd = dup(fd)) >= 0) {
        server->handed[server->handed_count++] = fd;
        taken = true;
    }
    pthread_mutex_unlock(&server->lock);
    if (taken)
        uv_async_send(&server->wake);
    return taken;
}

static void accept_connection(uv_stream_t *listener, int err)
{
    origin_t *origin = (origin_t *)listener; /* its first member */
    connection_t *connection = err == 0 ? open_connection(&origin->servers[0]) : NULL;
    if (connection == NULL)
        return;
    unsigned turn = origin->next++ % origin->count;
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0)
        close_connection(connection);
    else if (turn != 0 && hand_over(&origin->servers[turn], connection))
        close_connection(connection); /* ours; the other thread has its own descriptor */
    else
        serve(connection);
}

static void adopt(server_t *server, int fd)
{
    connection_t *connection = open_connection(server);
    if (connection == NULL || uv_tcp_open(&connection->tcp, fd) != 0) {
        close(fd);
        if (connection != NULL)
            close_connection(connection);
        return;
    }
    serve(connection);
}

/* Only connections have data. */
static void close_any(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, handle->data != NULL ? free_connection : NULL);
}

static void take_orders(uv_async_t *wake)
{
    server_t *server = wake->loop->data;
    int fds[HANDED_MAX];
    pthread_mutex_lock(&server->lock);
    unsigned count = server->handed_count;
    memcpy(fds, server->handed, count * sizeof *fds);
    server->handed_count = 0;
    bool stop = server->stop;
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < count; i++)
        adopt(server, fds[i]);
    if (stop)
        uv_walk(&server->loop, close_any, NULL);
}

/* ---- start and stop ---- */

/* The program's signals are the main thread's; libuv's writes raise SIGPIPE when a client has gone. */
static void *run_server(void *arg)
{
    server_t *server = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    uv_run(&server->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int init_server(server_t *server)
{
    int err = uv_loop_init(&server->loop);
    if (err != 0)
        return err;
    server->loop.data = server;
    err = uv_async_init(&server->loop, &server->wake, take_orders);
    if (err != 0) {
        uv_loop_close(&server->loop);
        return err;
    }
    pthread_mutex_init(&server->lock, NULL);
    return 0;
}

static int listen_on_loopback(origin_t *origin)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int length = sizeof address;
    int err = uv_tcp_init(&origin->servers[0].loop, &origin->listener);
    if (err != 0)
        return err;
    err = uv_tcp_bind(&origin->listener, (const struct sockaddr *)&address, 0);
    if (err == 0)
        err = uv_listen((uv_stream_t *)&origin->listener, BACKLOG, accept_connection);
    if (err == 0)
        err = uv_tcp_getsockname(&origin->listener, (struct sockaddr *)&address, &length);
    origin->port = ntohs(address.sin_port);
    return err;
}

static int run_servers(origin_t *origin)
{
    for (unsigned i = 0; i < origin->count; i++) {
        char name[16];
        int err = pthread_create(&origin->servers[i].thread, NULL, run_server, &origin->servers[i]);
        if (err != 0)
            return -err;
        origin->servers[i].running = true;
        (void)snprintf(name, sizeof name, "origin/%u", i % 10000);
        (void)pthread_setname_np(origin->servers[i].thread, name);
    }
    return 0;
}

int origin_start(unsigned threads, origin_t **origin)
{
    *origin = NULL;
    origin_t *made = calloc(1, sizeof *made + threads * sizeof made->servers[0]);
    int err = made == NULL ? UV_ENOMEM : 0;
    while (err == 0 && made->count < threads) {
        err = init_server(&made->servers[made->count]);
        made->count += err == 0;
    }
    if (err == 0)
        err = listen_on_loopback(made);
    if (err == 0)
        err = run_servers(made);
    if (err != 0)
        origin_stop(made);
    else
        *origin = made;
    return err;
}

uint16_t origin_port(const origin_t *origin)
{
    return origin->port;
}

int64_t origin_cpu_ns(const origin_t *origin)
{
    int64_t sum = 0;
    for (unsigned i = 0; origin != NULL && i < origin->count; i++) {
        clockid_t clock;
        struct timespec used;
        if (pthread_getcpuclockid(origin->servers[i].thread, &clock) == 0 && clock_gettime(clock, &used) == 0)
            sum += (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
    }
    return sum;
}

/* A thread that never ran has its loop's last round here. */
static void stop_server(server_t *server)
{
    pthread_mutex_lock(&server->lock);
    server->stop = true;
    pthread_mutex_unlock(&server->lock);
    uv_async_send(&server->wake);
    if (server->running)
        pthread_join(server->thread, NULL);
    else
        uv_run(&server->loop, UV_RUN_DEFAULT);
    uv_loop_close(&server->loop);
    pthread_mutex_destroy(&server->lock);
}

/* The listening server first, so that none of the others is handed a connection after it has ended. */
void origin_stop(origin_t *origin)
{
    for (unsigned i = 0; origin != NULL && i < origin->count; i++)
        stop_server(&origin->servers[i]);
    free(origin);
}
