/* core/steal.h: workers and places that go from one slice of a pool to another for good.
 *
 * A slice starves when more requests wait than its own idle, opening and vacant places can serve. It then asks its
 * neighbours, nearest first. For each it has one record, a `want`, which is at home or lent to that neighbour:
 *
 *   HOME ──ask──► LENT: queued at the neighbour, behind its own requests ──answer──► come back, to be adopted ──► HOME
 *
 * An answer brings up to CP_STEAL_BATCH workers, the coldest, or places without a worker. With each goes its place: the
 * quota and the target of the giver fall when it is put into the record, those of the asker rise when it is adopted; in
 * between it is `moving`. Over a pool:
 *
 *   L1:  Σ quota + (Σ given − Σ stolen) == size
 *
 * Rounds of asking. First those are asked that visibly have idle workers or vacant places, until what was asked for covers
 * the lack. If it does not, wants are left standing at neighbours that are busy but have no queue of their own (or one that
 * the asker's pressure outweighs): one in the first round, twice as many in each that follows. The next unit that is free
 * there comes. A neighbour that answered is left alone for CP_STEAL_REST_NS, unless it filled the batch; nothing is left
 * standing where wants were answered in vain, for longer each time.
 *
 * However many wants are lent, no more comes than is lacking: the asker says how many units it seeks, and a giver claims each
 * before it gives it. With none left to be claimed the want is answered as not needed. A want is also withdrawn, by a mark
 * that the neighbour looks at when it is nudged, when the asker has not starved for CP_STEAL_LINGER_NS, or closes, pauses or
 * is to hold its moves. So a neighbour that is asked costs three messages at most: ask, nudge, answer.
 *
 * Workers that are bound to their shard do not move. A place does; for it an idle worker is retired (reason MOVED) that
 * stayed the coldest, unused, for CP_STEAL_BOUND_REST_NS, or after that time any, where the asker's pressure outweighs.
 *
 * L3: no slice starves while another of the pool has had an idle worker that may move for longer than CP_STEAL_BOUND_NS and the
 * delivery of two messages. One that holds, or is to become smaller, neither starves nor gives; a request whose worker is opening,
 * or whose place is vacant, waits for that.
 *
 * Pure, on the manager's thread; of another slice's core only the atomic counts are read, and `claimed` is raised. */
#ifndef CP_CORE_STEAL_H
#define CP_CORE_STEAL_H

#include "base/clock.h"
#include "core/slot.h"

struct cp_core;
struct cp_action;

/* Who has requests of his own looks so often at how much who asks presses, and whether he still needs anything: the counts that
 * he looks at are written there with every request, and a look takes their lines from that CPU. */
#define CP_STEAL_WEIGH_NS (CP_NS_PER_MS / 10)
/* So many workers or places in one answer: a message is worth it, and a giver is not emptied at one blow. */
#define CP_STEAL_BATCH 8
/* Between two asks of one neighbour, and two rounds: some message round trips. */
#define CP_STEAL_REST_NS CP_NS_PER_MS
/* Rounds that find nothing come less and less often, down to this: a look at hundreds of neighbours costs microseconds. */
#define CP_STEAL_ROUND_MAX_NS (8 * CP_NS_PER_MS)
/* And wants that were left standing in vain, down to this. */
#define CP_STEAL_STAND_MAX_NS (64 * CP_NS_PER_MS)
/* The next request often comes soon. */
#define CP_STEAL_LINGER_NS (2 * CP_NS_PER_MS)
/* A new connection costs about so much. */
#define CP_STEAL_BOUND_REST_NS (10 * CP_NS_PER_MS)
/* How long a starving slice may overlook an idle worker: it rested after an answer, and the next round came that much later. */
#define CP_STEAL_BOUND_NS (CP_STEAL_REST_NS + CP_STEAL_ROUND_MAX_NS)

