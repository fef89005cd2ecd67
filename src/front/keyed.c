/* front/keyed.c: one pool per key: made by the first who asks, closed when nobody has asked for long.
 *
 * States of a key: unknown → making (hidden in the table, its `making` says who waits) → open (shown) →
 * unknown. A get of an open one is a look into the table (keys.h); everything else is under the set's lock,
 * which is never held while a pool opens or a callback runs. Lock order: the set's, then the runtime's.
 *
 * States of a set, by generation as a pool's: open (odd) → closing (even, known) → gone (not known), to be used
 * again for a set of the same size. Which pools are not gone yet is counted in `left`, under the runtime's
 * lock, because they end on the shards.
 *
 * Who was got least recently: a heap by the time that the owner last saw in each entry. A get does not touch
 * it; the owner looks at the least, and puts those that were got since where they belong. So reaping costs
 * about one look per pool and reap_after_ms, whatever the gets are. */
#include "front/keyed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/siphash.h"
#include "front/keys.h"

/* So many pools are looked at in one turn of the shard's loop, which has others to serve. */
#define LOOKS_PER_TURN 256
#define TURN_NS CP_NS_PER_MS

/* A pool that is being opened, and those who wait for it. */
struct making {
    struct cp_thread *by;
    unsigned users; /* who makes it, and who waits */
    bool done;
    int status;
    corepool_pool_t pool;
    char detail[256];
};

struct corepool_keyed_impl {
    /* Read by every get. Odd: open, and a handle's generation equals it. */
    _Atomic uint32_t generation;
    uint64_t seed[2];    /* fixed */
    struct cp_keys keys; /* its table and mask are fixed; the rest under the lock */
    /* Fixed while known. */
    struct corepool_runtime *runtime cp_line_aligned;
    struct corepool_shard *shard; /* where its timer is; fixed for good */
    uint32_t max_pools;           /* fixed for good */
    corepool_keyed_options_t options;
    corepool_pool_options_t pool_options;
    char name[CP_POOL_NAME_BYTES];
    /* Under its lock. */
    pthread_mutex_t lock;
    pthread_cond_t made;
    struct cp_heap order;
    uint64_t opened, reaped;
    bool armed; /* the timer is set, or the message that sets it is on its way */
    struct cp_message arm;
    /* The shard's. */
    uv_timer_t timer;
    bool has_timer;
    /* Under the runtime's lock. */
    uint32_t known;      /* generation of the handles to a set that is open or closing; 0: none */
    uint32_t left;       /* pools not gone, those being opened among them */
    struct cp_list link; /* in the runtime's keyed */
};

static bool is_open(corepool_keyed_t keyed)
{
    return atomic_load_explicit(&keyed.impl->generation, memory_order_acquire) == keyed.generation;
}

/* --- the pools
 * ------------------------------------------------------------------------------------------------------ */

static void count_gone(struct corepool_keyed_impl *impl)
{
    pthread_mutex_lock(&impl->runtime->lock);
    impl->left--;
    pthread_cond_broadcast(&impl->runtime->changed);
    pthread_mutex_unlock(&impl->runtime->lock);
}

static void free_arg(const struct corepool_keyed_impl *impl, void *arg)
{
    if (impl->options.free_arg)
        impl->options.free_arg(arg, impl->options.context);
}

static void pool_gone(void *context, void *arg)
{
    free_arg(context, arg);
    count_gone(context);
}

/* NAME:KEY */
static void name_pool(const struct corepool_keyed_impl *impl, const struct cp_key *key,
                      char name[CP_POOL_NAME_BYTES])
{
    const unsigned char *bytes = key->bytes;
    size_t at = (size_t)snprintf(name, CP_POOL_NAME_BYTES, "%s:", impl->name);
    for (size_t i = 0; i < key->length && at + 1 < CP_POOL_NAME_BYTES; i++)
        name[at++] = bytes[i] > ' ' && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    name[at < CP_POOL_NAME_BYTES ? at : CP_POOL_NAME_BYTES - 1] = '\0';
}

