/* Promise: requests of shard code complete exactly once, on their shard, with the blocking client's outcomes;
 * in steady state over connections that are never opened twice. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "support/fixture.h"
#include "support/nginx.h"
#include "support/peer.h"

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define ON_SHARD (COREPOOL_STREAM_ON_SHARD | COREPOOL_STREAM_QUIET)

static corepool_pool_t open_pool(struct fixture *fixture, corepool_http_options_t *options, unsigned size,
                                 unsigned flags)
{
    corepool_pool_options_t tuning = {.backoff_max_ms = 50, .flags = flags};
    corepool_pool_t pool;
    cr_assert_eq(corepool_pool_open(fixture->runtime, &corepool_http_class, options, size, &tuning, &pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
    return pool;
}

/* `total` requests, `width` at a time, each started from the callback of one before. */
struct run {
    corepool_pool_t pool;
    corepool_http_request_t request;
    unsigned total, width;
    unsigned started, ended, good;
    corepool_shard_t *shard;
    int status;       /* of the last */
    char body[32];    /* of the last */
    char detail[256]; /* of the last failure */
    bool off_shard;   /* a callback ran elsewhere */
};

static void start_one(struct run *run);

static void on_reply(int status, const corepool_http_response_t *response, void *arg)
{
    struct run *run = arg;
    run->ended++;
    run->status = status;
    run->off_shard |= corepool_shard_current() != run->shard;
    if (status == COREPOOL_OK) {
        run->good += response->status == 200;
        snprintf(run->body, sizeof run->body, "%.*s", (int)(response->body_length % sizeof run->body),
                 response->body);
    } else {
        snprintf(run->detail, sizeof run->detail, "%s", corepool_error_detail());
    }
    if (run->started < run->total)
        start_one(run);
    else if (run->ended == run->total)
        fixture_done();
}

static void start_one(struct run *run)
{
    run->started++;
    int status = corepool_http_perform_async(run->pool, &run->request, on_reply, run);
    if (status != COREPOOL_OK)
        on_reply(status, NULL, run);
}

static void start_run(corepool_shard_t *shard, void *arg)
{
    struct run *run = arg;
    run->shard = shard;
    for (unsigned i = 0; i < run->width; i++)
        start_one(run);
}

/* On one shard; all are answered with 200 unless `run->status` is looked at. */
static void go(struct fixture *fixture, unsigned shard, struct run *run)
{
    cr_assert(on_shard(fixture, shard, start_run, run), "%u of %u ended", run->ended, run->total);
    cr_assert_eq(run->ended, run->total);
    cr_assert_not(run->off_shard);
}

Test(http_async, a_chain_of_requests_uses_one_connection)
{
    struct nginx nginx;
    nginx_start(&nginx);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = nginx.port, .flags = ON_SHARD}};
    corepool_pool_t pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD);
    for (unsigned shard = 0; shard < corepool_runtime_shards(fixture.runtime); shard++) {
        struct run run = {.pool = pool, .request.path = "/file", .total = 1000, .width = 1};
        go(&fixture, shard, &run);
        cr_assert_eq(run.good, 1000, "%s", run.detail);
        cr_assert_str_eq(run.body, NGINX_FILE);
    }
    cr_assert_eq(laws_stats(pool).opens, corepool_runtime_shards(fixture.runtime));
    fixture_end(&fixture);
    nginx_end(&nginx);
}

Test(http_async, many_at_once_share_few_connections_and_are_all_answered)
{
    static const char *const paths[] = {"/file", "/chunked", "/big", "/last", "/three"};
    struct nginx nginx;
    nginx_start(&nginx);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = nginx.port, .flags = ON_SHARD}};
    corepool_pool_t pool = open_pool(&fixture, &options, 4, COREPOOL_POOL_PER_SHARD | COREPOOL_POOL_LAZY);
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct run run = {.pool = pool, .request.path = paths[i], .total = 200, .width = 32};
        go(&fixture, i % corepool_runtime_shards(fixture.runtime), &run);
        cr_assert_eq(run.good, 200, "%s: %s", paths[i], run.detail);
    }
    fixture_end(&fixture);
    nginx_end(&nginx);
}

Test(http_async, any_shard_may_use_connections_that_threads_use_too)
{
    struct nginx nginx;
    nginx_start(&nginx);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = nginx.port}};
    corepool_pool_t pool = open_pool(&fixture, &options, 1, 0); /* lives on one of the shards */
    for (unsigned shard = 0; shard < corepool_runtime_shards(fixture.runtime); shard++) {
        struct run run = {.pool = pool, .request.path = "/file", .total = 50, .width = 2};
        corepool_http_response_t *response;
        go(&fixture, shard, &run);
        cr_assert_eq(run.good, 50, "%s", run.detail);
        cr_assert_eq(corepool_http_get(pool, "/chunked", &response), COREPOOL_OK);
        corepool_http_response_free(response);
    }
    cr_assert_eq(laws_stats(pool).opens, 1);
    fixture_end(&fixture);
    nginx_end(&nginx);
}

