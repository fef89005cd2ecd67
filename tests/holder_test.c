/* tests/holder_test.c: what a thread's record remembers of the workers that it has taken, as seen at the
 * thread's end: it loses what it still has, whichever way it came by it. The pools' classes have no callbacks,
 * so that takes are usual ones. */
#include <criterion/criterion.h>

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "support/callers.h"

/* More than a record remembers. */
#define MANY 20
/* Their slots are a mapping of their own. */
#define MAPPED 4096

struct visit {
    corepool_pool_t pool, other; /* all on one CPU */
    unsigned takes;
    int status;
};

/* So that the calling thread has its record, and its next checkout may be a usual one. */
static void become_known(struct visit *visit)
{
    corepool_lease_t lease;
    visit->status |= laws_checkout(visit->other, LAWS_PATIENCE_MS, &lease);
    visit->status |= corepool_checkin(&lease);
}

static void take_and_end(void *arg)
{
    struct visit *visit = arg;
    corepool_lease_t lease;
    become_known(visit);
    for (unsigned i = 0; i < visit->takes; i++)
        visit->status |= laws_checkout(visit->pool, LAWS_PATIENCE_MS, &lease);
}

static void take_and_give(struct visit *visit)
{
    corepool_lease_t leases[MANY];
    for (unsigned i = 0; i < visit->takes; i++)
        visit->status |= laws_checkout(visit->pool, LAWS_PATIENCE_MS, &leases[i]);
    for (unsigned i = 0; i < visit->takes; i++)
        visit->status |= corepool_checkin(&leases[i]);
}

static void take_and_give_and_end(void *arg)
{
    become_known(arg);
    take_and_give(arg);
}

static void take_and_give_and_close(void *arg)
{
    struct visit *visit = arg;
    take_and_give_and_end(visit);
    visit->status |= corepool_pool_close(visit->pool, LAWS_PATIENCE_MS);
}

static struct visit start(struct laws_count *count, struct laws_count *other, unsigned size)
{
    struct visit visit = {.pool = laws_start_one(&laws_plain_class, count, size, 0), .takes = size};
    visit.other = laws_open(&laws_plain_class, other, 1, 0);
    laws_await_idle(visit.pool, size);
    laws_await_idle(visit.other, 1);
    return visit;
}

static void in_thread(void (*fn)(void *arg), struct visit *visit)
{
    laws_in_thread(laws_cpu_of(0), fn, visit);
    cr_expect_eq(visit->status, COREPOOL_OK);
}

/* Its thread has ended: at once, or not at all. */
static void expect_lost(const struct visit *visit, struct laws_count *count, unsigned workers)
{
    cr_assert_eq(laws_stats(visit->pool).reclaimed, workers);
    laws_await_count(&count->reasons[COREPOOL_REASON_DOWN], workers);
    laws_end();
}

Test(holder, a_thread_loses_the_worker_that_another_had_last)
{
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, 1);
    take_and_give(&visit);
    in_thread(take_and_end, &visit);
    expect_lost(&visit, &count, 1);
}

Test(holder, a_thread_loses_the_worker_that_an_ended_one_with_its_record_had_last)
{
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, 1);
    in_thread(take_and_give_and_end, &visit);
    in_thread(take_and_end, &visit);
    expect_lost(&visit, &count, 1);
}

Test(holder, a_thread_loses_the_worker_whose_place_an_ended_one_with_its_record_had_in_a_pool_before)
{
    struct laws_count count = {0}, next = {0}, other = {0};
    struct visit visit = start(&count, &other, MANY);
    in_thread(take_and_give_and_close, &visit);
    visit.pool = laws_open(&laws_plain_class, &next, MANY, 0); /* in the same memory */
    visit.takes = 1;
    laws_await_idle(visit.pool, MANY);
    in_thread(take_and_end, &visit);
    expect_lost(&visit, &next, 1);
}

Test(holder, a_thread_loses_all_when_it_has_more_than_are_remembered)
{
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, MANY);
    in_thread(take_and_end, &visit);
    expect_lost(&visit, &count, MANY);
}

static void *wait_and_end(void *arg)
{
    struct visit *visit = arg;
    corepool_lease_t lease;
    visit->status = laws_checkout(visit->pool, LAWS_PATIENCE_MS, &lease);
    return NULL;
}

Test(holder, a_thread_loses_the_worker_that_it_waited_for)
{
    pthread_t thread;
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, 1);
    corepool_lease_t lease = laws_take(visit.pool);
    cr_assert_eq(pthread_create(&thread, NULL, wait_and_end, &visit), 0);
    laws_await_waiting(visit.pool, 1);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(visit.status, COREPOOL_OK);
    expect_lost(&visit, &count, 1);
}

/* A thread that is there before the runtime and after it. */
struct guest {
    struct visit visit;
    sem_t begin, done, end;
};

static void await(sem_t *sem)
{
    while (sem_wait(sem) != 0)
        ; /* a signal */
}

static void *outlive(void *arg)
{
    struct guest *guest = arg;
    await(&guest->begin);
    take_and_give(&guest->visit);
    sem_post(&guest->done);
    await(&guest->end);
    return NULL;
}

