/* tests/cpus/clients.c: the load, and who watches the laws in it.
 *
 * Clients, half of them pinned, check out with short deadlines from pools that have too few workers for all,
 * now and then for a shard of their choice, and give back or remove. Each worker has an owner word that its
 * holder swaps in and out (L2); each request ends once, and in time (L5); inits and terminates are counted
 * (L6). Sleepers do nothing but sleep for moments: how late they wake is what the machine adds to every
 * deadline. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"

#define CLIENTS_PER_SHARD 4u
#define CLIENTS_MAX 32u
#define TIMEOUT_MS_MAX 40
#define SLEEP_NS 2000000
#define NS_PER_MS 1000000

struct worker {
    struct plan *plan;
    _Atomic unsigned owner;
};

/* A kind of pool, and what became of its workers. */
struct plan {
    const char *name;
    unsigned flags, per_shard, size; /* so many workers for each shard, or in all */
    unsigned class_flags;
    corepool_policy_t policy;
    corepool_class_t cls;
    corepool_pool_t pool;
    uint64_t size_in_all;
    _Atomic uint64_t inits, terminates;
};

struct client {
    unsigned number;
    int cpu; /* -1: free */
    bool sleeps;
    uint64_t random;
    pthread_t thread;
    _Atomic pid_t tid;
    _Atomic uint64_t issued, granted, timed_out;
    _Atomic int64_t latest_ns; /* past its deadline; of a sleeper: past its sleep */
};

static struct plan plans[] = {
    {.name = "each", .flags = COREPOOL_POOL_PER_SHARD, .per_shard = 3, .class_flags = COREPOOL_CLASS_MOVABLE},
    {.name = "lazy",
     .flags = COREPOOL_POOL_LAZY | COREPOOL_POOL_FIFO,
     .per_shard = 2,
     .class_flags = COREPOOL_CLASS_MOVABLE},
    {.name = "bound", .per_shard = 2},
    {.name = "scarce", .per_shard = 1, .class_flags = COREPOOL_CLASS_MOVABLE},
    {.name = "alone", .per_shard = 2, .policy = COREPOOL_POLICY_LOCAL_ONLY},
    {.name = "turns", .per_shard = 2, .policy = COREPOOL_POLICY_ROUND_ROBIN},
    {.name = "single", .size = 1},
};
#define PLANS (sizeof plans / sizeof *plans)

static corepool_runtime_t *runtime;
static struct client clients[CLIENTS_MAX], sleepers[CLIENTS_MAX];
static unsigned shards, client_count, sleeper_count;
static _Atomic bool stopping;

void broke(const char *law, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "BROKEN %s: ", law);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

/* --- workers --- */

static int init(corepool_worker_t *slot, void *pool_state, void **resource)
{
    struct worker *worker = calloc(1, sizeof *worker);
    (void)slot;
    if (!worker)
        return COREPOOL_ENOMEM;
    worker->plan = pool_state;
    atomic_fetch_add(&worker->plan->inits, 1);
    *resource = worker;
    return COREPOOL_OK;
}

static int terminate(corepool_worker_t *slot, void *pool_state, void *resource, corepool_reason_t reason)
{
    struct plan *plan = pool_state;
    struct worker *worker = resource;
    (void)slot;
    if (worker->plan != plan)
        broke("L6", "a worker of %s was terminated by %s", worker->plan->name, plan->name);
    if (atomic_load(&worker->owner))
        broke("L2", "a worker of %s was terminated (%s) in the hands of %u", plan->name,
              corepool_reason_text(reason), atomic_load(&worker->owner));
    atomic_fetch_add(&plan->terminates, 1);
    free(worker);
    return COREPOOL_OK;
}

static void open_pool(struct plan *plan)
{
    plan->cls = (corepool_class_t){
        .name = plan->name, .flags = plan->class_flags, .init = init, .terminate = terminate};
    unsigned size =
        plan->size ? plan->size : plan->per_shard * (plan->flags & COREPOOL_POOL_PER_SHARD ? 1 : shards);
    plan->size_in_all = plan->size ? plan->size : (uint64_t)plan->per_shard * shards;
    const corepool_pool_options_t options = {.flags = plan->flags, .policy = plan->policy};
    if (corepool_pool_open(runtime, &plan->cls, plan, size, &options, &plan->pool) != COREPOOL_OK)
        broke("play", "pool %s does not open: %s", plan->name, corepool_error_detail());
}

