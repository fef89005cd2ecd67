/* shard/steal.c: wants between shards. See steal.h.
 *
 *   record:  HOME ──ask──► the neighbour's inbox ──► its core's wants ──answer──► the asker's inbox ──► adopted, HOME
 *
 * A record is the asker's before it is sent and after it has come back, the neighbour's in between; the inboxes order that. The
 * asker's slice does not finish while one is lent, so an answer always finds it; a neighbour that has finished is found by its epoch,
 * and its shard answers for it. */
#include "shard/steal.h"

#include "base/error.h"
#include "machine/topology.h"
#include "shard/shard.h"
#include "shard/visit.h"
#include "shard/worker.h"

/* Until memory is asked for again. */
#define NO_MEMORY_REST_NS CP_NS_PER_S

static struct cp_record *record_of(struct cp_want *want)
{
    return cp_container(want, struct cp_record, want);
}

/* Told once. */
static void do_without(struct cp_slice *slice)
{
    if (!slice->cannot_steal)
        cp_slice_tell(slice, &(corepool_event_t){.kind = COREPOOL_EVENT_WARNING, .code = COREPOOL_ENOMEM,
                                                 .text = "no memory to take workers from other shards"});
    slice->cannot_steal = true;
    cp_steal_rest(&slice->core, cp_now_ns() + NO_MEMORY_REST_NS);
}

/* --- meeting the neighbours -------------------------------------------------------------------------------------------- */

/* What a slice knows of its neighbours: stays with its block. */
struct cp_neighbours {
    struct cp_want **wants;
    unsigned *order;
    struct cp_record record[];
};

static struct cp_neighbours *make_neighbours(struct corepool_shard *shard, unsigned count)
{
    struct cp_neighbours *made = cp_shard_alloc(
        shard, sizeof *made + count * (sizeof made->record[0] + sizeof made->wants[0] + sizeof made->order[0]));
    if (!made)
        return NULL;
    made->wants = (struct cp_want **)(void *)(made->record + count);
    made->order = (unsigned *)(void *)(made->wants + count);
    corepool_topology_neighbours(shard->topology, shard->index, made->order);
    return made;
}

static void meet(struct cp_slice *slice)
{
    unsigned others = corepool_topology_shards(slice->shard->topology) - 1, met = 0;
    if (!slice->neighbours)
        slice->neighbours = make_neighbours(slice->shard, others);
    struct cp_neighbours *neighbours = slice->neighbours;
    if (!neighbours) {
        do_without(slice);
        return;
    }
    for (unsigned i = 0; i < others; i++) {
        struct cp_record *record = &neighbours->record[met];
        *record = (struct cp_record){.asker = slice};
        record->neighbour = slice->config.sibling(slice->config.context, neighbours->order[i], &record->epoch);
        if (!record->neighbour)
            continue;
        record->want.asker = &slice->core;
        record->want.neighbour = &record->neighbour->core;
        cp_list_init(&record->want.link);
        neighbours->wants[met++] = &record->want;
    }
    cp_steal_meet(&slice->core, neighbours->wants, met);
}

/* --- asking and answering -------------------------------------------------------------------------------------------------- */

static void deliver_answer(struct cp_message *message)
{
    struct cp_record *record = cp_container(message, struct cp_record, message);
    cp_steal_answered(&record->asker->core, &record->want);
    cp_slice_touch(record->asker);
}

/* The asker's shard runs as long as it has that slice. */
static void send_back(struct cp_record *record)
{
    record->message.deliver = deliver_answer;
    cp_shard_send(record->asker->shard, &record->message);
}

static void deliver_ask(struct cp_message *message)
{
    struct cp_record *record = cp_container(message, struct cp_record, message);
    struct cp_slice *slice = record->neighbour;
    if (atomic_load(&slice->epoch) != record->epoch) { /* finished, and perhaps another pool's by now */
        send_back(record);
        return;
    }
    cp_steal_asked(&slice->core, &record->want, cp_shelf_idle(&slice->shelf), cp_now_ns());
    cp_slice_touch(slice);
}

/* What callers elsewhere have given back is found when it is asked for. */
static uint32_t shelved(const struct cp_slice *slice)
{
    return cp_shelf_idle(&slice->shelf) + (atomic_load_explicit(&slice->returned, memory_order_relaxed) != NULL);
}

static void ask(struct cp_slice *slice, struct cp_record *record)
{
    if (cp_slice_reserve(slice, cp_steal_room(&slice->core, &record->want)) != COREPOOL_OK) {
        do_without(slice);
        return;
    }
    if (!cp_steal_lend(&slice->core, &record->want, shelved(record->neighbour)))
        return;
    record->message.deliver = deliver_ask;
    if (!cp_shard_send(record->neighbour->shard, &record->message)) /* it has stopped: as good as an answer in vain */
        cp_steal_answered(&slice->core, &record->want);
}

