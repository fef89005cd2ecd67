/* tests/stress/ledger.c: worker classes that count what happens to their workers, and the oracle of one
 * holder.
 *
 * Classes: plain has init and terminate only; picky also has the callbacks at checkout and checkin; slow opens
 * and ends its workers later, and fails now and then; blocking runs on libuv's thread pool. Workers of moving,
 * which is picky, and of two more may go from shard to shard. */
#include <poll.h>
#include <stdlib.h>

#include "stress.h"

/* One init in so many fails, where inits may fail. */
#define FAIL_ONE_IN 12

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct worker *spare;

static struct worker *take_worker(void)
{
    pthread_mutex_lock(&lock);
    struct worker *worker = spare;
    if (worker)
        spare = worker->next;
    pthread_mutex_unlock(&lock);
    return worker ? worker : calloc(1, sizeof *worker);
}

static void give_worker(struct worker *worker)
{
    pthread_mutex_lock(&lock);
    worker->next = spare;
    spare = worker;
    pthread_mutex_unlock(&lock);
}

void free_workers(void)
{
    while (spare) {
        struct worker *worker = spare;
        spare = worker->next;
        free(worker);
    }
}

uint64_t life_terminated(const struct life *life)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < REASONS; i++)
        sum += atomic_load(&life->terminated[i]);
    return sum;
}

/* --- moves ------------------------------------------------------------------------------------------------ */

/* The pool's state on one shard. */
struct home {
    struct life *life;
    corepool_shard_t *shard;
};

/* The slot's shard is where the worker is now. Only who may touch the worker calls this. */
static void follow(struct worker *worker, const corepool_worker_t *slot)
{
    corepool_shard_t *shard = corepool_worker_shard(slot);
    if (shard == worker->shard)
        return;
    if (!(worker->life->plan->cls->flags & COREPOOL_CLASS_MOVABLE))
        broke("L6", "a worker of %s, which is bound to its shard, is on another", worker->life->plan->name);
    worker->shard = shard;
    atomic_fetch_add(&shared.kinds[KIND_WORKER_MOVED], 1);
}

static void check_home(const struct home *home, const corepool_worker_t *slot)
{
    if (home->shard != corepool_worker_shard(slot))
        broke("L6", "a callback of %s got another slice's pool state", home->life->plan->name);
}

/* --- the class's side ------------------------------------------------------------------------------------- */

static uint64_t draw_for(const struct home *home)
{
    return mix(options.seed + atomic_fetch_add(&home->life->draws, 1));
}

static int count_pool_init(void *arg, corepool_shard_t *shard, void **pool_state)
{
    struct life *life = arg;
    struct home *home = malloc(sizeof *home);
    if (!home)
        return COREPOOL_ENOMEM;
    *home = (struct home){.life = life, .shard = shard};
    atomic_fetch_add(&life->pool_inits, 1);
    *pool_state = home;
    return COREPOOL_OK;
}

static void count_pool_terminate(void *pool_state, corepool_reason_t reason)
{
    struct home *home = pool_state;
    if (reason != COREPOOL_REASON_STOP)
        broke("L6", "a pool ended because: %s", corepool_reason_text(reason));
    atomic_fetch_add(&home->life->pool_terminates, 1);
    free(home);
}

static int init(corepool_worker_t *slot, void *pool_state, void **resource)
{
    const struct home *home = pool_state;
    struct life *life = home->life;
    struct worker *worker = take_worker();
    check_home(home, slot);
    if (!worker)
        return COREPOOL_ENOMEM;
    worker->touches = 0;
    worker->shard = home->shard;
    worker->life = life;
    atomic_store(&worker->condemned, 0);
    if (atomic_exchange(&worker->live, 1))
        broke("oracle", "a spare worker is live");
    atomic_fetch_add(&life->inits, 1);
    *resource = worker;
    return COREPOOL_OK;
}

static int terminate(corepool_worker_t *slot, void *pool_state, void *resource, corepool_reason_t reason)
{
    const struct home *home = pool_state;
    struct life *life = home->life;
    struct worker *worker = resource;
    check_home(home, slot);
    if (!atomic_exchange(&worker->live, 0))
        broke("L6", "a worker of %s was terminated twice, now because: %s", life->plan->name,
              corepool_reason_text(reason));
    if (worker->life != life)
        broke("L6", "a worker of %s was terminated by %s", worker->life->plan->name, life->plan->name);
    uint32_t owner = atomic_exchange(&worker->owner, 0);
    if (owner && reason != COREPOOL_REASON_DOWN)
        broke("L2", "a worker of %s was terminated (%s) in the hands of %u", life->plan->name,
              corepool_reason_text(reason), owner);
    follow(worker, slot);
    atomic_fetch_add(&life->terminated[reason], 1);
    give_worker(worker);
    return COREPOOL_OK;
}

static int checkout(void *pool_state, void *resource, void *command, void **client)
{
    struct command *wish = command;
    const struct worker *worker = resource;
    (void)pool_state, (void)client;
    if (!atomic_load(&worker->live))
        broke("L6", "a terminated worker is being checked out");
    if (wish && wish->skip)
        return COREPOOL_SKIP;
    return wish && atomic_load(&wish->removals) > 0 && atomic_fetch_sub(&wish->removals, 1) > 0
               ? COREPOOL_REMOVE
               : COREPOOL_OK;
}

