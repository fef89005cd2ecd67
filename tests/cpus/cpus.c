/* tests/cpus/cpus.c: cpus affinity|cpuset|offline: a runtime under load while that changes, several times.
 * Checks that callers are served throughout and in time, that no law breaks, and that everything is as before
 * when the CPUs are back: no shard parked, each on its CPU, every shelf of the kind it was. Exit status: 0; 1
 * something broke; 2 bad usage; 77 this machine does not allow it, and why not. */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"

#define SKIPPED 77
#define SHARDS_MAX 64u
#define PATIENCE_MS 20000
/* The program as a whole: then somebody waits for ever. */
#define LIMIT_S 120
#define WINDOW_MS 300
/* A CPU is offline for no longer, as others need it; long enough for its shard to park. */
#define OFFLINE_MS 190
#define ROUNDS 3u
#define MOVES 60u
#define MOVE_MS 10

static corepool_runtime_t *runtime;
static unsigned shards;
static int cpus[SHARDS_MAX];
static _Atomic pid_t threads[SHARDS_MAX];

static void rest(int64_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* --- what is looked at --- */

/* Served checkouts per millisecond, from now on for a while. */
static double watch_rate(int64_t ms)
{
    uint64_t before = clients_served();
    int64_t began = now_ms();
    rest(ms);
    uint64_t served = clients_served() - before;
    if (served == 0)
        broke("service", "no checkout was granted for %lld ms", (long long)ms);
    return (double)served / (double)(now_ms() - began);
}

static void await_parked(unsigned wanted)
{
    int64_t deadline = now_ms() + PATIENCE_MS;
    while (corepool_runtime_parked(runtime) != wanted) {
        if (now_ms() > deadline)
            broke("parking", "%u shards are parked, not %u", corepool_runtime_parked(runtime), wanted);
        rest(1);
    }
}

static bool is_at_home(unsigned shard)
{
    cpu_set_t set;
    return sched_getaffinity(atomic_load(&threads[shard]), sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 &&
           CPU_ISSET((unsigned)cpus[shard], &set);
}

static unsigned count_at_home(void)
{
    unsigned at_home = 0;
    for (unsigned i = 0; i < shards; i++)
        at_home += is_at_home(i);
    return at_home;
}

/* An audit wakes every shard: what is idle notices by that. */
static void await_all_back(uint64_t portable)
{
    int64_t deadline = now_ms() + PATIENCE_MS;
    while (corepool_runtime_parked(runtime) != 0 || count_at_home() != shards ||
           clients_portable() != portable) {
        if (now_ms() > deadline)
            broke("return", "%u shards parked, %u of %u at home, %llu slices portable, not %llu",
                  corepool_runtime_parked(runtime), count_at_home(), shards,
                  (unsigned long long)clients_portable(), (unsigned long long)portable);
        (void)corepool_runtime_audit(runtime); /* not exact while clients run */
        rest(1);
    }
}

/* --- the changes --- */

static char all_cpus[8 * SHARDS_MAX];

static void list_cpus(void)
{
    for (unsigned i = 0; i < shards; i++)
        snprintf(all_cpus + strlen(all_cpus), sizeof all_cpus - strlen(all_cpus), "%s%d", i ? "," : "",
                 cpus[i]);
}

/* To one CPU, each time another, and back. */
static void change_cpuset(void)
{
    char one[16];
    for (unsigned round = 0; round < ROUNDS; round++) {
        snprintf(one, sizeof one, "%d", cpus[round % shards]);
        machine_set_cpuset(one);
        await_parked(shards - 1);
        double parked = watch_rate(WINDOW_MS);
        machine_set_cpuset(all_cpus);
        await_parked(0);
        printf("  on CPU %s alone %.0f a ms, then %.0f\n", one, parked, watch_rate(WINDOW_MS));
    }
}

static void change_plug(void)
{
    int cpu = cpus[shards - 1];
    for (unsigned round = 0; round < ROUNDS; round++) {
        machine_plug(cpu, false);
        double parked = watch_rate(OFFLINE_MS);
        unsigned were = corepool_runtime_parked(runtime);
        machine_plug(cpu, true);
        await_parked(0);
        printf("  without CPU %d %.0f a ms, %u parked; then %.0f\n", cpu, parked, were, watch_rate(WINDOW_MS));
    }
}

/* Shards and clients are moved about. */
static void change_affinity(void)
{
    for (unsigned i = 0; i < MOVES; i++) {
        machine_place(atomic_load(&threads[i % shards]), cpus[(i + 1 + i / shards) % shards]);
        machine_place(clients_thread(i % clients_count()), i % 3 ? cpus[i % shards] : -1);
        rest(MOVE_MS);
    }
    printf("  %u moves, %.0f a ms afterwards\n", MOVES, watch_rate(WINDOW_MS));
}

/* --- the play --- */

static void note_shard(corepool_shard_t *shard, void *arg)
{
    (void)arg;
    atomic_store(&threads[corepool_shard_index(shard)], gettid());
    cpus[corepool_shard_index(shard)] = corepool_shard_cpu(shard);
}

static bool start_runtime(void)
{
    if (corepool_runtime_start(&(corepool_runtime_options_t){.on_start = note_shard}, &runtime) != COREPOOL_OK)
        broke("play", "no runtime: %s", corepool_error_detail());
    shards = corepool_runtime_shards(runtime);
    if (shards >= 2 && shards <= SHARDS_MAX)
        return true;
    printf("skipped: 2 to %u CPUs are needed, there are %u\n", SHARDS_MAX, shards);
    return false;
}

static void stop_runtime(void)
{
    if (corepool_runtime_stop(runtime, PATIENCE_MS) != COREPOOL_OK ||
        corepool_runtime_destroy(runtime) != COREPOOL_OK)
        broke("L7", "the runtime does not stop: %s", corepool_error_detail());
}

struct part {
    const char *name;
    bool (*may)(void);
    void (*change)(void);
};

static bool may_affinity(void)
{
    return true;
}

static bool may_cpuset(void)
{
    return machine_enter_cpuset(all_cpus);
}

static bool may_plug(void)
{
    return machine_may_unplug(cpus[shards - 1]);
}

static const struct part parts[] = {
    {"affinity", may_affinity, change_affinity},
    {"cpuset", may_cpuset, change_cpuset},
    {"offline", may_plug, change_plug},
};

static int play(const struct part *part)
{
    int status = SKIPPED;
    if (!start_runtime())
        return status;
    list_cpus();
    if (part->may()) {
        clients_start(runtime);
        uint64_t portable = clients_portable();
        printf("%s: %u shards, %u clients, %s shelf\n  before %.0f a ms\n", part->name, shards, clients_count(),
               corepool_runtime_shelf(runtime) == COREPOOL_SHELF_RSEQ ? "rseq" : "portable",
               watch_rate(WINDOW_MS));
        part->change();
        await_all_back(portable);
        printf("  after %.0f a ms\n", watch_rate(WINDOW_MS));
        clients_stop();
        await_all_back(portable);
        clients_close();
        status = 0;
    }
    stop_runtime();
    return status;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned i = 0; argc == 2 && i < sizeof parts / sizeof *parts; i++)
        if (strcmp(argv[1], parts[i].name) == 0) {
            machine_guard();
            alarm(LIMIT_S);
            return play(&parts[i]);
        }
    fprintf(stderr, "usage: cpus affinity|cpuset|offline\n");
    return 2;
}
