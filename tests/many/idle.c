/* tests/many/idle.c: idle POOLS SECONDS: opens keyed lazy pools, uses each once, and then does nothing for a while. Says
 * where that begins and ends; tests/many/check.sh looks at the system calls in between. */
#include <corepool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

static void say(const char *words)
{
    if (write(1, words, strlen(words)) < 0)
        exit(1);
}

static void use(corepool_keyed_t keyed, unsigned number)
{
    corepool_pool_t pool;
    corepool_lease_t lease;
    require(corepool_keyed_get(keyed, &number, sizeof number, &pool), "get");
    require(corepool_checkout(pool, NULL, &lease), "checkout");
    require(corepool_checkin(&lease), "checkin");
}

int main(int argc, char **argv)
{
    static const corepool_class_t cls = {.name = "nothing", .init = init};
    unsigned pools = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    const struct timespec settling = {.tv_sec = 1}, idle = {.tv_sec = argc > 2 ? atol(argv[2]) : 0};
    const corepool_keyed_options_t options = {.cls = &cls, .size = 1, .max_pools = pools};
    corepool_runtime_t *runtime;
    corepool_keyed_t keyed;
    require(corepool_runtime_start(NULL, &runtime), "start");
    require(corepool_keyed_open(runtime, &options, &keyed), "open");
    for (unsigned i = 0; i < pools; i++)
        use(keyed, i);
    nanosleep(&settling, NULL); /* the shards' last turns, which no call waits for */
    say("idle from here\n");
    nanosleep(&idle, NULL);
    say("idle to here\n");
    require(corepool_runtime_audit(runtime), "audit");
    require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    require(corepool_runtime_destroy(runtime), "destroy");
    return 0;
}
