/* bench/pair.c: what a checkout and checkin cost where a worker is idle, next to what users would take instead.
 *
 * Every round runs each peer once, so that a change of the machine's speed hits all alike; figures are medians over the
 * rounds. Each run checks its own counts before its time is used. Of peers marked * each thread has resources of its own, more
 * than the others may have: they are a floor. Usage: pair [ROUNDS [PAIRS]]. */
#include <alloca.h>
#include <pthread.h>

#include "bench.h"
#include "peers.h"

#define MAX_ROUNDS 101
#define MAX_THREADS 64

static const struct peer *const peers[] = {
#ifdef BENCH_DPDK
    &peer_dpdk,
#endif
    &peer_corepool_rseq,
    &peer_corepool_inline,
    &peer_corepool_portable,
    &peer_mutex,
#ifdef BENCH_APR
    &peer_apr,
#endif
#ifdef BENCH_CK
    &peer_ck_stack,
    &peer_ck_ring,
#endif
    &peer_local,
};
#define PEERS (sizeof peers / sizeof peers[0])

struct worker {
    pthread_t thread;
    pthread_barrier_t *barrier;
    const struct peer *peer;
    uint64_t pairs;
    unsigned index;
    int cpu; /* -1: free */
    int64_t begin, end;
};

/* Threads' stacks begin at multiples of a large power of two, so what two of them have innermost may compete for the same
 * place in a cache that their CPUs share. Each thread begins so much further in. */
#define STACK_STEP 1088

static void *work(void *arg)
{
    struct worker *worker = arg;
    volatile char *apart = alloca((worker->index + 1) * STACK_STEP);
    apart[0] = 0;
    if (worker->cpu >= 0)
        bench_pin(worker->cpu);
    worker->peer->enter();
    worker->peer->run(1000); /* caches and thread records */
    pthread_barrier_wait(worker->barrier);
    worker->begin = bench_now_ns();
    worker->peer->run(worker->pairs);
    worker->end = bench_now_ns();
    worker->peer->leave();
    return NULL;
}

static unsigned resources(void)
{
    unsigned count = PEER_RESOURCES_PER_CPU * bench_usable_cpus();
    return count > PEER_RESOURCES ? count : PEER_RESOURCES;
}

/* A peer whose threads all spin while one of them is preempted in the wrong place: with more of them than CPUs that may last
 * for minutes. */
static bool is_left_out(const struct peer *peer, unsigned threads)
{
#ifdef BENCH_CK
    return peer == &peer_ck_ring && threads > bench_usable_cpus();
#else
    (void)peer, (void)threads;
    return false;
#endif
}

/* ns of CPU per pair: wall time of the whole, times the CPUs that were busy, over all pairs. */
static double time_peer(const struct peer *peer, unsigned threads, bool pinned, uint64_t pairs)
{
    static struct worker workers[MAX_THREADS];
    pthread_barrier_t barrier;
    const char *why = "";
    int64_t begin = INT64_MAX, end = 0;
    if (!peer->open(resources(), threads, &why)) {
        fprintf(stderr, "bench: without %s: %s\n", peer->name, why);
        return -1;
    }
    pthread_barrier_init(&barrier, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (struct worker){.barrier = &barrier, .peer = peer, .pairs = pairs / threads, .index = i,
                                     .cpu = pinned ? bench_usable_cpu(i) : -1};
        BENCH_REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "cannot start thread %u", i);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        begin = workers[i].begin < begin ? workers[i].begin : begin;
        end = workers[i].end > end ? workers[i].end : end;
    }
    pthread_barrier_destroy(&barrier);
    uint64_t done = (pairs / threads + 1000) * threads;
    uint64_t touched = peer->close();
    BENCH_REQUIRE(touched == done, "%s: %llu pairs run, %llu counted", peer->name, (unsigned long long)done,
                  (unsigned long long)touched);
    unsigned busy = threads < bench_usable_cpus() ? threads : bench_usable_cpus();
    return (double)(end - begin) * busy / (double)(pairs / threads * threads);
}

/* Medians of the rounds; those of the ratios are of each round's own. */
struct figures {
    double ns[MAX_ROUNDS], to_first[MAX_ROUNDS], to_ours[MAX_ROUNDS];
};

static void print_row(const struct peer *peer, struct figures *figures, unsigned rounds)
{
    double median = bench_median(figures->ns, rounds), first = bench_median(figures->to_first, rounds),
           ours = bench_median(figures->to_ours, rounds);
    if (median < 0)
        printf("  %-26s %10s\n", peer->name, "-");
    else
        printf("  %-24s %c %10.2f %10.2f %10.2f %10.2f %10.2f\n", peer->name, peer->floor ? '*' : ' ', median,
               figures->ns[0], figures->ns[rounds - 1], first, ours);
}

/* 0 where there is none: nobody was measured to compare with. */
static double ratio(double ns, double to)
{
    return to > 0 ? ns / to : 0;
}

static void compare(unsigned threads, bool pinned, unsigned rounds, uint64_t pairs)
{
    static struct figures figures[PEERS];
    unsigned corepool = 0;
    while (peers[corepool] != &peer_corepool_rseq)
        corepool++;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned p = 0; p < PEERS; p++)
            figures[p].ns[round] = is_left_out(peers[p], threads) ? -1 : time_peer(peers[p], threads, pinned, pairs);
        for (unsigned p = 0; p < PEERS; p++) {
            figures[p].to_first[round] = ratio(figures[p].ns[round], figures[0].ns[round]);
            figures[p].to_ours[round] = ratio(figures[p].ns[round], figures[corepool].ns[round]);
        }
    }
    printf("\n%u %s thread%s, %u rounds of %llu pairs\n", threads, pinned ? "pinned" : "free", threads > 1 ? "s" : "",
           rounds, (unsigned long long)pairs);
    printf("  %-26s %10s %10s %10s %10s %10s\n", "", "ns/pair", "least", "most", "to first", "to rseq");
    for (unsigned p = 0; p < PEERS; p++)
        print_row(peers[p], &figures[p], rounds);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char usage[] = "pair [ROUNDS (1 to 101) [PAIRS (1,000 to 10^10)]]";
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 11, 1, MAX_ROUNDS, usage);
    uint64_t pairs = bench_argument(argc, argv, 2, 5000000, 1000, UINT64_C(10000000000), usage);
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    BENCH_REQUIRE(bench_usable_cpus() <= MAX_THREADS, "for at most %d CPUs", MAX_THREADS);
    compare(1, true, rounds, pairs);
    compare(bench_usable_cpus(), true, rounds, pairs);
    compare(16, false, rounds, pairs);
    return 0;
}
