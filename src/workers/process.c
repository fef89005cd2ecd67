/* workers/process.c: the worker class of child processes.
 *
 * The life of a child, all of it on its slice's shard (what leases do is in process_call.c):
 *
 *   STARTING ── exec_fd: end of file ──► RUNNING ── terminate ──► ENDING ── exited ──► settle: worker_gone
 *      │                                    │ exits by itself: evicted, then terminate
 *      └─ exec_fd: errno, exited, cancelled ──► FAILING ── exited ──► settle: worker_failed
 *
 * Whatever ends a child, it is reaped in one place, on_exit_watch, when its pidfd says that it has exited;
 * before that its process id cannot come to mean another process, so every signal is sent before. Only when the
 * program ignores SIGCHLD does the kernel reap: waitid then says ECHILD, which is as good.
 *
 * A child that dies unasked soon after its start would be replaced at once, and again, as fast as the machine
 * can fork. So such a death closes its slice's gate for a while that doubles with each in a row; until then
 * every init fails with the obituary, and failures are what the pool backs off from. */
#include <corepool/process.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "workers/spawn.h"

#define GRACE_DEFAULT_MS 1000

/* Younger than this, a child that dies while idle counts as never having come up. */
#define YOUNG_NS CP_NS_PER_S

/* How long no child is started after one died young, and how often that doubles: up to 2.5 s. */
#define GATE_NS (20 * CP_NS_PER_MS)
#define GATE_DOUBLINGS 7u

/* A pool's part on one shard. */
struct slice {
    const corepool_process_options_t *options;
    cpu_set_t *cpus; /* of the whole runtime: children are not held to their shard's; NULL: not pinned */
    size_t cpus_size;
    unsigned streak;   /* young deaths in a row; those of one burst count once */
    int64_t gate_ns;   /* no child is started before */
    char obituary[64]; /* of the last one */
};

enum state { STARTING, RUNNING, ENDING, FAILING };

struct child {
    /* What a lease points to (workers/process_call.c); written before the worker is ready. */
    struct cp_spawned process;
    /* The shard's. */
    corepool_worker_t *worker;
    struct slice *slice;
    enum state state;
    bool exited;
    int failure; /* FAILING: what init ends with */
    int64_t born_ns;
    unsigned handles; /* open on the loop; the last one to close ends the worker */
    uv_poll_t exit_watch, exec_watch;
    uv_timer_t grace;
};

_Static_assert(offsetof(struct child, process) == 0, "a lease's resource is a child's head");

static const char *name_of(const struct slice *slice)
{
    return slice->options->argv[0];
}

/* --- the slice ----------------------------------------------------------------------------------------- */

static int check_options(const corepool_process_options_t *options)
{
    if (!options)
        return cp_fail(COREPOOL_EINVAL, "arg: NULL: must be a corepool_process_options_t");
    if (!options->argv || !options->argv[0] || !options->argv[0][0])
        return cp_fail(COREPOOL_EINVAL, "argv: empty: must start with the name of a program");
    if (options->grace_ms < 0)
        return cp_fail(COREPOOL_EINVAL, "grace_ms: %lld: must not be negative", (long long)options->grace_ms);
    return COREPOOL_OK;
}

/* A fork inherits the shard's pin. The child may run wherever the runtime may. */
static int note_cpus(struct slice *slice, const corepool_topology_t *topology)
{
    if (!corepool_topology_is_real(topology))
        return COREPOOL_OK;
    unsigned count = corepool_topology_possible_cpus(topology);
    slice->cpus = CPU_ALLOC(count);
    if (!slice->cpus)
        return COREPOOL_ENOMEM;
    slice->cpus_size = CPU_ALLOC_SIZE(count);
    CPU_ZERO_S(slice->cpus_size, slice->cpus);
    for (unsigned cpu = 0; cpu < count; cpu++)
        if (corepool_topology_covers(topology, cpu))
            CPU_SET_S(cpu, slice->cpus_size, slice->cpus);
    return COREPOOL_OK;
}

static int open_slice(void *arg, corepool_shard_t *shard, void **pool_state)
{
    int status = check_options(arg);
    if (status < 0)
        return status;
    struct slice *slice = calloc(1, sizeof *slice);
    if (!slice || note_cpus(slice, corepool_runtime_topology(corepool_shard_runtime(shard))) < 0) {
        free(slice);
        return cp_fail(COREPOOL_ENOMEM, "process pool: out of memory");
    }
    slice->options = arg;
    *pool_state = slice;
    return COREPOOL_OK;
}

