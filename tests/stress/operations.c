/* tests/stress/operations.c: clients that check out and in, or take workers out, while two threads draw
 * operations on the pool at random, and another adds up the statistics.
 *
 *     operations [rseq|portable] [MILLISECONDS]
 *
 * No request may be lost: every checkout returns. L1 holds in every snapshot, all laws at the end; each worker
 * that was opened is terminated or taken out once. Exit status: 0 so it is, 1 not, 77 this shelf is not to be
 * had here. */
#include <corepool.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SKIPPED 77
#define CLIENTS 3
#define OPERATORS 2
#define SIZE_MAX_HERE 40
/* Every so often a client keeps the worker. */
#define DETACH_EVERY 64

static corepool_pool_t pool;
static _Atomic bool over, broken;
static _Atomic long opened, ended;

static int open_one(corepool_worker_t *worker, void *state, void **resource)
{
    (void)worker, (void)state;
    *resource = malloc(1);
    atomic_fetch_add(&opened, *resource != NULL);
    return *resource ? COREPOOL_OK : COREPOOL_ENOMEM;
}

static int end_one(corepool_worker_t *worker, void *state, void *resource, corepool_reason_t reason)
{
    (void)worker, (void)state, (void)reason;
    free(resource);
    atomic_fetch_add(&ended, 1);
    return COREPOOL_OK;
}

static int forget_one(corepool_worker_t *worker, void *state, void *resource)
{
    (void)worker, (void)state, (void)resource;
    atomic_fetch_add(&ended, 1);
    return COREPOOL_OK;
}

static const corepool_class_t cls = {
    .name = "byte", .init = open_one, .terminate = end_one, .detach = forget_one};

static void fail(const char *what)
{
    printf("%s: %s\n", what, corepool_error_detail());
    atomic_store(&broken, true);
}

static void end_lease(corepool_lease_t *lease, bool detach)
{
    void *resource;
    if (!detach) {
        if (corepool_checkin(lease) != COREPOOL_OK)
            fail("checkin");
    } else if (corepool_detach(lease, &resource) == COREPOOL_OK) {
        free(resource);
    } else {
        fail("detach");
    }
}

static void *be_client(void *arg)
{
    corepool_lease_t lease;
    const corepool_checkout_options_t options = {.timeout_ms = 2};
    (void)arg;
    for (unsigned i = 0; !atomic_load(&over); i++) {
        int status = corepool_checkout(pool, &options, &lease);
        if (status == COREPOOL_OK)
            end_lease(&lease, i % DETACH_EVERY == 0);
        else if (status != COREPOOL_ETIMEDOUT && status != COREPOOL_ECLOSED && status != COREPOOL_EOVERLOAD &&
                 status != COREPOOL_ESHED)
            fail("checkout");
    }
    return NULL;
}

static int operate(unsigned drawn, unsigned least)
{
    switch (drawn % 7) {
    case 0: return corepool_pool_resize(pool, least + drawn / 7 % SIZE_MAX_HERE);
    case 1: return corepool_pool_flush(pool, COREPOOL_FLUSH_NOW);
    case 2: return corepool_pool_flush(pool, COREPOOL_FLUSH_GENTLY);
    case 3: return corepool_pool_pause(pool);
    case 4: return corepool_pool_drain(pool, 1);
    case 5: return corepool_pool_warm(pool, 1, 1);
    default: return corepool_pool_resume(pool);
    }
}

struct actor
{
    unsigned random, least;
    pthread_t thread;
};

static void *be_operator(void *arg)
{
    struct actor* self = arg;
    while (!atomic_load(&over)) {
        self->random = self->random * 1103515245 + 12345;
        int status = operate(self->random >> 16, self->least);
        if (status != COREPOOL_OK && status != COREPOOL_EBUSY && status != COREPOOL_ECANCELED &&
            status != COREPOOL_ETIMEDOUT)
            fail("operation");
    }
    return NULL;
}

static void *be_auditor(void *arg)
{
    corepool_stats_t stats;
    (void)arg;
    while (!atomic_load(&over)) {
        if (corepool_pool_stats(pool, &stats) != COREPOOL_OK)
            fail("statistics");
        else if (stats.vacant + stats.opening + stats.idle + stats.leased + stats.closing != stats.quota)
            fail("L1 does not hold in a snapshot");
    }
    return NULL;
}

static void run(corepool_runtime_t *runtime, const corepool_pool_options_t *options, long milliseconds)
{
    pthread_t clients[CLIENTS], auditor;
    struct actor operators[OPERATORS];
    unsigned shards = corepool_runtime_shards(runtime);
    atomic_store(&over, false);
    if (corepool_pool_open(runtime, &cls, NULL, shards, options, &pool) != COREPOOL_OK) {
        fail("open");
        return;
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_create(&clients[i], NULL, be_client, NULL);
    for (unsigned i = 0; i < OPERATORS; i++) {
        operators[i] = (struct actor){.random = i + 1, .least = shards};
        pthread_create(&operators[i].thread, NULL, be_operator, &operators[i]);
    }
    pthread_create(&auditor, NULL, be_auditor, NULL);
    nanosleep(&(struct timespec){.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000},
              NULL);
    atomic_store(&over, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    for (unsigned i = 0; i < OPERATORS; i++)
        pthread_join(operators[i].thread, NULL);
    pthread_join(auditor, NULL);
    if (corepool_runtime_audit(runtime) != COREPOOL_OK)
        fail("laws");
    if (corepool_pool_close(pool, 10000) != COREPOOL_OK)
        fail("close");
}

int main(int argc, char **argv)
{
    corepool_runtime_t *runtime;
    bool portable = argc > 1 && strcmp(argv[1], "portable") == 0;
    long milliseconds = argc > 2 ? atol(argv[2]) : 1000;
    static const corepool_pool_options_t kinds[] = {
        {.name = "plain"},
        {.name = "limited", .max_waiting = 1},
        {.name = "shedding", .shed_target_ms = 1, .shed_interval_ms = 1},
        {.name = "managed", .flags = COREPOOL_POOL_MANAGED},
        {.name = "lazy", .flags = COREPOOL_POOL_LAZY | COREPOOL_POOL_FIFO},
    };
    int status = corepool_runtime_start(
        &(corepool_runtime_options_t){.shelf = portable ? COREPOOL_SHELF_PORTABLE : COREPOOL_SHELF_RSEQ},
        &runtime);
    if (status == COREPOOL_ENOTSUP)
        return SKIPPED;
    if (status != COREPOOL_OK)
        return fail("start"), 1;
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        run(runtime, &kinds[i], milliseconds);
    if (corepool_runtime_stop(runtime, 10000) != COREPOOL_OK ||
        corepool_runtime_destroy(runtime) != COREPOOL_OK)
        fail("stop");
    printf("%ld workers opened, %ld ended\n", atomic_load(&opened), atomic_load(&ended));
    return atomic_load(&broken) || atomic_load(&opened) != atomic_load(&ended);
}
