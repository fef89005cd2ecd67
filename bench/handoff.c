/* bench/handoff.c: what it takes to hand the only worker to the thread that is parked for it, on one CPU.
 *
 * Two threads pinned to that CPU take turns: whoever gives the worker back asks again at once, and waits, while the other,
 * which was parked, has it. Next to it the least that this can cost: two threads that wake each other, each with a futex word
 * of its own. Every round runs both, once each; the ratio is the median over the rounds of corepool's to the bare one's
 * of the same round.
 *
 * Who has the worker lets the other come first, if that does not wait for it yet. Still the kernel may let a thread run on
 * before the other's request is known, and it then takes the worker again: it makes sure before it gives it back once more.
 * Only hand-offs count, most takes must be some; under a real-time priority (chrt -f 10) nearly all are.
 * Usage: handoff [ROUNDS [TAKES]]. */
#include <corepool.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

#define MAX_ROUNDS 101
#define NOBODY 2

/* --- corepool: one shard, one worker --- */

static corepool_runtime_t *runtime;
static corepool_pool_t pool;
static corepool_lease_t leases[2];

static int init(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t cls = {.name = "nothing", .init = init};

static void pool_open(int cpu)
{
    char cpus[16];
    snprintf(cpus, sizeof cpus, "%d", cpu);
    const corepool_runtime_options_t options = {.cpus = cpus};
    BENCH_REQUIRE(corepool_runtime_start(&options, &runtime) == COREPOOL_OK &&
                      corepool_pool_open(runtime, &cls, NULL, 1, NULL, &pool) == COREPOOL_OK,
                  "%s", corepool_error_detail());
}

static corepool_stats_t pool_stats(void)
{
    corepool_stats_t stats;
    BENCH_REQUIRE(corepool_pool_stats(pool, &stats) == COREPOOL_OK, "stats: %s", corepool_error_detail());
    return stats;
}

static void pool_take(unsigned me)
{
    static const corepool_checkout_options_t patient = {.timeout_ms = COREPOOL_INFINITE};
    BENCH_REQUIRE(corepool_checkout(pool, &patient, &leases[me]) == COREPOOL_OK, "%s", corepool_error_detail());
}

static void pool_give(unsigned me)
{
    BENCH_REQUIRE(corepool_checkin(&leases[me]) == COREPOOL_OK, "%s", corepool_error_detail());
}

static uint64_t pool_handoffs(void)
{
    return pool_stats().grants;
}

static bool pool_has_waiter(void)
{
    return pool_stats().waiting != 0;
}

static void pool_close(uint64_t takes)
{
    corepool_stats_t stats = pool_stats();
    BENCH_REQUIRE(stats.checkouts == takes, "%llu takes, %llu checkouts counted", (unsigned long long)takes,
                  (unsigned long long)stats.checkouts);
    BENCH_REQUIRE(corepool_runtime_audit(runtime) == COREPOOL_OK &&
                      corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
                      corepool_runtime_destroy(runtime) == COREPOOL_OK,
                  "%s", corepool_error_detail());
}

/* --- bare: whose word is 1 has the turn --- */

static _Atomic uint32_t words[2];
static uint64_t bare_takes;

static void bare_take(unsigned me)
{
    while (atomic_load(&words[me]) == 0)
        syscall(SYS_futex, &words[me], FUTEX_WAIT_PRIVATE, 0, NULL);
    atomic_store(&words[me], 0);
    bare_takes++;
}

static void bare_give(unsigned me)
{
    atomic_store(&words[!me], 1);
    syscall(SYS_futex, &words[!me], FUTEX_WAKE_PRIVATE, 1);
}

static uint64_t bare_handoffs(void)
{
    return bare_takes;
}

static bool bare_has_waiter(void)
{
    return false; /* not asked: none takes twice */
}

/* --- turns --- */

static const struct contender {
    const char *name;
    void (*take)(unsigned me);
    void (*give)(unsigned me);
    uint64_t (*handoffs)(void); /* so far */
    bool (*has_waiter)(void);   /* now, for certain */
} contenders[] = {
    {"bare futex hand-off", bare_take, bare_give, bare_handoffs, bare_has_waiter},
    {"corepool", pool_take, pool_give, pool_handoffs, pool_has_waiter},
};
#define CONTENDERS (sizeof contenders / sizeof contenders[0])

struct player {
    pthread_t thread;
    unsigned me;
    int cpu;
    uint64_t turns;
};

static const struct contender *contender;
static _Atomic bool asks[2]; /* is about to wait, or has done so */
static _Atomic bool over[2]; /* has had all its turns */
static unsigned holders;     /* written by who holds the worker, as the next: never two */
static unsigned last;        /* who had it before */
static int64_t begin;        /* when the first was about to give it back */

static bool is_awaited(unsigned other, bool again)
{
    return atomic_load(&over[other]) || (atomic_load(&asks[other]) && (!again || contender->has_waiter()));
}

static void hold(unsigned me)
{
    BENCH_REQUIRE(holders++ == 0, "%s: two have the worker", contender->name);
    atomic_store(&asks[me], false);
    while (!is_awaited(!me, last == me))
        sched_yield();
    if (last == NOBODY)
        begin = bench_now_ns();
    last = me;
    holders--;
}

static void *play(void *arg)
{
    const struct player *player = arg;
    bench_pin(player->cpu);
    for (uint64_t n = 0; n < player->turns; n++) {
        atomic_store(&asks[player->me], true);
        contender->take(player->me);
        hold(player->me);
        contender->give(player->me);
    }
    atomic_store(&over[player->me], true);
    return NULL;
}

/* ns of one hand-off; *share: of the takes that were such. */
static double measure(int cpu, uint64_t turns, double *share)
{
    static struct player players[2];
    uint64_t before = contender->handoffs();
    last = NOBODY;
    atomic_store(&words[0], 1);
    atomic_store(&words[1], 0);
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&asks[i], false);
        atomic_store(&over[i], false);
    }
    for (unsigned i = 0; i < 2; i++) {
        players[i] = (struct player){.me = i, .cpu = cpu, .turns = turns / 2};
        BENCH_REQUIRE(pthread_create(&players[i].thread, NULL, play, &players[i]) == 0, "cannot start a thread");
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(players[i].thread, NULL);
    int64_t end = bench_now_ns();
    uint64_t handoffs = contender->handoffs() - before;
    BENCH_REQUIRE(handoffs <= turns && handoffs > turns / 2, "%s: %llu takes of %llu were hand-offs", contender->name,
                  (unsigned long long)handoffs, (unsigned long long)turns);
    *share = (double)handoffs / (double)turns;
    return (double)(end - begin) / (double)handoffs;
}

