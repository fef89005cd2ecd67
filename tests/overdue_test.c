/* tests/overdue_test.c: how old the looks find leases, by injected time. */
#include <criterion/criterion.h>

#include <corepool/worker.h>

#include "base/clock.h"
#include "core/core.h"
#include "core/look.h"

#define MS CP_NS_PER_MS
#define REPORT 80 /* ms; a look comes every 10 */

static struct cp_core core;
static cp_slot slot;
static uint8_t found; /* the reason that the last look had */

/* A slice with one worker, which is idle on the shelf. */
static void start(int64_t report_ms, int64_t limit_ms)
{
    struct cp_action action;
    core = (struct cp_core){0};
    slot = (cp_slot){0};
    cp_core_init(&core,
                 &(struct cp_core_options){.quota = 1,
                                           .max_opening = 1,
                                           .look = {.lease_report_ns = report_ms * MS, .lease_limit_ns = limit_ms * MS}},
                 &slot);
    cp_core_next(&core, 0, &action);
    cr_assert_eq(action.what, CP_DO_OPEN);
    cp_core_opened(&core, &slot);
    cp_core_next(&core, 0, &action);
    if (action.what == CP_DO_LOOK) {
        cp_look_begin(&core);
        cp_look_at(&core, &slot, 0);
        cp_look_end(&core, 0);
        cp_core_next(&core, 0, &action);
    }
    cr_assert_eq(action.what, CP_DO_SHELVE);
    cp_slot_set_stamp(&slot, cp_stamp(0, CP_TAG_SHELVED));
}

static void lease(void)
{
    cp_slot_set_stamp(&slot, cp_stamp_next_lease(cp_slot_stamp(&slot)));
}

static void give_back(void)
{
    cp_slot_pass(&slot, CP_TAG_SHELVED);
}

/* One look; the age in ms that is to be reported, or 0. */
static int64_t look(int64_t at_ms)
{
    cp_look_begin(&core);
    found = cp_look_at(&core, &slot, at_ms * MS);
    cp_look_end(&core, at_ms * MS);
    return cp_look_overdue(&core, &slot, at_ms * MS) / MS;
}

Test(overdue, a_lease_is_reported_when_it_is_old_enough_and_whenever_its_age_has_doubled)
{
    unsigned reports = 0;
    start(REPORT, 0);
    look(1000);
    lease();
    for (int64_t at = 1010; at <= 1010 + 5 * REPORT; at += 10) {
        int64_t age = look(at);
        cr_expect(age == 0 || (age == at - 1010 && (age == REPORT || age == 2 * REPORT || age == 4 * REPORT)));
        reports += age != 0;
    }
    cr_expect_eq(reports, 3);
    cr_expect_eq(found, 0, "it may go on");
}

Test(overdue, the_next_lease_of_the_same_worker_begins_anew)
{
    start(REPORT, 0);
    lease();
    look(0);
    cr_expect_eq(look(REPORT), REPORT);
    give_back();
    lease(); /* between two looks */
    for (int64_t at = REPORT + 10; at < 2 * REPORT + 10; at += 10)
        cr_expect_eq(look(at), 0, "at %lld", (long long)at);
    cr_expect_eq(look(2 * REPORT + 10), REPORT);
}

Test(overdue, an_idle_worker_is_never_overdue)
{
    start(REPORT, REPORT);
    for (int64_t at = 0; at < 100 * REPORT; at += 10) {
        cr_expect_eq(look(at), 0);
        cr_expect_eq(found, 0);
    }
}

Test(overdue, looks_that_come_late_report_once)
{
    start(REPORT, 0);
    lease();
    look(0);
    cr_expect_eq(look(5 * REPORT), 5 * REPORT);
    cr_expect_eq(look(6 * REPORT), 0);
    cr_expect_eq(look(8 * REPORT), 8 * REPORT);
}

Test(overdue, at_the_limit_the_worker_is_to_end_and_its_reports_go_on)
{
    start(2 * REPORT, REPORT);
    lease();
    look(0);
    look(REPORT - 10);
    cr_expect_eq(found, 0);
    look(REPORT);
    cr_expect_eq(found, COREPOOL_REASON_TIMEOUT);
    atomic_store(&slot.item.doomed, 1);
    cr_expect_eq(look(2 * REPORT), 2 * REPORT);
    cr_expect_eq(found, 0, "said once");
}

Test(overdue, without_options_there_is_no_look)
{
    start(0, 0);
    cr_expect_eq(cp_look_due_at(&core), CP_NEVER);
    start(REPORT, 0);
    cr_expect_neq(cp_look_due_at(&core), CP_NEVER);
}
