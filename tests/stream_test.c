/* Promise: stream workers connect off the pool's critical path and within their time, say why they cannot,
 * carry bytes both ways, and a connection that its peer has spoilt or closed is never handed out. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fixture.h"
#include "support/peer.h"

#define BULK (1u << 20)

static corepool_pool_t open_pool(struct fixture *fixture, const corepool_stream_options_t *options,
                                 unsigned size)
{
    corepool_pool_options_t tuning = {.backoff_max_ms = 50};
    corepool_pool_t pool;
    cr_assert_eq(corepool_pool_open(fixture->runtime, &corepool_stream_class, (void *)(uintptr_t)options, size,
                                    &tuning, &pool),
                 COREPOOL_OK, "%s", corepool_error_detail());
    return pool;
}

static corepool_lease_t take(corepool_pool_t pool)
{
    corepool_lease_t lease;
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK, "%s", corepool_error_detail());
    return lease;
}

/* ---- scripts ---- */

static void echo(struct peer *peer, int fd, unsigned turn)
{
    char buffer[65536];
    ssize_t count;
    (void)peer, (void)turn;
    while ((count = recv(fd, buffer, sizeof buffer, 0)) > 0)
        peer_write(fd, buffer, (size_t)count);
}

static void greet(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    peer_say(fd, "welcome");
    peer_await_close(peer, fd);
}

/* At an order: bytes that no one asked for. */
static void speak_at_order(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    if (peer_await_order(peer, fd) == 0)
        peer_say(fd, "surprise");
    peer_await_close(peer, fd);
}

static void close_at_order(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    peer_await_order(peer, fd);
}

/* ---- bytes ---- */

static void check_echo(corepool_lease_t *lease, const char *text)
{
    char reply[64] = "";
    size_t length = strlen(text), used = 0;
    cr_assert_eq(corepool_stream_send(lease, text, length, LAWS_PATIENCE_MS), COREPOOL_OK, "%s",
                 corepool_error_detail());
    while (used < length) {
        ssize_t count = corepool_stream_receive(lease, reply + used, sizeof reply - used, LAWS_PATIENCE_MS);
        cr_assert_gt(count, 0, "%s", corepool_error_detail());
        used += (size_t)count;
    }
    cr_assert_str_eq(reply, text);
}

