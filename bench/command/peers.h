/* bench/command/peers.h: the module of peers, which the build makes where their libraries are found. Thread:
 * the command's. */
#ifndef BENCH_COMMAND_PEERS_H
#define BENCH_COMMAND_PEERS_H

#include <stdio.h>

#include "peer.h"

/* Loads the module: it stays loaded. Returns the entries, up to the one without a name; ends the program,
 * saying where it was looked for, when there is none. */
const struct peer_entry *peers_load(void);

#endif
