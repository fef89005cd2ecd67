/* bench/pair.c: what a checkout and checkin cost where a worker is idle, next to what users would take instead.
 *
 * Every round runs each peer once, so that a change of the machine's speed hits all alike; figures are medians over the
 * rounds. Each run checks its own counts before its time is used. Usage: pair [ROUNDS [PAIRS]]. */
#include <alloca.h>
#include <pthread.h>
#include <unistd.h>

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

/* A peer whose threads all spin while one of them is preempted in the wrong place: with more of them than CPUs that may last
 * for minutes. */
static bool is_left_out(const struct peer *peer, unsigned threads)
{
#ifdef BENCH_CK
    return peer == &peer_ck_ring && threads > (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
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
    if (!peer->open(PEER_RESOURCES, threads, &why)) {
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
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned busy = threads < (unsigned)cpus ? threads : (unsigned)cpus;
    return (double)(end - begin) * busy / (double)(pairs / threads * threads);
}

static void compare(unsigned threads, bool pinned, unsigned rounds, uint64_t pairs)
{
    static double ns[PEERS][MAX_ROUNDS], ratio[PEERS][MAX_ROUNDS], ours[PEERS][MAX_ROUNDS];
    unsigned corepool = 0;
    while (peers[corepool] != &peer_corepool_rseq)
        corepool++;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned p = 0; p < PEERS; p++)
            ns[p][round] = is_left_out(peers[p], threads) ? -1 : time_peer(peers[p], threads, pinned, pairs);
        for (unsigned p = 0; p < PEERS; p++) {
            ratio[p][round] = ns[p][round] / ns[0][round];
            ours[p][round] = ns[p][round] / ns[corepool][round];
        }
    }
    printf("\n%u %s thread%s, %u rounds of %llu pairs\n", threads, pinned ? "pinned" : "free", threads > 1 ? "s" : "",
           rounds, (unsigned long long)pairs);
    printf("  %-26s %10s %10s %10s %10s %10s\n", "", "ns/pair", "least", "most", "to first", "to rseq");
    for (unsigned p = 0; p < PEERS; p++) {
        double median = bench_median(ns[p], rounds);
        if (median < 0)
            printf("  %-26s %10s\n", peers[p]->name, "-");
        else
            printf("  %-26s %10.2f %10.2f %10.2f %10.2f %10.2f\n", peers[p]->name, median, ns[p][0], ns[p][rounds - 1],
                   bench_median(ratio[p], rounds), bench_median(ours[p], rounds));
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 11;
    uint64_t pairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 5000000;
    BENCH_REQUIRE(rounds >= 1 && rounds <= MAX_ROUNDS && pairs >= 1000, "usage: pair [ROUNDS (1 to %d) [PAIRS (1000 or more)]]",
                  MAX_ROUNDS);
    compare(1, true, rounds, pairs);
    compare((unsigned)sysconf(_SC_NPROCESSORS_ONLN), true, rounds, pairs);
    compare(16, false, rounds, pairs);
    return 0;
}
