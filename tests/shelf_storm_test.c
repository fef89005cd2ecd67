/* tests/shelf_storm_test.c: shelves under signals, preemption, two CPUs, and changes of kind while in use.
 *
 * A storm counts the restarts that it caused: one that restarted nothing proves nothing. */
#include "support/both_shelves.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 20
/* Enough that it was no accident. */
#define ENOUGH_ABORTS 100

/* A client that takes and gives as fast as it can and notes whether anyone else ever had its item. */
struct client {
    pthread_t thread;
    int cpu;
    timer_t timer;
    bool alarmed; /* its timer interrupts it all the time */
    uint64_t rounds;
    unsigned stolen, lost, refused;
};

static _Atomic unsigned in_use[ITEMS];
static _Atomic bool stop_clients;

static void on_alarm(int signal)
{
    (void)signal;
}

static bool start_alarms(struct client *client)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    struct itimerspec period = {.it_interval = {.tv_nsec = 20000}, .it_value = {.tv_nsec = 20000}};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    return timer_create(CLOCK_MONOTONIC, &event, &client->timer) == 0 &&
           timer_settime(client->timer, 0, &period, NULL) == 0;
}

static void swap_once(struct client *client)
{
    struct cp_item *item;
    enum cp_shelf_end end = client->rounds % 3 ? CP_NEWEST : CP_OLDEST;
    if (cp_shelf_take(&shelf, end, &item) != CP_SHELF_DONE)
        return;
    unsigned n = (unsigned)(item - items);
    uint64_t generation = cp_stamp_generation(atomic_load(&item->stamp)) + 1;
    client->stolen += atomic_exchange(&in_use[n], 1) != 0;
    atomic_store(&item->stamp, cp_stamp(generation, CP_TAG_LEASED));
    client->lost += atomic_exchange(&in_use[n], 0) != 1;
    enum cp_shelf_outcome (*back)(struct cp_shelf *, struct cp_item *, uint64_t, uint64_t) =
        client->rounds % 5 ? cp_shelf_give : cp_shelf_give_oldest;
    client->refused += back(&shelf, item, cp_stamp(generation, CP_TAG_LEASED), cp_stamp(generation, CP_TAG_SHELVED)) !=
                       CP_SHELF_DONE;
    client->rounds++;
}

static void *run_client(void *arg)
{
    struct client *client = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)client->cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0 || (client->alarmed && !start_alarms(client)))
        client->refused++;
    while (!atomic_load(&stop_clients))
        swap_once(client);
    if (client->alarmed)
        timer_delete(client->timer);
    return NULL;
}

static void start_client(struct client *client, int cpu, bool alarmed)
{
    *client = (struct client){.cpu = cpu, .alarmed = alarmed};
    cr_assert_neq(signal(SIGUSR1, on_alarm), SIG_ERR);
    cr_assert_eq(pthread_create(&client->thread, NULL, run_client, client), 0);
}

static void join_client(const struct client *client)
{
    cr_assert_eq(pthread_join(client->thread, NULL), 0);
    cr_expect_gt(client->rounds, 0);
    cr_expect_eq(client->stolen + client->lost, 0, "an item was in two hands");
    cr_expect_eq(client->refused, 0, "a give was refused");
}

/* All items are there, each once. */
static void expect_all_shelved(void)
{
    bool seen[ITEMS] = {false};
    for (unsigned i = 0; i < ITEMS; i++) {
        const struct cp_item *item = take(CP_OLDEST);
        cr_assert_not_null(item, "%u items are lost", ITEMS - i);
        cr_expect_not(seen[item - items], "an item was on the shelf twice");
        seen[item - items] = true;
    }
    cr_expect_null(take(CP_OLDEST));
}

/* Until the kernel has restarted enough sequences (portable: for a moment). */
static void run_for_aborts(bool portable)
{
    uint64_t aborts = atomic_load(&cp_shelf_aborts);
    time_t deadline = time(NULL) + PATIENCE_S;
    if (portable)
        poll(NULL, 0, 100);
    while (!portable && atomic_load(&cp_shelf_aborts) < aborts + ENOUGH_ABORTS && time(NULL) < deadline)
        poll(NULL, 0, 10);
    atomic_store(&stop_clients, true);
    if (!portable)
        cr_expect_geq(atomic_load(&cp_shelf_aborts), aborts + ENOUGH_ABORTS, "the storm restarted too little");
}

