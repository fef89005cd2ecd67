/* bench/waiting_handoff.c: the least that is fair: a free list per CPU, and a queue of those who wait for it, each asleep
 * on a futex word of its own. Who gives back hands the resource to the oldest of the queue and wakes it. No more than that:
 * no deadline, no cancelling, no worker that ends. */
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "waiting.h"

/* On its thread's stack while it waits. */
struct waiter {
    struct waiter *next;
    struct resource *granted; /* written before the word */
    _Atomic uint32_t word;    /* 1: granted */
};

/* Under its lock. */
struct list {
    pthread_mutex_t lock;
    struct resource *idle;
    struct waiter *first, **end;
    uint64_t taken;
} __attribute__((aligned(64)));

static struct list lists[WAITING_CPUS_MAX];
static unsigned list_of[CPU_SETSIZE]; /* by CPU */
static unsigned open_cpus, open_per_cpu;

static void open_lists(unsigned cpus, unsigned per_cpu)
{
    open_cpus = cpus;
    open_per_cpu = per_cpu;
    for (unsigned i = 0; i < cpus; i++) {
        struct list *list = &lists[i];
        pthread_mutex_init(&list->lock, NULL);
        list->idle = NULL;
        list->end = &list->first;
        list->taken = 0;
        list_of[bench_usable_cpu(i)] = i;
    }
    for (unsigned i = 0; i < cpus * per_cpu; i++) {
        struct list *list = &lists[i % cpus];
        resources[i].home = i % cpus;
        resources[i].next = list->idle;
        list->idle = &resources[i];
    }
}

static struct resource *wait_in(struct list *list)
{
    struct waiter self = {.next = NULL};
    *list->end = &self;
    list->end = &self.next;
    pthread_mutex_unlock(&list->lock);
    /* Acquire pairs with the release in give. */
    while (!atomic_load_explicit(&self.word, memory_order_acquire))
        syscall(SYS_futex, &self.word, FUTEX_WAIT_PRIVATE, 0, NULL);
    return self.granted;
}

static struct resource *take(void)
{
    struct list *list = &lists[list_of[sched_getcpu()]];
    pthread_mutex_lock(&list->lock);
    list->taken++;
    struct resource *resource = list->idle;
    if (!resource)
        return wait_in(list);
    list->idle = resource->next;
    pthread_mutex_unlock(&list->lock);
    return resource;
}

/* The waiter may run on, and its word be gone, as soon as that is set: the wake-up then finds nobody there, or one who
 * looks at its word again. */
static void hand_to(struct waiter *waiter, struct resource *resource)
{
    _Atomic uint32_t *word = &waiter->word;
    waiter->granted = resource;
    atomic_store_explicit(word, 1, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1);
}

static void give(struct resource *resource)
{
    struct list *list = &lists[resource->home];
    pthread_mutex_lock(&list->lock);
    struct waiter *waiter = list->end == &list->first ? NULL : list->first;
    if (waiter) {
        list->first = waiter->next;
        if (list->end == &waiter->next)
            list->end = &list->first;
    } else {
        resource->next = list->idle;
        list->idle = resource;
    }
    pthread_mutex_unlock(&list->lock);
    if (waiter)
        hand_to(waiter, resource);
}

static void close_lists(uint64_t uses)
{
    uint64_t taken = 0;
    for (unsigned i = 0; i < open_cpus; i++) {
        unsigned idle = 0;
        for (struct resource *at = lists[i].idle; at; at = at->next)
            idle++;
        BENCH_REQUIRE(idle == open_per_cpu && lists[i].end == &lists[i].first, "%u resources of %u are back", idle,
                      open_per_cpu);
        taken += lists[i].taken;
        pthread_mutex_destroy(&lists[i].lock);
    }
    BENCH_REQUIRE(taken == uses, "the lists count %llu", (unsigned long long)taken);
}

const struct contender waiting_handoff = {"bare futex hand-off", open_lists, take, give, close_lists};
