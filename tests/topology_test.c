/* tests/topology_test.c: where shards sit, on this machine and on machines that hwloc makes up. */
#include <criterion/criterion.h>

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <corepool/error.h>
#include "machine/cpus.h"
#include "machine/topology.h"

/* 128 CPUs: 2 packages of 4 caches of 8 cores of 2 threads. */
#define BIG "pack:2 l3:4 core:8 pu:2"
/* 64 CPUs with every distance between them. */
#define DEEP "pack:2 numa:2 l3:2 l2:2 core:2 pu:2"

static corepool_topology_t *open_topology(const corepool_topology_options_t *options)
{
    corepool_topology_t *topology;
    int err = corepool_topology_open(options, &topology);
    cr_assert_eq(err, COREPOOL_OK, "%s", corepool_error_detail());
    return topology;
}

static corepool_topology_t *open_synthetic(const char *synthetic, const char *cpus, corepool_place_t place)
{
    return open_topology(&(corepool_topology_options_t){.synthetic = synthetic, .cpus = cpus, .place = place});
}

static corepool_shard_place_t place_of(const corepool_topology_t *topology, unsigned shard)
{
    corepool_shard_place_t place;
    cr_assert_eq(corepool_topology_place(topology, shard, &place), COREPOOL_OK);
    return place;
}

static void expect_refused(const corepool_topology_options_t *options, const char *word)
{
    corepool_topology_t *topology = (corepool_topology_t *)&topology;
    cr_assert_eq(corepool_topology_open(options, &topology), COREPOOL_EINVAL);
    cr_assert_null(topology);
    const char *detail = corepool_error_detail();
    cr_assert_not_null(strstr(detail, word), "\"%s\" lacks \"%s\"", detail, word);
}

static void bind_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
}

static int count_affinity(cpu_set_t *set)
{
    cr_assert_eq(sched_getaffinity(0, sizeof *set, set), 0);
    return CPU_COUNT(set);
}