/* One worker on its way. */
struct cp_moved {
    void *resource, *job; /* the manager's to fill in, with fd */
    int64_t since, expires_at;
    int64_t seen_at;      /* idle since then, by the looks */
    int fd;               /* a descriptor to be watched; -1: none */
    bool stale, validate; /* to be replaced by a gentle flush; its next lease begins with the class's validate */
};

struct cp_want {
    /* Fixed: set by the asker's manager before cp_steal_meet. */
    struct cp_core *asker;
    const struct cp_core *neighbour;
    /* The asker's while at home, the neighbour's while lent. */
    struct cp_list link;   /* in the neighbour's wants; come back, in the asker's */
    uint32_t wanted;       /* at most so many, at most CP_STEAL_BATCH; > 0 */
    bool takes_places;     /* not only workers */
    int64_t asked_at;      /* when it arrived at the neighbour */
    int64_t weigh_at;      /* where requests wait, not to be looked at before */
    uint32_t share;        /* what the neighbour will give of its workers in one answer */
    uint32_t workers, places; /* given; 0 while at home */
    uint32_t warmth;       /* of the places, so many were to be filled by cp_core_warm */
    struct cp_moved moved[CP_STEAL_BATCH];
    /* The asker's. */
    bool lent;
    bool pushed;           /* not at home, for a push: see evacuate.h */
    int64_t rest_until;    /* not to be asked before */
    int64_t stand_until;   /* not to be left standing before … */
    int64_t stand_ns;      /* … and how long that was after the last answer in vain */
    /* Set by the asker, looked at by the neighbour; the nudge that follows orders them. */
    _Atomic bool withdrawn;
};

/* What it brings. */
static inline uint32_t cp_want_units(const struct cp_want *want)
{
    return want->workers + want->places;
}

/* Of a list that is not empty. */
static inline struct cp_want *cp_want_first(const struct cp_list *list)
{
    return cp_container(list->next, struct cp_want, link);
}

/* A core's part. */
struct cp_steal {
    /* Read by neighbours. Units: so many are sought since the beginning, and claimed; claimed is written by them. */
    _Atomic uint32_t sought, claimed;
    /* As asker. */
    struct cp_want **wants;  /* by distance; NULL: not met yet */
    uint32_t count;
    uint32_t lent, withdrawn;
    uint32_t awaited;        /* what those that are lent may bring at most */
    uint32_t arrived;        /* units that were adopted */
    struct cp_list back;     /* wants that have come back */
    uint32_t rank;           /* who is next in this round */
    uint32_t hoped;          /* units that were asked for in it */
    uint32_t stand_left, stand_most; /* how many wants may still be left standing in this round; and in all */
    bool standing;           /* the round's second half */
    bool starving;
    int64_t sated_at;        /* since when it does not starve */
    int64_t round_at, round_ns; /* the next round is due; and the one after that, so much later */
    /* As neighbour. */
    struct cp_list asked;    /* wants of others, in the order in which they came */
    bool recheck;            /* some may have been withdrawn */
    cp_slot *cold;           /* bound workers: the coldest, when it was looked at, … */
    uint64_t cold_stamp;
    int64_t cold_since;      /* … and since when it was that */
    int64_t cold_look_at;    /* the next look at it */
    int64_t left_at;         /* since when who plays leaves an idle worker to the thread; 0: nobody does */
    bool held;               /* nothing is to be on its way */
};

void cp_steal_init(struct cp_core *core);

/* --- asking --- */

/* After CP_DO_MEET: the records, `count` of them by distance, until the core is initialised again. 0: there is nobody. */
void cp_steal_meet(struct cp_core *core, struct cp_want **wants, uint32_t count);

/* After CP_DO_MEET or CP_DO_ASK: no memory; nothing is asked before `until_ns`. */
void cp_steal_rest(struct cp_core *core, int64_t until_ns);

/* How many slots there must be before the want is lent: those that there are, or the quota's and what may come, and come back. */
uint32_t cp_steal_room(const struct cp_core *core, const struct cp_want *want);

