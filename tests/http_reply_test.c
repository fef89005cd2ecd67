/* Promise: a reply's headers are the same however its bytes arrive, wherever its buffer has to grow. */
#include <criterion/criterion.h>

#include "workers/http_reply.h"

#define TAIL "A:\r\nB:c \r\nD: \r\nContent-Length: 2\r\n\r\nok"

/* Feeds `step` bytes at a time, each from a buffer of its own, so that a sanitizer sees a look beyond. */
static int feed(struct cp_reply *reply, const char *bytes, size_t length, size_t step)
{
    int code = COREPOOL_PENDING;
    for (size_t at = 0; at < length && code == COREPOOL_PENDING; at += step) {
        size_t more = step < length - at ? step : length - at;
        char *piece = malloc(more);
        memcpy(piece, bytes + at, more);
        code = cp_reply_feed(reply, piece, more);
        free(piece);
    }
    return code;
}

static void check_header(const struct cp_reply *reply, unsigned i, const char *name, const char *value)
{
    cr_assert_str_eq(reply->response.headers[i].name, name);
    cr_assert_str_eq(reply->response.headers[i].value, value);
}

/* The first header's value has `filler` bytes, so that the others meet the end of the room. */
static void check_reply(size_t filler, size_t step)
{
    static const char begin[] = "HTTP/1.1 200 OK\r\nX: ";
    struct cp_reply reply = {.begun = false};
    char bytes[4096], value[2048] = "";
    char *at = mempcpy(bytes, begin, sizeof begin - 1);
    memset(value, 'x', filler);
    at = mempcpy(at, value, filler);
    at = stpcpy(at, "\r\n" TAIL);
    cp_reply_start(&reply, false, 65536, 65536);
    cr_assert_eq(feed(&reply, bytes, (size_t)(at - bytes), step), COREPOOL_OK, "%zu by %zu", filler, step);
    cr_assert_eq(reply.response.header_count, 5);
    check_header(&reply, 0, "X", value);
    check_header(&reply, 1, "A", "");
    check_header(&reply, 2, "B", "c");
    check_header(&reply, 3, "D", "");
    check_header(&reply, 4, "Content-Length", "2");
    cr_assert_str_eq(reply.response.body, "ok");
    cp_reply_finish(&reply);
}

Test(http_reply, headers_are_whole_wherever_the_buffer_has_to_grow)
{
    for (size_t filler = CP_BYTES_FIRST - 64; filler <= CP_BYTES_FIRST; filler++)
        for (size_t step = 1; step < 8; step++)
            check_reply(filler, step);
}

Test(http_reply, a_buffer_that_was_used_serves_the_next_reply)
{
    static const char first[] = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nA: b\r\n\r\nx";
    static const char second[] = "HTTP/1.1 100 Continue\r\nI: j\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    struct cp_reply reply = {.begun = false};
    cp_reply_start(&reply, false, 1024, 1024);
    cr_assert_eq(feed(&reply, first, sizeof first - 1, 3), COREPOOL_OK);
    check_header(&reply, 1, "A", "b");
    cp_reply_start(&reply, false, 1024, 1024);
    cr_assert_eq(feed(&reply, second, sizeof second - 1, 3), COREPOOL_OK);
    cr_assert_eq(reply.response.status, 204);
    cr_assert_eq(reply.response.header_count, 0, "those of an interim head are not the reply's");
    cr_assert_eq(reply.response.body_length, 0);
    cp_reply_finish(&reply);
}
