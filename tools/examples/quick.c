/* A pool of eight buffers, spread over the CPUs; the thread takes one of those that belong to its own CPU. */
#include <corepool.h>
#include <stdio.h>
#include <stdlib.h>

static int open_buffer(corepool_worker_t *worker, void *size, void **resource)
{
    (void)worker;
    *resource = malloc(*(size_t *)size);
    return *resource ? COREPOOL_OK : COREPOOL_ENOMEM;
}

static int free_buffer(corepool_worker_t *worker, void *size, void *resource, corepool_reason_t reason)
{
    (void)worker, (void)size, (void)reason;
    free(resource);
    return COREPOOL_OK;
}

int main(void)
{
    static const corepool_class_t buffers = {
        .name = "buffer", .flags = COREPOOL_CLASS_MOVABLE, .init = open_buffer, .terminate = free_buffer};
    static size_t size = 4096;
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_lease_t lease;
    if (corepool_runtime_start(NULL, &runtime) < 0 ||
        corepool_pool_open(runtime, &buffers, &size, 8, NULL, &pool) < 0 ||
        corepool_checkout(pool, NULL, &lease) < 0)
        return fprintf(stderr, "%s\n", corepool_error_detail()), 1;
    snprintf(lease.resource, size, "hello from one of %u shards", corepool_runtime_shards(runtime));
    puts(lease.resource);
    corepool_checkin(&lease);
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    return corepool_runtime_destroy(runtime) < 0;
}