static void close_slice(void *pool_state, corepool_reason_t reason)
{
    (void)reason;
    struct slice *slice = pool_state;
    if (slice->cpus)
        CPU_FREE(slice->cpus);
    free(slice);
}

/* --- the end of a child -------------------------------------------------------------------------------- */

/* Its whole group, which exists once exec has happened; before that only the child itself does. */
static void signal_child(const struct child *child, int number)
{
    if (child->state == STARTING)
        kill(child->process.pid, number);
    kill(-child->process.pid, number);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;
    if (--child->handles > 0)
        return;
    corepool_worker_t *worker = child->worker;
    enum state state = child->state;
    int failure = child->failure;
    free(child);
    if (state == FAILING)
        corepool_worker_failed(worker, failure);
    else
        corepool_worker_gone(worker);
}

/* The type is unknown as long as the handle was not initialised. */
static void close_handle(uv_handle_t *handle)
{
    if (uv_handle_get_type(handle) != UV_UNKNOWN_HANDLE && !uv_is_closing(handle))
        uv_close(handle, on_handle_closed);
}

/* The process is no more: gives back the rest. The worker ends when the loop has let go of the handles. */
static void settle(struct child *child)
{
    close_handle((uv_handle_t *)&child->exec_watch);
    close_handle((uv_handle_t *)&child->exit_watch);
    close_handle((uv_handle_t *)&child->grace);
    cp_spawn_close(&child->process);
}

static void fail_start(struct child *child, int code)
{
    child->state = FAILING;
    child->failure = code;
}

static void write_obituary(struct slice *slice, const siginfo_t *info, bool known)
{
    const char *how = "was killed by signal";
    if (info->si_code == CLD_EXITED)
        how = "exited with status";
    if (known)
        snprintf(slice->obituary, sizeof slice->obituary, "%s %d soon after its start", how, info->si_status);
    else
        snprintf(slice->obituary, sizeof slice->obituary, "ended soon after its start");
}

/* It ended unasked. One that was in use had come up, whatever ended it. */
static void mourn(const struct child *child)
{
    struct slice *slice = child->slice;
    int64_t now = cp_now_ns();
    if (corepool_worker_is_leased(child->worker) || now - child->born_ns >= YOUNG_NS) {
        slice->streak = 0;
        return;
    }
    if (now < slice->gate_ns)
        return;
    slice->gate_ns = now + (GATE_NS << slice->streak);
    if (slice->streak < GATE_DOUBLINGS)
        slice->streak++;
}

/* The outcome of exec, when exec_fd has it: 0, it runs; or why not. False: nothing yet. */
static bool read_exec(struct child *child, int *error)
{
    ssize_t count;
    *error = 0;
    do
        count = read(child->process.exec_fd, error, sizeof *error);
    while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (count < 0)
        *error = errno;
    return true;
}

static void explain_exec(const struct child *child, int error)
{
    if (error > 0)
        corepool_worker_explain(child->worker, "exec %s: %s", name_of(child->slice), strerror(error));
    else
        corepool_worker_explain(child->worker, "chdir %s: %s", child->slice->options->cwd, strerror(-error));
}

/* Exited before exec was heard of. */
static void fail_stillborn(struct child *child)
{
    int error;
    if (read_exec(child, &error) && error != 0)
        explain_exec(child, error);
    else
        corepool_worker_explain(child->worker, "%s %s", name_of(child->slice), child->slice->obituary);
    fail_start(child, COREPOOL_EOPEN);
}

/* Reaps, once it is a zombie: until then nothing else can have its number, so what is left of its group is
 * killed just before. False: it has not exited. */
static bool reap(struct child *child)
{
    siginfo_t info = {0};
    id_t pidfd = (id_t)child->process.pidfd;
    int status = waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG | WNOWAIT);
    if (status == 0 && info.si_pid == 0)
        return false;
    kill(-child->process.pid, SIGKILL);
    write_obituary(child->slice, &info, status == 0);
    if (status == 0)
        waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG);
    return true;
}

static void on_exit_watch(uv_poll_t *watch, int status, int events)
{
    (void)status; /* an error of the watch is told by the look at the child itself */
    (void)events;
    struct child *child = watch->data;
    if (!reap(child))
        return;
    child->exited = true;
    uv_poll_stop(watch);
    switch (child->state) {
    case STARTING:
        fail_stillborn(child);
        settle(child);
        break;
    case RUNNING:
        mourn(child);
        corepool_worker_evict(child->worker, COREPOOL_REASON_HANGUP);
        break;
    case ENDING:
    case FAILING: settle(child); break;
    }
}

static void on_grace_over(uv_timer_t *timer)
{
    signal_child(timer->data, SIGKILL);
}

