/* Promise: whatever a peer does on the wire, the HTTP client answers with the right code in time, and no byte
 * of one exchange gets into another. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "support/fixture.h"
#include "support/peer.h"

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

struct site {
    struct fixture fixture;
    struct peer peer;
    corepool_http_options_t options;
    corepool_pool_t pool;
};

static void open_site(struct site *site, peer_script script, const void *arg)
{
    corepool_pool_options_t tuning = {.backoff_max_ms = 50, .flags = COREPOOL_POOL_LAZY};
    *site = (struct site){0};
    peer_start(&site->peer, script, arg);
    site->fixture = fixture_start();
    site->options.stream = (corepool_stream_options_t){.host = "127.0.0.1", .port = site->peer.port};
    site->options.max_head = 8192;
    site->options.max_body = 65536;
    cr_assert_eq(corepool_pool_open(site->fixture.runtime, &corepool_http_class, &site->options, 1, &tuning,
                                    &site->pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
}

static void close_site(struct site *site)
{
    fixture_end(&site->fixture);
    peer_stop(&site->peer);
}

static int get(struct site *site, int64_t receive_timeout_ms, corepool_http_response_t **response)
{
    corepool_http_request_t request = {.path = "/", .receive_timeout_ms = receive_timeout_ms};
    return corepool_http_perform(site->pool, &request, response);
}

static void check_get(struct site *site, const char *body)
{
    corepool_http_response_t *response;
    cr_assert_eq(get(site, LAWS_PATIENCE_MS, &response), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_str_eq(response->body, body);
    corepool_http_response_free(response);
}

/* ---- replies, each whole and byte by byte ---- */

struct reply {
    const char *text;
    int code;         /* what the client returns */
    int status;       /* with COREPOOL_OK */
    const char *body; /* with COREPOOL_OK */
    bool reused;      /* the connection goes back to the pool */
};

#define HEAD "HTTP/1.1 200 OK\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"

