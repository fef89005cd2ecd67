/* tests/process_life_test.c: how children start and how they end, against real ones.
 *
 * Promises: a child starts with what it was given and nothing else of the program's; and no child outlives its
 * pool or its program, in any state. */
#include "children.h"

/* --- what a child starts with ------------------------------------------------------------------------------
 * */

Test(process, a_child_gets_the_directory_and_environment_asked_for)
{
    static const char *const environment[] = {"MARK=chalk", "PATH=/bin:/usr/bin", NULL};
    char reply[64];
    start(&(corepool_process_options_t){.argv = moody, .envp = environment, .cwd = "/proc"}, 1);
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, "env\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_OK);
    cr_expect_str_eq(reply, "/proc chalk\n");
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    finish();
}

Test(process, a_child_inherits_no_descriptor_of_the_program)
{
    char reply[64];
    int leaky = open("/dev/null", O_RDONLY); /* not close-on-exec, as careless code would */
    cr_assert_geq(leaky, 0);
    start(&(corepool_process_options_t){.argv = moody}, 1);
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, "fds\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_OK);
    for (char *rest = reply, *word; (word = strtok_r(rest, " \n", &rest));)
        cr_expect(atoi(word) != leaky && atoi(word) <= 10, "descriptor %s", word);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    close(leaky);
    descriptors_before--;
    finish();
}

/* As /proc writes a mask, without separators or leading zeros. */
static unsigned long long own_mask(void)
{
    cpu_set_t set;
    unsigned long long mask = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    for (unsigned cpu = 0; cpu < 64; cpu++)
        mask |= (unsigned long long)(CPU_ISSET(cpu, &set) != 0) << cpu;
    return mask;
}

Test(process, a_child_may_run_where_the_program_may)
{
    char reply[64], digits[64] = "", *to = digits;
    start(&(corepool_process_options_t){.argv = moody}, 1);
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, "cpus\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_OK);
    for (const char *from = reply; *from; from++)
        if (*from != ',')
            *to++ = *from;
    cr_expect_eq(strtoull(digits, NULL, 16), own_mask(), "%s", reply);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    finish();
}

/* Its pipes then get the very numbers that a child's stdin and stdout have. */
Test(process, a_program_that_closed_its_stdio_can_have_children)
{
    static corepool_process_options_t options = {.argv = cat};
    start(&options, 1);
    cr_assert_eq(corepool_pool_close(pool, PATIENCE_MS), COREPOOL_OK);
    int saved[3];
    for (int fd = 0; fd < 3; fd++) {
        saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        close(fd);
    }
    int status = corepool_pool_open(runtime, &corepool_process_class, &options, 2, NULL, &pool);
    if (status == COREPOOL_OK)
        status = round_trip("hello\n");
    int closed = corepool_pool_close(pool, PATIENCE_MS);
    for (int fd = 0; fd < 3; fd++) {
        dup2(saved[fd], fd);
        close(saved[fd]);
    }
    cr_expect_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(closed, COREPOOL_OK);
    finish();
}

/* --- the end -----------------------------------------------------------------------------------------------
 * */

Test(process, a_child_that_ignores_the_signal_is_killed_after_its_grace)
{
    static const char *const stubborn[] = {"sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done",
                                           NULL};
    start(&(corepool_process_options_t){.argv = stubborn, .grace_ms = 150}, 1);
    corepool_lease_t lease = check_out();
    struct pollfd out = {.fd = corepool_process_stdout(&lease), .events = POLLIN};
    cr_assert_eq(poll(&out, 1, PATIENCE_MS), 1, "its trap is set once it has spoken");
    pid_t child = corepool_process_pid(&lease);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    int64_t before = now_ms();
    cr_assert_eq(corepool_pool_close(pool, PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_geq(now_ms() - before, 150);
    cr_expect(is_gone(child));
    finish();
}

Test(process, what_a_child_started_goes_with_it)
{
    static const char *const family[] = {"sh", "-c", "sleep 1000 & echo $!; wait", NULL};
    start(&(corepool_process_options_t){.argv = family}, 1);
    corepool_lease_t lease = check_out();
    struct pollfd out = {.fd = corepool_process_stdout(&lease), .events = POLLIN};
    cr_assert_eq(poll(&out, 1, PATIENCE_MS), 1);
    char line[32] = "";
    cr_assert_gt(read(out.fd, line, sizeof line - 1), 0);
    pid_t grandchild = atoi(line);
    cr_assert_eq(kill(corepool_process_pid(&lease), SIGKILL), 0);
    cr_expect(EVENTUALLY(is_gone(grandchild)));
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    finish();
}

Test(process, a_pool_closed_while_its_children_start_leaves_nothing)
{
    static corepool_process_options_t options = {.argv = cat};
    start(&options, 2);
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(corepool_pool_close(pool, PATIENCE_MS), COREPOOL_OK, "%s", corepool_error_detail());
        cr_assert_eq(corepool_pool_open(runtime, &corepool_process_class, &options, 4, NULL, &pool),
                     COREPOOL_OK);
    }
    finish();
}

Test(process, a_program_that_ignores_SIGCHLD_can_have_children)
{
    signal(SIGCHLD, SIG_IGN);
    start(&(corepool_process_options_t){.argv = cat}, 2);
    cr_expect_eq(round_trip("hello\n"), COREPOOL_OK);
    corepool_lease_t lease = check_out();
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    cr_expect(EVENTUALLY(stats().terminated == 1));
    finish();
}

/* Runs a pool in this process, tells its children's ids and waits to be killed. */
_Noreturn static void be_program(int report)
{
    pid_t pids[3];
    corepool_lease_t leases[3];
    static corepool_process_options_t options = {.argv = cat};
    corepool_pool_options_t per_shard = {.flags =
                                             COREPOOL_POOL_PER_SHARD}; /* three wherever this thread runs */
    if (corepool_runtime_start(NULL, &runtime) < 0 ||
        corepool_pool_open(runtime, &corepool_process_class, &options, 3, &per_shard, &pool) < 0)
        _exit(1);
    for (int i = 0; i < 3; i++) {
        if (corepool_checkout(pool, NULL, &leases[i]) < 0)
            _exit(1);
        pids[i] = corepool_process_pid(&leases[i]);
    }
    if (write(report, pids, sizeof pids) != sizeof pids)
        _exit(1);
    for (;;)
        pause();
}

Test(process, children_die_with_a_program_that_is_killed)
{
    int report[2];
    pid_t pids[3];
    cr_assert_eq(pipe2(report, O_CLOEXEC), 0);
    pid_t program = fork();
    if (program == 0)
        be_program(report[1]);
    cr_assert_gt(program, 0);
    close(report[1]);
    cr_assert_eq(read(report[0], pids, sizeof pids), sizeof pids);
    for (int i = 0; i < 3; i++)
        cr_expect_not(is_gone(pids[i]));
    cr_assert_eq(kill(program, SIGKILL), 0);
    cr_assert_eq(waitpid(program, NULL, 0), program);
    for (int i = 0; i < 3; i++)
        cr_expect(EVENTUALLY(is_gone(pids[i])));
}
