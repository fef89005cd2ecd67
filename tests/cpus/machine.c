/* tests/cpus/machine.c: cpusets (of either kind), CPUs offline, affinities: as root, and undone by a guard.
 *
 * The guard is a parent process that does nothing else: it outlives whatever happens to the program, then
 * brings CPUs back and removes the cpuset. A signal to end makes it end the program first. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpus.h"

#define CPUS_MAX 1024
#define PATH_BYTES 256

/* --- files --- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;
    close(fd);
    errno = error;
    return written;
}

static bool read_text(const char *path, char text[PATH_BYTES])
{
    FILE *file = fopen(path, "re");
    bool read = file && fgets(text, PATH_BYTES, file);
    if (file)
        fclose(file);
    text[read ? strcspn(text, "\n") : 0] = '\0';
    return read;
}

static bool refuse(const char *what, const char *path)
{
    printf("skipped: %s: %s: %s\n", what, path, strerror(errno));
    return false;
}

/* --- cpusets --- */

/* Where cpusets are mounted; v2: as a controller of the one hierarchy. */
struct mount {
    char path[PATH_BYTES];
    bool v2;
};

static bool has_word(const char *path, const char *word)
{
    char text[PATH_BYTES];
    return read_text(path, text) && strstr(text, word);
}

static bool find_mount(struct mount *found)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent *entry;
    char controllers[PATH_BYTES + 32];
    bool has = false;
    while (mounts && !has && (entry = getmntent(mounts))) {
        found->v2 = strcmp(entry->mnt_type, "cgroup2") == 0;
        snprintf(found->path, sizeof found->path, "%s", entry->mnt_dir);
        snprintf(controllers, sizeof controllers, "%s/cgroup.controllers", found->path);
        has = found->v2 ? has_word(controllers, "cpuset")
                        : strcmp(entry->mnt_type, "cgroup") == 0 && hasmntopt(entry, "cpuset");
    }
    if (mounts)
        endmntent(mounts);
    return has;
}

/* Of the program with this process number. */
static void name_cpuset(char path[PATH_BYTES], const struct mount *mount, pid_t process, const char *file)
{
    int length = snprintf(path, PATH_BYTES, "%s/corepool-cpus-%d%s%s", mount->path, (int)process,
                          *file ? "/" : "", file);
    if (length >= PATH_BYTES)
        broke("machine", "the path of the cpuset is too long");
}

static void remove_cpuset(pid_t process)
{
    struct mount mount;
    char path[PATH_BYTES];
    if (!find_mount(&mount))
        return;
    name_cpuset(path, &mount, process, "");
    for (unsigned i = 0; rmdir(path) != 0 && errno == EBUSY && i < 1000;
         i++) /* the dead are counted for a moment */
        usleep(1000);
}

static bool make_cpuset(const struct mount *mount, const char *path)
{
    char file[PATH_BYTES + 32];
    snprintf(file, sizeof file, "%s/cgroup.subtree_control", mount->path);
    if (mount->v2 && !has_word(file, "cpuset") && !write_text(file, "+cpuset"))
        return refuse("no cpusets below", file);
    return mkdir(path, 0755) == 0 || refuse("no cpuset of its own", path);
}

/* In the older kind memory nodes must be named. */
static bool set_nodes(const struct mount *mount)
{
    char from[PATH_BYTES + 32], to[PATH_BYTES], nodes[PATH_BYTES];
    if (mount->v2)
        return true;
    snprintf(from, sizeof from, "%s/cpuset.mems", mount->path);
    name_cpuset(to, mount, getpid(), "cpuset.mems");
    return (read_text(from, nodes) && write_text(to, nodes)) || refuse("no memory nodes", to);
}

