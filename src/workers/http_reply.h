/* workers/http_reply.h: an HTTP/1.1 reply, from bytes to a response. Thread: its owner's. */
#ifndef CP_WORKERS_HTTP_REPLY_H
#define CP_WORKERS_HTTP_REPLY_H

#include <http_parser.h>

#include <corepool/http.h>

#include "workers/bytes.h"

/* While the head may still move a header is known by where its parts begin in it. */
union cp_reply_header {
    struct {
        size_t name, value;
    } at;
    corepool_http_header_t header;
};
_Static_assert(sizeof(union cp_reply_header) == sizeof(corepool_http_header_t),
               "an array of one is one of the other");

/* Zero is a reply that was never used; its buffers serve one reply after the other. */
struct cp_reply {
    corepool_http_response_t response; /* first: what the caller gets to see, once it is complete */
    http_parser parser;
    struct cp_bytes head; /* names and values, each zero-terminated */
    struct cp_bytes body;
    union cp_reply_header *headers; /* room for header_room */
    unsigned header_room;

    /* Of the one reply: zero before it, from here to the end. */
    unsigned header_count;
    size_t max_head, max_body;
    size_t head_seen;      /* bytes of all heads and trailers so far */
    uint64_t chunk_left;   /* bytes of the chunk under way */
    unsigned end_due;      /* bytes of its CR LF that are still to come */
    const char *input_end; /* of the bytes that are being parsed */
    int failure;           /* why a callback stopped the parser */
    bool to_head;          /* it answers a HEAD */
    bool in_value, headed; /* last header part; the final head is complete */
    bool begun;            /* at least one byte came */
    bool complete;
    bool reusable; /* read to its end, kept alive by the peer, nothing behind it */
};

/* Before each reply. */
void cp_reply_start(struct cp_reply *reply, bool to_head, size_t max_head, size_t max_body);

/* The next `length` ≥ 1 bytes. COREPOOL_OK: complete, reply->response is filled in; COREPOOL_PENDING: more must
 * come; COREPOOL_EPROTO, COREPOOL_ELIMIT, COREPOOL_ENOMEM with detail. */
int cp_reply_feed(struct cp_reply *reply, const char *data, size_t length);

/* The peer has closed. COREPOOL_OK: which completes it; else COREPOOL_EPEER with detail. */
int cp_reply_end(struct cp_reply *reply);

/* Empties it, keeping up to `keep` bytes of each buffer's room. */
void cp_reply_clear(struct cp_reply *reply, size_t keep);

void cp_reply_finish(struct cp_reply *reply);

#endif
