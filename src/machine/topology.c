/* machine/topology.c: where the shards sit, read once from hwloc.
 *
 * Opening goes in steps: load the whole machine (also CPUs that this process may not use now: a caller's
 * affinity may be wider, or become so), take the CPUs that are wanted, make a seat per shard, and map every
 * possible CPU number to its nearest seat. Afterwards nothing changes: all queries are table look-ups.
 *
 * Two things are settled here for everybody: shards are numbered in hwloc's logical order, so that neighbours
 * in number are neighbours in the machine; and a NUMA node counts as nearness only where it is a part of a
 * package, for a node that spans packages says less than the package does. */
#include "machine/topology.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <hwloc.h>
#include <hwloc/glibc-sched.h>

#include "base/error.h"
#include "machine/cgroup.h"
#include "machine/cpus.h"

#define CACHE_LINE 64u

/* One shard's place, or where some CPU would sit if it had a shard. */
typedef struct cp_seat {
    corepool_shard_place_t place;
    int inner_node;         /* logical index of its NUMA node where that is a part of its package, else -1 */
    hwloc_obj_t anchor;     /* what the shard stands for: CPU, core, cache or NUMA node */
    hwloc_bitmap_t members; /* its CPUs; NULL for a mere CPU */
} cp_seat_t;

struct corepool_topology {
    hwloc_topology_t map;
    bool real;
    bool bind_memory; /* there is more than one NUMA node to choose from */
    unsigned shard_count;
    unsigned possible;
    unsigned cpu_quota; /* thousandths of a CPU; 0: none */
    cp_seat_t *seats;   /* shard_count of them */
    unsigned *shard_of; /* by CPU number, `possible` of them */
};

/* ---- loading ---- */

/* How many CPUs a synthetic description asks for: the product of its level counts, saturating. */
static unsigned long count_synthetic(const char *text)
{
    unsigned long cpus = 1;
    unsigned depth = 0, number;
    bool counts = true; /* a number here is a level's count: at a word's start or after its colon */
    while (*text != '\0') {
        if (depth == 0 && counts && cp_cpus_read_number(&text, &number)) {
            cpus = cpus > CP_CPUS_MAX ? cpus : cpus * number;
            counts = false;
            continue;
        }
        depth += *text == '(' || *text == '[';
        depth -= depth > 0 && (*text == ')' || *text == ']');
        counts = *text == ':' || *text == ' ';
        text++;
    }
    return cpus;
}

static int set_synthetic(hwloc_topology_t map, const char *text)
{
    unsigned long cpus = count_synthetic(text);
    if (cpus > CP_CPUS_MAX)
        return cp_fail(COREPOOL_EINVAL, "synthetic: \"%s\": more than %u CPUs", text, CP_CPUS_MAX);
    if (hwloc_topology_set_synthetic(map, text) != 0)
        return cp_fail(COREPOOL_EINVAL,
                       "synthetic: \"%s\": not a description such as \"pack:2 l3:4 core:8 pu:2\"", text);
    return COREPOOL_OK;
}

/* No I/O devices, and no binding of this thread to each CPU in turn, which hwloc otherwise does on x86: the
 * kernel's tables say enough. */
static int load_map(corepool_topology_t *topology, const char *synthetic)
{
    unsigned long flags = HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED | HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING;
    if (hwloc_topology_init(&topology->map) != 0) {
        topology->map = NULL;
        return cp_fail(COREPOOL_ENOMEM, "topology: hwloc: %s", strerror(errno));
    }
    if (synthetic != NULL) {
        int err = set_synthetic(topology->map, synthetic);
        if (err != COREPOOL_OK)
            return err;
    }
    if (hwloc_topology_set_flags(topology->map, flags) != 0 || hwloc_topology_load(topology->map) != 0) {
        if (synthetic != NULL)
            return cp_fail(COREPOOL_EINVAL, "synthetic: \"%s\": refused: %s", synthetic, strerror(errno));
        return cp_fail(COREPOOL_ESYSTEM, "topology: hwloc's discovery failed: %s", strerror(errno));
    }
    topology->real = synthetic == NULL && hwloc_topology_is_thissystem(topology->map);
    topology->bind_memory = topology->real && hwloc_get_nbobjs_by_type(topology->map, HWLOC_OBJ_NUMANODE) > 1;
    return COREPOOL_OK;
}

