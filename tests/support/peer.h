/* tests/support/peer.h: a peer on loopback that does what a script says.
 *
 * The script gets each connection, on a thread of its own, and it is closed when the script returns. */
#ifndef SUPPORT_PEER_H
#define SUPPORT_PEER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct peer;

/* `turn`: how many connections came before. Thread: the connection's. */
typedef void (*peer_script)(struct peer *peer, int fd, unsigned turn);

struct peer {
    uint16_t port;
    char path[64];   /* of a Unix socket; empty: TCP */
    const void *arg; /* the script's */
    /* the peer's own */
    peer_script script;
    int listener, orders, reports, stop;
    pthread_t thread;
};

/* On a free port of 127.0.0.1; or at a path in /tmp. */
void peer_start(struct peer *peer, peer_script script, const void *arg);
void peer_start_unix(struct peer *peer, peer_script script, const void *arg);

/* Ends the script's waiting and the thread. */
void peer_stop(struct peer *peer);

/* The test lets the script go on; the script waits for it. The latter returns -1 when the peer is to stop, or
 * when the other side closes `fd` meanwhile (-1: no descriptor). */
void peer_order(struct peer *peer);
int peer_await_order(struct peer *peer, int fd);

/* Script: tells the test that what was written to `fd` has arrived at the other side; the test waits for it. */
void peer_report_arrival(struct peer *peer, int fd);
void peer_await_report(struct peer *peer);

/* Script: reads up to the end of a request's head, with a body of `body` bytes; its length, or -1 at the end.
 * `head` (may be NULL) gets the first `room` - 1 bytes. */
int peer_read_request(struct peer *peer, int fd, size_t body, char *head, size_t room);

/* Script: writes; an error of the connection is the other side's affair. */
void peer_write(int fd, const void *data, size_t length);
void peer_say(int fd, const char *text);

/* Script: waits for the other side to close, or for peer_stop. */
void peer_await_close(struct peer *peer, int fd);

/* Script: waits `ms`, or less when the peer is to stop: then -1. A drip needs a clock. */
int peer_pause(struct peer *peer, int ms);

/* Script: has the connection reset when it is closed. */
void peer_reset(int fd);

/* A port of 127.0.0.1 at which no one listens. */
uint16_t free_port(void);

#endif
