/* workers/http.h: what the parts of the HTTP client share: a slice's settings, a connection, a call.
 *
 * Thread: settings are fixed once the pool is open; a connection is its holder's; a call is its caller's. */
#ifndef CP_WORKERS_HTTP_H
#define CP_WORKERS_HTTP_H

#include "workers/http_reply.h"
#include "workers/stream.h"

/* The pool state of a slice: its options, resolved. */
struct cp_http_settings {
    const corepool_http_options_t *options;
    unsigned flags; /* of the stream: QUIET with what the options say */
    size_t max_head, max_body;
    size_t host_line_length;
    char host_line[]; /* "Host: …\r\n" */
};

struct cp_http_connection {
    struct cp_stream stream; /* first: it is what the shard knows */
    const struct cp_http_settings *settings;
    uint64_t served; /* replies read to their end */
};

/* One request and its reply, in buffers that are used again: calls come from a cache of the thread. */
struct cp_http_call {
    struct cp_reply reply; /* first: a response leads back to its call */
    struct cp_http_call *next_free;
    /* The request, as composed. */
    struct cp_bytes head; /* request line and headers, with the empty line */
    size_t line_length;   /* where Host goes in, once the first connection is known */
    bool has_host;
    struct cp_bytes copy; /* of the body, when it must outlive the caller's */
    const char *body;
    size_t body_length;
    bool to_head;    /* HEAD */
    bool repeatable; /* GET or HEAD: may be sent again when the peer closed an idle connection */
    int64_t pool_timeout_ms, receive_timeout_ms;
    /* One try of it. */
    const struct cp_http_connection *connection;
    size_t sent;     /* of head and body together */
    bool deaf;       /* the peer takes no more of the request, but may still say why */
    bool was_reused; /* the connection had served before */
    /* The asynchronous form's. */
    corepool_pool_t pool;
    corepool_lease_t lease;
    corepool_http_cb cb;
    void *arg;
    int64_t deadline_ns; /* of receiving */
    int64_t pool_deadline_ns;
    bool retried;
};

/* http_call.c: the thread's cache. NULL: out of memory, with detail. */
struct cp_http_call *cp_http_call_take(void);
void cp_http_call_give(struct cp_http_call *call); /* NULL is allowed */

/* http_request.c: checks and serialises. `keep_body`: copy it. COREPOOL_OK, COREPOOL_EINVAL,
 * COREPOOL_ENOMEM. */
int cp_http_compose(struct cp_http_call *call, const corepool_http_request_t *request, bool keep_body);

/* http_request.c: pieces of a head. False: out of memory. */
bool cp_http_put_line(struct cp_bytes *head, const char *name, size_t name_length, const char *value);
bool cp_http_put_length(struct cp_bytes *head, size_t length);

/* http_exchange.c: one try over one connection, never blocking. COREPOOL_PENDING: the socket has to become
 * writable (send), readable (receive); COREPOOL_OK: all sent; the reply is complete; negative with detail. Begin:
 * COREPOOL_OK; COREPOOL_ENOMEM: the connection is as it was. */
int cp_http_begin(struct cp_http_call *call, const struct cp_http_connection *connection);
bool cp_http_is_sent(const struct cp_http_call *call);
int cp_http_send(struct cp_http_call *call);
int cp_http_receive(struct cp_http_call *call);

/* The detail for a call that ran out of receive time: in which phase, and how far. Returns
 * COREPOOL_ETIMEDOUT. */
int cp_http_timed_out(const struct cp_http_call *call);

/* Whether a failure is only that of a stale connection, so that the call may be tried over another one. */
bool cp_http_may_retry(const struct cp_http_call *call, int status);

/* Ends the lease as the outcome demands; *lease is zeroed. Holder. */
void cp_http_end_lease(struct cp_http_call *call, corepool_lease_t *lease, int status);

#endif
