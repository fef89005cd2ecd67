/* workers/http_reply.c: an HTTP/1.1 reply, parsed by http_parser, limited and checked here.
 *
 *   start ─► (1xx head)* ─► head ─► body ─► complete | failed
 *
 * The library that distributions build leaves out some of http_parser's strict checks; those that keep two
 * readers of one stream from disagreeing are made here: spaces in header names, what stands between two chunks,
 * the version, an encoding that is not chunked. Whatever fails closes the connection.
 *
 * Thread: the reply's owner. */
#include "workers/http_reply.h"

#include "base/error.h"

/* A body of known length gets so much room at once; the rest as it comes, not as it is promised. */
#define BODY_FIRST ((uint64_t)65536)

static struct cp_reply *reply_of(http_parser *parser)
{
    return parser->data;
}

/* Stops the parser: what a callback returns for it. */
static int refuse(struct cp_reply *reply, int code)
{
    reply->failure = code;
    return -1;
}

static int refuse_memory(struct cp_reply *reply)
{
    return refuse(reply, cp_fail(COREPOOL_ENOMEM, "reply: out of memory"));
}

/* Interim heads and trailers count too, so that they cannot go on for ever. */
static int count_head(struct cp_reply *reply, size_t length)
{
    if (length > reply->max_head - reply->head_seen)
        return refuse(reply,
                      cp_fail(COREPOOL_ELIMIT, "max_head: %zu: the reply's head is longer", reply->max_head));
    reply->head_seen += length;
    return 0;
}

static int on_begin(http_parser *parser)
{
    struct cp_reply *reply = reply_of(parser);
    reply->head.used = 0;
    reply->header_count = 0;
    reply->in_value = false;
    return count_head(reply, sizeof "HTTP/1.1 200\r\n\r\n" - 1);
}

static int on_status(http_parser *parser, const char *at, size_t length)
{
    (void)at; /* the reason phrase means nothing (RFC 9112, 4) */
    return count_head(reply_of(parser), length);
}

/* Ends the value under way, without the white space behind it. There is room for the zero. */
static void end_value(struct cp_reply *reply)
{
    struct cp_bytes *head = &reply->head;
    if (!reply->in_value)
        return;
    while (head->at[head->used - 1] == ' ' || head->at[head->used - 1] == '\t')
        head->used--;
    cp_bytes_put(head, "", 1);
    reply->in_value = false;
}

/* Ends the one before it; the name follows. False: out of memory. */
static bool begin_header(struct cp_reply *reply)
{
    end_value(reply);
    if (reply->header_count == reply->header_room) {
        size_t room = reply->header_room + 16;
        union cp_reply_header *headers = realloc(reply->headers, room * sizeof *headers);
        if (!headers)
            return false;
        reply->headers = headers;
        reply->header_room = (unsigned)room;
    }
    reply->headers[reply->header_count++].at.name = reply->head.used;
    return true;
}

static void begin_value(struct cp_reply *reply)
{
    cp_bytes_put(&reply->head, "", 1); /* ends the name */
    reply->headers[reply->header_count - 1].at.value = reply->head.used;
    reply->in_value = true;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
    struct cp_reply *reply = reply_of(parser);
    bool is_new = reply->in_value || reply->header_count == 0;
    if (count_head(reply, length + (is_new ? sizeof ": \r\n" - 1 : 0)) != 0)
        return -1;
    if (memchr(at, ' ', length))
        return refuse(reply, cp_fail(COREPOOL_EPROTO, "reply: a space in a header's name"));
    if (reply->headed)
        return 0; /* a trailer: counted, not kept */
    if (is_new && !begin_header(reply))
        return refuse_memory(reply);
    cp_bytes_put(&reply->head, at, length);
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
    struct cp_reply *reply = reply_of(parser);
    if (count_head(reply, length) != 0)
        return -1;
    if (reply->headed)
        return 0;
    if (!reply->in_value)
        begin_value(reply);
    cp_bytes_put(&reply->head, at, length);
    return 0;
}

static bool is_interim(const http_parser *parser)
{
    return parser->status_code < 200;
}

static bool is_bodiless(const struct cp_reply *reply, const http_parser *parser)
{
    return reply->to_head || is_interim(parser) || parser->status_code == 204 || parser->status_code == 304;
}

static int check_head(const struct cp_reply *reply, const http_parser *parser)
{
    bool chunked = parser->flags & F_CHUNKED;
    if (parser->http_major != 1)
        return cp_fail(COREPOOL_EPROTO, "reply: version %u.%u", parser->http_major, parser->http_minor);
    if (parser->status_code < 100 || parser->status_code > 599 || parser->status_code == 101)
        return cp_fail(COREPOOL_EPROTO, "reply: status %u", parser->status_code);
    if (parser->uses_transfer_encoding && (!chunked || parser->http_minor == 0))
        return cp_fail(COREPOOL_EPROTO, "reply: a transfer encoding that is not chunked, or in HTTP/1.0");
    if (!is_bodiless(reply, parser) && (parser->flags & F_CONTENTLENGTH) &&
        parser->content_length > reply->max_body)
        return cp_fail(COREPOOL_ELIMIT, "max_body: %zu: the reply's body has %llu bytes", reply->max_body,
                       (unsigned long long)parser->content_length);
    return COREPOOL_OK;
}

/* The strings no longer move: points the headers at them. */
static void index_headers(struct cp_reply *reply)
{
    const char *head = reply->head.at;
    for (union cp_reply_header *at = reply->headers; at < reply->headers + reply->header_count; at++)
        at->header = (corepool_http_header_t){.name = head + at->at.name, .value = head + at->at.value};
}