Test(stream, carries_bytes_both_ways_again_and_again)
{
    struct peer peer;
    peer_start(&peer, echo, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_pool_t pool = open_pool(&fixture, &options, 1);
    for (int i = 0; i < 100; i++) {
        corepool_lease_t lease = take(pool);
        cr_assert_geq(corepool_stream_fd(&lease), 0);
        check_echo(&lease, "hello");
        cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    cr_assert_eq(laws_stats(pool).opens, 1, "one connection serves them all");
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* The peer would take its bytes for the parent's. */
Test(stream, a_forked_child_neither_sends_nor_receives_on_its_parents_connection)
{
    struct peer peer;
    char byte;
    int status;
    peer_start(&peer, echo, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_lease_t lease = take(open_pool(&fixture, &options, 1));
    pid_t child = fork();
    if (child == 0)
        _exit(corepool_stream_send(&lease, "not mine", 8, LAWS_SHORT_MS) == COREPOOL_EFORKED &&
                      corepool_stream_receive(&lease, &byte, 1, LAWS_SHORT_MS) == COREPOOL_EFORKED &&
                      corepool_stream_fd(&lease) == -1
                  ? 0
                  : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_echo(&lease, "hello");
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, connects_to_a_name_and_to_a_unix_socket)
{
    struct peer tcp, local;
    peer_start(&tcp, echo, NULL);
    peer_start_unix(&local, echo, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t named = {.host = "localhost", .port = tcp.port}, path = {.path = local.path};
    corepool_lease_t lease = take(open_pool(&fixture, &named, 1));
    check_echo(&lease, "by name");
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    lease = take(open_pool(&fixture, &path, 1));
    check_echo(&lease, "by path");
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    fixture_end(&fixture);
    peer_stop(&tcp);
    peer_stop(&local);
}

static void read_at_order(struct peer *peer, int fd, unsigned turn)
{
    (void)turn;
    if (peer_await_order(peer, fd) == 0)
        peer_await_close(peer, fd);
}

Test(stream, send_and_receive_end_at_their_timeout)
{
    struct peer peer;
    static char bulk[16 * BULK];
    char byte;
    peer_start(&peer, read_at_order, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_lease_t lease = take(open_pool(&fixture, &options, 1));
    cr_assert_eq(corepool_stream_receive(&lease, &byte, 1, 20), COREPOOL_ETIMEDOUT);
    cr_assert(strstr(corepool_error_detail(), "timeout_ms: 20"));
    cr_assert_eq(corepool_stream_send(&lease, bulk, sizeof bulk, 20), COREPOOL_ETIMEDOUT);
    cr_assert_eq(corepool_stream_receive(&lease, &byte, 1, 0), COREPOOL_EINVAL);
    cr_assert_eq(corepool_stream_receive(&lease, &byte, 0, 20), COREPOOL_EINVAL);
    cr_assert_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    for (int connections = 0; connections < 2; connections++)
        peer_order(&peer); /* the failed one, and the one in its place */
    cr_assert_eq(corepool_stream_fd(&lease), -1);
    cr_assert_eq(corepool_stream_send(&lease, "x", 1, 20), COREPOOL_EINVAL);
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* ---- what the peer does while no one holds the connection ---- */

Test(stream, a_connection_that_closes_while_idle_is_evicted_at_once)
{
    struct peer peer;
    peer_start(&peer, close_at_order, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_pool_t pool = open_pool(&fixture, &options, 1);
    cr_assert(eventually_idle(pool, 1));
    peer_order(&peer);
    cr_assert(eventually_terminated(pool, 1));
    cr_assert(eventually_idle(pool, 1), "its place is filled again");
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, a_connection_that_closes_while_leased_ends_at_its_checkin)
{
    struct peer peer;
    char byte;
    peer_start(&peer, close_at_order, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_pool_t pool = open_pool(&fixture, &options, 1);
    corepool_lease_t lease = take(pool);
    peer_order(&peer);
    cr_assert_eq(corepool_stream_receive(&lease, &byte, 1, LAWS_PATIENCE_MS), 0);
    cr_assert_eq(laws_stats(pool).terminated, 0);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert(eventually_terminated(pool, 1));
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, quiet_connections_with_unasked_bytes_are_never_handed_out)
{
    struct peer peer;
    peer_start(&peer, speak_at_order, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {
        .host = "127.0.0.1", .port = peer.port, .flags = COREPOOL_STREAM_QUIET};
    corepool_pool_t pool = open_pool(&fixture, &options, 1);
    corepool_lease_t lease = take(pool);
    char bytes[8];
    peer_order(&peer);
    /* They are there: seen, and left in the socket. */
    while (recv(corepool_stream_fd(&lease), bytes, sizeof bytes, MSG_PEEK) < 0)
        ;
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    lease = take(pool);
    cr_assert_eq(laws_stats(pool).terminated, 1);
    cr_assert_lt(recv(corepool_stream_fd(&lease), bytes, sizeof bytes, MSG_DONTWAIT), 0);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, other_connections_may_be_spoken_to_first)
{
    struct peer peer;
    char bytes[16] = "";
    peer_start(&peer, greet, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_lease_t lease = take(open_pool(&fixture, &options, 1));
    cr_assert_eq(corepool_stream_receive(&lease, bytes, sizeof bytes, LAWS_PATIENCE_MS), 7);
    cr_assert_str_eq(bytes, "welcome");
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* ---- code on the shard ---- */

struct shard_echo {
    corepool_pool_t pool;
    corepool_lease_t lease;
    char reply[16];
    ssize_t count;
    int status;
};

static void on_event(int events, void *arg)
{
    struct shard_echo *run = arg;
    if (!(events & UV_READABLE))
        return;
    run->count = recv(corepool_stream_fd(&run->lease), run->reply, sizeof run->reply - 1, MSG_DONTWAIT);
    run->status = corepool_stream_watch(&run->lease, 0, NULL, NULL);
    corepool_checkin(&run->lease);
    fixture_done();
}

static void on_lease(int status, const corepool_lease_t *lease, void *arg)
{
    struct shard_echo *run = arg;
    run->status = status;
    if (status < 0) {
        fixture_done();
        return;
    }
    run->lease = *lease;
    send(corepool_stream_fd(lease), "shard", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
    run->status = corepool_stream_watch(&run->lease, UV_READABLE | UV_WRITABLE, on_event, run);
}

static void ask(corepool_shard_t *shard, void *arg)
{
    struct shard_echo *run = arg;
    (void)shard;
    run->status = corepool_checkout_async(run->pool, NULL, on_lease, run, NULL);
}

static void echo_on(struct fixture *fixture, unsigned shard, corepool_pool_t pool)
{
    struct shard_echo run = {.pool = pool};
    cr_assert(on_shard(fixture, shard, ask, &run));
    cr_assert_eq(run.status, COREPOOL_OK);
    cr_assert_eq(run.count, 5);
    cr_assert_str_eq(run.reply, "shard");
}

Test(stream, shard_code_watches_its_connections_and_those_of_other_shards)
{
    struct peer peer;
    peer_start(&peer, echo, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {.host = "127.0.0.1", .port = peer.port};
    corepool_pool_t pool = open_pool(&fixture, &options, 1); /* one shard has the worker */
    for (unsigned i = 0; i < 10 * corepool_runtime_shards(fixture.runtime); i++)
        echo_on(&fixture, i % corepool_runtime_shards(fixture.runtime), pool);
    cr_assert_eq(laws_stats(pool).opens, 1);
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, on_shard_connections_are_for_their_shard_only)
{
    struct peer peer;
    peer_start(&peer, echo, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {
        .host = "127.0.0.1", .port = peer.port, .flags = COREPOOL_STREAM_ON_SHARD | COREPOOL_STREAM_QUIET};
    corepool_pool_t pool =
        corepool_pool_at(open_pool(&fixture, &options, corepool_runtime_shards(fixture.runtime)), 0);
    corepool_lease_t lease;
    for (int i = 0; i < 20; i++)
        echo_on(&fixture, 0, pool);
    cr_assert_eq(laws_stats(pool).opens, 1);
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ESKIPPED);
    echo_on(&fixture, 0, pool);
    fixture_end(&fixture);
    peer_stop(&peer);
}

Test(stream, on_shard_connections_with_unasked_bytes_are_evicted_at_once)
{
    struct peer peer;
    peer_start(&peer, speak_at_order, NULL);
    struct fixture fixture = fixture_start();
    corepool_stream_options_t options = {
        .host = "127.0.0.1", .port = peer.port, .flags = COREPOOL_STREAM_ON_SHARD | COREPOOL_STREAM_QUIET};
    corepool_pool_t pool = open_pool(&fixture, &options, 1);
    cr_assert(eventually_idle(pool, 1));
    peer_order(&peer);
    cr_assert(eventually_terminated(pool, 1));
    cr_assert(eventually_idle(pool, 1));
    fixture_end(&fixture);
    peer_stop(&peer);
}

/* ---- connecting ---- */

static void check_refusal(const corepool_stream_options_t *options, int64_t timeout_ms, const char *why)
{
    struct fixture fixture = fixture_start();
    corepool_pool_t pool = open_pool(&fixture, options, 1);
    corepool_checkout_options_t patience = {.timeout_ms = timeout_ms};
    corepool_lease_t lease;
    cr_assert_eq(corepool_checkout(pool, &patience, &lease), COREPOOL_ETIMEDOUT);
    cr_assert(strstr(corepool_error_detail(), why), "\"%s\" does not say \"%s\"", corepool_error_detail(), why);
    fixture_end(&fixture);
}

Test(stream, a_caller_that_times_out_is_told_why_nothing_connects)
{
    corepool_stream_options_t refused = {.host = "127.0.0.1", .port = free_port()};
    corepool_stream_options_t missing = {.path = "/nonexistent/socket"};
    corepool_stream_options_t unknown = {.host = "no-such-host.invalid", .port = 80};
    char why[64];
    snprintf(why, sizeof why, "connect 127.0.0.1:%u: connection refused", refused.port);
    check_refusal(&refused, 200, why);
    check_refusal(&missing, 200, "connect /nonexistent/socket: no such file or directory");
    check_refusal(&unknown, 3000, "look up no-such-host.invalid:80: ");
}

#define PLUGS 8

/* A listener that accepts nothing and whose queue is full: further connects get no answer. */
static int make_deaf(uint16_t *port, int plugs[PLUGS])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, length) == 0);
    cr_assert(listen(listener, 0) == 0 && getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    for (int i = 0; i < PLUGS; i++) {
        plugs[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(plugs[i], (struct sockaddr *)&address,
                length); /* most of them hang: that is what they are for */
    }
    *port = ntohs(address.sin_port);
    return listener;
}

static bool all_opening(void *arg)
{
    return laws_stats(*(corepool_pool_t *)arg).opening == 4;
}

Test(stream, a_connect_without_an_answer_ends_at_its_timeout_or_with_the_pool)
{
    corepool_stream_options_t brief = {.host = "127.0.0.1", .connect_timeout_ms = 50};
    corepool_stream_options_t patient = {.host = "127.0.0.1", .connect_timeout_ms = COREPOOL_INFINITE};
    int plugs[PLUGS], listener = make_deaf(&brief.port, plugs);
    patient.port = brief.port;
    check_refusal(&brief, 400, "timed out (connect_timeout_ms: 50)");

    struct fixture fixture = fixture_start();
    corepool_pool_t pool = open_pool(&fixture, &patient, 4);
    cr_assert(laws_eventually(all_opening, &pool));
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    fixture_end(&fixture);
    for (int i = 0; i < PLUGS; i++)
        close(plugs[i]);
    close(listener);
}

Test(stream, a_pool_without_its_peer_opens_and_serves_once_the_peer_is_there)
{
    struct fixture fixture = fixture_start();
    struct peer peer;
    peer_start_unix(&peer, echo, NULL);
    peer_stop(&peer);
    corepool_stream_options_t options = {.path = peer.path};
    corepool_pool_t pool = open_pool(&fixture, &options, 2);
    corepool_lease_t lease;
    corepool_checkout_options_t brief = {.timeout_ms = 100};
    cr_assert_eq(corepool_checkout(pool, &brief, &lease), COREPOOL_ETIMEDOUT);
    peer_start_unix(&peer, echo, NULL);
    lease = take(pool);
    check_echo(&lease, "at last");
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_gt(laws_stats(pool).open_failures, 0);
    cr_assert_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_OK);
    peer_stop(&peer);
    fixture_end(&fixture);
}

Test(stream, wrong_options_are_refused_by_name)
{
    static const struct {
        corepool_stream_options_t options;
        const char *field;
    } cases[] = {
        {{.port = 80}, "host, path"},
        {{.host = "a", .path = "/b", .port = 80}, "host, path"},
        {{.host = "127.0.0.1"}, "port"},
        {{.host = "", .port = 80}, "host"},
        {{.path = ""}, "path"},
        {{.host = "127.0.0.1", .port = 80, .connect_timeout_ms = -2}, "connect_timeout_ms"},
        {{.host = "127.0.0.1", .port = 80, .flags = 0x80}, "flags"},
    };
    struct fixture fixture = fixture_start();
    corepool_pool_t pool;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(corepool_pool_open(fixture.runtime, &corepool_stream_class,
                                        (void *)(uintptr_t)&cases[i].options, 1, NULL, &pool),
                     COREPOOL_EINVAL, "case %zu", i);
        cr_assert(strstr(corepool_error_detail(), cases[i].field), "%s", corepool_error_detail());
    }
    cr_assert_eq(corepool_pool_open(fixture.runtime, &corepool_stream_class, NULL, 1, NULL, &pool),
                 COREPOOL_EINVAL);
    fixture_end(&fixture);
}
