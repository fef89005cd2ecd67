/* bench/waiting.c: many threads, few resources, and work to be done with them: how much of the machine does that work, and
 * how long are the waits?
 *
 * A hold is work on the CPU, so whatever a pool spends on handing over, switching threads or letting a CPU lie idle is
 * missing from the useful share: the CPU time within holds, of all CPU time there was. Every CPU has its share of the
 * threads as of the resources; pinned, threads stay there; free, the kernel moves them about. Next to corepool, without
 * and with barging: the least that is fair (a bare hand-off), and two that let who comes by go first. Every round runs each
 * of them once; shares are medians over the rounds, waits are those of all rounds together (to 3 %), without the first moments
 * of a run; the last column is the median over the rounds that had 10,000 waits or more of p99.99/p50 in the round: one
 * disturbance from outside is in the last waits of all rounds together, but in one round only. In a virtual machine the
 * host may take a CPU away while everybody on it waits: how much of the CPUs it took is told next to the waits.
 * Usage: waiting [ROUNDS [MILLISECONDS [THREADS [BARGING_US]]]]; so long is a run with holds of 20 µs, one with longer holds
 * as many times as long, so that it has as many waits. */
#include "waiting.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define MAX_ROUNDS 101
#define MAX_THREADS 4096

struct resource resources[WAITING_RESOURCES_MAX];
unsigned waiting_barging_us;

static const struct contender *const contenders[] = {
    &waiting_corepool,
    &waiting_barging,
    &waiting_handoff,
    &waiting_condvar,
#ifdef BENCH_APR
    &waiting_apr,
#endif
};
#define CONTENDERS (sizeof contenders / sizeof contenders[0])

/* --- waits: a histogram, so that noting one allocates nothing --- */

#define STEPS_LOG 5 /* buckets per power of two: 32 */
#define BUCKETS (36 << STEPS_LOG) /* up to 2^40 ns */

struct waits {
    uint64_t count, most;
    uint32_t buckets[BUCKETS];
};