static const struct reply replies[] = {
    {OK_REPLY, COREPOOL_OK, 200, "ok", true},
    {"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", COREPOOL_OK, 599, "", true},
    {HEAD "A:\r\nB:  b \t\r\nContent-Length: 0\r\n\r\n", COREPOOL_OK, 200, "", true},
    {HEAD "Connection: close\r\nContent-Length: 2\r\n\r\nok", COREPOOL_OK, 200, "ok", false},
    {HEAD "\r\nuntil close", COREPOOL_OK, 200, "until close", false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", COREPOOL_OK, 200, "ok", false},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", COREPOOL_OK, 200, "ok", true},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK_REPLY, COREPOOL_OK, 200,
     "ok", true},
    {"HTTP/1.1 204 No Content\r\n\r\n", COREPOOL_OK, 204, "", true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9999999\r\n\r\n", COREPOOL_OK, 304, "", true},
    {CHUNKED "3\r\nabc\r\n1;ext=1\r\nd\r\n0\r\nTrailer: t\r\n\r\n", COREPOOL_OK, 200, "abcd", true},
    {"garbage", COREPOOL_EPROTO, 0, NULL, false},
    {"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length : 0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "No colon\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "A: b\001\r\nContent-Length: 0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length: -1\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length: 99999999999999999999999\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Transfer-Encoding: gzip\r\n\r\nxyz", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {CHUNKED "x\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {CHUNKED "2\r\nokXX0\r\n\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {CHUNKED "fffffffffffffffff\r\n", COREPOOL_EPROTO, 0, NULL, false},
    {HEAD "Content-Length: 65537\r\n\r\n", COREPOOL_ELIMIT, 0, NULL, false},
    {CHUNKED "10001\r\n", COREPOOL_EPEER, 0, NULL, false},
    {"", COREPOOL_EPEER, 0, NULL, false},
    {"HTTP/1.1 200 O", COREPOOL_EPEER, 0, NULL, false},
    {HEAD "Content-Length: 3\r\n\r\nok", COREPOOL_EPEER, 0, NULL, false},
    {CHUNKED "3\r\nok", COREPOOL_EPEER, 0, NULL, false},
    {CHUNKED "2\r\nok\r\n0\r\n", COREPOOL_EPEER, 0, NULL, false},
};

#define REPLIES (sizeof replies / sizeof *replies)

/* The connection's number says which reply it is; a test that reuses connections would get out of step at once.
 */
static void reply_once(struct peer *peer, int fd, unsigned turn)
{
    const char *text = replies[turn % REPLIES].text;
    int on = 1;
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    if (turn < REPLIES) {
        peer_say(fd, text);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (; *text; text++)
        peer_write(fd, text, 1);
}

Test(http_peer, each_reply_is_taken_or_refused_as_the_protocol_says)
{
    struct site site;
    open_site(&site, reply_once, NULL);
    for (unsigned turn = 0; turn < 2 * REPLIES; turn++) {
        const struct reply *expected = &replies[turn % REPLIES];
        corepool_http_response_t *response;
        int code = get(&site, LAWS_PATIENCE_MS, &response);
        cr_assert_eq(code, expected->code, "turn %u: %s: %s\n%s", turn, corepool_error_name(code),
                     corepool_error_detail(), expected->text);
        if (code == COREPOOL_OK) {
            cr_assert_eq(response->status, expected->status, "turn %u", turn);
            cr_assert_str_eq(response->body, expected->body, "turn %u", turn);
        }
        corepool_http_response_free(response);
        cr_assert(eventually_terminated(site.pool, turn + 1), "the peer has closed this connection");
    }
    close_site(&site);
}

static void reply_and_wait(struct peer *peer, int fd, unsigned turn)
{
    const char *text = *(const char *const *)peer->arg;
    (void)turn;
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, text);
    peer_await_close(peer, fd);
}

Test(http_peer, a_connection_is_kept_only_when_both_sides_are_in_step)
{
    for (size_t i = 0; i < REPLIES; i++) {
        struct site site;
        corepool_http_response_t *response;
        const char *text = replies[i].text;
        if (replies[i].code == COREPOOL_EPEER || strstr(text, "until close"))
            continue; /* would have to be ended by a close */
        open_site(&site, reply_and_wait, &text);
        cr_assert_eq(get(&site, LAWS_PATIENCE_MS, &response), replies[i].code);
        corepool_http_response_free(response);
        if (replies[i].reused)
            cr_assert_eq(laws_stats(site.pool).idle, 1, "%s", text);
        else
            cr_assert(eventually_terminated(site.pool, 1), "%s", text);
        close_site(&site);
    }
}

/* ---- limits ---- */

static void say_for_ever(struct peer *peer, int fd, unsigned turn)
{
    static const char *const starts[] = {HEAD, CHUNKED, HEAD "\r\n", ""};
    static const char *const more[] = {"A: 0123456789012345678901234567890123456789\r\n",
                                       "10\r\n0123456789abcdef\r\n", "0123456789abcdef",
                                       "HTTP/1.1 100 Continue\r\n\r\n"};
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, starts[turn]);
    while (send(fd, more[turn], strlen(more[turn]), MSG_NOSIGNAL) > 0)
        ;
}

Test(http_peer, a_reply_without_end_stops_at_its_limit)
{
    static const char *const limits[] = {"max_head", "max_body", "max_body", "max_head"};
    struct site site;
    corepool_http_response_t *response;
    open_site(&site, say_for_ever, NULL);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(get(&site, LAWS_PATIENCE_MS, &response), COREPOOL_ELIMIT, "%d: %s", i, corepool_error_detail());
        cr_assert(strstr(corepool_error_detail(), limits[i]));
    }
    close_site(&site);
}

static void drip(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, HEAD "Content-Length: 60000\r\n\r\n");
    while (peer_pause(peer, 5) == 0 && send(fd, "x", 1, MSG_NOSIGNAL) > 0)
        ;
}

static void swallow(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    peer_await_close(peer, fd);
}

static void check_receive_timeout(peer_script script, const char *phase)
{
    struct site site;
    corepool_http_response_t *response;
    open_site(&site, script, NULL);
    int64_t start = laws_now_ms();
    cr_assert_eq(get(&site, 150, &response), COREPOOL_ETIMEDOUT);
    cr_assert_geq(laws_now_ms() - start, 150);
    cr_assert_lt(laws_now_ms() - start, 2000, "bytes do not renew it");
    cr_assert(strstr(corepool_error_detail(), phase), "%s", corepool_error_detail());
    close_site(&site);
}

Test(http_peer, the_receive_timeout_covers_the_whole_reply)
{
    check_receive_timeout(drip, "bytes into the reply's body");
    check_receive_timeout(swallow, "no byte of a reply came");
}

/* ---- connections that go bad between two requests ---- */

#define EVIL_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

/* The first connection serves one request and then goes bad in the way that the argument names; the others are
 * good. */
static void go_bad(struct peer *peer, int fd, unsigned turn)
{
    const char *how = peer->arg;
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, turn == 0 && !strcmp(how, "surplus") ? OK_REPLY EVIL_REPLY : OK_REPLY);
    if (turn > 0) {
        while (peer_read_request(peer, fd, 0, NULL, 0) > 0)
            peer_say(fd, OK_REPLY);
        return;
    }
    if (!strcmp(how, "surplus")) {
        peer_await_close(peer, fd);
    } else if (!strcmp(how, "stale")) {
        peer_read_request(peer, fd, 0, NULL, 0); /* and closes without a word */
    } else if (peer_await_order(peer, fd) == 0 && !strcmp(how, "reset")) {
        peer_reset(fd);
    } else if (!strcmp(how, "bytes")) {
        peer_say(fd, EVIL_REPLY);
        peer_report_arrival(peer, fd);
        peer_await_close(peer, fd);
    }
}

