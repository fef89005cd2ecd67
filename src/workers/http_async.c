/* workers/http_async.c: the asynchronous client. Thread: a shard, from the call to its callback.
 *
 *   composed ─► waiting for a connection ─► exchanging ─► lease ended ─► callback ─► cached
 *                        ▲                                    │ a stale connection, the first time
 *                        └────────────────────────────────────┘
 *
 * The connection is back in the pool before the callback runs, so that a request made there finds it. On an
 * ON_SHARD pool a request costs one send and one recv: the loop watches the socket anyway. */
#include "workers/http.h"

#include "base/clock.h"
#include "base/error.h"

static int ask_for_connection(struct cp_http_call *call);

/* The only end of a call that was accepted. The detail is set when status is negative. */
static void complete(struct cp_http_call *call, int status)
{
    call->cb(status, status < 0 ? NULL : &call->reply.response, call->arg);
    cp_http_call_give(call);
}

static void end_exchange(struct cp_http_call *call, int status)
{
    bool retry = cp_http_may_retry(call, status) && !call->retried;
    cp_stream_unwatch(call->lease.resource);
    cp_http_end_lease(call, &call->lease, status);
    if (!retry) {
        complete(call, status);
        return;
    }
    call->retried = true;
    status = ask_for_connection(call);
    if (status < 0)
        complete(call, status);
}

static int watch(struct cp_http_call *call, bool unsent);

static void on_ready(int events, void *arg)
{
    struct cp_http_call *call = arg;
    bool was_sent = cp_http_is_sent(call);
    int code = events & UV_WRITABLE ? cp_http_send(call) : COREPOOL_OK;
    if (code < 0) {
        end_exchange(call, code);
        return;
    }
    /* At the deadline too: after a stall of the loop the reply may lie in the socket. */
    code = events & UV_READABLE || events == 0 ? cp_http_receive(call) : COREPOOL_PENDING;
    if (code == COREPOOL_PENDING && events == 0)
        code = cp_http_timed_out(call);
    if (code == COREPOOL_PENDING && !was_sent && cp_http_is_sent(call))
        code = watch(call, false) < 0 ? COREPOOL_ESYSTEM : COREPOOL_PENDING;
    if (code != COREPOOL_PENDING)
        end_exchange(call, code);
}

static int watch(struct cp_http_call *call, bool unsent)
{
    return cp_stream_watch(call->lease.resource, unsent ? UV_READABLE | UV_WRITABLE : UV_READABLE, on_ready,
                           call);
}

static void begin_exchange(struct cp_http_call *call)
{
    int code = cp_http_begin(call, call->lease.resource);
    if (code < 0) {
        (void)corepool_checkin(&call->lease);
        complete(call, code);
        return;
    }
    code = cp_http_send(call);
    if (code >= 0)
        code = watch(call, code == COREPOOL_PENDING);
    if (code < 0) {
        end_exchange(call, code);
        return;
    }
    if (call->deadline_ns == 0)
        call->deadline_ns = cp_deadline_ns(cp_now_ns(), call->receive_timeout_ms);
    cp_stream_set_deadline(call->lease.resource, call->deadline_ns);
}

static void on_connection(int status, const corepool_lease_t *lease, void *arg)
{
    struct cp_http_call *call = arg;
    if (status < 0) {
        complete(call, status);
        return;
    }
    call->lease = *lease;
    if (cp_stream_of(lease, &corepool_http_class)) {
        begin_exchange(call);
        return;
    }
    (void)corepool_checkin(&call->lease);
    complete(call, COREPOOL_EINVAL);
}

static int ask_for_connection(struct cp_http_call *call)
{
    corepool_checkout_options_t options = {.timeout_ms = call->pool_timeout_ms};
    if (call->retried)
        options.timeout_ms = cp_left_ms(call->pool_deadline_ns, cp_now_ns());
    if (options.timeout_ms == 0)
        options.timeout_ms = 1; /* zero would be the default */
    return corepool_checkout_async(call->pool, &options, on_connection, call, NULL);
}

int corepool_http_perform_async(corepool_pool_t pool, const corepool_http_request_t *request,
                                corepool_http_cb cb, void *arg)
{
    corepool_shard_t *here = corepool_shard_current();
    if (!here)
        return cp_fail(COREPOOL_ETHREAD, "asynchronous requests run on a shard: post to one");
    if (!cb)
        return cp_fail(COREPOOL_EINVAL, "cb: NULL");
    struct cp_http_call *call = cp_http_call_take();
    if (!call)
        return COREPOOL_ENOMEM;
    int code = cp_http_compose(call, request, true);
    if (code == COREPOOL_OK) {
        /* The shard's own slice, also while the shard is off its CPU: connections may be for their shard only.
         */
        call->pool =
            pool.shard == COREPOOL_SHARD_LOCAL ? corepool_pool_at(pool, corepool_shard_index(here)) : pool;
        call->cb = cb;
        call->arg = arg;
        call->deadline_ns = 0;
        call->retried = false;
        call->pool_deadline_ns = cp_deadline_ns(cp_now_ns(), call->pool_timeout_ms);
        code = ask_for_connection(call);
    }
    if (code < 0)
        cp_http_call_give(call);
    return code;
}
