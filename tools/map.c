/* tools/map.c: a topology for people: packages, caches, cores, CPUs, the shard of each, and who steals where.
 *
 * A machine of up to DETAIL_CPUS CPUs gets a line per core and a steal order per shard; a bigger one a line per
 * cache, and the steal order of each cache's first shard, for the others there ask alike. */
#include "command.h"

#include <stdlib.h>

/* What fits on one screen with a line per CPU. */
#define DETAIL_CPUS 16u

const char *map_shelf_name(corepool_shelf_kind_t kind)
{
    return kind == COREPOOL_SHELF_RSEQ ? "rseq" : "portable";
}

corepool_shelf_kind_t map_shelf(const corepool_topology_t *plan, const char **reason)
{
    if (corepool_topology_is_real(plan))
        return corepool_shelf_probe(reason);
    *reason = "a runtime over a machine that is not here is unpinned";
    return COREPOOL_SHELF_PORTABLE;
}

const char *map_place_name(corepool_place_t place)
{
    static const char *const names[] = {"cpu", "core", "cache", "numa"};
    return names[place];
}

char *map_ranges(const unsigned *numbers, size_t count)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = tool_need(open_memstream(&text, &length));
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && numbers[next] == numbers[next - 1] + 1; next++)
            continue;
        fprintf(out, next - i > 1 ? "%s%u-%u" : "%s%u", i > 0 ? "," : "", numbers[i], numbers[next - 1]);
    }
    fclose(out);
    return tool_need(text);
}

void map_members(const corepool_topology_t *plan, unsigned shard, unsigned *cpus)
{
    for (unsigned cpu = 0; cpu < corepool_topology_possible_cpus(plan); cpu++)
        if (corepool_topology_covers(plan, cpu) && corepool_topology_shard_of(plan, cpu) == shard)
            *cpus++ = cpu;
}

map_slice_t *map_slices(const corepool_topology_t *plan, unsigned size, unsigned *count)
{
    unsigned shards = corepool_topology_shards(plan), rank = 0;
    unsigned *of_shard = tool_need(calloc(shards, sizeof *of_shard));
    *count = corepool_topology_slices(plan, size, of_shard);
    map_slice_t *slices = tool_need(calloc(*count, sizeof *slices));
    for (unsigned i = 0; i < shards; i++) {
        if (of_shard[i] == i) {
            slices[rank].shard = i;
            slices[rank].workers = size / *count + (rank < size % *count);
            rank++;
        }
        slices[rank - 1].serves++;
    }
    free(of_shard);
    return slices;
}

/* ---- places ---- */

static corepool_shard_place_t place_at(const corepool_topology_t *topology, unsigned shard)
{
    corepool_shard_place_t place = {0};
    (void)corepool_topology_place(topology, shard, &place); /* below the count: cannot fail */
    return place;
}

/* The cache that groups CPUs in the map: the third level, else the second, else none. */
static int cache_of(const corepool_shard_place_t *place)
{
    return place->l3 >= 0 ? place->l3 : place->l2;
}

static bool same_group(const corepool_shard_place_t *a, const corepool_shard_place_t *b)
{
    return a->package == b->package && a->numa_node == b->numa_node && a->l3 == b->l3 &&
           cache_of(a) == cache_of(b);
}

static int compare_numbers(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

/* Sorts, drops repetitions, prints "word 3" or "words 0-3" in a column. */
static void print_numbers(FILE *out, const char *word, unsigned *numbers, size_t count, int width)
{
    size_t kept = 0;
    qsort(numbers, count, sizeof *numbers, compare_numbers);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || numbers[kept - 1] != numbers[i])
            numbers[kept++] = numbers[i];
    char *text = map_ranges(numbers, kept);
    fprintf(out, "  %s%s %-*s", word, kept > 1 ? "s" : "", width, text);
    free(text);
}

/* ---- the map ---- */

/* The CPUs first … end-1, which sit in one core or one cache, on one line. */
static void print_row(FILE *out, const corepool_topology_t *cpus, const corepool_topology_t *plan,
                      unsigned first, unsigned end)
{
    size_t count = end - first;
    unsigned *numbers = tool_need(calloc(count, sizeof *numbers));
    int width = count == 1 ? 5 : 10;
    if (place_at(cpus, first).core >= 0) {
        for (unsigned i = first; i < end; i++)
            numbers[i - first] = (unsigned)place_at(cpus, i).core;
        print_numbers(out, "core", numbers, count, width);
    }
    for (unsigned i = first; i < end; i++)
        numbers[i - first] = (unsigned)place_at(cpus, i).cpu;
    print_numbers(out, "cpu", numbers, count, width);
    for (unsigned i = first; i < end; i++)
        numbers[i - first] = corepool_topology_shard_of(plan, (unsigned)place_at(cpus, i).cpu);
    print_numbers(out, "shard", numbers, count, 0);
    fputc('\n', out);
    free(numbers);
}

