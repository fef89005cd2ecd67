/* core/give.h: the half of core/steal.h that gives: what core/steal.c asks of it beside what is declared there. Thread: the
 * manager's. */
#ifndef CP_CORE_GIVE_H
#define CP_CORE_GIVE_H

#include "core/steal.h"

/* Whether the asker is so much worse off that the giver's own requests stand back for one unit. */
bool cp_give_outweighs(const struct cp_core *asker, const struct cp_core *giver);

/* The next want that is to go home, whatever else there is to do: true when *action is set. ends: all are. */
bool cp_give_next_first(struct cp_core *core, bool ends, struct cp_action *action);

/* The parts of cp_steal_wants_thread and cp_steal_wake_at. */
bool cp_give_wants_thread(const struct cp_core *core, int64_t now_ns);
int64_t cp_give_wake_at(const struct cp_core *core, int64_t now_ns);

#endif
