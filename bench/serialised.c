/* bench/serialised.c: checkout and checkin in NimblePool's model: enqueue, checkout and checkin callbacks all run on the
 * shard, one after the other, with the pool state.
 *
 * (a) Callers are code on the shard's own loop, as processes of one Erlang scheduler are: they take turns; whose turn it is
 *     gives back the worker that it has and asks for one again; on one shard, and on all at once. With more callers than
 *     workers nearly every checkout waits for another's checkin.
 * (b) Callers are threads that block, pinned to the CPUs in turn: a message to the shard and back, and two switches.
 *
 * ns of CPU per pair: the time of the whole, times the CPUs that had callers, over all pairs. Every round runs each case once.
 * What the callbacks count, without any lock, must be as many as there were pairs. Usage: serialised [ROUNDS [PAIRS]]. */
#include <corepool.h>
#include <pthread.h>
#include <semaphore.h>

#include "bench.h"

#define MAX_ROUNDS 101
#define MAX_SHARDS 64
#define MAX_CALLERS 64
#define WORKERS 8 /* of a shard */
/* Blocking threads take some hundred times as long, and get so much fewer pairs. */
#define SLOWER 100

/* --- the class: one count of each slice per callback, written on its shard only --- */

static struct counts {
    uint64_t enqueued, checked_out, checked_in;
} __attribute__((aligned(64))) counts[MAX_SHARDS];

static int pool_init(void *arg, corepool_shard_t *shard, void **pool_state)
{
    (void)arg;
    *pool_state = &counts[corepool_shard_index(shard)];
    return COREPOOL_OK;
}

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static int enqueue(void *pool_state, void *command, void **wrapped)
{
    (void)command, (void)wrapped;
    ((struct counts *)pool_state)->enqueued++;
    return COREPOOL_OK;
}

static int check_out(void *pool_state, void *resource, void *command, void **client)
{
    (void)resource, (void)command, (void)client;
    ((struct counts *)pool_state)->checked_out++;
    return COREPOOL_OK;
}

static int check_in(void *pool_state, void *resource, void *client)
{
    (void)resource, (void)client;
    ((struct counts *)pool_state)->checked_in++;
    return COREPOOL_OK;
}

static const corepool_class_t cls = {.name = "counting", .pool_init = pool_init, .init = init, .enqueue = enqueue,
                                     .checkout = check_out, .checkin = check_in};

static corepool_runtime_t *runtime;
static corepool_pool_t pool;

static void require(int status, const char *what)
{
    BENCH_REQUIRE(status == COREPOOL_OK, "%s: %s: %s", what, corepool_error_name(status), corepool_error_detail());
}

/* --- (a) callers on the shards --- */

struct caller {
    struct crowd *crowd;
    uint64_t left; /* pairs, without the one under way */
    bool has;      /* a lease */
    corepool_lease_t lease;
};

/* Those of one shard, which alone touches them while they run. */
static struct crowd {
    struct caller callers[MAX_CALLERS];
    unsigned count, left;
    uint64_t pairs; /* of each caller */
    bool running;   /* within take_turns: a callback leaves going on to that */
    int64_t begin, end;
} __attribute__((aligned(128))) crowds[MAX_SHARDS]; /* no line, and no pair of lines, of two shards */
static sem_t crowd_done;

static void take_turns(struct crowd *crowd);

static void on_lease(int status, const corepool_lease_t *lease, void *arg)
{
    struct caller *caller = arg;
    require(status, "checkout_async's outcome");
    caller->lease = *lease;
    caller->has = true;
    if (!caller->crowd->running)
        take_turns(caller->crowd);
}

static void ask(struct caller *caller)
{
    if (caller->left == 0) {
        caller->crowd->left--;
        return;
    }
    caller->left--;
    require(corepool_checkout_async(pool, NULL, on_lease, caller, NULL), "checkout_async");
}

