/* tests/stress/stress.c: options, scenes and rounds of the stress. See stress.h for what is watched.
 *
 * A scene is one runtime with its pools; it runs in rounds, each ending in a quiescent point: every client
 * has ended, nothing is under way. Scenes: clients pinned one after the other to the CPUs; clients free; a
 * handover of one worker between few clients, where nothing else would wake a request that was overlooked; a
 * storm of signals and migrations. Exit status: 0 all laws held, 1 one broke, 2 bad usage, 77 this shelf is
 * not to be had here. */
#include <dirent.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define SKIPPED 77
#define ROUNDS 16
#define OPS_DEFAULT 10000000
/* Each takes two switches of threads, so a scene of them is a small part of all operations. */
#define HANDOVER_SHARE 100
/* Fewer operations than that need not contain every kind. */
#define OPS_FOR_ALL_KINDS 1000000

struct options options = {.ops = OPS_DEFAULT, .threads = 8, .seconds = 3600, .patience_s = 60};
struct scene scene;

/* Some are local only: a shard that asks others looks round so often that it finds what a lost wake-up left. */
static const struct plan mixed_plans[] = {
    {"plain", &plain_class, 8, 0, 40, false, 0, COREPOOL_POLICY_LOCAL_ONLY},
    {"fifo", &picky_class, 4, COREPOOL_POOL_FIFO, 14, false, 0, COREPOOL_POLICY_LOCAL},
    {"lazy", &slow_class, 6, COREPOOL_POOL_LAZY, 10, false, 0, COREPOOL_POLICY_LOCAL},
    {"each", &blocking_class, 2, COREPOOL_POOL_PER_SHARD, 10, false, 0, COREPOOL_POLICY_LOCAL_ONLY},
    {"managed", &picky_class, 3, COREPOOL_POOL_MANAGED, 2, false, 0, COREPOOL_POLICY_LOCAL},
    {"serialised", &picky_class, 3, COREPOOL_POOL_MANAGED | COREPOOL_POOL_SERIALISED, 2, false, 0, COREPOOL_POLICY_LOCAL},
    {"one", &plain_class, 1, 0, 3, false, 0, COREPOOL_POLICY_LOCAL},
    {"turns", &plain_class, 2, 0, 10, false, 200, COREPOOL_POLICY_LOCAL},
    {"moves", &moving_class, 4, 0, 14, false, 0, COREPOOL_POLICY_LOCAL},
    {"moves-lazy", &slow_moving_class, 3, COREPOOL_POOL_LAZY | COREPOOL_POOL_FIFO, 8, false, 0, COREPOOL_POLICY_LOCAL},
    {"moves-blocking", &blocking_moving_class, 2, COREPOOL_POOL_PER_SHARD, 8, false, 0, COREPOOL_POLICY_LOCAL},
    {"moves-turns", &moving_class, 2, 0, 8, false, 200, COREPOOL_POLICY_LOCAL},
    {"churn-moves", &moving_class, 2, 0, 12, true, 0, COREPOOL_POLICY_LOCAL},
    {"churn-lazy", &slow_class, 2, COREPOOL_POOL_LAZY | COREPOOL_POOL_FIFO, 12, true, 0, COREPOOL_POLICY_LOCAL},
    {"churn-each", &picky_class, 1, COREPOOL_POOL_PER_SHARD, 12, true, 0, COREPOOL_POLICY_LOCAL},
    {"churn", &plain_class, 2, 0, 12, true, 0, COREPOOL_POLICY_LOCAL_ONLY},
};

/* Rounds take turns with them. */
static const struct plan handover_plans[] = {
    {"handover-1", &plain_class, 1, COREPOOL_POOL_PER_SHARD, 1, false, 0, COREPOOL_POLICY_LOCAL_ONLY},
    {"handover-2", &plain_class, 2, COREPOOL_POOL_PER_SHARD, 1, false, 0, COREPOOL_POLICY_LOCAL_ONLY},
};

/* --- baseline of the process ------------------------------------------------------------------------------ */

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *directory = opendir(path);
    if (!directory)
        broke("oracle", "%s cannot be read", path);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void nothing(uv_work_t *work)
{
    (void)work;
}

/* libuv's thread pool stays once it is used, so it is started before anything is counted. */
static void start_thread_pool(void)
{
    uv_loop_t loop;
    uv_work_t work;
    if (uv_loop_init(&loop) != 0 || uv_queue_work(&loop, &work, nothing, NULL) != 0)
        broke("oracle", "no loop for the thread pool");
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
}

