/* core/queue.h: the requests that wait, in the order in which they are served, and what leaves the workers that are idle. For the
 * core's own files. */
#ifndef CP_CORE_QUEUE_H
#define CP_CORE_QUEUE_H

#include "core/count.h"

/* Of a queue that is not empty. */
static inline struct cp_request *first_request(const struct cp_core *core)
{
    return cp_container(core->requests.next, struct cp_request, link);
}

static inline struct cp_request *last_request(const struct cp_core *core)
{
    return cp_container(core->requests.prev, struct cp_request, link);
}

static inline void dequeue(struct cp_core *core, struct cp_request *request)
{
    cp_list_unlink(&request->link);
    ADD(core->waiting, -1u);
}

static inline void remove_idle(struct cp_core *core, cp_slot *slot)
{
    cp_list_unlink(&slot->link);
    ADD(core->idle, -1u);
}

#endif
