/* tests/look_test.c: what becomes of workers that nobody uses: pings, infos, ages, validation, hang-ups. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/callers.h"

/* Looked at each 2.5 ms. */
#define SOON_MS 20
#define OWN_REASON (COREPOOL_REASON_USER + 6)

/* --- a class that notes what it is asked --- */

static struct {
    _Atomic unsigned count, serial[256];
    _Atomic int outcome;           /* of every ping, info and validate */
    _Atomic unsigned only;         /* … of this worker; of the others: OK; 0: of all. Its serial + 1 */
    _Atomic unsigned leased;       /* was asked about a leased worker */
    _Atomic(pthread_t) thread;     /* of the last validate */
    corepool_pool_t within;        /* info asks for another info of this pool */
    _Atomic int within_status;
} asked;

static int note(struct laws_unit *unit)
{
    unsigned only = atomic_load(&asked.only);
    unsigned at = atomic_fetch_add(&asked.count, 1);
    if (at < sizeof asked.serial / sizeof asked.serial[0])
        atomic_store(&asked.serial[at], unit->serial);
    if (only && only != unit->serial + 1)
        return COREPOOL_OK;
    return atomic_load(&asked.outcome);
}

static int ping(corepool_worker_t *worker, void *pool_state, void *resource)
{
    (void)pool_state;
    if (corepool_worker_is_leased(worker) || corepool_shard_current() != corepool_worker_shard(worker))
        atomic_fetch_add(&asked.leased, 1);
    return note(resource);
}

static int info(corepool_worker_t *worker, void *pool_state, void *resource, void *message)
{
    int outcome = ping(worker, pool_state, resource);
    (void)message;
    if (asked.within.impl)
        atomic_store(&asked.within_status, corepool_pool_info(asked.within, NULL));
    return outcome;
}

static int validate(void *resource)
{
    atomic_store(&asked.thread, pthread_self());
    return note(resource);
}

static corepool_class_t asking_class(void)
{
    corepool_class_t cls = laws_plain_class;
    cls.name = "asking";
    cls.ping = ping;
    cls.info = info;
    return cls;
}

static corepool_class_t validating_class(void)
{
    corepool_class_t cls = laws_plain_class;
    cls.name = "validating";
    cls.validate = validate;
    return cls;
}

static void expect_asked_in_turn(unsigned first, unsigned count, const unsigned *serials)
{
    laws_await_count(&asked.count, first + count);
    for (unsigned i = 0; i < count; i++)
        cr_expect_eq(atomic_load(&asked.serial[first + i]), serials[i], "%u was asked as number %u, not %u",
                     atomic_load(&asked.serial[first + i]), first + i, serials[i]);
}

static bool was_asked(void *count)
{
    return atomic_load(&asked.count) >= *(unsigned *)count;
}

/* --- pings --- */

static void expect_pings_from_the_oldest(unsigned flags)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    corepool_lease_t leases[4];
    unsigned eight = 8;
    cls = asking_class();
    corepool_pool_t pool = laws_start_one_with(
        &cls, &count, 4, &(corepool_pool_options_t){.flags = flags, .idle_timeout_ms = 400});
    laws_await_idle(pool, 4);
    for (unsigned i = 0; i < 4; i++)
        leases[i] = laws_take(pool);
    unsigned order[4];
    for (unsigned i = 0; i < 4; i++) {
        corepool_lease_t *lease = &leases[(i * 3 + 1) % 4];
        order[i] = ((struct laws_unit *)lease->resource)->serial;
        cr_assert_eq(corepool_checkin(lease), COREPOOL_OK);
    }
    cr_assert(laws_eventually(was_asked, &eight));
    expect_asked_in_turn(atomic_load(&asked.count) / 4 * 4 - 4, 4, order);
    cr_expect_eq(atomic_load(&asked.leased), 0);
    cr_expect_eq(laws_stats(pool).idle, 4);
    laws_end();
}

