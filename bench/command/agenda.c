/* bench/command/agenda.c: a binary heap. */
#include "agenda.h"

void agenda_add(struct agenda *agenda, int64_t at_ns, void *who)
{
    unsigned hole = agenda->count++;
    while (hole > 0 && agenda->entries[(hole - 1) / 2].at_ns > at_ns) {
        agenda->entries[hole] = agenda->entries[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    agenda->entries[hole] = (struct agenda_entry){.at_ns = at_ns, .who = who};
}

int64_t agenda_next(const struct agenda *agenda)
{
    return agenda->count > 0 ? agenda->entries[0].at_ns : INT64_MAX;
}

/* The number of the earlier of the two below a hole; the count when there is none. */
static unsigned earlier_below(const struct agenda *agenda, unsigned hole)
{
    unsigned left = 2 * hole + 1, right = left + 1;
    if (left >= agenda->count)
        return agenda->count;
    return right < agenda->count && agenda->entries[right].at_ns < agenda->entries[left].at_ns ? right : left;
}

void *agenda_take(struct agenda *agenda)
{
    void *who = agenda->entries[0].who;
    struct agenda_entry last = agenda->entries[--agenda->count];
    unsigned hole = 0, below;
    while ((below = earlier_below(agenda, hole)) < agenda->count && agenda->entries[below].at_ns < last.at_ns) {
        agenda->entries[hole] = agenda->entries[below];
        hole = below;
    }
    agenda->entries[hole] = last;
    return who;
}
