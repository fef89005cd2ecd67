/* bench/layers/layers.c: rounds, threads and the watch. See layers.h.
 *
 * Allocations are counted by standing in for malloc. System calls are caught by the kernel's dispatch to user space
 * (prctl PR_SET_SYSCALL_USER_DISPATCH): one byte of the thread says whether a call is delivered as SIGSYS instead of being
 * made, so watching costs what is timed nothing. */
#include "layers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* linux/prctl.h and linux/syscall_user_dispatch.h; older headers of the C library are without. */
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif
enum { DISPATCH_ALLOW, DISPATCH_BLOCK };

#define THREADS_MAX 64

/* --- the watch --- */

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);

static _Thread_local unsigned long allocations, allocations_before;
static _Thread_local volatile char dispatch; /* read by the kernel at every system call of the thread */
static _Thread_local bool watched;
static bool can_watch;

void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    allocations++;
    return __libc_realloc(memory, bytes);
}

/* In a signal handler that nobody returns from: returning is a system call, too. */
static void on_system_call(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    char words[80];
    dispatch = DISPATCH_ALLOW;
    int length = snprintf(words, sizeof words, "bench: system call %d in what is timed\n", info->si_syscall);
    _exit(write(STDERR_FILENO, words, (size_t)length) < 0 ? 2 : 1);
}

/* Of the calling thread; false: the kernel is older than 5.11. */
static bool watch_thread(void)
{
    watched = prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0L, 0L, &dispatch) == 0;
    return watched;
}

static void open_watch(void)
{
    struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO};
    BENCH_REQUIRE(sigaction(SIGSYS, &action, NULL) == 0, "sigaction failed");
    can_watch = watch_thread();
}

int64_t layer_begin(bool quiet)
{
    if (quiet && can_watch && !watched)
        BENCH_REQUIRE(watch_thread(), "cannot watch a thread");
    allocations_before = allocations;
    int64_t begin = bench_now_ns();
    dispatch = quiet && can_watch ? DISPATCH_BLOCK : DISPATCH_ALLOW;
    return begin;
}

int64_t layer_end(int64_t begin)
{
    dispatch = DISPATCH_ALLOW;
    int64_t ns = bench_now_ns() - begin;
    BENCH_REQUIRE(allocations == allocations_before, "%lu allocations in what is timed", allocations - allocations_before);
    return ns;
}

/* --- threads --- */

struct member {
    pthread_t thread;
    unsigned number;
    int cpu;
    int64_t begin, end;
};

static struct {
    pthread_barrier_t barrier;
    void (*body)(unsigned number, void *arg);
    void *arg;
} team;
static _Thread_local struct member *self;

void layer_meet(void)
{
    pthread_barrier_wait(&team.barrier);
    self->begin = bench_now_ns();
}

static void *take_part(void *arg)
{
    self = arg;
    bench_pin(self->cpu);
    team.body(self->number, team.arg);
    self->end = bench_now_ns();
    return NULL;
}

int64_t layer_threads(unsigned threads, unsigned per_cpu, void (*body)(unsigned number, void *arg), void *arg)
{
    static struct member members[THREADS_MAX];
    int64_t begin = INT64_MAX, end = 0;
    BENCH_REQUIRE(threads <= THREADS_MAX, "too many threads");
    team.body = body;
    team.arg = arg;
    pthread_barrier_init(&team.barrier, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        members[i] = (struct member){.number = i, .cpu = bench_usable_cpu(i / per_cpu)};
        BENCH_REQUIRE(pthread_create(&members[i].thread, NULL, take_part, &members[i]) == 0, "cannot start thread %u", i);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(members[i].thread, NULL);
        begin = members[i].begin < begin ? members[i].begin : begin;
        end = members[i].end > end ? members[i].end : end;
    }
    pthread_barrier_destroy(&team.barrier);
    return end - begin;
}

/* --- rounds --- */

static void print_case(struct layer_case *one, unsigned rounds)
{
    char steps[16] = "";
    if (one->without) {
        printf("  %-52s %10s   %s\n", one->name, "-", one->without);
        return;
    }
    if (one->steps > 0)
        snprintf(steps, sizeof steps, "%g", one->steps);
    double median = bench_median(one->ns, rounds);
    printf("  %-52s %10.2f %10.2f %10.2f %8s\n", one->name, median, one->ns[0], one->ns[rounds - 1], steps);
}

int layer_main(int argc, char **argv, const char *title, struct layer_case *cases, unsigned count,
               uint64_t operations)
{
    static const char usage[] = "[ROUNDS (1 to 101) [OPERATIONS (1,000 to 10^9)]]";
    unsigned rounds = (unsigned)bench_argument(argc, argv, 1, 11, 1, LAYER_ROUNDS_MAX, usage);
    operations = bench_argument(argc, argv, 2, operations, 1000, 1000000000, usage);
    BENCH_REQUIRE(argc <= 3, "too many arguments; usage: %s", usage);
    open_watch();
    bench_pin(bench_usable_cpu(0));
    for (unsigned round = 0; round < rounds; round++)
        for (struct layer_case *one = cases; one < cases + count; one++)
            if (!one->without)
                one->ns[round] = one->run(operations / (one->dearer ? one->dearer : 1), one->arg);
    printf("%s; %u rounds of %llu operations\n", title, rounds, (unsigned long long)operations);
    printf("  no allocation in any; system calls of those with no waiting in them: %s\n",
           can_watch ? "none" : "not watched, the kernel is too old");
    printf("  %-52s %10s %10s %10s %8s\n", "", "ns", "least", "most", "steps");
    for (struct layer_case *one = cases; one < cases + count; one++)
        print_case(one, rounds);
    return 0;
}
