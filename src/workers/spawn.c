/* workers/spawn.c: fork and exec of one child, by hand. Thread: shard.
 *
 * By hand because neither uv_spawn nor posix_spawn can set PR_SET_PDEATHSIG, and it has to be set by the child
 * itself. The way of a child:
 *
 *   open_pipes ─ _Fork ┬─ parent: closes the child's ends, opens a pidfd, returns at once
 *                      └─ child: become(): group, death signal, stdio, signals, cwd, exec ─ or errno to exec_fd
 *
 * Signals stay blocked from before fork until the child has put every handler back to default, so that none of
 * the program's handlers ever runs in the child. The child calls only async-signal-safe functions: other
 * threads of the program may hold any lock at the moment of the fork. That is why it is _Fork: fork would run
 * the atfork handlers of every library in the program first, and libuv's opens pipes.
 *
 * stdin is a socket pair and not a pipe: writing to a child that has gone raises SIGPIPE, which would kill the
 * program, and only send() can be told not to. stdout is a pipe: reading raises nothing. */
#include "workers/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

/* execvp's path when PATH is not set. */
#define DEFAULT_PATH "/bin:/usr/bin"

/* What a shell returns for a program that it cannot start; nobody looks at ours, exec_fd says more. */
#define EXIT_NO_EXEC 127

/* [0] is ours, [1] the child's. */
struct pipes {
    int in[2], out[2], exec[2];
};

/* --- look-up ------------------------------------------------------------------------------------------- */

/* Whether execve would take it; else errno says why not. */
static bool is_program(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0)
        return false;
    if (!S_ISREG(info.st_mode)) {
        errno = EACCES;
        return false;
    }
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/* Tries every directory of `list`. An error other than "not there" is worth more than ENOENT to the reader. */
static int search(const char *list, const char *file, char path[PATH_MAX])
{
    int error = ENOENT;
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ":");
        const char *slash = length > 0 ? "/" : ""; /* an empty entry is the current directory */
        int written = snprintf(path, PATH_MAX, "%.*s%s%s", (int)length, at, slash, file);
        if (written < PATH_MAX && is_program(path))
            return 0;
        if (written < PATH_MAX && errno != ENOENT && errno != ENOTDIR)
            error = errno;
        at += length;
        if (*at == '\0')
            return error;
    }
}

int cp_spawn_find(const char *file, char path[PATH_MAX])
{
    if (strlen(file) >= PATH_MAX)
        return cp_fail(COREPOOL_EOPEN, "exec %.64s…: %s", file, strerror(ENAMETOOLONG));
    if (strchr(file, '/')) {
        strcpy(path, file); /* execve itself judges it, after chdir */
        return COREPOOL_OK;
    }
    const char *list = getenv("PATH");
    int error = search(list ? list : DEFAULT_PATH, file, path);
    if (error)
        return cp_fail(COREPOOL_EOPEN, "exec %s: %s", file, strerror(error));
    return COREPOOL_OK;
}

/* --- descriptors --------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_pipes(struct pipes *pipes, int end)
{
    close_fd(&pipes->in[end]);
    close_fd(&pipes->out[end]);
    close_fd(&pipes->exec[end]);
}

/* Moves it out of 0 … 2, which it may get in a program that has closed those: dup2 onto them must not meet it.
 * */
static int lift(int *fd)
{
    if (*fd > STDERR_FILENO)
        return 0;
    int above = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (above < 0)
        return -1;
    close(*fd);
    *fd = above;
    return 0;
}

/* Our end is never waited for inside a call. The child's end is another open file and stays blocking. */
static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static int try_open_pipes(struct pipes *pipes)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipes->in) < 0 || pipe2(pipes->out, O_CLOEXEC) < 0 ||
        pipe2(pipes->exec, O_CLOEXEC) < 0)
        return -1;
    for (int end = 0; end < 2; end++)
        if (lift(&pipes->in[end]) < 0 || lift(&pipes->out[end]) < 0 || lift(&pipes->exec[end]) < 0)
            return -1;
    if (set_nonblocking(pipes->in[0]) < 0 || set_nonblocking(pipes->out[0]) < 0 ||
        set_nonblocking(pipes->exec[0]) < 0)
        return -1;
    return 0;
}

