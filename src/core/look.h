/* core/look.h: what a slice learns of its workers by looking at them from time to time, and its visits to the idle ones.
 *
 * Callers read no clock. A look shows every slot to cp_look_at: one whose stamp is another than at the last look was used
 * since, and its age begins at this look; so an age is too low by at most the time between two looks, an eighth of the
 * shortest time that the pool has set. A pool without such times is never looked at.
 *
 * A visit takes idle workers into the manager's hands, from the oldest, asks the class about each, and puts them back
 * where they were, newest first:
 *
 *   none ──► fetching ◄──► asking ──► returning ──► none
 *
 * A ping visit stops at the first worker that is not idle for long enough, and after max_idle_pings. Then the next goes on
 * with those that have not had their turn: a turn is over when everyone who was due has been asked once.
 *
 * Part of the core: pure, on the manager's thread. */
#ifndef CP_CORE_LOOK_H
#define CP_CORE_LOOK_H

#include "core/slot.h"

struct cp_core;
struct cp_action;

/* Zero: never, or no limit. */
struct cp_look_options {
    int64_t idle_timeout_ns;   /* between two ping visits, and how long one is idle to be asked */
    uint32_t max_idle_pings;   /* of one visit */
    int64_t idle_close_ns;
    int64_t max_lifetime_ns;
    uint32_t lifetime_jitter_percent;
    int64_t validate_after_ns;
    int64_t lease_report_ns;   /* how long a worker is leased to be reported */
    int64_t lease_limit_ns;    /* and to be used no more */
};

enum cp_visit_stage { CP_VISIT_NONE, CP_VISIT_FETCHING, CP_VISIT_ASKING, CP_VISIT_RETURNING };

struct cp_look {
    int64_t interval;        /* between two looks; 0: none are made */
    int64_t at;              /* when the next is due */
    /* Found by the look that is under way. */
    uint32_t fit;            /* live, and to stay so */
    uint32_t long_idle;      /* of those, idle for idle_close_ns */
    uint32_t due, fresh;     /* to be pinged; of those, not in this turn yet */
    uint32_t closable;       /* to be ended as idle */
    /* The visit under way. */
    enum cp_visit_stage stage;
    bool ping;               /* else info */
    bool shelf_empty;        /* nothing more to fetch from it */
    bool turn_ends;
    uint32_t left, extra;    /* how many more to ask; of those, how many that had their turn */
    uint32_t held;
    struct cp_list held_slots; /* oldest first */
    cp_slot *fetched;        /* in hand, not yet asked or held */
    int64_t ping_at;         /* when the next ping visit is due */
    uint32_t turn;
};

void cp_look_init(struct cp_core *core);

/* The slot's worker became ready at slot->since. */
void cp_look_opened(struct cp_core *core, cp_slot *slot);

/* For core/steal.c and core/give.c. Since when, by the looks, the idle slot's worker is idle; whether its next lease begins
 * with the class's validate; and both for the slot that adopts it. */
int64_t cp_look_idle_since(const cp_slot *slot, int64_t now_ns);
bool cp_look_validates(const cp_slot *slot);
void cp_look_adopted(cp_slot *slot, int64_t seen_at, bool validate);

/* When the next look is due, and whether it is; while there is no worker: never. */
int64_t cp_look_due_at(const struct cp_core *core);
bool cp_look_is_due(const struct cp_core *core, int64_t now_ns);

/* A look: begin; every slot once to cp_look_at; end. Where end says so, every slot once more to cp_look_close. Both return
 * NONE, or the reason for which the slot's worker is not to be used again: idle, it ends at once; leased, with the lease.
 * A ping visit may have begun after end. */
void cp_look_begin(struct cp_core *core);
uint8_t cp_look_at(struct cp_core *core, cp_slot *slot, int64_t now_ns);
bool cp_look_end(struct cp_core *core, int64_t now_ns);
uint8_t cp_look_close(struct cp_core *core, cp_slot *slot, int64_t now_ns);

/* For a slot that was shown to the look under way. Whether, by the looks, it is leased; then slot->seen is the lease's stamp
 * and slot->seen_at when it began, at the latest. */
static inline bool cp_look_saw_lease(const cp_slot *slot)
{
    return slot->phase == CP_LIVE && cp_stamp_tag(slot->seen) == CP_TAG_LEASED;
}

/* How long, by the looks, the slot's worker is leased, if that is to be reported now: after lease_report_ns, and again
 * whenever it has doubled. Else 0. slot->reports counts them. */
int64_t cp_look_overdue(struct cp_core *core, cp_slot *slot, int64_t now_ns);

/* Begins a visit of all that are idle: CP_DO_INFO follows for each. None may be under way. */
void cp_visit_begin_info(struct cp_core *core);

/* After CP_DO_FETCH: what was the oldest on the shelf, now in the manager's hands; NULL: there is no more. */
void cp_visit_fetched(struct cp_core *core, cp_slot *slot);

/* After CP_DO_PING or CP_DO_INFO: NONE, or why the worker ends. */
void cp_visit_answered(struct cp_core *core, cp_slot *slot, uint8_t reason);

/* Nobody else is to be asked. */
void cp_visit_end(struct cp_core *core);

/* The next step of the visit under way; false: none is. */
bool cp_visit_next(struct cp_core *core, int64_t now_ns, struct cp_action *action);

#endif
