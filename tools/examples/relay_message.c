/* examples/relay_message.c: a request, parsed where it lies; a reply, framed anew. */
#include "relay_message.h"

#include <string.h>
#include <strings.h>

/* Status line, framing and the end of the head: the lines that are the relay's own. */
#define OWN_LINES_BYTES 256

/* ---- headers ---- */

/* What Connection names beyond the usual words; "" when it names nothing. */
static const char *nominated(const corepool_http_header_t *headers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if ((headers[i].name[0] | 0x20) == 'c' && !strcasecmp(headers[i].name, "Connection"))
            return strcasecmp(headers[i].value, "keep-alive") && strcasecmp(headers[i].value, "close")
                       ? headers[i].value
                       : "";
    return "";
}

/* Not those for one hop: the standard's, and what Connection names. */
static bool is_forwarded(const char *name, const char *connection)
{
#define HOP(text)                                                                                              \
    {                                                                                                          \
        text, sizeof text - 1                                                                                  \
    }
    static const struct {
        const char *name;
        size_t length;
    } hop[] = {HOP("Connection"),          HOP("Keep-Alive"),       HOP("Proxy-Authenticate"),
               HOP("Proxy-Authorization"), HOP("Proxy-Connection"), HOP("TE"),
               HOP("Transfer-Encoding"),   HOP("Upgrade"),          HOP("Host"),
               HOP("Content-Length") /* these two are set anew */};
#undef HOP
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof hop / sizeof *hop; i++)
        if (length == hop[i].length && !strcasecmp(name, hop[i].name))
            return false;
    for (const char *at = connection; *at && (at = strcasestr(at, name)); at += length)
        if ((at == connection || strchr(", \t", at[-1])) && strchr(", \t", at[length])) /* its end too */
            return false;
    return true;
}

/* ---- the request ---- */

static int on_url(http_parser *parser, const char *at, size_t length)
{
    struct relay_request *request = parser->data;
    (void)length;
    request->http.path = at;
    return 0;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
    struct relay_request *request = parser->data;
    if (request->count == RELAY_HEADERS_MAX || memchr(at, ' ', length))
        return -1;
    request->headers[request->count++] = (corepool_http_header_t){.name = at};
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
    struct relay_request *request = parser->data;
    corepool_http_header_t *header = &request->headers[request->count - 1];
    (void)length;
    if (header->value)
        return -1; /* a folded line (RFC 9112, 5.2) */
    header->value = at;
    return 0;
}

static int on_head(http_parser *parser)
{
    return parser->uses_transfer_encoding || parser->http_major != 1 ? -1 : 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    struct relay_request *request = parser->data;
    request->http.body = at;
    request->http.body_length = length;
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct relay_request *request = parser->data;
    request->complete = true;
    request->keep_alive = http_should_keep_alive(parser);
    http_parser_pause(parser, 1); /* what follows is the next request */
    return 0;
}

/* Ends a piece of the input in place, at the byte that ended it for the parser. */
static void cut(char *input, const char *piece, const char *stops)
{
    char *at = input + (piece - input);
    at[strcspn(at, stops)] = '\0';
}

/* Makes strings of the pieces and leaves out what is not forwarded. */
static void finish_request(struct relay_request *request, char *input)
{
    unsigned kept = 0;
    cut(input, request->http.path, " \r\n");
    for (unsigned i = 0; i < request->count; i++) {
        cut(input, request->headers[i].name, ":");
        cut(input, request->headers[i].value, "\r\n");
    }
    const char *connection = nominated(request->headers, request->count);
    for (unsigned i = 0; i < request->count; i++)
        if (is_forwarded(request->headers[i].name, connection))
            request->headers[kept++] = request->headers[i];
    request->http.method = http_method_str((enum http_method)request->parser.method);
    request->http.headers = request->headers;
    request->http.header_count = kept;
}

long relay_parse(struct relay_request *request, char *input, size_t length)
{
    static const http_parser_settings callbacks = {.on_url = on_url,
                                                   .on_header_field = on_field,
                                                   .on_header_value = on_value,
                                                   .on_headers_complete = on_head,
                                                   .on_body = on_body,
                                                   .on_message_complete = on_complete};
    request->http = (corepool_http_request_t){0};
    request->complete = request->keep_alive = false;
    request->count = 0;
    http_parser_init(&request->parser, HTTP_REQUEST);
    request->parser.data = request;
    size_t parsed = http_parser_execute(&request->parser, &callbacks, input, length);
    if (request->complete)
        finish_request(request, input);
    else if (parsed == length)
        return 0;
    return request->complete ? (long)parsed : -1;
}

/* ---- the reply ---- */

size_t relay_format_room(const corepool_http_response_t *response)
{
    size_t room = OWN_LINES_BYTES + response->body_length;
    for (unsigned i = 0; i < response->header_count; i++)
        room += strlen(response->headers[i].name) + strlen(response->headers[i].value) + sizeof ": \r\n" - 1;
    return room;
}

static char *put_header(char *at, const char *name, const char *value)
{
    return stpcpy(stpcpy(stpcpy(stpcpy(at, name), ": "), value), "\r\n");
}

static char *put_number(char *at, size_t number)
{
    char digits[24], *digit = digits + sizeof digits;
    do
        *--digit = (char)('0' + number % 10);
    while (number /= 10);
    return mempcpy(at, digit, (size_t)(digits + sizeof digits - digit));
}

static char *put_length(char *at, size_t length)
{
    return stpcpy(put_number(stpcpy(at, "Content-Length: "), length), "\r\n");
}

size_t relay_format(char *output, const struct relay_request *request, const corepool_http_response_t *response)
{
    const char *connection = nominated(response->headers, response->header_count), *promised;
    bool bodiless = request->parser.method == HTTP_HEAD || response->status == 204 || response->status == 304;
    char *at = put_number(stpcpy(output, "HTTP/1.1 "), (size_t)response->status);
    at = stpcpy(stpcpy(stpcpy(at, " "), http_status_str((enum http_status)response->status)), "\r\n");
    for (unsigned i = 0; i < response->header_count; i++)
        if (is_forwarded(response->headers[i].name, connection))
            at = put_header(at, response->headers[i].name, response->headers[i].value);
    if (!bodiless)
        at = put_length(at, response->body_length);
    else if (response->status != 204 && (promised = corepool_http_response_header(response, "Content-Length")))
        at = put_header(at, "Content-Length", promised);
    if (!request->keep_alive)
        at = put_header(at, "Connection", "close");
    at = mempcpy(stpcpy(at, "\r\n"), response->body, response->body_length);
    return (size_t)(at - output);
}