/* Without any lock. */
static int make_pool(struct corepool_keyed_impl *impl, const struct cp_key *key, corepool_pool_t *pool)
{
    const corepool_keyed_options_t *options = &impl->options;
    corepool_pool_options_t pool_options = impl->pool_options;
    char name[CP_POOL_NAME_BYTES];
    void *arg = options->context;
    int status =
        options->make_arg ? options->make_arg(key->bytes, key->length, options->context, &arg) : COREPOOL_OK;
    if (status != COREPOOL_OK)
        return cp_fail(status < 0 ? status : COREPOOL_EOPEN, "make_arg: %d (%s) for a key of %zu bytes", status,
                       corepool_error_name(status), key->length);
    name_pool(impl, key, name);
    pool_options.name = name;
    status = cp_pool_open(impl->runtime, options->cls, arg, options->size, &pool_options,
                          (struct cp_pool_owner){pool_gone, impl}, pool);
    if (status != COREPOOL_OK)
        free_arg(impl, arg);
    return status;
}

static void close_pool(struct corepool_keyed_impl *impl, corepool_pool_t pool)
{
    pthread_mutex_lock(&impl->runtime->lock);
    if (cp_pool_is_known(pool) && cp_pool_is_open(pool))
        cp_pool_begin_close(pool.impl, COREPOOL_REASON_STOP);
    pthread_mutex_unlock(&impl->runtime->lock);
}

static void note_use(struct cp_slice *slice, void *used)
{
    *(bool *)used |= cp_slice_leased(slice) || atomic_load(&slice->core.waiting);
}

/* False: it is used. */
static bool close_if_idle(struct corepool_keyed_impl *impl, corepool_pool_t pool)
{
    bool used = false;
    pthread_mutex_lock(&impl->runtime->lock);
    if (cp_pool_is_known(pool) && cp_pool_is_open(pool)) { /* else somebody else has closed it */
        cp_pool_each_slice(pool.impl, note_use, &used);
        if (!used)
            cp_pool_begin_close(pool.impl, COREPOOL_REASON_IDLE);
    }
    pthread_mutex_unlock(&impl->runtime->lock);
    return !used;
}

/* --- reaping, under the lock
 * ---------------------------------------------------------------------------------------- */

static void forget(struct corepool_keyed_impl *impl, struct cp_key_entry *entry)
{
    cp_heap_remove(&impl->order, &entry->order);
    cp_keys_remove(&impl->keys, entry);
}

static void reorder(struct corepool_keyed_impl *impl, struct cp_key_entry *entry, int64_t got_at)
{
    cp_heap_remove(&impl->order, &entry->order);
    cp_heap_add(&impl->order, &entry->order, got_at);
}

static int64_t got_at(const struct cp_key_entry *entry)
{
    return atomic_load(&entry->got_at);
}

/* The entry that was got least recently, in its right place; NULL: there is none. */
static struct cp_key_entry *least_recent(struct corepool_keyed_impl *impl)
{
    while (impl->order.least) {
        struct cp_key_entry *entry = cp_container(impl->order.least, struct cp_key_entry, order);
        if (got_at(entry) == entry->order.key)
            return entry;
        reorder(impl, entry, got_at(entry));
    }
    return NULL;
}

/* False: it was got in this moment, or its pool is used. */
static bool try_reap(struct corepool_keyed_impl *impl, struct cp_key_entry *entry)
{
    cp_keys_hide(entry);
    if (got_at(entry) != entry->order.key || !close_if_idle(impl, cp_key_pool(entry))) {
        cp_keys_show(entry, cp_key_pool(entry), 0);
        return false;
    }
    forget(impl, entry);
    impl->reaped++;
    return true;
}

/* A pool in use counts as got now. */
static void note_used(struct corepool_keyed_impl *impl, struct cp_key_entry *entry, int64_t now)
{
    if (got_at(entry) < now)
        atomic_store(&entry->got_at, now);
    reorder(impl, entry, got_at(entry));
}

static int64_t look(struct corepool_keyed_impl *impl, int64_t now)
{
    int64_t after = impl->options.reap_after_ms * CP_NS_PER_MS;
    for (unsigned looks = 0; looks < LOOKS_PER_TURN; looks++) {
        struct cp_key_entry *entry = least_recent(impl);
        if (!entry)
            return CP_NEVER;
        if (entry->order.key + after > now)
            return entry->order.key + after;
        if (!try_reap(impl, entry))
            note_used(impl, entry, now);
    }
    return now + TURN_NS;
}

int64_t cp_keyed_look(struct corepool_keyed_impl *impl, int64_t now)
{
    pthread_mutex_lock(&impl->lock);
    int64_t due = look(impl, now);
    pthread_mutex_unlock(&impl->lock);
    return due;
}

