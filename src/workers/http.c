/* workers/http.c: the worker class of HTTP/1.1 client connections: a stream that knows its Host.
 *
 * The states are the stream's. Thread: the shard; settings are read by every holder and never change. */
#include "workers/http.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define MAX_HEAD_DEFAULT 65536
#define MAX_BODY_DEFAULT (16u << 20)
#define HTTP_PORT 80

static int check_options(const corepool_http_options_t *options)
{
    unsigned known = COREPOOL_STREAM_QUIET | COREPOOL_STREAM_ON_SHARD;
    if (!options)
        return cp_fail(COREPOOL_EINVAL, "arg: NULL: the http options are required");
    int code = cp_dial_check(&options->stream);
    if (code < 0)
        return code;
    if (options->stream.flags & ~known)
        return cp_fail(COREPOOL_EINVAL, "flags: %#x: unknown", options->stream.flags & ~known);
    if (options->max_head > COREPOOL_HTTP_HEAD_MAX)
        return cp_fail(COREPOOL_EINVAL, "max_head: %zu: must be at most %d", options->max_head,
                       COREPOOL_HTTP_HEAD_MAX);
    if (options->max_body > SIZE_MAX / 4)
        return cp_fail(COREPOOL_EINVAL, "max_body: %zu: too large", options->max_body);
    for (const char *at = options->host_header; at && *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return cp_fail(COREPOOL_EINVAL, "host_header: a space or control character");
    return COREPOOL_OK;
}

/* Returns the length that it has or would have, as snprintf. */
static int format_host_line(const corepool_http_options_t *options, char *line, size_t room)
{
    const char *host = options->stream.host;
    bool bare_v6 = host && strchr(host, ':');
    char port[8] = "";
    if (options->host_header)
        return snprintf(line, room, "Host: %s\r\n", options->host_header);
    if (!host)
        return snprintf(line, room, "Host: localhost\r\n");
    if (options->stream.port != HTTP_PORT)
        snprintf(port, sizeof port, ":%u", options->stream.port);
    return snprintf(line, room, "Host: %s%s%s%s\r\n", bare_v6 ? "[" : "", host, bare_v6 ? "]" : "", port);
}

static int open_slice(void *arg, corepool_shard_t *shard, void **pool_state)
{
    const corepool_http_options_t *options = arg;
    (void)shard;
    int code = check_options(options);
    if (code < 0)
        return code;
    size_t length = (size_t)format_host_line(options, NULL, 0);
    struct cp_http_settings *settings = calloc(1, sizeof *settings + length + 1);
    if (!settings)
        return cp_fail(COREPOOL_ENOMEM, "http: out of memory");
    settings->options = options;
    settings->flags = options->stream.flags | COREPOOL_STREAM_QUIET;
    settings->max_head = options->max_head ? options->max_head : MAX_HEAD_DEFAULT;
    settings->max_body = options->max_body ? options->max_body : MAX_BODY_DEFAULT;
    settings->host_line_length = length;
    format_host_line(options, settings->host_line, length + 1);
    *pool_state = settings;
    return COREPOOL_OK;
}

static void close_slice(void *pool_state, corepool_reason_t reason)
{
    (void)reason;
    free(pool_state);
}

static int connect_http(corepool_worker_t *worker, void *pool_state, void **resource)
{
    const struct cp_http_settings *settings = pool_state;
    (void)resource; /* given when it is ready */
    int code =
        cp_stream_open(worker, &settings->options->stream, settings->flags, sizeof(struct cp_http_connection));
    if (code == COREPOOL_PENDING)
        ((struct cp_http_connection *)corepool_worker_context(worker))->settings = settings;
    return code;
}

const corepool_class_t corepool_http_class = {
    .name = "http",
    .pool_init = open_slice,
    .pool_terminate = close_slice,
    .init = connect_http,
    .init_cancel = cp_stream_cancel,
    .checkout = cp_stream_checkout,
    .checkin = cp_stream_checkin,
    .terminate = cp_stream_terminate,
};