static void print_cache(FILE *out, const corepool_shard_place_t *place, bool with_node)
{
    fputs(" ", out);
    if (place->l3 >= 0 || place->l2 >= 0)
        fprintf(out, " l%d cache %d", place->l3 >= 0 ? 3 : 2, cache_of(place));
    else
        fputs(" no shared cache", out);
    if (with_node && place->numa_node >= 0)
        fprintf(out, "  numa node %d", place->numa_node);
}

/* One group of CPUs under one cache. */
static void print_group(FILE *out, const corepool_topology_t *cpus, const corepool_topology_t *plan,
                        unsigned first, unsigned end)
{
    corepool_shard_place_t place = place_at(cpus, first);
    print_cache(out, &place, true);
    if (corepool_topology_shards(cpus) > DETAIL_CPUS) {
        print_row(out, cpus, plan, first, end);
        return;
    }
    fputc('\n', out);
    for (unsigned i = first, next; i < end; i = next) {
        for (next = i + 1; next < end && place_at(cpus, next).core >= 0; next++)
            if (place_at(cpus, next).core != place_at(cpus, i).core)
                break;
        fputs("  ", out);
        print_row(out, cpus, plan, i, next);
    }
}

static void print_packages(FILE *out, const corepool_topology_t *cpus, const corepool_topology_t *plan)
{
    unsigned count = corepool_topology_shards(cpus);
    int package = -2; /* none yet; -1 is "the machine does not say" */
    for (unsigned i = 0, next; i < count; i = next) {
        corepool_shard_place_t place = place_at(cpus, i), other;
        if (place.package != package && place.package >= 0)
            fprintf(out, "package %d\n", place.package);
        package = place.package;
        for (next = i + 1; next < count; next++) {
            other = place_at(cpus, next);
            if (!same_group(&place, &other))
                break;
        }
        print_group(out, cpus, plan, i, next);
    }
}

static void print_served(FILE *out, const unsigned *numbers, unsigned count, const char *by)
{
    char *text = map_ranges(numbers, count);
    fprintf(out, "without a shard: cpu%s %s (callers there are served by %s)\n", count > 1 ? "s" : "", text,
            by);
    free(text);
}

/* CPUs that are offline, not allowed or not listed: by shard where that is readable, else all together. */
static void print_strangers(FILE *out, const corepool_topology_t *plan)
{
    unsigned possible = corepool_topology_possible_cpus(plan), shards = corepool_topology_shards(plan);
    bool by_shard = shards <= DETAIL_CPUS;
    unsigned *numbers = tool_need(calloc(possible, sizeof *numbers));
    for (unsigned shard = 0, count = 0; shard < (by_shard ? shards : 1); shard++, count = 0) {
        char by[32] = "the nearest shard";
        for (unsigned cpu = 0; cpu < possible; cpu++)
            if (!corepool_topology_covers(plan, cpu) &&
                (!by_shard || corepool_topology_shard_of(plan, cpu) == shard))
                numbers[count++] = cpu;
        if (by_shard)
            (void)snprintf(by, sizeof by, "shard %u", shard);
        if (count > 0)
            print_served(out, numbers, count, by);
    }
    free(numbers);
}

/* ---- slices ---- */

/* How small a pool may be to have so many slices: from every shard's own down to one. */
static void print_rule(FILE *out, const corepool_topology_t *plan)
{
    unsigned shards = corepool_topology_shards(plan), slices = shards;
    unsigned *of_shard = tool_need(calloc(shards, sizeof *of_shard));
    fprintf(out, "pools    %u workers or more: a slice on every shard", shards);
    for (unsigned size = shards - 1; slices > 1; size = 2 * slices - 1) {
        slices = corepool_topology_slices(plan, size, of_shard);
        if (slices > 1)
            fprintf(out, "; from %u on: %u slices", 2 * slices, slices);
        else
            fputs("; fewer: one slice", out);
    }
    fputc('\n', out);
    free(of_shard);
}

