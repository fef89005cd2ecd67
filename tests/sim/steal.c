/* tests/sim/steal.c: what goes from one slice of a pool to another, as src/shard/steal.c brings it there. */
#include "sim.h"

static struct record *record_of(struct cp_want *want)
{
    return cp_container(want, struct record, want);
}

static int number(const struct cp_slice *slice)
{
    return (int)slice->number;
}

static void send_record(enum mail kind, struct cp_slice *to, struct record *record)
{
    send_mail(kind, to, NULL, NULL, world.now + delay(world.mail_bits))->record = record;
}

/* --- asking --- */

/* Nearest are those whose numbers follow. */
static void meet(struct cp_slice *slice)
{
    uint32_t count = 0;
    if (fault(8)) {
        cp_steal_rest(&slice->core, world.now + 1 + delay(world.mail_bits));
        return;
    }
    for (unsigned i = 1; i < world.shard_count; i++) {
        struct cp_slice *neighbour = &slice->pool->slices[(slice->shard->number + i) % world.shard_count];
        struct record *record = &slice->records[count];
        if (neighbour->epoch == 0) /* finished already */
            continue;
        *record = (struct record){.asker = slice, .neighbour = neighbour, .epoch = neighbour->epoch};
        record->want.asker = &slice->core;
        record->want.neighbour = &neighbour->core;
        cp_list_init(&record->want.link);
        slice->wants[count++] = &record->want;
    }
    note(NOTE_MEET, number(slice), (int)count, 0);
    cp_steal_meet(&slice->core, slice->wants, count);
}

static void ask(struct cp_slice *slice, struct record *record)
{
    uint32_t shelved = shelf_idle(record->neighbour);
    if (cp_steal_room(&slice->core, &record->want) > slice->capacity || fault(32)) {
        note(NOTE_NO_ROOM, number(slice), number(record->neighbour), 0);
        cp_steal_rest(&slice->core, world.now + 1 + delay(world.mail_bits));
        return;
    }
    if (!cp_steal_lend(&slice->core, &record->want, shelved)) {
        note(NOTE_PASS, number(slice), number(record->neighbour), (int)shelved);
        return;
    }
    if (record->under_way)
        broke("steal", "slice %u asks slice %u twice", slice->number, record->neighbour->number);
    record->under_way = true;
    note(NOTE_LEND, number(slice), number(record->neighbour), (int)record->want.wanted);
    send_record(MAIL_ASK, record->neighbour, record);
}

static void withdraw(struct cp_slice *slice, struct record *record)
{
    note(NOTE_CALL_BACK, number(slice), number(record->neighbour), 0);
    nudge_slice(record->neighbour);
}

/* --- giving --- */

void deliver_ask(struct record *record)
{
    struct cp_slice *slice = record->neighbour;
    if (slice->epoch != record->epoch) {
        note(NOTE_ASKED_LATE, number(slice), number(record->asker), 0);
        send_record(MAIL_ANSWER, record->asker, record);
        return;
    }
    note(NOTE_ASKED, number(slice), number(record->asker), 0);
    cp_steal_asked(&slice->core, &record->want, shelf_idle(slice), world.now);
}

static void bring(struct cp_slice *slice)
{
    cp_slot *slot;
    uint32_t cpu = manager_cpu(slice->shard);
    enum cp_shelf_outcome outcome = shelf_take(slice, cpu, CP_OLDEST, HELD, &slot);
    if (outcome == CP_SHELF_ELSEWHERE && leave_cpu(slice))
        outcome = shelf_take(slice, cpu, CP_OLDEST, HELD, &slot);
    if (outcome != CP_SHELF_DONE) {
        cp_steal_brought(&slice->core, NULL, world.now);
    } else if (atomic_load(&slot->item.doomed)) {
        adopt(slice, slot);
    } else {
        cp_slot_pass(slot, CP_TAG_MANAGER);
        bool kept = cp_steal_brought(&slice->core, slot, world.now);
        note(NOTE_BRING, number(slice), (int)slot->number, !kept);
        if (!kept)
            put_oldest(slice, slot);
    }
}