bool machine_enter_cpuset(const char *cpus)
{
    struct mount mount;
    char path[PATH_BYTES], number[32];
    if (!find_mount(&mount))
        return printf("skipped: no cpusets are mounted\n"), false;
    name_cpuset(path, &mount, getpid(), "");
    if (!make_cpuset(&mount, path) || !set_nodes(&mount))
        return false;
    name_cpuset(path, &mount, getpid(), "cpuset.cpus");
    if (!write_text(path, cpus))
        return refuse("the CPUs are not to be had", path);
    name_cpuset(path, &mount, getpid(), "cgroup.procs");
    snprintf(number, sizeof number, "%d", (int)getpid());
    return write_text(path, number) || refuse("the cpuset takes no process", path);
}

void machine_set_cpuset(const char *cpus)
{
    struct mount mount;
    char path[PATH_BYTES];
    if (!find_mount(&mount))
        broke("machine", "the cpusets are gone");
    name_cpuset(path, &mount, getpid(), "cpuset.cpus");
    if (!write_text(path, cpus))
        broke("machine", "%s: \"%s\": %s", path, cpus, strerror(errno));
}

/* --- CPUs --- */

static void name_plug(char path[PATH_BYTES], int cpu)
{
    snprintf(path, PATH_BYTES, "/sys/devices/system/cpu/cpu%d/online", cpu);
}

static bool is_unplugged(int cpu)
{
    char path[PATH_BYTES], text[PATH_BYTES];
    name_plug(path, cpu);
    return read_text(path, text) && *text == '0';
}

/* In the older kind of cpusets those below the root lose an offline CPU for good. */
static bool has_frail_cpusets(void)
{
    struct mount mount;
    struct stat status;
    return find_mount(&mount) && !mount.v2 && stat(mount.path, &status) == 0 && status.st_nlink > 2;
}

bool machine_may_unplug(int cpu)
{
    char path[PATH_BYTES];
    name_plug(path, cpu);
    if (has_frail_cpusets())
        return printf("skipped: there are cpusets that would lose CPU %d for good\n", cpu), false;
    return access(path, W_OK) == 0 || refuse("the CPU cannot be taken offline", path);
}

void machine_plug(int cpu, bool online)
{
    char path[PATH_BYTES];
    name_plug(path, cpu);
    for (unsigned i = 0; !write_text(path, online ? "1" : "0"); i++) {
        if (errno != EBUSY || i == 1000) /* another change is under way */
            broke("machine", "%s: %s", path, strerror(errno));
        usleep(1000);
    }
}

void machine_place(pid_t thread, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = cpu < 0 ? 0 : cpu; i < (cpu < 0 ? CPU_SETSIZE : cpu + 1); i++)
        CPU_SET((unsigned)i, &set);
    (void)sched_setaffinity(thread, sizeof set, &set); /* it may have ended, the CPU be gone: as it comes */
}

/* --- the guard --- */

static bool were_unplugged[CPUS_MAX];
static volatile pid_t program;

static void restore(pid_t process)
{
    for (int cpu = 0; cpu < CPUS_MAX; cpu++)
        if (!were_unplugged[cpu] && is_unplugged(cpu))
            machine_plug(cpu, true);
    remove_cpuset(process);
}

static void end_program(int signal_number)
{
    (void)signal_number;
    kill(program, SIGKILL);
}

static int status_of(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    fprintf(stderr, "ended by signal %d\n", WTERMSIG(status));
    return 1;
}

void machine_guard(void)
{
    static const int endings[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t blocked, before;
    int status;
    for (int cpu = 0; cpu < CPUS_MAX; cpu++)
        were_unplugged[cpu] = is_unplugged(cpu);
    sigfillset(&blocked);
    sigprocmask(SIG_SETMASK, &blocked, &before); /* until the program's number is known */
    pid_t child = fork();
    if (child < 0)
        broke("machine", "no process to guard: %s", strerror(errno));
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    program = child;
    for (unsigned i = 0; i < sizeof endings / sizeof *endings; i++)
        signal(endings[i], end_program);
    sigprocmask(SIG_SETMASK, &before, NULL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    restore(child);
    exit(status_of(status));
}
