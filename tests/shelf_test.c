/* tests/shelf_test.c: the contract of machine/shelf.h: one body for both kinds of shelf. */
#include "support/both_shelves.h"

/* --- order --- */

BOTH(an_empty_shelf_says_so_at_either_end)
{
    struct cp_item *item = &items[0];
    cr_expect_eq(cp_shelf_take(&shelf, CP_NEWEST, &item), CP_SHELF_EMPTY);
    cr_expect_eq(cp_shelf_take(&shelf, CP_OLDEST, &item), CP_SHELF_EMPTY);
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(newest_takes_the_last_one_given)
{
    give_all();
    for (unsigned i = ITEMS; i-- > 0;)
        cr_expect_eq(take(CP_NEWEST), &items[i]);
    cr_expect_null(take(CP_NEWEST));
}

BOTH(oldest_takes_the_first_one_given)
{
    give_all();
    for (unsigned i = 0; i < ITEMS; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
    cr_expect_null(take(CP_OLDEST));
}

BOTH(both_ends_meet_in_the_middle)
{
    give_all();
    for (unsigned i = 0; i < ITEMS / 2; i++) {
        cr_expect_eq(take(CP_OLDEST), &items[i]);
        cr_expect_eq(take(CP_NEWEST), &items[ITEMS - 1 - i]);
    }
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(the_ring_and_its_indices_wrap_without_loss)
{
    atomic_store(&shelf.head, UINT32_MAX - 3);
    atomic_store(&shelf.tail, UINT32_MAX - 3);
    give_all();
    for (unsigned round = 0; round < 100; round++) {
        struct cp_item *item = take(CP_OLDEST);
        cr_expect_eq(item, &items[round % ITEMS]);
        cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
        cr_expect_eq(give(item), CP_SHELF_DONE);
    }
}

BOTH(what_was_taken_deep_from_the_oldest_end_goes_back_there_in_order)
{
    struct cp_item *held[ITEMS];
    give_all();
    for (unsigned i = 0; i < ITEMS / 2; i++)
        held[i] = take(CP_OLDEST);
    for (unsigned i = ITEMS / 2; i-- > 0;)
        cr_expect_eq(give_oldest(held[i]), CP_SHELF_DONE);
    for (unsigned i = 0; i < ITEMS; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
}

BOTH(a_give_to_the_oldest_end_of_an_empty_shelf_is_found_at_either_end)
{
    atomic_store(&shelf.head, 0);
    atomic_store(&shelf.tail, 0);
    cr_expect_eq(give_oldest(&items[0]), CP_SHELF_DONE, "the tail wraps below 0");
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
    cr_expect_eq(give_oldest(&items[0]), CP_SHELF_DONE);
    cr_expect_eq(take(CP_OLDEST), &items[0]);
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(a_shelf_is_filled_from_its_oldest_end)
{
    for (unsigned i = 0; i < ITEMS; i++)
        cr_expect_eq(give_oldest(&items[i]), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS);
    for (unsigned i = 0; i < ITEMS; i++)
        cr_expect_eq(take(CP_NEWEST), &items[i]);
}

BOTH(what_goes_from_the_top_to_the_oldest_end_is_on_the_shelf_once)
{
    give_all();
    struct cp_item *top = &items[ITEMS - 1];
    atomic_store(&top->stamp, cp_stamp(2, CP_TAG_LEASED)); /* taken as callers do: it stays where it is */
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
    cr_expect_eq(give_oldest(top), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS);
    cr_expect_eq(take(CP_OLDEST), top);
    for (unsigned i = 0; i < ITEMS - 1; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
    cr_expect_null(take(CP_OLDEST));
}

/* --- a larger ring --- */

BOTH(growing_keeps_what_is_there_and_its_order)
{
    static _Atomic(struct cp_item *) larger[4 * ITEMS];
    atomic_store(&shelf.head, UINT32_MAX - 2);
    atomic_store(&shelf.tail, UINT32_MAX - 2);
    give_all();
    struct cp_item *oldest = take(CP_OLDEST);
    cr_assert(cp_shelf_grow(&shelf, larger, 4 * ITEMS));
    memset(ring, 0, sizeof ring); /* no longer looked at */
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
    cr_expect_eq(give(oldest), CP_SHELF_DONE);
    cr_expect_eq(take(CP_NEWEST), oldest);
    for (unsigned i = 1; i < ITEMS; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
    cr_expect_eq(atomic_load(&shelf.flags), portable ? CP_SHELF_PORTABLE : 0);
}

BOTH(a_grown_ring_still_waits)
{
    static _Atomic(struct cp_item *) larger[2 * ITEMS];
    cr_assert_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_assert(cp_shelf_grow(&shelf, larger, 2 * ITEMS));
    cr_expect_eq(give(&items[0]), CP_SHELF_SOMEONE_WAITS);
}

/* --- what a give refuses --- */

BOTH(a_give_to_the_oldest_end_is_refused_as_any_give)
{
    uint64_t held = cp_stamp(1, CP_TAG_LEASED);
    atomic_store(&items[0].doomed, 1);
    cr_expect_eq(give_oldest(&items[0]), CP_SHELF_DOOMED);
    cr_assert_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give_oldest(&items[0]), CP_SHELF_SOMEONE_WAITS);
    cr_assert(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    cr_expect_eq(give_oldest(&items[0]), CP_SHELF_CLOSED_NOW);
    cr_expect_eq(atomic_load(&items[0].stamp), held);
    cr_expect_eq(cp_shelf_give_oldest(&shelf, &items[0], cp_stamp(9, CP_TAG_LEASED), cp_stamp(9, MINE)), CP_SHELF_STALE);
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(a_give_writes_the_stamp_that_it_was_told)
{
    cr_expect_eq(cp_shelf_give(&shelf, &items[0], cp_stamp(1, CP_TAG_LEASED), cp_stamp(1, MINE)),
                 CP_SHELF_DONE);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(1, MINE));
}

BOTH(a_second_give_of_one_lease_is_stale_and_changes_nothing)
{
    cr_expect_eq(give(&items[0]), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_give(&shelf, &items[0], cp_stamp(1, CP_TAG_LEASED), cp_stamp(1, MINE)),
                 CP_SHELF_STALE);
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
    cr_expect_eq(cp_shelf_give(&shelf, &items[0], cp_stamp(1, CP_TAG_LEASED), cp_stamp(1, MINE)),
                 CP_SHELF_STALE);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(2, CP_TAG_LEASED), "the new lease is untouched");
}

BOTH(a_doomed_item_is_not_shelved)
{
    atomic_store(&items[0].doomed, 1);
    cr_expect_eq(give(&items[0]), CP_SHELF_DOOMED);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(1, CP_TAG_LEASED));
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(a_give_while_a_request_waits_is_refused_until_the_manager_clears_it)
{
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give(&items[0]), CP_SHELF_SOMEONE_WAITS);
    cr_expect_eq(atomic_load(&items[0].stamp), cp_stamp(1, CP_TAG_LEASED));
    cr_expect(cp_shelf_wants_manager(&shelf));
    cr_expect(cp_shelf_change(&shelf, 0, CP_SHELF_WAITING));
    cr_expect_not(cp_shelf_wants_manager(&shelf));
    cr_expect_eq(give(&items[0]), CP_SHELF_DONE);
}

BOTH(await_finds_what_is_on_the_shelf)
{
    cr_expect_eq(give(&items[3]), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_NONEMPTY);
    cr_expect_not(cp_shelf_wants_manager(&shelf), "waiting is set on an empty shelf only");
    cr_expect_eq(take(CP_NEWEST), &items[3]);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
}

BOTH(a_closed_shelf_refuses_everything_and_is_drained_from_its_oldest)
{
    struct cp_item *item;
    for (unsigned i = 1; i < ITEMS; i++)
        cr_assert_eq(give(&items[i]), CP_SHELF_DONE);
    cr_expect(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    cr_expect_eq(give(&items[0]), CP_SHELF_CLOSED_NOW);
    cr_expect_eq(cp_shelf_take(&shelf, CP_NEWEST, &item), CP_SHELF_CLOSED_NOW);
    cr_expect_eq(cp_shelf_take(&shelf, CP_OLDEST, &item), CP_SHELF_CLOSED_NOW);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_CLOSED_NOW);
    cr_expect(cp_shelf_wants_manager(&shelf));
    for (unsigned i = 1; i < ITEMS; i++) {
        cr_assert(cp_shelf_drain(&shelf, &item));
        cr_expect_eq(item, &items[i]);
    }
    cr_expect_not(cp_shelf_drain(&shelf, &item));
}

BOTH(a_claim_succeeds_once)
{
    uint64_t held = cp_stamp(1, CP_TAG_LEASED), returned = cp_stamp(1, CP_TAG_RETURNED);
    cr_expect(cp_shelf_claim(&shelf, &items[0], held, returned));
    cr_expect_not(cp_shelf_claim(&shelf, &items[0], held, cp_stamp(1, CP_TAG_REMOVED)));
    cr_expect_eq(atomic_load(&items[0].stamp), returned);
    cr_expect_eq(cp_shelf_give(&shelf, &items[0], held, cp_stamp(1, MINE)), CP_SHELF_STALE);
    cr_expect_eq(cp_shelf_idle(&shelf), 0);
}

BOTH(a_give_is_refused_for_the_first_reason_of_the_contract)
{
    atomic_store(&items[0].doomed, 1);
    cr_assert_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give(&items[0]), CP_SHELF_SOMEONE_WAITS, "before doomed");
    cr_assert(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    cr_expect_eq(give(&items[0]), CP_SHELF_CLOSED_NOW, "before waiting and doomed");
    cr_expect_eq(cp_shelf_give(&shelf, &items[0], cp_stamp(9, CP_TAG_LEASED), cp_stamp(9, MINE)),
                 CP_SHELF_STALE, "before all others");
}

Test(rseq_shelf, a_take_says_closed_before_it_says_elsewhere)
{
    struct cp_item *item;
    open_shelf(false);
    need_other_cpu();
    cr_assert(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    pin(other);
    cr_expect_eq(cp_shelf_take(&shelf, CP_NEWEST, &item), CP_SHELF_CLOSED_NOW);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_CLOSED_NOW);
}

/* --- which CPU --- */

Test(rseq_shelf, is_out_of_reach_from_another_cpu)
{
    struct cp_item *item;
    open_shelf(false);
    need_other_cpu();
    cr_assert_eq(give(&items[0]), CP_SHELF_DONE);
    pin(other);
    cr_expect_eq(cp_shelf_take(&shelf, CP_NEWEST, &item), CP_SHELF_ELSEWHERE);
    cr_expect_eq(cp_shelf_take(&shelf, CP_OLDEST, &item), CP_SHELF_ELSEWHERE);
    cr_expect_eq(give(&items[1]), CP_SHELF_ELSEWHERE);
    cr_expect_eq(give_oldest(&items[1]), CP_SHELF_ELSEWHERE);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_ELSEWHERE);
    cr_expect_eq(atomic_load(&items[1].stamp), cp_stamp(1, CP_TAG_LEASED));
    pin(home);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
}

Test(portable_shelf, is_within_reach_from_any_cpu)
{
    open_shelf(true);
    need_other_cpu();
    cr_assert_eq(give(&items[0]), CP_SHELF_DONE);
    pin(other);
    cr_expect_eq(take(CP_NEWEST), &items[0]);
    cr_expect_eq(give(&items[0]), CP_SHELF_DONE);
}

Test(rseq_shelf, becomes_portable_and_back_with_its_items)
{
    open_shelf(false);
    need_other_cpu();
    give_all();
    pin(other); /* the manager has lost its CPU: a membarrier stands in for running there */
    cr_assert(cp_shelf_change(&shelf, CP_SHELF_PORTABLE, 0));
    cr_expect_eq(take(CP_NEWEST), &items[ITEMS - 1]);
    cr_expect_eq(give(&items[ITEMS - 1]), CP_SHELF_DONE);
    pin(home);
    cr_assert(cp_shelf_change(&shelf, 0, CP_SHELF_PORTABLE));
    for (unsigned i = 0; i < ITEMS; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
}