Test(ping, asks_idle_workers_from_the_oldest)
{
    expect_pings_from_the_oldest(0);
}

Test(ping, asks_idle_workers_from_the_oldest_in_a_fifo_pool)
{
    expect_pings_from_the_oldest(COREPOOL_POOL_FIFO);
}

Test(ping, asks_idle_workers_from_the_oldest_in_a_managed_pool)
{
    expect_pings_from_the_oldest(COREPOOL_POOL_MANAGED);
}

Test(ping, that_removes_has_each_worker_replaced)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = asking_class();
    atomic_store(&asked.outcome, COREPOOL_REMOVE_BECAUSE(OWN_REASON));
    corepool_pool_t pool =
        laws_start_one_with(&cls, &count, 2, &(corepool_pool_options_t){.idle_timeout_ms = SOON_MS});
    laws_await_count(&count.reasons[OWN_REASON], 4);
    atomic_store(&asked.outcome, COREPOOL_OK);
    laws_await_idle(pool, 2);
    laws_end();
}

Test(ping, that_stops_closes_the_pool_on_every_shard_and_ends_each_worker_once)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    corepool_lease_t lease;
    cls = asking_class();
    atomic_store(&asked.outcome, COREPOOL_STOP_BECAUSE(OWN_REASON));
    laws_start(NULL);
    corepool_pool_t pool = laws_open_with(
        &cls, &count, 4, &(corepool_pool_options_t){.flags = COREPOOL_POOL_PER_SHARD, .idle_timeout_ms = SOON_MS});
    unsigned slices = corepool_runtime_shards(laws_runtime());
    laws_await_count(&count.pool_terminates, slices);
    cr_expect_eq(corepool_checkout(pool, NULL, &lease), COREPOOL_ECLOSED);
    cr_expect_eq(atomic_load(&count.reasons[OWN_REASON]), atomic_load(&count.opened));
    cr_expect_leq(atomic_load(&asked.count), slices, "each slice stops asking");
    cr_expect_eq(corepool_pool_close(pool, LAWS_PATIENCE_MS), COREPOOL_ECLOSED);
    laws_end();
}

Test(ping, that_stops_ends_a_leased_worker_at_its_checkin_and_tells_those_who_wait)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = asking_class();
    corepool_pool_t pool =
        laws_start_one_with(&cls, &count, 2, &(corepool_pool_options_t){.idle_timeout_ms = SOON_MS});
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    atomic_store(&asked.outcome, COREPOOL_STOP);
    laws_await_count(&count.reasons[COREPOOL_REASON_STOP], 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_STOP], 2);
    laws_end();
}

static void count_warning(const corepool_event_t *event, void *warnings)
{
    if (event->kind == COREPOOL_EVENT_WARNING)
        atomic_fetch_add((_Atomic unsigned *)warnings, 1);
}

Test(ping, that_no_class_offers_is_a_warning)
{
    _Atomic unsigned warnings = 0;
    struct laws_count count = {0};
    laws_start_one_with(&laws_plain_class, &count, 1,
                        &(corepool_pool_options_t){
                            .idle_timeout_ms = 1, .on_event = count_warning, .event_arg = (void *)&warnings});
    cr_expect_eq(atomic_load(&warnings), 1);
    laws_end();
}

/* --- infos --- */

Test(info, reaches_each_idle_worker_of_every_shard_once_and_no_leased_one)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = asking_class();
    laws_start(NULL);
    corepool_pool_t pool = laws_open(&cls, &count, 4, COREPOOL_POOL_PER_SHARD);
    unsigned workers = 4 * corepool_runtime_shards(laws_runtime());
    laws_await_idle(pool, workers);
    corepool_lease_t lease = laws_take(pool);
    unsigned taken = ((struct laws_unit *)lease.resource)->serial;
    cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_OK);
    cr_expect_eq(atomic_load(&asked.count), workers - 1);
    for (unsigned i = 0; i < workers - 1; i++) {
        cr_expect_neq(atomic_load(&asked.serial[i]), taken);
        for (unsigned k = 0; k < i; k++)
            cr_expect_neq(atomic_load(&asked.serial[i]), atomic_load(&asked.serial[k]), "asked twice");
    }
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_idle(pool, workers);
    laws_end();
}

