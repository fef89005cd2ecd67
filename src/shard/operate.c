/* shard/operate.c: a slice's part in the operations on a pool that runs: other sizes, other workers. Thread: the shard's. */
#include "base/error.h"
#include "shard/shard.h"
#include "shard/worker.h"

void cp_slice_resize(struct cp_slice *slice, uint32_t quota)
{
    struct cp_core *core = &slice->core;
    for (uint32_t lacking = cp_core_resize(core, quota); lacking > 0; lacking--)
        cp_core_add(core, cp_slice_slot(slice, atomic_load_explicit(&core->quota, memory_order_relaxed) + core->spare));
}

/* --- flush ---------------------------------------------------------------------------------------------------------- */

static bool is_leased(const cp_slot *slot)
{
    return cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_LEASED;
}

/* It goes when it comes to the manager; at once if it is in its hands. */
static void doom(struct cp_slice *slice, cp_slot *slot)
{
    if (atomic_load(&slot->item.doomed))
        return;
    slot->doom = COREPOOL_REASON_FLUSHED;
    atomic_store(&slot->item.doomed, 1);
    if (slot->phase == CP_LIVE && cp_stamp_tag(cp_slot_stamp(slot)) == CP_TAG_MANAGER && !slice->core.closed &&
        !cp_list_is_empty(&slot->link) && !slot->held)
        cp_core_doom_idle(&slice->core, slot, slot->doom);
}

/* Brings what was doomed and is within reach. On a portable shelf the sift first takes the lock, so who looked before the doom and
 * is about to give has given. */
static void bring_doomed(struct cp_slice *slice)
{
    cp_slice_sift(slice);
    cp_slice_collect(slice);
}

void cp_slice_flush(struct cp_slice *slice, bool gently)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        slot->stale = gently && (slot->phase == CP_LIVE || slot->phase == CP_OPENING);
        if (!gently && (slot->phase == CP_LIVE || slot->phase == CP_OPENING))
            doom(slice, slot);
        else if (slot->phase == CP_LIVE && is_leased(slot))
            doom(slice, slot);
    }
    bring_doomed(slice);
    if (gently)
        cp_core_refresh(&slice->core);
    else
        cp_core_refreshed(&slice->core);
}

static bool is_stale(const cp_slot *slot)
{
    return slot->stale && slot->phase == CP_LIVE && !atomic_load(&slot->item.doomed);
}

/* A worker that is leased by now goes at its checkin: it does not hold up the others. */
void cp_slice_refresh_one(struct cp_slice *slice)
{
    for (cp_slot *slot = cp_slice_first(slice); slot; slot = cp_slice_next(slot)) {
        if (!is_stale(slot))
            continue;
        bool leased = is_leased(slot);
        doom(slice, slot);
        if (!leased) {
            bring_doomed(slice);
            return;
        }
    }
    bring_doomed(slice); /* those that were leased: one of them may be the top, and the others back */
    cp_core_refreshed(&slice->core);
}

/* --- detach --------------------------------------------------------------------------------------------------------- */

int cp_slice_detach(cp_slot *slot, uint64_t stamp, void **resource)
{
    struct cp_slice *slice = slot->slice;
    if (!cp_shelf_claim(&slice->shelf, &slot->item, stamp, cp_stamp_passed(stamp, CP_TAG_MANAGER)))
        return COREPOOL_ESTALE;
    *resource = atomic_load_explicit(&slot->resource, memory_order_relaxed);
    cp_core_detach(&slice->core, slot);
    cp_worker_detach(slot);
    cp_slice_touch(slice);
    return COREPOOL_OK;
}

/* --- holding -------------------------------------------------------------------------------------------------------- */

bool cp_slice_is_held(const struct cp_slice *slice)
{
    return !cp_core_holds(&slice->core) || slice->core.listening;
}
