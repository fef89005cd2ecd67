/* workers/http_call.c: a thread's cache of calls, so that a request in steady state allocates nothing.
 *
 * A call is taken, used, and given back, on whatever thread that is. Thread: any, each has its own cache; it
 * ends with the thread. */
#include "workers/http.h"

#include <pthread.h>

#include "base/assert.h"
#include "base/error.h"

/* Enough for the requests that are under way at once on a busy shard; beyond it, malloc is not the
 * bottleneck. */
#define CACHE_CALLS 256
/* Room that a cached buffer may keep: most pages fit, and a full cache stays a few tens of megabytes. */
#define CACHE_BUFFER_BYTES 65536

struct cache {
    struct cp_http_call *free;
    unsigned count;
    bool registered; /* at_thread_exit will run */
};

static _Thread_local struct cache cache cp_initial_exec;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_key; /* written once, under `once` */

static void destroy(struct cp_http_call *call)
{
    cp_reply_finish(&call->reply);
    cp_bytes_finish(&call->head);
    cp_bytes_finish(&call->copy);
    free(call);
}

/* The value is the exiting thread's cache; a call given back later in the exit registers it again. */
static void at_thread_exit(void *value)
{
    struct cache *mine = value;
    while (mine->free) {
        struct cp_http_call *call = mine->free;
        mine->free = call->next_free;
        destroy(call);
    }
    *mine = (struct cache){0};
}

static void make_key(void)
{
    has_key = pthread_key_create(&key, at_thread_exit) == 0;
}

/* Without a destructor nothing is cached: better slow than leaking. */
static bool is_registered(void)
{
    if (!cache.registered) {
        pthread_once(&once, make_key);
        cache.registered = has_key && pthread_setspecific(key, &cache) == 0;
    }
    return cache.registered;
}

struct cp_http_call *cp_http_call_take(void)
{
    struct cp_http_call *call = cache.free;
    if (call) {
        cache.free = call->next_free;
        cache.count--;
        return call;
    }
    call = calloc(1, sizeof *call);
    if (!call)
        cp_fail(COREPOOL_ENOMEM, "request: out of memory");
    return call;
}

void cp_http_call_give(struct cp_http_call *call)
{
    if (!call)
        return;
    if (cache.count == CACHE_CALLS || !is_registered()) {
        destroy(call);
        return;
    }
    cp_reply_clear(&call->reply, CACHE_BUFFER_BYTES);
    cp_bytes_clear(&call->head, CACHE_BUFFER_BYTES);
    cp_bytes_clear(&call->copy, CACHE_BUFFER_BYTES);
    call->next_free = cache.free;
    cache.free = call;
    cache.count++;
}