static void check_gone_bad(const char *how, bool evicted_unasked)
{
    struct site site;
    open_site(&site, go_bad, how);
    check_get(&site, "ok");
    peer_order(&site.peer);
    if (!strcmp(how, "bytes"))
        peer_await_report(&site.peer);
    if (evicted_unasked)
        cr_assert(eventually_terminated(site.pool, 1));
    for (int more = 0; more < 3; more++)
        check_get(&site, "ok");
    cr_assert_eq(laws_stats(site.pool).opens, 2);
    close_site(&site);
}

Test(http_peer, no_reply_comes_from_a_connection_that_went_bad_while_idle)
{
    check_gone_bad("close", true);
    check_gone_bad("reset", true);
    check_gone_bad("bytes", false);
    check_gone_bad("surplus", true);
}

Test(http_peer, a_get_on_a_stale_connection_is_sent_once_more_and_a_post_is_not)
{
    struct site site;
    corepool_http_response_t *response;
    corepool_http_request_t post = {.method = "POST", .path = "/"};
    open_site(&site, go_bad, "stale");
    check_get(&site, "ok");
    check_get(&site, "ok");
    cr_assert_eq(laws_stats(site.pool).opens, 2);
    close_site(&site);
    open_site(&site, go_bad, "stale");
    check_get(&site, "ok");
    cr_assert_eq(corepool_http_perform(site.pool, &post, &response), COREPOOL_EPEER);
    close_site(&site);
}

static void reset_in_reply(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, HEAD "Content-Length: 10\r\n\r\nhalf");
    peer_reset(fd);
}

Test(http_peer, a_reset_in_the_middle_is_the_peers_failure)
{
    struct site site;
    corepool_http_response_t *response;
    open_site(&site, reset_in_reply, NULL);
    cr_assert_eq(get(&site, LAWS_PATIENCE_MS, &response), COREPOOL_EPEER);
    close_site(&site);
}

/* Answers after the head and reads no further. */
static void refuse_early(struct peer *peer, int fd, unsigned turn)
{
    char byte;
    (void)turn;
    if (recv(fd, &byte, 1, 0) != 1)
        return;
    peer_say(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    peer_await_order(peer, fd);
}

Test(http_peer, an_early_answer_to_a_long_request_is_the_answer)
{
    static char body[32u << 20];
    struct site site;
    corepool_http_response_t *response;
    corepool_http_request_t post = {.method = "POST", .path = "/", .body = body, .body_length = sizeof body};
    open_site(&site, refuse_early, NULL);
    cr_assert_eq(corepool_http_perform(site.pool, &post, &response), COREPOOL_OK, "%s",
                 corepool_error_detail());
    cr_assert_eq(response->status, 413);
    corepool_http_response_free(response);
    cr_assert(eventually_terminated(site.pool, 1), "half a request was sent on it");
    peer_order(&site.peer);
    close_site(&site);
}

/* ---- what is sent ---- */

static void reflect(struct peer *peer, int fd, unsigned turn)
{
    char head[1024], reply[1200];
    (void)turn;
    while (peer_read_request(peer, fd, 0, head, sizeof head) > 0) {
        snprintf(reply, sizeof reply, HEAD "Content-Length: %zu\r\n\r\n%s", strlen(head), head);
        peer_say(fd, reply);
    }
}

Test(http_peer, a_request_is_framed_by_the_library_and_goes_over_a_unix_socket_too)
{
    struct fixture fixture;
    struct peer peer;
    corepool_pool_t pool;
    corepool_http_response_t *response;
    corepool_http_header_t header = {"A", "b"};
    corepool_http_request_t request = {
        .method = "PUT", .path = "/x", .headers = &header, .header_count = 1, .body = "", .body_length = 0};
    peer_start_unix(&peer, reflect, NULL);
    fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.path = peer.path}};
    cr_assert_eq(corepool_pool_open(fixture.runtime, &corepool_http_class, &options, 1, NULL, &pool),
                 COREPOOL_OK);
    cr_assert_eq(corepool_http_perform(pool, &request, &response), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_str_eq(response->body, "PUT /x HTTP/1.1\r\nHost: localhost\r\nA: b\r\nContent-Length: 0\r\n\r\n");
    corepool_http_response_free(response);
    fixture_end(&fixture);
    peer_stop(&peer);
}
