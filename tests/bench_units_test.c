/* tests/bench_units_test.c: what `corepool bench` reckons with: schedules of arrivals, who is next, and
 * percentiles of waits. No clock. */
#include <criterion/criterion.h>

#include <stdint.h>
#include <stdlib.h>

#include "../bench/command/agenda.h"
#include "../bench/command/histogram.h"
#include "../bench/command/pace.h"

/* ---- open loop ---- */

Test(pace, arrivals_are_an_interval_apart_from_the_first_on)
{
    const struct pace pace = {.first_ns = 1000, .interval_ns = 250, .burst = 1};
    for (unsigned n = 0; n < 100; n++)
        cr_assert_eq(pace_time(&pace, n), 1000 + 250 * (int64_t)n);
}

Test(pace, a_rate_that_is_no_whole_number_of_ns_does_not_drift)
{
    const struct pace pace = {.interval_ns = 1e9 / 3, .burst = 1};
    cr_assert_eq(pace_time(&pace, 3000000), INT64_C(1000000) * 1000000000);
}

Test(pace, a_burst_arrives_at_one_moment_and_the_mean_rate_stays)
{
    const struct pace pace = {.first_ns = 7, .interval_ns = 100, .burst = 64};
    for (unsigned n = 0; n < 64; n++) {
        cr_assert_eq(pace_time(&pace, n), 7);
        cr_assert_eq(pace_time(&pace, 64 + n), 7 + 6400);
    }
}

Test(pace, what_is_due_is_what_was_meant_to_arrive_before_now)
{
    static const unsigned bursts[] = {1, 3, 64};
    for (unsigned i = 0; i < 3; i++) {
        const struct pace pace = {.first_ns = 50, .interval_ns = 33.3, .burst = bursts[i]};
        for (int64_t now = 0; now < 20000; now += 7) {
            uint64_t due = pace_due(&pace, now);
            cr_assert(due == 0 || pace_time(&pace, due - 1) < now, "%d: number %d is not due yet", (int)now,
                      (int)due - 1);
            cr_assert_geq(pace_time(&pace, due), now, "%d: number %d is due", (int)now, (int)due);
        }
    }
}

/* A caller that is held up owes everything that came meanwhile, each from its own time: no wait hides the next.
 */
Test(pace, a_late_caller_owes_each_arrival_from_when_it_was_meant)
{
    const struct pace pace = {.first_ns = 0, .interval_ns = 100, .burst = 1};
    int64_t now = 1000; /* it was busy until then with number 0 */
    for (unsigned n = 1; n < 10; n++)
        cr_assert_eq(now - pace_time(&pace, n), 1000 - 100 * (int64_t)n);
    cr_assert_eq(pace_due(&pace, now), 10);
}

/* ---- who is next ---- */

#define PEOPLE 100u

Test(agenda, an_empty_one_has_nobody_at_any_time)
{
    struct agenda_entry room[1];
    struct agenda agenda = {.entries = room};
    int one;
    cr_assert_eq(agenda_next(&agenda), INT64_MAX);
    agenda_add(&agenda, 5, &one);
    cr_assert_eq(agenda_next(&agenda), 5);
    cr_assert_eq(agenda_take(&agenda), &one);
    cr_assert_eq(agenda_next(&agenda), INT64_MAX);
}

/* As callers do: whoever was taken is added again, for a time that is later or, if it is late, has passed. */
Test(agenda, the_earliest_comes_first_whatever_was_added_and_taken_before)
{
    struct agenda_entry room[PEOPLE];
    struct agenda agenda = {.entries = room};
    int64_t at[PEOPLE];
    srand(1);
    for (unsigned i = 0; i < PEOPLE; i++) {
        at[i] = rand() % 50;
        agenda_add(&agenda, at[i], &at[i]);
    }
    for (unsigned round = 0; round < 10000; round++) {
        int64_t least = INT64_MAX;
        for (unsigned i = 0; i < PEOPLE; i++)
            least = at[i] < least ? at[i] : least;
        cr_assert_eq(agenda_next(&agenda), least);
        int64_t *who = agenda_take(&agenda);
        cr_assert_eq(*who, least);
        *who += rand() % 100 - 10;
        agenda_add(&agenda, *who, who);
    }
}

