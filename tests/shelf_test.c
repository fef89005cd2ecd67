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

/* --- a top that is leased where it is --- */

/* As callers take it in the usual case. */
static struct cp_item *lease_top(void)
{
    struct cp_item *top = atomic_load(&shelf.top);
    cr_assert_eq(top, cp_shelf_idle_top(&shelf));
    atomic_store(&top->stamp, cp_stamp(cp_stamp_generation(atomic_load(&top->stamp)) + 1, CP_TAG_LEASED));
    return top;
}

static void expect_newest_first(unsigned items_left)
{
    while (items_left-- > 0)
        cr_expect_eq(take(CP_NEWEST), &items[items_left]);
    cr_expect_null(take(CP_NEWEST));
}

BOTH(a_leased_top_is_idle_for_nobody)
{
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(give(&items[i]), CP_SHELF_DONE);
    struct cp_item *top = lease_top();
    cr_expect_eq(top, &items[2]);
    cr_expect_eq(cp_shelf_idle(&shelf), 2);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
    cr_expect_eq(take(CP_OLDEST), &items[0]);
    cr_expect_null(take(CP_NEWEST));
    cr_expect_null(take(CP_OLDEST));
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give(top), CP_SHELF_SOMEONE_WAITS);
    cr_expect_eq(cp_shelf_idle(&shelf), 0, "a give that is refused leaves it leased");
    cr_expect(cp_shelf_change(&shelf, 0, CP_SHELF_WAITING));
    cr_expect_eq(give(top), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), 1);
    cr_expect_eq(cp_shelf_await(&shelf), CP_SHELF_NONEMPTY);
    cr_expect_eq(take(CP_OLDEST), top);
}

BOTH(a_leased_top_whose_place_another_takes_comes_back_above_that)
{
    give_all();
    struct cp_item *top = lease_top(), *next = take(CP_NEWEST);
    cr_expect_eq(give(next), CP_SHELF_DONE);
    cr_expect_eq(give(top), CP_SHELF_DONE);
    expect_newest_first(ITEMS);
}

BOTH(a_leased_top_that_comes_back_to_its_place_goes_below_who_comes_later)
{
    give_all();
    struct cp_item *top = lease_top(), *next = take(CP_NEWEST);
    cr_expect_eq(give(top), CP_SHELF_DONE);
    cr_expect_eq(give(next), CP_SHELF_DONE);
    cr_expect_eq(take(CP_NEWEST), next);
    cr_expect_eq(take(CP_NEWEST), top);
    expect_newest_first(ITEMS - 2);
}

BOTH(a_top_that_its_manager_holds_comes_back_as_any_other)
{
    give_all();
    struct cp_item *top = lease_top();
    cr_expect(cp_shelf_claim(&shelf, top, cp_stamp(2, CP_TAG_LEASED), cp_stamp(2, CP_TAG_MANAGER)));
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
    cr_expect_eq(give(top), CP_SHELF_DONE);
    expect_newest_first(ITEMS);
}

BOTH(what_goes_from_the_top_to_the_oldest_end_is_on_the_shelf_once)
{
    give_all();
    struct cp_item *top = lease_top();
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
    cr_expect_eq(give_oldest(top), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS);
    cr_expect_eq(take(CP_OLDEST), top);
    for (unsigned i = 0; i < ITEMS - 1; i++)
        cr_expect_eq(take(CP_OLDEST), &items[i]);
    cr_expect_null(take(CP_OLDEST));
}

BOTH(growing_keeps_a_leased_top_in_its_place)
{
    static _Atomic(struct cp_item *) larger[2 * ITEMS];
    give_all();
    struct cp_item *top = lease_top();
    cr_assert(cp_shelf_grow(&shelf, larger, 2 * ITEMS));
    memset(ring, 0, sizeof ring); /* no longer looked at */
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
    cr_expect_eq(give(top), CP_SHELF_DONE);
    expect_newest_first(ITEMS);
}

