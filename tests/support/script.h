/* tests/support/script.h: a class whose callbacks answer what a test's commands say and note what they saw, and
 * a runner of one test body in both modes: callbacks on callers' threads, and on the shard
 * (COREPOOL_POOL_SERIALISED).
 *
 * One script at a time. Its runtime has one shard, with the test on that CPU; its workers are counted and
 * judged as laws.h does. */
#ifndef SUPPORT_SCRIPT_H
#define SUPPORT_SCRIPT_H

#include "support/callers.h"

/* A client's command. Zero: all is well. The client's memory: enqueue copies it. */
struct order {
    int enqueue;  /* outcome of enqueue */
    int refusals; /* so many checkouts answer `refusal` first */
    int refusal;  /* default COREPOOL_REMOVE */
    int checkout; /* outcome of the others */
    void *client; /* if set: what becomes lease->resource */
};

/* What enqueue makes of a command. */
struct wrapped {
    struct order order;
    _Atomic unsigned ended;  /* it reached a checkout that returned OK or SKIP, or cancelled QUEUED */
    _Atomic unsigned leased; /* cancelled LEASED */
};

#define SCRIPT_WRAPS 1000
#define SCRIPT_UNITS 16
#define SCRIPT_VISITS 64

struct script {
    struct laws_count count; /* first: the pool's argument and state */
    bool serialised;
    /* Set by the test. */
    _Atomic int checkin_outcome, update_outcome, terminate_outcome;
    _Atomic int visit_outcome[SCRIPT_UNITS]; /* of ping and info, by the worker's serial */
    /* Seen. */
    _Atomic unsigned visits;         /* pings and infos … */
    unsigned visited[SCRIPT_VISITS]; /* … by serial, in their order */
    _Atomic unsigned enqueues, checkouts, checkins, updates, queued, leased;
    _Atomic unsigned late_leased; /* cancelled LEASED came after a terminate */
    _Atomic unsigned strangers;   /* a callback had another pool state or thread than promised */
    _Atomic unsigned unwrapped;   /* a callback had a command that enqueue did not make */
    _Atomic(void *) client;       /* of the last checkin */
    _Atomic(void *) message;      /* of the last update */
    _Atomic unsigned replaced;    /* terminates that saw the resource of an update */
    void *instead; /* an update puts the address of this in place of the resource that it holds */
    struct wrapped wraps[SCRIPT_WRAPS];
    _Atomic unsigned wrap_count;
    /* Events. */
    _Atomic unsigned warnings;
    _Atomic unsigned overdues; /* leases reported, each once … */
    uint64_t overdue_checkout; /* … the last of them; in a pool of one worker */
    _Atomic int warning_code;
};

extern struct script script;

/* All callbacks; the same without enqueue; init and terminate only. */
extern corepool_class_t script_class, script_unwrapped_class, script_bare_class;

/* Starts the runtime and a pool of that class in the mode under test. options may be NULL. */
corepool_pool_t script_open(const corepool_class_t *cls, unsigned size, const corepool_pool_options_t *options);

/* The same on a runtime with two shards, which stand for no CPU of this machine: corepool_pool_at says where
 * calls go. */
corepool_pool_t script_open_on_two(const corepool_class_t *cls, unsigned size,
                                   const corepool_pool_options_t *options);

/* What the mode under test adds to a pool's flags. */
unsigned script_flags(void);

/* One checkout with that command (may be NULL) and a deadline that does not come. */
int script_checkout(corepool_pool_t pool, struct order *order, corepool_lease_t *lease);

/* Runs the body in each mode, and ends it with all laws and the script's own: no stranger, every wrapped
 * command ended once. */
void script_in_both_modes(void (*body)(void));

#define PROMISE(name)                                                                                          \
    static void name(void);                                                                                    \
    Test(nimble, name)                                                                                         \
    {                                                                                                          \
        script_in_both_modes(name);                                                                            \
    }                                                                                                          \
    static void name(void)

#endif
