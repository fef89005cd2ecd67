/* tests/model/wait.pml: how a worker that comes back finds the request that waits for it. A model for Spin of
 * src/shard/slice.h and src/machine/shelf.h.
 *
 * CPU 0 has the shelf, its manager, two callers and a local giver; CPU 1 has a foreign giver. A restartable sequence
 * is one atomic step on CPU 0. The manager's store to `waiting` is seen by CPU 0 at once and by CPU 1 when it has left
 * the store buffer: any time later, at the latest when the manager exchanges the returned list. That list, the mailbox
 * and the `nudged` word are changed by atomic read-modify-writes. Caller 1 may give up while it waits, by its own
 * free choice.
 *
 * Two workers come back, two callers want one. When nothing can move any more
 *   - both callers have ended, with a worker or by giving up (no lost wake-up),
 *   - no worker was lost or doubled,
 *   - no caller took a worker off the returned list past a request that waited before it looked.
 *
 * Each of these takes one step of the protocol out, and must be found out:
 *   NOORDER       the exchange of the manager's second look does not order its setting of `waiting` before itself
 *   NORECHECK     it does not look again
 *   NOWAKE        the foreign giver does not look at `waiting`
 *   BLINDGIVE     a local give does not look at it
 *   BLINDBACK     a caller that puts back what it collected does not look at it
 *   NOSECONDLOOK  a caller does not look at it again once the list is its own
 *   LATECLEAR     the manager clears `nudged` after it has emptied the list, not before
 *   BLINDCANCEL   a caller gives up without deciding the outcome
 *   LOSTGRANT     a manager that loses the decision forgets the worker it was about to grant */

#define CALLERS 2
#define WORKERS 2

/* The shelf and the returned list: how many workers are there. */
byte shelf = 0, returned = 0;
/* The flag, as CPU 0 and CPU 1 see it; how often it was set. */
bool waiting = false, waiting_far = false;
byte listens = 0;
/* The manager's: idle workers, queued requests, given-up ones whose notice is still to come. */
byte idle = 0, owed = 0;
bool listening = false;
bool queued[CALLERS];
/* Messages: a request, its giving up, the nudge. */
bool posted[CALLERS], given_up[CALLERS], nudged = false, nudge = false;

mtype = { NONE, PENDING, GRANTED, CANCELLED };
mtype outcome[CALLERS] = NONE;

byte ended = 0; /* callers */
byte got = 0;   /* workers that callers have */
byte given = 0; /* workers that givers have let go */

inline send_nudge() {
    atomic {
        if
        :: !nudged -> nudged = true; nudge = true
        :: else
        fi
    }
}

/* The store buffer drains by itself at any time. */
active proctype store_buffer() {
end:
    do
    :: atomic { waiting_far != waiting -> waiting_far = waiting }
    od
}

/* --- givers ------------------------------------------------------------------------------------------------------ */

/* One sequence; when someone waits the worker goes on the returned list, and the manager is nudged. */
inline give(blind) {
    bool refused;
    atomic {
        refused = false;
        if
        :: !waiting || blind -> shelf++
        :: else -> refused = true; returned++
        fi
    }
    if
    :: refused -> send_nudge()
    :: else
    fi
}

proctype local_giver() {
#ifdef BLINDGIVE
    give(true);
#else
    give(false);
#endif
    given++
}

proctype foreign_giver() {
    returned++;
#ifndef NOWAKE
    if
    :: waiting_far -> send_nudge()
    :: else
    fi;
#endif
    given++
}

/* --- callers ------------------------------------------------------------------------------------------------------- */

/* Takes the list; keeps one worker unless that would overtake; puts the rest back. */
inline collect_one(kept) {
    byte n = 0, heard = 0;
    bool overtakes = false, heard_waiting = false;
    if
    :: returned == 0 || waiting -> skip
    :: else ->
        atomic { n = returned; returned = 0; heard = listens; heard_waiting = waiting };
#ifndef NOSECONDLOOK
        overtakes = waiting;
#endif
        do
        :: n == 0 -> break
        :: n > 0 && !kept && !overtakes ->
            atomic {
                n--; kept = true;
                assert(!(heard_waiting && waiting && heard == listens))
            }
        :: n > 0 && (kept || overtakes) ->
            n--;
#ifdef BLINDBACK
            give(true)
#else
            give(false)
#endif
        od
    fi
}