/* Gives back what it has and asks again. False: it waits, or has had its pairs. */
static bool take_turn(struct caller *caller)
{
    if (!caller->has)
        return false;
    caller->has = false;
    require(corepool_checkin(&caller->lease), "checkin");
    ask(caller);
    return true;
}

/* Until all wait, or nobody is left. */
static void take_turns(struct crowd *crowd)
{
    bool moved = true;
    crowd->running = true;
    while (moved) {
        moved = false;
        for (unsigned i = 0; i < crowd->count; i++)
            moved |= take_turn(&crowd->callers[i]);
    }
    crowd->running = false;
    if (crowd->left)
        return;
    crowd->end = bench_now_ns();
    sem_post(&crowd_done);
}

/* Thread: the shard. */
static void start_crowd(corepool_shard_t *shard, void *arg)
{
    struct crowd *crowd = arg;
    (void)shard;
    crowd->begin = bench_now_ns();
    crowd->left = crowd->count;
    crowd->running = true;
    for (unsigned i = 0; i < crowd->count; i++)
        crowd->callers[i] = (struct caller){.crowd = crowd, .left = crowd->pairs};
    for (unsigned i = 0; i < crowd->count; i++)
        ask(&crowd->callers[i]);
    take_turns(crowd);
}

static double time_shards(unsigned shards, unsigned callers, uint64_t *pairs)
{
    int64_t begin = INT64_MAX, end = 0;
    uint64_t each = *pairs / (shards * callers);
    for (unsigned i = 0; i < shards; i++) {
        crowds[i].count = callers;
        crowds[i].pairs = each;
        require(corepool_shard_post(runtime, i, start_crowd, &crowds[i]), "post");
    }
    for (unsigned i = 0; i < shards; i++)
        while (sem_wait(&crowd_done) != 0)
            ;
    for (unsigned i = 0; i < shards; i++) {
        begin = crowds[i].begin < begin ? crowds[i].begin : begin;
        end = crowds[i].end > end ? crowds[i].end : end;
    }
    *pairs = each * callers * shards;
    return (double)(end - begin) * shards / (double)*pairs;
}

/* --- (b) threads that block --- */

struct blocker {
    pthread_t thread;
    int cpu;
    uint64_t pairs;
    int64_t begin, end;
};
static pthread_barrier_t together;

static void *block(void *arg)
{
    struct blocker *blocker = arg;
    corepool_lease_t lease;
    bench_pin(blocker->cpu);
    pthread_barrier_wait(&together);
    blocker->begin = bench_now_ns();
    for (uint64_t i = 0; i < blocker->pairs; i++) {
        require(corepool_checkout(pool, NULL, &lease), "checkout");
        require(corepool_checkin(&lease), "checkin");
    }
    blocker->end = bench_now_ns();
    return NULL;
}

static double time_threads(unsigned threads, uint64_t *pairs)
{
    static struct blocker blockers[MAX_CALLERS];
    unsigned cpus = bench_usable_cpus() < threads ? bench_usable_cpus() : threads;
    int64_t begin = INT64_MAX, end = 0;
    uint64_t each = *pairs / SLOWER / threads;
    pthread_barrier_init(&together, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        blockers[i] = (struct blocker){.cpu = bench_usable_cpu(i), .pairs = each};
        BENCH_REQUIRE(pthread_create(&blockers[i].thread, NULL, block, &blockers[i]) == 0, "cannot start thread %u", i);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(blockers[i].thread, NULL);
        begin = blockers[i].begin < begin ? blockers[i].begin : begin;
        end = blockers[i].end > end ? blockers[i].end : end;
    }
    pthread_barrier_destroy(&together);
    *pairs = each * threads;
    return (double)(end - begin) * cpus / (double)*pairs;
}

/* --- cases --- */