Test(holder, a_thread_that_outlives_a_runtime_looks_at_nothing_there)
{
    pthread_t thread;
    struct guest guest;
    struct laws_count count = {0}, other = {0};
    corepool_runtime_t *lasting;        /* without any, nobody looks */
    mallopt(M_MMAP_THRESHOLD, 1 << 16); /* so that what is freed is gone */
    cr_assert_eq(corepool_runtime_start(NULL, &lasting), COREPOOL_OK);
    sem_init(&guest.begin, 0, 0);
    sem_init(&guest.done, 0, 0);
    sem_init(&guest.end, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, outlive, &guest), 0);
    guest.visit = start(&count, &other, MAPPED);
    guest.visit.takes = 4;
    sem_post(&guest.begin);
    await(&guest.done);
    cr_expect_eq(guest.visit.status, COREPOOL_OK);
    laws_end_quickly();
    sem_post(&guest.end);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(corepool_runtime_stop(lasting, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_destroy(lasting), COREPOOL_OK);
}

/* Takes here and there, and keeps one here. */
static void *keep_one_of_two(void *arg)
{
    struct guest *guest = arg;
    corepool_lease_t lease;
    become_known(&guest->visit);
    guest->visit.status |= laws_checkout(guest->visit.pool, LAWS_PATIENCE_MS, &lease);
    sem_post(&guest->done);
    await(&guest->end);
    return NULL;
}

static int init_brief(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t brief_class = {.name = "brief", .init = init_brief};

Test(holder, a_thread_that_outlives_a_runtime_loses_what_it_has_in_another)
{
    pthread_t thread;
    struct guest guest;
    struct laws_count count = {0}, other = {0};
    corepool_runtime_t *brief;
    guest.visit = start(&count, &other, 1);
    cr_assert_eq(corepool_runtime_start(NULL, &brief), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(corepool_pool_open(brief, &brief_class, NULL, 1, NULL, &guest.visit.other), COREPOOL_OK,
                 "%s", corepool_error_detail());
    sem_init(&guest.done, 0, 0);
    sem_init(&guest.end, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, keep_one_of_two, &guest), 0);
    await(&guest.done);
    cr_expect_eq(corepool_runtime_stop(brief, LAWS_PATIENCE_MS), COREPOOL_OK);
    cr_expect_eq(corepool_runtime_destroy(brief), COREPOOL_OK);
    sem_post(&guest.end);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(guest.visit.status, COREPOOL_OK);
    expect_lost(&guest.visit, &count, 1);
}

/* --- at a thread's end --- */

static pthread_key_t late;

/* The library's key is older: it has had its turn, and has another one. */
static void take_late(void *arg)
{
    struct visit *visit = arg;
    corepool_lease_t lease;
    visit->status |= laws_checkout(visit->pool, LAWS_PATIENCE_MS, &lease);
    if (--visit->takes > 0)
        visit->status |= pthread_setspecific(late, visit);
}

static void take_while_it_ends(void *arg)
{
    struct visit *visit = arg;
    become_known(visit);
    visit->status |= pthread_setspecific(late, visit);
}

Test(holder, a_thread_loses_what_it_takes_while_it_ends)
{
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, 2);
    cr_assert_eq(pthread_key_create(&late, take_late), 0);
    in_thread(take_while_it_ends, &visit);
    expect_lost(&visit, &count, 2);
}

/* --- one in the place of another: what tells threads apart is the same --- */

static _Alignas(4096) char stack[1 << 20];

struct placed {
    void (*fn)(void *arg);
    struct visit *visit;
};

static void *run_placed(void *arg)
{
    const struct placed *placed = arg;
    placed->fn(placed->visit);
    return NULL;
}

static void in_place(void (*fn)(void *arg), struct visit *visit)
{
    pthread_t thread;
    pthread_attr_t attributes;
    struct placed placed = {.fn = fn, .visit = visit};
    cpu_set_t home;
    CPU_ZERO(&home);
    CPU_SET(laws_cpu_of(0), &home);
    cr_assert_eq(pthread_attr_init(&attributes), 0);
    cr_assert_eq(pthread_attr_setstack(&attributes, stack, sizeof stack), 0);
    cr_assert_eq(pthread_attr_setaffinity_np(&attributes, sizeof home, &home), 0);
    cr_assert_eq(pthread_create(&thread, &attributes, run_placed, &placed), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
    cr_expect_eq(visit->status, COREPOOL_OK);
}

static void expect_lost_in_place(unsigned workers)
{
    struct laws_count count = {0}, other = {0};
    struct visit visit = start(&count, &other, workers);
    in_place(take_and_give_and_end, &visit);
    in_place(take_and_end, &visit);
    expect_lost(&visit, &count, workers);
}

Test(holder, a_thread_loses_the_worker_that_an_ended_one_in_its_place_had_last)
{
    expect_lost_in_place(1);
}

Test(holder, a_thread_loses_the_many_workers_that_an_ended_one_in_its_place_had_last)
{
    expect_lost_in_place(MANY);
}