/* One pool less, if one is idle. Those in use are set aside meanwhile, so that each is looked at once. */
static bool make_room(struct corepool_keyed_impl *impl)
{
    struct cp_key_entry *used = NULL, *entry;
    bool reaped = false;
    while (!reaped && (entry = least_recent(impl))) {
        reaped = try_reap(impl, entry);
        if (!reaped) {
            cp_heap_remove(&impl->order, &entry->order);
            entry->next = used;
            used = entry;
        }
    }
    for (; used; used = used->next)
        cp_heap_add(&impl->order, &used->order, got_at(used));
    return reaped;
}

/* --- the timer, on its shard
 * ---------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    struct corepool_keyed_impl *impl = timer->data;
    int64_t now = cp_coarse_now_ns();
    pthread_mutex_lock(&impl->lock);
    int64_t due = look(impl, now);
    impl->armed = due != CP_NEVER;
    pthread_mutex_unlock(&impl->lock);
    if (due == CP_NEVER)
        return;
    uv_update_time(&impl->shard->uv);
    uv_timer_start(timer, on_timer, (uint64_t)cp_left_ms(due, now), 0); /* fails without a callback only */
}

static void deliver_arm(struct cp_message *message)
{
    struct corepool_keyed_impl *impl = cp_container(message, struct corepool_keyed_impl, arm);
    if (!impl->has_timer) {
        uv_timer_init(&impl->shard->uv, &impl->timer);
        uv_unref((uv_handle_t *)&impl->timer);
        impl->timer.data = impl;
        impl->has_timer = true;
    }
    on_timer(&impl->timer);
}

/* Under the lock. */
static void arm_timer(struct corepool_keyed_impl *impl)
{
    if (impl->options.reap_after_ms == 0 || impl->armed)
        return;
    impl->arm.deliver = deliver_arm;
    impl->armed = cp_shard_send(impl->shard, &impl->arm); /* false: stopped, and with it the pools */
}

/* --- get
 * -------------------------------------------------------------------------------------------------------------
 */

struct get {
    corepool_keyed_t keyed;
    struct cp_key key;
    int64_t now;
    corepool_pool_t *pool;
};

static int closed(void)
{
    return cp_fail(COREPOOL_ECLOSED, "the set of keyed pools is closed");
}

/* Under the lock: one of those that it concerned has its outcome. */
static int take_outcome(struct making *making, corepool_pool_t *pool)
{
    int status = making->status;
    if (status == COREPOOL_OK)
        *pool = making->pool;
    else if (status < 0)
        cp_fail(status, "%s", making->detail);
    if (--making->users == 0)
        free(making);
    return status;
}

/* Under the lock, which is let go meanwhile. */
static int wait_for(struct corepool_keyed_impl *impl, struct making *making, corepool_pool_t *pool)
{
    if (making->by == cp_self)
        return cp_fail(COREPOOL_EDEADLK, "make_arg asks for the key that it is called for");
    making->users++;
    while (!making->done)
        pthread_cond_wait(&impl->made, &impl->lock);
    return take_outcome(making, pool);
}

/* Under the lock: room for one more, and who makes it is known to all. */
static int begin_making(struct get *get, struct cp_key_entry **out)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    if (impl->keys.used == impl->max_pools && !make_room(impl))
        return cp_fail(COREPOOL_ELIMIT, "max_pools: %u keyed pools of %s are open, and none is idle",
                       impl->max_pools, impl->name);
    struct making *making = calloc(1, sizeof *making);
    struct cp_key_entry *entry = making ? cp_keys_add(&impl->keys, &get->key) : NULL;
    if (!entry) {
        free(making);
        return cp_fail(COREPOOL_ENOMEM, "no memory for a keyed pool");
    }
    making->by = cp_self;
    making->users = 1;
    entry->making = making;
    pthread_mutex_lock(&impl->runtime->lock);
    impl->left++;
    pthread_mutex_unlock(&impl->runtime->lock);
    *out = entry;
    return COREPOOL_OK;
}

/* Under the lock: all who wait get the outcome. The set may have been closed meanwhile: then its pool is, too.
 */
static int end_making(struct get *get, struct cp_key_entry *entry, int status)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    struct making *making = entry->making;
    bool opened = status == COREPOOL_OK;
    if (opened && !is_open(get->keyed))
        status = closed();
    making->status = status;
    if (status != COREPOOL_OK)
        snprintf(making->detail, sizeof making->detail, "%s", corepool_error_detail());
    entry->making = NULL;
    if (status == COREPOOL_OK) {
        cp_keys_show(entry, making->pool, get->now);
        cp_heap_add(&impl->order, &entry->order, got_at(entry));
        impl->opened++;
        arm_timer(impl);
    } else {
        forget(impl, entry);
    }
    if (opened && status != COREPOOL_OK)
        close_pool(impl, making->pool);
    making->done = true;
    pthread_cond_broadcast(&impl->made);
    status = take_outcome(making, get->pool);
    if (!opened) /* else it is counted when it is gone; nothing of the set is looked at after that */
        count_gone(impl);
    return status;
}

