/* bench/command/threads.c: callers that are threads and block until a worker comes.
 *
 * In the open loop each has its own schedule. One that is late goes on at once, and what it is late by is part
 * of its wait: it is measured from when the arrival was meant to be, so that a wait does not hide those that
 * should have begun meanwhile (coordinated omission). */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "fail.h"
#include "callers.h"

/* A thread needs little, and there may be thousands. */
#define STACK_BYTES (256u * 1024u)
/* How soon a caller sees that time is up. */
#define NAP_NS INT64_C(20000000)

struct caller {
    alignas(64) struct callers *load;
    const struct peer *peer;
    corepool_pool_t pool;
    corepool_checkout_options_t wish;
    corepool_lease_t lease;
    pthread_t thread;
    unsigned number;
    int cpu; /* -1: free */
    struct tally tally;
};

/* All callers and the command: those that are there first would keep the others from being started. */
static pthread_barrier_t start;

/* Peers that cannot wait are asked again when others have had a chance to give back. */
static struct peer_resource *take(struct caller *caller)
{
    struct peer_resource *resource;
    if (caller->peer == NULL) {
        REQUIRE_OK(corepool_checkout(caller->pool, &caller->wish, &caller->lease));
        return caller->lease.resource;
    }
    while ((resource = caller->peer->take()) == NULL)
        sched_yield();
    return resource;
}

static void give(struct caller *caller, struct peer_resource *resource)
{
    if (caller->peer == NULL)
        REQUIRE_OK(corepool_checkin(&caller->lease));
    else
        caller->peer->give(resource);
}

static void pair(struct caller *caller, int64_t asked)
{
    struct peer_resource *resource = take(caller);
    callers_granted(&caller->tally, asked);
    resource->touched++;
    hold_perform(&caller->load->cell->hold);
    give(caller, resource);
    callers_ended(caller->load, &caller->tally, asked);
}

static void live_closed(struct caller *caller)
{
    const struct callers *load = caller->load;
    while (callers_phase(load) != PHASE_STOP) {
        pair(caller, callers_ask(load, &caller->tally));
        unsigned think_us = callers_think_us(load, caller->number, caller->tally.all);
        if (think_us > 0)
            sleep_until(clock_ns() + think_us * INT64_C(1000));
    }
}

/* ---- open loop ---- */

/* False: time is up. The clock is read first: see callers_stop. */
static bool await_arrival(const struct callers *load, int64_t arrival)
{
    int64_t now;
    while ((now = clock_ns()) <= arrival && callers_phase(load) != PHASE_STOP)
        sleep_until(arrival < now + NAP_NS ? arrival : now + NAP_NS);
    return callers_phase(load) != PHASE_STOP;
}

static void live_open(struct caller *caller)
{
    const struct callers *load = caller->load;
    uint64_t *begun = &caller->tally.begun;
    (void)prctl(PR_SET_TIMERSLACK, 1ul); /* the kernel may be late by as little as it can */
    while (callers_phase(load) == PHASE_WARM) {
        pair(caller, 0);
        sleep_until(clock_ns() + THINK_US * INT64_C(1000));
    }
    struct pace pace = callers_plan(load, caller->number);
    for (int64_t arrival; await_arrival(load, arrival = pace_time(&pace, *begun)); ++*begun)
        pair(caller, arrival);
}

/* ---- threads ---- */

static void pin(int cpu)
{
    size_t bytes = CPU_ALLOC_SIZE((size_t)cpu + 1);
    cpu_set_t *set = CPU_ALLOC((size_t)cpu + 1);
    REQUIRE(set != NULL, "out of memory");
    CPU_ZERO_S(bytes, set);
    CPU_SET_S((size_t)cpu, bytes, set);
    REQUIRE(sched_setaffinity(0, bytes, set) == 0, "cannot bind a caller to CPU %d", cpu);
    CPU_FREE(set);
}

static void *live(void *arg)
{
    struct caller *caller = arg;
    if (caller->cpu >= 0)
        pin(caller->cpu);
    if (caller->peer != NULL)
        caller->peer->enter();
    pthread_barrier_wait(&start);
    if (caller->load->options->rate > 0)
        live_open(caller);
    else
        live_closed(caller);
    if (caller->peer != NULL)
        caller->peer->leave();
    return NULL;
}

static int cpu_for(const struct callers *load, unsigned number)
{
    const struct options *options = load->options;
    if (load->cell->skew == SKEW_ONE_CPU && options->synthetic == NULL)
        return options->cpus[0];
    return options->pinned ? options->cpus[number % options->cpu_count] : -1;
}

static void start_one(struct callers *load, struct caller *caller, unsigned number,
                      const pthread_attr_t *attributes)
{
    *caller = (struct caller){
        .load = load,
        .peer = load->subject->peer,
        .wish = {.timeout_ms = COREPOOL_INFINITE, .key = number},
        .number = number,
        .cpu = cpu_for(load, number),
    };
    if (caller->peer == NULL)
        caller->pool = callers_handle(load, number);
    REQUIRE(pthread_create(&caller->thread, attributes, live, caller) == 0, "cannot start thread %u", number);
}

void threads_start(struct callers *load)
{
    unsigned count = load->cell->threads;
    struct caller *callers = aligned_alloc(alignof(struct caller), count * sizeof *callers);
    pthread_attr_t attributes;
    REQUIRE(callers != NULL, "out of memory for %u callers", count);
    load->own = callers;
    pthread_barrier_init(&start, NULL, count + 1);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (unsigned i = 0; i < count; i++)
        start_one(load, &callers[i], i, &attributes);
    pthread_attr_destroy(&attributes);
    pthread_barrier_wait(&start);
}

void threads_stop(struct callers *load, struct tally *sum)
{
    struct caller *callers = load->own;
    *sum = (struct tally){0};
    for (unsigned i = 0; i < load->cell->threads; i++) {
        pthread_join(callers[i].thread, NULL);
        callers_collect(load, i, &callers[i].tally, sum);
    }
    pthread_barrier_destroy(&start);
    free(callers);
}