/* What a child needs to end by itself: end of file and a signal. stdout stays open, so that last words do not
 * kill it before it has tidied up. */
static int end_child(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    (void)worker;
    (void)reason;
    const struct slice *slice = pool_state;
    struct child *child = resource;
    child->state = ENDING;
    if (child->exited) {
        settle(child);
        return COREPOOL_PENDING;
    }
    close(child->process.stdin_fd);
    child->process.stdin_fd = -1;
    signal_child(child, SIGTERM);
    int64_t grace_ms = slice->options->grace_ms ? slice->options->grace_ms : GRACE_DEFAULT_MS;
    uv_update_time(child->grace.loop); /* the loop's idea of now may be as old as its last sleep */
    uv_timer_start(&child->grace, on_grace_over, (uint64_t)grace_ms, 0);
    return COREPOOL_PENDING;
}

/* --- the start of a child ------------------------------------------------------------------------------ */

static void on_exec_watch(uv_poll_t *watch, int status, int events)
{
    (void)status;
    (void)events;
    struct child *child = watch->data;
    int error;
    if (!read_exec(child, &error))
        return;
    close_handle((uv_handle_t *)watch);
    close(child->process.exec_fd);
    child->process.exec_fd = -1;
    if (child->state != STARTING)
        return; /* cancelled; only its exit matters */
    if (error != 0) {
        explain_exec(child, error);
        signal_child(child, SIGKILL); /* it is on its way out: this is for an error of our own read */
        fail_start(child, COREPOOL_EOPEN);
        return;
    }
    child->state = RUNNING;
    child->born_ns = cp_now_ns();
    corepool_worker_ready(child->worker, &child->process);
}

static int watch_fd(struct child *child, uv_poll_t *watch, int fd, uv_poll_cb callback)
{
    int status = uv_poll_init(corepool_worker_loop(child->worker), watch, fd);
    if (status < 0)
        return status;
    watch->data = child;
    child->handles++;
    return uv_poll_start(watch, UV_READABLE, callback);
}

/* From here on there is a handle, so every way out is through on_handle_closed. */
static int watch_child(struct child *child)
{
    uv_timer_init(corepool_worker_loop(child->worker), &child->grace); /* cannot fail */
    child->grace.data = child;
    child->handles++;
    int status = watch_fd(child, &child->exit_watch, child->process.pidfd, on_exit_watch);
    if (status == 0)
        status = watch_fd(child, &child->exec_watch, child->process.exec_fd, on_exec_watch);
    if (status == 0)
        return COREPOOL_PENDING;
    corepool_worker_explain(child->worker, "watch a child: %s", uv_strerror(status));
    fail_start(child, COREPOOL_ESYSTEM);
    cp_spawn_abandon(&child->process);
    settle(child);
    return COREPOOL_PENDING;
}

static int spawn(const struct slice *slice, struct cp_spawned *process)
{
    const corepool_process_options_t *options = slice->options;
    char path[PATH_MAX];
    int status = cp_spawn_find(name_of(slice), path);
    if (status < 0)
        return status;
    struct cp_spawn what = {
        .path = path,
        .argv = options->argv,
        .envp = options->envp ? options->envp : (const char *const *)environ,
        .cwd = options->cwd,
        .cpus = slice->cpus,
        .cpus_size = slice->cpus_size,
    };
    return cp_spawn(&what, process);
}

static int start_child(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)resource;
    struct slice *slice = pool_state;
    if (cp_now_ns() < slice->gate_ns) {
        corepool_worker_explain(worker, "%s %s", name_of(slice), slice->obituary);
        return COREPOOL_EOPEN;
    }
    struct child *child = calloc(1, sizeof *child);
    if (!child)
        return COREPOOL_ENOMEM;
    int status = spawn(slice, &child->process);
    if (status < 0) {
        corepool_worker_explain(worker, "%s", corepool_error_detail());
        free(child);
        return status;
    }
    child->worker = worker;
    child->slice = slice;
    corepool_worker_set_context(worker, child);
    return watch_child(child);
}

static void cancel_start(corepool_worker_t *worker, void *pool_state)
{
    (void)pool_state;
    struct child *child = corepool_worker_context(worker);
    if (!child || child->state != STARTING)
        return; /* failing already */
    signal_child(child, SIGKILL);
    fail_start(child, COREPOOL_ECANCELED);
}

const corepool_class_t corepool_process_class = {
    .name = "process",
    .pool_init = open_slice,
    .pool_terminate = close_slice,
    .init = start_child,
    .init_cancel = cancel_start,
    .terminate = end_child,
};
