/* tests/fastpath/pairs.c: pairs N: runs N pairs of checkout and checkin on one pinned thread and says what it counted.
 * It counts the allocations of the process by standing in for malloc; tests/fastpath/check.sh counts system calls and
 * reads the code. */
#include <corepool.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);

static _Atomic unsigned long allocations;

void *malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, bytes);
}

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static void require(int status, const char *what)
{
    if (status != COREPOOL_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, corepool_error_name(status), corepool_error_detail());
        exit(1);
    }
}

static void run(corepool_pool_t pool, long pairs)
{
    corepool_lease_t lease;
    while (pairs--) {
        require(corepool_checkout(pool, NULL, &lease), "checkout");
        require(corepool_checkin(&lease), "checkin");
    }
}

int main(int argc, char **argv)
{
    static const corepool_class_t cls = {.name = "nothing", .init = init};
    long pairs = argc > 1 ? atol(argv[1]) : 0;
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_stats_t stats;
    cpu_set_t one;
    require(corepool_runtime_start(NULL, &runtime), "start");
    require(corepool_pool_open(runtime, &cls, NULL, COREPOOL_SIZE_DEFAULT, NULL, &pool), "open");
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        return perror("sched_setaffinity"), 1;
    run(pool, 100); /* this thread's record; waits until a worker is open */
    unsigned long before = allocations;
    run(pool, pairs);
    unsigned long during = allocations - before;
    require(corepool_pool_stats(pool, &stats), "stats");
    printf("%lu checkouts, %lu of them by the manager; %lu allocations in %ld pairs\n", (unsigned long)stats.checkouts,
           (unsigned long)stats.grants, during, pairs);
    require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    require(corepool_runtime_destroy(runtime), "destroy");
    return during != 0 || stats.checkouts != (unsigned long)pairs + 100;
}
