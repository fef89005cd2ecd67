/* machine/cgroup.h: limits that control groups set. Thread: any. */
#ifndef CP_MACHINE_CGROUP_H
#define CP_MACHINE_CGROUP_H

/* The CPU time that this process may use, in thousandths of one CPU: the tightest limit of its control groups and of those
 * above them, in every hierarchy that is mounted (v2: cpu.max; v1: cpu.cfs_quota_us). 0: none, or none that can be read.
 * root: put before every path that is read; "" but for tests. */
unsigned cp_cgroup_cpu_quota(const char *root);

#endif
