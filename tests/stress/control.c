/* tests/stress/control.c: what happens to clients from outside: pools are closed and reopened, threads are
 * signalled and moved to other CPUs, shards lose their CPU. Thread: control, but for the storm's timers. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define TICK_NS 300000
/* A shard is moved off its CPU, or back, once in so many ticks. */
#define SHARD_MOVE_TICKS 40

/* An interrupted thread stands still for a while, wherever it was: once in so many signals, longer than a
 * pool takes to close and its memory to become another's. */
#define STALL_SIGNALS 128
#define STALL_NS 6000000

static _Thread_local timer_t storm_timer;
static _Thread_local uint64_t storm_random;

int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static void on_storm(int signal)
{
    int error = errno;
    (void)signal;
    if (draw(&storm_random) % STALL_SIGNALS == 0)
        nanosleep(&(struct timespec){.tv_nsec = STALL_NS}, NULL);
    errno = error;
}

/* The calling client is interrupted many times a second, wherever it is. */
void begin_storm(struct client *client)
{
    struct sigaction action = {.sa_handler = on_storm, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    long interval = 50000 + (long)(draw(&client->random) % 200000);
    struct itimerspec when = {{0, interval}, {0, interval}};
    storm_random = draw(&client->random) | 1;
    event.sigev_notify_thread_id = gettid();
    if (sigaction(SIGRTMIN, &action, NULL) != 0 || timer_create(CLOCK_MONOTONIC, &event, &storm_timer) != 0 ||
        timer_settime(storm_timer, 0, &when, NULL) != 0)
        broke("oracle", "no timers for the storm");
}

void end_storm(void)
{
    timer_delete(storm_timer);
}

static void sweep(void)
{
    while (end_parcel(NULL))
        ;
}

/* A pool that closes waits for its holders, so nobody may be stuck. */
static void let_through(void)
{
    inner_stir(0);
    sweep();
}

/* The new one is open before the old one closes; clients may hold the old handle for a while. */
static void reopen(unsigned plan)
{
    struct life *old = atomic_load(&scene.lives[plan]);
    inner_unstick(); /* opening waits for the shards, and they for a client who plays the manager */
    open_life(plan);
    close_life(old, let_through);
    atomic_fetch_add(&shared.kinds[KIND_REOPEN], 1);
}

static void put_on_cpu(pid_t tid, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    sched_setaffinity(tid, sizeof set, &set); /* the thread may be gone */
}

static int cpu_of(unsigned shard)
{
    corepool_shard_place_t place;
    corepool_topology_place(corepool_runtime_topology(scene.runtime), shard % scene.shards, &place);
    return place.cpu;
}

static void migrate(uint64_t *random)
{
    const struct client *client = &scene.clients[draw(random) % scene.client_count];
    pid_t tid = atomic_load(&client->tid);
    if (!tid)
        return;
    put_on_cpu(tid, cpu_of((unsigned)draw(random)));
    atomic_fetch_add(&shared.kinds[KIND_MIGRATE], 1);
}

/* A manager off its CPU closes the fast path and goes on; it comes back by itself, or is put back here. */
static void move_shard(uint64_t *random)
{
    unsigned shard = (unsigned)(draw(random) % scene.shards);
    put_on_cpu(scene.shard_tids[shard], cpu_of(shard + (unsigned)(draw(random) % 2)));
    atomic_fetch_add(&shared.kinds[KIND_SHARD_MOVED], 1);
}

static void storm(uint64_t *random, unsigned tick)
{
    migrate(random);
    if (tick % SHARD_MOVE_TICKS == 0)
        move_shard(random);
}

static void put_shards_back(void)
{
    for (unsigned i = 0; i < scene.shards; i++)
        put_on_cpu(scene.shard_tids[i], cpu_of(i));
}

void *control(void *stop)
{
    _Atomic bool *stopped = stop;
    uint64_t random = mix(options.seed ^ NUMBER_CONTROL) | 1;
    unsigned churned = 0; /* plans, the last ones of the scene's */
    while (churned < scene.plan_count && scene.plans[scene.plan_count - 1 - churned].churned)
        churned++;
    for (unsigned tick = 1; !atomic_load(stopped); tick++) {
        sweep();
        inner_stir(draw(&random));
        if (churned)
            reopen(scene.plan_count - 1 - tick % churned);
        if (scene.storm)
            storm(&random, tick);
        if (now_ms() > scene.deadline_ms)
            atomic_store(&scene.stopping, true);
        nanosleep(&(struct timespec){.tv_nsec = TICK_NS}, NULL);
    }
    if (scene.storm)
        put_shards_back();
    inner_stir(0);
    return NULL;
}
