/* examples/relay.c: an HTTP relay whose requests never leave their CPU: relay PORT ORIGIN-HOST ORIGIN-PORT
 *
 * Each shard has its own listener (the kernel spreads the clients), its own clients, and its own slice of one
 * pool of origin connections. A request goes on as it was parsed, over a connection of the shard that its
 * client is on. */
#include <corepool.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECTIONS 1024 /* to the origin, per shard; opened when they are wanted */

struct relay {
    corepool_pool_t pool;
    struct sockaddr_in address;
    corepool_http_listener_t **listeners; /* one per shard */
    _Atomic bool failed;
};

/* The origin's reply, or why there is none, is the client's. */
static void on_reply(int status, const corepool_http_response_t *response, void *arg)
{
    corepool_http_response_t own = {.status = 502};
    if (status == COREPOOL_EINVAL)
        own.status = 400;
    else if (status == COREPOOL_ETIMEDOUT)
        own.status = 504;
    corepool_http_exchange_reply(arg, response ? response : &own);
}

/* A client asks: on_reply runs once, at the latest when the request's timeouts are over. */
static void on_request(corepool_http_exchange_t *exchange, const corepool_http_request_t *request, void *arg)
{
    struct relay *relay = arg;
    int status = corepool_http_perform_async(relay->pool, request, on_reply, exchange);
    if (status < 0)
        on_reply(status, NULL, exchange);
}

static void open_listener(corepool_shard_t *shard, void *arg)
{
    struct relay *relay = arg;
    const struct sockaddr *address = (const struct sockaddr *)&relay->address;
    if (corepool_http_listener_open(address, on_request, relay,
                                    &relay->listeners[corepool_shard_index(shard)]) < 0) {
        fprintf(stderr, "relay: %s\n", corepool_error_detail());
        relay->failed = true;
        kill(getpid(), SIGTERM);
    }
}

/* When every request has been answered. */
static void close_listener(corepool_shard_t *shard, void *arg)
{
    struct relay *relay = arg;
    corepool_http_listener_close(relay->listeners[corepool_shard_index(shard)]);
}

static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
}

int main(int argc, char **argv)
{
    static struct relay relay;
    if (argc != 4)
        return fprintf(stderr, "usage: relay PORT ORIGIN-HOST ORIGIN-PORT\n"), 2;
    corepool_runtime_options_t options = {.name = "relay", .on_stop = close_listener, .arg = &relay};
    corepool_pool_options_t lazily = {.flags = COREPOOL_POOL_LAZY | COREPOOL_POOL_PER_SHARD};
    corepool_http_options_t origin = {
        .stream = {.host = argv[2],
                   .port = (uint16_t)atoi(argv[3]),
                   .flags = COREPOOL_STREAM_ON_SHARD}}; /* a send and a recv per request */
    corepool_runtime_t *runtime;
    sigset_t signals;
    int signal;
    block_signals(&signals);
    uv_ip4_addr("0.0.0.0", atoi(argv[1]), &relay.address);
    if (corepool_runtime_start(&options, &runtime) < 0 ||
        corepool_pool_open(runtime, &corepool_http_class, &origin, CONNECTIONS, &lazily, &relay.pool) < 0 ||
        !(relay.listeners = calloc(corepool_runtime_shards(runtime), sizeof *relay.listeners)))
        return fprintf(stderr, "relay: %s\n", corepool_error_detail()), 1;
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++)
        corepool_shard_post(runtime, i, open_listener, &relay);
    sigwait(&signals, &signal);
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    corepool_runtime_destroy(runtime);
    free(relay.listeners);
    return relay.failed;
}
