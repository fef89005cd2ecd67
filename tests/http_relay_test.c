/* Promise: a client's request is understood in one way only, however its bytes arrive, or refused; a reply has
 * one framing and nothing that was for the hop before. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <corepool.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

/* ---- requests ---- */

/* What came of some bytes: every request as a line, and how it ended. */
struct story {
    char text[4096];
    size_t used;
};

static void tell(struct story *story, const char *text, size_t length)
{
    cr_assert_lt(story->used + length, sizeof story->text);
    if (length > 0) /* a request without a body has none to point to */
        memcpy(story->text + story->used, text, length);
    story->used += length;
    story->text[story->used] = '\0';
}

static void tell_text(struct story *story, const char *text)
{
    tell(story, text, strlen(text));
}

static void tell_request(struct story *story, const corepool_http_incoming_t *incoming)
{
    const corepool_http_request_t *request = &incoming->request;
    tell_text(story, request->method);
    tell_text(story, " ");
    tell_text(story, request->path);
    for (unsigned i = 0; i < request->header_count; i++) {
        tell_text(story, " [");
        tell_text(story, request->headers[i].name);
        tell_text(story, "=");
        tell_text(story, request->headers[i].value);
        tell_text(story, "]");
    }
    tell_text(story, " <");
    tell(story, request->body, request->body_length);
    tell_text(story, incoming->keep_alive ? "> keep;" : "> close;");
}

/* Parses `input` as it arrives in two parts, the first of `first` bytes, the second `step` by `step`. */
static struct story story_of(const char *input, size_t length, size_t first, size_t step)
{
    corepool_http_incoming_t incoming = {0};
    struct story story = {.used = 0};
    char *bytes = malloc(length); /* no more than there is, so that a sanitizer sees a look beyond */
    size_t start = 0, there = first;
    ssize_t code;
    memcpy(bytes, input, length);
    while ((code = corepool_http_incoming_parse(&incoming, bytes + start, there - start)) >= 0) {
        start += (size_t)code;
        if (code > 0)
            tell_request(&story, &incoming);
        else if (there == length)
            break;
        else
            there += step < length - there ? step : length - there;
    }
    tell_text(&story, code < 0 ? corepool_error_name((int)code) : start < length ? "MORE" : "END");
    if (code < 0)
        cr_assert_eq(corepool_http_incoming_parse(&incoming, bytes + start, length - start), code,
                     "it stays refused");
    free(bytes);
    return story;
}

/* The same, however it arrives. */
static void check_story(const char *input, size_t length, const char *expected)
{
    struct story whole = story_of(input, length, length, 1);
    if (expected)
        cr_assert_str_eq(whole.text, expected, "\"%s\" of \"%s\"", whole.text, input);
    for (size_t first = 0; first <= length; first++) {
        struct story split = story_of(input, length, first, length);
        cr_assert_str_eq(split.text, whole.text, "of \"%s\" split at %zu", input, first);
    }
    struct story drop_by_drop = story_of(input, length, 0, 1);
    cr_assert_str_eq(drop_by_drop.text, whole.text, "of \"%s\"", input);
}

static void check_text(const char *input, const char *expected)
{
    check_story(input, strlen(input), expected);
}