Test(info, that_removes_has_the_worker_replaced)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = asking_class();
    corepool_pool_t pool = laws_start_one(&cls, &count, 3, 0);
    laws_await_idle(pool, 3);
    atomic_store(&asked.only, 2);
    atomic_store(&asked.outcome, COREPOOL_REMOVE);
    cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_INFO], 1);
    laws_await_idle(pool, 3);
    laws_end();
}

static void tell_own(void *pool)
{
    atomic_store(&asked.within_status, corepool_pool_info(*(corepool_pool_t *)pool, NULL));
}

Test(info, from_a_shard_is_for_its_own_workers_and_from_their_callbacks_refused)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = asking_class();
    corepool_pool_t pool = laws_start_one(&cls, &count, 2, 0);
    laws_await_idle(pool, 2);
    laws_on_shard(0, tell_own, &pool);
    cr_expect_eq(atomic_load(&asked.within_status), COREPOOL_OK);
    cr_expect_eq(atomic_load(&asked.count), 2);
    asked.within = pool;
    cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_OK);
    cr_expect_eq(atomic_load(&asked.within_status), COREPOOL_EDEADLK);
    laws_end();
}

Test(info, without_a_callback_or_a_pool_is_refused)
{
    struct laws_count count = {0};
    corepool_pool_t pool = laws_start_one(&laws_plain_class, &count, 1, 0);
    cr_expect_eq(corepool_pool_info(pool, NULL), COREPOOL_ENOTSUP);
    cr_expect_eq(corepool_pool_info((corepool_pool_t){0}, NULL), COREPOOL_EINVAL);
    laws_end();
}

/* --- ages --- */

Test(age, a_worker_at_the_end_of_its_lifetime_is_replaced_a_leased_one_at_its_checkin)
{
    struct laws_count count = {0};
    corepool_pool_t pool =
        laws_start_one_with(&laws_plain_class, &count, 2, &(corepool_pool_options_t){.max_lifetime_ms = SOON_MS});
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    laws_await_count(&count.reasons[COREPOOL_REASON_EXPIRED], 2); /* the other, and its successor */
    unsigned serial = ((struct laws_unit *)lease.resource)->serial;
    cr_expect_eq(atomic_load(&((struct laws_unit *)lease.resource)->ended), 0, "worker %u is leased", serial);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

Test(age, idle_workers_of_a_lazy_pool_are_closed_down_to_the_warm_ones)
{
    struct laws_count count = {0};
    corepool_lease_t leases[4];
    corepool_pool_t pool = laws_start_one_with(
        &laws_plain_class, &count, 4,
        &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY, .warm = 1, .idle_close_ms = SOON_MS});
    laws_await_idle(pool, 1);
    for (unsigned i = 0; i < 4; i++)
        leases[i] = laws_take(pool);
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(corepool_checkin(&leases[i]), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_IDLE], 3);
    laws_await_idle(pool, 1);
    cr_expect_eq(atomic_load(&count.opened), 4);
    laws_end();
}

Test(age, warm_workers_of_a_lazy_pool_are_shared_out_like_its_size)
{
    struct laws_count count = {0};
    laws_start(NULL);
    unsigned shards = corepool_runtime_shards(laws_runtime());
    corepool_pool_t pool = laws_open_with(&laws_plain_class, &count, 3 * shards,
                                          &(corepool_pool_options_t){.flags = COREPOOL_POOL_LAZY, .warm = 2 * shards});
    laws_await_idle(pool, (uint64_t)2 * shards);
    for (unsigned i = 0; i < shards; i++)
        cr_expect_eq(laws_stats(corepool_pool_at(pool, i)).idle, 2);
    laws_end();
}