static struct load {
    const char *name;
    bool on_shards, on_all;
    unsigned callers; /* of a shard, or threads */
    double ns[MAX_ROUNDS];
} loads[] = {
    {.name = "1 caller on one shard", .on_shards = true, .callers = 1},
    {.name = "16 callers on one shard, 8 workers", .on_shards = true, .callers = 16},
    {.name = "1 caller on every shard", .on_shards = true, .on_all = true, .callers = 1},
    {.name = "16 callers on every shard, 8 workers each", .on_shards = true, .on_all = true, .callers = 16},
    {.name = "1 thread that blocks", .callers = 1},
    {.name = "2 threads that block", .callers = 2},
    {.name = "16 threads that block", .callers = 16},
};
#define LOADS (sizeof loads / sizeof loads[0])

static corepool_stats_t at_rest(void)
{
    corepool_stats_t stats;
    do
        require(corepool_pool_stats(pool, &stats), "stats");
    while (stats.idle < stats.quota);
    return stats;
}

static double measure(const struct load *load, uint64_t pairs)
{
    unsigned shards = load->on_all ? corepool_runtime_shards(runtime) : 1;
    uint64_t before = at_rest().checkouts;
    double ns = load->on_shards ? time_shards(shards, load->callers, &pairs) : time_threads(load->callers, &pairs);
    uint64_t counted = at_rest().checkouts - before;
    BENCH_REQUIRE(counted == pairs, "%s: %llu pairs run, %llu counted", load->name, (unsigned long long)pairs,
                  (unsigned long long)counted);
    return ns;
}

static void check_callbacks(uint64_t pairs)
{
    struct counts sum = {0, 0, 0};
    for (unsigned i = 0; i < MAX_SHARDS; i++) {
        sum.enqueued += counts[i].enqueued;
        sum.checked_out += counts[i].checked_out;
        sum.checked_in += counts[i].checked_in;
    }
    BENCH_REQUIRE(sum.enqueued == pairs && sum.checked_out == pairs && sum.checked_in == pairs,
                  "%llu pairs; the callbacks count %llu, %llu, %llu", (unsigned long long)pairs,
                  (unsigned long long)sum.enqueued, (unsigned long long)sum.checked_out,
                  (unsigned long long)sum.checked_in);
}

static void start(void)
{
    static const corepool_pool_options_t options = {.flags = COREPOOL_POOL_SERIALISED | COREPOOL_POOL_PER_SHARD};
    BENCH_REQUIRE(bench_usable_cpus() <= MAX_SHARDS, "for at most %d CPUs", MAX_SHARDS);
    BENCH_REQUIRE(sem_init(&crowd_done, 0, 0) == 0, "sem_init failed");
    require(corepool_runtime_start(NULL, &runtime), "start");
    require(corepool_pool_open(runtime, &cls, NULL, WORKERS, &options, &pool), "open");
}

static void end(void)
{
    uint64_t pairs = at_rest().checkouts;
    require(corepool_runtime_audit(runtime), "audit");
    require(corepool_runtime_stop(runtime, COREPOOL_INFINITE), "stop");
    require(corepool_runtime_destroy(runtime), "destroy");
    check_callbacks(pairs);
}

int main(int argc, char **argv)
{
    static const char usage[] = "serialised [ROUNDS (1 to 101) [PAIRS (10,000 to 10^9)]]";
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 11, 1, MAX_ROUNDS, usage);
    uint64_t pairs = bench_argument(argc, argv, 2, 1000000, 10000, 1000000000, usage);
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    start();
    unsigned shards = corepool_runtime_shards(runtime);
    for (unsigned round = 0; round < rounds; round++)
        for (struct load *load = loads; load < loads + LOADS; load++)
            load->ns[round] = measure(load, pairs);
    end();
    printf("%u shards, %u rounds of %llu pairs (%llu of threads that block)\n", shards, rounds, (unsigned long long)pairs,
           (unsigned long long)pairs / SLOWER);
    printf("  %-44s %12s %10s %10s\n", "", "ns/pair, CPU", "least", "most");
    for (struct load *load = loads; load < loads + LOADS; load++) {
        double median = bench_median(load->ns, rounds);
        printf("  %-44s %12.1f %10.1f %10.1f\n", load->name, median, load->ns[0], load->ns[rounds - 1]);
    }
    return 0;
}