/* ---- seats ---- */

static int find_index(hwloc_topology_t map, hwloc_obj_t pu, hwloc_obj_type_t type)
{
    hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(map, type, pu);
    return above == NULL ? -1 : (int)above->logical_index;
}

/* The node whose memory is local to the CPU; the first where there are several (fast and plain memory). */
static hwloc_obj_t find_node(hwloc_topology_t map, hwloc_obj_t pu)
{
    hwloc_obj_t node = NULL;
    while ((node = hwloc_get_next_obj_by_type(map, HWLOC_OBJ_NUMANODE, node)) != NULL)
        if (hwloc_bitmap_isset(node->cpuset, pu->os_index))
            break;
    return node;
}

static hwloc_obj_t find_anchor(hwloc_topology_t map, hwloc_obj_t pu, corepool_place_t place)
{
    static const hwloc_obj_type_t caches[] = {HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_PACKAGE};
    hwloc_obj_t anchor = NULL;
    if (place == COREPOOL_PLACE_CPU)
        return pu;
    if (place == COREPOOL_PLACE_CORE) {
        anchor = hwloc_get_ancestor_obj_by_type(map, HWLOC_OBJ_CORE, pu);
        return anchor == NULL ? pu : anchor;
    }
    if (place == COREPOOL_PLACE_NUMA) {
        anchor = find_node(map, pu);
        return anchor == NULL ? hwloc_get_root_obj(map) : anchor;
    }
    for (size_t i = 0; anchor == NULL && i < sizeof caches / sizeof caches[0]; i++)
        anchor = hwloc_get_ancestor_obj_by_type(map, caches[i], pu);
    return anchor == NULL ? hwloc_get_root_obj(map) : anchor;
}

static cp_seat_t describe_cpu(hwloc_topology_t map, hwloc_obj_t pu, corepool_place_t place)
{
    hwloc_obj_t node = find_node(map, pu);
    hwloc_obj_t whole = hwloc_get_ancestor_obj_by_type(map, HWLOC_OBJ_PACKAGE, pu);
    if (whole == NULL)
        whole = hwloc_get_root_obj(map);
    bool inner = node != NULL && hwloc_bitmap_isincluded(node->cpuset, whole->cpuset) &&
                 !hwloc_bitmap_isequal(node->cpuset, whole->cpuset);
    return (cp_seat_t){
        .place =
            {
                .cpu = (int)pu->os_index,
                .core = find_index(map, pu, HWLOC_OBJ_CORE),
                .l2 = find_index(map, pu, HWLOC_OBJ_L2CACHE),
                .l3 = find_index(map, pu, HWLOC_OBJ_L3CACHE),
                .numa_node = node == NULL ? -1 : (int)node->os_index,
                .package = find_index(map, pu, HWLOC_OBJ_PACKAGE),
            },
        .inner_node = inner ? (int)node->logical_index : -1,
        .anchor = find_anchor(map, pu, place),
    };
}

static bool shares(int a, int b)
{
    return a >= 0 && a == b;
}

static corepool_distance_t measure_distance(const cp_seat_t *a, const cp_seat_t *b)
{
    if (shares(a->place.core, b->place.core))
        return COREPOOL_DISTANCE_CORE;
    if (shares(a->place.l2, b->place.l2))
        return COREPOOL_DISTANCE_L2;
    if (shares(a->place.l3, b->place.l3))
        return COREPOOL_DISTANCE_L3;
    if (shares(a->inner_node, b->inner_node))
        return COREPOOL_DISTANCE_NUMA;
    if (shares(a->place.package, b->place.package))
        return COREPOOL_DISTANCE_PACKAGE;
    return COREPOOL_DISTANCE_MACHINE;
}

/* Adds the CPU to the last seat if that stands for the same thing (hwloc's order keeps those together), else to
 * a new one. The array has room for one seat per CPU. */
static int seat_cpu(corepool_topology_t *topology, const cp_seat_t *cpu)
{
    cp_seat_t *seat = topology->shard_count > 0 ? &topology->seats[topology->shard_count - 1] : NULL;
    if (seat == NULL || seat->anchor != cpu->anchor) {
        seat = &topology->seats[topology->shard_count];
        *seat = *cpu;
        seat->place.shard = topology->shard_count;
        seat->members = hwloc_bitmap_alloc();
        if (seat->members == NULL)
            return cp_fail(COREPOOL_ENOMEM, "topology: no memory for a CPU set");
        topology->shard_count++;
    }
    if (hwloc_bitmap_set(seat->members, (unsigned)cpu->place.cpu) != 0)
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory for a CPU set");
    seat->place.members++;
    return COREPOOL_OK;
}

