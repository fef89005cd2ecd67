/* tests/early.c: a program that is linked with the static library and uses a pool before main, in a constructor of its own, which
 * may come before those of the library: what tells where a thread's rseq area is must be there by then. */
#include <corepool.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static bool served;

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t cls = {.name = "nothing", .init = init};

/* What a wrong place for the area would be written to: of the thread's control block, not the library's. */
static uint64_t vector(void)
{
#ifdef __x86_64__
    uint64_t word;
    __asm__("movq %%fs:8, %0" : "=r"(word));
    return word;
#else
    return 0;
#endif
}

static bool use_pool(corepool_runtime_t *runtime)
{
    corepool_pool_t pool;
    corepool_lease_t lease;
    if (corepool_pool_open(runtime, &cls, NULL, 4, NULL, &pool) != COREPOOL_OK)
        return false;
    for (unsigned i = 0; i < 1000; i++)
        if (corepool_checkout(pool, NULL, &lease) != COREPOOL_OK || corepool_checkin(&lease) != COREPOOL_OK)
            return false;
    return corepool_runtime_audit(runtime) == COREPOOL_OK;
}

__attribute__((constructor)) static void before_main(void)
{
    uint64_t before = vector();
    corepool_runtime_t *runtime;
    if (corepool_runtime_start(NULL, &runtime) != COREPOOL_OK)
        return;
    served = use_pool(runtime);
    served = corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
             corepool_runtime_destroy(runtime) == COREPOOL_OK && served;
    served = served && vector() == before;
}

int main(void)
{
    if (!served)
        fprintf(stderr, "early: %s\n", corepool_error_detail());
    return !served;
}