static int open_pipes(struct pipes *pipes)
{
    *pipes = (struct pipes){.in = {-1, -1}, .out = {-1, -1}, .exec = {-1, -1}};
    if (try_open_pipes(pipes) == 0)
        return COREPOOL_OK;
    int error = errno;
    close_pipes(pipes, 0);
    close_pipes(pipes, 1);
    return cp_fail(COREPOOL_ESYSTEM, "pipes to a child: %s", strerror(error));
}

/* --- the child: async-signal-safe calls only ------------------------------------------------------------ */

/* Handlers point into a program that is about to be replaced; ignored signals would stay ignored across exec.
 * */
static void default_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL); /* refused for SIGKILL, SIGSTOP and libc's own, as it should be */
}

/* Everything before exec but cwd, in an order that matters: death signal before the look at the parent, which
 * may have died in between. 0, or -1 with errno. */
static int prepare(const struct cp_spawn *what, const struct pipes *pipes, pid_t parent)
{
    if (setpgid(0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -1;
    if (getppid() != parent)
        _exit(EXIT_NO_EXEC);
    default_signals();
    if (dup2(pipes->in[1], STDIN_FILENO) < 0 || dup2(pipes->out[1], STDOUT_FILENO) < 0)
        return -1;
    /* Descriptors that the program opened without O_CLOEXEC. Where the kernel has no such call they leak, as in
     * any fork; ours do not. */
    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    /* The shard's pin is not meant for the child. A refusal (the cpuset shrank) leaves the pin: it still runs.
     * */
    if (what->cpus)
        sched_setaffinity(0, what->cpus_size, what->cpus);
    sigset_t none;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void become(const struct cp_spawn *what, const struct pipes *pipes, pid_t parent)
{
    int error = prepare(what, pipes, parent) < 0 ? errno : 0;
    if (error == 0 && what->cwd && chdir(what->cwd) < 0)
        error = -errno;
    if (error == 0) {
        execve(what->path, (char *const *)(uintptr_t)what->argv, (char *const *)(uintptr_t)what->envp);
        error = errno;
    }
    while (write(pipes->exec[1], &error, sizeof error) < 0 && errno == EINTR)
        continue;
    _exit(EXIT_NO_EXEC);
}

/* --- the parent ---------------------------------------------------------------------------------------- */

static pid_t fork_into(const struct cp_spawn *what, const struct pipes *pipes)
{
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = _Fork();
    if (pid == 0)
        become(what, pipes, parent);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return pid;
}

int cp_spawn(const struct cp_spawn *what, struct cp_spawned *child)
{
    *child = CP_SPAWNED_NONE;
    struct pipes pipes;
    int status = open_pipes(&pipes);
    if (status < 0)
        return status;
    const char *step = "fork";
    pid_t pid = fork_into(what, &pipes);
    int error = errno;
    close_pipes(&pipes, 1); /* now, so that their numbers are free for the pidfd */
    if (pid > 0) {
        *child = (struct cp_spawned){pid, -1, pipes.in[0], pipes.out[0], pipes.exec[0]};
        child->pidfd = pidfd_open(pid, 0);
        if (child->pidfd >= 0)
            return COREPOOL_OK;
        step = "pidfd_open";
        error = errno;
        cp_spawn_abandon(child);
        *child = CP_SPAWNED_NONE;
    }
    close_pipes(&pipes, 0);
    return cp_fail(COREPOOL_ESYSTEM, "%s: %s", step, strerror(error));
}

void cp_spawn_abandon(const struct cp_spawned *child)
{
    kill(child->pid, SIGKILL);
    while (waitid(P_PID, (id_t)child->pid, &(siginfo_t){0}, WEXITED) < 0 && errno == EINTR)
        continue;
}

void cp_spawn_close(struct cp_spawned *child)
{
    close_fd(&child->stdin_fd);
    close_fd(&child->stdout_fd);
    close_fd(&child->exec_fd);
    close_fd(&child->pidfd);
}
