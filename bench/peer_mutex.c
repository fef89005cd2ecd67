/* bench/peer_mutex.c: the free list that everyone writes first: a stack under a mutex, a condition for who must wait. */
#include <pthread.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource resources[PEER_RESOURCES];
static struct peer_resource *stack[PEER_RESOURCES];
static unsigned idle;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static unsigned waiting;

static bool open_peer(const char **why)
{
    (void)why;
    for (idle = 0; idle < PEER_RESOURCES; idle++) {
        resources[idle].touched = 0;
        stack[idle] = &resources[idle];
    }
    return true;
}

__attribute__((noinline)) static struct peer_resource *take(void)
{
    pthread_mutex_lock(&lock);
    waiting++;
    while (idle == 0)
        pthread_cond_wait(&given, &lock);
    waiting--;
    struct peer_resource *resource = stack[--idle];
    pthread_mutex_unlock(&lock);
    return resource;
}

__attribute__((noinline)) static void give(struct peer_resource *resource)
{
    pthread_mutex_lock(&lock);
    stack[idle++] = resource;
    if (waiting)
        pthread_cond_signal(&given);
    pthread_mutex_unlock(&lock);
}

static void run(uint64_t pairs)
{
    while (pairs--) {
        struct peer_resource *resource = take();
        resource->touched++;
        give(resource);
    }
}

static uint64_t close_peer(void)
{
    uint64_t touched = 0;
    BENCH_REQUIRE(idle == PEER_RESOURCES, "mutex: %u of %u resources came back", idle, PEER_RESOURCES);
    for (unsigned i = 0; i < PEER_RESOURCES; i++)
        touched += resources[i].touched;
    return touched;
}

const struct peer peer_mutex = {"mutex free list", open_peer, run, close_peer};
