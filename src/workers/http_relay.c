/* workers/http_relay.c: a client's request, parsed where it lies; the reply to it, framed anew.
 *
 *   zero ─► under way ─► complete ─► under way (the next) …
 *               └──────► failed
 *
 * http_parser reads on where it stopped, so its state is kept from call to call; the rest of what an incoming
 * request knows are pieces of the input. A piece is ended, by a zero in the input, only when the parser is past
 * the byte behind it. What http_parser lets pass although other readers may see it differently is refused here:
 * line ends without CR, folded lines, spaces in names, transfer encodings, no Host or several. Thread: the
 * request's owner. */
#include <corepool/http_relay.h>

#include <http_parser.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "workers/http.h"

/* Status line, framing and the end of the head: the lines of a reply that are ours. */
#define OWN_LINES_BYTES 256

_Static_assert(sizeof(http_parser) <= sizeof((corepool_http_incoming_t *)0)->parser,
               "a place for the parser's state");

/* ---- headers for one hop ---- */

/* The first letters differ for nearly all others: no call. */
static inline bool is(const char *name, const char *text)
{
    return ((name[0] ^ text[0]) & ~0x20) == 0 && !strcasecmp(name, text);
}

static bool is_connection(const char *name)
{
    return (name[0] | 0x20) == 'c' && name[1] && name[2] && (name[3] | 0x20) == 'n' && /* no Content-… */
           !strcasecmp(name, "Connection");
}

/* The standard's, and those that are set anew. */
static bool is_for_hop(const char *name, size_t length)
{
    switch (length) {
    case 2: return is(name, "TE");
    case 4: return is(name, "Host");
    case 7: return is(name, "Upgrade");
    case 10: return is(name, "Connection") || is(name, "Keep-Alive");
    case 14: return is(name, "Content-Length");
    case 16: return is(name, "Proxy-Connection");
    case 17: return is(name, "Transfer-Encoding");
    case 18: return is(name, "Proxy-Authenticate");
    case 19: return is(name, "Proxy-Authorization");
    default: return false;
    }
}

/* The first Connection that names more than the usual words; `count`: there is none. */
static unsigned first_nominating(const corepool_http_header_t *headers, unsigned count)
{
    unsigned i = 0;
    while (i < count && (!is_connection(headers[i].name) || !strcasecmp(headers[i].value, "keep-alive") ||
                         !strcasecmp(headers[i].value, "close")))
        i++;
    return i;
}

static bool lists(const char *list, const char *name, size_t length)
{
    for (const char *at = list; (at = strcasestr(at, name)); at += length)
        if ((at == list || strchr(", \t", at[-1])) && strchr(", \t", at[length])) /* its end too */
            return true;
    return false;
}

/* `from`: what first_nominating said. */
static bool is_nominated(const corepool_http_header_t *headers, unsigned count, unsigned from, const char *name,
                         size_t length)
{
    for (unsigned i = from; i < count; i++)
        if (is_connection(headers[i].name) && lists(headers[i].value, name, length))
            return true;
    return false;
}

static inline bool is_forwarded(const corepool_http_header_t *headers, unsigned count, unsigned from,
                                const char *name, size_t length)
{
    return !is_for_hop(name, length) && (from == count || !is_nominated(headers, count, from, name, length));
}

/* ---- the request ---- */

/* Stops the parser: what a callback returns for it. */
static int refuse(http_parser *parser, const char *why)
{
    corepool_http_incoming_t *incoming = parser->data;
    incoming->failure = cp_fail(COREPOOL_EPROTO, "request: %s", why);
    return -1;
}

static void put_end(corepool_http_incoming_t *incoming, const char *end)
{
    incoming->input[end - incoming->input] = '\0';
}

/* The last header, whose value is known to its end, without the white space behind it. */
static void end_header(corepool_http_incoming_t *incoming)
{
    if (incoming->count == 0)
        return;
    const corepool_http_header_t *header = &incoming->headers[incoming->count - 1];
    const char *end = incoming->piece_end;
    while (end > header->value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (end > header->value) /* else it is "" and no piece of the input */
        put_end(incoming, end);
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (memchr(at, '\t', length) || memchr(at, '\f', length) || memchr(at, '#', length))
        return refuse(parser, "a character that no path has");
    if (!incoming->request.path)
        incoming->request.path = at;
    incoming->path_end = at + length;
    return 0;
}

static int begin_header(http_parser *parser, const char *at)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (memcmp(at - 2, "\r\n", 2) != 0)
        return refuse(parser, "a line that ends otherwise than in CR LF");
    end_header(incoming);
    if (incoming->count == COREPOOL_HTTP_INCOMING_HEADERS_MAX) {
        incoming->failure =
            cp_fail(COREPOOL_ELIMIT, "request: more than %d headers", COREPOOL_HTTP_INCOMING_HEADERS_MAX);
        return -1;
    }
    incoming->headers[incoming->count++] = (corepool_http_header_t){.name = at};
    incoming->in_name = true;
    return 0;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (memchr(at, ' ', length))
        return refuse(parser, "a space in a header's name");
    if (!incoming->in_name && begin_header(parser, at) != 0)
        return -1;
    incoming->piece_end = at + length;
    return 0;
}

