/* bench/command/loops.c: callers that are code on the shards' loops: they ask asynchronously and never leave
 * their shard. A station is what one shard has of them.
 *
 * A caller is READY (to ask), WAITING (for a worker), BUSY (with one, or thinking, until its timer) or GONE.
 *
 * Closed loop: READY ones are turned by their station's idle handle, some pairs each, so that the loop gets
 * round between; while there are none the handle is stopped.
 *
 * Open loop: each has its own schedule, as threads have, and the same rule: it is at one arrival at a time.
 * Those that come while it waits or is busy, or while its shard's loop is, begin late, and what they are late
 * by is part of their wait. READY ones are in the station's agenda, under the time of their next arrival (while
 * they warm up: of their next pair); those that are due begin in the order of these times. While some are left
 * the idle handle turns, else the loop sleeps until the alarm rings for the first.
 *
 * End: when time is up nothing more is begun. The command tells each station; whoever is READY is GONE then,
 * the others when they would become READY: no request is cancelled, each gets its worker and brings it back.
 * The last, be it the command, closes the handles. All on the shard's thread but where marked. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "agenda.h"
#include "alarm.h"
#include "fail.h"
#include "callers.h"

/* Pairs before the loop goes round: of one caller, or in the open loop of a station. */
#define TURN 16u

enum state { READY, WAITING, BUSY, GONE };

struct station;

struct loop_caller {
    struct station *station;
    enum state state;
    unsigned number;
    corepool_checkout_options_t wish;
    corepool_lease_t lease;
    int64_t asked;    /* callers_ask's, or when it was meant to arrive */
    struct pace pace; /* open loop. Zero: it warms up */
    uv_timer_t timer; /* of a hold that sleeps, or a pause */
    struct tally tally;
};

