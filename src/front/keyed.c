/* front/keyed.c: one pool per key: made by the first who asks.
 *
 * States of a key: unknown → making (hidden in the table, its `making` says who waits) → open (shown) →
 * unknown. A get of an open one is a look into the table (keys.h); everything else is under the set's lock,
 * which is never held while a pool opens or a callback runs.
 *
 * States of a set (keyed_set.c), by generation as a pool's: open (odd) → closing (even, known) → gone (not
 * known), to be used again for a set of the same size. Which pools are not gone yet is counted in `left`, under
 * the runtime's lock, because they end on the shards. */
#include "front/keyed.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/condition.h"
#include "base/error.h"
#include "base/siphash.h"

/* A pool that is being opened, and those who wait for it. */
struct making {
    struct cp_thread *by;
    unsigned users; /* who makes it, and who waits */
    bool done; /* changed under waits_lock, too */
    int status;
    corepool_pool_t pool;
    char detail[256];
};

/* --- making --- */

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

/* --- get --- */

struct get {
    corepool_keyed_t keyed;
    struct cp_key key;
    int64_t now;
    corepool_pool_t *pool;
};

int cp_keyed_closed(void)
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

/* Who waits for whom, over all sets. Innermost. */
static pthread_mutex_t waits_lock = PTHREAD_MUTEX_INITIALIZER;

/* Under that lock: whether `self` would wait for itself in the end. A making that is done keeps nobody. */
static bool is_deadlock(const struct making *making, const struct cp_thread *self)
{
    while (making && !making->done && making->by != self)
        making = making->by->waits_for;
    return making && !making->done;
}

/* False: they would wait for each other. */
static bool note_wait(struct making *making, struct cp_thread *self)
{
    pthread_mutex_lock(&waits_lock);
    bool ends = !is_deadlock(making, self);
    if (ends)
        self->waits_for = making;
    pthread_mutex_unlock(&waits_lock);
    return ends;
}

static void forget_wait(struct cp_thread *self)
{
    pthread_mutex_lock(&waits_lock);
    self->waits_for = NULL;
    pthread_mutex_unlock(&waits_lock);
}

static void set_done(struct making *making)
{
    pthread_mutex_lock(&waits_lock);
    making->done = true;
    pthread_mutex_unlock(&waits_lock);
}

/* Under the lock, which is let go meanwhile. */
static int wait_for(struct corepool_keyed_impl *impl, struct making *making, corepool_pool_t *pool)
{
    int code;
    struct cp_thread *self = cp_thread_self(&code);
    if (!self)
        return code;
    if (!note_wait(making, self))
        return cp_fail(COREPOOL_EDEADLK, "make_arg asks for a key whose making waits for its own");
    making->users++;
    while (!making->done)
        cp_condition_wait(&impl->made, &impl->lock, CP_NEVER);
    forget_wait(self);
    return take_outcome(making, pool);
}

/* Under the lock: room for one more, and who makes it is known to all. */
static int begin_making(struct get *get, struct cp_key_entry **out)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    if (impl->keys.used == impl->max_pools && !cp_keyed_make_room(impl))
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

/* Under the lock: all who wait get the outcome. The set may have been closed meanwhile: then its pool is, too. */
static int end_making(struct get *get, struct cp_key_entry *entry, int status)
{
    struct corepool_keyed_impl *impl = get->keyed.impl;
    struct making *making = entry->making;
    bool opened = status == COREPOOL_OK;
    if (opened && !cp_keyed_is_open(get->keyed))
        status = cp_keyed_closed();
    making->status = status;
    if (status != COREPOOL_OK)
        snprintf(making->detail, sizeof making->detail, "%s", corepool_error_detail());
    entry->making = NULL;
    if (status == COREPOOL_OK) {
        int64_t now = cp_coarse_now_ns(); /* it may have taken long */
        cp_keys_show(entry, making->pool, now > get->now ? now : get->now);
        cp_heap_add(&impl->order, &entry->order, atomic_load(&entry->got_at));
        impl->opened++;
        cp_keyed_arm(impl);
    } else {
        cp_keyed_forget(impl, entry);
    }
    if (opened && status != COREPOOL_OK)
        cp_keyed_close_pool(impl, making->pool);
    set_done(making);
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
    if (!cp_keyed_is_open(get->keyed))
        return cp_keyed_closed();
    struct cp_key_entry *entry = cp_keys_find(&impl->keys, &get->key);
    if (entry && entry->making) {
        int status = cp_check_control("corepool_keyed_get of a key whose pool is being opened");
        return status == COREPOOL_OK ? wait_for(impl, entry->making, get->pool) : status;
    }
    if (entry && cp_pool_is_open(cp_key_pool(entry))) { /* a reader missed it because it moved, or was hidden */
        cp_keyed_note_used(impl, entry, get->now);
        *get->pool = cp_key_pool(entry);
        return COREPOOL_OK;
    }
    if (entry) /* somebody else has closed it */
        cp_keyed_forget(impl, entry);
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
    if (cp_likely(cp_keyed_is_open(keyed)) && cp_likely(cp_keys_read(&keyed.impl->keys, &get.key, now, pool)))
        return COREPOOL_OK;
    return get_slowly(&get);
}

int corepool_keyed_get(corepool_keyed_t keyed, const void *key, size_t key_length, corepool_pool_t *pool)
{
    return cp_keyed_get_at(keyed, key, key_length, cp_coarse_now_ns(), pool);
}
