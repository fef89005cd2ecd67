/* Promise: the HTTP client gets from a real nginx what nginx has to give, keeps connections alive as long as
 * nginx does, and goes on when nginx goes down and comes back. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support/fixture.h"
#include "support/nginx.h"

struct site {
    struct fixture fixture;
    struct nginx nginx;
    corepool_http_options_t options;
    corepool_pool_t pool;
};

static void open_pool(struct site *site, unsigned size)
{
    corepool_pool_options_t tuning = {.backoff_max_ms = 100};
    site->options.stream = (corepool_stream_options_t){.host = "127.0.0.1", .port = site->nginx.port};
    cr_assert_eq(corepool_pool_open(site->fixture.runtime, &corepool_http_class, &site->options, size, &tuning,
                                    &site->pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
}

static void open_site(struct site *site, unsigned size)
{
    *site = (struct site){0};
    nginx_start(&site->nginx);
    site->fixture = fixture_start();
    open_pool(site, size);
}

static void close_site(struct site *site)
{
    fixture_end(&site->fixture);
    nginx_end(&site->nginx);
}

static corepool_http_response_t *get(corepool_pool_t pool, const char *path)
{
    corepool_http_response_t *response;
    cr_assert_eq(corepool_http_get(pool, path, &response), COREPOOL_OK, "%s: %s", path,
                 corepool_error_detail());
    return response;
}

static void check_get(corepool_pool_t pool, const char *path, int status, const char *body)
{
    corepool_http_response_t *response = get(pool, path);
    cr_assert_eq(response->status, status);
    if (body)
        cr_assert_str_eq(response->body, body);
    corepool_http_response_free(response);
}

static corepool_http_response_t *perform(corepool_pool_t pool, const corepool_http_request_t *request)
{
    corepool_http_response_t *response;
    cr_assert_eq(corepool_http_perform(pool, request, &response), COREPOOL_OK, "%s", corepool_error_detail());
    return response;
}

Test(http, get_returns_status_headers_and_body)
{
    struct site site;
    open_site(&site, 1);
    corepool_http_response_t *response = get(site.pool, "/file");
    cr_assert_eq(response->status, 200);
    cr_assert_str_eq(response->body, NGINX_FILE);
    cr_assert_eq(response->body_length, strlen(NGINX_FILE));
    cr_assert_str_eq(corepool_http_response_header(response, "CONTENT-length"), "17");
    cr_assert_str_eq(corepool_http_response_header(response, "Content-Type"), "text/plain");
    cr_assert_null(corepool_http_response_header(response, "X-None"));
    corepool_http_response_free(response);
    check_get(site.pool, "/missing", 404, NULL);
    close_site(&site);
}

Test(http, every_framing_leaves_the_connection_in_step)
{
    struct site site;
    open_site(&site, 1);
    for (int i = 0; i < 20; i++) {
        check_get(site.pool, "/chunked", 200, NGINX_FILE);
        check_get(site.pool, "/none", 204, "");
        check_get(site.pool, "/file", 200, NGINX_FILE);
        corepool_http_response_t *head =
            perform(site.pool, &(corepool_http_request_t){.method = "HEAD", .path = "/file"});
        cr_assert_eq(head->status, 200);
        cr_assert_eq(head->body_length, 0);
        cr_assert_str_eq(corepool_http_response_header(head, "Content-Length"), "17");
        corepool_http_response_free(head);
    }
    corepool_http_response_t *chunked = get(site.pool, "/chunked");
    cr_assert_str_eq(corepool_http_response_header(chunked, "Transfer-Encoding"), "chunked",
                     "or it tests nothing");
    corepool_http_response_free(chunked);
    cr_assert_eq(laws_stats(site.pool).opens, 1, "one connection served them all");
    close_site(&site);
}

Test(http, a_not_modified_reply_has_no_body)
{
    struct site site;
    open_site(&site, 1);
    corepool_http_response_t *first = get(site.pool, "/file");
    corepool_http_header_t since = {"If-Modified-Since", corepool_http_response_header(first, "Last-Modified")};
    corepool_http_request_t request = {.path = "/file", .headers = &since, .header_count = 1};
    corepool_http_response_t *second = perform(site.pool, &request);
    cr_assert_eq(second->status, 304);
    cr_assert_eq(second->body_length, 0);
    corepool_http_response_free(first);
    corepool_http_response_free(second);
    check_get(site.pool, "/file", 200, NGINX_FILE);
    cr_assert_eq(laws_stats(site.pool).opens, 1);
    close_site(&site);
}

Test(http, method_headers_and_body_reach_the_server)
{
    struct site site;
    static char body[300000];
    open_site(&site, 1);
    corepool_http_header_t headers[] = {{"X-Test", "one\ttwo"}, {"Accept", "*/*"}};
    corepool_http_request_t request = {.method = "POST",
                                       .path = "/echo?a=b",
                                       .headers = headers,
                                       .header_count = 2,
                                       .body = "12345",
                                       .body_length = 5};
    corepool_http_response_t *response = perform(site.pool, &request);
    cr_assert_str_eq(response->body, "POST 5 one\ttwo");
    corepool_http_response_free(response);
    request.body = body;
    request.body_length = sizeof body;
    response = perform(site.pool, &request);
    cr_assert_str_eq(response->body, "POST 300000 one\ttwo");
    corepool_http_response_free(response);
    check_get(site.pool, "/file", 200, NGINX_FILE);
    close_site(&site);
}