static int seat_shards(corepool_topology_t *topology, corepool_place_t place, hwloc_const_bitmap_t wanted)
{
    hwloc_obj_t pu = NULL;
    topology->seats = calloc((size_t)hwloc_bitmap_weight(wanted), sizeof *topology->seats);
    if (topology->seats == NULL)
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory for the shards' places");
    while ((pu = hwloc_get_next_obj_by_type(topology->map, HWLOC_OBJ_PU, pu)) != NULL) {
        if (!hwloc_bitmap_isset(wanted, pu->os_index))
            continue;
        cp_seat_t cpu = describe_cpu(topology->map, pu, place);
        int err = seat_cpu(topology, &cpu);
        if (err != COREPOOL_OK)
            return err;
    }
    return COREPOOL_OK;
}

/* ---- every CPU number to a shard ---- */

/* Nearest first; among equals the one that serves fewest strangers so far, so that they are spread evenly. */
static unsigned find_nearest(const corepool_topology_t *topology, const cp_seat_t *cpu,
                             const unsigned *strangers)
{
    unsigned best = 0;
    corepool_distance_t best_distance = measure_distance(cpu, &topology->seats[0]);
    for (unsigned i = 1; i < topology->shard_count; i++) {
        corepool_distance_t distance = measure_distance(cpu, &topology->seats[i]);
        if (distance < best_distance || (distance == best_distance && strangers[i] < strangers[best])) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

static int map_cpus(corepool_topology_t *topology)
{
    hwloc_obj_t pu = NULL;
    unsigned *strangers = calloc(topology->shard_count, sizeof *strangers);
    topology->shard_of = calloc(topology->possible, sizeof *topology->shard_of);
    if (strangers == NULL || topology->shard_of == NULL) {
        free(strangers);
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory for %u CPUs", topology->possible);
    }
    for (unsigned i = 0; i < topology->shard_count; i++) {
        unsigned cpu;
        hwloc_bitmap_foreach_begin(cpu, topology->seats[i].members) topology->shard_of[cpu] = i;
        hwloc_bitmap_foreach_end();
    }
    while ((pu = hwloc_get_next_obj_by_type(topology->map, HWLOC_OBJ_PU, pu)) != NULL) {
        if (corepool_topology_covers(topology, pu->os_index))
            continue;
        cp_seat_t cpu = describe_cpu(topology->map, pu, COREPOOL_PLACE_CPU);
        topology->shard_of[pu->os_index] = find_nearest(topology, &cpu, strangers);
        strangers[topology->shard_of[pu->os_index]]++;
    }
    free(strangers);
    return COREPOOL_OK;
}

/* ---- open and close ---- */

static int build(corepool_topology_t *topology, const corepool_topology_options_t *options)
{
    int err = load_map(topology, options->synthetic);
    if (err != COREPOOL_OK)
        return err;
    topology->possible = cp_cpus_possible(topology->map, topology->real);
    hwloc_bitmap_t wanted = hwloc_bitmap_alloc();
    if (wanted == NULL)
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory for a CPU set");
    err = cp_cpus_choose(topology->map, topology->real, topology->possible, options->cpus, wanted);
    if (err == COREPOOL_OK && options->except != NULL)
        err = cp_cpus_except(topology->possible, options->except, wanted);
    if (err == COREPOOL_OK)
        err = seat_shards(topology, options->place, wanted);
    if (err == COREPOOL_OK)
        err = map_cpus(topology);
    hwloc_bitmap_free(wanted);
    topology->cpu_quota = topology->real ? cp_cgroup_cpu_quota("") : 0;
    return err;
}

int corepool_topology_open(const corepool_topology_options_t *options, corepool_topology_t **topology)
{
    static const corepool_topology_options_t defaults = {0};
    if (topology == NULL)
        return cp_fail(COREPOOL_EINVAL, "topology: NULL: nowhere to put it");
    *topology = NULL;
    if (options == NULL)
        options = &defaults;
    if ((unsigned)options->place > COREPOOL_PLACE_NUMA)
        return cp_fail(COREPOOL_EINVAL, "place: %d: not one of COREPOOL_PLACE_*", (int)options->place);
    corepool_topology_t *made = calloc(1, sizeof *made);
    if (made == NULL)
        return cp_fail(COREPOOL_ENOMEM, "topology: no memory");
    int err = build(made, options);
    if (err != COREPOOL_OK) {
        corepool_topology_close(made);
        return err;
    }
    *topology = made;
    return COREPOOL_OK;
}

void corepool_topology_close(corepool_topology_t *topology)
{
    if (topology == NULL)
        return;
    for (unsigned i = 0; i < topology->shard_count; i++)
        hwloc_bitmap_free(topology->seats[i].members);
    free(topology->seats);
    free(topology->shard_of);
    if (topology->map != NULL)
        hwloc_topology_destroy(topology->map);
    free(topology);
}

/* ---- queries ---- */

unsigned corepool_topology_shards(const corepool_topology_t *topology)
{
    return topology->shard_count;
}

bool corepool_topology_is_real(const corepool_topology_t *topology)
{
    return topology->real;
}

unsigned corepool_topology_possible_cpus(const corepool_topology_t *topology)
{
    return topology->possible;
}

int corepool_topology_place(const corepool_topology_t *topology, unsigned shard, corepool_shard_place_t *place)
{
    if (shard >= topology->shard_count)
        return cp_fail(COREPOOL_EINVAL, "shard: %u: there are %u", shard, topology->shard_count);
    *place = topology->seats[shard].place;
    return COREPOOL_OK;
}

unsigned corepool_topology_shard_of(const corepool_topology_t *topology, unsigned cpu)
{
    return cpu < topology->possible ? topology->shard_of[cpu] : 0;
}

bool corepool_topology_covers(const corepool_topology_t *topology, unsigned cpu)
{
    if (cpu >= topology->possible)
        return false;
    return hwloc_bitmap_isset(topology->seats[topology->shard_of[cpu]].members, cpu);
}

corepool_distance_t corepool_topology_distance(const corepool_topology_t *topology, unsigned a, unsigned b)
{
    return a == b ? COREPOOL_DISTANCE_SELF : measure_distance(&topology->seats[a], &topology->seats[b]);
}

void corepool_topology_neighbours(const corepool_topology_t *topology, unsigned shard, unsigned *order)
{
    unsigned count = topology->shard_count;
    for (int distance = COREPOOL_DISTANCE_CORE; distance <= COREPOOL_DISTANCE_MACHINE; distance++)
        for (unsigned step = 1; step < count; step++) {
            unsigned other = (shard + step) % count;
            if ((int)corepool_topology_distance(topology, shard, other) == distance)
                *order++ = other;
        }
}

/* How many shards follow one with which they share nothing as near as `most`. What shares something is together in the
 * shards' order, so that these are the seams between groups. */
static unsigned count_seams(const corepool_topology_t *topology, corepool_distance_t most)
{
    unsigned seams = 0;
    for (unsigned i = 1; i < topology->shard_count; i++)
        seams += corepool_topology_distance(topology, i - 1, i) > most;
    return seams;
}

/* How far shards may be apart that one slice serves. */
static corepool_distance_t reach_of_slices(const corepool_topology_t *topology, unsigned size)
{
    corepool_distance_t reach = COREPOOL_DISTANCE_CORE;
    if (size >= topology->shard_count)
        return COREPOOL_DISTANCE_SELF;
    while (reach < COREPOOL_DISTANCE_MACHINE && size / 2 < count_seams(topology, reach) + 1)
        reach++;
    return reach;
}

unsigned corepool_topology_slices(const corepool_topology_t *topology, unsigned size, unsigned *of_shard)
{
    corepool_distance_t reach = reach_of_slices(topology, size);
    unsigned slices = 1;
    of_shard[0] = 0;
    for (unsigned i = 1; i < topology->shard_count; i++) {
        bool apart = corepool_topology_distance(topology, i - 1, i) > reach;
        of_shard[i] = apart ? i : of_shard[i - 1];
        slices += apart;
    }
    return slices;
}

unsigned corepool_topology_cpu_quota(const corepool_topology_t *topology)
{
    return topology->cpu_quota;
}

const char *corepool_distance_name(corepool_distance_t distance)
{
    switch (distance) {
    case COREPOOL_DISTANCE_SELF: return "self";
    case COREPOOL_DISTANCE_CORE: return "core";
    case COREPOOL_DISTANCE_L2: return "l2";
    case COREPOOL_DISTANCE_L3: return "l3";
    case COREPOOL_DISTANCE_NUMA: return "numa node";
    case COREPOOL_DISTANCE_PACKAGE: return "package";
    case COREPOOL_DISTANCE_MACHINE: return "machine";
    }
    return "unknown";
}

/* ---- for the shards ---- */

/* Asks the kernel directly: hwloc would widen a set that holds every online CPU to the offline ones too, and a
 * shard could then move when one of those comes up. */
int cp_topology_try_pin(const corepool_topology_t *topology, unsigned shard)
{
    cpu_set_t *set = CPU_ALLOC(topology->possible);
    if (set == NULL)
        return ENOMEM;
    size_t bytes = CPU_ALLOC_SIZE(topology->possible);
    unsigned cpu;
    CPU_ZERO_S(bytes, set);
    hwloc_bitmap_foreach_begin(cpu, topology->seats[shard].members) CPU_SET_S(cpu, bytes, set);
    hwloc_bitmap_foreach_end();
    int err = sched_setaffinity(0, bytes, set) == 0 ? 0 : errno;
    CPU_FREE(set);
    return err;
}

int cp_topology_pin(const corepool_topology_t *topology, unsigned shard)
{
    if (!topology->real)
        return cp_fail(COREPOOL_ENOTSUP, "shard %u: a synthetic CPU cannot be pinned to", shard);
    int err = cp_topology_try_pin(topology, shard);
    if (err == ENOMEM)
        return cp_fail(COREPOOL_ENOMEM, "shard %u: no memory for its CPU set", shard);
    if (err != 0)
        return cp_fail(COREPOOL_ESYSTEM, "shard %u: pin to CPU %d: %s", shard, topology->seats[shard].place.cpu,
                       strerror(err));
    return COREPOOL_OK;
}

static bool is_huge(size_t bytes)
{
    return bytes % CP_HUGE_PAGE == 0;
}

/* Huge memory begins where a huge page can; what is mapped before and behind goes back. */
static void *map(size_t bytes)
{
    size_t more = is_huge(bytes) ? CP_HUGE_PAGE : 0;
    char *mapped = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    size_t before = more ? -(uintptr_t)mapped % CP_HUGE_PAGE : 0;
    if (before > 0)
        munmap(mapped, before);
    if (more > before)
        munmap(mapped + before + bytes, more - before);
    return mapped + before;
}

/* Bound before it is touched, so that the pages come from the right node. A bind that the kernel refuses leaves
 * memory that works and is merely placed by whoever touches it first. */
static void *map_bound(const corepool_topology_t *topology, unsigned shard, size_t bytes)
{
    void *memory = map(bytes);
    if (memory == NULL)
        return NULL;
    int node = topology->seats[shard].place.numa_node;
    hwloc_bitmap_t nodes = node < 0 ? NULL : hwloc_bitmap_alloc();
    if (nodes != NULL && hwloc_bitmap_set(nodes, (unsigned)node) == 0)
        (void)hwloc_set_area_membind(topology->map, memory, bytes, nodes, HWLOC_MEMBIND_BIND,
                                     HWLOC_MEMBIND_BYNODESET);
    hwloc_bitmap_free(nodes);
    return memory;
}

void *cp_topology_alloc(const corepool_topology_t *topology, unsigned shard, size_t bytes)
{
    void *memory;
    if (topology->bind_memory)
        memory = map_bound(topology, shard, bytes);
    else if (posix_memalign(&memory, is_huge(bytes) ? CP_HUGE_PAGE : CACHE_LINE, bytes) != 0)
        memory = NULL;
    if (memory != NULL && is_huge(bytes))
        (void)madvise(memory, bytes, MADV_HUGEPAGE); /* refused, its pages are small ones */
    return memory != NULL && !topology->bind_memory ? memset(memory, 0, bytes) : memory;
}

void cp_topology_free(const corepool_topology_t *topology, void *memory, size_t bytes)
{
    if (memory != NULL && topology->bind_memory)
        munmap(memory, bytes);
    else
        free(memory);
}
