/* tools/command.h: the commands of `corepool`, and what they share. One thread unless marked. */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include <stddef.h>
#include <stdio.h>

#include <corepool.h>

/* Exit codes: usage errors are told apart from failures. */
enum {
    TOOL_OK = 0,
    TOOL_FAILED = 1,
    TOOL_USAGE = 2,
};

/* The commands; argv[0] is "corepool NAME", for messages. Each returns the exit code. */
int topology_command(int argc, char **argv);
int demo_command(int argc, char **argv);
int bench_command(int argc, char **argv); /* bench/command/ */

/* Says "corepool: DETAIL" for a library call that failed and returns the exit code for it. */
int tool_complain(int err);

/* Returns `memory`, or ends the program when there was none. */
void *tool_need(void *memory);

/* Prints the map of packages, caches and CPUs with the shards on it, the slices of a pool of `size` workers (0: none), and
 * the steal order. `cpus` has one shard per CPU; `plan` is what is shown (may be the same). */
void map_print(FILE *out, const corepool_topology_t *cpus, const corepool_topology_t *plan, unsigned size);

/* One slice of a pool of some size. */
typedef struct {
    unsigned shard;   /* where it is */
    unsigned workers; /* its quota */
    unsigned serves;  /* so many shards, from its own on: they follow each other */
} map_slice_t;

/* The slices of such a pool, by shard; to be freed. */
map_slice_t *map_slices(const corepool_topology_t *plan, unsigned size, unsigned *count);

/* "0-3,8": runs of consecutive numbers in the order given. To be freed. */
char *map_ranges(const unsigned *numbers, size_t count);

/* The CPUs that a shard stands for, ascending. Writes place.members entries. */
void map_members(const corepool_topology_t *plan, unsigned shard, unsigned *cpus);

/* "rseq", "portable". */
const char *map_shelf_name(corepool_shelf_kind_t kind);

/* The shelf of a runtime with that plan, and why; `reason` may become NULL. */
corepool_shelf_kind_t map_shelf(const corepool_topology_t *plan, const char **reason);

/* "cpu", "core", "cache", "numa": what a shard stands for, in the words of --place. */
const char *map_place_name(corepool_place_t place);

#endif
