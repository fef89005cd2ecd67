/* tests/process_test.c: child process workers, against real children: cat, sh and true.
 *
 * Promises: a leased child answers its holder, and whatever goes wrong costs exactly the child that it went
 * wrong with. */
#include "children.h"

/* --- the port pool --------------------------------------------------------------------------------------- */

static void *be_client(void *failures)
{
    for (int i = 0; i < 100; i++)
        if (round_trip("hello\n") != COREPOOL_OK)
            ++*(int *)failures;
    return NULL;
}

Test(process, port_pool_answers_four_threads)
{
    start(&(corepool_process_options_t){.argv = cat}, 3);
    pthread_t threads[4];
    int failures[4] = {0};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, be_client, &failures[i]), 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_expect_eq(failures[i], 0);
    }
    cr_expect_eq(stats().checkouts, 400);
    cr_expect_eq(stats().terminated, 0);
    finish();
}

Test(process, a_forked_child_does_not_speak_to_its_parents_children)
{
    char reply[64];
    size_t length;
    int status;
    start(&(corepool_process_options_t){.argv = cat}, 1);
    corepool_lease_t lease = check_out();
    pid_t child = fork();
    if (child == 0)
        _exit(corepool_process_call(&lease, "x\n", 2, '\n', reply, sizeof reply, &length, 100) == COREPOOL_EFORKED &&
                      corepool_process_stdin(&lease) == -1
                  ? 0
                  : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_expect_eq(ask(&lease, "hello\n", reply, sizeof reply, PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    finish();
}

Test(process, a_mebibyte_goes_both_ways_through_a_pipe_of_64_KiB)
{
    enum { SIZE = 1 << 20 };
    start(&(corepool_process_options_t){.argv = cat}, 1);
    corepool_lease_t lease = check_out();
    char *request = malloc(SIZE), *reply = malloc(SIZE);
    size_t length;
    cr_assert(request && reply);
    for (int i = 0; i < SIZE - 1; i++)
        request[i] = (char)('a' + i % 26);
    request[SIZE - 1] = '\n';
    int status = corepool_process_call(&lease, request, SIZE, '\n', reply, SIZE, &length, PATIENCE_MS);
    cr_assert_eq(status, COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(length, SIZE);
    cr_expect_eq(memcmp(request, reply, SIZE), 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    free(request);
    free(reply);
    finish();
}

/* --- failures cost one child -------------------------------------------------------------------------------
 * */

Test(process, a_receive_timeout_costs_one_worker_and_one_init)
{
    char reply[64];
    start(&(corepool_process_options_t){.argv = moody, .grace_ms = 100}, 4);
    cr_assert(EVENTUALLY(stats().idle == 4));
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, "stall\n", reply, sizeof reply, 50), COREPOOL_ETIMEDOUT);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    cr_assert(EVENTUALLY(stats().idle == 4 && stats().terminated == 1));
    cr_expect_eq(stats().opens, 5);
    cr_expect_eq(stats().open_failures, 0);
    finish();
}

Test(process, a_child_killed_while_idle_is_evicted_and_replaced)
{
    start(&(corepool_process_options_t){.argv = cat}, 1);
    corepool_lease_t lease = check_out();
    pid_t first = corepool_process_pid(&lease);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(kill(first, SIGKILL), 0);
    cr_assert(EVENTUALLY(stats().terminated == 1));
    lease = check_out();
    cr_expect_neq(corepool_process_pid(&lease), first);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(round_trip("still here\n"), COREPOOL_OK);
    finish();
}

Test(process, a_child_killed_while_leased_goes_at_checkin)
{
    char reply[64];
    start(&(corepool_process_options_t){.argv = cat}, 1);
    corepool_lease_t lease = check_out();
    pid_t first = corepool_process_pid(&lease);
    cr_assert_eq(kill(first, SIGKILL), 0);
    cr_assert(EVENTUALLY(kill(first, 0) < 0), "the shard reaps it while it is leased");
    cr_expect_eq(ask(&lease, "hello\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_EPEER);
    cr_expect_eq(stats().terminated, 0);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert(EVENTUALLY(stats().terminated == 1));
    cr_expect_eq(round_trip("hello\n"), COREPOOL_OK);
    finish();
}

Test(process, a_missing_program_is_named_to_whoever_waits_for_it)
{
    static const char *const missing[] = {"no-such-program", NULL};
    corepool_lease_t lease;
    start(&(corepool_process_options_t){.argv = missing}, 2);
    corepool_checkout_options_t options = {.timeout_ms = 200};
    cr_expect_eq(corepool_checkout(pool, &options, &lease), COREPOOL_ETIMEDOUT);
    const char *why = "exec no-such-program: No such file or directory";
    cr_expect(strstr(corepool_error_detail(), why), "%s", corepool_error_detail());
    finish();
}

Test(process, an_exec_that_fails_in_the_child_is_named_too)
{
    static const char *const directory[] = {"/proc/self/cwd", NULL};
    corepool_lease_t lease;
    start(&(corepool_process_options_t){.argv = directory}, 2);
    corepool_checkout_options_t options = {.timeout_ms = 200};
    cr_expect_eq(corepool_checkout(pool, &options, &lease), COREPOOL_ETIMEDOUT);
    const char *why = "exec /proc/self/cwd: Permission denied";
    cr_expect(strstr(corepool_error_detail(), why), "%s", corepool_error_detail());
    finish();
}

Test(process, a_missing_directory_is_named)
{
    corepool_lease_t lease;
    start(&(corepool_process_options_t){.argv = cat, .cwd = "/no/such/place"}, 2);
    corepool_checkout_options_t options = {.timeout_ms = 200};
    cr_expect_eq(corepool_checkout(pool, &options, &lease), COREPOOL_ETIMEDOUT);
    const char *why = "chdir /no/such/place: No such file or directory";
    cr_expect(strstr(corepool_error_detail(), why), "%s", corepool_error_detail());
    finish();
}

Test(process, a_program_that_ends_at_once_is_started_less_and_less)
{
    static const char *const brief[] = {"true", NULL};
    start(&(corepool_process_options_t){.argv = brief}, 1);
    int64_t before = now_ms();
    cr_assert(EVENTUALLY(stats().terminated + stats().open_failures >= 8));
    cr_expect_geq(now_ms() - before, 50);
    cr_expect_leq(stats().terminated, 5);
    finish();
}

/* --- calls -------------------------------------------------------------------------------------------------
 * */

static void expect_call(const char *line, int64_t timeout_ms, int expected)
{
    char reply[64];
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, line, reply, sizeof reply, timeout_ms), expected, "%s: %s", line,
                 corepool_error_detail());
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
}

Test(process, replies_out_of_step_are_errors)
{
    start(&(corepool_process_options_t){.argv = moody, .grace_ms = 100}, 1);
    expect_call("twice\n", RECEIVE_MS, COREPOOL_EPROTO);
    expect_call("long\n", RECEIVE_MS, COREPOOL_ELIMIT);
    expect_call("stall\n", 20, COREPOOL_ETIMEDOUT);
    finish();
}

Test(process, bytes_from_before_the_request_are_an_error)
{
    static const char *const eager[] = {"sh", "-c", "echo unasked; exec cat", NULL};
    start(&(corepool_process_options_t){.argv = eager}, 1);
    corepool_lease_t lease = check_out();
    struct pollfd out = {.fd = corepool_process_stdout(&lease), .events = POLLIN};
    cr_assert_eq(poll(&out, 1, PATIENCE_MS), 1);
    char reply[64];
    cr_expect_eq(ask(&lease, "hello\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_EPROTO);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    finish();
}

Test(process, a_child_that_closed_its_input_raises_no_signal)
{
    char reply[64];
    start(&(corepool_process_options_t){.argv = moody, .grace_ms = 100}, 1);
    corepool_lease_t lease = check_out();
    cr_expect_eq(ask(&lease, "deaf\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_OK);
    cr_expect_eq(ask(&lease, "hello\n", reply, sizeof reply, RECEIVE_MS), COREPOOL_EPEER);
    cr_expect_eq(corepool_checkin_fail(&lease), COREPOOL_OK);
    finish();
}

Test(process, bad_arguments_are_named)
{
    char reply[8];
    size_t length;
    start(&(corepool_process_options_t){.argv = cat}, 1);
    corepool_lease_t lease = check_out(), none = {0};
    cr_expect_eq(corepool_process_call(&lease, "x\n", 2, '\n', reply, 0, &length, 1), COREPOOL_EINVAL);
    cr_expect_eq(corepool_process_call(&lease, "x\n", 2, '\n', reply, 8, &length, 0), COREPOOL_EINVAL);
    cr_expect(strstr(corepool_error_detail(), "timeout_ms"));
    cr_expect_eq(corepool_process_call(&lease, NULL, 2, '\n', reply, 8, &length, 1), COREPOOL_EINVAL);
    cr_expect_eq(corepool_process_call(&none, "x\n", 2, '\n', reply, 8, &length, 1), COREPOOL_EINVAL);
    cr_expect_eq(corepool_process_pid(&none), -1);
    cr_expect_eq(corepool_process_stdin(NULL), -1);
    cr_expect_eq(corepool_process_stdout(&none), -1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);

    corepool_pool_t other;
    corepool_process_options_t nothing = {0}, hasty = {.argv = cat, .grace_ms = -1};
    cr_expect_eq(corepool_pool_open(runtime, &corepool_process_class, &nothing, 1, NULL, &other),
                 COREPOOL_EINVAL);
    cr_expect(strstr(corepool_error_detail(), "argv"), "%s", corepool_error_detail());
    cr_expect_eq(corepool_pool_open(runtime, &corepool_process_class, &hasty, 1, NULL, &other),
                 COREPOOL_EINVAL);
    cr_expect(strstr(corepool_error_detail(), "grace_ms"), "%s", corepool_error_detail());
    cr_expect_eq(corepool_pool_open(runtime, &corepool_process_class, NULL, 1, NULL, &other), COREPOOL_EINVAL);
    finish();
}

struct on_shard {
    corepool_lease_t lease;
    int status;
    _Atomic int done;
};

static void call_on_shard(corepool_shard_t *shard, void *arg)
{
    (void)shard;
    struct on_shard *here = arg;
    char reply[8];
    here->status = ask(&here->lease, "x\n", reply, sizeof reply, 1);
    here->done = 1;
}

Test(process, a_shard_may_not_wait_for_a_child)
{
    start(&(corepool_process_options_t){.argv = cat}, 1);
    struct on_shard here = {.lease = check_out()};
    cr_assert_eq(corepool_shard_post(runtime, 0, call_on_shard, &here), COREPOOL_OK);
    cr_assert(EVENTUALLY(here.done == 1));
    cr_expect_eq(here.status, COREPOOL_EDEADLK);
    cr_expect_eq(corepool_checkin(&here.lease), COREPOOL_OK);
    finish();
}
