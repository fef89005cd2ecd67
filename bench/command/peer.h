/* bench/command/peer.h: a pool that corepool is compared with: take a resource, touch it, give it back. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>

/* One cache line, so that touching one resource does not disturb its neighbours. */
struct peer_resource {
    uint64_t touched;
    void *link; /* the peer's own: lists that want a word in the resource */
} __attribute__((aligned(64)));

struct peer {
    const char *name;
    /* It holds more resources than it was asked for, one or more for each thread: nobody ever waits, a floor
     * for what taking and giving cost. */
    bool floor;
    /* `resources` for at most `threads` at once. False: not available here; *why says what is missing. */
    bool (*open)(unsigned resources, unsigned threads, const char **why);
    /* Before a thread's first call of those below, and after its last. */
    void (*enter)(void);
    void (*leave)(void);
    /* NULL: none is idle, and this peer cannot wait; others do until one is. (Both are NULL where only run is
     * of use.) */
    struct peer_resource *(*take)(void);
    void (*give)(struct peer_resource *resource);
    /* Runs `pairs` pairs. Each peer has a loop of its own, so that what is inline stays inline. */
    void (*run)(uint64_t pairs);
    /* Checks that every resource is back; returns the sum of all touches. */
    uint64_t (*close)(void);
};

/* What a module of peers exports, under BENCH_PEERS_SYMBOL: the last name is NULL. */
struct peer_entry {
    const char *name;
    const struct peer *peer; /* NULL: not built; `missing` says what was not found */
    const char *missing;
};

#define BENCH_PEERS_SYMBOL "bench_peer_entries"
#define BENCH_PEERS_MODULE "corepool-peers.so"

#endif
