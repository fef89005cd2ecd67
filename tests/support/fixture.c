/* tests/support/fixture.c: a runtime for one test that has peers in its own process. */
#include "support/fixture.h"

#include <criterion/criterion.h>
#include <semaphore.h>
#include <time.h>

static sem_t done;

struct fixture fixture_start(void)
{
    struct fixture fixture;
    laws_baseline();
    cr_assert_eq(sem_init(&done, 0, 0), 0);
    cr_assert_eq(corepool_runtime_start(NULL, &fixture.runtime), COREPOOL_OK, "%s", corepool_error_detail());
    return fixture;
}

void fixture_end(struct fixture *fixture)
{
    cr_assert_eq(corepool_runtime_audit(fixture->runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(fixture->runtime, LAWS_PATIENCE_MS), COREPOOL_OK, "%s",
                 corepool_error_detail());
    cr_assert_eq(corepool_runtime_destroy(fixture->runtime), COREPOOL_OK);
    /* Asked again, because a peer in this process closes its own ends in its own time. */
    cr_assert(laws_eventually(laws_descriptors_are_back, NULL), "descriptors are left");
    laws_expect_no_leaks();
}

struct expected {
    corepool_pool_t pool;
    uint64_t count;
};

static bool is_idle(void *arg)
{
    const struct expected *expected = arg;
    corepool_stats_t stats = laws_stats(expected->pool);
    return stats.idle == expected->count && stats.opening + stats.closing + stats.leased == 0;
}

bool eventually_idle(corepool_pool_t pool, uint64_t idle)
{
    return laws_eventually(is_idle, &(struct expected){pool, idle});
}

static bool is_terminated(void *arg)
{
    const struct expected *expected = arg;
    return laws_stats(expected->pool).terminated >= expected->count;
}

bool eventually_terminated(corepool_pool_t pool, uint64_t count)
{
    return laws_eventually(is_terminated, &(struct expected){pool, count});
}

bool on_shard(struct fixture *fixture, unsigned shard, void (*fn)(corepool_shard_t *, void *), void *arg)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += LAWS_PATIENCE_MS / 1000;
    cr_assert_eq(corepool_shard_post(fixture->runtime, shard, fn, arg), COREPOOL_OK);
    return sem_timedwait(&done, &deadline) == 0;
}

void fixture_done(void)
{
    sem_post(&done);
}