static int last_usable(void)
{
    cpu_set_t set;
    int last = -1;
    count_affinity(&set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            last = cpu;
    return last;
}

/* ---- this machine ---- */

Test(topology, gives_each_usable_cpu_of_this_machine_one_shard)
{
    cpu_set_t set;
    corepool_topology_t *topology = open_topology(NULL);
    cr_assert(corepool_topology_is_real(topology));
    cr_assert_eq(corepool_topology_shards(topology), (unsigned)count_affinity(&set));
    cr_assert_geq(corepool_topology_possible_cpus(topology), (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    for (unsigned i = 0; i < corepool_topology_shards(topology); i++) {
        corepool_shard_place_t place = place_of(topology, i);
        cr_assert_eq(place.shard, i);
        cr_assert_eq(place.members, 1);
        cr_assert(CPU_ISSET(place.cpu, &set));
        cr_assert_eq(corepool_topology_shard_of(topology, (unsigned)place.cpu), i);
        cr_assert(corepool_topology_covers(topology, (unsigned)place.cpu));
    }
    corepool_topology_close(topology);
}

Test(topology, honours_the_affinity_of_the_thread_that_opens_it)
{
    int last = last_usable();
    bind_to(last);
    corepool_topology_t *topology = open_topology(NULL);
    cr_assert_eq(corepool_topology_shards(topology), 1);
    cr_assert_eq(place_of(topology, 0).cpu, last);
    for (unsigned cpu = 0; cpu < corepool_topology_possible_cpus(topology); cpu++) {
        cr_assert_eq(corepool_topology_shard_of(topology, cpu), 0);
        cr_assert_eq(corepool_topology_covers(topology, cpu), cpu == (unsigned)last);
    }
    corepool_topology_close(topology);
}

Test(topology, refuses_a_listed_cpu_outside_the_affinity)
{
    char list[16];
    int last = last_usable();
    bind_to(last);
    cr_assert_lt(snprintf(list, sizeof list, "%d", last == 0 ? 1 : 0), (int)sizeof list);
    if (last > 0)
        expect_refused(&(corepool_topology_options_t){.cpus = list}, "may not use it");
    else
        expect_refused(&(corepool_topology_options_t){.cpus = list}, "no CPU");
}

Test(topology, discovery_leaves_the_affinity_of_the_caller_alone)
{
    cpu_set_t before, after;
    count_affinity(&before);
    corepool_topology_close(open_topology(NULL));
    count_affinity(&after);
    cr_assert(CPU_EQUAL(&before, &after));
}

Test(topology, pins_the_thread_to_the_cpu_of_its_shard)
{
    cpu_set_t set;
    corepool_topology_t *topology = open_topology(NULL);
    unsigned last = corepool_topology_shards(topology) - 1;
    cr_assert_eq(cp_topology_pin(topology, last), COREPOOL_OK, "%s", corepool_error_detail());
    cr_assert_eq(count_affinity(&set), 1);
    cr_assert(CPU_ISSET(place_of(topology, last).cpu, &set));
    cr_assert_eq(sched_getcpu(), place_of(topology, last).cpu);
    corepool_topology_close(topology);
}

Test(topology, pins_a_cache_shard_to_all_of_its_cpus)
{
    cpu_set_t set;
    corepool_topology_options_t options = {.place = COREPOOL_PLACE_CACHE};
    corepool_topology_t *topology = open_topology(&options);
    cr_assert_eq(cp_topology_pin(topology, 0), COREPOOL_OK);
    cr_assert_eq((unsigned)count_affinity(&set), place_of(topology, 0).members);
    corepool_topology_close(topology);
}

Test(topology, memory_is_zeroed_and_aligned)
{
    size_t bytes = 100000;
    corepool_topology_t *topology = open_topology(NULL);
    for (unsigned shard = 0; shard < corepool_topology_shards(topology); shard++) {
        unsigned char *memory = cp_topology_alloc(topology, shard, bytes);
        cr_assert_not_null(memory);
        cr_assert_eq((uintptr_t)memory % 64, 0);
        for (size_t i = 0; i < bytes; i++)
            cr_assert_eq(memory[i], 0);
        memset(memory, 1, bytes);
        cp_topology_free(topology, memory, bytes);
    }
    cp_topology_free(topology, NULL, bytes);
    corepool_topology_close(topology);
}

/* ---- machines that are not there ---- */

Test(topology, lays_out_a_big_machine_in_its_own_order)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    cr_assert_not(corepool_topology_is_real(topology));
    cr_assert_eq(corepool_topology_shards(topology), 128);
    cr_assert_eq(corepool_topology_possible_cpus(topology), 128);
    corepool_shard_place_t place = place_of(topology, 127);
    cr_assert_eq(place.cpu, 127);
    cr_assert_eq(place.core, 63);
    cr_assert_eq(place.l2, -1);
    cr_assert_eq(place.l3, 7);
    cr_assert_eq(place.package, 1);
    corepool_topology_close(topology);
}

Test(topology, cannot_pin_to_a_synthetic_cpu)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    cr_assert_eq(cp_topology_pin(topology, 0), COREPOOL_ENOTSUP);
    corepool_topology_close(topology);
}

Test(topology, places_one_shard_per_core)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CORE);
    cr_assert_eq(corepool_topology_shards(topology), 64);
    for (unsigned cpu = 0; cpu < 128; cpu++) {
        cr_assert_eq(corepool_topology_shard_of(topology, cpu), cpu / 2);
        cr_assert(corepool_topology_covers(topology, cpu));
    }
    cr_assert_eq(place_of(topology, 5).members, 2);
    cr_assert_eq(place_of(topology, 5).cpu, 10);
    corepool_topology_close(topology);
}