/* --- a client --- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static uint64_t draw(struct client *client, uint64_t below)
{
    client->random ^= client->random >> 12;
    client->random ^= client->random << 25;
    client->random ^= client->random >> 27;
    return ((client->random * UINT64_C(0x2545F4914F6CDD1D)) >> 16) % below;
}

static void bump(_Atomic uint64_t *count)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void note_late(struct client *client, int64_t late_ns)
{
    if (late_ns > atomic_load_explicit(&client->latest_ns, memory_order_relaxed))
        atomic_store_explicit(&client->latest_ns, late_ns, memory_order_relaxed);
}

static void use(struct client *client, corepool_lease_t *lease)
{
    struct worker *worker = lease->resource;
    unsigned before = atomic_exchange(&worker->owner, client->number);
    if (before)
        broke("L2", "a worker of %s is held by %u and by %u", worker->plan->name, before, client->number);
    if (draw(client, 16) == 0)
        nanosleep(&(struct timespec){.tv_nsec = (long)draw(client, 2 * NS_PER_MS)}, NULL);
    before = atomic_exchange(&worker->owner, 0);
    if (before != client->number)
        broke("L2", "a worker of %s was held by %u and is by %u", worker->plan->name, client->number, before);
    int status = draw(client, 64) ? corepool_checkin(lease) : corepool_checkin_remove(lease);
    if (status != COREPOOL_OK)
        broke("L2", "a lease of %s does not end: %s", worker->plan->name, corepool_error_detail());
}

static void step(struct client *client)
{
    corepool_lease_t lease;
    const struct plan *plan = &plans[draw(client, PLANS)];
    corepool_pool_t pool =
        draw(client, 8) ? plan->pool : corepool_pool_at(plan->pool, (unsigned)draw(client, shards));
    const corepool_checkout_options_t how = {.timeout_ms = 1 + (int64_t)draw(client, TIMEOUT_MS_MAX)};
    int64_t began = now_ns();
    bump(&client->issued);
    int status = corepool_checkout(pool, &how, &lease);
    note_late(client, now_ns() - began - how.timeout_ms * NS_PER_MS);
    if (status == COREPOOL_OK) {
        bump(&client->granted);
        use(client, &lease);
    } else if (status == COREPOOL_ETIMEDOUT) {
        bump(&client->timed_out);
    } else {
        broke("L5", "a checkout from %s ended with %s: %s", plan->name, corepool_error_name(status),
              corepool_error_detail());
    }
}

static void sleep_once(struct client *client)
{
    int64_t began = now_ns();
    nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    note_late(client, now_ns() - began - SLEEP_NS);
}

static void *run(void *arg)
{
    struct client *client = arg;
    atomic_store(&client->tid, gettid());
    if (client->cpu >= 0)
        machine_place(0, client->cpu);
    while (!atomic_load_explicit(&stopping, memory_order_relaxed))
        client->sleeps ? sleep_once(client) : step(client);
    return NULL;
}

/* --- all of them --- */

static int cpu_of(unsigned shard)
{
    corepool_shard_place_t place;
    corepool_topology_place(corepool_runtime_topology(runtime), shard % shards, &place);
    return place.cpu;
}

static void start(struct client *client, unsigned number, int cpu, bool sleeps)
{
    *client = (struct client){.number = number + 1,
                              .cpu = cpu,
                              .sleeps = sleeps,
                              .random = (number + 1) * UINT64_C(0x9E3779B97F4A7C15)};
    if (pthread_create(&client->thread, NULL, run, client) != 0)
        broke("play", "no thread");
    while (!atomic_load(&client->tid))
        usleep(100);
}

