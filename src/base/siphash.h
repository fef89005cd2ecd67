/* base/siphash.h: a hash that nobody who does not know the seed can provoke collisions of. Thread: any. */
#ifndef CP_BASE_SIPHASH_H
#define CP_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 of J.-P. Aumasson and D. Bernstein, "SipHash: a fast short-input PRF" (2012), with the key
 * seed[0], seed[1]. */
uint64_t cp_siphash(const uint64_t seed[2], const void *data, size_t bytes);

#endif
