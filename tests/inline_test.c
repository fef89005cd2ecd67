/* tests/inline_test.c: corepool/inline.h by itself: whether it is inline, and that it is what it says. What the functions do
 * is tested by the tests of the exported ones, which are built over them, too (see meson.build). */
#ifndef COREPOOL_LAYOUT_VERSION
#define OWN_VERSION 1 /* the header's, which is the library's */
#else
#define OWN_VERSION 0
#endif

#include <criterion/criterion.h>
#include <string.h>

#include <corepool.h>
#include <corepool/inline.h>

#include "support/laws.h"

static corepool_runtime_t *runtime;
static corepool_pool_t pool;

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t cls = {.name = "inline", .init = init};

static void open_pool(void)
{
    corepool_stats_t stats;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK);
    cr_assert_eq(corepool_pool_open(runtime, &cls, NULL, 4, &(corepool_pool_options_t){.flags = COREPOOL_POOL_PER_SHARD},
                                    &pool), COREPOOL_OK);
    do
        cr_assert_eq(corepool_pool_stats(pool, &stats), COREPOOL_OK);
    while (stats.opening || stats.vacant);
}

static void close_pool(void)
{
    corepool_stats_t stats;
    cr_expect_eq(corepool_pool_stats(pool, &stats), COREPOOL_OK);
    cr_expect_eq(stats.leased, 0);
    cr_expect_eq(corepool_runtime_audit(runtime), COREPOOL_OK, "%s", corepool_error_detail());
    cr_expect_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
}

#if OWN_VERSION
Test(inline, is_fast_with_a_library_of_its_own_version)
{
    cr_expect_eq(corepool_layout_version(), COREPOOL_LAYOUT_VERSION);
    cr_expect(corepool_inline_is_fast() || !COREPOOL_LAYOUT_IS_INLINE);
}
#else
Test(inline, is_never_fast_with_a_library_of_another_layout)
{
    cr_expect_not(corepool_inline_is_fast());
}

/* What programs that were compiled for version 3 look at: the area's address first, and its cpu_id at 4. */
struct former_thread {
    const char *area;
};
extern __thread struct former_thread *corepool_layout_self_3, *corepool_layout_client_3;

static uint32_t cpu_of(const struct former_thread *thread)
{
    uint32_t cpu;
    memcpy(&cpu, thread->area + 4, sizeof cpu);
    return cpu;
}

Test(inline, finds_no_thread_under_the_names_of_a_former_layout)
{
    corepool_lease_t lease;
    open_pool();
    cr_assert_eq(corepool_inline_checkout(pool, NULL, &lease), COREPOOL_OK);
    cr_expect_eq(cpu_of(corepool_layout_client_3), UINT32_MAX, "this thread has a record, under another version's name");
    cr_expect_eq(cpu_of(corepool_layout_self_3), UINT32_MAX);
    cr_expect_eq(corepool_inline_checkin(&lease), COREPOOL_OK);
    close_pool();
}
#endif

Test(inline, leases_go_from_one_kind_of_call_to_the_other)
{
    corepool_lease_t first, second;
    open_pool();
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_eq(corepool_inline_checkout(pool, NULL, &first), COREPOOL_OK);
        cr_assert_eq(corepool_checkout(pool, NULL, &second), COREPOOL_OK);
        cr_assert_neq(first.worker, second.worker);
        cr_assert_eq(corepool_checkin(&first), COREPOOL_OK);
        cr_assert_eq(corepool_inline_checkin(&second), COREPOOL_OK);
        cr_assert_null(second.worker, "zeroed");
    }
    close_pool();
}

Test(inline, a_lease_ends_once_however_it_is_ended)
{
    corepool_lease_t lease, copy;
    open_pool();
    cr_assert_eq(corepool_inline_checkout(pool, NULL, &lease), COREPOOL_OK);
    copy = lease;
    cr_expect_eq(corepool_inline_checkin(&lease), COREPOOL_OK);
    cr_expect_eq(corepool_inline_checkin(&lease), COREPOOL_ESTALE, "zero");
    cr_expect_eq(corepool_inline_checkin(&copy), COREPOOL_ESTALE, "a copy");
    cr_expect_eq(corepool_inline_checkin(NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_inline_checkout(pool, NULL, NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_inline_checkout((corepool_pool_t){0}, NULL, &lease), COREPOOL_EINVAL);
    close_pool();
    cr_expect_eq(lease.worker, NULL);
}