/* A client that leaves nothing in its lease wants the worker removed. */
static int checkin(void *pool_state, void *resource, void *client)
{
    (void)pool_state, (void)resource;
    return client ? COREPOOL_OK : COREPOOL_REMOVE;
}

/* --- later ------------------------------------------------------------------------------------------------ */

static void post_later(corepool_worker_t *slot, corepool_shard_cb fn)
{
    unsigned shard = corepool_shard_index(corepool_worker_shard(slot));
    if (corepool_shard_post(scene.runtime, shard, fn, slot) != COREPOOL_OK)
        broke("L6", "a shard with workers takes no post: %s", corepool_error_detail());
}

static void finish_init(corepool_shard_t *shard, void *arg)
{
    corepool_worker_t *slot = arg;
    struct home *home = corepool_worker_context(slot);
    void *resource = NULL;
    (void)shard;
    uint64_t chance = draw_for(home);
    if (chance % 3 == 0) {
        post_later(slot, finish_init);
    } else if (chance % FAIL_ONE_IN == 1) {
        corepool_worker_explain(slot, "this one was meant to fail");
        corepool_worker_failed(slot, COREPOOL_EOPEN);
    } else if (init(slot, home, &resource) == COREPOOL_OK) {
        corepool_worker_ready(slot, resource);
    } else {
        corepool_worker_failed(slot, COREPOOL_ENOMEM);
    }
}

static int init_slowly(corepool_worker_t *slot, void *pool_state, void **resource)
{
    uint64_t chance = draw_for(pool_state);
    if (chance % FAIL_ONE_IN == 0)
        return COREPOOL_EOPEN;
    if (chance % 4 == 1)
        return init(slot, pool_state, resource);
    corepool_worker_set_context(slot, pool_state);
    post_later(slot, finish_init);
    return COREPOOL_PENDING;
}

static void finish_terminate(corepool_shard_t *shard, void *arg)
{
    (void)shard;
    corepool_worker_gone(arg);
}

static int terminate_slowly(corepool_worker_t *slot, void *pool_state, void *resource, corepool_reason_t reason)
{
    terminate(slot, pool_state, resource, reason);
    if (draw_for(pool_state) % 2)
        return COREPOOL_OK;
    post_later(slot, finish_terminate);
    return COREPOOL_PENDING;
}

static int init_blocking(corepool_worker_t *slot, void *pool_state, void **resource)
{
    uint64_t chance = draw_for(pool_state);
    if (chance % FAIL_ONE_IN == 0) {
        corepool_worker_explain(slot, "this one was meant to fail");
        return COREPOOL_EOPEN;
    }
    if (chance % 16 == 1)
        poll(NULL, 0, 1);
    return init(slot, pool_state, resource);
}

const corepool_class_t plain_class = {
    .name = "plain",
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init,
    .terminate = terminate,
};

const corepool_class_t picky_class = {
    .name = "picky",
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init,
    .terminate = terminate,
    .checkout = checkout,
    .checkin = checkin,
};

const corepool_class_t slow_class = {
    .name = "slow",
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init_slowly,
    .terminate = terminate_slowly,
    .checkout = checkout,
};

const corepool_class_t blocking_class = {
    .name = "blocking",
    .flags = COREPOOL_CLASS_BLOCKING,
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init_blocking,
    .terminate = terminate,
};

const corepool_class_t moving_class = {
    .name = "moving",
    .flags = COREPOOL_CLASS_MOVABLE,
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init,
    .terminate = terminate,
    .checkout = checkout,
    .checkin = checkin,
};

const corepool_class_t slow_moving_class = {
    .name = "slow-moving",
    .flags = COREPOOL_CLASS_MOVABLE,
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init_slowly,
    .terminate = terminate_slowly,
    .checkout = checkout,
};

const corepool_class_t blocking_moving_class = {
    .name = "blocking-moving",
    .flags = COREPOOL_CLASS_MOVABLE | COREPOOL_CLASS_BLOCKING,
    .pool_init = count_pool_init,
    .pool_terminate = count_pool_terminate,
    .init = init_blocking,
    .terminate = terminate,
};

/* --- the holder's side ------------------------------------------------------------------------------------ */

void oracle_grab(struct hand *hand, unsigned number)
{
    struct worker *worker = hand->lease.resource;
    hand->worker = worker;
    if (!worker || !hand->lease.worker)
        broke("L5", "a checkout from %s was granted nothing", hand->life->plan->name);
    uint32_t before = atomic_exchange_explicit(&worker->owner, number, memory_order_relaxed);
    if (before)
        broke("L2", "a worker of %s is held by %u and by %u", hand->life->plan->name, before, number);
    if (!atomic_load_explicit(&worker->live, memory_order_relaxed))
        broke("L6", "a lease on a terminated worker of %s", hand->life->plan->name);
    if (worker->life != hand->life)
        broke("L2", "a checkout from %s was granted a worker of another pool, %s", hand->life->plan->name,
              worker->life->plan->name);
    if (atomic_load_explicit(&worker->condemned, memory_order_relaxed))
        broke("L6", "a worker of %s that was evicted while leased is leased again", hand->life->plan->name);
    follow(worker, hand->lease.worker);
    worker->touches++;
}

void oracle_drop(struct hand *hand, unsigned number)
{
    hand->worker->touches++;
    uint32_t before = atomic_exchange_explicit(&hand->worker->owner, 0, memory_order_relaxed);
    if (before != number)
        broke("L2", "a worker of %s was held by %u and is by %u", hand->life->plan->name, number, before);
}
