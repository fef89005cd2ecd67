/* workers/http_request.c: a request, checked and put on the wire's form.
 *
 * What goes out is framed by the library alone: nothing in a part can end a line, and the headers that frame or
 * route are refused. Host is left out; it belongs to the connection, and goes in when that is known.
 * Thread: any. */
#include "workers/http.h"

#include <string.h>
#include <strings.h>

#include "base/error.h"

#define POOL_TIMEOUT_DEFAULT_MS COREPOOL_TIMEOUT_DEFAULT_MS
#define RECEIVE_TIMEOUT_DEFAULT_MS 15000

/* RFC 9110, 5.6.2. */
static bool is_token_byte(unsigned char byte)
{
    bool letter = (unsigned char)((byte | 0x20) - 'a') < 26;
    return letter || byte == '-' || (byte && strchr("!#$%&'*+.^_`|~0123456789", byte));
}

/* 0: it is none. */
static size_t token_length(const char *text)
{
    const char *at = text;
    while (is_token_byte((unsigned char)*at))
        at++;
    return *at == '\0' ? (size_t)(at - text) : 0;
}

/* No byte up to `last`, but tabs where `tab`. */
static bool is_free_of(const char *text, unsigned char last, bool tab)
{
    for (; *text; text++)
        if (((unsigned char)*text <= last && !(tab && *text == '\t')) || *text == 0x7f)
            return false;
    return true;
}

static bool is_ours(const char *name)
{
    if (!strchr("CcHhTt", name[0])) /* spares most headers the comparisons */
        return false;
    return !strcasecmp(name, "host") || !strcasecmp(name, "connection") ||
           !strcasecmp(name, "content-length") || !strcasecmp(name, "transfer-encoding");
}

static int check_header(const corepool_http_header_t *header)
{
    if (!header->name || !header->value)
        return cp_fail(COREPOOL_EINVAL, "headers: a NULL name or value");
    if (is_ours(header->name))
        return cp_fail(COREPOOL_EINVAL, "headers: %s: the library sets it", header->name);
    if (token_length(header->name) == 0)
        return cp_fail(COREPOOL_EINVAL, "headers: \"%.32s\": not a header name", header->name);
    if (!is_free_of(header->value, 0x1f, true))
        return cp_fail(COREPOOL_EINVAL, "headers: %s: a control character in its value", header->name);
    return COREPOOL_OK;
}

static int check_timeout(const char *field, int64_t timeout_ms)
{
    if (timeout_ms < COREPOOL_INFINITE)
        return cp_fail(COREPOOL_EINVAL, "%s: %lld: must not be negative", field, (long long)timeout_ms);
    return COREPOOL_OK;
}

/* A method of `length` bytes; `text` is a literal, so that this costs no call. */
static inline bool is(const char *method, size_t length, const char *text)
{
    return length == strlen(text) && memcmp(method, text, strlen(text)) == 0;
}

/* `length`: of the method, if it is a token. */
static int check_request(const corepool_http_request_t *request, const char *method, size_t length)
{
    if (length == 0 || is(method, length, "CONNECT"))
        return cp_fail(COREPOOL_EINVAL, "method: \"%.32s\": not one of HTTP/1.1 for an origin", method);
    if (!request->path || (request->path[0] != '/' && strcmp(request->path, "*") != 0))
        return cp_fail(COREPOOL_EINVAL, "path: \"%.64s\": must begin with /",
                       request->path ? request->path : "");
    if (!is_free_of(request->path, ' ', false))
        return cp_fail(COREPOOL_EINVAL, "path: a space or control character");
    if (!request->headers && request->header_count > 0)
        return cp_fail(COREPOOL_EINVAL, "headers: NULL, with header_count %u", request->header_count);
    if (!request->body && request->body_length > 0)
        return cp_fail(COREPOOL_EINVAL, "body: NULL, with body_length %zu", request->body_length);
    int code = check_timeout("pool_timeout_ms", request->pool_timeout_ms);
    return code < 0 ? code : check_timeout("receive_timeout_ms", request->receive_timeout_ms);
}

