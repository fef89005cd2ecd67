/* bench/peers.h: the peers that there are, and what they share. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include <stdlib.h>

#include "command/peer.h"

/* Of the pair benchmark: as many as its threads, and on a large machine so many for each CPU, that nobody has to wait. */
#define PEER_RESOURCES 16
#define PEER_RESOURCES_PER_CPU 8

extern const struct peer peer_mutex, peer_local, peer_corepool_rseq, peer_corepool_inline, peer_corepool_portable;
#ifdef BENCH_DPDK
extern const struct peer peer_dpdk;
#endif
#ifdef BENCH_APR
extern const struct peer peer_apr;
#endif
#ifdef BENCH_CK
extern const struct peer peer_ck_stack, peer_ck_ring;
#endif

/* Zeroed, to be freed; NULL without memory. */
static inline struct peer_resource *peer_allocate(unsigned count)
{
    size_t bytes = count * sizeof(struct peer_resource);
    struct peer_resource *resources = aligned_alloc(sizeof *resources, bytes);
    for (unsigned i = 0; resources && i < count; i++)
        resources[i] = (struct peer_resource){0};
    return resources;
}

static inline uint64_t peer_sum(const struct peer_resource *resources, unsigned count)
{
    uint64_t touched = 0;
    for (unsigned i = 0; i < count; i++)
        touched += resources[i].touched;
    return touched;
}

static inline void peer_no_thread(void)
{
}

#endif