/* Under the lock, which is let go meanwhile. */
static int make(struct get *get)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    struct cp_key_entry *entry = NULL;
    int status = cp_check_control("corepool_keyed_get of a new key");
    if (status == COREPOOL_OK && !cp_thread_self(&status))
        return status;
    if (status == COREPOOL_OK)
        status = begin_making(get, &entry);
    if (status != COREPOOL_OK)
        return status;
    struct making *making = entry->making;
    pthread_mutex_unlock(&impl->lock);
    status = make_pool(impl, &get->key, &making->pool);
    pthread_mutex_lock(&impl->lock);
    return end_making(get, entry, status);
}

/* Under the lock. */
static int get_locked(struct get *get)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    if (!is_open(get->keyed))
        return closed();
    struct cp_key_entry *entry = cp_keys_find(&impl->keys, &get->key);
    if (entry && entry->making) {
        int status = cp_check_control("corepool_keyed_get of a key whose pool is being opened");
        return status == COREPOOL_OK ? wait_for(impl, entry->making, get->pool) : status;
    }
    if (entry && cp_pool_is_open(cp_key_pool(entry))) { /* a reader missed it because it moved, or was hidden */
        note_used(impl, entry, get->now);
        *get->pool = cp_key_pool(entry);
        return COREPOOL_OK;
    }
    if (entry) /* somebody else has closed it */
        forget(impl, entry);
    return make(get);
}

__attribute__((noinline)) static int get_slowly(struct get *get)
{
    if (cp_thread_is_forked())
        return cp_fail(COREPOOL_EFORKED, "the runtime belongs to the parent process");
    pthread_mutex_lock(&get->keyed.impl->lock);
    int status = get_locked(get);
    pthread_mutex_unlock(&get->keyed.impl->lock);
    return status;
}

static int check_key(corepool_keyed_t keyed, const void *key, size_t length)
{
    if (!keyed.impl)
        return cp_fail(COREPOOL_EINVAL, "keyed: the zero value is no set of pools");
    if (!key || length == 0 || length > COREPOOL_KEY_MAX)
        return cp_fail(COREPOOL_EINVAL, "key_length: %zu: a key has 1 to %u bytes", key ? length : 0,
                       COREPOOL_KEY_MAX);
    return COREPOOL_OK;
}

int cp_keyed_get_at(corepool_keyed_t keyed, const void *key, size_t key_length, int64_t now,
                    corepool_pool_t *pool)
{
    if (cp_unlikely(!pool))
        return cp_fail(COREPOOL_EINVAL, "pool: NULL");
    *pool = (corepool_pool_t){0};
    if (cp_unlikely(!keyed.impl || !key || key_length - 1 >= COREPOOL_KEY_MAX))
        return check_key(keyed, key, key_length);
    struct get get = {keyed, {key, key_length, cp_siphash(keyed.impl->seed, key, key_length)}, now, pool};
    if (cp_likely(is_open(keyed)) && cp_likely(cp_keys_read(&keyed.impl->keys, &get.key, now, pool)))
        return COREPOOL_OK;
    return get_slowly(&get);
}

int corepool_keyed_get(corepool_keyed_t keyed, const void *key, size_t key_length, corepool_pool_t *pool)
{
    return cp_keyed_get_at(keyed, key, key_length, cp_coarse_now_ns(), pool);
}

/* --- open
 * -------------------------------------------------------------------------------------------------------------
 */

static int check_open(corepool_runtime_t *runtime, const corepool_keyed_options_t *options,
                      const corepool_pool_options_t *pool_options)
{
    if (options->max_pools > COREPOOL_KEYED_POOLS_MAX)
        return cp_fail(COREPOOL_EINVAL, "max_pools: %u: at most %u", options->max_pools,
                       COREPOOL_KEYED_POOLS_MAX);
    if (options->reap_after_ms < 0 || options->reap_after_ms > COREPOOL_KEYED_REAP_MAX_MS)
        return cp_fail(COREPOOL_EINVAL, "reap_after_ms: %lld: 0 (never) to a year",
                       (long long)options->reap_after_ms);
    return cp_pool_check_open(runtime, options->cls, options->size, pool_options);
}

