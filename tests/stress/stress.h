/* tests/stress/stress.h: many threads use everything the library offers at once, while an oracle watches the
 * laws.
 *
 * How the laws are watched:
 *   L1  at every quiescent point: the audit, and each pool's counts sum to its size
 *   L2  each worker has an owner word that its holder swaps in and out, and a plain count for a race detector
 *   L3  no client may stand still (the watchdog); eager pools fill up again
 *   L5  each request is counted when it is asked for and when it ends; each callback runs once
 *   L6  each worker's init and terminate are counted, by reason; a worker is followed by its resource, and only
 *       those of movable classes change shards
 *   L7  descriptors and threads are the same before and after a runtime
 * A broken law ends the program with the seed.
 *
 * Threads: main (rounds, quiescent points), clients, visitors (threads that exit with leases), control
 * (reopens pools, migrates, signals), watchdog, and the runtime's shards. Default of this header: any. */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include <corepool.h>

/* What a client does in one step; name, and how often in 100,000 steps. The rest are pairs. */
#define KIND_TABLE(X)     \
    X(PAIR, 0)            \
    X(TRY, 6000)          \
    X(HOLD, 2000)         \
    X(LONG_HOLD, 200)      \
    X(REMOVE, 800)        \
    X(FAIL, 800)          \
    X(CHECKIN_REMOVES, 600) \
    X(CHECKOUT_REMOVES, 600) \
    X(SKIP, 1000)          \
    X(STALE, 2000)        \
    X(PARCEL, 2000)       \
    X(DUEL, 400)          \
    X(EVICT_LEASED, 200)   \
    X(EVICT_LATER, 200)    \
    X(VISITOR, 150)        \
    X(LOOP, 500)          \
    X(SHARD, 1500)         \
    /* What happens within or beside steps. */ \
    X(LEFT_BEHIND, 0)     \
    X(PARCEL_ENDED, 0)    \
    X(DUEL_BOTH, 0)       \
    X(CANCEL, 0)          \
    X(DETACH, 0)          \
    X(FORGET, 0)          \
    X(REOPEN, 0)          \
    X(MIGRATE, 0)         \
    X(SHARD_MOVED, 0)     \
    X(WORKER_MOVED, 0)
enum kind {
#define KIND_ENUM(name, weight) KIND_##name,
    KIND_TABLE(KIND_ENUM)
#undef KIND_ENUM
    KINDS
};

/* How a request can end. */
#define OUTCOME_TABLE(X) X(GRANTED) X(TIMED_OUT) X(CANCELLED) X(SKIPPED) X(CLOSED) X(EMPTY) X(FORGOTTEN)
enum outcome {
#define OUTCOME_ENUM(name) OUTCOME_##name,
    OUTCOME_TABLE(OUTCOME_ENUM)
#undef OUTCOME_ENUM
    OUTCOMES
};

/* One thread's counts, or those of all shards together. */
struct tally {
    _Atomic uint64_t issued;
    _Atomic uint64_t outcomes[OUTCOMES];
    _Atomic uint64_t kinds[KINDS];
};

/* One writer at a time but for `shared`, so that a step costs no locked instruction. */
#define BUMP(counter)                                                                                          \
    atomic_store_explicit(&(counter), atomic_load_explicit(&(counter), memory_order_relaxed) + 1,              \
                          memory_order_relaxed)

struct options {
    uint64_t ops, seed;
    unsigned threads, seconds, patience_s;
    corepool_shelf_kind_t shelf;
    bool pinned, free, handover, storm;
};

#define REASONS ((unsigned)COREPOOL_REASON_MAX + 1)

/* A kind of pool. Churned ones are closed and reopened under load. */
struct plan {
    const char *name;
    const corepool_class_t *cls;
    unsigned size, flags, weight;
    bool churned;
    unsigned barging_us;
    corepool_policy_t policy;
};

/* One pool from open to close, and what its workers lived through. */
struct life {
    corepool_pool_t pool;
    const struct plan *plan;
    struct life *next;
    bool closed; /* main's and control's, one after the other */
    _Atomic uint64_t draws;
    _Atomic uint64_t pool_inits, pool_terminates;
    _Atomic uint64_t inits, terminated[REASONS];
    _Atomic uint64_t timeouts;
};

/* A pooled resource. Its memory stays, so that a broken law can be told from a crash. */
struct worker {
    _Atomic uint32_t live;
    _Atomic uint32_t owner;     /* number of who holds it; 0: no one */
    _Atomic uint32_t condemned; /* evicted while it was leased: nobody is to see it again */
    /* Plain on purpose: one holder after the other. */
    uint64_t touches;
    corepool_shard_t *shard; /* where it was seen last */
    struct life *life;
    struct worker *next;
};

/* What a checkout callback is asked to do. */
struct command {
    bool skip;
    _Atomic int removals;
};

