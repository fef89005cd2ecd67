/* corepool/stream.h: ready-made workers: connected TCP and Unix stream sockets.
 *
 * Connecting is event-driven on the shard's loop, with a timeout. The shard watches each connection for the
 * peer's hang-up for its whole life (one registration, nothing per checkout): a connection that dies while
 * idle is evicted at once, one that dies while leased at its checkin.
 *
 * Thread default of this header: the one that has the lease. */
#ifndef COREPOOL_STREAM_H
#define COREPOOL_STREAM_H

#include <stddef.h>
#include <sys/types.h>

#include <corepool/checkout.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that arrive while no one holds the connection are an error of the peer: the connection is evicted, at the
 * latest by a look at the socket at checkout. For protocols in which only the client speaks first. */
#define COREPOOL_STREAM_QUIET 0x1u
/* Only code on the worker's own shard uses the connection (asynchronous checkout there): the loop reads it for
 * life, which saves the look at checkout and makes corepool_stream_watch free of system calls. A checkout on
 * any other thread is COREPOOL_ESKIPPED. */
#define COREPOOL_STREAM_ON_SHARD 0x2u

/* Zero means the default. Exactly one of host and path is required. */
typedef struct corepool_stream_options {
    const char *host;           /* name or numeric address (IPv4, IPv6) */
    uint16_t port;              /* 1 … 65535, with host */
    const char *path;           /* of a Unix stream socket */
    int64_t connect_timeout_ms; /* name look-up included; default 5000; COREPOOL_INFINITE allowed */
    unsigned flags;             /* COREPOOL_STREAM_…; default 0 */
} corepool_stream_options_t;

/* Its argument is a const corepool_stream_options_t that outlives the pool. */
COREPOOL_PUBLIC extern const corepool_class_t corepool_stream_class;

/* The non-blocking socket of a leased connection; owned by the worker: not to be closed. -1 if the lease is none of
 * this class. Thread: the lease's. */
COREPOOL_PUBLIC int corepool_stream_fd(const corepool_lease_t *lease);

/* Sends all of `length` bytes. Thread: the lease's, not a shard. Blocks up to `timeout_ms` (> 0 or COREPOOL_INFINITE).
 * COREPOOL_OK, COREPOOL_ETIMEDOUT, COREPOOL_EPEER, COREPOOL_EINVAL, COREPOOL_EDEADLK (on a shard). Never raises SIGPIPE. */
COREPOOL_PUBLIC int corepool_stream_send(const corepool_lease_t *lease, const void *data, size_t length,
                                         int64_t timeout_ms);

/* Receives up to `capacity` (≥ 1) bytes, at least one. Returns their number; 0 when the peer has closed; or a
 * negative code as above. Thread: the lease's, not a shard. Blocks up to `timeout_ms` (as above). */
COREPOOL_PUBLIC ssize_t corepool_stream_receive(const corepool_lease_t *lease, void *buffer, size_t capacity,
                                                int64_t timeout_ms);

/* Says that the socket is readable (UV_READABLE: bytes, end or an error, which recv(2) will tell apart) or
 * writable (UV_WRITABLE). It comes again as long as that is so. */
typedef void (*corepool_stream_cb)(int events, void *arg);

/* Watches a leased connection on the calling shard's loop, for UV_READABLE or UV_READABLE | UV_WRITABLE; a second call
 * changes what is watched. cb NULL ends the watch; it must be ended before the lease is. Thread: a shard, the one
 * that took the lease. (A program's own loop uses its own uv_poll_t on the descriptor.) COREPOOL_OK,
 * COREPOOL_EINVAL, COREPOOL_ETHREAD, COREPOOL_ENOMEM, COREPOOL_ESYSTEM. */
COREPOOL_PUBLIC int corepool_stream_watch(const corepool_lease_t *lease, int events, corepool_stream_cb cb, void *arg);

#ifdef __cplusplus
}
#endif
#endif
