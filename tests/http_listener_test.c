/* Promise: a listener's clients get what they ask for, in order, whatever the others do: those that are slow
 * are hung up on, and those for whom there is no descriptor wait. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "support/fixture.h"
#include "support/peer.h"

#define ASK "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define REPLY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define PIPELINED 1000
/* Far more than the sockets between hold. */
#define BIG_BYTES (16u << 20)

static struct fixture fixture;
static struct sockaddr_in address;
static corepool_http_listener_t *listener;
static corepool_http_listener_limits_t limits;
static corepool_http_response_t response = {.status = 200};
static corepool_http_exchange_t *kept;
static sem_t is_kept;
static int status;

static void serve(corepool_http_exchange_t *exchange, const corepool_http_request_t *request, void *arg)
{
    (void)arg;
    if (strcmp(request->path, "/later") != 0) {
        corepool_http_exchange_reply(exchange, &response);
        return;
    }
    kept = exchange;
    sem_post(&is_kept);
}

static corepool_http_serve_cb server;

static void open_listener(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    status = corepool_http_listener_open((const struct sockaddr *)&address, server, NULL, &listener);
    if (status == COREPOOL_OK)
        status = corepool_http_listener_limit(listener, &limits);
    fixture_done();
}

static void start(corepool_http_serve_cb serve_cb)
{
    server = serve_cb;
    sem_init(&is_kept, 0, 0);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(free_port())};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fixture = fixture_start();
    cr_assert(on_shard(&fixture, 0, open_listener, NULL));
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
}

static void close_listener(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    corepool_http_listener_close(listener);
    fixture_done();
}

static void end(void)
{
    cr_assert(on_shard(&fixture, 0, close_listener, NULL));
    fixture_end(&fixture);
}

/* ---- a client ---- */

static void enter(int fd)
{
    struct timeval patience = {.tv_sec = LAWS_PATIENCE_MS / 1000};
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
}

static int connected(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_geq(fd, 0);
    enter(fd);
    return fd;
}

static void say(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void expect_replies(int fd, unsigned count)
{
    char text[sizeof REPLY];
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(recv(fd, text, sizeof REPLY - 1, MSG_WAITALL), (ssize_t)sizeof REPLY - 1, "reply %u of %u",
                     i, count);
        cr_assert_eq(memcmp(text, REPLY, sizeof REPLY - 1), 0);
    }
}

/* Reads to the end: how much came before it. */
static size_t read_to_end(int fd)
{
    static char bytes[65536];
    size_t sum = 0;
    ssize_t count;
    while ((count = recv(fd, bytes, sizeof bytes, 0)) > 0)
        sum += (size_t)count;
    cr_assert(count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK), "it was not hung up on");
    close(fd);
    return sum;
}

/* ---- deadlines ---- */

Test(http_listener, an_idle_client_is_hung_up_on)
{
    limits.idle_ms = 20;
    start(serve);
    int silent = connected(), asked = connected();
    say(asked, ASK);
    expect_replies(asked, 1);
    cr_expect_eq(read_to_end(silent), 0);
    cr_expect_eq(read_to_end(asked), 0);
    end();
}

Test(http_listener, single_bytes_do_not_renew_a_requests_deadline)
{
    limits.request_ms = 40;
    start(serve);
    int fd = connected();
    int64_t until = laws_now_ms() + LAWS_PATIENCE_MS;
    say(fd, "GET / HTTP/1.1\r\nA: ");
    while (send(fd, "b", 1, MSG_NOSIGNAL) == 1 && laws_now_ms() < until)
        poll(NULL, 0, 5);
    cr_expect_lt(laws_now_ms(), until);
    close(fd);
    end();
}

Test(http_listener, who_does_not_take_its_reply_is_hung_up_on)
{
    char *body = calloc(1, BIG_BYTES);
    limits.reply_ms = 40;
    response.body = body;
    response.body_length = BIG_BYTES;
    start(serve);
    int fd = connected();
    say(fd, ASK);
    poll(NULL, 0, 500);
    cr_expect_lt(read_to_end(fd), BIG_BYTES);
    end();
    free(body);
}

static void answer_kept(corepool_shard_t *shard, void *arg)
{
    (void)shard, (void)arg;
    corepool_http_exchange_reply(kept, &response);
    fixture_done();
}

Test(http_listener, who_waits_for_the_program_is_not_hung_up_on)
{
    limits = (corepool_http_listener_limits_t){.idle_ms = 10, .request_ms = 10, .reply_ms = 10};
    start(serve);
    int fd = connected();
    say(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    sem_wait(&is_kept);
    poll(NULL, 0, 100);
    cr_assert(on_shard(&fixture, 0, answer_kept, NULL));
    expect_replies(fd, 1);
    read_to_end(fd);
    end();
}

static void set_bad_limits(corepool_shard_t *shard, void *arg)
{
    (void)shard;
    status = corepool_http_listener_limit(listener, arg);
    fixture_done();
}

Test(http_listener, a_bad_limit_is_an_error)
{
    corepool_http_listener_limits_t bad[] = {{.idle_ms = -2}, {.request_ms = -2}, {.reply_ms = INT64_MAX}};
    start(serve);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert(on_shard(&fixture, 0, set_bad_limits, &bad[i]));
        cr_expect_eq(status, COREPOOL_EINVAL);
    }
    end();
}

/* ---- many requests, few descriptors ---- */

/* A program may well have so much on its stack. */
static void serve_amply(corepool_http_exchange_t *exchange, const corepool_http_request_t *request, void *arg)
{
    volatile char page[16384];
    (void)request, (void)arg;
    for (unsigned i = 0; i < sizeof page; i += 512)
        page[i] = 0;
    corepool_http_exchange_reply(exchange, &response);
    page[0]++;
}

Test(http_listener, a_thousand_requests_at_once_do_not_use_up_the_stack)
{
    static char requests[sizeof ASK * PIPELINED];
    char *at = requests;
    for (unsigned i = 0; i < PIPELINED; i++)
        at = stpcpy(at, ASK);
    start(serve_amply);
    int fd = connected();
    say(fd, requests);
    expect_replies(fd, PIPELINED);
    close(fd);
    end();
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

Test(http_listener, who_comes_when_descriptors_are_used_up_waits_while_others_are_served)
{
    static int used[4096];
    unsigned count = 0;
    start(serve);
    int early = connected(), late = socket(AF_INET, SOCK_STREAM, 0);
    say(early, ASK);
    expect_replies(early, 1);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    while (count < 4096 && (used[count] = dup(early)) >= 0)
        count++;
    enter(late);
    say(late, ASK);
    double before = cpu_seconds();
    poll(NULL, 0, 300);
    double busy = cpu_seconds() - before;
    say(early, ASK);
    expect_replies(early, 1);
    while (count-- > 0)
        close(used[count]);
    expect_replies(late, 1);
    cr_expect_lt(busy, 0.1, "%g s of CPU in 0.3 s", busy);
    close(early);
    close(late);
    end();
}
