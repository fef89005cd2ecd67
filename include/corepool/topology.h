/* corepool/topology.h: where the shards are: CPUs, caches, NUMA nodes, distances.
 *
 * A topology is read once and never changes. It is what corepool_runtime_start uses to place its shards; a
 * program may also open one by itself, to show or to plan. Thread: any, for one topology at a time per
 * open/close; the queries are read-only and may run on any thread at once. Nothing here blocks for longer
 * than hwloc's discovery. Facts come from hwloc (Portable Hardware Locality). */
#ifndef COREPOOL_TOPOLOGY_H
#define COREPOOL_TOPOLOGY_H

#include <stdbool.h>

#include <corepool/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct corepool_topology corepool_topology_t;

/* What one shard stands for. */
typedef enum corepool_place {
    COREPOOL_PLACE_CPU = 0, /* one shard per CPU (default) */
    COREPOOL_PLACE_CORE,    /* one shard per core: its hardware threads share it */
    COREPOOL_PLACE_CACHE,   /* one shard per last-level cache */
    COREPOOL_PLACE_NUMA,    /* one shard per NUMA node */
} corepool_place_t;

/* What two shards have in common, nearest first: the order in which a starving shard asks. */
typedef enum corepool_distance {
    COREPOOL_DISTANCE_SELF = 0,
    COREPOOL_DISTANCE_CORE,
    COREPOOL_DISTANCE_L2,
    COREPOOL_DISTANCE_L3,
    COREPOOL_DISTANCE_NUMA,
    COREPOOL_DISTANCE_PACKAGE,
    COREPOOL_DISTANCE_MACHINE,
} corepool_distance_t;

typedef struct corepool_topology_options {
    /* CPU list such as "0-3,8": shards only there. NULL: every CPU that this process may use. Every listed
     * CPU must exist, be online and be allowed to this process. */
    const char *cpus;
    /* CPU list: no shard there, though they may be used: callers on them are served by the nearest shard. NULL: none. */
    const char *except;
    /* Default COREPOOL_PLACE_CPU. */
    corepool_place_t place;
    /* An hwloc synthetic description such as "pack:2 l3:4 core:8 pu:2": plan for a machine that is not this
     * one. NULL: this machine. Shards of a synthetic topology cannot be pinned. */
    const char *synthetic;
} corepool_topology_options_t;

/* One shard's place. Numbers are the operating system's; -1 where the machine does not say. */
typedef struct corepool_shard_place {
    unsigned shard;   /* 0 … shards-1, in the order of the machine's topology */
    int cpu;          /* the CPU that the shard's thread is pinned to */
    int core;         /* logical index of its core */
    int l2, l3;       /* logical index of its cache */
    int numa_node;    /* OS index of its NUMA node */
    int package;      /* logical index of its package */
    unsigned members; /* CPUs that stand for this shard: 1 unless placed per core, cache or node */
} corepool_shard_place_t;

/* Reads the topology. options: NULL for the defaults; caller keeps. On success *topology is the caller's,
 * to be closed with corepool_topology_close. Only CPUs that the process may really use count: its affinity
 * and cpuset (cgroup) are honoured, offline CPUs skipped. Returns COREPOOL_OK, COREPOOL_EINVAL (unknown
 * place, bad CPU list, a listed CPU that is unknown or not usable, an exception that leaves no CPU, bad synthetic description;
 * the detail names it), COREPOOL_ESYSTEM (no usable CPU, discovery failed), COREPOOL_ENOMEM. */
COREPOOL_PUBLIC int corepool_topology_open(const corepool_topology_options_t *options, corepool_topology_t **topology);

/* Frees it. NULL is allowed. */
COREPOOL_PUBLIC void corepool_topology_close(corepool_topology_t *topology);

/* How many shards there are: at least 1. */
COREPOOL_PUBLIC unsigned corepool_topology_shards(const corepool_topology_t *topology);

/* Whether it describes this machine (false: synthetic). */
COREPOOL_PUBLIC bool corepool_topology_is_real(const corepool_topology_t *topology);

/* How many CPU numbers are possible on the machine: the table of corepool_topology_shard_of has that many. */
COREPOOL_PUBLIC unsigned corepool_topology_possible_cpus(const corepool_topology_t *topology);

/* Where a shard is. Returns COREPOOL_OK, or COREPOOL_EINVAL for an unknown shard. */
COREPOOL_PUBLIC int corepool_topology_place(const corepool_topology_t *topology, unsigned shard,
                                            corepool_shard_place_t *place);

/* The shard that serves callers on CPU `cpu`: its own, else the nearest. Any number is answered: one that is
 * not a CPU of this machine (offline, or out of range) maps to the shard that it would be nearest to, and to
 * shard 0 when nothing is known about it. */
COREPOOL_PUBLIC unsigned corepool_topology_shard_of(const corepool_topology_t *topology, unsigned cpu);

/* Whether `cpu` is one of the CPUs that a shard stands for (not merely served from afar). */
COREPOOL_PUBLIC bool corepool_topology_covers(const corepool_topology_t *topology, unsigned cpu);

/* The nearest thing that two shards share. Both must be below corepool_topology_shards. */
COREPOOL_PUBLIC corepool_distance_t corepool_topology_distance(const corepool_topology_t *topology, unsigned a,
                                                               unsigned b);

/* The other shards, nearest first; among equals the next higher number first, wrapping round, so that
 * equally starving shards do not all ask the same neighbour. Writes shards-1 entries to `order`. */
COREPOOL_PUBLIC void corepool_topology_neighbours(const corepool_topology_t *topology, unsigned shard,
                                                  unsigned *order);

/* Which slices a pool of `size` workers (≥ 1) in all has. With as many workers as shards, or more, every shard has one. Else
 * those shards share one that are together under the same core, L2 cache, L3 cache, NUMA node or package: the finest of these
 * for which each slice gets two workers at least, when the size is shared out evenly; if there is none, one slice serves the
 * machine. A slice lives on the first shard that it serves. Writes to `of_shard`, for each shard, the one whose slice serves
 * its callers. Returns how many slices there are. */
COREPOOL_PUBLIC unsigned corepool_topology_slices(const corepool_topology_t *topology, unsigned size, unsigned *of_shard);

/* How much CPU time the control groups of this process (v1 and v2, the tightest limit of all levels) allow it, as read at
 * open, in thousandths of one CPU: with 1500, the shards of four CPUs are stopped by the kernel for much of each period when
 * all are busy. 0: there is no limit, none that can be read, or the topology is synthetic. */
COREPOOL_PUBLIC unsigned corepool_topology_cpu_quota(const corepool_topology_t *topology);

/* "core", "l2", "l3", "numa node", "package", "machine", "self". Static storage. */
COREPOOL_PUBLIC const char *corepool_distance_name(corepool_distance_t distance);

#ifdef __cplusplus
}
#endif
#endif
