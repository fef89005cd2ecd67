/* corepool/http.h: ready-made workers: HTTP/1.1 client connections with keep-alive.
 *
 * One request at a time on a connection (no pipelining). A connection goes back to the pool only when its
 * reply was read to its end and both sides keep it alive; in every other case it is closed: unknown protocol
 * state means close. Replies are parsed by http_parser, with the strict checks that its packaged builds leave out. */
#ifndef COREPOOL_HTTP_H
#define COREPOOL_HTTP_H

#include <corepool/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Largest max_head: the size at which http_parser itself refuses a head. */
#define COREPOOL_HTTP_HEAD_MAX 81920

/* The class argument of corepool_http_class; must outlive the pool. Zero means the default. */
typedef struct corepool_http_options {
    corepool_stream_options_t stream; /* where to connect; COREPOOL_STREAM_QUIET is implied */
    const char *host_header;          /* default: stream.host, with the port unless it is 80; "localhost" for a path */
    size_t max_head;                  /* bytes of status line and headers, with 1xx heads and trailers; default
                                       * 65,536, at most COREPOOL_HTTP_HEAD_MAX */
    size_t max_body;                  /* bytes of body, its framing taken off; default 16 MiB */
} corepool_http_options_t;

COREPOOL_PUBLIC extern const corepool_class_t corepool_http_class;

typedef struct corepool_http_header {
    const char *name;  /* zero-terminated */
    const char *value; /* zero-terminated, without surrounding white space */
} corepool_http_header_t;

/* What to ask. Zero means the default. Nothing is kept after the (blocking) call or the start of the
 * (asynchronous) one has returned. Control characters in any part (but tabs in a value), and spaces in method,
 * path or a name, are COREPOOL_EINVAL, as is CONNECT. */
typedef struct corepool_http_request {
    const char *method; /* default "GET" */
    const char *path;   /* "/…", with query, or "*"; required */
    const corepool_http_header_t *headers; /* Host, Connection, Content-Length and Transfer-Encoding are the
                                            * library's: COREPOOL_EINVAL */
    unsigned header_count;
    const void *body;
    size_t body_length;
    int64_t pool_timeout_ms;    /* for a connection; default 5000; COREPOOL_INFINITE allowed */
    int64_t receive_timeout_ms; /* from sending to the reply's last byte, not renewed by bytes; default 15000;
                                 * COREPOOL_INFINITE allowed */
} corepool_http_request_t;

typedef struct corepool_http_response {
    int status; /* 200 … 599; 1xx are skipped */
    const corepool_http_header_t *headers; /* as they came; trailers are not among them */
    unsigned header_count;
    const char *body; /* without its framing; also zero-terminated */
    size_t body_length;
} corepool_http_response_t;

/* Fetches `path` (as GET) over a connection of `pool`. Thread: any but a shard. Blocks up to pool plus receive timeout.
 * On COREPOOL_OK *response is the caller's, to be freed with corepool_http_response_free. Else *response is NULL:
 * corepool_checkout's codes, COREPOOL_ETIMEDOUT (the detail says in which phase), COREPOOL_EPEER,
 * COREPOOL_EPROTO, COREPOOL_ELIMIT, COREPOOL_EINVAL, COREPOOL_ENOMEM. A GET or HEAD on a reused connection that the
 * peer closes before the first byte of a reply is sent once more over another connection (RFC 9112, 9.3.1):
 * the peer may close an idle connection at any time. */
COREPOOL_PUBLIC int corepool_http_get(corepool_pool_t pool, const char *path, corepool_http_response_t **response);

/* The same for any request. */
COREPOOL_PUBLIC int corepool_http_perform(corepool_pool_t pool, const corepool_http_request_t *request,
                                          corepool_http_response_t **response);

/* NULL is allowed. */
COREPOOL_PUBLIC void corepool_http_response_free(corepool_http_response_t *response);

/* The value of a header, its name in any case; NULL when there is none. */
COREPOOL_PUBLIC const char *corepool_http_response_header(const corepool_http_response_t *response, const char *name);

/* Gets the outcome, once. `response` (NULL unless COREPOOL_OK) is valid during the call only. The connection is back in
 * the pool (or closed) when it runs, so that a request made from here may have it. */
typedef void (*corepool_http_cb)(int status, const corepool_http_response_t *response, void *arg);

/* The asynchronous form: same outcomes, same single repetition. Thread: a shard; the callback runs there, possibly before
 * this returns. COREPOOL_OK: the callback ran or will run; COREPOOL_ETHREAD, COREPOOL_EINVAL, COREPOOL_ENOMEM,
 * COREPOOL_ECLOSED, COREPOOL_EOVERLOAD: it will not. In steady state it allocates nothing, and on a pool with
 * COREPOOL_STREAM_ON_SHARD it costs one send(2) and one recv(2). */
COREPOOL_PUBLIC int corepool_http_perform_async(corepool_pool_t pool, const corepool_http_request_t *request,
                                                corepool_http_cb cb, void *arg);

#ifdef __cplusplus
}
#endif
#endif