static void print_slices(FILE *out, const corepool_topology_t *plan, unsigned size)
{
    unsigned count, shards = corepool_topology_shards(plan);
    map_slice_t *slices = map_slices(plan, size, &count);
    unsigned *numbers = tool_need(calloc(shards, sizeof *numbers));
    for (unsigned i = 0; i < shards; i++)
        numbers[i] = i;
    fprintf(out, "\nslices of a pool of %u: %u\n", size, count);
    for (unsigned i = 0; i < count; i++) {
        char *text = map_ranges(numbers + slices[i].shard, slices[i].serves);
        fprintf(out, "  shard %-4u %u worker%s for the callers of shard%s %s\n", slices[i].shard, slices[i].workers,
                slices[i].workers > 1 ? "s" : "", slices[i].serves > 1 ? "s" : "", text);
        free(text);
    }
    free(numbers);
    free(slices);
}

/* ---- the steal order ---- */

static void print_order(FILE *out, const corepool_topology_t *plan, unsigned shard, unsigned *order)
{
    unsigned count = corepool_topology_shards(plan) - 1;
    corepool_topology_neighbours(plan, shard, order);
    fprintf(out, "  shard %-4u ", shard);
    for (unsigned i = 0, next; i < count; i = next) {
        corepool_distance_t distance = corepool_topology_distance(plan, shard, order[i]);
        for (next = i + 1; next < count; next++)
            if (corepool_topology_distance(plan, shard, order[next]) != distance)
                break;
        char *text = map_ranges(order + i, next - i);
        fprintf(out, "%s%s: %s", i > 0 ? " | " : "", corepool_distance_name(distance), text);
        free(text);
    }
    fputc('\n', out);
}

static void print_orders(FILE *out, const corepool_topology_t *plan)
{
    unsigned count = corepool_topology_shards(plan);
    bool all = count <= DETAIL_CPUS;
    unsigned *order = tool_need(calloc(count, sizeof *order));
    fprintf(out, "\nsteal order: what is shared, and with which shards, nearest first%s\n",
            all ? "" : "\n(of the first shard under each cache; the others there ask alike)");
    for (unsigned i = 0; i < count; i++) {
        corepool_shard_place_t here = place_at(plan, i), before = place_at(plan, i > 0 ? i - 1 : 0);
        if (all || i == 0 || !same_group(&here, &before))
            print_order(out, plan, i, order);
    }
    free(order);
}

/* ---- all of it ---- */

/* What the machine does not say is not counted. */
static unsigned count_different(const corepool_topology_t *cpus, int (*of)(const corepool_shard_place_t *))
{
    unsigned count = 0;
    for (unsigned i = 0; i < corepool_topology_shards(cpus); i++) {
        corepool_shard_place_t here = place_at(cpus, i), before = place_at(cpus, i > 0 ? i - 1 : 0);
        count += of(&here) >= 0 && (i == 0 || of(&here) != of(&before));
    }
    return count;
}

static int package_of(const corepool_shard_place_t *place)
{
    return place->package;
}

static int node_of(const corepool_shard_place_t *place)
{
    return place->numa_node;
}

static int core_of(const corepool_shard_place_t *place)
{
    return place->core;
}

static void print_count(FILE *out, const char *word, unsigned count)
{
    if (count > 0)
        fprintf(out, ", %u %s%s", count, word, count > 1 ? "s" : "");
}

static void print_quota(FILE *out, unsigned quota)
{
    if (quota > 0)
        fprintf(out, "quota    %u.%03u CPUs of time for this process, by its control group\n", quota / 1000, quota % 1000);
}

void map_print(FILE *out, const corepool_topology_t *cpus, const corepool_topology_t *plan, unsigned size)
{
    unsigned shards = corepool_topology_shards(plan);
    const char *reason = NULL;
    corepool_shelf_kind_t shelf = map_shelf(plan, &reason);
    fprintf(out, "machine  %s: %u usable CPU%s", corepool_topology_is_real(plan) ? "this one" : "synthetic",
            corepool_topology_shards(cpus), corepool_topology_shards(cpus) > 1 ? "s" : "");
    print_count(out, "core", count_different(cpus, core_of));
    print_count(out, "package", count_different(cpus, package_of));
    print_count(out, "NUMA node", count_different(cpus, node_of));
    fputc('\n', out);
    print_quota(out, corepool_topology_cpu_quota(plan));
    fprintf(out, "shards   %u\n", shards);
    fprintf(out, "shelf    %s%s%s\n", map_shelf_name(shelf), reason == NULL ? "" : ": ", reason == NULL ? "" : reason);
    if (shards > 1)
        print_rule(out, plan);
    fputc('\n', out);
    print_packages(out, cpus, plan);
    print_strangers(out, plan);
    if (size > 0)
        print_slices(out, plan, size);
    if (shards > 1)
        print_orders(out, plan);
}