bool cp_http_put_line(struct cp_bytes *head, const char *name, size_t name_length, const char *value)
{
    size_t value_length = strlen(value);
    if (!cp_bytes_reserve(head, name_length + value_length + 4))
        return false;
    char *at = mempcpy(head->at + head->used, name, name_length);
    at = mempcpy(at, ": ", 2);
    at = mempcpy(at, value, value_length);
    memcpy(at, "\r\n", 2);
    head->used += name_length + value_length + 4;
    return true;
}

/* RFC 9110, 8.6: methods that expect a body say its length even when it is empty. */
static bool expects_body(const char *method, size_t length)
{
    return is(method, length, "POST") || is(method, length, "PUT") || is(method, length, "PATCH");
}

bool cp_http_put_length(struct cp_bytes *head, size_t length)
{
    static const char name[] = "Content-Length: ";
    char line[sizeof name + 24], *end = line + sizeof line, *at = end; /* from its end on */
    *--at = '\n';
    *--at = '\r';
    do
        *--at = (char)('0' + length % 10);
    while (length /= 10);
    at -= sizeof name - 1;
    memcpy(at, name, sizeof name - 1);
    return cp_bytes_append(head, at, (size_t)(end - at));
}

static int put_headers(struct cp_bytes *head, const corepool_http_request_t *request, bool *has_room)
{
    for (unsigned i = 0; i < request->header_count && *has_room; i++) {
        const corepool_http_header_t *header = &request->headers[i];
        int code = check_header(header);
        if (code < 0)
            return code;
        *has_room = cp_http_put_line(head, header->name, strlen(header->name), header->value);
    }
    return COREPOOL_OK;
}

static bool put_request_line(struct cp_bytes *head, const char *method, size_t method_length, const char *path)
{
    size_t path_length = strlen(path);
    if (!cp_bytes_reserve(head, method_length + path_length + sizeof "  HTTP/1.1\r\n"))
        return false;
    cp_bytes_put(head, method, method_length);
    cp_bytes_put_text(head, " ");
    cp_bytes_put(head, path, path_length);
    cp_bytes_put_text(head, " HTTP/1.1\r\n");
    return true;
}

int cp_http_compose(struct cp_http_call *call, const corepool_http_request_t *request, bool keep_body)
{
    struct cp_bytes *head = &call->head;
    if (!request)
        return cp_fail(COREPOOL_EINVAL, "request: NULL");
    const char *method = request->method ? request->method : "GET";
    size_t length = token_length(method);
    int code = check_request(request, method, length);
    if (code < 0)
        return code;

    head->used = call->copy.used = 0;
    bool has_room = put_request_line(head, method, length, request->path);
    call->line_length = head->used;
    call->has_host = false;
    code = put_headers(head, request, &has_room);
    if (code < 0)
        return code;
    if (has_room && (request->body_length > 0 || expects_body(method, length)))
        has_room = cp_http_put_length(head, request->body_length);
    has_room = has_room && cp_bytes_append(head, "\r\n", 2);
    if (has_room && keep_body)
        has_room = cp_bytes_append(&call->copy, request->body, request->body_length);
    if (!has_room)
        return cp_fail(COREPOOL_ENOMEM, "request: out of memory");

    call->body = keep_body ? call->copy.at : request->body;
    call->body_length = request->body_length;
    call->to_head = is(method, length, "HEAD");
    call->repeatable = call->to_head || is(method, length, "GET");
    call->pool_timeout_ms = request->pool_timeout_ms ? request->pool_timeout_ms : POOL_TIMEOUT_DEFAULT_MS;
    call->receive_timeout_ms =
        request->receive_timeout_ms ? request->receive_timeout_ms : RECEIVE_TIMEOUT_DEFAULT_MS;
    return COREPOOL_OK;
}
