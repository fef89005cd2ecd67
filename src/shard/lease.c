/* shard/lease.c: notes on leases: since when they are out, and the backtraces of a sample. */
#include "shard/lease.h"

#include <execinfo.h>
#include <stdlib.h>
#include <string.h>

#include "shard/shard.h"

/* --- written by the holder, the time by the manager where it looks ------------------------------------------------- */

/* Pairs with the acquiring loads of read_note: who sees the time sees that the stamp before it was taken back. */
static void note_time(cp_slot *slot, uint64_t stamp, int64_t since_ns)
{
    atomic_store_explicit(&slot->noted, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->noted_at, since_ns, memory_order_release);
    atomic_store_explicit(&slot->noted, stamp, memory_order_release);
}

/* Without memory this lease is not one of the sample. */
static struct cp_trace *trace_of(cp_slot *slot)
{
    struct cp_trace *trace = atomic_load_explicit(&slot->trace, memory_order_relaxed);
    if (trace)
        return trace;
    trace = calloc(1, sizeof *trace);
    atomic_store_explicit(&slot->trace, trace, memory_order_release);
    return trace;
}

/* As with the time. The innermost address is this function's own. */
static void note_trace(cp_slot *slot, uint64_t stamp)
{
    void *address[COREPOOL_BACKTRACE_MAX + 1];
    struct cp_trace *trace = trace_of(slot);
    if (!trace)
        return;
    int length = backtrace(address, COREPOOL_BACKTRACE_MAX + 1) - 1;
    atomic_store_explicit(&trace->stamp, 0, memory_order_relaxed);
    for (int i = 0; i < length; i++)
        atomic_store_explicit(&trace->address[i], address[i + 1], memory_order_release);
    atomic_store_explicit(&trace->length, length < 0 ? 0 : (uint32_t)length, memory_order_release);
    atomic_store_explicit(&trace->stamp, stamp, memory_order_release);
}

__attribute__((noinline)) void cp_lease_note(cp_slot *slot, uint64_t stamp, struct cp_thread *self)
{
    const struct cp_slice_config *config = &slot->slice->config;
    if (config->backtrace_every && ++self->unsampled >= config->backtrace_every) {
        self->unsampled = 0;
        note_trace(slot, stamp);
    }
    if (config->timed)
        note_time(slot, stamp, cp_now_ns());
}

void cp_lease_count_hold(cp_slot *slot, uint64_t stamp)
{
    /* Of a stale lease the slice may be another pool's by now: its histogram stays one, and the stamp tells. */
    struct cp_histogram *holds = atomic_load_explicit(&slot->slice->holds, memory_order_acquire);
    if (cp_likely(!holds) || atomic_load_explicit(&slot->noted, memory_order_acquire) != stamp)
        return;
    if (!slot->slice->config.timed) /* the block's last pool was, and the manager has noted when it saw the lease */
        return;
    int64_t held = cp_now_ns() - atomic_load_explicit(&slot->noted_at, memory_order_relaxed);
    cp_histogram_add_shared(holds, (uint64_t)held / 1000);
}

/* --- read by anyone ------------------------------------------------------------------------------------------------ */

/* -1: not known. */
static int64_t age_ms(const cp_slot *slot, uint64_t stamp, int64_t now_ns)
{
    uint64_t before = atomic_load_explicit(&slot->noted, memory_order_acquire);
    int64_t since = atomic_load_explicit(&slot->noted_at, memory_order_acquire);
    if (before != stamp || atomic_load_explicit(&slot->noted, memory_order_relaxed) != stamp)
        return -1;
    return now_ns > since ? (now_ns - since) / CP_NS_PER_MS : 0;
}

static void read_trace(const cp_slot *slot, uint64_t stamp, corepool_lease_info_t *info)
{
    const struct cp_trace *trace = atomic_load_explicit(&slot->trace, memory_order_acquire);
    if (!trace || atomic_load_explicit(&trace->stamp, memory_order_acquire) != stamp)
        return;
    uint32_t length = atomic_load_explicit(&trace->length, memory_order_acquire);
    for (uint32_t i = 0; i < length; i++)
        info->backtrace[i] = atomic_load_explicit(&trace->address[i], memory_order_acquire);
    if (atomic_load_explicit(&trace->stamp, memory_order_relaxed) == stamp)
        info->backtrace_length = length;
}

bool cp_lease_describe(const cp_slot *slot, int64_t now_ns, corepool_lease_info_t *info)
{
    const struct cp_slice *slice = slot->slice;
    uint64_t stamp = atomic_load_explicit(&slot->item.stamp, memory_order_acquire); /* pairs with cp_slot_set_stamp */
    if (cp_stamp_tag(stamp) != CP_TAG_LEASED)
        return false;
    const char *area = atomic_load_explicit(&slot->holder, memory_order_relaxed);
    const struct cp_thread *holder = area ? cp_thread_of(area) : NULL;
    *info = (corepool_lease_info_t){.pool = slice->config.name,
                                    .shard = slice->shard->index,
                                    .cpu = slice->shard->cpu,
                                    .worker = slot->number,
                                    .checkout = cp_stamp_generation(stamp),
                                    .thread_id = holder ? atomic_load(&holder->id) : 0,
                                    .age_ms = age_ms(slot, stamp, now_ns)};
    if (holder)
        memcpy(info->thread_name, holder->name, sizeof info->thread_name);
    read_trace(slot, stamp, info);
    return true;
}

/* --- the manager's -------------------------------------------------------------------------------------------------- */

void cp_lease_seen(cp_slot *slot)
{
    bool holder_notes = slot->slice->config.timed;
    if (!holder_notes && atomic_load_explicit(&slot->noted, memory_order_relaxed) != slot->seen)
        note_time(slot, slot->seen, slot->seen_at);
}

void cp_lease_report(cp_slot *slot, int64_t age_ns, bool first)
{
    struct cp_slice *slice = slot->slice;
    corepool_lease_info_t info;
    if (!cp_lease_describe(slot, cp_now_ns(), &info) || info.checkout != cp_stamp_generation(slot->seen))
        return; /* it has just ended */
    if (first)
        atomic_fetch_add_explicit(&slice->overdue, 1, memory_order_relaxed);
    cp_slice_tell(slice, &(corepool_event_t){.kind = COREPOOL_EVENT_OVERDUE,
                                             .worker = slot->number,
                                             .duration_ms = age_ns / CP_NS_PER_MS,
                                             .lease = &info});
}

void cp_lease_forget(struct cp_slice *slice)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        free(atomic_load_explicit(&slot->trace, memory_order_relaxed));
        atomic_store_explicit(&slot->trace, NULL, memory_order_relaxed);
    }
}
