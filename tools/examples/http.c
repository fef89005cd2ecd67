/* A pool of HTTP/1.1 connections; any thread fetches over it: http HOST PORT PATH */
#include <corepool.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_http_response_t *response;

    if (argc != 4)
        return fprintf(stderr, "usage: http HOST PORT PATH\n"), 2;
    corepool_http_options_t origin = {.stream = {.host = argv[1], .port = (uint16_t)atoi(argv[2])}};
    if (corepool_runtime_start(NULL, &runtime) < 0 ||
        corepool_pool_open(runtime, &corepool_http_class, &origin, 10, NULL, &pool) < 0)
        return fprintf(stderr, "%s\n", corepool_error_detail()), 1;
    int status = corepool_http_get(pool, argv[3], &response); /* waits for a connection, then for the reply */
    if (status == COREPOOL_OK)
        printf("%d\n%s", response->status, response->body);
    else
        fprintf(stderr, "%s: %s\n", corepool_error_text(status), corepool_error_detail());
    corepool_http_response_free(response);
    corepool_runtime_stop(runtime, COREPOOL_INFINITE);
    corepool_runtime_destroy(runtime);
    return status < 0;
}