static void move_worker(struct cp_slice *slice, cp_slot *slot, struct record *record)
{
    struct cp_want *want = &record->want;
    note(NOTE_MOVE, number(slice), (int)slot->number, number(record->asker));
    check_usable(slot);
    if (!slice->pool->movable)
        broke("steal", "slice %u moves a worker that is bound to it", slice->number);
    move(slot, HELD, VACANT);
    known_of(slot)->alive = false;
    slice->moved++;
    slice->target--;
    want->moved[want->workers - 1].fd = (int)known_of(slot)->worker;
}

static void answer(struct cp_slice *slice, struct record *record)
{
    note(NOTE_ANSWER, number(slice), (int)record->want.workers, (int)record->want.places);
    if (record->want.workers + record->want.places > record->want.wanted)
        broke("steal", "slice %u gives more than was wanted", slice->number);
    slice->target -= record->want.places;
    send_record(MAIL_ANSWER, record->asker, record);
}

/* --- pushing --- */

static void push(struct cp_slice *slice, struct record *record)
{
    const struct cp_want *want = &record->want;
    note(NOTE_SEND_AWAY, number(slice), (int)want->workers, (int)want->places);
    if (record->under_way || cp_want_units(want) == 0 || cp_want_units(want) > CP_STEAL_BATCH)
        broke("push", "slice %u pushes %u units on slice %u", slice->number, cp_want_units(want), record->neighbour->number);
    record->under_way = record->sent = true;
    slice->target -= want->places;
    send_record(MAIL_PUSH, record->neighbour, record);
}

void deliver_push(struct record *record)
{
    struct cp_slice *slice = record->neighbour;
    if (slice->epoch == record->epoch) {
        cp_evacuate_pushed(&slice->core, &record->want);
        return;
    }
    note(NOTE_PUSHED_LATE, number(slice), number(record->asker), 0);
    send_record(MAIL_RETURN, record->asker, record);
}

void deliver_return(struct record *record)
{
    note(NOTE_RETURNED_PUSH, number(record->asker), number(record->neighbour), (int)cp_want_units(&record->want));
    record->under_way = false;
    cp_evacuate_returned(&record->asker->core, &record->want);
}

/* --- adopting --- */

void deliver_answer(struct record *record)
{
    if (!record->under_way)
        broke("steal", "slice %u is answered by slice %u twice", record->asker->number,
              record->neighbour->number);
    record->under_way = false;
    cp_steal_answered(&record->asker->core, &record->want);
}

/* A slot that was put by, or one that was never used. */
static cp_slot *provide_slot(struct cp_slice *slice)
{
    cp_slot *slot = cp_steal_take_spare(&slice->core);
    uint32_t next = atomic_load(&slice->core.quota) + slice->core.spare;
    if (slot)
        return slot;
    if (next >= slice->capacity)
        broke("steal", "slice %u has no slot for what it is given", slice->number);
    slot = &slice->slots[next];
    known_of(slot)->place = VACANT;
    slice->at[VACANT]++;
    return slot;
}

static void adopt_worker(struct cp_slice *slice, const struct cp_moved *moved)
{
    cp_slot *slot = provide_slot(slice);
    struct known *known = known_of(slot);
    note(NOTE_ADOPT_WORKER, number(slice), (int)slot->number, moved->fd);
    known->doom = known->reason = REASON_NONE;
    known->alive = true;
    known->worker = (uint32_t)moved->fd;
    known->opens++;
    slice->adopted++;
    move(slot, VACANT, HELD);
    cp_steal_adopt(&slice->core, slot, moved);
}

static void adopt_units(struct cp_slice *slice, struct cp_want *want)
{
    for (uint32_t i = 0; i < want->workers; i++)
        adopt_worker(slice, &want->moved[i]);
    for (uint32_t i = 0; i < want->places; i++) {
        cp_slot *slot = provide_slot(slice);
        note(NOTE_ADOPT_PLACE, number(slice), (int)slot->number, 0);
        cp_steal_adopt_place(&slice->core, slot);
    }
    slice->target += cp_want_units(want);
    cp_steal_adopt_warmth(&slice->core, want);
}