struct station {
    struct callers *load;
    uv_idle_t idle;
    struct loop_caller *callers;
    unsigned count;
    unsigned present; /* callers that are not GONE, and the command until it has told the end */
    unsigned open_handles;
    struct agenda agenda; /* this and the alarm: open loop only */
    struct alarm alarm;
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

static bool is_open(const struct station *station)
{
    return station->load->options->rate > 0;
}

/* One less is present. */
static void let_go(struct station *station)
{
    if (--station->present > 0)
        return;
    for (unsigned i = 0; i < station->count; i++)
        close_handle(station, (uv_handle_t *)&station->callers[i].timer);
    close_handle(station, (uv_handle_t *)&station->idle);
    if (is_open(station))
        alarm_close(&station->alarm, on_closed);
}

static void leave(struct loop_caller *caller)
{
    caller->state = GONE;
    let_go(caller->station);
}

/* ---- a pair ---- */

static void on_idle(uv_idle_t *idle);

/* Of its next arrival, or pair to warm up; its schedule begins with the measurement. */
static int64_t next_time(struct loop_caller *caller)
{
    const struct callers *load = caller->station->load;
    if (callers_phase(load) == PHASE_WARM)
        return clock_ns() + THINK_US * INT64_C(1000);
    if (caller->pace.burst == 0)
        caller->pace = callers_plan(load, caller->number);
    return pace_time(&caller->pace, caller->tally.begun);
}

static void make_ready(struct loop_caller *caller)
{
    struct station *station = caller->station;
    caller->state = READY;
    if (callers_phase(station->load) == PHASE_STOP) {
        leave(caller);
        return;
    }
    if (is_open(station))
        agenda_add(&station->agenda, next_time(caller), caller);
    uv_idle_start(&station->idle, on_idle);
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
    unsigned think_us =
        is_open(caller->station) ? 0 : callers_think_us(load, caller->number, caller->tally.all);
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

static void ask(struct loop_caller *caller, int64_t asked)
{
    caller->state = WAITING;
    caller->asked = asked;
    REQUIRE_OK(
        corepool_checkout_async(caller->station->load->subject->pool, &caller->wish, on_granted, caller, NULL));
}

/* ---- closed loop ---- */

static bool turn(struct loop_caller *caller)
{
    const struct callers *load = caller->station->load;
    if (callers_phase(load) == PHASE_STOP)
        return false;
    for (unsigned i = 0; i < TURN && caller->state == READY; i++)
        ask(caller, callers_ask(load, &caller->tally));
    return caller->state == READY;
}

static void turn_all(struct station *station)
{
    bool more = false;
    for (unsigned i = 0; i < station->count; i++)
        more |= turn(&station->callers[i]);
    if (!more)
        uv_idle_stop(&station->idle);
}

/* ---- open loop ---- */

static void begin(struct loop_caller *caller)
{
    bool warms_up = caller->pace.burst == 0;
    if (!warms_up)
        ask(caller, pace_time(&caller->pace, caller->tally.begun++));
    else if (callers_phase(caller->station->load) == PHASE_WARM)
        ask(caller, 0);
    else
        make_ready(caller); /* for its first arrival */
}

/* Whether to turn again, or to sleep, and until when. */
static void await_next(struct station *station)
{
    int64_t next = agenda_next(&station->agenda);
    bool over = callers_phase(station->load) == PHASE_STOP;
    if (!over && next < clock_ns()) {
        uv_idle_start(&station->idle, on_idle);
        return;
    }
    uv_idle_stop(&station->idle);
    if (!over && next != INT64_MAX)
        alarm_set(&station->alarm, next);
}

/* The clock is read first: see callers_stop. */
static void begin_due(void *arg)
{
    struct station *station = arg;
    int64_t now = clock_ns();
    for (unsigned i = 0; i < TURN && agenda_next(&station->agenda) < now; i++) {
        if (callers_phase(station->load) == PHASE_STOP)
            break;
        begin(agenda_take(&station->agenda));
    }
    await_next(station);
}

static void on_idle(uv_idle_t *idle)
{
    struct station *station = idle->data;
    if (is_open(station))
        begin_due(station);
    else
        turn_all(station);
}

/* ---- start ---- */

static void open_station(corepool_shard_t *shard, void *arg)
{
    struct station *station = arg;
    uv_loop_t *loop = corepool_shard_loop(shard);
    station->present = station->open_handles = station->count + 1;
    REQUIRE(uv_idle_init(loop, &station->idle) == 0, "cannot open an idle handle");
    station->idle.data = station;
    for (unsigned i = 0; i < station->count; i++) {
        REQUIRE(uv_timer_init(loop, &station->callers[i].timer) == 0, "cannot open a timer");
        station->callers[i].timer.data = &station->callers[i];
    }
    if (is_open(station)) {
        alarm_open(&station->alarm, loop, begin_due, station);
        station->open_handles++;
    }
    sem_post(station->told);
}

/* Once all are open. */
static void start_station(corepool_shard_t *shard, void *arg)
{
    struct station *station = arg;
    (void)shard;
    for (unsigned i = 0; i < station->count; i++)
        make_ready(&station->callers[i]);
}

/* Time is up. */
static void end_station(corepool_shard_t *shard, void *arg)
{
    struct station *station = arg;
    (void)shard;
    for (unsigned i = 0; i < station->count; i++)
        if (station->callers[i].state == READY)
            leave(&station->callers[i]);
    let_go(station);
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
    station->agenda.entries = calloc(station->count, sizeof *station->agenda.entries);
    REQUIRE(station->callers != NULL && station->agenda.entries != NULL, "out of memory for %u callers",
            station->count);
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
    tell_stations(load, stations, end_station);
    await_stations(load, stations);
    for (unsigned i = 0; i < load->subject->shards; i++) {
        struct station *station = &stations->station[i];
        for (unsigned j = 0; j < station->count; j++)
            callers_collect(load, station->callers[j].number, &station->callers[j].tally, sum);
        free(station->agenda.entries);
        free(station->callers);
    }
    sem_destroy(&stations->told);
    free(stations->station);
    free(stations);
}