Test(topology, places_one_shard_per_cache)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CACHE);
    cr_assert_eq(corepool_topology_shards(topology), 8);
    for (unsigned shard = 0; shard < 8; shard++) {
        cr_assert_eq(place_of(topology, shard).l3, (int)shard);
        cr_assert_eq(place_of(topology, shard).members, 16);
    }
    cr_assert_eq(corepool_topology_shard_of(topology, 127), 7);
    corepool_topology_close(topology);
}

Test(topology, places_one_shard_per_numa_node)
{
    corepool_topology_t *topology = open_synthetic(DEEP, NULL, COREPOOL_PLACE_NUMA);
    cr_assert_eq(corepool_topology_shards(topology), 4);
    for (unsigned shard = 0; shard < 4; shard++) {
        cr_assert_eq(place_of(topology, shard).numa_node, (int)shard);
        cr_assert_eq(place_of(topology, shard).members, 16);
        cr_assert_eq(corepool_topology_shard_of(topology, 16 * shard + 15), shard);
    }
    corepool_topology_close(topology);
}

Test(topology, falls_back_where_there_is_no_core_and_no_cache)
{
    corepool_topology_t *topology = open_synthetic("4", NULL, COREPOOL_PLACE_CORE);
    cr_assert_eq(corepool_topology_shards(topology), 4);
    corepool_topology_close(topology);
    topology = open_synthetic("4", NULL, COREPOOL_PLACE_CACHE);
    cr_assert_eq(corepool_topology_shards(topology), 1);
    cr_assert_eq(place_of(topology, 0).members, 4);
    corepool_topology_close(topology);
}

Test(topology, names_what_two_shards_share)
{
    static const struct {
        unsigned other;
        const char *name;
    } expected[] = {
        {0, "self"}, {1, "core"}, {2, "l2"}, {4, "l3"}, {8, "numa node"}, {16, "package"}, {32, "machine"},
    };
    corepool_topology_t *topology = open_synthetic(DEEP, NULL, COREPOOL_PLACE_CPU);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        unsigned other = expected[i].other;
        corepool_distance_t distance = corepool_topology_distance(topology, 0, other);
        cr_assert_str_eq(corepool_distance_name(distance), expected[i].name);
        cr_assert_eq(corepool_topology_distance(topology, other, 0), distance);
    }
    corepool_topology_close(topology);
}

/* Where no node is described hwloc adds one that spans everything; that must not bring the packages nearer. */
Test(topology, a_numa_node_that_spans_packages_is_no_nearness)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    cr_assert_eq(corepool_topology_distance(topology, 0, 16), COREPOOL_DISTANCE_PACKAGE);
    cr_assert_eq(corepool_topology_distance(topology, 0, 64), COREPOOL_DISTANCE_MACHINE);
    corepool_topology_close(topology);
}

/* ---- the order in which a starving shard asks ---- */

static void check_order(const corepool_topology_t *topology, unsigned shard)
{
    unsigned count = corepool_topology_shards(topology);
    unsigned *order = calloc(count, sizeof *order);
    bool *seen = calloc(count, sizeof *seen);
    cr_assert(order != NULL && seen != NULL);
    corepool_distance_t last = COREPOOL_DISTANCE_SELF;
    corepool_topology_neighbours(topology, shard, order);
    for (unsigned i = 0; i + 1 < count; i++) {
        cr_assert_lt(order[i], count);
        cr_assert(order[i] != shard && !seen[order[i]]);
        seen[order[i]] = true;
        corepool_distance_t distance = corepool_topology_distance(topology, shard, order[i]);
        cr_assert_geq(distance, last);
        if (i > 0 && distance == last)
            cr_assert_lt((order[i - 1] + count - shard) % count, (order[i] + count - shard) % count);
        last = distance;
    }
    free(order);
    free(seen);
}

Test(topology, neighbours_are_a_permutation_nearest_first)
{
    static const char *const machines[] = {BIG, DEEP, "pu:5", "pu:1"};
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        corepool_topology_t *topology = open_synthetic(machines[i], NULL, COREPOOL_PLACE_CPU);
        for (unsigned shard = 0; shard < corepool_topology_shards(topology); shard++)
            check_order(topology, shard);
        corepool_topology_close(topology);
    }
}

