/* tests/stall_judge_test.c: when a callback stalls, by injected time. */
#include <criterion/criterion.h>

#include "base/clock.h"
#include "shard/stall.h"

#define LIMIT (100 * CP_NS_PER_MS)

static struct cp_stall stall;

static int64_t at(int64_t ms, uint64_t entry)
{
    return cp_stall_judge(&stall, entry, LIMIT, ms * CP_NS_PER_MS) / CP_NS_PER_MS;
}

Test(stall_judge, one_that_runs_on_is_reported_once_and_again_whenever_it_has_doubled)
{
    unsigned reports = 0;
    for (int64_t ms = 1000; ms <= 1000 + 1700; ms += 10)
        if (at(ms, 7)) {
            reports++;
            cr_expect(ms == 1100 || ms == 1200 || ms == 1400 || ms == 1800 || ms == 2600, "at %lld", (long long)ms);
        }
    cr_expect_eq(reports, 5);
}

Test(stall_judge, the_report_says_for_how_long)
{
    at(0, 7);
    cr_expect_eq(at(130, 7), 130);
    cr_expect_eq(at(250, 7), 0, "it has not doubled");
    cr_expect_eq(at(260, 7), 260);
}

Test(stall_judge, many_short_ones_after_each_other_are_none)
{
    for (uint64_t entry = 1; entry < 1000; entry++)
        cr_expect_eq(at((int64_t)entry * 12, entry), 0);
}

Test(stall_judge, nothing_that_runs_is_none)
{
    for (int64_t ms = 0; ms < 10000; ms += 10)
        cr_expect_eq(at(ms, 0), 0);
}

Test(stall_judge, another_one_begins_anew)
{
    at(0, 1);
    cr_expect_eq(at(100, 1), 100);
    cr_expect_eq(at(150, 2), 0);
    cr_expect_eq(at(240, 2), 0);
    cr_expect_eq(at(250, 2), 100);
}

/* --- marks --- */

Test(mark, the_outermost_callback_is_named_and_nothing_after_its_end)
{
    static struct cp_mark mark = {.on = true};
    static char line[CP_CACHE_LINE] cp_line_aligned;
    struct cp_slice *slice = (struct cp_slice *)(void *)line;
    cr_expect_eq(cp_mark_look(&mark).entry, 0);
    struct cp_mark *outer = cp_mark_enter(&mark, slice, CP_CALLS_INIT);
    struct cp_mark *inner = cp_mark_enter(&mark, slice, CP_CALLS_ON_EVENT);
    cp_mark_leave(&inner);
    struct cp_sighting seen = cp_mark_look(&mark);
    cr_expect_eq(seen.slice, slice);
    cr_expect_str_eq(cp_callback_text(seen.what), "init");
    cp_mark_leave(&outer);
    cr_expect_eq(cp_mark_look(&mark).entry, 0);
    struct cp_mark *next = cp_mark_enter(&mark, NULL, CP_CALLS_POSTED);
    cr_expect_neq(cp_mark_look(&mark).entry, seen.entry);
    cr_expect_null(cp_mark_look(&mark).slice);
    cp_mark_leave(&next);
}

Test(mark, nothing_is_marked_where_nobody_watches)
{
    static struct cp_mark mark;
    struct cp_mark *entered = cp_mark_enter(&mark, NULL, CP_CALLS_INIT);
    cr_expect_null(entered);
    cr_expect_eq(atomic_load(&mark.entries), 0);
    cp_mark_leave(&entered);
}
