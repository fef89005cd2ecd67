/* core/look.c: looks and visits. See look.h. */
#include "core/look.h"

#include <corepool/worker.h>

#include "base/clock.h"
#include "core/core.h"

/* How many looks there are in the shortest of a pool's times, and how near together at most. */
#define LOOKS 8
#define LOOK_INTERVAL_MIN_NS CP_NS_PER_MS

/* --- looks -------------------------------------------------------------------------------------------------------- */

static int64_t shorter(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static int64_t interval_of(const struct cp_look_options *options)
{
    int64_t shortest = shorter(options->idle_timeout_ns, options->idle_close_ns);
    shortest = shorter(shortest, options->max_lifetime_ns);
    shortest = shorter(shortest, options->validate_after_ns);
    shortest = shorter(shortest, options->lease_report_ns);
    shortest = shorter(shortest, options->lease_limit_ns);
    if (shortest == 0)
        return 0;
    return shortest / LOOKS < LOOK_INTERVAL_MIN_NS ? LOOK_INTERVAL_MIN_NS : shortest / LOOKS;
}

void cp_look_init(struct cp_core *core)
{
    core->look = (struct cp_look){.interval = interval_of(&core->options.look), .turn = 1, .at = INT64_MIN};
    cp_list_init(&core->look.held_slots);
}

/* Who has it by the stamp, as far as its age goes: a client, or nobody. */
static uint64_t use_of(const cp_slot *slot)
{
    uint64_t stamp = cp_slot_stamp(slot);
    return cp_stamp_passed(stamp, cp_stamp_tag(stamp) == CP_TAG_LEASED ? CP_TAG_LEASED : CP_TAG_MANAGER);
}

static bool is_idle(const cp_slot *slot)
{
    return cp_stamp_tag(slot->seen) != CP_TAG_LEASED;
}

/* For as long as the time, which is set. */
static bool is_idle_for(const cp_slot *slot, int64_t time_ns, int64_t now_ns)
{
    return time_ns != 0 && is_idle(slot) && now_ns - slot->seen_at >= time_ns;
}

/* Up to the jitter is taken off, so that workers which opened together do not end together. */
static int64_t draw_lifetime(struct cp_core *core)
{
    const struct cp_look_options *options = &core->options.look;
    uint64_t most = (uint64_t)(options->max_lifetime_ns / 100) * options->lifetime_jitter_percent;
    return options->max_lifetime_ns - (int64_t)(cp_core_draw(core) % (most + 1));
}

void cp_look_opened(struct cp_core *core, cp_slot *slot)
{
    slot->seen = use_of(slot);
    slot->seen_at = slot->since;
    slot->reports = 0;
    slot->expires_at = core->options.look.max_lifetime_ns ? slot->since + draw_lifetime(core) : CP_NEVER;
    atomic_store_explicit(&slot->validate, 0, memory_order_relaxed);
}

int64_t cp_look_due_at(const struct cp_core *core)
{
    bool looks = core->look.interval && atomic_load_explicit(&core->live, memory_order_relaxed);
    return looks ? core->look.at : CP_NEVER;
}

bool cp_look_is_due(const struct cp_core *core, int64_t now_ns)
{
    return now_ns >= cp_look_due_at(core);
}

void cp_look_begin(struct cp_core *core)
{
    struct cp_look *look = &core->look;
    look->fit = look->long_idle = look->due = look->fresh = look->closable = 0;
}

static bool is_fit(const cp_slot *slot)
{
    return slot->phase == CP_LIVE && cp_stamp_tag(cp_slot_stamp(slot)) != CP_TAG_REMOVED &&
           !atomic_load_explicit(&slot->item.doomed, memory_order_relaxed);
}

/* The next lease of it begins with the class's validate. */
static void mark_for_validation(cp_slot *slot)
{
    atomic_store_explicit(&slot->validate, cp_slot_validation(cp_stamp_next_lease(slot->seen)), memory_order_relaxed);
}

int64_t cp_look_idle_since(const cp_slot *slot, int64_t now_ns)
{
    return slot->seen == use_of(slot) ? slot->seen_at : now_ns;
}

bool cp_look_validates(const cp_slot *slot)
{
    uint32_t next = cp_slot_validation(cp_stamp_next_lease(cp_slot_stamp(slot)));
    return atomic_load_explicit(&slot->validate, memory_order_relaxed) == next;
}

void cp_look_adopted(cp_slot *slot, int64_t seen_at, bool validate)
{
    slot->seen = use_of(slot);
    slot->seen_at = seen_at;
    slot->reports = 0;
    atomic_store_explicit(&slot->validate, 0, memory_order_relaxed);
    if (validate)
        mark_for_validation(slot);
}

uint8_t cp_look_at(struct cp_core *core, cp_slot *slot, int64_t now_ns)
{
    const struct cp_look_options *options = &core->options.look;
    struct cp_look *look = &core->look;
    if (slot->phase == CP_LIVE && slot->seen != use_of(slot)) {
        slot->seen = use_of(slot);
        slot->seen_at = now_ns;
        slot->reports = 0;
    }
    if (!is_fit(slot))
        return COREPOOL_REASON_NONE;
    if (now_ns >= slot->expires_at)
        return COREPOOL_REASON_EXPIRED;
    if (options->lease_limit_ns && cp_look_saw_lease(slot) && now_ns - slot->seen_at >= options->lease_limit_ns)
        return COREPOOL_REASON_TIMEOUT;
    look->fit++;
    look->long_idle += is_idle_for(slot, options->idle_close_ns, now_ns);
    if (is_idle_for(slot, options->idle_timeout_ns, now_ns)) {
        look->due++;
        look->fresh += slot->pinged != look->turn;
    }
    if (is_idle_for(slot, options->validate_after_ns, now_ns))
        mark_for_validation(slot);
    return COREPOOL_REASON_NONE;
}

/* Reports of one lease before it is older than all time. */
#define REPORTS_MAX 40

int64_t cp_look_overdue(struct cp_core *core, cp_slot *slot, int64_t now_ns)
{
    int64_t report = core->options.look.lease_report_ns, age = now_ns - slot->seen_at;
    if (!report || !cp_look_saw_lease(slot) || slot->reports >= REPORTS_MAX || age >> slot->reports < report)
        return 0;
    while (slot->reports < REPORTS_MAX && age >> slot->reports >= report)
        slot->reports++;
    return age;
}

/* Where the limit leaves room beside those whose turn it still is, others are asked again, and the turn is over. */
static void begin_pings(struct cp_core *core)
{
    struct cp_look *look = &core->look;
    uint32_t limit = core->options.look.max_idle_pings ? core->options.look.max_idle_pings : UINT32_MAX;
    look->stage = CP_VISIT_FETCHING;
    look->ping = true;
    look->shelf_empty = core->options.managed;
    look->left = limit;
    look->turn_ends = look->fresh <= limit;
    look->extra = look->turn_ends ? limit - look->fresh : 0;
}

bool cp_look_end(struct cp_core *core, int64_t now_ns)
{
    const struct cp_look_options *options = &core->options.look;
    struct cp_look *look = &core->look;
    uint32_t stay = look->fit + atomic_load_explicit(&core->opening, memory_order_relaxed);
    uint32_t spare = stay > core->options.warm ? stay - core->options.warm : 0;
    look->closable = look->long_idle < spare ? look->long_idle : spare;
    /* On a grid, so that pools with the same times are looked at in one wake-up. */
    look->at = (now_ns / look->interval + 1) * look->interval;
    if (options->idle_timeout_ns && now_ns >= look->ping_at) {
        look->ping_at = now_ns + options->idle_timeout_ns;
        if (look->due)
            begin_pings(core);
    }
    return look->closable > 0;
}

uint8_t cp_look_close(struct cp_core *core, cp_slot *slot, int64_t now_ns)
{
    struct cp_look *look = &core->look;
    if (look->closable == 0 || !is_fit(slot) || slot->seen != use_of(slot) ||
        !is_idle_for(slot, core->options.look.idle_close_ns, now_ns))
        return COREPOOL_REASON_NONE;
    look->closable--;
    cp_core_stock_less(core);
    return COREPOOL_REASON_IDLE;
}

/* --- visits ------------------------------------------------------------------------------------------------------- */

void cp_visit_begin_info(struct cp_core *core)
{
    struct cp_look *look = &core->look;
    look->stage = CP_VISIT_FETCHING;
    look->ping = false;
    look->shelf_empty = core->options.managed;
    look->left = UINT32_MAX;
}

static void hold(struct cp_look *look, cp_slot *slot)
{
    look->fetched = NULL;
    cp_list_push_back(&look->held_slots, &slot->link);
    look->held++;
}

void cp_visit_fetched(struct cp_core *core, cp_slot *slot)
{
    core->look.fetched = slot;
    core->look.shelf_empty = slot == NULL;
    if (slot)
        slot->held = true;
}

void cp_visit_answered(struct cp_core *core, cp_slot *slot, uint8_t reason)
{
    struct cp_look *look = &core->look;
    look->stage = look->stage == CP_VISIT_ASKING ? CP_VISIT_FETCHING : look->stage;
    if (reason == COREPOOL_REASON_NONE) {
        hold(look, slot);
        return;
    }
    look->fetched = NULL;
    slot->held = false;
    cp_core_doom(core, slot, reason);
}

void cp_visit_end(struct cp_core *core)
{
    core->look.stage = CP_VISIT_RETURNING;
}

/* Whether the slot in hand is to be asked; if it is, that is its turn. */
static bool takes_turn(struct cp_look *look, cp_slot *slot)
{
    if (!look->ping)
        return true;
    if (slot->pinged == look->turn && look->extra == 0)
        return false;
    look->extra -= slot->pinged == look->turn;
    slot->pinged = slot->pinged == look->turn ? look->turn + 1 : look->turn;
    return true;
}

/* With a slot in hand: asks, keeps it unasked, or ends the fetching. True when *action is set. */
static bool ask(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    struct cp_look *look = &core->look;
    cp_slot *slot = look->fetched;
    bool due = !look->ping ||
               (slot->seen == use_of(slot) && is_idle_for(slot, core->options.look.idle_timeout_ns, now_ns));
    if (!due)
        look->stage = CP_VISIT_RETURNING;
    if (!due || !takes_turn(look, slot)) {
        hold(look, slot);
        return false;
    }
    look->stage = CP_VISIT_ASKING;
    look->left--;
    *action = (struct cp_action){.what = look->ping ? CP_DO_PING : CP_DO_INFO, .slot = slot};
    return true;
}

/* The oldest: those on the shelf, then those in the manager's hands. True when *action is set. */
static bool fetch(struct cp_core *core, struct cp_action *action)
{
    struct cp_look *look = &core->look;
    if (look->left == 0 || (look->shelf_empty && core->idle == 0)) {
        look->stage = CP_VISIT_RETURNING;
    } else if (look->shelf_empty) {
        cp_visit_fetched(core, cp_core_take_oldest_idle(core));
        look->shelf_empty = true;
    } else {
        *action = (struct cp_action){.what = CP_DO_FETCH};
        return true;
    }
    return false;
}

static cp_slot *unhold_newest(struct cp_look *look)
{
    cp_slot *slot = cp_container(look->held_slots.prev, cp_slot, link);
    cp_list_unlink(&slot->link);
    look->held--;
    slot->held = false;
    return slot;
}

/* One of those held goes back, or the visit is over. True when *action is set. */
static bool put_back(struct cp_core *core, struct cp_action *action)
{
    struct cp_look *look = &core->look;
    if (look->held == 0) {
        look->turn += look->ping && look->turn_ends;
        look->stage = CP_VISIT_NONE;
        return false;
    }
    cp_slot *slot = unhold_newest(look);
    if (atomic_load_explicit(&slot->item.doomed, memory_order_relaxed)) { /* evicted meanwhile */
        cp_core_doom(core, slot, slot->doom);
    } else if (core->options.managed) {
        cp_core_idle_again(core, slot);
    } else {
        *action = (struct cp_action){.what = CP_DO_PUT_BACK, .slot = slot};
        return true;
    }
    return false;
}

bool cp_visit_next(struct cp_core *core, int64_t now_ns, struct cp_action *action)
{
    struct cp_look *look = &core->look;
    bool decided = false;
    while (!decided && look->stage != CP_VISIT_NONE) {
        if (look->stage == CP_VISIT_RETURNING)
            decided = put_back(core, action);
        else if (look->fetched)
            decided = ask(core, now_ns, action);
        else
            decided = fetch(core, action);
    }
    return decided;
}
