/* tests/slice_test.c: a slice's manager and messages that come too late, met by construction instead of by luck. */
#include <criterion/criterion.h>

#include <corepool.h>

#include "front/runtime.h"

static int open_worker(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)worker;
    *resource = pool_state;
    return COREPOOL_OK;
}

static const corepool_class_t named = {.name = "named", .init = open_worker};

static corepool_pool_t open_pool(corepool_runtime_t *runtime, void *arg)
{
    corepool_pool_t pool;
    cr_assert_eq(corepool_pool_open(runtime, &named, arg, 1, NULL, &pool), COREPOOL_OK, "%s", corepool_error_detail());
    return pool;
}

static struct cp_slice *only_slice(corepool_pool_t pool)
{
    return atomic_load(&pool.impl->by_shard[0]);
}

Test(slice, a_request_for_a_pool_that_is_gone_is_refused_by_the_pool_that_has_its_slice_now)
{
    static char first[] = "first", second[] = "second";
    static struct cp_request request; /* the manager may look at it until the stop */
    corepool_runtime_t *runtime;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK, "%s", corepool_error_detail());
    corepool_pool_t pool = open_pool(runtime, first);
    struct cp_slice *slice = only_slice(pool);
    uint64_t epoch = atomic_load(&slice->epoch);
    cr_assert_eq(corepool_pool_close(pool, COREPOOL_INFINITE), COREPOOL_OK);
    pool = open_pool(runtime, second);
    cr_assert_eq(only_slice(pool), slice, "the block is used again, or this test shows nothing");

    atomic_store(&request.life, CP_LIFE_LENT);
    request.posted_at = cp_now_ns();
    cr_assert(cp_slice_send_request(slice, &request, epoch));
    int64_t deadline = cp_deadline_ns(cp_now_ns(), 10000);
    while (atomic_load(&request.outcome) == CP_PENDING && cp_futex_wait(&request.outcome, CP_PENDING, deadline))
        ;
    cr_expect_eq(atomic_load(&request.outcome), CP_CLOSED);

    corepool_lease_t lease;
    cr_assert_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(lease.resource, (void *)second);
    cr_assert_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}
