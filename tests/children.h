/* tests/children.h: what the tests of child processes share: a runtime with one pool, and a look at what is
 * left.
 *
 * Every test ends in `finish`: the laws hold, no child is left, not even as a zombie, and the descriptors are
 * those of before. */
#ifndef TESTS_CHILDREN_H
#define TESTS_CHILDREN_H

#include <criterion/criterion.h>

#include <corepool.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Long enough for a sanitizer on a busy machine; only a failing test waits for so long. */
#define PATIENCE_MS 20000
#define RECEIVE_MS 15000

/* Waits for a condition to come true; false when patience ends. */
#define EVENTUALLY(condition)                                                                                  \
    __extension__({                                                                                            \
        int64_t give_up = now_ms() + PATIENCE_MS;                                                              \
        while (!(condition) && now_ms() < give_up)                                                             \
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                                           \
        (condition);                                                                                           \
    })

static const char *const cat[] = {"cat", NULL};

/* Echoes lines; some words make it misbehave. */
static const char *const moody[] = {
    "sh", "-c",
    "while read -r line; do case $line in"
    " stall) sleep 1000 ;;"
    " twice) printf 'one\\ntwo\\n' ;;"
    " long) printf '%4096s\\n' x ;;"
    " deaf) exec 0<&-; echo deaf; sleep 1000 ;;"
    " env) echo \"$PWD $MARK\" ;;"
    " fds) for fd in /proc/self/fd/*; do echo ${fd##*/}; done | tr '\\n' ' '; echo ;;"
    " cpus) sed -n 's/Cpus_allowed://p' /proc/self/status | tr -d '\\t' ;;"
    " *) echo \"$line\" ;; esac; done",
    NULL};

static corepool_runtime_t *runtime;
static corepool_pool_t pool;
static int descriptors_before;

static inline int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Entries of a directory that `counts` says yes to. */
static inline int count_entries(const char *path, bool (*counts)(const char *name))
{
    DIR *directory = opendir(path);
    cr_assert_not_null(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.' && counts(entry->d_name);
    closedir(directory);
    return count;
}

static inline bool is_any(const char *name)
{
    (void)name;
    return true;
}

/* State and parent of a process, as /proc tells; false: there is no such process. */
static inline bool look_up(pid_t pid, char *state, pid_t *parent)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    const char *after_name = length ? strrchr(line, ')') : NULL;
    return after_name && sscanf(after_name, ") %c %d", state, parent) == 2;
}

static inline bool is_gone(pid_t pid)
{
    char state;
    pid_t parent;
    return !look_up(pid, &state, &parent) || state == 'Z';
}

static inline bool is_child(const char *name)
{
    char state;
    pid_t parent;
    return look_up(atoi(name), &state, &parent) && parent == getpid();
}

static inline int count_descriptors(void)
{
    return count_entries("/proc/self/fd", is_any);
}

static inline corepool_stats_t stats(void)
{
    corepool_stats_t now;
    cr_assert_eq(corepool_pool_stats(pool, &now), COREPOOL_OK);
    return now;
}

static inline void start_runtime(void)
{
    int status = corepool_runtime_start(NULL, &runtime);
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
}

static inline void stop_runtime(void)
{
    cr_assert_eq(corepool_runtime_stop(runtime, PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}

/* The first runtime of a process leaves what libuv keeps for good; the baseline is taken after it. */
static inline void start(const corepool_process_options_t *options, unsigned size)
{
    start_runtime();
    stop_runtime();
    descriptors_before = count_descriptors();
    start_runtime();
    /* A child whose place another shard wants is ended for that; these tests count for what else children end. */
    const corepool_pool_options_t own = {.policy = COREPOOL_POLICY_LOCAL_ONLY};
    int status =
        corepool_pool_open(runtime, &corepool_process_class, (void *)(uintptr_t)options, size, &own, &pool);
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
}

static inline void finish(void)
{
    cr_assert_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    stop_runtime();
    cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1);
    cr_assert_eq(errno, ECHILD, "a child is left unreaped");
    cr_assert_eq(count_entries("/proc", is_child), 0);
    cr_assert_eq(count_descriptors(), descriptors_before);
}

static inline corepool_lease_t check_out(void)
{
    corepool_lease_t lease;
    int status = corepool_checkout(pool, &(corepool_checkout_options_t){.timeout_ms = PATIENCE_MS}, &lease);
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
    return lease;
}

static inline int ask(const corepool_lease_t *lease, const char *line, char *reply, size_t capacity,
                      int64_t timeout_ms)
{
    size_t length;
    int status =
        corepool_process_call(lease, line, strlen(line), '\n', reply, capacity - 1, &length, timeout_ms);
    reply[length] = '\0';
    return status;
}

/* One whole round as a client of the pool would do it. */
static inline int round_trip(const char *line)
{
    char reply[128];
    corepool_lease_t lease;
    int status = corepool_checkout(pool, NULL, &lease);
    if (status < 0)
        return status;
    status = ask(&lease, line, reply, sizeof reply, RECEIVE_MS);
    if (status == COREPOOL_OK && strcmp(reply, line) != 0)
        status = COREPOOL_EPROTO;
    int ended = status == COREPOOL_OK ? corepool_checkin(&lease) : corepool_checkin_fail(&lease);
    return status < 0 ? status : ended;
}

#endif
