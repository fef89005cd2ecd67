/* tests/support/laws.h: a runtime for one test, a class that counts its workers, and the audit at the test's
 * end.
 *
 * Criterion gives every test a process of its own, so there is one of everything. Assertions belong to the
 * test's own thread: other threads and shards note what they saw, and the test judges it after it has joined or
 * called them. */
#ifndef SUPPORT_LAWS_H
#define SUPPORT_LAWS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <corepool.h>

/* How long anything may take before a test says that it does not happen. */
#define LAWS_PATIENCE_MS 20000
/* A timeout that is meant to pass. */
#define LAWS_SHORT_MS 20

#define LAWS_REASONS (COREPOOL_REASON_MAX + 1)

/* What a counting class saw of one pool. Zero is the start; to be handed over as the pool's class argument. */
struct laws_count {
    /* Set by the test before a pool opens, or at any time where atomic. */
    _Atomic int fail_inits;            /* so many inits fail first; negative: all */
    _Atomic bool pend_inits;           /* init stays pending, `pending` is the worker */
    int fail_pool_init_on;             /* pool_init fails on this shard - 1; 0: on none */
    int (*on_checkout)(void *command); /* the checkout callback's outcome; NULL: OK */
    _Atomic int checkin_outcome;
    _Atomic bool hold; /* blocking class: init and terminate wait while this is set */
    /* Seen. */
    _Atomic unsigned opened, terminated, twice, reasons[LAWS_REASONS];
    _Atomic unsigned pool_inits, pool_terminates, early_pool_terminates, held;
    _Atomic unsigned overlaps; /* a worker was checked out by two at once (L2) */
    _Atomic(corepool_worker_t *) pending;
    /* Private. */
    _Atomic(struct laws_unit *) units;
    struct laws_count *next;
};

/* The resource of the counting classes. */
struct laws_unit {
    struct laws_count *count;
    corepool_worker_t *worker; /* NULL: it may move */
    unsigned serial; /* 0 for the pool's first, … */
    _Atomic unsigned in_use, ended;
    struct laws_unit *next;
};

/* Counts every worker; its callbacks finish at once. */
extern const corepool_class_t laws_class;
/* The same without checkout and checkin callbacks. */
extern const corepool_class_t laws_plain_class;
/* The same with COREPOOL_CLASS_MOVABLE. */
extern const corepool_class_t laws_movable_class;
/* The same with COREPOOL_CLASS_BLOCKING. */
extern const corepool_class_t laws_blocking_class;

/* Has laws_end judge a count that laws_open did not see. */
void laws_judge(struct laws_count *count);

/* Starts the test's runtime; must succeed. options may be NULL. */
corepool_runtime_t *laws_start(const corepool_runtime_options_t *options);
corepool_runtime_t *laws_runtime(void);

/* Opens a pool of that class on the test's runtime; must succeed. Its count is judged by laws_end. */
corepool_pool_t laws_open(const corepool_class_t *cls, struct laws_count *count, unsigned size, unsigned flags);
corepool_pool_t laws_open_with(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                               const corepool_pool_options_t *options);

/* L1 to L7: the audit, the stop, the end; every worker terminated once; descriptors and threads as before
 * laws_start; under LeakSanitizer no memory is left. */
void laws_end(void);
/* All but the look for leaks, which takes long: for tests that start again and again. */
void laws_end_quickly(void);
void laws_expect_no_leaks(void);

/* The last part alone, for tests that start and stop by themselves: between the two calls nothing may be left.
 */
void laws_baseline(void);
void laws_expect_baseline(void);
/* Of it, for laws_eventually, where somebody else closes descriptors in his own time. */
bool laws_descriptors_are_back(void *arg);

/* libuv starts its thread pool at first use and keeps it: before laws_start, so that it is part of the
 * baseline. */
void laws_warm_thread_pool(void);

/* Asks `holds` again and again until it is true; false after LAWS_PATIENCE_MS. */
bool laws_eventually(bool (*holds)(void *arg), void *arg);
/* The test fails if these do not come about. */
void laws_await_idle(corepool_pool_t pool, uint64_t idle);
void laws_await_waiting(corepool_pool_t pool, uint64_t waiting);
void laws_await_count(const _Atomic unsigned *count, unsigned value);

int64_t laws_now_ms(void);
corepool_stats_t laws_stats(corepool_pool_t pool);

/* Asserts that the last failure's detail on this thread contains `word`. */
void laws_expect_detail(const char *word);

#endif
