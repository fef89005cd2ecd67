/* bench/peers_module.c: all peers as a module, so that `corepool bench` starts without what they need. */
#include "peers.h"

__attribute__((visibility("default"))) extern const struct peer_entry bench_peer_entries[];

const struct peer_entry bench_peer_entries[] = {
    {"thread-local", &peer_local, NULL},
    {"mutex free list", &peer_mutex, NULL},
#ifdef BENCH_APR
    {"apr_reslist", &peer_apr, NULL},
#else
    {"apr_reslist", NULL, "built without it: apr-util-1 was not found (Debian: libaprutil1-dev)"},
#endif
#ifdef BENCH_CK
    {"ck_stack", &peer_ck_stack, NULL},
    {"ck_ring", &peer_ck_ring, NULL},
#else
    {"ck_stack", NULL, "built without it: Concurrency Kit was not found (Debian: libck-dev)"},
    {"ck_ring", NULL, "built without it: Concurrency Kit was not found (Debian: libck-dev)"},
#endif
#ifdef BENCH_DPDK
    {"rte_mempool", &peer_dpdk, NULL},
#else
    {"rte_mempool", NULL, "built without it: libdpdk was not found (Debian: libdpdk-dev)"},
#endif
    {NULL, NULL, NULL},
};
