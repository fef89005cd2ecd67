/* core/count.h: how the core keeps its counts. One writer, the manager; readers at any time. For the core's own files. */
#ifndef CP_CORE_COUNT_H
#define CP_CORE_COUNT_H

#include "core/core.h"

/* Release: pairs with the acquiring loads of cp_core_snapshot; else no order is needed. */
#define ADD(counter, n) \
    atomic_store_explicit(&(counter), atomic_load_explicit(&(counter), memory_order_relaxed) + (n), memory_order_release)
#define GET(counter) atomic_load_explicit(&(counter), memory_order_relaxed)
#define SEE(counter) atomic_load_explicit(&(counter), memory_order_acquire)

/* Around every change of more than one of the counts that L1 adds up. A reader that saw one of the stores between sees by
 * it (release, acquire) that `changes` was odd. */
static inline void begin_change(struct cp_core *core)
{
    ADD(core->changes, 1);
}

static inline void end_change(struct cp_core *core)
{
    ADD(core->changes, 1);
}

static inline cp_slot *first_slot(const struct cp_list *list)
{
    return cp_container(list->next, cp_slot, link);
}

#endif
