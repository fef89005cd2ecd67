/* front/usual.h: the library's own use of corepool/layout.h: its structures are as published, and its storm builds delay
 * within the published sequences. Thread: any. */
#ifndef CP_FRONT_USUAL_H
#define CP_FRONT_USUAL_H

#include "front/runtime.h"

#define COREPOOL_LAYOUT_STEP(n) CP_STEP(n)
#define COREPOOL_LAYOUT_STEP_CLOBBER CP_STEP_CLOBBER
#include <corepool/layout.h>

/* Whoever sees one of these fail has changed what compiled programs rely on: the published structure follows, and its version
 * counts on, with names of that version in machine/thread.h, and the old ones in front/layout.c. */
#define CP_PUBLISHED(published, field, type, member)                                                              \
    _Static_assert(offsetof(struct corepool_layout_##published, field) == offsetof(type, member) &&               \
                       sizeof((struct corepool_layout_##published *)0)->field == sizeof((type *)0)->member,       \
                   #published "." #field " is where corepool/layout.h says")

CP_PUBLISHED(shelf, head, struct cp_shelf, head);
CP_PUBLISHED(shelf, tail, struct cp_shelf, tail);
CP_PUBLISHED(shelf, top, struct cp_shelf, top);
CP_PUBLISHED(shelf, cpu, struct cp_shelf, cpu);
CP_PUBLISHED(shelf, flags, struct cp_shelf, flags);
CP_PUBLISHED(shelf, ring, struct cp_shelf, ring);
CP_PUBLISHED(shelf, mask, struct cp_shelf, mask);
CP_PUBLISHED(slot, stamp, cp_slot, item.stamp);
CP_PUBLISHED(slot, doomed, cp_slot, item.doomed);
CP_PUBLISHED(slot, holder, cp_slot, holder);
CP_PUBLISHED(slot, resource, cp_slot, resource);
CP_PUBLISHED(slot, shelf, cp_slot, slice);
CP_PUBLISHED(pool, nowhere, struct corepool_pool_impl, nowhere);
_Static_assert(offsetof(struct corepool_layout_pool, by_cpu) == offsetof(struct corepool_pool_impl, by_cpu) &&
                   offsetof(struct corepool_layout_pool, nowhere) + 8 == offsetof(struct corepool_layout_pool, by_cpu),
               "pool.by_cpu is where corepool/layout.h says, and begins at -1");
_Static_assert(offsetof(struct cp_area, cpu_id) == 4 && offsetof(struct cp_area, rseq_cs) == 8, "an area is as struct rseq");
_Static_assert(offsetof(struct corepool_layout_pool, handle) == offsetof(struct corepool_pool_impl, generation) &&
                   offsetof(struct corepool_pool_impl, local) == offsetof(struct corepool_pool_impl, generation) + 4 &&
                   offsetof(corepool_pool_t, shard) == offsetof(corepool_pool_t, generation) + 4,
               "generation and shard are one word, in the pool as in its handles");
_Static_assert(offsetof(struct cp_slice, shelf) == 0, "a slice begins with its shelf");
_Static_assert(CP_TAG_LEASED == 0 && COREPOOL_LAYOUT_SHELVED == CP_TAG_SHELVED &&
                   COREPOOL_LAYOUT_NEXT == (UINT64_C(1) << CP_TAG_BITS) - CP_TAG_SHELVED, "the stamp's parts are as published");

#endif
