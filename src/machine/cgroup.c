/* machine/cgroup.c: how much CPU time the process's control groups allow it.
 *
 * /proc/self/cgroup says which group the process is in, per hierarchy, /proc/self/mountinfo where that hierarchy is to be
 * seen, and from which of its groups on (in a container, not from the top). Each group from the process's own up to there may
 * have a limit. What cannot be read or understood sets none: an accounting file that is missing is the usual state of
 * affairs. Any thread; keeps nothing. */
#include "machine/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A limit above any machine is as good as none: keeps what is computed from it in range. */
#define QUOTA_MAX 10000000u

/* A group's path: where its hierarchy is mounted, and which it is there. */
#define GROUP_MAX (2 * PATH_MAX)

enum version { NEITHER, V1, V2 };

struct search {
    const char *root;
    char mine[3][PATH_MAX]; /* the process's group, by version; empty: in none */
    unsigned quota;         /* the tightest so far; 0: none */
};

/* One mount of a hierarchy with CPU limits. */
struct mount {
    enum version version;
    char top[PATH_MAX];   /* the group that is seen there as the topmost */
    char point[PATH_MAX]; /* where */
};

/* --- one group ------------------------------------------------------------------------------------------------------- */

/* The numbers at the start of a group's file, up to two; how many. */
static int read_numbers(const char *group, const char *name, long long number[2])
{
    char path[GROUP_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", group, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    int count = fscanf(file, "%lld %lld", &number[0], &number[1]);
    fclose(file);
    return count;
}

/* At least one thousandth: a limit is never none. */
static void take_limit(struct search *search, long long quota_us, long long period_us)
{
    if (quota_us <= 0 || period_us <= 0 || quota_us / period_us >= QUOTA_MAX / 1000)
        return;
    /* Both fit: the quotient is small, and the remainder smaller than the period, which the kernel keeps below a second. */
    long long rest = quota_us % period_us;
    if (rest > LLONG_MAX / 1000)
        return;
    unsigned quota = (unsigned)(quota_us / period_us * 1000 + rest * 1000 / period_us);
    quota = quota == 0 ? 1 : quota;
    search->quota = search->quota == 0 || quota < search->quota ? quota : search->quota;
}

static void look_at_group(struct search *search, enum version version, const char *group)
{
    long long limit[2], period[2];
    if (version == V2) { /* "max 100000" has no first number */
        if (read_numbers(group, "cpu.max", limit) == 2)
            take_limit(search, limit[0], limit[1]);
    } else if (read_numbers(group, "cpu.cfs_quota_us", limit) >= 1 &&
               read_numbers(group, "cpu.cfs_period_us", period) >= 1) {
        take_limit(search, limit[0], period[0]);
    }
}

/* From the process's own group up to the topmost that is seen at the mount. */
static void climb(struct search *search, const struct mount *mount)
{
    char group[GROUP_MAX];
    const char *mine = search->mine[mount->version];
    size_t above = strcmp(mount->top, "/") == 0 ? 0 : strlen(mount->top);
    if (strncmp(mine, mount->top, above) != 0 || (mine[above] != '/' && mine[above] != '\0'))
        return; /* not to be seen there */
    int base = snprintf(group, sizeof group, "%s%s", search->root, mount->point);
    if (base < 0 || (size_t)base + strlen(mine) >= sizeof group)
        return;
    strcpy(group + base, strcmp(mine + above, "/") == 0 ? "" : mine + above);
    for (;;) {
        look_at_group(search, mount->version, group);
        char *last = strrchr(group + base, '/');
        if (last == NULL)
            return;
        *last = '\0';
    }
}

/* --- which groups ---------------------------------------------------------------------------------------------------- */

/* Whether `word` is one of a list with commas. */
static bool lists(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; *at != '\0'; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

static FILE *open_below(const char *root, const char *path)
{
    char name[PATH_MAX];
    int length = snprintf(name, sizeof name, "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof name ? fopen(name, "re") : NULL;
}

/* Lines "NUMBER:CONTROLLERS:PATH"; v2 has number 0 and no controllers. */
static void find_mine(struct search *search)
{
    char *line = NULL;
    size_t bytes = 0;
    FILE *file = open_below(search->root, "/proc/self/cgroup");
    while (file != NULL && getline(&line, &bytes, file) > 0) {
        char *at = line;
        const char *number = strsep(&at, ":"), *controllers = strsep(&at, ":"), *path = strsep(&at, "\n");
        if (path == NULL || strlen(path) >= PATH_MAX)
            continue;
        if (lists(controllers, "cpu"))
            strcpy(search->mine[V1], path);
        else if (strcmp(number, "0") == 0 && *controllers == '\0')
            strcpy(search->mine[V2], path);
    }
    free(line);
    if (file != NULL)
        fclose(file);
}

/* mountinfo writes blanks and the like as \ooo. */
static bool unescape(const char *text, char out[PATH_MAX])
{
    size_t length = 0;
    for (; *text != '\0' && length + 1 < PATH_MAX; length++) {
        unsigned code;
        if (sscanf(text, "\\%3o", &code) == 1 && strlen(text) >= 4) {
            out[length] = (char)code;
            text += 4;
        } else {
            out[length] = *text++;
        }
    }
    out[length] = '\0';
    return *text == '\0';
}

/* A line "ID PARENT DEVICE TOP POINT OPTIONS [FIELD…] - TYPE SOURCE SUPEROPTIONS". */
static bool read_mount(char *line, struct mount *mount)
{
    const char *field[6] = {NULL};
    line[strcspn(line, "\n")] = '\0';
    char *tail = strstr(line, " - ");
    if (tail == NULL)
        return false;
    *tail = '\0';
    tail += 3;
    for (unsigned i = 0; i < 6; i++)
        field[i] = strsep(&line, " ");
    const char *type = strsep(&tail, " ");
    strsep(&tail, " ");
    if (strcmp(type, "cgroup2") == 0)
        mount->version = V2;
    else
        mount->version = strcmp(type, "cgroup") == 0 && tail != NULL && lists(tail, "cpu") ? V1 : NEITHER;
    return mount->version != NEITHER && field[4] != NULL && unescape(field[3], mount->top) &&
           unescape(field[4], mount->point);
}

static void look_at_mounts(struct search *search)
{
    struct mount mount;
    char *line = NULL;
    size_t bytes = 0;
    FILE *file = open_below(search->root, "/proc/self/mountinfo");
    while (file != NULL && getline(&line, &bytes, file) > 0)
        if (read_mount(line, &mount) && search->mine[mount.version][0] != '\0')
            climb(search, &mount);
    free(line);
    if (file != NULL)
        fclose(file);
}

unsigned cp_cgroup_cpu_quota(const char *root)
{
    struct search search = {.root = root};
    find_mine(&search);
    look_at_mounts(&search);
    return search.quota;
}