Test(http_async, a_long_request_is_sent_as_the_peer_takes_it)
{
    static char body[8u << 20];
    struct nginx nginx;
    nginx_start(&nginx);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = nginx.port, .flags = ON_SHARD}};
    struct run run = {.pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD),
                      .request = {.method = "POST", .path = "/echo", .body = body, .body_length = sizeof body},
                      .total = 3,
                      .width = 1};
    go(&fixture, 0, &run);
    cr_assert_eq(run.good, 3, "%s", run.detail);
    cr_assert_str_eq(run.body, "POST 8388608 ");
    fixture_end(&fixture);
    nginx_end(&nginx);
}

Test(http_async, a_peer_that_is_down_is_named_and_served_when_it_is_back)
{
    struct nginx nginx;
    char why[64];
    nginx_start(&nginx);
    nginx_kill(&nginx);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = nginx.port, .flags = ON_SHARD}};
    struct run run = {.pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD),
                      .request = {.path = "/file", .pool_timeout_ms = 100},
                      .total = 4,
                      .width = 4};
    go(&fixture, 0, &run);
    cr_assert_eq(run.status, COREPOOL_ETIMEDOUT);
    snprintf(why, sizeof why, "connect 127.0.0.1:%u: connection refused", nginx.port);
    cr_assert(strstr(run.detail, why), "\"%s\" lacks \"%s\"", run.detail, why);
    nginx_restart(&nginx);
    struct run again = {.pool = run.pool, .request.path = "/file", .total = 4, .width = 4};
    go(&fixture, 0, &again);
    cr_assert_eq(again.good, 4, "%s", again.detail);
    fixture_end(&fixture);
    nginx_end(&nginx);
}

static void swallow(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    peer_await_close(peer, fd);
}

Test(http_async, the_receive_timeout_ends_a_request_and_its_connection)
{
    struct peer peer;
    peer_start(&peer, swallow, NULL);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = peer.port, .flags = ON_SHARD}};
    struct run run = {.pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD),
                      .request = {.path = "/", .receive_timeout_ms = 60},
                      .total = 2,
                      .width = 1};
    int64_t start = laws_now_ms();
    go(&fixture, 0, &run);
    cr_assert_geq(laws_now_ms() - start, 120);
    cr_assert_eq(run.status, COREPOOL_ETIMEDOUT);
    cr_assert(strstr(run.detail, "no byte of a reply came"), "%s", run.detail);
    cr_assert(eventually_terminated(run.pool, 2));
    fixture_end(&fixture);
    peer_stop(&peer);
}

static bool has_one_host(const char *head)
{
    const char *first = strstr(head, "\r\nHost: ");
    return first && !strstr(first + 1, "\r\nHost: ");
}

/* The first connection answers once and closes on the second request. */
static void grow_stale(struct peer *peer, int fd, unsigned turn)
{
    char head[256];
    while (peer_read_request(peer, fd, 0, head, sizeof head) > 0) {
        peer_say(fd, has_one_host(head) ? OK_REPLY : "HTTP/1.1 400 Host\r\nContent-Length: 0\r\n\r\n");
        if (turn == 0) {
            peer_read_request(peer, fd, 0, NULL, 0);
            return;
        }
    }
}

Test(http_async, a_get_on_a_stale_connection_is_sent_once_more)
{
    struct peer peer;
    peer_start(&peer, grow_stale, NULL);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = peer.port, .flags = ON_SHARD}};
    corepool_pool_t pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD | COREPOOL_POOL_LAZY);
    struct run run = {.pool = pool, .request.path = "/", .total = 4, .width = 1};
    go(&fixture, 0, &run);
    cr_assert_eq(run.good, 4, "%s", run.detail);
    cr_assert_eq(laws_stats(pool).opens, 2);
    fixture_end(&fixture);
    peer_stop(&peer);
}

static void speak_unasked(struct peer *peer, int fd, unsigned turn)
{
    if (peer_read_request(peer, fd, 0, NULL, 0) < 0)
        return;
    peer_say(fd, OK_REPLY);
    if (turn == 0 && peer_await_order(peer, fd) == 0)
        peer_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    peer_await_close(peer, fd);
}

