/* machine/cpus.h: CPU lists and the CPUs that this process may use. Thread: any. */
#ifndef CP_MACHINE_CPUS_H
#define CP_MACHINE_CPUS_H

#include <stdbool.h>

#include <hwloc.h>

/* The kernel's own largest NR_CPUS on x86: a plan for more is a slip of the keyboard, and would take hwloc
 * all memory before it noticed. */
#define CP_CPUS_MAX 8192u

/* Reads digits at *at and moves it past them; stops growing above CP_CPUS_MAX. False when there is no digit. */
bool cp_cpus_read_number(const char **at, unsigned *number);

/* One more than the highest CPU number in a line of the kernel's; 0 when it is none, or not whole: there are tables for so many
 * CPUs that are looked up as they are. Changes the line. */
unsigned cp_cpus_of_line(char *line);

/* One more than the highest CPU number that the kernel will ever use; 0 when it does not say. It is asked once. */
unsigned cp_cpus_of_kernel(void);

/* One more than the highest CPU number that the machine (when not `real`: the description) will ever use. */
unsigned cp_cpus_possible(hwloc_topology_t map, bool real);

/* Sets `wanted` to the CPUs that shards are to stand for: those of `list` ("0-3,8"), or with NULL all that this
 * process may use. COREPOOL_OK, COREPOOL_EINVAL (detail: which CPU and why), COREPOOL_ESYSTEM (there is none),
 * COREPOOL_ENOMEM. */
int cp_cpus_choose(hwloc_topology_t map, bool real, unsigned possible, const char *list, hwloc_bitmap_t wanted);

/* Takes the CPUs of `list` out of `wanted`; those that are not in it are no matter. COREPOOL_OK, COREPOOL_EINVAL (detail: a bad
 * list, or one that leaves none), COREPOOL_ENOMEM. */
int cp_cpus_except(unsigned possible, const char *list, hwloc_bitmap_t wanted);

#endif
