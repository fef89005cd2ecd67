/* tests/sim/world.c: one seed from its beginning to its end: faults, then none, then everything closes.
 *
 * Most worlds are tiny: races are dense where few clients want the same few workers. */
#include "sim.h"

/* No world needs so many steps once nothing fails any more: it runs in circles. */
#define STEPS_FOR_EVER 2000000
/* Every so often all slices are looked at. */
#define STEPS_BETWEEN_CHECKS 64

static unsigned between(unsigned least, unsigned most)
{
    return least + (unsigned)draw(most - least + 1);
}

static uint32_t power_of_two(uint32_t least)
{
    uint32_t power = 1;
    while (power < least)
        power *= 2;
    return power;
}

static void make_slice(struct cp_slice *slice, struct pool *pool, struct shard *shard, uint32_t capacity)
{
    slice->number = pool->number * world.shard_count + shard->number;
    slice->pool = pool;
    slice->shard = shard;
    slice->capacity = capacity;
    slice->hungry_at = slice->stocked_at = CP_NEVER;
    slice->records = provide(world.shard_count, sizeof *slice->records);
    slice->wants = provide(world.shard_count, sizeof(struct cp_want *));
    slice->timer = CP_NEVER;
    slice->slots = provide(capacity, sizeof *slice->slots);
    slice->known = provide(capacity, sizeof *slice->known);
    slice->shelf.ring = provide(capacity, sizeof(cp_slot *));
    cp_list_init(&slice->arrivals);
    for (uint32_t i = 0; i < capacity; i++) {
        slice->slots[i].slice = slice;
        slice->slots[i].number = i;
        cp_list_init(&slice->slots[i].link);
        cp_slot_set_stamp(&slice->slots[i], cp_stamp(0, CP_TAG_MANAGER));
    }
    shard->slices[pool->number] = slice;
}

static void make_shards(void)
{
    world.shards = provide(world.shard_count, sizeof *world.shards);
    for (unsigned i = 0; i < world.shard_count; i++) {
        struct shard *shard = &world.shards[i];
        shard->number = i;
        shard->inbox_end = &shard->inbox;
        shard->slices = provide(world.pool_count, sizeof(struct cp_slice *));
    }
}

static void make_pools(unsigned capacity_bits)
{
    world.pools = provide(world.pool_count, sizeof *world.pools);
    for (unsigned i = 0; i < world.pool_count; i++) {
        struct pool *pool = &world.pools[i];
        pool->number = i;
        pool->slices = provide(world.shard_count, sizeof *pool->slices);
        for (unsigned j = 0; j < world.shard_count; j++)
            pool->most += pool->slices[j].limit = UINT32_C(1) << draw(capacity_bits + 1);
        for (unsigned j = 0; j < world.shard_count; j++)
            make_slice(&pool->slices[j], pool, &world.shards[j], power_of_two(pool->most));
        pool_open(pool);
    }
}

static void make_clients(void)
{
    world.clients = provide(world.client_count, sizeof *world.clients);
    for (unsigned i = 0; i < world.client_count; i++) {
        struct client *client = &world.clients[i];
        client->number = i;
        client->cpu = (unsigned)draw(world.shard_count);
        client->rounds = between(0, 2);
        client_goes_on(client, client_begin, delay(world.mail_bits));
    }
}

/* The safety phase's steps. */
static uint64_t make_world(uint64_t seed)
{
    bool large = seed % 256 == 255;
    clear_world();
    forget_workers();
    world.seed = seed;
    world.random = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
    cp_list_init(&world.spare_asks);
    world.shard_count = large ? between(16, 64) : between(1, 3);
    world.pool_count = large ? between(1, 3) : between(1, 2);
    world.client_count = large ? between(32, 160) : between(2, 8);
    world.step_bits = between(1, 5);
    world.mail_bits = between(2, 8);
    world.hold_bits = between(2, 10);
    world.timeout_bits = between(4, 14);
    world.fault_bits = between(5, 10);
    make_shards();
    make_pools(large ? 4 : 2);
    make_clients();
    schedule(EVENT_FAULT, &world, 0, delay(world.fault_bits));
    return large ? between(5000, 30000) : between(300, 2500);
}

/* --- faults --- */

static struct shard *any_shard(void)
{
    return &world.shards[draw(world.shard_count)];
}

static struct client *any_client(void)
{
    return &world.clients[draw(world.client_count)];
}

static struct cp_slice *any_slice(void)
{
    return &world.pools[draw(world.pool_count)].slices[draw(world.shard_count)];
}

static void migrate(void)
{
    struct client *client = any_client();
    client->cpu = (unsigned)draw(world.shard_count);
    note(NOTE_MIGRATE, (int)client->number, (int)client->cpu, 0);
}

static void stall(void)
{
    struct shard *shard = any_shard();
    shard->stalled_until = world.now + delay(world.hold_bits + 2);
    note(NOTE_STALL, (int)shard->number, 0, 0);
}

static void evict_any(void)
{
    struct cp_slice *slice = any_slice();
    send_operation(MAIL_EVICT, slice, &slice->slots[draw(slice->capacity)], 0);
}

static void wake_spuriously(void)
{
    if (draw(2))
        schedule(EVENT_WAKE, any_client(), 0, world.now);
    else
        send_mail(MAIL_SPURIOUS, any_slice(), NULL, NULL, world.now);
}