int main(int argc, char **argv)
{
    static const char usage[] = "handoff [ROUNDS (1 to 101) [TAKES (100 to 10^8)]]";
    static double ns[CONTENDERS][MAX_ROUNDS], share[CONTENDERS][MAX_ROUNDS], ratio[MAX_ROUNDS];
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 21, 1, MAX_ROUNDS, usage);
    uint64_t turns = bench_argument(argc, argv, 2, 20000, 100, 100000000, usage) / 2 * 2;
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    int cpu = bench_usable_cpu(0);
    pool_open(cpu);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < CONTENDERS; i++) {
            contender = &contenders[i];
            ns[i][round] = measure(cpu, turns, &share[i][round]);
        }
        ratio[round] = ns[1][round] / ns[0][round];
    }
    pool_close(rounds * turns);
    printf("2 threads on CPU %d, 1 worker; %u rounds of %llu takes; ns of a hand-off\n", cpu, rounds,
           (unsigned long long)turns);
    printf("  %-20s %10s %10s %10s %16s\n", "", "median", "least", "most", "takes that were");
    for (unsigned i = 0; i < CONTENDERS; i++) {
        double median = bench_median(ns[i], rounds);
        printf("  %-20s %10.0f %10.0f %10.0f %15.2f%%\n", contenders[i].name, median, ns[i][0], ns[i][rounds - 1],
               100 * bench_median(share[i], rounds));
    }
    double median = bench_median(ratio, rounds);
    printf("  corepool's to the bare one's: %.2f (%.2f to %.2f)\n", median, ratio[0], ratio[rounds - 1]);
    return 0;
}
