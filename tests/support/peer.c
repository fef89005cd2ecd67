/* tests/support/peer.c: a peer on loopback that does what a script says. Thread: as the header marks. */
#include "support/peer.h"

#include <criterion/criterion.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* More than any test makes. */
#define CONNECTIONS 1024

static int listen_tcp(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 64) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 64) == 0);
    return fd;
}

/* Whether `fd` became readable; -1 when the peer is to stop. */
static int await(struct peer *peer, int fd, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = peer->stop, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    int count;
    do
        count = poll(fds, 2, timeout_ms);
    while (count < 0);
    return fds[0].revents ? -1 : fds[1].revents != 0;
}

struct connection {
    struct peer *peer;
    int fd;
    unsigned turn;
};

static void *play(void *arg)
{
    struct connection connection = *(struct connection *)arg;
    free(arg);
    connection.peer->script(connection.peer, connection.fd, connection.turn);
    close(connection.fd);
    return NULL;
}

static void *serve(void *arg)
{
    struct peer *peer = arg;
    pthread_t threads[CONNECTIONS];
    unsigned turn = 0;
    while (turn < CONNECTIONS && await(peer, peer->listener, -1) > 0) {
        struct connection *connection = malloc(sizeof *connection);
        *connection = (struct connection){peer, accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC), turn};
        pthread_create(&threads[turn++], NULL, play, connection);
    }
    while (turn > 0)
        pthread_join(threads[--turn], NULL);
    return NULL;
}

static void run(struct peer *peer, peer_script script, const void *arg)
{
    peer->script = script;
    peer->arg = arg;
    peer->orders = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE | EFD_NONBLOCK);
    peer->reports = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
    peer->stop = eventfd(0, EFD_CLOEXEC);
    cr_assert(peer->orders >= 0 && peer->reports >= 0 && peer->stop >= 0);
    cr_assert_eq(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

void peer_start(struct peer *peer, peer_script script, const void *arg)
{
    *peer = (struct peer){0};
    peer->listener = listen_tcp(&peer->port);
    run(peer, script, arg);
}

void peer_start_unix(struct peer *peer, peer_script script, const void *arg)
{
    *peer = (struct peer){0};
    snprintf(peer->path, sizeof peer->path, "/tmp/corepool-peer-%d.sock", (int)getpid());
    unlink(peer->path);
    peer->listener = listen_unix(peer->path);
    run(peer, script, arg);
}

void peer_stop(struct peer *peer)
{
    eventfd_write(peer->stop, 1);
    pthread_join(peer->thread, NULL);
    close(peer->listener);
    close(peer->orders);
    close(peer->reports);
    close(peer->stop);
    if (peer->path[0])
        unlink(peer->path);
}

void peer_order(struct peer *peer)
{
    eventfd_write(peer->orders, 1);
}

int peer_await_order(struct peer *peer, int fd)
{
    for (;;) {
        struct pollfd fds[3] = {{.fd = peer->stop, .events = POLLIN},
                                {.fd = peer->orders, .events = POLLIN},
                                {.fd = fd, .events = POLLRDHUP}};
        eventfd_t one;
        poll(fds, 3, -1);
        if (fds[1].revents && eventfd_read(peer->orders, &one) == 0)
            return 0;
        if (fds[0].revents || fds[2].revents)
            return -1;
    }
}

void peer_report_arrival(struct peer *peer, int fd)
{
    int unacknowledged;
    while (ioctl(fd, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged > 0)
        sched_yield();
    eventfd_write(peer->reports, 1);
}

void peer_await_report(struct peer *peer)
{
    eventfd_t one;
    cr_assert_eq(eventfd_read(peer->reports, &one), 0);
}

int peer_read_request(struct peer *peer, int fd, size_t body, char *head, size_t room)
{
    char buffer[65536];
    size_t used = 0, end = 0;
    while (end == 0 || used < end + body) {
        if (await(peer, fd, -1) < 0)
            return -1;
        ssize_t count = recv(fd, buffer + used, sizeof buffer - 1 - used, 0);
        if (count <= 0)
            return -1;
        used += (size_t)count;
        buffer[used] = '\0';
        char *empty_line = strstr(buffer, "\r\n\r\n");
        end = empty_line ? (size_t)(empty_line - buffer) + 4 : 0;
    }
    if (head)
        snprintf(head, room, "%s", buffer);
    return (int)used;
}

void peer_write(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t count = send(fd, at, length, MSG_NOSIGNAL);
        if (count < 0)
            return;
        at += count;
        length -= (size_t)count;
    }
}

void peer_say(int fd, const char *text)
{
    peer_write(fd, text, strlen(text));
}

void peer_await_close(struct peer *peer, int fd)
{
    char bytes[4096];
    while (await(peer, fd, -1) > 0 && recv(fd, bytes, sizeof bytes, 0) > 0)
        ;
}

int peer_pause(struct peer *peer, int ms)
{
    return await(peer, -1, ms);
}

void peer_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

uint16_t free_port(void)
{
    uint16_t port;
    close(listen_tcp(&port));
    return port;
}