Test(http, a_big_body_arrives_whole_and_a_limit_stops_it)
{
    struct site site;
    open_site(&site, 1);
    corepool_http_response_t *response = get(site.pool, "/big");
    cr_assert_eq(response->body_length, NGINX_BIG_BYTES);
    for (size_t i = 0; i < response->body_length; i++)
        cr_assert_eq(response->body[i], 'a' + (int)(i % 26));
    corepool_http_response_free(response);

    corepool_http_options_t limited = {.stream = site.options.stream, .max_body = 1000};
    corepool_pool_t pool;
    cr_assert_eq(corepool_pool_open(site.fixture.runtime, &corepool_http_class, &limited, 1, NULL, &pool), 0);
    cr_assert_eq(corepool_http_get(pool, "/big", &response), COREPOOL_ELIMIT);
    cr_assert_null(response);
    check_get(pool, "/file", 200, NGINX_FILE);
    close_site(&site);
}

Test(http, a_server_that_closes_after_its_reply_is_served_by_new_connections)
{
    struct site site;
    open_site(&site, 1);
    for (int i = 0; i < 10; i++)
        check_get(site.pool, "/last", 200, "last");
    for (int i = 0; i < 10; i++)
        check_get(site.pool, "/three", 200, "three");
    corepool_stats_t stats = laws_stats(site.pool);
    cr_assert_eq(stats.timeouts, 0);
    cr_assert_geq(stats.terminated, 12);
    close_site(&site);
}

Test(http, a_connection_that_the_server_closes_while_idle_is_evicted_at_once)
{
    struct site site;
    open_site(&site, 1);
    check_get(site.pool, "/hasty", 200, "hasty");
    cr_assert(eventually_terminated(site.pool, 1));
    check_get(site.pool, "/file", 200, NGINX_FILE);
    close_site(&site);
}

