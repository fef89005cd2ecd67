/* tools/load.c: the client threads of the demo.
 *
 * A client either fetches one path in a loop (blocking, one request at a time) or does nothing but check out
 * and check in. Its counters are its own cache lines: written by it alone, read by whoever wants the sums. */
#include "load.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A server that does not answer must not keep Ctrl-C waiting for the library's 15 s. */
#define POOL_TIMEOUT_MS 5000
#define RECEIVE_TIMEOUT_MS 5000
/* After a failure, so that a broken server is not hammered. */
#define PAUSE_NS 10000000

/* Latency classes: 16 to each power of two. */
#define CLASS_BITS 4u
#define CLASSES ((64u - CLASS_BITS + 1u) << CLASS_BITS)

typedef struct {
    alignas(64) load_t *load;
    pthread_t thread;
    int cpu;
    /* The client's own; relaxed atomics, for the sums say nothing about other memory. */
    _Atomic uint64_t done;
    _Atomic uint64_t failed;
    int odd_status;
    char failure[256];
    uint64_t classes[CLASSES];
} client_t;

struct load {
    load_plan_t plan;
    uint64_t started_ns;
    unsigned count;
    client_t *clients;
    alignas(64) _Atomic bool stop; /* relaxed: the join orders everything else */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- latency classes ---- */

/* Below 2^CLASS_BITS the class is the value; above, the power of two and the next CLASS_BITS bits. */
static unsigned class_of(uint64_t ns)
{
    if (ns < (1u << CLASS_BITS))
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - CLASS_BITS;
    return ((shift + 1u) << CLASS_BITS) + (unsigned)((ns >> shift) - (1u << CLASS_BITS));
}

/* The first value above a class. */
static uint64_t edge_of(unsigned number)
{
    if (number < (1u << CLASS_BITS))
        return number + 1u;
    unsigned shift = (number >> CLASS_BITS) - 1u;
    return ((uint64_t)(number & ((1u << CLASS_BITS) - 1u)) + (1u << CLASS_BITS) + 1u) << shift;
}

static uint64_t find_quantile(const uint64_t *classes, uint64_t total, double share)
{
    uint64_t sum = 0, wanted = (uint64_t)((double)total * share);
    for (unsigned i = 0; i < CLASSES; i++) {
        sum += classes[i];
        if (sum > wanted)
            return edge_of(i);
    }
    return 0;
}

/* ---- one client ---- */

static void count_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void note_failure(client_t *client, int err)
{
    static const struct timespec pause = {.tv_nsec = PAUSE_NS};
    if (client->failure[0] == '\0')
        (void)snprintf(client->failure, sizeof client->failure, "%s: %s", corepool_error_text(err),
                       corepool_error_detail());
    count_one(&client->failed);
    nanosleep(&pause, NULL);
}

static void fetch(client_t *client)
{
    const corepool_http_request_t request = {
        .path = client->load->plan.path,
        .pool_timeout_ms = POOL_TIMEOUT_MS,
        .receive_timeout_ms = RECEIVE_TIMEOUT_MS,
    };
    corepool_http_response_t *response;
    uint64_t begin = now_ns();
    int err = corepool_http_perform(client->load->plan.pool, &request, &response);
    if (err != COREPOOL_OK) {
        note_failure(client, err);
        return;
    }
    if (response->status != 200)
        client->odd_status = response->status;
    corepool_http_response_free(response);
    client->classes[class_of(now_ns() - begin)]++;
    count_one(&client->done);
}

static void pair(client_t *client)
{
    corepool_lease_t lease;
    int err = corepool_checkout(client->load->plan.pool, NULL, &lease);
    if (err == COREPOOL_OK)
        err = corepool_checkin(&lease);
    if (err == COREPOOL_OK)
        count_one(&client->done);
    else
        note_failure(client, err);
}

/* A refused pin leaves a client that floats: slower, not wrong. */
static void pin(int cpu)
{
    cpu_set_t *set = CPU_ALLOC((size_t)cpu + 1);
    size_t bytes = CPU_ALLOC_SIZE((size_t)cpu + 1);
    if (set == NULL)
        return;
    CPU_ZERO_S(bytes, set);
    CPU_SET_S((size_t)cpu, bytes, set);
    (void)sched_setaffinity(0, bytes, set);
    CPU_FREE(set);
}

static void *run_client(void *arg)
{
    client_t *client = arg;
    void (*work)(client_t *) = client->load->plan.path != NULL ? fetch : pair;
    pin(client->cpu);
    while (!atomic_load_explicit(&client->load->stop, memory_order_relaxed))
        work(client);
    return NULL;
}

/* ---- all of them ---- */

static void join_clients(load_t *load)
{
    atomic_store_explicit(&load->stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < load->count; i++)
        pthread_join(load->clients[i].thread, NULL);
}

static void free_load(load_t *load)
{
    free(load->clients);
    free(load);
}

static load_t *make_load(const load_plan_t *plan)
{
    size_t bytes = (size_t)plan->cpu_count * plan->clients * sizeof(client_t);
    load_t *load = aligned_alloc(alignof(load_t), sizeof *load);
    if (load == NULL)
        return NULL;
    *load = (load_t){.plan = *plan, .clients = aligned_alloc(alignof(client_t), bytes)};
    if (load->clients == NULL) {
        free(load);
        return NULL;
    }
    memset(load->clients, 0, bytes);
    return load;
}

int load_start(const load_plan_t *plan, load_t **load)
{
    load_t *made = make_load(plan);
    *load = NULL;
    if (made == NULL)
        return ENOMEM;
    made->started_ns = now_ns();
    while (made->count < plan->cpu_count * plan->clients) {
        client_t *client = &made->clients[made->count];
        client->load = made;
        client->cpu = plan->cpus[made->count % plan->cpu_count];
        int err = pthread_create(&client->thread, NULL, run_client, client);
        if (err != 0) {
            join_clients(made);
            free_load(made);
            return err;
        }
        made->count++;
    }
    *load = made;
    return 0;
}

void load_count(const load_t *load, uint64_t *done, uint64_t *failed)
{
    *done = *failed = 0;
    for (unsigned i = 0; i < load->count; i++) {
        *done += atomic_load_explicit(&load->clients[i].done, memory_order_relaxed);
        *failed += atomic_load_explicit(&load->clients[i].failed, memory_order_relaxed);
    }
}

void load_stop(load_t *load, load_result_t *result)
{
    client_t *first = &load->clients[0];
    *result = (load_result_t){0};
    join_clients(load);
    result->seconds = (double)(now_ns() - load->started_ns) / 1e9;
    load_count(load, &result->done, &result->failed);
    for (unsigned i = 0; i < load->count; i++) {
        const client_t *client = &load->clients[i];
        if (client->odd_status != 0)
            result->odd_status = client->odd_status;
        if (result->failure[0] == '\0')
            memcpy(result->failure, client->failure, sizeof result->failure);
        for (unsigned j = 0; i > 0 && j < CLASSES; j++)
            first->classes[j] += client->classes[j];
    }
    result->p50_ns = find_quantile(first->classes, result->done, 0.5);
    result->p99_ns = find_quantile(first->classes, result->done, 0.99);
    free_load(load);
}
