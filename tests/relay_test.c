/* Promise: the relay example passes requests and replies on between clients and a real nginx, frames both anew,
 * refuses what is not HTTP, and stops cleanly at a signal. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fixture.h"
#include "support/nginx.h"
#include "support/peer.h"

struct site {
    struct fixture fixture;
    struct nginx nginx;
    pid_t relay;
    corepool_http_options_t options;
    corepool_pool_t pool; /* of connections to the relay */
};

static void start_relay(struct site *site, uint16_t port)
{
    extern char **environ;
    char ports[2][8];
    snprintf(ports[0], sizeof ports[0], "%u", port);
    snprintf(ports[1], sizeof ports[1], "%u", site->nginx.port);
    char *argv[] = {(char[]){"relay"}, ports[0], (char[]){"127.0.0.1"}, ports[1], NULL};
    cr_assert_eq(posix_spawn(&site->relay, RELAY, NULL, NULL, argv, environ), 0);
}

static void open_site(struct site *site)
{
    uint16_t port = free_port();
    corepool_pool_options_t tuning = {.backoff_max_ms = 50};
    *site = (struct site){0};
    nginx_start(&site->nginx);
    start_relay(site, port);
    site->fixture = fixture_start();
    site->options.stream = (corepool_stream_options_t){.host = "127.0.0.1", .port = port};
    cr_assert_eq(corepool_pool_open(site->fixture.runtime, &corepool_http_class, &site->options, 4, &tuning,
                                    &site->pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
}

static void close_site(struct site *site)
{
    int status;
    kill(site->relay, SIGINT);
    cr_assert_eq(waitpid(site->relay, &status, 0), site->relay);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the relay ended with status %#x",
              (unsigned)status);
    fixture_end(&site->fixture);
    nginx_end(&site->nginx);
}

static void check(struct site *site, const corepool_http_request_t *request, int status, const char *body)
{
    corepool_http_response_t *response;
    cr_assert_eq(corepool_http_perform(site->pool, request, &response), COREPOOL_OK, "%s",
                 corepool_error_detail());
    cr_assert_eq(response->status, status);
    cr_assert_null(corepool_http_response_header(response, "Transfer-Encoding"));
    if (body)
        cr_assert_str_eq(response->body, body);
    corepool_http_response_free(response);
}

Test(relay, passes_every_kind_of_reply_on)
{
    struct site site;
    corepool_http_header_t headers[] = {{"X-Test", "kept"}, {"TE", "trailers"}, {"Keep-Alive", "x"}};
    open_site(&site);
    for (int i = 0; i < 50; i++) {
        check(&site, &(corepool_http_request_t){.path = "/file"}, 200, NGINX_FILE);
        check(&site, &(corepool_http_request_t){.path = "/chunked"}, 200, NGINX_FILE);
        check(&site, &(corepool_http_request_t){.path = "/none"}, 204, "");
        check(&site, &(corepool_http_request_t){.path = "/last"}, 200, "last");
        check(&site, &(corepool_http_request_t){.path = "/missing"}, 404, NULL);
        check(&site, &(corepool_http_request_t){.path = "/file", .method = "HEAD"}, 200, "");
        check(&site,
              &(corepool_http_request_t){.path = "/echo",
                                         .method = "POST",
                                         .headers = headers,
                                         .header_count = 3,
                                         .body = "12345",
                                         .body_length = 5},
              200, "POST 5 kept");
    }
    cr_assert_eq(laws_stats(site.pool).terminated, 0, "its side of every connection is kept alive");
    close_site(&site);
}

Test(relay, a_big_reply_goes_out_as_the_client_takes_it)
{
    struct site site;
    open_site(&site);
    for (int i = 0; i < 20; i++) {
        corepool_http_response_t *response;
        cr_assert_eq(corepool_http_get(site.pool, "/big", &response), COREPOOL_OK, "%s",
                     corepool_error_detail());
        cr_assert_eq(response->body_length, NGINX_BIG_BYTES);
        corepool_http_response_free(response);
    }
    close_site(&site);
}

static void *get_many(void *arg)
{
    struct site *site = arg;
    for (int i = 0; i < 200; i++)
        check(site, &(corepool_http_request_t){.path = "/file"}, 200, NGINX_FILE);
    return NULL;
}

Test(relay, serves_many_clients_at_once)
{
    struct site site;
    pthread_t threads[4];
    open_site(&site);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, get_many, &site), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    close_site(&site);
}