Test(http, a_server_that_is_down_at_start_is_served_once_it_is_up)
{
    struct site site;
    char why[64];
    open_site(&site, 1);
    cr_assert_eq(corepool_pool_close(site.pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    nginx_kill(&site.nginx);
    open_pool(&site, 2);

    corepool_http_request_t brief = {.path = "/file", .pool_timeout_ms = 150};
    corepool_http_response_t *response;
    cr_assert_eq(corepool_http_perform(site.pool, &brief, &response), COREPOOL_ETIMEDOUT);
    snprintf(why, sizeof why, "connect 127.0.0.1:%u: connection refused", site.nginx.port);
    cr_assert(strstr(corepool_error_detail(), why), "\"%s\" lacks \"%s\"", corepool_error_detail(), why);

    nginx_restart(&site.nginx);
    int64_t start = laws_now_ms();
    check_get(site.pool, "/file", 200, NGINX_FILE);
    cr_assert_lt(laws_now_ms() - start, 1000, "a back-off step is at most 100 ms");
    close_site(&site);
}

Test(http, when_the_server_is_killed_no_client_gets_a_dead_connection)
{
    struct site site;
    open_site(&site, 4);
    cr_assert(eventually_idle(site.pool, 4));
    for (int round = 0; round < 3; round++) {
        uint64_t before = laws_stats(site.pool).terminated;
        nginx_kill(&site.nginx);
        cr_assert(eventually_terminated(site.pool, before + 4), "all are evicted without being asked for");
        cr_assert(eventually_idle(site.pool, 0));
        nginx_restart(&site.nginx);
        check_get(site.pool, "/file", 200, NGINX_FILE);
        cr_assert(eventually_idle(site.pool, 4));
    }
    close_site(&site);
}

#define THREADS 4
#define GETS 300

static void *get_many(void *arg)
{
    static const char *const paths[] = {"/file", "/chunked", "/none", "/last", "/three", "/missing"};
    static const int statuses[] = {200, 200, 204, 200, 200, 404};
    corepool_pool_t *pool = arg;
    uintptr_t good = 0;
    for (int i = 0; i < GETS; i++) {
        corepool_http_response_t *response;
        int kind = i % 6;
        if (corepool_http_get(*pool, paths[kind], &response) != COREPOOL_OK)
            continue;
        good += response->status == statuses[kind];
        corepool_http_response_free(response);
    }
    return (void *)good;
}

Test(http, threads_that_share_a_small_pool_are_all_answered)
{
    struct site site;
    pthread_t threads[THREADS];
    open_site(&site, 2);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, get_many, &site.pool), 0);
    for (int i = 0; i < THREADS; i++) {
        void *good;
        pthread_join(threads[i], &good);
        cr_assert_eq((uintptr_t)good, GETS);
    }
    close_site(&site);
}

Test(http, wrong_requests_are_refused_by_name_and_cost_no_connection)
{
    static const corepool_http_header_t host = {"Host", "x"}, length = {"content-length", "3"},
                                        spaced = {"a b", "c"}, broken = {"A", "b\r\nC: d"}, null = {"A", NULL};
    static const struct {
        corepool_http_request_t request;
        const char *field;
    } cases[] = {
        {{.path = NULL}, "path"},
        {{.path = "file"}, "path"},
        {{.path = "/a b"}, "path"},
        {{.path = "/a\r\nX: y"}, "path"},
        {{.path = "/", .method = "GE T"}, "method"},
        {{.path = "/", .method = "CONNECT"}, "method"},
        {{.path = "/", .headers = &host, .header_count = 1}, "Host"},
        {{.path = "/", .headers = &length, .header_count = 1}, "content-length"},
        {{.path = "/", .headers = &spaced, .header_count = 1}, "a b"},
        {{.path = "/", .headers = &broken, .header_count = 1}, "headers: A"},
        {{.path = "/", .headers = &null, .header_count = 1}, "headers"},
        {{.path = "/", .header_count = 1}, "headers"},
        {{.path = "/", .body_length = 1}, "body"},
        {{.path = "/", .pool_timeout_ms = -2}, "pool_timeout_ms"},
        {{.path = "/", .receive_timeout_ms = -2}, "receive_timeout_ms"},
    };
    struct site site;
    corepool_http_response_t *response;
    open_site(&site, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(corepool_http_perform(site.pool, &cases[i].request, &response), COREPOOL_EINVAL,
                     "case %zu", i);
        cr_assert(strstr(corepool_error_detail(), cases[i].field), "case %zu: %s", i, corepool_error_detail());
        cr_assert_null(response);
    }
    cr_assert_eq(laws_stats(site.pool).checkouts, 0);
    cr_assert_eq(corepool_http_get(site.pool, "/file", NULL), COREPOOL_EINVAL);
    corepool_http_response_free(NULL);

    corepool_stream_options_t plain = site.options.stream;
    corepool_pool_t stream;
    cr_assert_eq(corepool_pool_open(site.fixture.runtime, &corepool_stream_class, &plain, 1, NULL, &stream), 0);
    cr_assert_eq(corepool_http_get(stream, "/file", &response), COREPOOL_EINVAL, "not an HTTP pool");
    site.options.max_head = COREPOOL_HTTP_HEAD_MAX + 1;
    cr_assert_eq(
        corepool_pool_open(site.fixture.runtime, &corepool_http_class, &site.options, 1, NULL, &stream),
        COREPOOL_EINVAL);
    cr_assert(strstr(corepool_error_detail(), "max_head"));
    close_site(&site);
}