Test(topology, equals_are_asked_from_the_next_one_on)
{
    unsigned order[3];
    corepool_topology_t *topology = open_synthetic("pu:4", NULL, COREPOOL_PLACE_CPU);
    corepool_topology_neighbours(topology, 2, order);
    cr_assert(order[0] == 3 && order[1] == 0 && order[2] == 1);
    corepool_topology_close(topology);
}

/* ---- callers on CPUs without a shard ---- */

Test(topology, an_uncovered_cpu_goes_to_the_nearest_shard)
{
    corepool_topology_t *topology = open_synthetic(BIG, "1,20,64", COREPOOL_PLACE_CPU);
    cr_assert_eq(corepool_topology_shards(topology), 3);
    cr_assert_eq(corepool_topology_shard_of(topology, 0), 0, "the other thread of its core");
    cr_assert_eq(corepool_topology_shard_of(topology, 15), 0, "same cache");
    cr_assert_eq(corepool_topology_shard_of(topology, 31), 1, "same cache");
    cr_assert_eq(corepool_topology_shard_of(topology, 127), 2, "same package");
    cr_assert_not(corepool_topology_covers(topology, 0));
    cr_assert(corepool_topology_covers(topology, 1));
    corepool_topology_close(topology);
}

Test(topology, uncovered_cpus_are_spread_over_equally_near_shards)
{
    unsigned served[4] = {0};
    corepool_topology_t *topology = open_synthetic("l3:1 core:16 pu:1", "0-3", COREPOOL_PLACE_CPU);
    for (unsigned cpu = 0; cpu < 16; cpu++)
        served[corepool_topology_shard_of(topology, cpu)]++;
    for (unsigned shard = 0; shard < 4; shard++)
        cr_assert_eq(served[shard], 4);
    corepool_topology_close(topology);
}

Test(topology, any_cpu_number_is_answered)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    static const unsigned strange[] = {128, 8192, INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        cr_assert_eq(corepool_topology_shard_of(topology, strange[i]), 0);
        cr_assert_not(corepool_topology_covers(topology, strange[i]));
    }
    corepool_topology_close(topology);
}

/* ---- slices of small pools ---- */

#define SHARDS_MAX 128

/* The slices of a pool of that size; as the rule says, and its own shard's where it lives. */
static unsigned slices_of(const corepool_topology_t *topology, unsigned size, unsigned of_shard[SHARDS_MAX])
{
    unsigned shards = corepool_topology_shards(topology), homes = 0;
    unsigned slices = corepool_topology_slices(topology, size, of_shard);
    for (unsigned i = 0; i < shards; i++) {
        cr_assert_leq(of_shard[i], i, "a slice is on the first shard that it serves");
        cr_assert_eq(of_shard[of_shard[i]], of_shard[i]);
        homes += of_shard[i] == i;
    }
    cr_assert_eq(homes, slices);
    return slices;
}

static void expect_slices(const corepool_topology_t *topology, unsigned size, unsigned slices, corepool_distance_t reach)
{
    unsigned of_shard[SHARDS_MAX], shards = corepool_topology_shards(topology);
    cr_assert_eq(slices_of(topology, size, of_shard), slices, "size %u", size);
    for (unsigned a = 0; a < shards; a++)
        for (unsigned b = 0; b < shards; b++)
            cr_assert_eq(of_shard[a] == of_shard[b], corepool_topology_distance(topology, a, b) <= reach,
                         "size %u: shards %u and %u", size, a, b);
}

Test(topology, a_pool_as_large_as_the_machine_has_a_slice_on_every_shard)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    expect_slices(topology, 128, 128, COREPOOL_DISTANCE_SELF);
    expect_slices(topology, 1000000, 128, COREPOOL_DISTANCE_SELF);
    corepool_topology_close(topology);
}

