/* tools/origin.h: a small HTTP/1.1 server on loopback to fetch from. Thread: one at a time, none of its own. */
#ifndef TOOLS_ORIGIN_H
#define TOOLS_ORIGIN_H

#include <stdint.h>

typedef struct origin origin_t;

/* Listens on a free port of 127.0.0.1 and serves on `threads` threads (at least 1), which share the connections
 * evenly. Returns 0 with *origin to be stopped with origin_stop, or a libuv error code. */
int origin_start(unsigned threads, origin_t **origin);

uint16_t origin_port(const origin_t *origin);

/* CPU time that its threads have used so far. NULL: 0. */
int64_t origin_cpu_ns(const origin_t *origin);

/* Closes all connections and joins the threads. Blocks until they have ended. NULL is allowed. */
void origin_stop(origin_t *origin);

#endif