/* After CP_DO_ASK: `shelved` workers are on the neighbour's shelf, or on their way to it. True: it is worth a message, the want is lent; false: it is
 * passed. */
bool cp_steal_lend(struct cp_core *core, struct cp_want *want, uint32_t shelved);

/* The answer has arrived; CP_DO_ADOPT follows. */
void cp_steal_answered(struct cp_core *core, struct cp_want *want);

/* After CP_DO_ADOPT, for each of want->moved: the worker is in `slot`, which was put by or is new, with stamp MANAGER. */
void cp_steal_adopt(struct cp_core *core, cp_slot *slot, const struct cp_moved *moved);

/* And for each of want->places. */
void cp_steal_adopt_place(struct cp_core *core, cp_slot *slot);

/* And once for the want: what its giver was to warm up is to be warm here. */
void cp_steal_adopt_warmth(struct cp_core *core, struct cp_want *want);

/* A slot that was put by; NULL: there is none, a new one is to be taken. */
cp_slot *cp_steal_take_spare(struct cp_core *core);

/* And then: the want is at home. */
void cp_steal_home(struct cp_core *core, struct cp_want *want, int64_t now_ns);

/* --- giving --- */

/* A want has arrived, with `shelved` workers on the own shelf. */
void cp_steal_asked(struct cp_core *core, struct cp_want *want, uint32_t shelved, int64_t now_ns);

/* A nudge has come: some of the wants may have been withdrawn. */
void cp_steal_nudged(struct cp_core *core);

/* After CP_DO_BRING: what was the oldest on the shelf, now in the manager's hands; NULL: there was none. False: it is to go
 * back there, as the oldest. */
bool cp_steal_brought(struct cp_core *core, cp_slot *slot, int64_t now_ns);

/* --- both --- */

/* While held nothing is asked, and whatever is lent goes home; it has once nothing is on its way. */
void cp_steal_hold(struct cp_core *core, bool held);
bool cp_steal_is_home(const struct cp_core *core);

/* --- for core/core.c and core/decide.c --- */

/* Keeps what neighbours see up to date; called before anything is decided. */
void cp_steal_update(struct cp_core *core, int64_t now_ns);

/* For core/evacuate.c: the idle worker that is so for longest (there is one), or a vacant place, into the want. */
void cp_steal_move_worker(struct cp_core *core, struct cp_want *want, int64_t now_ns, struct cp_action *action);
void cp_steal_move_place(struct cp_core *core, struct cp_want *want);

/* The next step, true when *action is set: what goes before anything else, while closed, too; what goes before own requests
 * are served, or who asked presses too little; when there is nothing else to do. */
bool cp_steal_next_first(struct cp_core *core, struct cp_action *action);
bool cp_steal_next_give(struct cp_core *core, int64_t now_ns, struct cp_action *action);
bool cp_steal_next_ask(struct cp_core *core, int64_t now_ns, struct cp_action *action);

/* One of the core's own requests was served: the next want is looked at for its pressure. */
void cp_steal_turn(struct cp_core *core);

/* Whether the thread, but not who plays the manager, would give the last idle worker to who asked though requests wait here: it
 * is to be left for that, unless the thread does not come for CP_STEAL_BOUND_NS. When it says no, the thread does not ask
 * again before CP_STEAL_WEIGH_NS. */
bool cp_steal_outweighs(struct cp_core *core, int64_t now_ns);

/* Whether any of these would have something to do, but for giving while requests wait: they are all for the shard's thread. */
bool cp_steal_wants_thread(const struct cp_core *core, int64_t now_ns);

/* Whether wants are to be told of workers that come back, as requests are. */
bool cp_steal_listens(const struct cp_core *core, int64_t now_ns);

int64_t cp_steal_wake_at(const struct cp_core *core, int64_t now_ns);
const char *cp_steal_check(const struct cp_core *core);

#endif
