/* bench/waiting_condvar.c: one lock, one free list and one condition variable, which is what one would write. Who comes by
 * when a resource has been given back takes it, and whom that was meant for waits on. */
#include <pthread.h>

#include "bench.h"
#include "waiting.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static struct resource *idle;
static unsigned all;
static uint64_t taken;

static void open_list(unsigned cpus, unsigned per_cpu)
{
    all = cpus * per_cpu;
    taken = 0;
    idle = NULL;
    for (unsigned i = 0; i < all; i++) {
        resources[i].next = idle;
        idle = &resources[i];
    }
}

static struct resource *take(void)
{
    pthread_mutex_lock(&lock);
    while (!idle)
        pthread_cond_wait(&given, &lock);
    struct resource *resource = idle;
    idle = resource->next;
    taken++;
    pthread_mutex_unlock(&lock);
    return resource;
}

static void give(struct resource *resource)
{
    pthread_mutex_lock(&lock);
    resource->next = idle;
    idle = resource;
    pthread_cond_signal(&given);
    pthread_mutex_unlock(&lock);
}

static void close_list(uint64_t uses)
{
    unsigned back = 0;
    for (struct resource *at = idle; at; at = at->next)
        back++;
    BENCH_REQUIRE(back == all && taken == uses, "condvar: %u resources of %u are back, %llu counted", back, all,
                  (unsigned long long)taken);
}

const struct contender waiting_condvar = {"mutex and condvar", open_list, take, give, close_list};
