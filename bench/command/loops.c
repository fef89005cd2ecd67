/* bench/command/loops.c: callers that are code on the shards' loops: they ask asynchronously and never leave
 * their shard.
 *
 * A caller is READY (to ask), WAITING (for a worker), BUSY (with one, or thinking, until its timer) or GONE.
 * READY ones are turned by their shard's idle handle, some pairs each, so that the loop gets round between;
 * while there are none the handle is stopped. Whatever it is at when time is up, it becomes READY some time
 * later, and GONE then. A station is what one shard has of them. All on the shard's thread but where marked. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "fail.h"
#include "callers.h"

/* Pairs of one caller before the loop goes round. */
#define TURN 16u

enum state { READY, WAITING, BUSY, GONE };

struct station;

struct loop_caller {
    struct station *station;
    enum state state;
    unsigned number;
    corepool_checkout_options_t wish;
    corepool_lease_t lease;
    int64_t asked;    /* callers_ask's */
    uv_timer_t timer; /* of a hold that sleeps, or a pause */
    struct tally tally;
};

struct station {
    struct callers *load;
    uv_idle_t idle;
    struct loop_caller *callers;
    unsigned count, gone;
    unsigned open_handles;
    sem_t *told; /* of the start, then of the end. The command's thread waits for it */
};

struct stations {
    sem_t told;
    struct station *station; /* one for each shard */
};

/* ---- end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct station *station = handle->data;
    if (--station->open_handles == 0)
        sem_post(station->told);
}

static void close_handle(struct station *station, uv_handle_t *handle)
{
    handle->data = station;
    uv_close(handle, on_closed);
}

static void leave(struct loop_caller *caller)
{
    struct station *station = caller->station;
    caller->state = GONE;
    if (++station->gone < station->count)
        return;
    for (unsigned i = 0; i < station->count; i++)
        close_handle(station, (uv_handle_t *)&station->callers[i].timer);
    close_handle(station, (uv_handle_t *)&station->idle);
}

/* ---- a pair ---- */

static void on_idle(uv_idle_t *idle);

static void make_ready(struct loop_caller *caller)
{
    caller->state = READY;
    if (callers_phase(caller->station->load) == PHASE_STOP)
        leave(caller);
    else
        uv_idle_start(&caller->station->idle, on_idle);
}

static void on_rested(uv_timer_t *timer)
{
    make_ready(timer->data);
}

static void give_back(struct loop_caller *caller)
{
    const struct callers *load = caller->station->load;
    REQUIRE_OK(corepool_checkin(&caller->lease));
    callers_ended(load, &caller->tally, caller->asked);
    unsigned think_us = callers_think_us(load, caller->number, caller->tally.all);
    if (think_us == 0) {
        make_ready(caller);
        return;
    }
    caller->state = BUSY;
    uv_timer_start(&caller->timer, on_rested, think_us / 1000, 0);
}

static void on_held(uv_timer_t *timer)
{
    give_back(timer->data);
}

static void on_granted(int status, const corepool_lease_t *lease, void *arg)
{
    struct loop_caller *caller = arg;
    const struct hold *hold = &caller->station->load->cell->hold;
    REQUIRE_OK(status);
    callers_granted(&caller->tally, caller->asked);
    caller->lease = *lease;
    ((struct peer_resource *)lease->resource)->touched++;
    if (hold->sleeps) {
        caller->state = BUSY;
        uv_timer_start(&caller->timer, on_held, (uint64_t)(hold->us / 1000), 0);
        return;
    }
    hold_perform(hold);
    give_back(caller);
}

static void ask(struct loop_caller *caller)
{
    caller->state = WAITING;
    caller->asked = callers_ask(caller->station->load, &caller->tally);
    REQUIRE_OK(
        corepool_checkout_async(caller->station->load->subject->pool, &caller->wish, on_granted, caller, NULL));
}

/* ---- turns ---- */

static bool turn(struct loop_caller *caller)
{
    if (caller->state == READY && callers_phase(caller->station->load) == PHASE_STOP)
        leave(caller);
    for (unsigned i = 0; i < TURN && caller->state == READY; i++)
        ask(caller);
    return caller->state == READY;
}