static void free_impl(struct corepool_keyed_impl *impl)
{
    cp_keys_finish(&impl->keys);
    pthread_cond_destroy(&impl->made);
    pthread_mutex_destroy(&impl->lock);
    free(impl);
}

static int draw_seed(uint64_t seed[2])
{
    size_t bytes = 2 * sizeof seed[0];
    return getrandom(seed, bytes, 0) == (ssize_t)bytes
               ? COREPOOL_OK
               : cp_fail(COREPOOL_ESYSTEM, "getrandom: %s", strerror(errno));
}

static int create_impl(struct corepool_runtime *runtime, uint32_t max_pools, struct corepool_keyed_impl **out)
{
    struct corepool_keyed_impl *impl = aligned_alloc(CP_CACHE_LINE, sizeof *impl);
    if (!impl)
        return cp_fail(COREPOOL_ENOMEM, "no memory for keyed pools");
    *impl = (struct corepool_keyed_impl){.runtime = runtime, .max_pools = max_pools};
    cp_list_init(&impl->link);
    int status = draw_seed(impl->seed);
    if (status == COREPOOL_OK && !cp_keys_init(&impl->keys, max_pools))
        status = cp_fail(COREPOOL_ENOMEM, "no memory for %u keys", max_pools);
    if (status != COREPOOL_OK) {
        free(impl);
        return status;
    }
    pthread_mutex_init(&impl->lock, NULL); /* neither fails on Linux */
    pthread_cond_init(&impl->made, NULL);
    *out = impl;
    return COREPOOL_OK;
}

/* Under the runtime's lock: one that is gone and has room for just so many. */
static struct corepool_keyed_impl *find_spare(struct corepool_runtime *runtime, uint32_t max_pools)
{
    for (struct cp_list *at = runtime->keyed.next; at != &runtime->keyed; at = at->next) {
        struct corepool_keyed_impl *impl = cp_container(at, struct corepool_keyed_impl, link);
        if (impl->known == 0 && impl->max_pools == max_pools)
            return impl;
    }
    return NULL;
}

/* Under the lock: the timer of its last use may still come once. */
static void describe(struct corepool_keyed_impl *impl, const corepool_keyed_options_t *options,
                     const corepool_pool_options_t *pool_options)
{
    impl->options = *options;
    impl->pool_options = *pool_options;
    snprintf(impl->name, sizeof impl->name, "%s", options->name ? options->name : options->cls->name);
    impl->options.pool = NULL; /* the caller's */
    impl->options.name = impl->pool_options.name = NULL;
    impl->opened = impl->reaped = 0;
}

/* Under the runtime's lock: a set that is known from now on, by the handles that it will have. */
static int take_impl(struct corepool_runtime *runtime, uint32_t max_pools, struct corepool_keyed_impl **out)
{
    if (runtime->state != CP_RUNNING)
        return cp_fail(COREPOOL_ECLOSED, "the runtime is stopping");
    struct corepool_keyed_impl *impl = find_spare(runtime, max_pools);
    int status = impl ? COREPOOL_OK : create_impl(runtime, max_pools, &impl);
    if (status != COREPOOL_OK)
        return status;
    if (cp_list_is_empty(&impl->link)) {
        cp_list_push_back(&runtime->keyed, &impl->link);
        impl->shard = &runtime->shard[runtime->keyed_made++ % runtime->shards]; /* timers are spread, too */
    }
    impl->known = atomic_load(&impl->generation) + 1;
    *out = impl;
    return COREPOOL_OK;
}

int corepool_keyed_open(corepool_runtime_t *runtime, const corepool_keyed_options_t *given,
                        corepool_keyed_t *keyed)
{
    static const corepool_pool_options_t lazy = {.flags = COREPOOL_POOL_LAZY};
    if (!keyed)
        return cp_fail(COREPOOL_EINVAL, "keyed: NULL");
    *keyed = (corepool_keyed_t){0};
    if (!given)
        return cp_fail(COREPOOL_EINVAL, "options: NULL: keyed pools need a class");
    corepool_keyed_options_t options = *given;
    const corepool_pool_options_t *pool_options = options.pool ? options.pool : &lazy;
    options.size = options.size ? options.size : COREPOOL_SIZE_DEFAULT;
    options.max_pools = options.max_pools ? options.max_pools : COREPOOL_KEYED_POOLS_DEFAULT;
    int status = check_open(runtime, &options, pool_options);
    if (status != COREPOOL_OK)
        return status;
    struct corepool_keyed_impl *impl = NULL;
    pthread_mutex_lock(&runtime->lock);
    status = take_impl(runtime, options.max_pools, &impl);
    pthread_mutex_unlock(&runtime->lock);
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&impl->lock);
    describe(impl, &options, pool_options);
    *keyed = (corepool_keyed_t){.impl = impl, .generation = atomic_fetch_add(&impl->generation, 1) + 1};
    pthread_mutex_unlock(&impl->lock);
    return COREPOOL_OK;
}