/* --- validation --- */

static bool validates(void *arg)
{
    const corepool_pool_t *pool = arg;
    poll(NULL, 0, SOON_MS); /* idle meanwhile; how long it takes does not matter */
    corepool_lease_t lease = laws_take(*pool);
    (void)corepool_checkin(&lease);
    return atomic_load(&asked.count) > 0;
}

static void expect_validation(unsigned flags, bool on_caller)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = validating_class();
    corepool_pool_t pool =
        laws_start_one_with(&cls, &count, 2, &(corepool_pool_options_t){.flags = flags, .validate_after_ms = 8});
    laws_await_idle(pool, 2);
    cr_expect(laws_eventually(validates, &pool));
    cr_expect_eq((bool)pthread_equal(atomic_load(&asked.thread), pthread_self()), on_caller);
    atomic_store(&asked.count, 0);
    atomic_store(&asked.outcome, COREPOOL_REMOVE);
    cr_expect(laws_eventually(validates, &pool), "and each request got a worker");
    laws_await_count(&count.reasons[COREPOOL_REASON_VALIDATE], atomic_load(&asked.count));
    laws_end();
}

Test(validation, of_one_idle_for_long_runs_on_the_callers_thread_and_a_refused_one_is_no_callers_loss)
{
    expect_validation(0, true);
}

Test(validation, in_a_managed_pool_runs_on_the_callers_thread)
{
    expect_validation(COREPOOL_POOL_MANAGED, true);
}

Test(validation, in_a_serialised_pool_runs_on_the_shard)
{
    expect_validation(COREPOOL_POOL_SERIALISED, false);
}

Test(validation, is_spared_those_who_are_in_use)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = validating_class();
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    laws_await_idle(pool, 1);
    for (unsigned i = 0; i < 1000; i++) {
        corepool_lease_t lease = laws_take(pool);
        (void)corepool_checkin(&lease);
    }
    cr_expect_eq(atomic_load(&asked.count), 0);
    laws_end();
}

/* --- hang-ups --- */

/* Workers are one end of a pair of sockets, by number; the test has the other. */
static int ours[4], theirs[4];
static _Atomic int watch_status, second_status;
static _Atomic bool hang_up_first, fail_after_watch;

static int open_socket(corepool_worker_t *worker, void *pool_state, void **resource)
{
    unsigned n = corepool_worker_number(worker);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return COREPOOL_ESYSTEM;
    atomic_store(&watch_status, corepool_worker_watch(worker, pair[0]));
    atomic_store(&second_status, corepool_worker_watch(worker, pair[0]));
    if (atomic_exchange(&hang_up_first, false))
        shutdown(pair[1], SHUT_WR);
    if (atomic_exchange(&fail_after_watch, false)) {
        close(pair[0]);
        close(pair[1]);
        return COREPOOL_EPEER;
    }
    int status = laws_plain_class.init(worker, pool_state, resource);
    ours[n] = pair[0];
    theirs[n] = pair[1];
    return status;
}

static int close_socket(corepool_worker_t *worker, void *pool_state, void *resource, corepool_reason_t reason)
{
    unsigned n = corepool_worker_number(worker);
    close(ours[n]);
    close(theirs[n]);
    return laws_plain_class.terminate(worker, pool_state, resource, reason);
}

static corepool_class_t watched_class(unsigned flags)
{
    corepool_class_t cls = laws_plain_class;
    cls.name = "watched";
    cls.flags = flags;
    cls.init = open_socket;
    cls.terminate = close_socket;
    return cls;
}

