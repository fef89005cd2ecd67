/* front/watchdog.c: looks from time to time at what each shard is doing, and tells of what takes too long.
 *
 * It exists only where stall_ms is set. It looks eight times in that time, so a stall is reported by at most an eighth of
 * it late. While it tells, it holds its lock: a slice passes there before it is gone, so what is told of is still there. */
#include "front/watchdog.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/condition.h"
#include "base/error.h"

#define LOOKS 8
#define INTERVAL_MIN_NS CP_NS_PER_MS

static _Thread_local bool is_watchdog;

struct cp_watchdog {
    /* Fixed. */
    struct corepool_runtime *runtime;
    int64_t limit_ns;
    corepool_stall_cb on_stall;
    void *arg;
    char name[16];
    pthread_t thread;
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t ends;
    bool is_over;
    /* The thread's. */
    struct cp_stall stalls[]; /* [shards] */
};

static void tell(struct cp_watchdog *watchdog, unsigned shard, const struct cp_sighting *seen, int64_t stalled_ns)
{
    int64_t ms = stalled_ns / CP_NS_PER_MS;
    const char *text = cp_callback_text(seen->what);
    if (seen->slice)
        cp_slice_tell(seen->slice,
                      &(corepool_event_t){.kind = COREPOOL_EVENT_STALL, .text = text, .duration_ms = ms});
    if (watchdog->on_stall)
        watchdog->on_stall(shard, seen->slice ? seen->slice->config.name : NULL, text, ms, watchdog->arg);
}

/* Under the lock: a callback that is seen running stays one of a slice that exists. */
static void look(struct cp_watchdog *watchdog)
{
    for (unsigned i = 0; i < watchdog->runtime->shards; i++) {
        struct cp_sighting seen = cp_mark_look(&watchdog->runtime->shard[i].mark);
        int64_t stalled = cp_stall_judge(&watchdog->stalls[i], seen.entry, watchdog->limit_ns, cp_now_ns());
        if (stalled)
            tell(watchdog, i, &seen, stalled);
    }
}

static void *watch(void *arg)
{
    struct cp_watchdog *watchdog = arg;
    int64_t interval = watchdog->limit_ns / LOOKS < INTERVAL_MIN_NS ? INTERVAL_MIN_NS : watchdog->limit_ns / LOOKS;
    is_watchdog = true;
    pthread_setname_np(pthread_self(), watchdog->name); /* a name is no reason to fail */
    pthread_mutex_lock(&watchdog->lock);
    while (!watchdog->is_over) {
        look(watchdog);
        int64_t until = cp_now_ns() + interval;
        while (!watchdog->is_over && cp_condition_wait(&watchdog->ends, &watchdog->lock, until))
            ;
    }
    pthread_mutex_unlock(&watchdog->lock);
    return NULL;
}

static int init_locks(struct cp_watchdog *watchdog)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0)
        return ENOMEM;
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* a constant that is known to be valid */
    int error = pthread_cond_init(&watchdog->ends, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error)
        return error;
    error = pthread_mutex_init(&watchdog->lock, NULL);
    if (error)
        pthread_cond_destroy(&watchdog->ends);
    return error;
}

static void free_watchdog(struct cp_watchdog *watchdog)
{
    pthread_mutex_destroy(&watchdog->lock);
    pthread_cond_destroy(&watchdog->ends);
    free(watchdog);
}

/* The program's signal handlers are not to run on it. */
static int create_thread(struct cp_watchdog *watchdog)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watchdog->thread, NULL, watch, watchdog);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int cp_watchdog_start(struct corepool_runtime *runtime, const corepool_runtime_options_t *options)
{
    if (options->stall_ms == 0)
        return COREPOOL_OK;
    struct cp_watchdog *watchdog = calloc(1, sizeof *watchdog + runtime->shards * sizeof watchdog->stalls[0]);
    if (!watchdog)
        return cp_fail(COREPOOL_ENOMEM, "no memory for a watchdog");
    watchdog->runtime = runtime;
    watchdog->limit_ns = options->stall_ms * CP_NS_PER_MS;
    watchdog->on_stall = options->on_stall;
    watchdog->arg = options->arg;
    snprintf(watchdog->name, sizeof watchdog->name, "%.10s/dog", options->name ? options->name : "corepool");
    if (init_locks(watchdog) != 0) {
        free(watchdog);
        return cp_fail(COREPOOL_ENOMEM, "no memory for a watchdog's lock");
    }
    int error = create_thread(watchdog);
    if (error) {
        free_watchdog(watchdog);
        return cp_fail(COREPOOL_ESYSTEM, "cannot create the watchdog's thread: %s", strerror(error));
    }
    runtime->watchdog = watchdog;
    return COREPOOL_OK;
}

void cp_watchdog_stop(struct corepool_runtime *runtime)
{
    struct cp_watchdog *watchdog = runtime->watchdog;
    if (!watchdog)
        return;
    pthread_mutex_lock(&watchdog->lock);
    watchdog->is_over = true;
    pthread_cond_signal(&watchdog->ends);
    pthread_mutex_unlock(&watchdog->lock);
    pthread_join(watchdog->thread, NULL);
    runtime->watchdog = NULL;
    free_watchdog(watchdog);
}

bool cp_is_watchdog(void)
{
    return is_watchdog;
}

void cp_watchdog_pass(struct corepool_runtime *runtime)
{
    struct cp_watchdog *watchdog = runtime->watchdog;
    if (!watchdog)
        return;
    pthread_mutex_lock(&watchdog->lock);
    pthread_mutex_unlock(&watchdog->lock);
}