/* A thread that was joined may still be listed for a moment. */
static void check_baseline(unsigned descriptors, unsigned threads)
{
    for (unsigned i = 0; i < 1000 && count_entries("/proc/self/task") != threads; i++)
        poll(NULL, 0, 1);
    if (count_entries("/proc/self/task") != threads)
        broke("L7", "%u threads before, %u after", threads, count_entries("/proc/self/task"));
    if (count_entries("/proc/self/fd") != descriptors)
        broke("L7", "%u descriptors before, %u after", descriptors, count_entries("/proc/self/fd"));
}

/* --- a scene ---------------------------------------------------------------------------------------------- */

static _Atomic unsigned shards_ready;

static void tell_tid(corepool_shard_t *shard, void *arg)
{
    (void)arg;
    scene.shard_tids[corepool_shard_index(shard) % 64] = gettid();
    atomic_fetch_add(&shards_ready, 1);
}

static bool start_runtime(void)
{
    corepool_runtime_options_t how = {.shelf = options.shelf, .name = "stress", .on_start = tell_tid};
    atomic_store(&shards_ready, 0);
    int status = corepool_runtime_start(&how, &scene.runtime);
    if (status == COREPOOL_ENOTSUP)
        return false;
    if (status != COREPOOL_OK)
        broke("oracle", "no runtime: %s", corepool_error_detail());
    scene.shards = corepool_runtime_shards(scene.runtime);
    scene.portable = corepool_runtime_shelf(scene.runtime) == COREPOOL_SHELF_PORTABLE;
    while (atomic_load(&shards_ready) < scene.shards)
        poll(NULL, 0, 1);
    for (unsigned i = 0; i < scene.plan_count; i++)
        open_life(i);
    return true;
}

static void place_client(struct client *client, unsigned number, unsigned round, bool pinned, uint64_t ops)
{
    corepool_shard_place_t place;
    corepool_topology_place(corepool_runtime_topology(scene.runtime), number % scene.shards, &place);
    *client = (struct client){
        .number = number + 1,
        .cpu = pinned ? place.cpu : -1,
        .random = mix(options.seed + round * 1000 + number) | 1,
        .budget = ops,
    };
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    if (pthread_create(thread, NULL, fn, arg) != 0)
        broke("oracle", "no thread");
}

/* All clients from their begin to their end, then a look at everything. */
static void run_round(unsigned round, bool pinned, uint64_t ops, void *(*fn)(void *))
{
    static struct client clients[CLIENTS_MAX];
    _Atomic bool stop_control = false, stop_watch = false;
    pthread_t controller, watchdog;
    for (unsigned i = 0; i < scene.client_count; i++)
        place_client(&clients[i], i, round, pinned, ops / scene.client_count);
    scene.clients = clients;
    scene.round = round;
    start(&watchdog, watch, &stop_watch);
    start(&controller, control, &stop_control);
    for (unsigned i = 0; i < scene.client_count; i++)
        start(&clients[i].thread, fn, &clients[i]);
    for (unsigned i = 0; i < scene.client_count; i++) {
        pthread_join(clients[i].thread, NULL);
        add_tally(&total, &clients[i].tally);
    }
    atomic_store(&stop_control, true);
    pthread_join(controller, NULL);
    atomic_store(&stop_watch, true);
    pthread_join(watchdog, NULL);
    check_quiescent();
}

static void nobody(void)
{
}

static void end_scene(void)
{
    check_reasons();
    for (unsigned i = 0; i < scene.plan_count; i++)
        close_life(atomic_load(&scene.lives[i]), nobody);
    if (corepool_runtime_stop(scene.runtime, 1000 * (int64_t)options.patience_s) != COREPOOL_OK ||
        corepool_runtime_destroy(scene.runtime) != COREPOOL_OK)
        broke("L7", "the runtime does not stop: %s", corepool_error_detail());
    free_lives();
    free_asks();
    free_workers();
}

struct cast {
    const char *name;
    const struct plan *plans;
    unsigned plan_count, clients;
    uint64_t ops;
    bool pinned, storm;
    void *(*fn)(void *);
};

static void check_coverage(void)
{
    check_kinds();
    check_moves();
}

