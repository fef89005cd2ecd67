/* corepool/http_relay.h: what passing HTTP/1.1 on takes besides corepool/http.h: a shard's own listener and its
 * clients; and, for programs that have sockets of their own, a client's request, parsed where it lies, and the
 * reply, framed anew.
 *
 * Headers for one hop end at the relay (RFC 9110, 7.6.1), and each side sees one framing only, the library's.
 * Thread: a shard, and what was opened there stays there; exceptions are marked. Never blocks. */
#ifndef COREPOOL_HTTP_RELAY_H
#define COREPOOL_HTTP_RELAY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <corepool/http.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a shard's clients ---- */

/* Largest request of a listener's client, head and body. */
#define COREPOOL_HTTP_LISTENER_REQUEST_MAX 32768

typedef struct corepool_http_listener corepool_http_listener_t;

/* One client's request that has to be answered. */
typedef struct corepool_http_exchange corepool_http_exchange_t;

/* Gets each request, on the listener's shard; a client's next one when this is answered. `request` stays valid
 * until it is: exactly once, by corepool_http_exchange_reply, from here or later. It may be given to
 * corepool_http_perform_async as it is. */
typedef void (*corepool_http_serve_cb)(corepool_http_exchange_t *exchange,
                                       const corepool_http_request_t *request, void *arg);

/* Listens at `address` on the calling shard's loop. Each shard may: the kernel spreads the clients
 * (SO_REUSEPORT), and a client stays with its shard. What is not a request is answered with 400, and its client
 * hung up on. Who comes while there is no descriptor for it waits until there is one. COREPOOL_OK: *listener is to
 * be closed, in the runtime's on_stop at the latest. COREPOOL_EINVAL, COREPOOL_ETHREAD, COREPOOL_ENOMEM,
 * COREPOOL_ESYSTEM with detail: *listener is NULL. */
COREPOOL_PUBLIC int corepool_http_listener_open(const struct sockaddr *address, corepool_http_serve_cb serve,
                                                void *arg, corepool_http_listener_t **listener);

#define COREPOOL_HTTP_LISTENER_IDLE_MS 60000
#define COREPOOL_HTTP_LISTENER_REQUEST_MS 15000
#define COREPOOL_HTTP_LISTENER_REPLY_MS 60000

/* After what time a client is hung up on; bytes do not renew it. Zero means the default, COREPOOL_INFINITE: never;
 * up to a year. Looked at eight times in the shortest, and each second at least. */
typedef struct corepool_http_listener_limits {
    int64_t idle_ms;    /* without a request; default COREPOOL_HTTP_LISTENER_IDLE_MS */
    int64_t request_ms; /* from a request's first byte to its last; default COREPOOL_HTTP_LISTENER_REQUEST_MS */
    int64_t reply_ms;   /* to take a reply; default COREPOOL_HTTP_LISTENER_REPLY_MS */
} corepool_http_listener_limits_t;

/* Sets the limits, also for the clients that there are. Without it all are the defaults. COREPOOL_OK;
 * COREPOOL_EINVAL (the detail names the field): they are as before. */
COREPOOL_PUBLIC int corepool_http_listener_limit(corepool_http_listener_t *listener,
                                                 const corepool_http_listener_limits_t *limits);

/* Takes no more clients and hangs up on those that there are; on one whose request is being served when that is
 * answered: it still has to be. No callback comes afterwards; *listener must not be used afterwards. NULL is
 * allowed. */
COREPOOL_PUBLIC void corepool_http_listener_close(corepool_http_listener_t *listener);

/* Answers, as corepool_http_incoming_reply writes it; `response` is not needed afterwards. Goes out at once, or
 * as the client takes it. NULL, or no memory: the client is hung up on. The exchange must not be used
 * afterwards. */
COREPOOL_PUBLIC void corepool_http_exchange_reply(corepool_http_exchange_t *exchange,
                                                  const corepool_http_response_t *response);

/* ---- the parts of it: any thread, each struct its owner's ---- */

/* Most headers of a client's request. */
#define COREPOOL_HTTP_INCOMING_HEADERS_MAX 100

/* A client's request. Begins as zero, then serves all requests of that client, one after the other. */
typedef struct corepool_http_incoming {
    /* Valid once it is complete, until the next is parsed. Strings and body are pieces of the input; host and
     * framing, and what is for one hop, are not among the headers. May be given to corepool_http_perform_async
     * as it is. */
    corepool_http_request_t request;
    bool keep_alive; /* the client's connection serves on after the reply; the program may clear it */

    /* The library's own. */
    bool under_way, complete, in_name;
    int failure;
    unsigned count;
    size_t parsed;
    char *input;
    const char *path_end, *piece_end;
    uint64_t parser[4];
    corepool_http_header_t headers[COREPOOL_HTTP_INCOMING_HEADERS_MAX];
} corepool_http_incoming_t;

/* Parses on. `input` begins where the request does and holds `length` bytes by now; those that an earlier call
 * has seen of this request must have stayed as and where they are. Each byte is looked at once; bytes of a
 * request are written to. Returns the request's length when it is complete: the next call begins the next
 * request, and what lies behind is that one's. 0: more must come. COREPOOL_EPROTO: not an HTTP/1.x request to
 * an origin, or one that two readers may understand differently: a transfer encoding, a folded or unfinished
 * line, a length or a host said twice; COREPOOL_ELIMIT: more headers than COREPOOL_HTTP_INCOMING_HEADERS_MAX,
 * or a head longer than COREPOOL_HTTP_HEAD_MAX; both with detail. After an error there is no telling where a
 * next request would begin: the client can still be told, then its connection is to be closed; every further
 * call returns the same. */
COREPOOL_PUBLIC ssize_t corepool_http_incoming_parse(corepool_http_incoming_t *incoming, char *input,
                                                     size_t length);

/* Writes `response` as the reply to `incoming` (complete or failed): without what is for one hop, with
 * Content-Length as its only framing, without a body where the request or the status forbids it, with
 * Connection: close unless it is kept alive. Names and values must be free of CR and LF, as those of a response
 * from this library are. *output (NULL or from malloc, with *room bytes) grows as it must by realloc and stays
 * the caller's. Returns the reply's length; COREPOOL_ENOMEM: *output has no reply. Both calls: COREPOOL_EINVAL
 * for a NULL. */
COREPOOL_PUBLIC ssize_t corepool_http_incoming_reply(const corepool_http_incoming_t *incoming,
                                                     const corepool_http_response_t *response, char **output,
                                                     size_t *room);

#ifdef __cplusplus
}
#endif
#endif