Test(http_async, bytes_on_an_idle_connection_evict_it_at_once)
{
    struct peer peer;
    peer_start(&peer, speak_unasked, NULL);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = peer.port, .flags = ON_SHARD}};
    corepool_pool_t pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD | COREPOOL_POOL_LAZY);
    for (unsigned round = 0; round < 2; round++) {
        struct run run = {.pool = pool, .request.path = "/", .total = 1, .width = 1};
        go(&fixture, 0, &run);
        cr_assert_str_eq(run.body, "ok", "%s", run.detail);
        if (round == 0) {
            peer_order(&peer);
            cr_assert(eventually_terminated(pool, 1));
        }
    }
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* /late is answered after 400 ms, /never not at all. */
static void hesitate(struct peer *peer, int fd, unsigned turn)
{
    char head[256];
    (void)turn;
    while (peer_read_request(peer, fd, 0, head, sizeof head) > 0) {
        if (strstr(head, " /never "))
            peer_await_close(peer, fd);
        else if (!strstr(head, " /late ") || peer_pause(peer, 400) == 0)
            peer_say(fd, OK_REPLY);
    }
}

static int64_t ask(struct fixture *fixture, struct run *run, const char *path, int64_t receive_timeout_ms)
{
    int64_t start = laws_now_ms();
    run->request = (corepool_http_request_t){.path = path, .receive_timeout_ms = receive_timeout_ms};
    run->started = run->ended = 0;
    run->total = run->width = 1;
    go(fixture, 0, run);
    return laws_now_ms() - start;
}

Test(http_async, each_request_on_a_connection_has_its_own_deadline)
{
    static const struct {
        int64_t first_ms; /* of a request that is answered at once, on the same connection */
        const char *path;
        int64_t second_ms;
        int status;
    } cases[] = {{300, "/late", 15000, COREPOOL_OK},
                 {300, "/late", COREPOOL_INFINITE, COREPOOL_OK},
                 {300, "/never", 350, COREPOOL_ETIMEDOUT},
                 {15000, "/never", 50, COREPOOL_ETIMEDOUT},
                 {COREPOOL_INFINITE, "/never", 50, COREPOOL_ETIMEDOUT}};
    struct peer peer;
    peer_start(&peer, hesitate, NULL);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = peer.port, .flags = ON_SHARD}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run run = {.pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD | COREPOOL_POOL_LAZY)};
        ask(&fixture, &run, "/", cases[i].first_ms);
        cr_assert_eq(run.status, COREPOOL_OK, "case %u: %s", i, run.detail);
        int64_t took = ask(&fixture, &run, cases[i].path, cases[i].second_ms);
        cr_assert_eq(run.status, cases[i].status, "case %u: %s", i, run.detail);
        cr_assert(run.status == COREPOOL_OK || (took >= cases[i].second_ms && took < LAWS_PATIENCE_MS), "case %u: %lld ms", i,
                  (long long)took);
        cr_assert_eq(laws_stats(run.pool).opens, 1);
        cr_assert_eq(corepool_pool_close(run.pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    }
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* ---- calls that are refused ---- */

struct refusals {
    corepool_pool_t pool;
    int blocking, no_callback, bad_path, no_request;
    unsigned callbacks;
};

static void count_callback(int status, const corepool_http_response_t *response, void *arg)
{
    (void)status, (void)response;
    ((struct refusals *)arg)->callbacks++;
}

static void try_refusals(corepool_shard_t *shard, void *arg)
{
    struct refusals *seen = arg;
    corepool_http_response_t *response;
    corepool_http_request_t bad = {.path = "no slash"}, good = {.path = "/"};
    (void)shard;
    seen->blocking = corepool_http_get(seen->pool, "/", &response);
    seen->no_callback = corepool_http_perform_async(seen->pool, &good, NULL, seen);
    seen->bad_path = corepool_http_perform_async(seen->pool, &bad, count_callback, seen);
    seen->no_request = corepool_http_perform_async(seen->pool, NULL, count_callback, seen);
    fixture_done();
}

Test(http_async, misuse_is_an_error_code_and_no_callback)
{
    struct peer peer;
    peer_start(&peer, swallow, NULL);
    struct fixture fixture = fixture_start();
    corepool_http_options_t options = {.stream = {.host = "127.0.0.1", .port = peer.port, .flags = ON_SHARD}};
    struct refusals seen = {.pool = open_pool(&fixture, &options, 1, COREPOOL_POOL_PER_SHARD)};
    corepool_http_request_t request = {.path = "/"};
    corepool_http_response_t *response;
    cr_assert(on_shard(&fixture, 0, try_refusals, &seen));
    cr_assert_eq(seen.blocking, COREPOOL_EDEADLK);
    cr_assert_eq(seen.no_callback, COREPOOL_EINVAL);
    cr_assert_eq(seen.bad_path, COREPOOL_EINVAL);
    cr_assert_eq(seen.no_request, COREPOOL_EINVAL);
    cr_assert_eq(seen.callbacks, 0);
    cr_assert_eq(corepool_http_perform_async(seen.pool, &request, count_callback, &seen), COREPOOL_ETHREAD);
    cr_assert_eq(corepool_http_get(seen.pool, "/", &response), COREPOOL_ESKIPPED, "an ON_SHARD pool");
    fixture_end(&fixture);
    peer_stop(&peer);
}