static unsigned bucket_of(uint64_t ns)
{
    unsigned power = ns >> (STEPS_LOG + 1) ? 63 - (unsigned)__builtin_clzll(ns) - STEPS_LOG : 0;
    unsigned bucket = (power << STEPS_LOG) + (unsigned)(ns >> power);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The largest of a bucket. */
static uint64_t limit_of(unsigned bucket)
{
    unsigned power = bucket >> (STEPS_LOG + 1) ? (bucket >> STEPS_LOG) - 1 : 0;
    return (((uint64_t)bucket - (power << STEPS_LOG) + 1) << power) - 1;
}

static void note(struct waits *waits, uint64_t ns)
{
    waits->count++;
    waits->most = ns > waits->most ? ns : waits->most;
    waits->buckets[bucket_of(ns)]++;
}

static void add(struct waits *to, const struct waits *from)
{
    to->count += from->count;
    to->most = from->most > to->most ? from->most : to->most;
    for (unsigned i = 0; i < BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

/* µs that all but one of `one_in` took at most. */
static double quantile(const struct waits *waits, uint64_t one_in)
{
    uint64_t left = waits->count - waits->count / one_in;
    unsigned i = 0;
    for (; i < BUCKETS - 1 && waits->buckets[i] < left; i++)
        left -= waits->buckets[i];
    uint64_t limit = limit_of(i);
    return (double)(limit < waits->most ? limit : waits->most) / 1e3;
}

/* --- holds --- */

/* A hold may be shorter than it should be by one part in so many: no further look at the clock for that. */
#define HOLD_EXACT 20

/* Turns of `spin` in a µs of CPU time, to begin with; each client goes by its own last hold from there on. */
static double first_speed;

/* One loop for calibration and holds: copies of it may lie at other places, and run at another speed. */
__attribute__((noinline)) static void spin(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++)
        __asm__ volatile("" ::: "memory");
}

static void calibrate(void)
{
    const uint64_t turns = 1000000;
    int64_t begin = bench_cpu_ns();
    spin(turns);
    first_speed = (double)turns * 1e3 / (double)(bench_cpu_ns() - begin);
}

/* Work for `ns` of CPU time, at whatever speed the machine has at that time: were it a number of turns instead, a slower moment
 * would make all waits longer, and look like a disturbance. *speed: turns in a µs; in and out. Returns the CPU time. */
static int64_t work(int64_t ns, double *speed)
{
    int64_t begin = bench_cpu_ns(), used = 0;
    while (used < ns - ns / HOLD_EXACT) {
        double turns = *speed * (double)(ns - used) / 1e3;
        spin((uint64_t)turns + 1);
        int64_t now = bench_cpu_ns() - begin;
        if (used == 0) /* what is left is too short to go by */
            *speed = turns * 1e3 / (double)now;
        used = now;
    }
    return used;
}

/* --- load --- */

struct load {
    bool pinned;
    unsigned per_cpu; /* resources of a CPU */
    unsigned hold_us;
};

struct client {
    pthread_t thread;
    int cpu; /* -1: free */
    double speed;
    uint64_t taken;
    /* Once all were there for a while. */
    int64_t useful; /* ns of CPU time within holds */
    struct waits waits;
};

/* The first threads find everything idle and nobody waiting: they run until the kernel takes the CPU away, and what the kernel
 * holds against them for that takes as long to be over. That is not waiting as it is under load. */
#define SETTLE_MS 150

static struct client *clients;
static pthread_barrier_t start;
static _Atomic bool settled;
static _Atomic int64_t end; /* when the run was over, by bench_now_ns; 0: it is not */
static const struct contender *contender;
static int64_t hold_ns;

/* Returns its CPU time. */
static int64_t hold(struct resource *resource, double *speed)
{
    BENCH_REQUIRE(resource->holders++ == 0, "%s: two have one resource", contender->name);
    int64_t used = work(hold_ns, speed);
    resource->uses++;
    resource->holders--;
    return used;
}

/* Of a wait; the end cuts it short, as from then on the load goes away and waits are no more what they are under it. */
static int64_t length(int64_t asked, int64_t taken)
{
    int64_t over = atomic_load(&end);
    return (over && over < taken ? over : taken) - asked;
}

static void *live(void *arg)
{
    struct client *client = arg;
    if (client->cpu >= 0)
        bench_pin(client->cpu);
    pthread_barrier_wait(&start);
    while (!atomic_load_explicit(&end, memory_order_relaxed)) {
        bool counts = atomic_load_explicit(&settled, memory_order_relaxed);
        int64_t asked = bench_now_ns();
        struct resource *resource = contender->take();
        int64_t waited = length(asked, bench_now_ns());
        bool over = atomic_load_explicit(&end, memory_order_relaxed);
        int64_t useful = hold(resource, &client->speed);
        contender->give(resource);
        client->taken++;
        if (!counts || waited < 0)
            continue;
        note(&client->waits, (uint64_t)waited);
        client->useful += over ? 0 : useful;
    }
    return NULL;
}

static void start_clients(unsigned threads, bool pinned)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    pthread_barrier_init(&start, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        clients[i] = (struct client){.cpu = pinned ? bench_usable_cpu(i) : -1, .speed = first_speed};
        BENCH_REQUIRE(pthread_create(&clients[i].thread, &small, live, &clients[i]) == 0, "cannot start thread %u", i);
    }
    pthread_attr_destroy(&small);
}

/* --- rounds --- */

struct outcome {
    double share[MAX_ROUNDS], to_handoff[MAX_ROUNDS];
    double holds; /* a second, of all rounds */
    double stolen; /* CPU time that the host took, of all that there was, of all rounds */
    struct waits waits;
    double spread[MAX_ROUNDS]; /* p99.99/p50 of the rounds with enough waits */
    unsigned spreads;
};

#define SHORT_HOLD_US 20 /* the command line's milliseconds are of a run with these */

/* So many waits have a p99.99. */
#define ENOUGH 10000

static uint64_t sum_uses(unsigned count)
{
    uint64_t uses = 0;
    for (unsigned i = 0; i < count; i++)
        uses += resources[i].uses;
    return uses;
}

static void sleep_ms(unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

/* Seconds of CPU time that the host of this virtual machine has given to others; 0 elsewhere. */
static double stolen_s(void)
{
    unsigned long long ticks = 0;
    FILE *file = fopen("/proc/stat", "r");
    BENCH_REQUIRE(file && fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks) == 1, "cannot read /proc/stat");
    fclose(file);
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Adds a run to the outcome; returns its useful share. */
static double run(const struct load *load, unsigned threads, unsigned short_ms, struct outcome *outcome)
{
    unsigned ms = short_ms * (load->hold_us / SHORT_HOLD_US);
    unsigned cpus = bench_usable_cpus();
    int64_t useful = 0;
    uint64_t taken = 0;
    static struct waits waits;
    memset(&waits, 0, sizeof waits);
    hold_ns = load->hold_us * INT64_C(1000);
    memset(resources, 0, sizeof resources);
    contender->open(cpus, load->per_cpu);
    atomic_store(&end, 0);
    atomic_store(&settled, false);
    start_clients(threads, load->pinned);
    pthread_barrier_wait(&start);
    sleep_ms(SETTLE_MS);
    double stolen = stolen_s();
    int64_t begin = bench_now_ns();
    atomic_store(&settled, true);
    sleep_ms(ms);
    double wall = (double)(bench_now_ns() - begin);
    outcome->stolen += (stolen_s() - stolen) * 1e9 / (cpus * wall);
    atomic_store(&end, begin + (int64_t)wall);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(clients[i].thread, NULL);
        useful += clients[i].useful;
        taken += clients[i].taken;
        add(&waits, &clients[i].waits);
    }
    pthread_barrier_destroy(&start);
    uint64_t uses = sum_uses(cpus * load->per_cpu);
    BENCH_REQUIRE(uses == taken && uses > 0, "%s: %llu uses, %llu takes", contender->name,
                  (unsigned long long)uses, (unsigned long long)taken);
    contender->close(uses);
    add(&outcome->waits, &waits);
    if (waits.count >= ENOUGH)
        outcome->spread[outcome->spreads++] = quantile(&waits, ENOUGH) / quantile(&waits, 2);
    outcome->holds += (double)waits.count / wall * 1e9;
    return (double)useful / (cpus * wall);
}

static void print_waits(struct outcome *outcome)
{
    const struct waits *waits = &outcome->waits;
    double middle = quantile(waits, 2), last = quantile(waits, ENOUGH);
    printf(" %9.1f %9.1f", middle, quantile(waits, 100));
    if (waits->count < ENOUGH)
        printf(" %11s %11.1f %11s", "-", (double)waits->most / 1e3, "-");
    else
        printf(" %11.1f %11.1f %11.3g", last, (double)waits->most / 1e3, last / middle);
    if (outcome->spreads)
        printf(" %11.3g\n", bench_median(outcome->spread, outcome->spreads));
    else
        printf(" %11s\n", "-");
}

static struct outcome *find(struct outcome *outcomes, const struct contender *one)
{
    for (unsigned i = 0; i < CONTENDERS; i++)
        if (contenders[i] == one)
            return &outcomes[i];
    return NULL;
}

/* Of the last waits. */
static void print_last(struct outcome *outcomes, const struct contender *one, const struct contender *other)
{
    const struct waits *ours = &find(outcomes, one)->waits, *theirs = &find(outcomes, other)->waits;
    if (ours->count >= ENOUGH && theirs->count >= ENOUGH)
        printf("; p99.99 to that of %s: %.3f", other->name, quantile(ours, ENOUGH) / quantile(theirs, ENOUGH));
}

static void print_ratios(struct outcome *outcomes, const struct contender *one, unsigned rounds)
{
    double *ratio = find(outcomes, one)->to_handoff, median = bench_median(ratio, rounds);
    printf("  %s: useful share to the hand-off's: %.3f (%.3f to %.3f)", one->name, median, ratio[0], ratio[rounds - 1]);
    print_last(outcomes, one, &waiting_condvar);
#ifdef BENCH_APR
    print_last(outcomes, one, &waiting_apr);
#endif
    printf("\n");
}

static void print(const struct load *load, struct outcome *outcomes, unsigned rounds)
{
    printf("\n%s, resources of a CPU: %u, holds of %u µs; waits in µs\n", load->pinned ? "pinned" : "free", load->per_cpu,
           load->hold_us);
    printf("  %-20s %8s %7s %7s %10s %8s %9s %9s %11s %11s %11s %11s\n", "", "useful", "least", "most", "holds/s", "stolen",
           "p50", "p99", "p99.99", "most", "p99.99/p50", "in a round");
    for (unsigned i = 0; i < CONTENDERS; i++) {
        double median = bench_median(outcomes[i].share, rounds);
        printf("  %-20s %8.3f %7.3f %7.3f %10.0f %8.4f", contenders[i]->name, median, outcomes[i].share[0],
               outcomes[i].share[rounds - 1], outcomes[i].holds / rounds, outcomes[i].stolen / rounds);
        print_waits(&outcomes[i]);
    }
    print_ratios(outcomes, &waiting_corepool, rounds);
    print_ratios(outcomes, &waiting_barging, rounds);
    fflush(stdout);
}

static void compare(const struct load *load, unsigned rounds, unsigned ms, unsigned threads)
{
    static struct outcome outcomes[CONTENDERS];
    memset(outcomes, 0, sizeof outcomes);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < CONTENDERS; i++) {
            contender = contenders[i];
            outcomes[i].share[round] = run(load, threads, ms, &outcomes[i]);
        }
        double least = find(outcomes, &waiting_handoff)->share[round];
        for (unsigned i = 0; i < CONTENDERS; i++)
            outcomes[i].to_handoff[round] = outcomes[i].share[round] / least;
    }
    print(load, outcomes, rounds);
}

