/* workers/http_client.c: the blocking client, and what a response can be asked. Thread: any but a shard.
 *
 *   checkout ─► exchange, waiting with poll(2) ─► lease ended ─► done
 *      ▲                                              │ a stale connection, the first time
 *      └──────────────────────────────────────────────┘ */
#include "workers/http.h"

#include <poll.h>
#include <strings.h>

#include "base/clock.h"
#include "base/error.h"

static int exchange(struct cp_http_call *call, int64_t deadline_ns)
{
    const struct cp_stream *stream = &call->connection->stream;
    for (;;) {
        int code = cp_http_send(call);
        if (code < 0)
            return code;
        code = cp_stream_await(stream, code == COREPOOL_PENDING ? POLLIN | POLLOUT : POLLIN, deadline_ns);
        if (code == COREPOOL_ETIMEDOUT)
            return cp_http_timed_out(call);
        if (code < 0)
            return code;
        code = cp_http_receive(call);
        if (code != COREPOOL_PENDING)
            return code;
        if (cp_now_ns() >= deadline_ns) /* a peer that always has a byte more must not hold us */
            return cp_http_timed_out(call);
    }
}

/* One checkout, one exchange. *receive_deadline is set by the first and kept by a second. */
static int try_once(corepool_pool_t pool, struct cp_http_call *call, int64_t pool_deadline,
                    int64_t *receive_deadline)
{
    corepool_checkout_options_t options = {.timeout_ms = cp_left_ms(pool_deadline, cp_now_ns())};
    corepool_lease_t lease;
    if (options.timeout_ms == 0)
        options.timeout_ms = 1; /* zero would be the default */
    int code = corepool_checkout(pool, &options, &lease);
    if (code < 0)
        return code;
    if (!cp_stream_of(&lease, &corepool_http_class)) {
        (void)corepool_checkin(&lease);
        return COREPOOL_EINVAL;
    }
    if (*receive_deadline == 0)
        *receive_deadline = cp_deadline_ns(cp_now_ns(), call->receive_timeout_ms);
    code = cp_http_begin(call, lease.resource);
    if (code < 0) {
        (void)corepool_checkin(&lease);
        return code;
    }
    code = exchange(call, *receive_deadline);
    cp_http_end_lease(call, &lease, code);
    return code;
}

int corepool_http_perform(corepool_pool_t pool, const corepool_http_request_t *request,
                          corepool_http_response_t **response)
{
    int64_t receive_deadline = 0;
    if (!response)
        return cp_fail(COREPOOL_EINVAL, "response: NULL");
    *response = NULL;
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "a shard cannot block on a reply: use corepool_http_perform_async");
    struct cp_http_call *call = cp_http_call_take();
    if (!call)
        return COREPOOL_ENOMEM;
    int code = cp_http_compose(call, request, false);
    if (code == COREPOOL_OK) {
        int64_t pool_deadline = cp_deadline_ns(cp_now_ns(), call->pool_timeout_ms);
        code = try_once(pool, call, pool_deadline, &receive_deadline);
        if (cp_http_may_retry(call, code))
            code = try_once(pool, call, pool_deadline, &receive_deadline);
    }
    if (code < 0)
        cp_http_call_give(call);
    else
        *response = &call->reply.response;
    return code;
}

int corepool_http_get(corepool_pool_t pool, const char *path, corepool_http_response_t **response)
{
    corepool_http_request_t request = {.path = path};
    return corepool_http_perform(pool, &request, response);
}

void corepool_http_response_free(corepool_http_response_t *response)
{
    cp_http_call_give((struct cp_http_call *)response);
}

const char *corepool_http_response_header(const corepool_http_response_t *response, const char *name)
{
    for (unsigned i = 0; response && name && i < response->header_count; i++)
        if (!strcasecmp(response->headers[i].name, name))
            return response->headers[i].value;
    return NULL;
}