static void expect_hangups(unsigned flags)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = watched_class(flags);
    if (flags & COREPOOL_CLASS_BLOCKING)
        laws_warm_thread_pool();
    corepool_pool_t pool = laws_start_one(&cls, &count, 2, 0);
    laws_await_idle(pool, 2);
    cr_expect_eq(atomic_load(&watch_status), COREPOOL_OK);
    cr_expect_eq(atomic_load(&second_status), COREPOOL_EBUSY);
    shutdown(theirs[0], SHUT_WR);
    laws_await_count(&count.reasons[COREPOOL_REASON_HANGUP], 1); /* idle: at once */
    laws_await_idle(pool, 2);
    corepool_lease_t lease = laws_take(pool);
    unsigned leased = corepool_worker_number(lease.worker);
    shutdown(theirs[leased], SHUT_WR);
    shutdown(theirs[1 - leased], SHUT_WR);
    laws_await_count(&count.reasons[COREPOOL_REASON_HANGUP], 2); /* the idle one */
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_await_count(&count.reasons[COREPOOL_REASON_HANGUP], 3);
    laws_await_idle(pool, 2);
    laws_end();
}

Test(watch, evicts_a_worker_whose_peer_hangs_up_idle_at_once_leased_at_its_checkin)
{
    expect_hangups(0);
}

Test(watch, may_be_asked_for_by_an_init_that_blocks)
{
    expect_hangups(COREPOOL_CLASS_BLOCKING);
}

Test(watch, sees_a_peer_that_hung_up_before_the_worker_was_ready)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = watched_class(0);
    atomic_store(&hang_up_first, true);
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    laws_await_count(&count.reasons[COREPOOL_REASON_HANGUP], 1);
    laws_await_idle(pool, 1);
    laws_end();
}

Test(watch, ends_with_an_init_that_fails)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = watched_class(0);
    atomic_store(&fail_after_watch, true);
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    laws_await_idle(pool, 1);
    cr_expect_eq(laws_stats(pool).open_failures, 1);
    laws_end();
}

static int watch_nonsense(corepool_worker_t *worker, void *pool_state, void **resource)
{
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    atomic_store(&watch_status, corepool_worker_watch(worker, file));
    atomic_store(&second_status, corepool_worker_watch(worker, -1));
    close(file);
    return laws_plain_class.init(worker, pool_state, resource);
}

static void watch_from_here(void *worker)
{
    atomic_store(&watch_status, corepool_worker_watch(worker, 0));
}

Test(watch, of_what_cannot_be_watched_is_refused)
{
    static corepool_class_t cls;
    struct laws_count count = {0};
    cls = laws_plain_class;
    cls.init = watch_nonsense;
    corepool_pool_t pool = laws_start_one(&cls, &count, 1, 0);
    laws_await_idle(pool, 1);
    cr_expect_eq(atomic_load(&watch_status), COREPOOL_ESYSTEM);
    cr_expect_eq(atomic_load(&second_status), COREPOOL_EINVAL);
    corepool_lease_t lease = laws_take(pool);
    laws_in_thread(-1, watch_from_here, lease.worker);
    cr_expect_eq(atomic_load(&watch_status), COREPOOL_ETHREAD);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

/* --- options --- */

Test(look_options, are_refused_by_name)
{
    static const struct {
        const char *field;
        corepool_pool_options_t options;
    } bad[] = {
        {"idle_timeout_ms", {.idle_timeout_ms = -1}},
        {"idle_close_ms", {.idle_close_ms = -1}},
        {"max_lifetime_ms", {.max_lifetime_ms = INT64_MAX}},
        {"validate_after_ms", {.validate_after_ms = -1}},
        {"lifetime_jitter_percent", {.lifetime_jitter_percent = 101}},
        {"warm", {.warm = 5}},
    };
    struct laws_count count = {0};
    corepool_pool_t pool;
    laws_start(NULL);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(corepool_pool_open(laws_runtime(), &laws_plain_class, &count, 4, &bad[i].options, &pool),
                     COREPOOL_EINVAL);
        laws_expect_detail(bad[i].field);
    }
    laws_end();
}