static void adopt_all(struct cp_slice *slice, struct cp_want *want)
{
    if (want->pushed && !record_of(want)->sent) /* it was never sent */
        slice->target -= want->places;
    record_of(want)->sent = false;
    adopt_units(slice, want);
    cp_steal_home(&slice->core, want, world.now);
}

/* Now and then there is no memory. */
static void take_push(struct cp_slice *slice, struct record *record)
{
    uint32_t room = cp_evacuate_room(&slice->core, &record->want);
    if (room && room <= slice->capacity && !fault(4)) {
        note(NOTE_TAKE_PUSH, number(slice), number(record->asker), (int)cp_want_units(&record->want));
        adopt_units(slice, &record->want);
        cp_evacuate_taken(&record->want);
    } else {
        note(NOTE_NO_ROOM, number(slice), number(record->asker), 0);
    }
    send_record(MAIL_RETURN, record->asker, record);
}

bool is_steal(const struct cp_action *action)
{
    return action->what >= CP_DO_MEET && action->what <= CP_DO_ADOPT;
}

bool perform_steal(struct cp_slice *slice, const struct cp_action *action)
{
    struct record *record = action->want ? record_of(action->want) : NULL;
    switch (action->what) {
    case CP_DO_MEET: meet(slice); break;
    case CP_DO_ASK: ask(slice, record); break;
    case CP_DO_WITHDRAW: withdraw(slice, record); break;
    case CP_DO_BRING: bring(slice); break;
    case CP_DO_MOVE: move_worker(slice, action->slot, record); break;
    case CP_DO_ANSWER: answer(slice, record); break;
    case CP_DO_PUSH: push(slice, record); break;
    case CP_DO_TAKE: take_push(slice, record); break;
    case CP_DO_ADOPT: adopt_all(slice, action->want); break;
    default: broke("oracle", "slice %u: %d is about no other slice", slice->number, (int)action->what);
    }
    return true;
}

uint32_t units_under_way(const struct pool *pool)
{
    uint32_t units = 0;
    for (unsigned i = 0; i < world.shard_count; i++) {
        const struct cp_slice *slice = &pool->slices[i];
        for (uint32_t j = 0; j < slice->core.steal.count; j++)
            if (slice->wants[j]->lent || slice->wants[j]->pushed)
                units += slice->wants[j]->workers + slice->wants[j]->places;
    }
    return units;
}

/* --- operations during which nothing may be on its way --- */

static void go_on(struct pool *pool)
{
    for (unsigned i = 0; i < world.shard_count; i++) {
        struct cp_slice *slice = &pool->slices[i];
        uint32_t value = pool->operation == MAIL_RESIZE ? 1 + pool->value % slice->limit : pool->value;
        send_operation(pool->operation, slice, NULL, value);
    }
    pool->operating = world.shard_count;
}

void operated(struct pool *pool)
{
    if (--pool->operating > 0)
        return;
    for (unsigned i = 0; i < world.shard_count; i++)
        send_operation(MAIL_RELEASE, &pool->slices[i], NULL, 0);
}

void begin_held(struct pool *pool, enum mail kind, uint32_t value)
{
    if (!pool->open || pool->holding || pool->operating)
        return;
    pool->operation = kind;
    pool->value = value;
    pool->holding = world.shard_count;
    for (unsigned i = 0; i < world.shard_count; i++)
        send_operation(MAIL_HOLD, &pool->slices[i], NULL, 0);
}

void tell_held(struct cp_slice *slice)
{
    struct pool *pool = slice->pool;
    if (!slice->holding || !cp_steal_is_home(&slice->core) || slice->core.closed)
        return;
    slice->holding = false;
    note(NOTE_HELD, number(slice), 0, 0);
    if (pool->holding && --pool->holding == 0)
        go_on(pool);
}
