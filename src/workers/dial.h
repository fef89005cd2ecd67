/* workers/dial.h: from a host and port, or a path, to a connected socket, on a libuv loop and within a time.
 *
 * Thread: the loop's. A dial completes exactly once, by its callback; it frees itself then. */
#ifndef CP_WORKERS_DIAL_H
#define CP_WORKERS_DIAL_H

#include <corepool/stream.h>

struct cp_dial;

/* The outcome, from the loop, when every handle of the dial is closed. COREPOOL_OK: `fd` is the receiver's,
 * connected, non-blocking, close-on-exec. Else fd is -1 and `why` says it in words ("connect 127.0.0.1:1:
 * connection refused"), valid during the call: COREPOOL_EOPEN, COREPOOL_ETIMEDOUT, COREPOOL_ECANCELED,
 * COREPOOL_ESYSTEM. */
typedef void (*cp_dial_cb)(void *arg, int status, int fd, const char *why);

/* Checks what is to be dialled; negative with the field in the detail. Thread: any. */
int cp_dial_check(const corepool_stream_options_t *options);

/* Starts; the callback never runs before this returns. options (checked) must outlive the dial. COREPOOL_OK, or
 * COREPOOL_ENOMEM: the callback will not run. */
int cp_dial_start(uv_loop_t *loop, const corepool_stream_options_t *options, cp_dial_cb cb, void *arg,
                  struct cp_dial **dial);

/* Ends it soon, with COREPOOL_ECANCELED unless it is ending already. A name look-up that libuv's thread pool
 * has begun cannot be called back: the outcome comes when it returns. */
void cp_dial_cancel(struct cp_dial *dial);

#endif
