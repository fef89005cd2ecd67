/* tests/support/nginx.h: a real nginx on a loopback port, in a directory of its own. Thread: the test's. */
#ifndef SUPPORT_NGINX_H
#define SUPPORT_NGINX_H

#include <stdint.h>
#include <sys/types.h>

/* What it serves (nginx.c has the configuration):
 *   /file       NGINX_FILE, static          /big     1 MiB, static
 *   /chunked    NGINX_FILE, chunked         /none    204
 *   /echo       method, length, X-Test      /last    closes after each reply
 *   /three      closes after three          /hasty   closes a connection that is idle for 50 ms */
#define NGINX_FILE "hello from nginx\n"
#define NGINX_BIG_BYTES (1u << 20)

struct nginx {
    uint16_t port;
    pid_t pid; /* 0: stopped */
    char directory[64];
};

/* Starts it on a free port; it accepts connections when this returns. */
void nginx_start(struct nginx *nginx);

/* Kills it at once, with every connection. The port stays its own for nginx_restart. */
void nginx_kill(struct nginx *nginx);
void nginx_restart(struct nginx *nginx);

/* Kills it and removes its directory. */
void nginx_end(struct nginx *nginx);

#endif
