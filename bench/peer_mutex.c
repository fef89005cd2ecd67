/* bench/peer_mutex.c: the free list that everyone writes first: a stack under a mutex, a condition for who must wait. */
#include <pthread.h>

#include "bench.h"
#include "peers.h"

static struct peer_resource *resources;
static struct peer_resource **stack;
static unsigned idle, all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given = PTHREAD_COND_INITIALIZER;
static unsigned waiting;

static bool open_peer(unsigned count, unsigned threads, const char **why)
{
    (void)threads;
    resources = peer_allocate(count);
    stack = calloc(count, sizeof(struct peer_resource *));
    if (!resources || !stack) {
        *why = "out of memory";
        free(resources);
        free(stack);
        return false;
    }
    for (idle = 0; idle < count; idle++)
        stack[idle] = &resources[idle];
    all = count;
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
    BENCH_REQUIRE(idle == all, "mutex: %u of %u resources came back", idle, all);
    uint64_t touched = peer_sum(resources, all);
    free(resources);
    free(stack);
    return touched;
}

const struct peer peer_mutex = {.name = "mutex free list", .open = open_peer, .enter = peer_no_thread,
                                .leave = peer_no_thread, .take = take, .give = give, .run = run,
                                .close = close_peer};