/* An empty value comes as no bytes at the begin of the next line, or of what http_parser takes for it. */
static int begin_value(http_parser *parser, const char *at, size_t length)
{
    corepool_http_incoming_t *incoming = parser->data;
    const char *gap = incoming->piece_end + 1; /* behind the colon */
    while (*gap == ' ' || *gap == '\t')
        gap++;
    if (length > 0 ? gap != at : gap + 2 != at || memcmp(gap, "\r\n", 2) != 0)
        return refuse(parser, "a folded line");
    put_end(incoming, incoming->piece_end);
    incoming->headers[incoming->count - 1].value = length > 0 ? at : "";
    incoming->in_name = false;
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (!incoming->in_name && at != incoming->piece_end)
        return refuse(parser, "a folded line");
    if (incoming->in_name && begin_value(parser, at, length) != 0)
        return -1;
    incoming->piece_end = at + length;
    return 0;
}

/* One space on either side, which http_parser does not count; and it knows other protocols. */
static bool is_one_line(const corepool_http_incoming_t *incoming)
{
    const char *path = incoming->request.path;
    return path[-2] != ' ' && memcmp(incoming->path_end, " HTTP/", 6) == 0;
}

static bool is_to_origin(const corepool_http_incoming_t *incoming)
{
    const char *path = incoming->request.path;
    return *path == '/' || (*path == '*' && incoming->path_end == path + 1);
}

static int on_head(http_parser *parser)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (parser->http_major != 1 || !is_one_line(incoming))
        return refuse(parser, "not HTTP/1.x");
    if (parser->uses_transfer_encoding)
        return refuse(parser, "a transfer encoding");
    if (parser->method == HTTP_CONNECT || !is_to_origin(incoming))
        return refuse(parser, "not one to an origin");
    if (incoming->in_name)
        return refuse(parser, "a header without a value");
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    corepool_http_incoming_t *incoming = parser->data;
    if (!incoming->request.body)
        incoming->request.body = at;
    incoming->request.body_length += length;
    return 0;
}

static int on_complete(http_parser *parser)
{
    corepool_http_incoming_t *incoming = parser->data;
    incoming->complete = true;
    http_parser_pause(parser, 1); /* what follows is the next request */
    return 0;
}

static const http_parser_settings callbacks = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* Returns how many of them were Host. */
static unsigned leave_out_hops(corepool_http_incoming_t *incoming)
{
    bool forwarded[COREPOOL_HTTP_INCOMING_HEADERS_MAX]; /* decided for all before the first is moved */
    corepool_http_header_t *headers = incoming->headers;
    unsigned kept = 0, hosts = 0, from = first_nominating(headers, incoming->count);
    for (unsigned i = 0; i < incoming->count; i++) {
        bool is_host = is(headers[i].name, "Host");
        hosts += is_host;
        forwarded[i] =
            !is_host && is_forwarded(headers, incoming->count, from, headers[i].name, strlen(headers[i].name));
    }
    for (unsigned i = 0; i < incoming->count; i++)
        if (forwarded[i])
            headers[kept++] = headers[i];
    incoming->request.headers = headers;
    incoming->request.header_count = kept;
    return hosts;
}

/* The parser has seen it all. Checks what needs the whole, and makes strings of the last pieces. */
static int finish_request(corepool_http_incoming_t *incoming, http_parser *parser)
{
    const char *head_end = incoming->request.body ? incoming->request.body : incoming->input + incoming->parsed;
    if (memcmp(head_end - 4, "\r\n\r\n", 4) != 0)
        return refuse(parser, "a line that ends without CR");
    end_header(incoming);
    put_end(incoming, incoming->path_end);
    unsigned hosts = leave_out_hops(incoming);
    if (hosts > 1 || (hosts == 0 && parser->http_minor > 0))
        return refuse(parser, "not one Host");
    incoming->request.method = http_method_str((enum http_method)parser->method);
    incoming->keep_alive = http_should_keep_alive(parser);
    incoming->under_way = false;
    return 0;
}

static void begin_request(corepool_http_incoming_t *incoming, http_parser *parser, char *input)
{
    http_parser_init(parser, HTTP_REQUEST);
    incoming->request = (corepool_http_request_t){0};
    incoming->under_way = true;
    incoming->keep_alive = incoming->complete = incoming->in_name = false;
    incoming->count = 0;
    incoming->parsed = 0;
    incoming->input = input;
}

