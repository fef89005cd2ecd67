/* tools/target.h: what the demo fetches: --url, or the embedded origin. One thread. */
#ifndef TOOLS_TARGET_H
#define TOOLS_TARGET_H

#include <stdint.h>

#include <corepool.h>

/* Longest host name that DNS allows, and room for a port. */
#define TARGET_HOST_MAX 255

typedef struct target {
    char host[TARGET_HOST_MAX + 1];      /* without the brackets of an IPv6 address */
    char authority[TARGET_HOST_MAX + 9]; /* the Host header */
    char path[1024];
    corepool_http_options_t http; /* points into this struct, which must stay where it is */
} target_t;

/* Sets *target to a path on a port of this machine's loopback. */
void target_loopback(target_t *target, uint16_t port, const char *path);

/* Reads http://HOST[:PORT][/PATH]. Returns NULL, or what is wrong with it. */
const char *target_parse(target_t *target, const char *url);

#endif
