/* workers/stream.h: a connected socket that lives on a shard's loop; what the HTTP connection is made of.
 *
 * Thread: as marked; "holder" is the thread that has the lease. */
#ifndef CP_WORKERS_STREAM_H
#define CP_WORKERS_STREAM_H

#include <corepool/stream.h>

#include "workers/dial.h"

/* `events`: UV_READABLE and UV_WRITABLE as in uv_poll; 0: the deadline has passed. An error or a hang-up of the
 * socket shows as readable. */
typedef void (*cp_stream_ready)(int events, void *arg);

/* What watches a socket on one loop: the home shard's, for life, or a visitor's, for one lease. Thread: its
 * loop's. */
struct cp_eye {
    struct cp_stream *stream;
    cp_stream_ready ready; /* the holder's, while it watches */
    void *arg;
    int64_t deadline_ns; /* of the watch; CP_NEVER: none */
    int64_t due_ns;      /* of the timer; CP_NEVER: not armed. It stays armed when the watch ends: it fires once more at
                          * most, and watches that follow each other only store their deadlines */
    int armed;        /* what the poll is started for */
    unsigned handles; /* not yet closed */
    uv_poll_t poll;
    uv_timer_t timer;
};

/* First member of everything that is built on it: it is allocated and freed here. */
struct cp_stream {
    /* Written before the worker is ready, then fixed. */
    corepool_worker_t *worker;
    int fd;
    unsigned flags; /* COREPOOL_STREAM_… */
    /* The home shard's. */
    struct cp_dial *dial; /* while connecting */
    int failure;          /* what became of an init that is being undone */
    bool on_loan;         /* ON_SHARD: leased by code of the shard */
    struct cp_eye home;
    /* The holder's. */
    struct cp_eye *visitor; /* the holder runs on another shard */
};

/* Shard. Begins a worker of `bytes` (≥ sizeof(struct cp_stream), the rest zeroed) that becomes ready or fails
 * by itself; `options` and their `flags` as checked. COREPOOL_PENDING or a negative code, as init returns. */
int cp_stream_open(corepool_worker_t *worker, const corepool_stream_options_t *options, unsigned flags,
                   size_t bytes);

/* The class's callbacks, for any class that is built on a stream. */
void cp_stream_cancel(corepool_worker_t *worker, void *pool_state);
int cp_stream_checkout(void *pool_state, void *resource, void *command, void **client);
int cp_stream_checkin(void *pool_state, void *resource, void *client);
int cp_stream_detach(corepool_worker_t *worker, void *pool_state, void *resource);
int cp_stream_terminate(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason);

/* The stream under a lease of class `cls`, or NULL with detail. Holder. */
struct cp_stream *cp_stream_of(const corepool_lease_t *lease, const corepool_class_t *cls);

/* Holder, on a shard. Watches for `events` until cp_stream_unwatch. On the home shard of an ON_SHARD stream,
 * watching for UV_READABLE makes no system call. COREPOOL_OK, COREPOOL_ETHREAD, COREPOOL_ENOMEM,
 * COREPOOL_ESYSTEM. */
int cp_stream_watch(struct cp_stream *stream, int events, cp_stream_ready ready, void *arg);

/* Holder, while it watches: ready(0, …) once at `deadline_ns`, not before. */
void cp_stream_set_deadline(struct cp_stream *stream, int64_t deadline_ns);

/* Holder, before the lease ends. No ready callback comes afterwards. Nothing to do is fine. */
void cp_stream_unwatch(struct cp_stream *stream);

/* Holder, not on a shard: waits for poll(2) `events` until `deadline_ns`. COREPOOL_OK, COREPOOL_ETIMEDOUT
 * (without detail), COREPOOL_ESYSTEM. A signal does not end it. */
int cp_stream_await(const struct cp_stream *stream, short events, int64_t deadline_ns);

#endif