BOTH(a_storm_of_signals_loses_and_doubles_nothing)
{
    struct client client;
    give_all();
    start_client(&client, home, true);
    run_for_aborts(portable);
    join_client(&client);
    expect_all_shelved();
}

BOTH(two_threads_on_one_cpu_never_hold_the_same_item)
{
    struct client clients[2];
    give_all();
    for (unsigned i = 0; i < 2; i++)
        start_client(&clients[i], home, true);
    run_for_aborts(portable);
    for (unsigned i = 0; i < 2; i++)
        join_client(&clients[i]);
    expect_all_shelved();
}

Test(portable_shelf, two_threads_on_two_cpus_never_hold_the_same_item)
{
    struct client clients[2];
    open_shelf(true);
    need_other_cpu();
    give_all();
    start_client(&clients[0], home, true);
    start_client(&clients[1], other, true);
    run_for_aborts(true);
    join_client(&clients[0]);
    join_client(&clients[1]);
    expect_all_shelved();
}

/* By running on its CPU, so that no sequence can be under way. */
Test(rseq_shelf, changes_its_kind_under_its_users_without_loss)
{
    struct client client, own = {0};
    open_shelf(false);
    give_all();
    start_client(&client, home, false);
    for (unsigned i = 0; i < 200; i++) {
        cr_assert(cp_shelf_change(&shelf, CP_SHELF_PORTABLE, 0));
        swap_once(&own);
        sched_yield();
        cr_assert(cp_shelf_change(&shelf, 0, CP_SHELF_PORTABLE));
    }
    atomic_store(&stop_clients, true);
    join_client(&client);
    cr_expect_eq(own.stolen + own.lost + own.refused, 0);
    expect_all_shelved();
}

/* By membarrier: what a sequence on the shelf's CPU has begun must not take effect beside the portable
 * operations. */
Test(rseq_shelf, changes_its_kind_from_another_cpu_without_loss)
{
    struct client client, own = {0};
    open_shelf(false);
    need_other_cpu();
    give_all();
    start_client(&client, home, false);
    pin(other);
    for (unsigned i = 0; i < 20000; i++) {
        cr_assert(cp_shelf_change(&shelf, CP_SHELF_PORTABLE, 0));
        for (unsigned n = 0; n < 4; n++)
            swap_once(&own);
        cr_assert(cp_shelf_change(&shelf, 0, CP_SHELF_PORTABLE));
    }
    atomic_store(&stop_clients, true);
    join_client(&client);
    cr_expect_eq(own.stolen + own.lost + own.refused, 0);
    pin(home);
    expect_all_shelved();
}

BOTH(await_under_users_never_stops_a_shelf_that_holds_items)
{
    struct client client;
    unsigned set = 0;
    cr_assert_eq(give(&items[0]), CP_SHELF_DONE);
    start_client(&client, home, true);
    for (unsigned i = 0; i < 2000; i++) {
        enum cp_shelf_outcome outcome = cp_shelf_await(&shelf);
        set += outcome == CP_SHELF_DONE;
        cr_assert(outcome == CP_SHELF_DONE || outcome == CP_SHELF_NONEMPTY);
        if (outcome == CP_SHELF_DONE)
            cr_assert_eq(cp_shelf_idle(&shelf), 0, "waiting was set beside an item");
        cr_assert(cp_shelf_change(&shelf, 0, CP_SHELF_WAITING));
        if (outcome == CP_SHELF_DONE)
            break; /* the client's next give was refused, or its item is back */
    }
    atomic_store(&stop_clients, true);
    cr_assert_eq(pthread_join(client.thread, NULL), 0);
    cr_expect_leq(client.refused, set);
    cr_expect_eq(cp_shelf_idle(&shelf) + client.refused, 1, "the item is on the shelf or was refused once");
}