Test(topology, a_smaller_pool_has_the_finest_slices_that_get_two_workers_each)
{
    corepool_topology_t *topology = open_synthetic(BIG, NULL, COREPOOL_PLACE_CPU);
    expect_slices(topology, 127, 8, COREPOOL_DISTANCE_L3); /* 64 cores would want 128 */
    expect_slices(topology, 16, 8, COREPOOL_DISTANCE_L3);
    expect_slices(topology, 15, 2, COREPOOL_DISTANCE_PACKAGE);
    expect_slices(topology, 4, 2, COREPOOL_DISTANCE_PACKAGE);
    for (unsigned size = 1; size <= 3; size++)
        expect_slices(topology, size, 1, COREPOOL_DISTANCE_MACHINE);
    corepool_topology_close(topology);
}

Test(topology, every_level_of_a_machine_may_have_the_slices)
{
    corepool_topology_t *topology = open_synthetic("pack:2 numa:2 l3:2 l2:2 core:2 pu:3", NULL, COREPOOL_PLACE_CPU);
    expect_slices(topology, 96, 96, COREPOOL_DISTANCE_SELF);
    expect_slices(topology, 95, 32, COREPOOL_DISTANCE_CORE);
    expect_slices(topology, 64, 32, COREPOOL_DISTANCE_CORE);
    expect_slices(topology, 63, 16, COREPOOL_DISTANCE_L2);
    expect_slices(topology, 31, 8, COREPOOL_DISTANCE_L3);
    expect_slices(topology, 15, 4, COREPOOL_DISTANCE_NUMA);
    expect_slices(topology, 7, 2, COREPOOL_DISTANCE_PACKAGE);
    expect_slices(topology, 3, 1, COREPOOL_DISTANCE_MACHINE);
    corepool_topology_close(topology);
}

Test(topology, slices_follow_the_groups_of_an_uneven_machine)
{
    /* Of four caches with four cores: 4, 1, 3 and none. */
    corepool_topology_t *topology = open_synthetic("pack:2 l3:2 core:4 pu:1", "0-3,6,8-10", COREPOOL_PLACE_CPU);
    expect_slices(topology, 8, 8, COREPOOL_DISTANCE_SELF);
    expect_slices(topology, 7, 3, COREPOOL_DISTANCE_L3);
    expect_slices(topology, 5, 2, COREPOOL_DISTANCE_PACKAGE);
    expect_slices(topology, 3, 1, COREPOOL_DISTANCE_MACHINE);
    corepool_topology_close(topology);
}

Test(topology, a_machine_that_says_nothing_has_one_slice_for_small_pools)
{
    corepool_topology_t *topology = open_synthetic("6", NULL, COREPOOL_PLACE_CPU);
    expect_slices(topology, 5, 1, COREPOOL_DISTANCE_MACHINE);
    expect_slices(topology, 6, 6, COREPOOL_DISTANCE_SELF);
    corepool_topology_close(topology);
}

/* ---- what is asked for ---- */

Test(topology, a_cpu_list_limits_the_shards)
{
    corepool_topology_t *topology = open_synthetic(BIG, "0-3,8,8,2-4", COREPOOL_PLACE_CPU);
    cr_assert_eq(corepool_topology_shards(topology), 6);
    cr_assert_eq(place_of(topology, 5).cpu, 8);
    corepool_topology_close(topology);
    topology = open_synthetic(BIG, "3", COREPOOL_PLACE_CORE);
    cr_assert_eq(place_of(topology, 0).members, 1, "a core is only its listed CPUs");
    corepool_topology_close(topology);
}