/* --- close
 * ------------------------------------------------------------------------------------------------------------
 */

/* Under the lock. Those that are being opened are closed by who opens them. */
static void begin_close(struct corepool_keyed_impl *impl)
{
    atomic_fetch_add(&impl->generation, 1);
    while (impl->order.least) {
        struct cp_key_entry *entry = cp_container(impl->order.least, struct cp_key_entry, order);
        close_pool(impl, cp_key_pool(entry));
        forget(impl, entry);
    }
}

/* Under the runtime's lock: in words what is left. */
static int report_left(const struct corepool_keyed_impl *impl)
{
    char text[160] = "";
    struct cp_list *pools = &impl->runtime->pools;
    for (struct cp_list *at = pools->next; at != pools && !*text; at = at->next) {
        struct corepool_pool_impl *pool = cp_container(at, struct corepool_pool_impl, link);
        if (pool->owner.context == impl)
            cp_pool_describe_leases(pool, text, sizeof text);
    }
    return cp_fail(COREPOOL_EBUSY, "still in use: %u keyed pools of %s: %s", impl->left, impl->name, text);
}

/* Under the runtime's lock. */
static int wait_until_gone(corepool_keyed_t keyed, int64_t timeout_ms)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    int64_t deadline = cp_deadline_ns(cp_now_ns(), timeout_ms);
    struct timespec until = {.tv_sec = deadline / CP_NS_PER_S, .tv_nsec = deadline % CP_NS_PER_S};
    if (impl->known != keyed.generation)
        return closed();
    while (impl->known == keyed.generation && impl->left) {
        int error = deadline == CP_NEVER
                        ? pthread_cond_wait(&impl->runtime->changed, &impl->runtime->lock)
                        : pthread_cond_timedwait(&impl->runtime->changed, &impl->runtime->lock, &until);
        if (error && impl->known == keyed.generation && impl->left)
            return report_left(impl);
    }
    if (impl->known == keyed.generation) /* else another closer was first */
        impl->known = 0;
    return COREPOOL_OK;
}

int corepool_keyed_close(corepool_keyed_t keyed, int64_t timeout_ms)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    int status = cp_check_control("corepool_keyed_close");
    if (status == COREPOOL_OK && !impl)
        status = cp_fail(COREPOOL_EINVAL, "keyed: the zero value is no set of pools");
    if (status == COREPOOL_OK)
        status = cp_check_timeout("timeout_ms", timeout_ms);
    if (status != COREPOOL_OK)
        return status;
    pthread_mutex_lock(&impl->lock);
    if (is_open(keyed))
        begin_close(impl);
    pthread_mutex_unlock(&impl->lock);
    pthread_mutex_lock(&impl->runtime->lock);
    status = wait_until_gone(keyed, timeout_ms);
    pthread_mutex_unlock(&impl->runtime->lock);
    return status;
}

void cp_keyed_free(struct corepool_runtime *runtime)
{
    while (!cp_list_is_empty(&runtime->keyed)) {
        struct corepool_keyed_impl *impl = cp_container(runtime->keyed.next, struct corepool_keyed_impl, link);
        cp_list_unlink(&impl->link);
        free_impl(impl);
    }
}

int corepool_keyed_stats(corepool_keyed_t keyed, corepool_keyed_counts_t *stats)
{
    struct corepool_keyed_impl *impl = keyed.impl;
    if (!impl || !stats)
        return cp_fail(COREPOOL_EINVAL, impl ? "stats: NULL" : "keyed: the zero value is no set of pools");
    pthread_mutex_lock(&impl->lock);
    int status = is_open(keyed) ? COREPOOL_OK : closed();
    if (status == COREPOOL_OK)
        *stats =
            (corepool_keyed_counts_t){.pools = impl->keys.used, .opened = impl->opened, .reaped = impl->reaped};
    pthread_mutex_unlock(&impl->lock);
    return status;
}