inline await_outcome(me, impatient) {
    if
    :: atomic { outcome[me] == GRANTED -> got++ }
#ifdef BLINDCANCEL
    :: impatient -> atomic { outcome[me] = CANCELLED; given_up[me] = true }
#else
    :: atomic { impatient && outcome[me] == PENDING -> outcome[me] = CANCELLED }; given_up[me] = true
#endif
    fi
}

proctype caller(byte me; bool impatient) {
    bool has = false;
    atomic {
        if
        :: shelf > 0 -> shelf--; has = true
        :: else
        fi
    }
    if
    :: !has -> collect_one(has)
    :: else
    fi;
    if
    :: has -> got++
    :: else ->
        atomic { outcome[me] = PENDING; posted[me] = true };
        await_outcome(me, impatient)
    fi;
    ended++
}

/* --- the manager ------------------------------------------------------------------------------------------------------ */

/* One exchange, which whoever changes the list later has seen, with all that the manager stored before it. */
inline collect() {
    atomic {
#ifndef NOORDER
        waiting_far = waiting;
#endif
        idle = idle + returned;
        returned = 0
    }
}

inline deliver(i) {
    if
    :: posted[i] -> atomic { posted[i] = false; queued[i] = true }
    :: else
    fi;
    if
    :: given_up[i] && !posted[i] ->
        atomic {
            given_up[i] = false;
            if
            :: queued[i] -> queued[i] = false
            :: else -> owed--
            fi
        }
    :: else
    fi
}

inline grant(i) {
    queued[i] = false;
    idle--;
    atomic {
        if
        :: outcome[i] == PENDING -> outcome[i] = GRANTED
#ifdef BLINDCANCEL
        :: outcome[i] == CANCELLED -> outcome[i] = GRANTED; owed++
#else
        :: outcome[i] == CANCELLED -> owed++;
#ifndef LOSTGRANT
            idle++
#endif
#endif
        fi
    }
}

inline listen() {
    bool set;
    listening = true;
    atomic {
        set = false;
        if
        :: shelf > 0 -> shelf--; idle++; listening = false
        :: else -> waiting = true; listens++; set = true
        fi
    }
    if
    :: set ->
#ifdef NORECHECK
        skip
#else
        collect()
#endif
    :: else
    fi
}

#define QUEUE (queued[0] || queued[1])
#define MAIL (posted[0] || posted[1] || given_up[0] || given_up[1] || nudge)

active proctype manager() {
end:
    do
    :: MAIL ->
        if
        :: nudge ->
            nudge = false;
#ifdef LATECLEAR
            collect();
            nudged = false
#else
            nudged = false;
            collect()
#endif
        :: else
        fi;
        deliver(0);
        deliver(1);
        do
        :: QUEUE && idle > 0 ->
            if
            :: queued[0] -> grant(0)
            :: queued[1] -> grant(1)
            fi
        :: QUEUE && idle == 0 && !listening -> listen()
        :: !QUEUE && listening -> listening = false; waiting = false
        :: !QUEUE && !listening && idle > 0 ->
            atomic {
                if
                :: !waiting -> idle--; shelf++
                :: else
                fi
            }
        :: else -> break
        od
    od
}

/* --- what must be true in the end ------------------------------------------------------------------------------------ */

init {
    atomic {
        run caller(0, false);
        if
        :: run caller(1, false)
        :: run caller(1, true)
        fi;
        run local_giver();
        run foreign_giver()
    };
    timeout -> /* nothing else can move */
    assert(ended == CALLERS && given == WORKERS);
    assert(shelf + returned + idle + got == WORKERS);
    assert(owed == 0)
}
