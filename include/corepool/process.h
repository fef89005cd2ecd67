/* corepool/process.h: ready-made workers: child processes spoken to over stdin and stdout.
 *
 * A pool of corepool_process_class keeps children running; a lease gives one to a thread, which talks to it
 * directly. A child dies with its worker: end of file on its stdin and SIGTERM, after `grace_ms` SIGKILL, to
 * its whole process group; reaped always. When the program itself is killed the kernel kills the child
 * (PR_SET_PDEATHSIG; not one that runs set-user-id, nor what a child has started in turn, which meets end of
 * file).
 *
 * A child starts with stdin (a socket), stdout (a pipe), the program's stderr and no other descriptor, as
 * leader of a process group, with default signal handling, on all CPUs of the runtime. It is ready once exec
 * has succeeded; a program that cannot be started is an init that failed, with "exec NAME: why". A child that
 * dies while idle is evicted at once (reason HANGUP), and replaced; in the first second of its life, with
 * back-off. */
#ifndef COREPOOL_PROCESS_H
#define COREPOOL_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

#include <corepool/checkout.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The class argument of corepool_process_class; must outlive the pool. Zero means the default. */
typedef struct corepool_process_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in the program's PATH; required */
    const char *const *envp; /* default: the program's own environment */
    const char *cwd;         /* default: the program's own */
    int64_t grace_ms;        /* between SIGTERM and SIGKILL; default 1000 */
} corepool_process_options_t;

COREPOOL_PUBLIC extern const corepool_class_t corepool_process_class;

/* Of a leased child; both descriptors are non-blocking and the worker's: not to be closed. To write to stdin
 * use send(2) with MSG_NOSIGNAL: a child that has gone raises SIGPIPE otherwise. Thread: the lease's. -1 if the
 * lease is none of this class. */
COREPOOL_PUBLIC pid_t corepool_process_pid(const corepool_lease_t *lease);
COREPOOL_PUBLIC int corepool_process_stdin(const corepool_lease_t *lease);
COREPOOL_PUBLIC int corepool_process_stdout(const corepool_lease_t *lease);

/* Writes `request` to the child and reads until `delimiter` comes. Thread: the lease's, not a shard. Blocks up
 * to `timeout_ms` (> 0, or COREPOOL_INFINITE). Neither buffer is kept. COREPOOL_OK: the reply, with its
 * delimiter, is in reply[0 … *reply_length-1]; capacity ≥ 1. Else *reply_length is 0: COREPOOL_ETIMEDOUT,
 * COREPOOL_EPEER (the child closed its end or died), COREPOOL_ELIMIT (no delimiter within `capacity` bytes),
 * COREPOOL_EPROTO (bytes followed the delimiter, or were there before the request), COREPOOL_ESYSTEM,
 * COREPOOL_EINVAL, COREPOOL_EDEADLK. After any failure the child is out of step: end the lease with
 * corepool_checkin_fail. */
COREPOOL_PUBLIC int corepool_process_call(const corepool_lease_t *lease, const void *request, size_t length,
                                          char delimiter, char *reply, size_t capacity, size_t *reply_length,
                                          int64_t timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