/* Sends `text` on a connection of its own; the reply's first line must begin with `start`. */
static void check_raw(struct site *site, const char *text, const char *start)
{
    corepool_pool_t pool;
    corepool_lease_t lease;
    char reply[256];
    size_t used = 0;
    ssize_t count;
    cr_assert_eq(corepool_pool_open(site->fixture.runtime, &corepool_stream_class, &site->options.stream, 1,
                                    NULL, &pool),
                 COREPOOL_OK);
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK);
    cr_assert_eq(corepool_stream_send(&lease, text, strlen(text), LAWS_PATIENCE_MS), COREPOOL_OK);
    while (used < strlen(start)) {
        count = corepool_stream_receive(&lease, reply + used, sizeof reply - used, LAWS_PATIENCE_MS);
        cr_assert_gt(count, 0, "%s", corepool_error_detail());
        used += (size_t)count;
    }
    cr_assert_eq(strncmp(reply, start, strlen(start)), 0, "%.*s", (int)used, reply);
    cr_assert_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
}

Test(relay, what_is_not_a_request_gets_400)
{
    struct site site;
    open_site(&site);
    check(&site, &(corepool_http_request_t){.path = "/file"}, 200, NGINX_FILE);
    check_raw(&site, "bogus\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "GET / HTTP/1.1\r\nA b: c\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 400 ");
    check_raw(&site, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "GET http://a/ HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    check_raw(&site, "GET /none HTTP/1.1\r\nHost: a\r\n\r\nGET /file HTTP/1.1\r\nHost: a\r\n\r\n",
              "HTTP/1.1 204 ");
    close_site(&site);
}

#define PIPELINED "GET /none HTTP/1.1\r\nHost: a\r\n\r\n"
#define PIPELINED_COUNT 2000 /* more than fits into the relay's input */

/* The client says at once all that it has to say, and that this was it. */
Test(relay, pipelined_requests_are_read_as_they_are_answered_and_all_are)
{
    struct site site;
    corepool_pool_t pool;
    corepool_lease_t lease;
    static char requests[PIPELINED_COUNT * (sizeof PIPELINED - 1) + 1], reply[1 << 20];
    size_t used = 0;
    ssize_t count;
    unsigned answered = 0;
    open_site(&site);
    char *end = requests;
    for (int i = 0; i < PIPELINED_COUNT; i++)
        end = stpcpy(end, PIPELINED);
    cr_assert_eq(
        corepool_pool_open(site.fixture.runtime, &corepool_stream_class, &site.options.stream, 1, NULL, &pool),
        COREPOOL_OK);
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK);
    cr_assert_eq(corepool_stream_send(&lease, requests, (size_t)(end - requests), LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_assert_eq(shutdown(corepool_stream_fd(&lease), SHUT_WR), 0);
    while ((count = corepool_stream_receive(&lease, reply + used, sizeof reply - 1 - used, LAWS_PATIENCE_MS)) > 0)
        used += (size_t)count;
    cr_assert_eq(count, 0, "%s", corepool_error_detail());
    reply[used] = '\0';
    for (const char *at = reply; (at = strstr(at, "HTTP/1.1 204 ")); at++)
        answered++;
    cr_assert_eq(answered, PIPELINED_COUNT);
    cr_assert_eq(corepool_checkin_remove(&lease), COREPOOL_OK);
    close_site(&site);
}

Test(relay, an_origin_that_is_down_is_a_gateway_error_until_it_is_back)
{
    struct site site;
    open_site(&site);
    check(&site, &(corepool_http_request_t){.path = "/file"}, 200, NGINX_FILE);
    nginx_kill(&site.nginx);
    check(&site, &(corepool_http_request_t){.path = "/file"}, 504, "");
    nginx_restart(&site.nginx);
    check(&site, &(corepool_http_request_t){.path = "/file"}, 200, NGINX_FILE);
    close_site(&site);
}
