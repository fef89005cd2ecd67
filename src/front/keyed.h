/* front/keyed.h: sets of keyed pools, as their unit tests see them: with the time as an argument. */
#ifndef CP_FRONT_KEYED_H
#define CP_FRONT_KEYED_H

#include <corepool/keyed.h>

/* corepool_keyed_get at a time of the coarse clock. Thread: as there. */
int cp_keyed_get_at(corepool_keyed_t keyed, const void *key, size_t key_length, int64_t now,
                    corepool_pool_t *pool);

/* Closes pools whose time is over. When the next look is due; CP_NEVER: when there is a pool again. Thread:
 * any. */
int64_t cp_keyed_look(struct corepool_keyed_impl *impl, int64_t now);

#endif
