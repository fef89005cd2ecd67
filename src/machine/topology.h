/* machine/topology.h: what the shards need of the machine beyond the public queries. Thread: as marked. */
#ifndef CP_MACHINE_TOPOLOGY_H
#define CP_MACHINE_TOPOLOGY_H

#include <stddef.h>

#include <corepool/topology.h>

/* Pins the calling thread to the shard's `cpu` (all its member CPUs when placed per core or cache, so that
 * it stays near whom it serves). Negative code with detail when the kernel refuses; COREPOOL_ENOTSUP for a
 * synthetic topology. Thread: the shard's own. */
int cp_topology_pin(const corepool_topology_t *topology, unsigned shard);

/* The same on a real topology, without words: 0 or an errno; EINVAL: none of its CPUs is both online and in the thread's
 * cpuset. */
int cp_topology_try_pin(const corepool_topology_t *topology, unsigned shard);

/* Of memory whose size is a multiple of it the kernel is asked for pages as large as this: walks over many pools or workers
 * spend less on finding their addresses. */
#define CP_HUGE_PAGE ((size_t)2 << 20)

/* Zeroed memory bound to the shard's NUMA node (page granular: meant for large chunks); NULL when there is
 * none. Where the machine has one node, or is synthetic, plain memory. Thread: any. */
void *cp_topology_alloc(const corepool_topology_t *topology, unsigned shard, size_t bytes);
void cp_topology_free(const corepool_topology_t *topology, void *memory, size_t bytes);

#endif
