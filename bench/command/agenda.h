/* bench/command/agenda.h: who is to be woken when: the earliest first. Pure: knows no clock. One thread. Times
 * in ns. */
#ifndef BENCH_AGENDA_H
#define BENCH_AGENDA_H

#include <stdint.h>

struct agenda_entry {
    int64_t at_ns;
    void *who;
};

/* Zero is empty, but for the room: the owner's, for as many as are ever in it at once. */
struct agenda {
    struct agenda_entry *entries; /* a heap: none is earlier than entry (its number - 1) / 2 */
    unsigned count;
};

void agenda_add(struct agenda *agenda, int64_t at_ns, void *who);

/* When the first is to be woken; INT64_MAX: there is none. */
int64_t agenda_next(const struct agenda *agenda);

/* Takes the first, of those with the same time any. There must be one. */
void *agenda_take(struct agenda *agenda);

#endif