/* False: this shelf is not to be had. */
static bool play(const struct cast *cast)
{
    unsigned descriptors = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    int64_t began = now_ms();
    uint64_t aborts = inner_aborts();
    scene = (struct scene){.name = cast->name,
                           .plans = cast->plans,
                           .plan_count = cast->plan_count,
                           .client_count = cast->clients,
                           .storm = cast->storm,
                           .deadline_ms = scene.deadline_ms};
    for (unsigned i = 0; i < cast->plan_count; i++)
        scene.weights += cast->plans[i].weight;
    total = shared = (struct tally){0};
    if (!start_runtime())
        return false;
    printf("%s: %u clients, %u shards, %s shelf\n", cast->name, cast->clients, scene.shards,
           scene.portable ? "portable" : "rseq");
    fflush(stdout);
    for (unsigned round = 0; round < ROUNDS && !atomic_load(&scene.stopping); round++)
        run_round(round, cast->pinned, cast->ops / ROUNDS, cast->fn);
    print_counts();
    if (cast->fn == run_client && cast->ops >= OPS_FOR_ALL_KINDS && !atomic_load(&scene.stopping))
        check_coverage();
    if (cast->storm && inner_build && !scene.portable && inner_aborts() == aborts)
        broke("coverage", "the storm restarted no sequence");
    end_scene();
    check_baseline(descriptors, threads);
    printf("  %lld ms, all laws held\n", (long long)(now_ms() - began));
    return true;
}

/* --- the program ------------------------------------------------------------------------------------------ */

static void usage(FILE *out)
{
    fputs("usage: stress [--ops N] [--seed S] [--threads T] [--seconds LIMIT] [--patience SECONDS]\n"
          "              [--shelf auto|rseq|portable] [--pinned] [--free] [--both] [--handover] [--storm]\n"
          "Without a scene: pinned, free and handover; a build with the library's insides: storm too.\n",
          out);
}

static bool read_number(const char *text, uint64_t most, uint64_t *number)
{
    char *end_of_number;
    *number = strtoull(text, &end_of_number, 0);
    return *text >= '0' && *text <= '9' && !*end_of_number && *number > 0 && *number <= most;
}

static bool read_shelf(const char *text)
{
    static const char *const names[] = {"auto", "rseq", "portable"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            options.shelf = (corepool_shelf_kind_t)i;
            return true;
        }
    return false;
}

static bool read_option(int option)
{
    uint64_t number = 0;
    switch (option) {
    case 'o': return read_number(optarg, UINT64_MAX, &options.ops);
    case 's': return read_number(optarg, UINT64_MAX, &options.seed);
    case 't': return read_number(optarg, CLIENTS_MAX, &number) && (options.threads = (unsigned)number);
    case 'l': return read_number(optarg, 1000000, &number) && (options.seconds = (unsigned)number);
    case 'w': return read_number(optarg, 100000, &number) && (options.patience_s = (unsigned)number);
    case 'S': return read_shelf(optarg);
    case 'p': return options.pinned = true;
    case 'f': return options.free = true;
    case 'b': return options.pinned = options.free = true;
    case 'H': return options.handover = true;
    case 'x': return options.storm = true;
    default: return false;
    }
}

static bool read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"ops", 1, NULL, 'o'},     {"seed", 1, NULL, 's'},     {"threads", 1, NULL, 't'},
        {"seconds", 1, NULL, 'l'}, {"shelf", 1, NULL, 'S'},    {"pinned", 0, NULL, 'p'},
        {"free", 0, NULL, 'f'},    {"both", 0, NULL, 'b'},     {"handover", 0, NULL, 'H'},
        {"storm", 0, NULL, 'x'},   {"patience", 1, NULL, 'w'}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
        if (!read_option(option))
            return false;
    if (!(options.pinned || options.free || options.handover || options.storm)) {
        options.pinned = options.free = options.handover = true;
        options.storm = inner_build;
    }
    return optind == argc;
}

static bool play_all(void)
{
    unsigned scenes = (unsigned)options.pinned + options.free + options.storm;
    uint64_t ops = options.ops / (scenes ? scenes : 1);
    const unsigned plans = sizeof mixed_plans / sizeof *mixed_plans;
    const struct cast casts[] = {
        {"handover", handover_plans, 2, 3, scenes ? options.ops / HANDOVER_SHARE : options.ops, true, false,
         run_handover},
        {"pinned", mixed_plans, plans, options.threads, ops, true, false, run_client},
        {"free", mixed_plans, plans, options.threads, ops, false, false, run_client},
        {"storm", mixed_plans, plans, options.threads, ops, false, true, run_client},
    };
    const bool wanted[] = {options.handover, options.pinned, options.free, options.storm};
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (wanted[i] && !play(&casts[i]))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    options.seed = (uint64_t)time(NULL) ^ (uint64_t)getpid() << 32;
    if (!read_options(argc, argv)) {
        usage(stderr);
        return 2;
    }
    printf("seed %llu, %llu operations\n", (unsigned long long)options.seed, (unsigned long long)options.ops);
    scene.deadline_ms = now_ms() + options.seconds * INT64_C(1000);
    start_thread_pool();
    if (!play_all()) {
        printf("skipped: %s\n", corepool_error_detail());
        return SKIPPED;
    }
    return 0;
}
