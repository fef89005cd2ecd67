/* core/shed.h: which requests to refuse because all have waited too long: CoDel, for a queue of requests.
 *
 * K. Nichols, V. Jacobson et al., "Controlled Delay Active Queue Management", RFC 8289, section 5: as long as some
 * request waited less than the target within every interval, a queue is a burst and does no harm. Once all have waited
 * longer for a whole interval, one is refused, and more in ever shorter steps (the interval by the square root of how many)
 * until one waited less again. Decided at the head, when it would be granted; the last in the queue is never refused.
 *
 * Pure; one thread at a time, the slice's manager. */
#ifndef CP_CORE_SHED_H
#define CP_CORE_SHED_H

#include <stdbool.h>
#include <stdint.h>

struct cp_shed {
    int64_t target_ns, interval_ns; /* target 0: never refuse */
    int64_t above_since;            /* all have waited too long since then; INT64_MIN: not so */
    int64_t next_at;                /* while refusing: when the next one is due */
    uint32_t count;                 /* refused since refusing began, and before if that was not long ago */
    uint32_t last_count;            /* `count` when it began */
    bool refusing;
};

void cp_shed_init(struct cp_shed *shed, int64_t target_ns, int64_t interval_ns);

/* True: the head of the queue, which has waited for `waited_ns`, is to be refused. last: no other is behind it. */
bool cp_shed_head(struct cp_shed *shed, int64_t waited_ns, bool last, int64_t now_ns);

/* The queue is empty. */
static inline void cp_shed_empty(struct cp_shed *shed)
{
    shed->above_since = INT64_MIN;
}

#endif