Test(topology, a_bad_cpu_list_is_refused_by_name)
{
    static const char *const garbage[] = {"",    ",",  "0,",  "-1", "1-0", "0-",
                                          "0x1", " 0", "0 1", "a",  "0;1", "0--1"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
        expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .cpus = garbage[i]}, "not a CPU list");
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .cpus = "128"}, "no CPU 128");
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .cpus = "0-4294967296"}, "no CPU above");
    expect_refused(&(corepool_topology_options_t){.cpus = "8191"}, "no CPU 8191");
}

Test(topology, cpus_left_alone_have_no_shard_and_are_served_by_the_nearest)
{
    const corepool_topology_options_t options = {.synthetic = BIG, .except = "0-1,64-65,127"};
    corepool_topology_t *topology = open_topology(&options);
    cr_assert_eq(corepool_topology_shards(topology), 123);
    cr_assert_not(corepool_topology_covers(topology, 64));
    cr_assert_eq(place_of(topology, corepool_topology_shard_of(topology, 64)).l3, 4);
    cr_assert_eq(place_of(topology, corepool_topology_shard_of(topology, 127)).core, 63, "its core's other CPU");
    corepool_topology_close(topology);
    topology = open_topology(&(corepool_topology_options_t){.synthetic = BIG, .cpus = "0-3", .except = "2-9"});
    cr_assert_eq(corepool_topology_shards(topology), 2, "of those that are listed");
    corepool_topology_close(topology);
}

Test(topology, a_bad_exception_is_refused_by_name)
{
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .except = "0-"}, "except: \"0-\": not a CPU list");
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .except = "128"}, "except: \"128\": there is no CPU");
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .except = "0-127"}, "leaves no CPU");
    expect_refused(&(corepool_topology_options_t){.synthetic = BIG, .cpus = "5", .except = "4-6"}, "leaves no CPU");
}

Test(topology, a_number_that_the_machine_skips_is_refused)
{
    expect_refused(&(corepool_topology_options_t){.synthetic = "pu:2(indexes=0,5)", .cpus = "0,3"}, "3");
}

Test(topology, a_bad_description_is_refused_by_name)
{
    static const char *const garbage[] = {"", "nonsense", "pack:", "pack:2 l3:x", "pu:0", "-1"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
        expect_refused(&(corepool_topology_options_t){.synthetic = garbage[i]}, "synthetic");
    expect_refused(&(corepool_topology_options_t){.synthetic = "pack:999 core:999 pu:999"}, "more than 8192");
    expect_refused(&(corepool_topology_options_t){.synthetic = "pu:18446744073709551617"}, "more than 8192");
}

Test(topology, an_unknown_place_is_refused)
{
    expect_refused(&(corepool_topology_options_t){.place = (corepool_place_t)7}, "place: 7");
    cr_assert_eq(corepool_topology_open(NULL, NULL), COREPOOL_EINVAL);
}

Test(topology, an_unknown_shard_is_refused)
{
    corepool_shard_place_t place;
    corepool_topology_t *topology = open_topology(NULL);
    unsigned beyond = corepool_topology_shards(topology);
    cr_assert_eq(corepool_topology_place(topology, beyond, &place), COREPOOL_EINVAL);
    corepool_topology_close(topology);
    corepool_topology_close(NULL);
}

static unsigned cpus_of_line(const char *text)
{
    char line[64];
    (void)snprintf(line, sizeof line, "%s", text);
    return cp_cpus_of_line(line);
}

/* A last number that is cut off would be taken for a smaller one. */
Test(topology, possible_cpus_are_those_of_a_whole_line_or_none)
{
    cr_expect_eq(cpus_of_line("0\n"), 1);
    cr_expect_eq(cpus_of_line("0-127\n"), 128);
    cr_expect_eq(cpus_of_line("0-3,8-11\n"), 12);
    cr_expect_eq(cpus_of_line("0-12"), 0);
    cr_expect_eq(cpus_of_line("0-3,\n"), 0);
    cr_expect_eq(cpus_of_line("some\n"), 0);
    cr_expect_eq(cpus_of_line("\n"), 0);
    cr_expect_eq(cpus_of_line(""), 0);
}
