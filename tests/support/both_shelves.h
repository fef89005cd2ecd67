/* tests/support/both_shelves.h: one shelf of each kind, for tests of machine/shelf.h.
 *
 * BOTH(promise) makes two tests of one body. Each runs pinned, so that the rseq shelf's CPU is the test's own.
 */
#ifndef SUPPORT_BOTH_SHELVES_H
#define SUPPORT_BOTH_SHELVES_H

#include <criterion/criterion.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "machine/probe.h"
#include "machine/shelf.h"

#define ITEMS 8
#define MINE CP_TAG_SHELVED

static struct cp_shelf shelf;
static _Atomic(struct cp_item *) ring[ITEMS];
static struct cp_item items[ITEMS];
static int home, other;

static inline void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
}

static inline void find_cpus(void)
{
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    home = other = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE && other < 0; cpu++)
        if (CPU_ISSET((unsigned)cpu, &set)) {
            if (home < 0)
                home = cpu;
            else
                other = cpu;
        }
}

static inline void need_rseq(void)
{
    const char *reason, *forced = getenv("COREPOOL_SHELF");
    if (forced && strcmp(forced, "portable") == 0)
        cr_skip_test("COREPOOL_SHELF forces the portable shelf");
    if (!cp_probe_rseq(&reason))
        cr_skip_test("no rseq here: %s", reason);
}

static inline void need_other_cpu(void)
{
    if (other < 0)
        cr_skip_test("one CPU only");
}

/* An open, empty shelf; the items are leased for the first time. */
static inline void open_shelf(bool portable)
{
    if (!portable)
        need_rseq();
    find_cpus();
    pin(home);
    cp_shelf_init(&shelf, ring, ITEMS, (uint32_t)home, portable);
    for (unsigned i = 0; i < ITEMS; i++) {
        atomic_store(&items[i].stamp, cp_stamp(1, CP_TAG_LEASED));
        atomic_store(&items[i].doomed, 0);
    }
}

#define BOTH(promise)                                                                                          \
    static void promise(bool portable);                                                                        \
    Test(rseq_shelf, promise)                                                                                  \
    {                                                                                                          \
        open_shelf(false);                                                                                     \
        promise(false);                                                                                        \
    }                                                                                                          \
    Test(portable_shelf, promise)                                                                              \
    {                                                                                                          \
        open_shelf(true);                                                                                      \
        promise(true);                                                                                         \
    }                                                                                                          \
    static void promise(__attribute__((unused)) bool portable)

static inline enum cp_shelf_outcome give(struct cp_item *item)
{
    uint64_t stamp = atomic_load(&item->stamp);
    return cp_shelf_give(&shelf, item, stamp, cp_stamp(cp_stamp_generation(stamp), MINE));
}

static inline enum cp_shelf_outcome give_oldest(struct cp_item *item)
{
    uint64_t stamp = atomic_load(&item->stamp);
    return cp_shelf_give_oldest(&shelf, item, stamp, cp_stamp(cp_stamp_generation(stamp), MINE));
}

/* Takes, and makes the item a lease of the next generation. */
static inline struct cp_item *take(enum cp_shelf_end end)
{
    struct cp_item *item = NULL;
    if (cp_shelf_take(&shelf, end, &item) != CP_SHELF_DONE)
        return NULL;
    atomic_store(&item->stamp, cp_stamp(cp_stamp_generation(atomic_load(&item->stamp)) + 1, CP_TAG_LEASED));
    return item;
}

static inline void give_all(void)
{
    for (unsigned i = 0; i < ITEMS; i++)
        cr_assert_eq(give(&items[i]), CP_SHELF_DONE);
}

#endif
