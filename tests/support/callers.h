/* tests/support/callers.h: code on shards, on CPUs and on threads of its own, and clients that wait. */
#ifndef SUPPORT_CALLERS_H
#define SUPPORT_CALLERS_H

#include <pthread.h>

#include "support/laws.h"

/* Where threads run. */
int laws_cpu_of(unsigned shard);
void laws_pin(int cpu);

/* Runs fn(arg) on a shard and waits for its return. */
void laws_on_shard(unsigned shard, void (*fn)(void *arg), void *arg);
/* Runs fn(arg) on a thread of its own, on CPU `cpu` if that is not negative, and waits for the thread's end. */
void laws_in_thread(int cpu, void (*fn)(void *arg), void *arg);

/* One blocking checkout: that must succeed, or with its outcome. */
corepool_lease_t laws_take(corepool_pool_t pool);
int laws_checkout(corepool_pool_t pool, int64_t timeout_ms, corepool_lease_t *lease);

/* A client on a thread of its own: one checkout without a deadline, and the checkin if it succeeds. */
struct caller {
    corepool_pool_t pool;
    void *command;            /* for the checkout callback */
    _Atomic unsigned *served; /* shared by those whose order counts; may be NULL */
    unsigned place;           /* in that order */
    int status, ended;
    char detail[256]; /* if it failed */
    pthread_t thread;
};

void caller_start(struct caller *caller);
/* Waits for its end; the test fails if its checkout ended otherwise. */
void caller_expect(struct caller *caller, int status);

/* What an asynchronous checkout came to. outcome_note is its callback, with the outcome as argument. */
struct outcome {
    _Atomic unsigned called;
    int status;
    corepool_lease_t lease;
    char detail[256];
    corepool_shard_t *on; /* the shard that it ran on, if any */
};

void outcome_note(int status, const corepool_lease_t *lease, void *outcome);

/* A runtime with one shard, the test on its CPU, and a pool there: it is certain where each call goes. Failing
 * inits are retried soon. */
corepool_pool_t laws_start_one(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                               unsigned flags);
/* The same with options. */
corepool_pool_t laws_start_one_with(const corepool_class_t *cls, struct laws_count *count, unsigned size,
                                    const corepool_pool_options_t *options);

/* A CPU that this process may use, and one more; the test is skipped where there is none, or no rseq. */
int laws_first_cpu(void);
int laws_need_second_cpu(void);
void laws_need_rseq(void);

#endif
