/* A pool of four child processes that run cat; one of them answers hello. */
#include <corepool.h>
#include <stdio.h>

int main(void)
{
    static const char *const argv[] = {"cat", NULL};
    static corepool_process_options_t cat = {.argv = argv};
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_lease_t lease;
    char reply[64];
    size_t length;

    if (corepool_runtime_start(NULL, &runtime) < 0 ||
        corepool_pool_open(runtime, &corepool_process_class, &cat, 4, NULL, &pool) < 0 ||
        corepool_checkout(pool, NULL, &lease) < 0) /* waits for up to 5 s */
        return fprintf(stderr, "%s\n", corepool_error_detail()), 1;
    int status = corepool_process_call(&lease, "hello\n", 6, '\n', reply, sizeof reply, &length, 15000);
    if (status == COREPOOL_OK)
        corepool_checkin(&lease);
    else
        corepool_checkin_fail(&lease); /* costs this child and nothing else */
    printf("%s: %.*s", corepool_error_text(status), (int)length, reply);
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    corepool_runtime_destroy(runtime);
    return status < 0;
}
