/* workers/spawn.h: one child process, from a command line to a running program. Thread: shard, the one that
 * lives as long as the child may: the kernel kills the child when that thread ends (PR_SET_PDEATHSIG). */
#ifndef CP_WORKERS_SPAWN_H
#define CP_WORKERS_SPAWN_H

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What to start; all of it is the caller's and is read during cp_spawn only. */
struct cp_spawn {
    const char *path; /* from cp_spawn_find */
    const char *const *argv;
    const char *const *envp;
    const char *cwd;       /* NULL: the program's own */
    const cpu_set_t *cpus; /* where the child may run; NULL: where the calling thread may */
    size_t cpus_size;
};

/* A child and our ends. All four descriptors are close-on-exec, the three to talk over are non-blocking. */
struct cp_spawned {
    pid_t pid;
    int pidfd;     /* readable once the child has exited */
    int stdin_fd;  /* a socket, so that MSG_NOSIGNAL can keep SIGPIPE away */
    int stdout_fd; /* a pipe */
    int exec_fd;   /* an int: errno of a failed exec, its negative of a failed chdir; end of file: it runs */
};

#define CP_SPAWNED_NONE ((struct cp_spawned){-1, -1, -1, -1, -1})

/* Looks `file` up as execvp would (a name with a slash is taken as it is), in this program's PATH: here,
 * because between fork and exec nothing may allocate or read the environment. COREPOOL_OK with `path` filled,
 * or COREPOOL_EOPEN with the detail "exec FILE: why". */
int cp_spawn_find(const char *file, char path[PATH_MAX]);

/* Forks; returns without waiting for exec, whose outcome comes over child->exec_fd. The child leads a process
 * group of its own, with default signal handling, and keeps no descriptor but 0, 1 and the program's stderr.
 * COREPOOL_OK with *child the caller's: to be reaped, its descriptors closed. Else COREPOOL_ESYSTEM with
 * detail, *child is CP_SPAWNED_NONE and nothing is left. */
int cp_spawn(const struct cp_spawn *what, struct cp_spawned *child);

/* Kills a child that has only just been forked and reaps it: blocks for the moment that takes. Closes nothing.
 * */
void cp_spawn_abandon(const struct cp_spawned *child);

/* Closes what is open and marks it closed. */
void cp_spawn_close(struct cp_spawned *child);

#endif