static void on_idle(uv_idle_t *idle)
{
    struct station *station = idle->data;
    bool more = false;
    for (unsigned i = 0; i < station->count; i++)
        more |= turn(&station->callers[i]);
    if (!more && !uv_is_closing((uv_handle_t *)idle))
        uv_idle_stop(idle);
}

/* ---- start ---- */

static void open_station(corepool_shard_t *shard, void *arg)
{
    struct station *station = arg;
    uv_loop_t *loop = corepool_shard_loop(shard);
    station->open_handles = station->count + 1;
    REQUIRE(uv_idle_init(loop, &station->idle) == 0, "cannot open an idle handle");
    station->idle.data = station;
    for (unsigned i = 0; i < station->count; i++) {
        REQUIRE(uv_timer_init(loop, &station->callers[i].timer) == 0, "cannot open a timer");
        station->callers[i].timer.data = &station->callers[i];
    }
    sem_post(station->told);
}

/* Once all are open. */
static void start_station(corepool_shard_t *shard, void *arg)
{
    struct station *station = arg;
    (void)shard;
    uv_idle_start(&station->idle, on_idle);
}

/* The shard that caller `number` lives on. */
static unsigned shard_for(const struct callers *load, unsigned number)
{
    return load->cell->skew == SKEW_ONE_CPU ? 0 : number % load->subject->shards;
}

static void count_callers(const struct callers *load, struct stations *stations)
{
    for (unsigned i = 0; i < load->cell->threads; i++)
        stations->station[shard_for(load, i)].count++;
}

static void make_callers(struct callers *load, struct station *station, sem_t *told)
{
    station->load = load;
    station->told = told;
    station->callers = calloc(station->count, sizeof *station->callers);
    REQUIRE(station->callers != NULL, "out of memory for %u callers", station->count);
    station->count = 0;
}

static void deal_callers(struct callers *load, struct stations *stations)
{
    for (unsigned i = 0; i < load->cell->threads; i++) {
        struct station *station = &stations->station[shard_for(load, i)];
        station->callers[station->count++] = (struct loop_caller){
            .station = station, .number = i, .wish = {.timeout_ms = COREPOOL_INFINITE, .key = i}};
    }
}

static void tell_stations(const struct callers *load, struct stations *stations, corepool_shard_cb fn)
{
    for (unsigned i = 0; i < load->subject->shards; i++)
        if (stations->station[i].count > 0)
            REQUIRE_OK(corepool_shard_post(load->subject->runtime, i, fn, &stations->station[i]));
}

/* Once from each station that has callers. */
static void await_stations(const struct callers *load, struct stations *stations)
{
    for (unsigned i = 0; i < load->subject->shards; i++)
        while (stations->station[i].count > 0 && sem_wait(&stations->told) != 0 && errno == EINTR)
            ;
}

void loops_start(struct callers *load)
{
    unsigned shards = load->subject->shards;
    struct stations *stations = calloc(1, sizeof *stations);
    REQUIRE(stations != NULL, "out of memory");
    load->own = stations;
    stations->station = calloc(shards, sizeof *stations->station);
    REQUIRE(stations->station != NULL, "out of memory");
    sem_init(&stations->told, 0, 0);
    count_callers(load, stations);
    for (unsigned i = 0; i < shards; i++)
        if (stations->station[i].count > 0)
            make_callers(load, &stations->station[i], &stations->told);
    deal_callers(load, stations);
    tell_stations(load, stations, open_station);
    await_stations(load, stations);
    tell_stations(load, stations, start_station);
}

void loops_stop(struct callers *load, struct tally *sum)
{
    struct stations *stations = load->own;
    *sum = (struct tally){0};
    await_stations(load, stations);
    for (unsigned i = 0; i < load->subject->shards; i++) {
        struct station *station = &stations->station[i];
        for (unsigned j = 0; j < station->count; j++)
            callers_collect(load, station->callers[j].number, &station->callers[j].tally, sum);
        free(station->callers);
    }
    sem_destroy(&stations->told);
    free(stations->station);
    free(stations);
}