static void set_cpu(struct shard *shard, bool off)
{
    shard->off_cpu = off;
    note(NOTE_OFF_CPU, (int)shard->number, off, 0);
    for (unsigned i = 0; !off && i < world.pool_count; i++)
        send_mail(MAIL_CPU, shard->slices[i], NULL, NULL, world.now);
}

/* Half of those that are away park, a while later: if they still are. */
static void change_cpu(void)
{
    struct shard *shard = any_shard();
    set_cpu(shard, !shard->off_cpu);
    if (shard->off_cpu && draw(2))
        for (unsigned i = 0; i < world.pool_count; i++)
            send_mail(MAIL_PARK, shard->slices[i], NULL, NULL, world.now + delay(world.hold_bits));
}

static void set_outage(bool outage)
{
    world.outage = outage;
    note(NOTE_OUTAGE, outage, 0, 0);
}

static void close_any(void)
{
    struct pool *pool = &world.pools[draw(world.pool_count)];
    if (pool->open && draw(3) == 0)
        pool_close(pool);
}

/* The same operation on all slices of a pool. */
static void operate_any(void)
{
    static const enum mail kinds[] = {MAIL_PAUSE, MAIL_DRAIN, MAIL_RESIZE, MAIL_WARM, MAIL_FLUSH, MAIL_INFO};
    enum mail kind = kinds[draw(sizeof kinds / sizeof *kinds)];
    struct pool *pool = &world.pools[draw(world.pool_count)];
    bool whether = draw(2);
    note(NOTE_OPERATE, (int)pool->number, (int)kind, whether);
    if (kind == MAIL_RESIZE || kind == MAIL_FLUSH) {
        begin_held(pool, kind, kind == MAIL_RESIZE ? (uint32_t)draw(UINT32_MAX) : whether);
        return;
    }
    for (unsigned i = 0; i < world.shard_count; i++) {
        struct cp_slice *slice = &pool->slices[i];
        send_operation(kind, slice, NULL, kind == MAIL_WARM ? 1 + (uint32_t)draw(slice->limit) : whether);
    }
}

static void any_fault(void)
{
    if (world.phase != SAFETY)
        return;
    if (world.outage && draw(2))
        set_outage(false);
    switch (draw(15)) {
    case 0: stall(); break;
    case 1:
    case 2: evict_any(); break;
    case 3: wake_spuriously(); break;
    case 4: change_cpu(); break;
    case 5: set_outage(true); break;
    case 6: close_any(); break;
    case 7:
    case 8:
    case 9: operate_any(); break;
    default: migrate(); break;
    }
    schedule(EVENT_FAULT, &world, 0, world.now + 1 + delay(world.fault_bits));
}

/* Looks would go on for ever, and workers come and go with them. */
static void end_operations(struct pool *pool)
{
    for (unsigned i = 0; i < world.shard_count; i++) {
        pool->slices[i].core.look.interval = 0;
        send_operation(MAIL_PAUSE, &pool->slices[i], NULL, false);
        send_operation(MAIL_DRAIN, &pool->slices[i], NULL, false);
    }
}

static void end_faults(void)
{
    set_outage(false);
    world.settled_at = world.now + (TICK << (world.hold_bits + 2)); /* the last stall is over by then */
    for (unsigned i = 0; i < world.pool_count; i++)
        end_operations(&world.pools[i]);
    for (unsigned i = 0; i < world.shard_count; i++) {
        world.shards[i].stalled_until = 0;
        if (world.shards[i].off_cpu)
            set_cpu(&world.shards[i], false);
    }
}

/* --- phases --- */

static void happen(const struct event *event)
{
    switch (event->kind) {
    case EVENT_CLIENT: ((struct client *)event->object)->step(event->object); break;
    case EVENT_DEADLINE: client_deadline(event->object, event->serial); break;
    case EVENT_WAKE: client_woken(event->object); break;
    case EVENT_MAIL: manager_receive(event->object); break;
    case EVENT_MANAGER: manager_step(event->object); break;
    case EVENT_FAULT: any_fault(); break;
    case EVENT_REOPEN: pool_open(event->object); break;
    }
}

/* False: nothing is left to happen. */
static bool step(bool careful)
{
    struct event event;
    if (!next_event(&event))
        return false;
    happen(&event);
    if (++world.steps % STEPS_BETWEEN_CHECKS == 0 || careful)
        check_world();
    return true;
}

static void run_out(bool careful)
{
    uint64_t limit = world.steps + STEPS_FOR_EVER;
    while (step(careful))
        if (world.steps > limit)
            broke("liveness", "no end in %d steps", STEPS_FOR_EVER);
}

static void begin_phase(enum phase phase)
{
    world.phase = phase;
    note(NOTE_PHASE, (int)phase, 0, 0);
}

uint64_t run_seed(uint64_t seed, bool careful, bool aloud)
{
    trace_begin(aloud);
    uint64_t steps = make_world(seed);
    while (world.steps < steps && step(careful))
        ;
    begin_phase(LIVENESS);
    end_faults();
    run_out(careful);
    check_quiescent();
    begin_phase(FINALE);
    for (unsigned i = 0; i < world.pool_count; i++)
        pool_close(&world.pools[i]);
    run_out(careful);
    check_closed();
    return trace_hash();
}
