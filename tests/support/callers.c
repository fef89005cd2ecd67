/* tests/support/callers.c: see callers.h. */
#include "support/callers.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- where code runs --- */

struct call {
    void (*fn)(void *arg);
    void *arg;
    int cpu;
    sem_t done;
};

int laws_cpu_of(unsigned shard)
{
    corepool_shard_place_t place;
    cr_assert_eq(corepool_topology_place(corepool_runtime_topology(laws_runtime()), shard, &place),
                 COREPOOL_OK);
    return place.cpu;
}

static bool pin_self(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

void laws_pin(int cpu)
{
    cr_assert(pin_self(cpu));
}

static void run_on_shard(corepool_shard_t *shard, void *arg)
{
    struct call *call = arg;
    (void)shard;
    call->fn(call->arg);
    sem_post(&call->done);
}

void laws_on_shard(unsigned shard, void (*fn)(void *arg), void *arg)
{
    struct call call = {.fn = fn, .arg = arg};
    cr_assert_eq(sem_init(&call.done, 0, 0), 0);
    cr_assert_eq(corepool_shard_post(laws_runtime(), shard, run_on_shard, &call), COREPOOL_OK, "%s",
                 corepool_error_detail());
    while (sem_wait(&call.done) != 0)
        ; /* a signal */
    sem_destroy(&call.done);
}

static void *run_in_thread(void *arg)
{
    const struct call *call = arg;
    if (call->cpu < 0 || pin_self(call->cpu))
        call->fn(call->arg);
    return NULL;
}

void laws_in_thread(int cpu, void (*fn)(void *arg), void *arg)
{
    pthread_t thread;
    struct call call = {.fn = fn, .arg = arg, .cpu = cpu};
    cr_assert_eq(pthread_create(&thread, NULL, run_in_thread, &call), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* --- callers --- */

int laws_checkout(corepool_pool_t pool, int64_t timeout_ms, corepool_lease_t *lease)
{
    return corepool_checkout(pool, &(corepool_checkout_options_t){.timeout_ms = timeout_ms}, lease);
}

corepool_lease_t laws_take(corepool_pool_t pool)
{
    corepool_lease_t lease;
    cr_assert_eq(laws_checkout(pool, LAWS_PATIENCE_MS, &lease), COREPOOL_OK, "%s", corepool_error_detail());
    return lease;
}

static void *run_caller(void *arg)
{
    struct caller *caller = arg;
    corepool_lease_t lease;
    const corepool_checkout_options_t options = {.timeout_ms = COREPOOL_INFINITE, .command = caller->command};
    caller->status = corepool_checkout(caller->pool, &options, &lease);
    if (caller->status == COREPOOL_OK) {
        caller->place = caller->served ? atomic_fetch_add(caller->served, 1) : 0;
        caller->ended = corepool_checkin(&lease);
    } else {
        snprintf(caller->detail, sizeof caller->detail, "%s", corepool_error_detail());
    }
    return NULL;
}

void caller_start(struct caller *caller)
{
    cr_assert_eq(pthread_create(&caller->thread, NULL, run_caller, caller), 0);
}

void caller_expect(struct caller *caller, int status)
{
    cr_assert_eq(pthread_join(caller->thread, NULL), 0);
    cr_expect_eq(caller->status, status, "%s, not %s", corepool_error_name(caller->status),
                 corepool_error_name(status));
    cr_expect_eq(caller->ended, COREPOOL_OK);
}

void outcome_note(int status, const corepool_lease_t *lease, void *arg)
{
    struct outcome *outcome = arg;
    outcome->status = status;
    outcome->lease = lease ? *lease : (corepool_lease_t){0};
    outcome->on = corepool_shard_current();
    snprintf(outcome->detail, sizeof outcome->detail, "%s", corepool_error_detail());
    atomic_fetch_add(&outcome->called, 1);
}

corepool_pool_t laws_start_one_with(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                                    const corepool_pool_options_t *options)
{
    char cpu[16];
    snprintf(cpu, sizeof cpu, "%d", laws_first_cpu());
    laws_start(&(corepool_runtime_options_t){.cpus = cpu});
    laws_pin(laws_cpu_of(0));
    return laws_open_with(cls, count, size, options);
}

corepool_pool_t laws_start_one(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                               unsigned flags)
{
    return laws_start_one_with(
        cls, count, size,
        &(corepool_pool_options_t){.flags = flags, .backoff_min_ms = 1, .backoff_max_ms = 5});
}

/* --- what the machine has --- */

static int usable_cpu(unsigned number)
{
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((unsigned)cpu, &set) && number-- == 0)
            return cpu;
    return -1;
}

int laws_first_cpu(void)
{
    return usable_cpu(0);
}

int laws_need_second_cpu(void)
{
    int cpu = usable_cpu(1);
    if (cpu < 0)
        cr_skip_test("one CPU only");
    return cpu;
}

void laws_need_rseq(void)
{
    const char *reason, *forced = getenv("COREPOOL_SHELF");
    if (forced && strcmp(forced, "portable") == 0)
        cr_skip_test("COREPOOL_SHELF forces the portable shelf");
    if (corepool_shelf_probe(&reason) != COREPOOL_SHELF_RSEQ)
        cr_skip_test("no rseq here: %s", reason);
}
