/* core/evacuate.h: a slice hands what it has to its neighbours, unasked: its shard is parked, so no caller comes to it of his
 * own accord.
 *
 * It goes in the slice's own wants (core/steal.h), the other way round: a push is an answer that nobody asked for.
 *
 *   HOME ──► FILLING ──push──► adopted at the neighbour ──back, empty──► HOME
 *
 * A neighbour that has no room, or is another pool's by now, sends it back full; then its own slice adopts what it brings. The
 * nearest neighbours come first, each gets its share, and none that evacuates itself gets any. Own requests and neighbours'
 * asks are served before; after a request of its own a slice keeps what it has for a while, as callers come to it all the
 * same. Workers that are bound to their shard stay until somebody asks for their places, so that a CPU that is gone for a
 * while costs no connection.
 *
 * L1 is steal.h's: given when it is put into the want, stolen when adopted. Thread: the shard's. */
#ifndef CP_CORE_EVACUATE_H
#define CP_CORE_EVACUATE_H

#include "core/steal.h"

/* Nothing is pushed for so long after a request waited here. */
#define CP_EVACUATE_REST_NS (64 * CP_NS_PER_MS)

/* A core's part; zero, but for the list. */
struct cp_evacuation {
    _Atomic bool on;           /* read by neighbours */
    uint32_t share;            /* for each neighbour */
    uint32_t rank;             /* whose turn it is */
    uint32_t out;              /* wants that are not at home for a push … */
    uint32_t awaited;          /* … and what these may bring back at most */
    struct cp_want *filling;   /* one of them, still here; NULL: none */
    int64_t rest_until;        /* nothing is pushed before: a request waited here, or a neighbour had no room */
    struct cp_list pushed;     /* neighbours' pushes, to be taken */
};

void cp_evacuate_init(struct cp_core *core);

/* From now on, or no longer. Idempotent; nothing happens in a core that does not steal. */
void cp_evacuate(struct cp_core *core, bool on);

/* A neighbour's push has arrived; CP_DO_TAKE follows. */
void cp_evacuate_pushed(struct cp_core *core, struct cp_want *want);

/* After CP_DO_TAKE: how many slots there must be to take it; 0: it cannot be taken now. */
uint32_t cp_evacuate_room(const struct cp_core *core, const struct cp_want *want);

/* After CP_DO_TAKE, when the want's workers and places have been adopted here. */
void cp_evacuate_taken(struct cp_want *want);

/* A push has come back; CP_DO_ADOPT follows. */
void cp_evacuate_returned(struct cp_core *core, struct cp_want *want);

/* --- for core/decide.c and core/steal.c --- */

/* Called before anything is decided. */
void cp_evacuate_update(struct cp_core *core, int64_t now_ns);

/* The next step, true when *action is set: before anything else, while closed, too; after what is asked for was given. */
bool cp_evacuate_next_first(struct cp_core *core, struct cp_action *action);
bool cp_evacuate_next(struct cp_core *core, int64_t now_ns, struct cp_action *action);

/* Whether that would have something to do. */
bool cp_evacuate_wants_thread(const struct cp_core *core, int64_t now_ns);
int64_t cp_evacuate_wake_at(const struct cp_core *core, int64_t now_ns);

/* Whether it wants the workers on the shelf, and those that come back. */
bool cp_evacuate_listens(const struct cp_core *core, int64_t now_ns);

/* Nothing of its own is out, and nothing waits to be taken. */
bool cp_evacuate_is_home(const struct cp_core *core);

/* The want was adopted here, or is empty: it may ask again. */
void cp_evacuate_home(struct cp_core *core, struct cp_want *want, int64_t now_ns);

const char *cp_evacuate_check(const struct cp_core *core);

#endif
