/* front/keyed_reap.c: keyed pools that nobody asks for: closed when their time is over, or to make room.
 *
 * Who was got least recently: a heap by the time that the owner last saw in each entry. A get does not touch
 * it; the owner looks at the least, and puts those that were got since where they belong. So reaping costs
 * about one look per pool and reap_after_ms, whatever the gets are. */
#include "front/keyed.h"

/* So many pools are looked at in one turn of the shard's loop, which has others to serve. */
#define LOOKS_PER_TURN 256
#define TURN_NS CP_NS_PER_MS

void cp_keyed_close_pool(struct corepool_keyed_impl *impl, corepool_pool_t pool)
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

/* --- reaping, under the lock --- */

void cp_keyed_forget(struct corepool_keyed_impl *impl, struct cp_key_entry *entry)
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
    cp_keyed_forget(impl, entry);
    impl->reaped++;
    return true;
}

/* A pool in use counts as got now. */
void cp_keyed_note_used(struct corepool_keyed_impl *impl, struct cp_key_entry *entry, int64_t now)
{
    if (got_at(entry) < now)
        atomic_store(&entry->got_at, now);
    reorder(impl, entry, got_at(entry));
}

static int64_t look(struct corepool_keyed_impl *impl, int64_t now)
{
    int64_t after = impl->options.reap_after_ms * CP_NS_PER_MS;
    if (after == 0) /* a timer that was set before the set was closed and opened again */
        return CP_NEVER;
    for (unsigned looks = 0; looks < LOOKS_PER_TURN; looks++) {
        struct cp_key_entry *entry = least_recent(impl);
        if (!entry)
            return CP_NEVER;
        if (entry->order.key + after > now)
            return entry->order.key + after;
        if (!try_reap(impl, entry))
            cp_keyed_note_used(impl, entry, now);
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
bool cp_keyed_make_room(struct corepool_keyed_impl *impl)
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

/* --- the timer, on its shard --- */

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
    pthread_mutex_lock(&impl->lock);
    impl->posted = false;
    pthread_mutex_unlock(&impl->lock);
    if (!impl->has_timer) {
        uv_timer_init(&impl->shard->uv, &impl->timer);
        uv_unref((uv_handle_t *)&impl->timer);
        impl->timer.data = impl;
        impl->has_timer = true;
    }
    on_timer(&impl->timer);
}

/* Under the lock. */
void cp_keyed_arm(struct corepool_keyed_impl *impl)
{
    if (impl->options.reap_after_ms == 0 || impl->armed)
        return;
    impl->arm.deliver = deliver_arm;
    if (!impl->posted)
        impl->posted = cp_shard_send(impl->shard, &impl->arm); /* false: stopped, and with it the pools */
    impl->armed = impl->posted;
}