void clients_start(corepool_runtime_t *of)
{
    runtime = of;
    shards = corepool_runtime_shards(runtime);
    for (unsigned i = 0; i < PLANS; i++)
        open_pool(&plans[i]);
    client_count = CLIENTS_PER_SHARD * shards < CLIENTS_MAX ? CLIENTS_PER_SHARD * shards : CLIENTS_MAX;
    sleeper_count = shards < CLIENTS_MAX ? shards : CLIENTS_MAX;
    for (unsigned i = 0; i < client_count; i++)
        start(&clients[i], i, i % 2 ? -1 : cpu_of(i / 2), false);
    for (unsigned i = 0; i < sleeper_count; i++)
        start(&sleepers[i], i, cpu_of(i), true);
}

unsigned clients_count(void)
{
    return client_count;
}

pid_t clients_thread(unsigned number)
{
    return atomic_load(&clients[number].tid);
}

static uint64_t sum(size_t field)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < client_count; i++)
        total += atomic_load((_Atomic uint64_t *)(void *)((char *)&clients[i] + field));
    return total;
}

uint64_t clients_served(void)
{
    return sum(offsetof(struct client, granted));
}

static corepool_stats_t stats_of(const struct plan *plan)
{
    corepool_stats_t stats;
    if (corepool_pool_stats(plan->pool, &stats) != COREPOOL_OK)
        broke("play", "no statistics of %s: %s", plan->name, corepool_error_detail());
    return stats;
}

uint64_t clients_portable(void)
{
    uint64_t portable = 0;
    for (unsigned i = 0; i < PLANS; i++)
        portable += stats_of(&plans[i]).portable;
    return portable;
}

static int64_t latest_ms(const struct client *of, unsigned count)
{
    int64_t latest = 0;
    for (unsigned i = 0; i < count; i++)
        latest = atomic_load(&of[i].latest_ns) > latest ? atomic_load(&of[i].latest_ns) : latest;
    return latest / NS_PER_MS;
}

static void judge_requests(void)
{
    uint64_t issued = sum(offsetof(struct client, issued)), granted = clients_served();
    uint64_t timed_out = sum(offsetof(struct client, timed_out));
    int64_t late = latest_ms(clients, client_count), machine_late = latest_ms(sleepers, sleeper_count);
    printf("  %llu requests: %llu granted, %llu timed out; the last %lld ms after its deadline, sleepers up to "
           "%lld ms late\n",
           (unsigned long long)issued, (unsigned long long)granted, (unsigned long long)timed_out,
           (long long)late, (long long)machine_late);
    if (issued != granted + timed_out)
        broke("L5", "%llu requests have ended otherwise", (unsigned long long)(issued - granted - timed_out));
    if (late > LATE_MS + machine_late)
        broke("deadline", "a request ended %lld ms after its deadline", (long long)late);
}

static void judge_pool(const struct plan *plan)
{
    corepool_stats_t stats = stats_of(plan);
    printf("  %s: %llu workers and places went to other shards\n", plan->name, (unsigned long long)stats.given);
    if (stats.quota + stats.moving != plan->size_in_all || stats.leased || stats.waiting)
        broke("L1", "%s: quota %llu of %llu, %llu leased, %llu waiting", plan->name,
              (unsigned long long)stats.quota, (unsigned long long)plan->size_in_all,
              (unsigned long long)stats.leased, (unsigned long long)stats.waiting);
}

void clients_stop(void)
{
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < client_count; i++)
        pthread_join(clients[i].thread, NULL);
    for (unsigned i = 0; i < sleeper_count; i++)
        pthread_join(sleepers[i].thread, NULL);
    judge_requests();
    if (corepool_runtime_audit(runtime) != COREPOOL_OK)
        broke("audit", "%s", corepool_error_detail());
    for (unsigned i = 0; i < PLANS; i++)
        judge_pool(&plans[i]);
}

void clients_close(void)
{
    for (unsigned i = 0; i < PLANS; i++) {
        struct plan *plan = &plans[i];
        if (corepool_pool_close(plan->pool, 20000) != COREPOOL_OK)
            broke("L7", "pool %s does not close: %s", plan->name, corepool_error_detail());
        if (atomic_load(&plan->inits) != atomic_load(&plan->terminates))
            broke("L6", "%s: %llu workers opened, %llu terminated", plan->name,
                  (unsigned long long)atomic_load(&plan->inits),
                  (unsigned long long)atomic_load(&plan->terminates));
    }
}