int main(int argc, char **argv)
{
    static const char usage[] = "waiting [ROUNDS (1 to 101) [MILLISECONDS (10 to 6000) [THREADS (1 to 4096) "
                                "[BARGING_US (1 to 1000000)]]]]";
    static const struct load loads[] = {
        {true, 8, SHORT_HOLD_US}, {true, 8, 10 * SHORT_HOLD_US},
        {true, 1, SHORT_HOLD_US}, {true, 1, 10 * SHORT_HOLD_US},
        {false, 8, SHORT_HOLD_US}, {false, 8, 10 * SHORT_HOLD_US},
        {false, 1, SHORT_HOLD_US}, {false, 1, 10 * SHORT_HOLD_US},
    };
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 5, 1, MAX_ROUNDS, usage);
    unsigned ms = (unsigned)bench_argument(argc, argv, 2, 250, 10, 6000, usage);
    unsigned threads = (unsigned)bench_argument(argc, argv, 3, 64, 1, MAX_THREADS, usage);
    waiting_barging_us = (unsigned)bench_argument(argc, argv, 4, 50, 1, 1000000, usage);
    BENCH_REQUIRE(argc <= 5, "too many arguments; usage: %s", usage);
    BENCH_REQUIRE(bench_usable_cpus() <= WAITING_CPUS_MAX, "for at most %d CPUs", WAITING_CPUS_MAX);
    clients = calloc(threads, sizeof *clients);
    BENCH_REQUIRE(clients, "no memory for %u threads", threads);
    calibrate();
    printf("%u threads, %u CPUs, turns of %u µs with barging; %u rounds of %u ms with holds of %u µs\n", threads,
           bench_usable_cpus(), waiting_barging_us, rounds, ms, SHORT_HOLD_US);
#ifndef BENCH_APR
    printf("without apr_reslist: its library was not there when this was built\n");
#endif
    for (unsigned i = 0; i < sizeof loads / sizeof loads[0]; i++)
        compare(&loads[i], rounds, ms, threads);
    free(clients);
    return 0;
}