/* Returns http_parser's: 0 a body may follow, 1 none does, -1 stop. */
static int on_head(http_parser *parser)
{
    struct cp_reply *reply = reply_of(parser);
    bool bodiless = is_bodiless(reply, parser);
    uint64_t first = 0;
    int code = check_head(reply, parser);
    if (code < 0)
        return refuse(reply, code);
    if (reply->header_count > 0 && !reply->in_value)
        return refuse(reply, cp_fail(COREPOOL_EPROTO, "reply: a header without a value"));
    end_value(reply);
    if (is_interim(parser))
        return 1;
    reply->headed = true;
    if (!bodiless && (parser->flags & F_CONTENTLENGTH))
        first = parser->content_length < BODY_FIRST ? parser->content_length : BODY_FIRST;
    index_headers(reply);
    if (!cp_bytes_reserve(&reply->body, first + 1))
        return refuse_memory(reply);
    return bodiless;
}

static int on_chunk(http_parser *parser)
{
    reply_of(parser)->chunk_left = parser->content_length;
    return 0;
}

/* Compares what stands behind a chunk, as far as it has come, with the CR LF that must. */
static int check_chunk_end(struct cp_reply *reply, const char *at)
{
    for (; reply->end_due > 0 && at < reply->input_end; at++, reply->end_due--)
        if (*at != "\n\r"[reply->end_due - 1])
            return refuse(reply, cp_fail(COREPOOL_EPROTO, "reply: a chunk is longer than it says"));
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    struct cp_reply *reply = reply_of(parser);
    if (length > reply->max_body - reply->body.used)
        return refuse(reply,
                      cp_fail(COREPOOL_ELIMIT, "max_body: %zu: the reply's body is longer", reply->max_body));
    if (!cp_bytes_reserve(&reply->body, length + 1))
        return refuse_memory(reply);
    cp_bytes_put(&reply->body, at, length);
    if (!(parser->flags & F_CHUNKED))
        return 0;
    reply->chunk_left -= length;
    reply->end_due = reply->chunk_left == 0 ? 2 : 0;
    return check_chunk_end(reply, at + length);
}

static int on_complete(http_parser *parser)
{
    struct cp_reply *reply = reply_of(parser);
    if (is_interim(parser))
        return 0; /* the parser goes on to the next head */
    reply->complete = true;
    reply->reusable = http_should_keep_alive(parser);
    reply->body.at[reply->body.used] = '\0';
    reply->response = (corepool_http_response_t){
        .status = (int)parser->status_code,
        .headers = (const corepool_http_header_t *)reply->headers,
        .header_count = reply->header_count,
        .body = reply->body.at,
        .body_length = reply->body.used,
    };
    http_parser_pause(parser, 1); /* what follows is not ours to parse */
    return 0;
}

static const http_parser_settings callbacks = {
    .on_message_begin = on_begin,
    .on_status = on_status,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_chunk_header = on_chunk,
    .on_message_complete = on_complete,
};

void cp_reply_start(struct cp_reply *reply, bool to_head, size_t max_head, size_t max_body)
{
    size_t kept = offsetof(struct cp_reply, header_count);
    memset((char *)reply + kept, 0, sizeof *reply - kept);
    reply->head.used = reply->body.used = 0;
    reply->to_head = to_head;
    reply->max_head = max_head;
    reply->max_body = max_body;
    http_parser_init(&reply->parser, HTTP_RESPONSE);
    reply->parser.data = reply;
}

int cp_reply_feed(struct cp_reply *reply, const char *data, size_t length)
{
    reply->begun = true;
    reply->input_end = data + length;
    if (check_chunk_end(reply, data) != 0)
        return reply->failure;
    /* Colons and line ends make the room for the zeros; the two of an empty value may be due since before. */
    if (!reply->headed && !cp_bytes_reserve(&reply->head, length + 2))
        return cp_fail(COREPOOL_ENOMEM, "reply: out of memory");
    size_t used = http_parser_execute(&reply->parser, &callbacks, data, length);
    enum http_errno problem = HTTP_PARSER_ERRNO(&reply->parser);
    if (reply->failure)
        return reply->failure;
    if (reply->complete) {
        reply->reusable = reply->reusable && used == length;
        return COREPOOL_OK;
    }
    if (problem == HPE_HEADER_OVERFLOW)
        return cp_fail(COREPOOL_ELIMIT, "max_head: %zu: the reply's head is longer", reply->max_head);
    if (problem != HPE_OK || used != length)
        return cp_fail(COREPOOL_EPROTO, "reply: %s", http_errno_description(problem));
    return COREPOOL_PENDING;
}

int cp_reply_end(struct cp_reply *reply)
{
    http_parser_execute(&reply->parser, &callbacks, NULL, 0);
    if (reply->complete)
        return COREPOOL_OK;
    if (!reply->begun)
        return cp_fail(COREPOOL_EPEER, "the peer closed before the first byte of a reply");
    return cp_fail(COREPOOL_EPEER, "the peer closed in the middle of its reply, %zu bytes into the %s",
                   reply->headed ? reply->body.used : reply->head_seen, reply->headed ? "body" : "head");
}

void cp_reply_clear(struct cp_reply *reply, size_t keep)
{
    cp_bytes_clear(&reply->head, keep);
    cp_bytes_clear(&reply->body, keep);
    if (reply->header_room * sizeof *reply->headers > keep) {
        free(reply->headers);
        reply->headers = NULL;
        reply->header_room = 0;
    }
}

void cp_reply_finish(struct cp_reply *reply)
{
    cp_bytes_finish(&reply->head);
    cp_bytes_finish(&reply->body);
    free(reply->headers);
    *reply = (struct cp_reply){0};
}