Test(agenda, everybody_comes_once_also_those_of_the_same_time)
{
    struct agenda_entry room[PEOPLE];
    struct agenda agenda = {.entries = room};
    unsigned taken[PEOPLE] = {0};
    for (unsigned i = 0; i < PEOPLE; i++)
        agenda_add(&agenda, i / 10, &taken[i]);
    for (unsigned i = 0; i < PEOPLE; i++) {
        cr_assert_eq(agenda_next(&agenda), i / 10);
        ++*(unsigned *)agenda_take(&agenda);
    }
    for (unsigned i = 0; i < PEOPLE; i++)
        cr_assert_eq(taken[i], 1);
}

/* ---- percentiles ---- */

static struct histogram *make(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    cr_assert_not_null(histogram);
    return histogram;
}

Test(histogram, an_empty_one_answers_nothing)
{
    struct histogram *histogram = make();
    cr_assert_eq(histogram_quantile(histogram, 0.5), 0);
    cr_assert_eq(histogram_quantile(histogram, 1), 0);
    free(histogram);
}

Test(histogram, small_values_are_exact)
{
    struct histogram *histogram = make();
    for (int64_t ns = 1; ns <= 50; ns++)
        histogram_add(histogram, ns);
    cr_assert_eq(histogram_quantile(histogram, 0), 1);
    cr_assert_eq(histogram_quantile(histogram, 0.5), 25);
    cr_assert_eq(histogram_quantile(histogram, 0.98), 49);
    cr_assert_eq(histogram_quantile(histogram, 1), 50);
    free(histogram);
}

Test(histogram, a_quantile_is_never_below_and_at_most_a_64th_above_the_value)
{
    struct histogram *histogram = make();
    const unsigned count = 1000000;
    for (unsigned i = 1; i <= count; i++)
        histogram_add(histogram, i * INT64_C(977));
    static const double parts[] = {0.0001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        double exact = parts[i] * count * 977, got = (double)histogram_quantile(histogram, parts[i]);
        cr_assert(got >= exact - 977 && got <= exact * (1 + 1.0 / 64) + 977, "%g: %g, exactly %g", parts[i],
                  got, exact);
    }
    cr_assert_eq(histogram_quantile(histogram, 1), count * UINT64_C(977));
    free(histogram);
}

Test(histogram, one_long_wait_in_a_thousand_shows_from_the_999th_on)
{
    struct histogram *histogram = make();
    for (unsigned i = 0; i < 999; i++)
        histogram_add(histogram, 10);
    histogram_add(histogram, 1000000007);
    cr_assert_eq(histogram_quantile(histogram, 0.999), 10);
    cr_assert_eq(histogram_quantile(histogram, 0.9991), 1000000007);
    free(histogram);
}

Test(histogram, merged_ones_answer_as_one_that_saw_all)
{
    struct histogram *all = make(), *odd = make(), *even = make();
    for (unsigned i = 0; i < 10000; i++) {
        histogram_add(all, i * 31);
        histogram_add(i % 2 ? odd : even, i * 31);
    }
    histogram_merge(odd, even);
    cr_assert_arr_eq(odd, all, sizeof *all);
    free(all);
    free(odd);
    free(even);
}

Test(histogram, every_value_has_a_class_whose_limit_is_not_below_it)
{
    struct histogram *histogram = make();
    for (unsigned shift = 0; shift < 63; shift++)
        for (int64_t near = -1; near <= 1; near++) {
            int64_t value = (INT64_C(1) << shift) + near;
            *histogram = (struct histogram){0};
            histogram_add(histogram, value);
            cr_assert_eq(histogram_quantile(histogram, 0.5), (uint64_t)value);
        }
    histogram_add(histogram, INT64_MAX);
    histogram_add(histogram, -5);
    cr_assert_eq(histogram->count[0], 1);
    free(histogram);
}
