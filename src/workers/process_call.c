/* workers/process_call.c: what a lease of a child process can do. Thread: the one that holds the lease.
 *
 * A lease's resource is the child's struct cp_spawned, which does not change between ready and terminate; the
 * shard (process.c) may notice the child's exit meanwhile, and leaves the descriptors alone until the lease
 * ends. */
#include <corepool/process.h>

#include "base/clock.h"
#include "base/error.h"
#include "core/slot.h"
#include "shard/slice.h"
#include "workers/exchange.h"
#include "workers/spawn.h"

static const struct cp_spawned *child_of(const corepool_lease_t *lease)
{
    if (cp_thread_is_forked() || !lease || !lease->worker || lease->worker->slice->cls != &corepool_process_class)
        return NULL;
    return lease->resource;
}

pid_t corepool_process_pid(const corepool_lease_t *lease)
{
    const struct cp_spawned *child = child_of(lease);
    return child ? child->pid : -1;
}

int corepool_process_stdin(const corepool_lease_t *lease)
{
    const struct cp_spawned *child = child_of(lease);
    return child ? child->stdin_fd : -1;
}

int corepool_process_stdout(const corepool_lease_t *lease)
{
    const struct cp_spawned *child = child_of(lease);
    return child ? child->stdout_fd : -1;
}

static int check_call(const struct cp_spawned *child, const void *request, size_t length, const char *reply,
                      size_t capacity, int64_t timeout_ms)
{
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the child process is the parent process's");
    if (!child)
        return cp_fail(COREPOOL_EINVAL, "lease: not one of a child process");
    if (!request && length > 0)
        return cp_fail(COREPOOL_EINVAL, "request: NULL: must have %zu bytes", length);
    if (!reply || capacity == 0)
        return cp_fail(COREPOOL_EINVAL, "reply: no room: must have at least one byte");
    if (timeout_ms <= 0 && timeout_ms != COREPOOL_INFINITE)
        return cp_fail(COREPOOL_EINVAL, "timeout_ms: %lld: must be positive or COREPOOL_INFINITE",
                       (long long)timeout_ms);
    if (corepool_shard_current())
        return cp_fail(COREPOOL_EDEADLK, "corepool_process_call: would block a shard's thread");
    return COREPOOL_OK;
}

int corepool_process_call(const corepool_lease_t *lease, const void *request, size_t length, char delimiter,
                          char *reply, size_t capacity, size_t *reply_length, int64_t timeout_ms)
{
    if (!reply_length)
        return cp_fail(COREPOOL_EINVAL, "reply_length: NULL");
    *reply_length = 0;
    const struct cp_spawned *child = child_of(lease);
    int status = check_call(child, request, length, reply, capacity, timeout_ms);
    if (status < 0)
        return status;
    struct cp_exchange x = {
        .in = child->stdin_fd,
        .out = child->stdout_fd,
        .request = request,
        .unsent = length,
        .reply = reply,
        .capacity = capacity,
        .delimiter = delimiter,
        .deadline_ns = cp_deadline_ns(cp_now_ns(), timeout_ms),
    };
    status = cp_exchange(&x);
    if (status == COREPOOL_OK)
        *reply_length = x.received;
    return status;
}