static int fail_parsing(corepool_http_incoming_t *incoming, const http_parser *parser)
{
    enum http_errno problem = HTTP_PARSER_ERRNO(parser);
    incoming->request = (corepool_http_request_t){0};
    if (!incoming->failure)
        incoming->failure = cp_fail(problem == HPE_HEADER_OVERFLOW ? COREPOOL_ELIMIT : COREPOOL_EPROTO,
                                    "request: %s", http_errno_description(problem));
    return incoming->failure;
}

ssize_t corepool_http_incoming_parse(corepool_http_incoming_t *incoming, char *input, size_t length)
{
    http_parser parser;
    if (!incoming || !input)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL", incoming ? "input" : "incoming");
    if (incoming->failure)
        return cp_fail(incoming->failure, "request: the client has broken the protocol before");
    if (length <= (incoming->under_way ? incoming->parsed : 0))
        return 0;
    if (incoming->under_way)
        memcpy(&parser, incoming->parser, sizeof parser);
    else
        begin_request(incoming, &parser, input);
    parser.data = incoming;
    size_t more = length - incoming->parsed;
    size_t used = http_parser_execute(&parser, &callbacks, input + incoming->parsed, more);
    incoming->parsed += used;
    if (incoming->complete && finish_request(incoming, &parser) == 0)
        return (ssize_t)incoming->parsed;
    if (incoming->complete || incoming->failure || used < more)
        return fail_parsing(incoming, &parser);
    memcpy(incoming->parser, &parser, sizeof parser);
    return 0;
}

/* ---- the reply ---- */

/* The caller has reserved. */
static void put_status(struct cp_bytes *out, int status)
{
    const char *reason = http_status_str((enum http_status)status);
    char line[] = "HTTP/1.1 000 ";
    for (int i = 0; i < 3; i++, status /= 10)
        line[11 - i] = (char)('0' + status % 10);
    cp_bytes_put(out, line, sizeof line - 1);
    cp_bytes_put_text(out, reason);
    cp_bytes_put_text(out, "\r\n");
}

static bool put_forwarded(struct cp_bytes *out, const corepool_http_response_t *response)
{
    const corepool_http_header_t *headers = response->headers;
    unsigned count = response->header_count, from = first_nominating(headers, count);
    for (unsigned i = 0; i < count; i++) {
        size_t length = strlen(headers[i].name);
        if (is_forwarded(headers, count, from, headers[i].name, length) &&
            !cp_http_put_line(out, headers[i].name, length, headers[i].value))
            return false;
    }
    return true;
}

/* The only one of the reply. Without a body it is what the body's would be, where the origin said so. */
static bool put_framing(struct cp_bytes *out, const corepool_http_response_t *response, bool bodiless)
{
    if (!bodiless)
        return cp_http_put_length(out, response->body_length);
    const char *promised =
        response->status == 204 ? NULL : corepool_http_response_header(response, "Content-Length");
    return !promised || cp_http_put_line(out, "Content-Length", sizeof "Content-Length" - 1, promised);
}

static bool put_reply(struct cp_bytes *out, const corepool_http_incoming_t *incoming,
                      const corepool_http_response_t *response)
{
    bool to_head = incoming->request.method && !strcmp(incoming->request.method, "HEAD");
    bool bodiless = to_head || response->status == 204 || response->status == 304;
    size_t body_length = bodiless ? 0 : response->body_length;
    if (!cp_bytes_reserve(out, OWN_LINES_BYTES + body_length))
        return false;
    put_status(out, response->status);
    if (!put_forwarded(out, response) || !put_framing(out, response, bodiless) ||
        !cp_bytes_reserve(out, OWN_LINES_BYTES + body_length))
        return false;
    cp_bytes_put_text(out, incoming->keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
    cp_bytes_put(out, response->body, body_length);
    return true;
}

ssize_t corepool_http_incoming_reply(const corepool_http_incoming_t *incoming,
                                     const corepool_http_response_t *response, char **output, size_t *room)
{
    if (!incoming || !response || !output || !room)
        return cp_fail(COREPOOL_EINVAL, "%s: NULL",
                       !incoming   ? "incoming"
                       : !response ? "response"
                       : !output   ? "output"
                                   : "room");
    struct cp_bytes out = {.at = *output, .room = *output ? *room : 0};
    bool complete = put_reply(&out, incoming, response);
    *output = out.at;
    *room = out.room;
    return complete ? (ssize_t)out.used : cp_fail(COREPOOL_ENOMEM, "reply: out of memory");
}
