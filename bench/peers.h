/* bench/peers.h: the pools that the pair benchmark compares: 16 resources, take one, touch it, give it back. */
#ifndef BENCH_PEERS_H
#define BENCH_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#define PEER_RESOURCES 16

/* One cache line, so that touching one resource does not disturb its neighbours. */
struct peer_resource {
    uint64_t touched;
} __attribute__((aligned(64)));

struct peer {
    const char *name;
    /* False: not available here; *why says what is missing. */
    bool (*open)(const char **why);
    /* Runs `pairs` pairs on the calling thread. Each peer has a loop of its own, so that what is inline stays inline. */
    void (*run)(uint64_t pairs);
    /* Checks that every resource is back; returns the sum of all touches. */
    uint64_t (*close)(void);
};

extern const struct peer peer_mutex, peer_corepool_rseq, peer_corepool_portable;
#ifdef BENCH_DPDK
extern const struct peer peer_dpdk;
#endif

#endif
