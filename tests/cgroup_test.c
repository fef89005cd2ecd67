/* tests/cgroup_test.c: what control groups allow, read from files below a directory of the test's own. */
#include <criterion/criterion.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <corepool/error.h>
#include <corepool/topology.h>
#include "machine/cgroup.h"

#define V1_MOUNT "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
#define V2_MOUNT "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
#define NO_MOUNT "20 1 8:1 / / rw - ext4 /dev/sda1 rw,cpu\n32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"

#define V1 "/sys/fs/cgroup/cpu,cpuacct"
#define V2 "/sys/fs/cgroup/unified"

static char root[] = "/tmp/cgroup_test.XXXXXX";

static int remove_one(const char *path, const struct stat *what, int kind, struct FTW *place)
{
    (void)what, (void)kind, (void)place;
    return remove(path);
}

static void make_root(void)
{
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    cr_assert_eq(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

TestSuite(cgroup, .init = make_root, .fini = remove_root);

/* Writes a file below the root, and the folders above it. */
static void put(const char *path, const char *text)
{
    char name[512];
    cr_assert_lt(snprintf(name, sizeof name, "%s%s", root, path), (int)sizeof name);
    for (char *at = name + strlen(root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = '\0';
        cr_assert(mkdir(name, 0700) == 0 || errno == EEXIST);
    }
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file, "%s", name);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static void put_group(const char *folder, const char *quota, const char *period)
{
    char path[256];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    put(path, quota);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    put(path, period);
}

static void put_process(const char *groups, const char *mounts)
{
    put("/proc/self/cgroup", groups);
    put("/proc/self/mountinfo", mounts);
}

/* ---- what is a limit ---- */

Test(cgroup, without_any_file_there_is_no_limit)
{
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0);
    put_process("0::/\n1:cpu,cpuacct:/\n", NO_MOUNT V1_MOUNT V2_MOUNT);
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0);
}

Test(cgroup, v2_says_quota_and_period_on_one_line)
{
    put_process("0::/app\n", NO_MOUNT V2_MOUNT);
    put(V2 "/app/cpu.max", "150000 100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1500);
    put(V2 "/app/cpu.max", "max 100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0);
}

Test(cgroup, v1_says_them_in_two_files)
{
    put_process("5:cpuset:/other\n4:cpu,cpuacct:/app\n", NO_MOUNT V1_MOUNT);
    put_group(V1 "/app", "250000\n", "100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 2500);
    put_group(V1 "/app", "-1\n", "100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0);
}

Test(cgroup, the_tightest_of_nested_groups_counts)
{
    put_process("0::/a/b/c\n", V2_MOUNT);
    put(V2 "/a/b/c/cpu.max", "400000 100000\n");
    put(V2 "/a/b/cpu.max", "max 100000\n");
    put(V2 "/a/cpu.max", "30000 20000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1500);
    put(V2 "/cpu.max", "70000 100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 700, "the topmost counts, too");
    put(V2 "/a/b/c/d/cpu.max", "1000 100000\n");
    put(V2 "/a/x/cpu.max", "1000 100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 700, "neither its children nor its siblings");
}

Test(cgroup, the_tightest_of_both_hierarchies_counts)
{
    put_process("4:cpu,cpuacct:/one\n0::/two\n", NO_MOUNT V1_MOUNT V2_MOUNT);
    put_group(V1 "/one", "300000", "100000");
    put(V2 "/two/cpu.max", "200000 100000");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 2000);
    put_group(V1 "/one", "100000", "100000");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1000);
}

/* ---- where it is ---- */

Test(cgroup, a_container_sees_its_own_group_as_the_mounts_root)
{
    put_process("4:cpu:/docker/ab/inner\n", "30 25 0:26 /docker/ab /cg rw - cgroup cgroup rw,cpu\n");
    put_group("/cg/inner", "500000", "100000");
    put_group("/cg", "120000", "100000");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1200);
}

Test(cgroup, a_mount_of_another_group_is_not_the_processs)
{
    put_process("4:cpu:/docker/abc\n", "30 25 0:26 /docker/ab /cg rw - cgroup cgroup rw,cpu\n");
    put_group("/cg", "100000", "100000");
    put_group("/cg/c", "100000", "100000");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0, "a name that only begins the same");
}

Test(cgroup, blanks_in_paths_are_read_as_the_kernel_writes_them)
{
    put_process("0::/my app:1\n", "31 25 0:27 / /a\\040b rw - cgroup2 cgroup2 rw\n");
    put("/a b/my app:1/cpu.max", "50000 100000");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 500);
}

/* ---- odd values ---- */

Test(cgroup, a_limit_is_never_rounded_to_none)
{
    put_process("0::/\n", V2_MOUNT);
    put(V2 "/cpu.max", "1 1000000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1);
    put(V2 "/cpu.max", "199999 100000\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 1999);
}

Test(cgroup, what_cannot_be_understood_is_no_limit)
{
    static const char *const odd[] = {"", "\n", "max", "0 100000", "-5 100000", "100000", "100000 0", "100000 -1",
                                      "x y", "99999999999999999999 1", "9223372036854775807 1", "100000 x"};
    put_process("0::/\n", V2_MOUNT);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        put(V2 "/cpu.max", odd[i]);
        cr_assert_eq(cp_cgroup_cpu_quota(root), 0, "\"%s\"", odd[i]);
    }
    put_process("nonsense\n:\n0:\n::\n", "nonsense\n - \n - cgroup2\n1 2 3 - cgroup2 x y\n - cgroup x\n");
    cr_assert_eq(cp_cgroup_cpu_quota(root), 0);
}

/* ---- the topology ---- */

Test(cgroup, a_synthetic_machine_has_no_quota)
{
    corepool_topology_t *topology;
    cr_assert_eq(corepool_topology_open(&(corepool_topology_options_t){.synthetic = "4"}, &topology), COREPOOL_OK);
    cr_assert_eq(corepool_topology_cpu_quota(topology), 0);
    corepool_topology_close(topology);
}

Test(cgroup, this_machines_quota_is_what_its_files_say)
{
    corepool_topology_t *topology;
    cr_assert_eq(corepool_topology_open(NULL, &topology), COREPOOL_OK);
    cr_assert_eq(corepool_topology_cpu_quota(topology), cp_cgroup_cpu_quota(""));
    corepool_topology_close(topology);
}
