/* bench/layers/shelf.c: a take and a give, on both kinds of shelf, by one thread and by two.
 *
 * Each pair makes the item a lease of the next generation, as a checkout does; afterwards all items must be back, and
 * their generations have grown by as many as there were pairs. */
#include <string.h>

#include "layers.h"
#include "machine/probe.h"
#include "machine/shelf.h"

#define ITEMS 16
#define THREADS 2

struct place {
    struct cp_shelf shelf;
    _Atomic(struct cp_item *) ring[ITEMS];
    struct {
        struct cp_item item;
    } cp_line_aligned items[ITEMS];
};

/* Two threads: which shelves, and on which CPUs. */
enum together { OWN_SHELVES, ONE_SHELF_ONE_CPU, ONE_SHELF_TWO_CPUS };

static struct place places[THREADS];

static void open_place(unsigned number, bool portable)
{
    struct place *place = &places[number];
    memset(place, 0, sizeof *place);
    cp_shelf_init(&place->shelf, place->ring, ITEMS, (uint32_t)bench_usable_cpu(number), portable);
    for (unsigned i = 0; i < ITEMS; i++) {
        struct cp_item *item = &place->items[i].item;
        atomic_store(&item->stamp, cp_stamp(0, CP_TAG_SHELVED));
        atomic_store(&place->ring[i], item);
    }
    atomic_store(&place->shelf.head, ITEMS);
}

static void check_place(unsigned number, uint64_t pairs)
{
    const struct place *place = &places[number];
    uint64_t leases = 0;
    BENCH_REQUIRE(cp_shelf_idle(&place->shelf) == ITEMS, "%u items of %d are back", cp_shelf_idle(&place->shelf), ITEMS);
    for (unsigned i = 0; i < ITEMS; i++)
        leases += cp_stamp_generation(atomic_load(&place->items[i].item.stamp));
    BENCH_REQUIRE(leases == pairs, "%llu pairs run, %llu leases counted", (unsigned long long)pairs,
                  (unsigned long long)leases);
}

static void run_pairs(struct cp_shelf *shelf, enum cp_shelf_end end, uint64_t pairs)
{
    while (pairs--) {
        struct cp_item *item;
        BENCH_REQUIRE(cp_shelf_take(shelf, end, &item) == CP_SHELF_DONE, "nothing to take");
        uint64_t lease = cp_stamp_passed(cp_stamp_next_lease(atomic_load_explicit(&item->stamp, memory_order_relaxed)),
                                         CP_TAG_LEASED);
        atomic_store_explicit(&item->stamp, lease, memory_order_relaxed);
        BENCH_REQUIRE(cp_shelf_give(shelf, item, lease, cp_stamp_passed(lease, CP_TAG_SHELVED)) == CP_SHELF_DONE, "cannot give");
    }
}

/* --- one thread --- */

static double run_alone(uint64_t pairs, enum cp_shelf_end end, bool portable)
{
    open_place(0, portable);
    int64_t begin = layer_begin(true);
    run_pairs(&places[0].shelf, end, pairs);
    int64_t ns = layer_end(begin);
    check_place(0, pairs);
    return (double)ns / (double)pairs;
}

static double newest(uint64_t pairs, uint64_t portable)
{
    return run_alone(pairs, CP_NEWEST, portable);
}

static double oldest(uint64_t pairs, uint64_t portable)
{
    return run_alone(pairs, CP_OLDEST, portable);
}

/* --- two threads --- */

struct load {
    uint64_t pairs; /* of each */
    enum together together;
    bool portable;
};

static void share(unsigned number, void *arg)
{
    const struct load *load = arg;
    struct cp_shelf *shelf = &places[load->together == OWN_SHELVES ? number : 0].shelf;
    /* Who finds the lock held may sleep on it. */
    bool quiet = !load->portable || load->together == OWN_SHELVES;
    layer_meet();
    int64_t begin = layer_begin(quiet);
    run_pairs(shelf, CP_NEWEST, load->pairs);
    layer_end(begin);
}

/* ns of CPU per pair. */
static double run_both(uint64_t pairs, enum together together, bool portable)
{
    struct load load = {.pairs = pairs / THREADS, .together = together, .portable = portable};
    for (unsigned i = 0; i < THREADS; i++)
        open_place(i, portable);
    unsigned per_cpu = together == ONE_SHELF_ONE_CPU ? THREADS : 1;
    int64_t ns = layer_threads(THREADS, per_cpu, share, &load);
    for (unsigned i = 0; i < THREADS; i++)
        check_place(i, together == OWN_SHELVES ? load.pairs : i == 0 ? load.pairs * THREADS : 0);
    return (double)ns / (double)(load.pairs * per_cpu);
}

static double own_shelves(uint64_t pairs, uint64_t portable)
{
    return run_both(pairs, OWN_SHELVES, portable);
}

static double one_cpu(uint64_t pairs, uint64_t portable)
{
    return run_both(pairs, ONE_SHELF_ONE_CPU, portable);
}

static double two_cpus(uint64_t pairs, uint64_t portable)
{
    return run_both(pairs, ONE_SHELF_TWO_CPUS, portable);
}

static struct layer_case cases[] = {
    {.name = "rseq, 1 thread, newest", .run = newest},
    {.name = "rseq, 1 thread, oldest", .run = oldest},
    {.name = "rseq, 2 threads, a CPU and a shelf each", .run = own_shelves},
    {.name = "rseq, 2 threads, one CPU, one shelf", .run = one_cpu},
    {.name = "portable, 1 thread, newest", .run = newest, .arg = true},
    {.name = "portable, 1 thread, oldest", .run = oldest, .arg = true},
    {.name = "portable, 2 threads, a CPU and a shelf each", .run = own_shelves, .arg = true},
    {.name = "portable, 2 threads, one CPU, one shelf", .run = one_cpu, .arg = true},
    {.name = "portable, 2 threads, two CPUs, one shelf", .run = two_cpus, .arg = true},
};
#define CASES (sizeof cases / sizeof cases[0])

int main(int argc, char **argv)
{
    const char *reason = NULL;
    bool rseq = cp_probe_rseq(&reason), two = bench_usable_cpus() >= 2;
    for (struct layer_case *one = cases; one < cases + CASES; one++) {
        if (!one->arg && !rseq)
            one->without = reason;
        else if (!two && (one->run == own_shelves || one->run == two_cpus))
            one->without = "one CPU only";
    }
    return layer_main(argc, argv, "shelf: ns of CPU of a take and a give", cases, CASES, 5000000);
}
