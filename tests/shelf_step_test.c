/* tests/shelf_step_test.c: what a give leaves that the kernel restarts before its last store; and a forget.
 *
 * The sequences are built to delay at their steps (-DCP_STORM): a give waits at one until a signal finds it
 * there, which restarts it, and whose handler first changes what the promise is about. */
#define COREPOOL_LAYOUT_STEP(n) CP_STEP(n)
#define COREPOOL_LAYOUT_STEP_CLOBBER CP_STEP_CLOBBER
#include "machine/shelf.h"

#include <corepool/layout.h>

#include "support/both_shelves.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEPS 8
/* Of a give: what comes before is done, the last store is not. */
#define LAST_STEP 5

/* Turns that a sequence waits at each of its steps. */
extern uint32_t cp_storm[STEPS];
uint32_t cp_storm[STEPS];

static _Atomic bool is_at_last_step; /* it was, when a signal came */
static bool dooms;                   /* that signal dooms the item */

/* Of items[0], on the thread that gives it: it is on top or shelved, and can go no further. */
static void on_alarm(int signal)
{
    (void)signal;
    if (!cp_storm[LAST_STEP] ||
        (atomic_load(&shelf.top) != &items[0] && !cp_stamp_is_shelved(atomic_load(&items[0].stamp))))
        return;
    atomic_store(&items[0].doomed, dooms);
    cp_storm[LAST_STEP] = 0;
    atomic_store(&is_at_last_step, true);
}

static timer_t start_alarms(void (*handler)(int signal))
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    struct itimerspec period = {.it_interval = {.tv_nsec = 1000000}, .it_value = {.tv_nsec = 1000000}};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    cr_assert_neq(signal(SIGUSR1, handler), SIG_ERR);
    cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    cr_assert_eq(timer_settime(timer, 0, &period, NULL), 0);
    return timer;
}

/* Gives items[0], restarted at its last step. */
static enum cp_shelf_outcome give_restarted(enum cp_shelf_outcome (*how)(struct cp_item *), bool to_be_doomed)
{
    dooms = to_be_doomed;
    cp_storm[LAST_STEP] = UINT32_MAX;
    timer_t timer = start_alarms(on_alarm);
    enum cp_shelf_outcome outcome = how(&items[0]);
    timer_delete(timer);
    cr_assert(atomic_load(&is_at_last_step), "it was restarted there");
    return outcome;
}

Test(rseq_shelf, a_give_that_is_restarted_before_its_stamp_is_one_give)
{
    open_shelf(false);
    cr_assert_eq(give(&items[1]), CP_SHELF_DONE);
    cr_expect_eq(give_restarted(give, false), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), 2);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
    cr_expect_null(take(CP_NEWEST));
}

Test(rseq_shelf, a_give_that_is_refused_after_a_restart_has_changed_nothing_that_is_seen)
{
    open_shelf(false);
    cr_assert_eq(give(&items[1]), CP_SHELF_DONE);
    cr_expect_eq(give_restarted(give, true), CP_SHELF_DOOMED);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(1, CP_TAG_LEASED));
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
    cr_expect_null(take(CP_OLDEST));
}

Test(rseq_shelf, a_give_to_the_oldest_end_that_is_restarted_behind_its_stamp_is_one_give)
{
    open_shelf(false);
    cr_assert_eq(give(&items[1]), CP_SHELF_DONE);
    cr_expect_eq(give_restarted(give_oldest, false), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), 2);
    cr_expect_eq(take(CP_OLDEST), &items[0]);
    cr_expect_eq(take(CP_OLDEST), &items[1]);
    cr_expect_null(take(CP_OLDEST));
}

Test(rseq_shelf, a_give_to_the_oldest_end_that_is_refused_after_a_restart_leaves_the_lease_as_it_was)
{
    open_shelf(false);
    cr_assert_eq(give(&items[1]), CP_SHELF_DONE);
    cr_expect_eq(give_restarted(give_oldest, true), CP_SHELF_DOOMED);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(1, CP_TAG_LEASED));
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
    cr_expect_null(take(CP_OLDEST));
}

/* --- a doomed top is forgotten --- */

/* Of a forget the last store comes behind this one; of a usual give behind LAST_STEP. */
#define FORGET_LAST_STEP 4

static uint64_t aborts_before;
static void (*meanwhile)(void);

/* Of a sequence that begins again after a restart: once it did, it is at the step where it waits. */
static void on_second_alarm(int signal)
{
    (void)signal;
    if (atomic_load(&cp_shelf_aborts) == aborts_before || !meanwhile)
        return;
    cp_storm[FORGET_LAST_STEP] = cp_storm[LAST_STEP] = 0;
    meanwhile();
    meanwhile = NULL;
}

/* How `how` ends that waits at its last step, until it was restarted there and `fn` has run. */
static int end_restarted(int (*how)(void), unsigned last_step, void (*fn)(void))
{
    aborts_before = atomic_load(&cp_shelf_aborts);
    meanwhile = fn;
    cp_storm[last_step] = UINT32_MAX;
    timer_t timer = start_alarms(on_second_alarm);
    int outcome = how();
    timer_delete(timer);
    cr_assert_null(meanwhile, "it was restarted there");
    return outcome;
}

/* Leased where it is. */
static void lease_top(void)
{
    open_shelf(false);
    cr_assert_eq(give(&items[0]), CP_SHELF_DONE);
    atomic_store(&items[0].stamp, cp_stamp(2, CP_TAG_LEASED));
}

/* As callers do. */
static int give_as_usual(void)
{
    enum corepool_layout_outcome outcome = COREPOOL_LAYOUT_RESTARTED;
    uint64_t leased = cp_stamp(2, CP_TAG_LEASED);
    while (outcome == COREPOOL_LAYOUT_RESTARTED) {
        outcome = corepool_layout_give((struct corepool_layout_shelf *)(void *)&shelf,
                                       (struct corepool_layout_slot *)(void *)&items[0], leased,
                                       leased | COREPOOL_LAYOUT_SHELVED, cp_rseq_area());
        if (outcome == COREPOOL_LAYOUT_RESTARTED)
            atomic_fetch_add(&cp_shelf_aborts, 1);
    }
    return outcome;
}

static void doom_and_forget(void)
{
    cp_shelf_doom(&shelf, &items[0]);
    cp_shelf_forget_doomed(&shelf);
}

static void do_nothing(void)
{
}

Test(rseq_shelf, a_usual_give_that_is_restarted_is_one_give)
{
    lease_top();
    cr_expect_eq(end_restarted(give_as_usual, LAST_STEP, do_nothing), COREPOOL_LAYOUT_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
}

Test(rseq_shelf, a_usual_give_does_not_shelve_what_is_doomed_and_forgotten_before_its_last_store)
{
    lease_top();
    cr_expect_eq(end_restarted(give_as_usual, LAST_STEP, doom_and_forget), COREPOOL_LAYOUT_DEEP);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(2, CP_TAG_LEASED));
    cr_expect_eq(give(&items[0]), CP_SHELF_DOOMED);
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

static int forget(void)
{
    return cp_shelf_forget_doomed(&shelf);
}

static void give_another(void)
{
    give(&items[1]);
}

Test(rseq_shelf, a_forget_that_is_restarted_leaves_what_has_come_on_top_meanwhile)
{
    lease_top();
    cp_shelf_doom(&shelf, &items[0]);
    cr_expect_eq(end_restarted(forget, FORGET_LAST_STEP, give_another), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
}
