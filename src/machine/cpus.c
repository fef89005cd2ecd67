/* machine/cpus.c: which CPUs: number lists, and what the kernel lets this process use.
 *
 * A CPU counts when it is online, in the cpuset (hwloc reads the cgroup), and in the affinity of the calling
 * thread, which is what a thread started from here would inherit. A listed CPU that does not count is refused
 * by number, with the reason. Thread: any. */
#include "machine/cpus.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/error.h"

bool cp_cpus_read_number(const char **at, unsigned *number)
{
    if (!isdigit((unsigned char)**at))
        return false;
    for (*number = 0; isdigit((unsigned char)**at); ++*at)
        *number = *number > CP_CPUS_MAX ? *number : *number * 10 + (unsigned)(**at - '0');
    return true;
}

/* Reads "0-3,8" into `set`; each number must be below `limit`. field: what a detail calls it. */
static int parse_list(const char *field, const char *text, unsigned limit, hwloc_bitmap_t set)
{
    const char *at = text, *item;
    for (;; at++) {
        unsigned first, last;
        item = at;
        if (!cp_cpus_read_number(&at, &first))
            break;
        last = first;
        if (*at == '-' && (at++, !cp_cpus_read_number(&at, &last) || last < first))
            break;
        if (last >= limit)
            return cp_fail(COREPOOL_EINVAL, "%s: \"%s\": there is no CPU %s%u here", field, text,
                           last > CP_CPUS_MAX ? "above " : "", last > CP_CPUS_MAX ? CP_CPUS_MAX : last);
        if (hwloc_bitmap_set_range(set, first, (int)last) != 0)
            return cp_fail(COREPOOL_ENOMEM, "%s: no memory for the CPU set", field);
        if (*at == '\0')
            return COREPOOL_OK;
        if (*at != ',')
            break;
    }
    return cp_fail(COREPOOL_EINVAL, "%s: \"%s\": not a CPU list such as \"0-3,8\" (at \"%s\")", field, text, item);
}

unsigned cp_cpus_of_line(char *line)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    char *end = strchr(line, '\n');
    int last = -1;
    if (end != NULL && set != NULL) {
        *end = '\0';
        if (parse_list("possible", line, CP_CPUS_MAX, set) == COREPOOL_OK)
            last = hwloc_bitmap_last(set);
    }
    hwloc_bitmap_free(set);
    return (unsigned)(last + 1);
}

static unsigned of_kernel;

static void read_possible(void)
{
    char line[256];
    FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
    if (file == NULL)
        return;
    if (fgets(line, sizeof line, file) != NULL)
        of_kernel = cp_cpus_of_line(line);
    fclose(file);
}

unsigned cp_cpus_of_kernel(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_possible);
    return of_kernel;
}

unsigned cp_cpus_possible(hwloc_topology_t map, bool real)
{
    unsigned known = (unsigned)(hwloc_bitmap_last(hwloc_topology_get_complete_cpuset(map)) + 1);
    unsigned possible = real ? cp_cpus_of_kernel() : 0;
    if (real && possible == 0)
        possible = (unsigned)get_nprocs_conf();
    return possible < known ? known : possible;
}

static int find_usable(hwloc_topology_t map, bool real, hwloc_bitmap_t usable)
{
    int err = hwloc_bitmap_copy(usable, hwloc_topology_get_topology_cpuset(map));
    if (err == 0 && real) {
        hwloc_bitmap_t binding = hwloc_bitmap_alloc();
        if (binding == NULL)
            return cp_fail(COREPOOL_ENOMEM, "topology: no memory for a CPU set");
        err = hwloc_bitmap_and(usable, usable, hwloc_topology_get_allowed_cpuset(map));
        if (err == 0 && hwloc_get_cpubind(map, binding, HWLOC_CPUBIND_THREAD) == 0)
            err = hwloc_bitmap_and(usable, usable, binding);
        hwloc_bitmap_free(binding);
    }
    if (err != 0)
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory for a CPU set");
    if (hwloc_bitmap_iszero(usable))
        return cp_fail(COREPOOL_ESYSTEM, "cpus: there is none that this process may use");
    return COREPOOL_OK;
}

/* Each listed CPU must be usable; says which is not, and why. */
static int check_listed(hwloc_topology_t map, hwloc_const_bitmap_t listed, hwloc_const_bitmap_t usable)
{
    unsigned cpu;
    hwloc_bitmap_foreach_begin(cpu, listed)
    {
        if (hwloc_bitmap_isset(usable, cpu))
            continue;
        if (!hwloc_bitmap_isset(hwloc_topology_get_complete_cpuset(map), cpu))
            return cp_fail(COREPOOL_EINVAL, "cpus: %u: there is no such CPU here", cpu);
        if (!hwloc_bitmap_isset(hwloc_topology_get_topology_cpuset(map), cpu))
            return cp_fail(COREPOOL_EINVAL, "cpus: %u: that CPU is offline", cpu);
        return cp_fail(COREPOOL_EINVAL, "cpus: %u: this process may not use it (affinity or cpuset)", cpu);
    }
    hwloc_bitmap_foreach_end();
    return COREPOOL_OK;
}

int cp_cpus_choose(hwloc_topology_t map, bool real, unsigned possible, const char *list, hwloc_bitmap_t wanted)
{
    int err = find_usable(map, real, wanted);
    if (err != COREPOOL_OK || list == NULL)
        return err;
    hwloc_bitmap_t listed = hwloc_bitmap_alloc();
    if (listed == NULL)
        return cp_fail(COREPOOL_ENOMEM, "cpus: no memory for the CPU set");
    err = parse_list("cpus", list, possible, listed);
    if (err == COREPOOL_OK)
        err = check_listed(map, listed, wanted);
    if (err == COREPOOL_OK && hwloc_bitmap_copy(wanted, listed) != 0)
        err = cp_fail(COREPOOL_ENOMEM, "cpus: no memory for the CPU set");
    hwloc_bitmap_free(listed);
    return err;
}

int cp_cpus_except(unsigned possible, const char *list, hwloc_bitmap_t wanted)
{
    hwloc_bitmap_t listed = hwloc_bitmap_alloc();
    if (listed == NULL)
        return cp_fail(COREPOOL_ENOMEM, "except: no memory for the CPU set");
    int err = parse_list("except", list, possible, listed);
    if (err == COREPOOL_OK && hwloc_bitmap_andnot(wanted, wanted, listed) != 0)
        err = cp_fail(COREPOOL_ENOMEM, "except: no memory for the CPU set");
    if (err == COREPOOL_OK && hwloc_bitmap_iszero(wanted))
        err = cp_fail(COREPOOL_EINVAL, "except: \"%s\": leaves no CPU for a shard", list);
    hwloc_bitmap_free(listed);
    return err;
}