Test(http_relay, a_request_is_the_same_however_its_bytes_arrive)
{
    static const char *const cases[][2] = {
        {GET "\r\n", "GET / <> keep;END"},
        {"\r\nOPTIONS * HTTP/1.1\r\nhost:a\r\n\r\n", "OPTIONS * <> keep;END"},
        {"GET /a?b=c%20d HTTP/1.1\r\nHost: a\r\nX: 1 \t\r\nY:2\r\n\r\n",
         "GET /a?b=c%20d [X=1] [Y=2] <> keep;END"},
        {GET "A:\r\nB: \t\r\nC: d\r\nE:\r\n\r\n", "GET / [A=] [B=] [C=d] [E=] <> keep;END"},
        {POST "Content-Length: 5\r\n\r\nhello", "POST / <hello> keep;END"},
        {POST "Content-Length: 0\r\n\r\n", "POST / <> keep;END"},
        {"GET / HTTP/1.0\r\n\r\n", "GET / <> close;END"},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / <> keep;END"},
        {GET "Connection: close\r\n\r\n", "GET / <> close;END"},
        {"", "END"},
        {"GET / HTTP/1.1\r\nHost: a\r\n", "MORE"},
        {POST "Content-Length: 5\r\n\r\nhell", "MORE"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_text(cases[i][0], cases[i][1]);
}

Test(http_relay, requests_behind_each_other_are_told_apart)
{
    check_text(GET "\r\n" POST "Content-Length: 5\r\n\r\nGET /" GET "X: y\r\n\r\n",
               "GET / <> keep;POST / <GET /> keep;GET / [X=y] <> keep;END");
    check_text(GET "A: b\r\n\r\n\r\n" GET "\r\nbogus\r\n\r\n", "GET / [A=b] <> keep;GET / <> keep;EPROTO");
}

Test(http_relay, headers_for_one_hop_end_there)
{
    check_text(GET
               "Connection: keep-alive, X-Hop,x-other\r\nX-Hop: 1\r\nX-Hope: 2\r\nHop: 3\r\nX-OTHER: 4\r\n\r\n",
               "GET / [X-Hope=2] [Hop=3] <> keep;END");
    check_text(GET "A: 1\r\nB: 2\r\nConnection: A\r\nC: 3\r\nConnection: B\r\nconnection: close, c\r\n\r\n",
               "GET / <> close;END");
    check_text(GET "TE: trailers\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n"
                   "Proxy-Authenticate: x\r\nUpgrade: x\r\nContent-Length: 0\r\nTEA: 1\r\n\r\n",
               "GET / [TEA=1] <> keep;END");
}

Test(http_relay, what_two_readers_may_understand_differently_is_refused)
{
    static const char *const bad[] = {
        "bogus\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        "FETCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        GET "Host: a\r\n\r\n",
        GET "A b: c\r\n\r\n",
        GET "A : c\r\n\r\n",
        GET " A: c\r\n\r\n",
        GET "A\r\n\r\n",
        GET ": c\r\n\r\n",
        GET "A: b\r\n c\r\n\r\n",
        GET "A: b\r\n\tc: d\r\n\r\n",
        GET "A:\r\n b\r\n\r\n",
        GET "A: \r\n \r\nB: c\r\n\r\n",
        GET "A: b\rc\r\n\r\n",
        GET "A:\rb: c\r\n\r\n",
        GET "A: \r\rb: c\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "SOURCE / ICE/1.0\r\nHost: a\r\n\r\n",
        "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\fa HTTP/1.1\r\nHost: a\r\n\r\n",
        GET "A: b\nContent-Length: 4\r\n\r\n",
        GET "A: b\n\r\n",
        GET "A:\nB: c\r\n\r\n",
        GET "A: b\r\n\n",
        GET "\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        GET "A: b\x01\r\n\r\n",
        GET "A\x01: b\r\n\r\n",
        POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        POST "Content-Length: 1, 1\r\n\r\nx",
        POST "Content-Length: +1\r\n\r\nx",
        POST "Content-Length: 0x1\r\n\r\nx",
        POST "Content-Length: -1\r\n\r\nx",
        POST "Content-Length: 99999999999999999999\r\n\r\nx",
        POST "Content-Length:\r\n\r\n",
        POST "Content-Length: \r\nA: b\r\n\r\n",
        POST "Content-Length: 1\r\ncontent-length:\r\n\r\nx",
        POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST "Transfer-Encoding: identity\r\n\r\n",
        POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST "Transfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nx",
        POST "Transfer-Encoding : chunked\r\nContent-Length: 1\r\n\r\nx",
    };
    static const char zero[] = GET "A: b\0c\r\n\r\n";
    for (size_t i = 0; i < COUNT(bad); i++)
        check_text(bad[i], "EPROTO");
    check_story(zero, sizeof zero - 1, "EPROTO");
}

Test(http_relay, too_many_headers_or_too_long_a_head_is_a_limit)
{
    static char input[COREPOOL_HTTP_HEAD_MAX * 2];
    for (int count = COREPOOL_HTTP_INCOMING_HEADERS_MAX - 1; count <= COREPOOL_HTTP_INCOMING_HEADERS_MAX;
         count++) {
        char *at = stpcpy(input, GET);
        for (int i = 0; i < count; i++)
            at = stpcpy(at, "A: b\r\n");
        stpcpy(at, "\r\n");
        const char *end = strchr(story_of(input, strlen(input), strlen(input), 1).text, ';');
        cr_assert_eq(end != NULL, count < COREPOOL_HTTP_INCOMING_HEADERS_MAX, "Host is one of them");
    }
    memset(input, 'a', sizeof input);
    memcpy(input, GET "A: ", strlen(GET "A: "));
    struct story story = story_of(input, sizeof input, sizeof input, 1);
    cr_assert_str_eq(story.text, "ELIMIT");
}

/* xorshift64*; any seed but 0. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

Test(http_relay, damaged_requests_too_are_the_same_however_they_arrive)
{
    static const char sound[] =
        GET "A: b\r\nConnection: c, A\r\n\r\n" POST "Content-Length: 5\r\nE:\r\n\r\nhello" GET "\r\n";
    static const char bytes[] = "\r\n\t :;,A1\x7f\xff\0HT/";
    uint64_t random = 42;
    for (int round = 0; round < 500; round++) {
        char input[sizeof sound];
        memcpy(input, sound, sizeof sound);
        for (uint64_t i = next_random(&random) % 3; i < 3; i++)
            input[next_random(&random) % (sizeof sound - 1)] = bytes[next_random(&random) % (sizeof bytes - 1)];
        check_story(input, sizeof sound - 1, NULL);
    }
}

/* ---- replies ---- */

static void check_reply(const char *request, const corepool_http_response_t *response, const char *expected)
{
    corepool_http_incoming_t incoming = {0};
    char *input = strdup(request), *output = NULL;
    size_t room = 0;
    corepool_http_incoming_parse(&incoming, input, strlen(input));
    for (int i = 0; i < 2; i++) { /* into no buffer, and into one that was used */
        ssize_t length = corepool_http_incoming_reply(&incoming, response, &output, &room);
        cr_assert_eq(length, (ssize_t)strlen(expected), "%.*s", (int)length, output);
        cr_assert_eq(memcmp(output, expected, (size_t)length), 0, "%.*s", (int)length, output);
        cr_assert_geq(room, (size_t)length);
    }
    free(output);
    free(input);
}

Test(http_relay, a_reply_has_one_framing)
{
    corepool_http_header_t chunked[] = {{"Transfer-Encoding", "chunked"}, {"A", "b"}};
    corepool_http_header_t sized[] = {
        {"content-length", "7"}, {"Server", "x"}, {"Connection", "close, foo"}, {"Foo", "y"}};
    corepool_http_response_t response = {
        .status = 200, .headers = chunked, .header_count = 2, .body = "hello", .body_length = 5};
    check_reply(GET "\r\n", &response, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\nhello");
    check_reply(GET "Connection: close\r\n\r\n", &response,
                "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    check_reply("bogus\r\n\r\n", &(corepool_http_response_t){.status = 400},
                "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    check_reply("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &response, "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
    response.headers = sized;
    response.header_count = 4;
    check_reply("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &response,
                "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 7\r\n\r\n");
    response.status = 304;
    check_reply(GET "\r\n", &response, "HTTP/1.1 304 Not Modified\r\nServer: x\r\nContent-Length: 7\r\n\r\n");
    response.status = 204;
    check_reply(GET "\r\n", &response, "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n");
}

Test(http_relay, a_big_reply_is_written_whole)
{
    static char body[1u << 20];
    corepool_http_response_t response = {.status = 200, .body = body, .body_length = sizeof body};
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n";
    corepool_http_incoming_t incoming = {.keep_alive = true};
    char *output = NULL;
    size_t room = 0;
    memset(body, 'x', sizeof body);
    cr_assert_eq(corepool_http_incoming_reply(&incoming, &response, &output, &room),
                 (ssize_t)(sizeof head - 1 + sizeof body));
    cr_assert_eq(memcmp(output, head, sizeof head - 1), 0);
    cr_assert_eq(memcmp(output + sizeof head - 1, body, sizeof body), 0);
    free(output);
}

Test(http_relay, misuse_is_an_error_code)
{
    corepool_http_incoming_t incoming = {0};
    corepool_http_listener_t *listener;
    cr_assert_eq(corepool_http_incoming_parse(&incoming, NULL, 0), COREPOOL_EINVAL);
    cr_assert_eq(corepool_http_incoming_reply(&incoming, NULL, NULL, NULL), COREPOOL_EINVAL);
    cr_assert_eq(corepool_http_listener_open(NULL, NULL, NULL, &listener), COREPOOL_EINVAL);
    corepool_http_listener_close(NULL);
}