BOTH(a_closed_shelf_is_drained_of_all_but_its_leased_top)
{
    struct cp_item *item;
    give_all();
    struct cp_item *top = lease_top();
    cr_expect(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    for (unsigned i = 0; i < ITEMS - 1; i++) {
        cr_assert(cp_shelf_drain(&shelf, &item));
        cr_expect_eq(item, &items[i]);
    }
    cr_expect_not(cp_shelf_drain(&shelf, &item));
    cr_expect_eq(give(top), CP_SHELF_CLOSED_NOW);
    cr_expect_not(cp_shelf_drain(&shelf, &item));
}

Test(rseq_shelf, changes_its_kind_with_a_leased_top)
{
    open_shelf(false);
    give_all();
    for (unsigned i = 0; i < 2; i++) {
        struct cp_item *top = lease_top();
        cr_assert(cp_shelf_change(&shelf, CP_SHELF_PORTABLE, 0));
        cr_expect_eq(cp_shelf_idle(&shelf), ITEMS - 1);
        if (i)
            cr_expect_eq(give(top), CP_SHELF_DONE, "while it is portable");
        cr_assert(cp_shelf_change(&shelf, 0, CP_SHELF_PORTABLE));
        if (!i)
            cr_expect_eq(give(top), CP_SHELF_DONE, "when it is back");
    }
    expect_newest_first(ITEMS);
}

/* --- a leased top that is doomed --- */

/* As callers give it back in the usual case, where all that is looked at is whether the item is the top. */
static bool is_given_without_a_look(const struct cp_item *item)
{
    return atomic_load(&shelf.top) == item;
}

BOTH(a_leased_top_that_is_doomed_is_forgotten_and_refused_when_it_comes_back)
{
    give_all();
    struct cp_item *top = lease_top();
    cp_shelf_doom(&shelf, top);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect_not(is_given_without_a_look(top));
    cr_expect_eq(give(top), CP_SHELF_DOOMED);
    cr_expect_eq(give_oldest(top), CP_SHELF_DOOMED);
    cr_expect_eq(atomic_load(&top->stamp), cp_stamp(2, CP_TAG_LEASED));
    expect_newest_first(ITEMS - 1);
}

BOTH(an_idle_top_that_is_doomed_stays_until_it_is_taken)
{
    give_all();
    struct cp_item *top = atomic_load(&shelf.top);
    cp_shelf_doom(&shelf, top);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect_eq(cp_shelf_idle(&shelf), ITEMS);
    expect_newest_first(ITEMS);
}

BOTH(a_leased_top_stays_when_another_is_doomed)
{
    give_all();
    struct cp_item *top = lease_top();
    cp_shelf_doom(&shelf, &items[0]);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect(is_given_without_a_look(top));
    cr_expect_eq(give(top), CP_SHELF_DONE);
    expect_newest_first(ITEMS);
}

BOTH(a_shelf_without_a_top_has_nothing_to_forget)
{
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cp_shelf_doom(&shelf, &items[0]);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give(&items[1]), CP_SHELF_DONE);
    cr_expect_eq(take(CP_NEWEST), &items[1]);
}

BOTH(a_leased_top_that_is_doomed_is_forgotten_while_a_request_waits_or_all_is_closed)
{
    cr_assert_eq(give(&items[0]), CP_SHELF_DONE);
    struct cp_item *top = lease_top();
    cr_assert_eq(cp_shelf_await(&shelf), CP_SHELF_DONE);
    cr_assert(cp_shelf_change(&shelf, CP_SHELF_CLOSED, 0));
    cp_shelf_doom(&shelf, top);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect_not(is_given_without_a_look(top));
}

Test(rseq_shelf, does_not_forget_from_another_cpu)
{
    open_shelf(false);
    need_other_cpu();
    give_all();
    struct cp_item *top = lease_top();
    cp_shelf_doom(&shelf, top);
    pin(other);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_ELSEWHERE);
    cr_expect_eq(atomic_load(&shelf.top), top);
    pin(home);
    cr_expect_eq(cp_shelf_forget_doomed(&shelf), CP_SHELF_DONE);
    cr_expect_eq(give(top), CP_SHELF_DOOMED);
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