/* --- moving ------------------------------------------------------------------------------------------------------------------ */

/* The coldest comes into the manager's hands and, if it is not to be retired, goes back. */
static void bring(struct cp_slice *slice)
{
    cp_slot *slot = cp_slice_take_oldest(slice);
    if (!slot) {
        cp_steal_brought(&slice->core, NULL, cp_now_ns());
        return;
    }
    if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed)) {
        cp_slice_adopt(slice, slot, COREPOOL_REASON_NONE);
        return;
    }
    cp_slot_pass(slot, CP_TAG_MANAGER);
    if (!cp_steal_brought(&slice->core, slot, cp_now_ns()))
        cp_slice_put_back(slice, slot);
}

/* The core has put its slot by already. */
static void move(cp_slot *slot, struct cp_want *want)
{
    cp_worker_leave(slot, &want->moved[want->workers - 1]);
}

/* A slot that was put by, or the next that was never used: there is room, which was made before the want was lent. */
static cp_slot *take_slot(struct cp_slice *slice)
{
    cp_slot *slot = cp_steal_take_spare(&slice->core);
    if (slot)
        return slot;
    return cp_slice_slot(slice, atomic_load_explicit(&slice->core.quota, memory_order_relaxed) + slice->core.spare);
}

static void adopt(struct cp_slice *slice, struct cp_want *want)
{
    for (uint32_t i = 0; i < want->workers; i++) {
        cp_slot *slot = take_slot(slice);
        cp_steal_adopt(&slice->core, slot, &want->moved[i]);
        cp_worker_join(slot, &want->moved[i]);
    }
    for (uint32_t i = 0; i < want->places; i++)
        cp_steal_adopt_place(&slice->core, take_slot(slice));
    cp_steal_adopt_warmth(&slice->core, want);
}

static void come_home(struct cp_slice *slice, struct cp_want *want)
{
    adopt(slice, want);
    cp_steal_home(&slice->core, want, cp_now_ns());
}

/* --- pushing --------------------------------------------------------------------------------------------------------------- */

static void deliver_return(struct cp_message *message)
{
    struct cp_record *record = cp_container(message, struct cp_record, message);
    cp_evacuate_returned(&record->asker->core, &record->want);
    cp_slice_touch(record->asker);
}

/* As with an answer. */
static void return_push(struct cp_record *record)
{
    record->message.deliver = deliver_return;
    cp_shard_send(record->asker->shard, &record->message);
}

static void deliver_push(struct cp_message *message)
{
    struct cp_record *record = cp_container(message, struct cp_record, message);
    struct cp_slice *slice = record->neighbour;
    if (atomic_load(&slice->epoch) != record->epoch) { /* as with an ask */
        return_push(record);
        return;
    }
    cp_evacuate_pushed(&slice->core, &record->want);
    cp_slice_touch(slice);
}

static void push(struct cp_slice *slice, struct cp_record *record)
{
    record->message.deliver = deliver_push;
    if (!cp_shard_send(record->neighbour->shard, &record->message)) /* it has stopped */
        cp_evacuate_returned(&slice->core, &record->want);
}

static void take_push(struct cp_slice *slice, struct cp_record *record)
{
    uint32_t room = cp_evacuate_room(&slice->core, &record->want);
    if (room > 0 && cp_slice_reserve(slice, room) == COREPOOL_OK) {
        adopt(slice, &record->want);
        cp_evacuate_taken(&record->want);
    }
    return_push(record);
}

void cp_slice_steal(struct cp_slice *slice, const struct cp_action *action)
{
    cp_assert(cp_on_shard(slice->shard));
    switch (action->what) {
    case CP_DO_MEET: meet(slice); break;
    case CP_DO_ASK: ask(slice, record_of(action->want)); break;
    case CP_DO_WITHDRAW: cp_slice_nudge(record_of(action->want)->neighbour); break;
    case CP_DO_BRING: bring(slice); break;
    case CP_DO_MOVE: move(action->slot, action->want); break;
    case CP_DO_ANSWER: send_back(record_of(action->want)); break;
    case CP_DO_PUSH: push(slice, record_of(action->want)); break;
    case CP_DO_TAKE: take_push(slice, record_of(action->want)); break;
    case CP_DO_ADOPT: come_home(slice, action->want); break;
    default: cp_assert(false);
    }
}

void cp_slice_hold_moves(struct cp_slice *slice, bool held)
{
    cp_steal_hold(&slice->core, held);
    atomic_store(&slice->home, false);
}