/* A lease in a client's hands. */
struct hand {
    corepool_lease_t lease;
    struct life *life;
    struct worker *worker;
};

/* One lease that two clients are to end at the same moment. */
struct duel {
    _Atomic uint32_t state;
    corepool_lease_t lease;
    enum kind how;
    int status; /* of the partner's ending */
};

struct client {
    unsigned number; /* from 1: its owner word */
    int cpu;         /* -1: free */
    uint64_t random;
    _Atomic uint64_t budget;
    pthread_t thread;
    struct tally tally;
    _Atomic uint64_t steps;
    _Atomic uint32_t doing;   /* enum kind */
    _Atomic pid_t tid;        /* 0 before it runs and after */
    _Atomic uint32_t parcels; /* its leases that others are to end */
    struct duel duel;
    uv_loop_t loop;
    corepool_attachment_t *attachment;
};

#define CLIENTS_MAX 64u
#define PLANS_MAX 16u
/* Owner words of shards and of control. */
#define NUMBER_SHARD 1000u
#define NUMBER_CONTROL 900u
#define NUMBER_VISITOR 500u

/* What a scene shares. */
struct scene {
    const char *name;
    corepool_runtime_t *runtime;
    unsigned shards;
    bool portable, storm;
    int64_t deadline_ms; /* clients finish then */
    const struct plan *plans;
    unsigned plan_count, weights;
    _Atomic(struct life *) lives[PLANS_MAX]; /* the newest of each plan */
    struct life *all;                        /* main's and control's */
    struct client *clients;
    unsigned client_count, round;
    _Atomic bool stopping;   /* clients finish */
    _Atomic uint32_t asking; /* asynchronous work under way on shards */
    pid_t shard_tids[64];
};

extern struct options options;
extern struct scene scene;
extern struct tally shared; /* shards and control: by locked additions */
extern struct tally total;  /* main's: of finished clients */

/* --- report.c */
void broke(const char *law, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void print_counts(void);
void add_tally(struct tally *sum, const struct tally *part);
void check_outcomes(void);
void check_kinds(void);
void check_moves(void);
void *watch(void *stop); /* the watchdog's thread; `stop` is an _Atomic bool */
const char *kind_name(enum kind kind);
unsigned kind_weight(enum kind kind);
enum outcome outcome_of(int status);

/* --- ledger.c: worker classes that count */
extern const corepool_class_t plain_class, picky_class, slow_class, blocking_class;
extern const corepool_class_t moving_class, slow_moving_class, blocking_moving_class;
void oracle_grab(struct hand *hand, unsigned number);
void oracle_drop(struct hand *hand, unsigned number);
uint64_t life_terminated(const struct life *life);
void free_workers(void);

/* --- pools.c. Thread: main or control. */
struct life *open_life(unsigned plan);
void close_life(struct life *life, void (*meanwhile)(void));
void check_quiescent(void);
void check_reasons(void);
void free_lives(void);

/* --- client.c */
void *run_client(void *client);
void *run_handover(void *client);
int take(struct client *client, struct life *life, const corepool_checkout_options_t *how, struct hand *hand);
void end(struct client *client, struct hand *hand);
struct life *pick_life(struct client *client);
corepool_pool_t pick_handle(struct client *client, const struct life *life);

/* --- hand.c: leases that change threads */
void send_parcel(struct client *client, struct hand *hand);
bool end_parcel(struct client *client); /* client NULL: control */
void offer_duel(struct client *client, struct hand *hand);
void join_duel(struct client *client);

/* --- ask.c: asynchronous checkouts; visitor.c: threads that exit with what they hold */
struct ask;
struct ask *start_ask(struct client *client, bool leave);
bool forget_ask(struct ask *ask, struct client *client);
void ask_on_shard(struct client *client);
void ask_on_loop(struct client *client);
void evict_leased(struct client *client, struct hand *hand);
void evict_later(struct client *client, struct hand *hand);
void free_asks(void);
void visit(struct client *client);

/* --- control.c */
void *control(void *stop);
void begin_storm(struct client *client);
void end_storm(void);

int64_t now_ms(void);

/* --- inner.c or outer.c: what only a build with the library's insides can do */
extern const bool inner_build;
uint64_t inner_aborts(void);
void inner_stir(uint64_t random);
/* From here on until the next stir everyone gets through, if slowly. */
void inner_unstick(void);

static inline uint64_t draw(uint64_t *random)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return (*random * UINT64_C(0x2545F4914F6CDD1D)) >> 16;
}

static inline uint64_t mix(uint64_t value)
{
    value = (value + UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* Lets others run, by a short sleep: a thread that yields in a loop may be made to wait for seconds, as
 * kernels since 6.18 take the rest of its time slice each time. */
static inline void step_aside(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

#endif
