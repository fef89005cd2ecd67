/* tests/stress/hand.c: leases that change threads: parcels, ended by whoever finds them, and duels, in which
 * two threads end one lease at the same moment. */
#include <stdlib.h>

#include "stress.h"

/* --- parcels ---------------------------------------------------------------------------------------------- */

#define PARCELS 8

struct parcel {
    struct hand hand;
    struct client *from; /* stays until its parcels are ended */
};

static _Atomic(struct parcel *) parcels[PARCELS];

/* The lease is handed over, or ended when there is no room. */
void send_parcel(struct client *client, struct hand *hand)
{
    struct parcel *parcel = malloc(sizeof *parcel);
    struct parcel *none = NULL;
    if (!parcel)
        broke("oracle", "no memory for a parcel");
    *parcel = (struct parcel){.hand = *hand, .from = client};
    oracle_drop(hand, client->number);
    atomic_fetch_add(&client->parcels, 1);
    if (atomic_compare_exchange_strong(&parcels[draw(&client->random) % PARCELS], &none, parcel))
        return;
    atomic_fetch_sub(&client->parcels, 1);
    free(parcel);
    if (corepool_checkin(&hand->lease) != COREPOOL_OK)
        broke("L2", "a holder cannot end its lease: %s", corepool_error_detail());
}

bool end_parcel(struct client *client)
{
    static _Atomic unsigned turn;
    unsigned number = client ? client->number : NUMBER_CONTROL;
    struct parcel *parcel = atomic_exchange(&parcels[atomic_fetch_add(&turn, 1) % PARCELS], NULL);
    if (!parcel)
        return false;
    oracle_grab(&parcel->hand, number);
    oracle_drop(&parcel->hand, number);
    if (corepool_checkin(&parcel->hand.lease) != COREPOOL_OK)
        broke("L2", "a lease that was handed over cannot be ended: %s", corepool_error_detail());
    atomic_fetch_add(&shared.kinds[KIND_PARCEL_ENDED], 1);
    atomic_fetch_sub(&parcel->from->parcels, 1);
    free(parcel);
    return true;
}

/* --- duels ------------------------------------------------------------------------------------------------ */

/* IDLE → OFFERED → TAKEN (a partner stands ready) → GO → DONE → IDLE; or OFFERED → IDLE when nobody came. */
enum { IDLE, OFFERED, TAKEN, GO, DONE };

/* How long to wait for a partner, in turns. */
#define OFFER_TURNS 4000

static int end_lease(corepool_lease_t *lease, enum kind how)
{
    return how == KIND_REMOVE ? corepool_checkin_remove(lease)
           : how == KIND_FAIL ? corepool_checkin_fail(lease)
                              : corepool_checkin(lease);
}

/* Spins for a moment, as the other is about to come, then lets others run. */
static void await_state(const struct duel *duel, uint32_t state)
{
    for (unsigned turns = 1; atomic_load(&duel->state) != state; turns++)
        if (turns % 1024 == 0)
            step_aside();
        else
            relax();
}

static bool find_partner(struct duel *duel)
{
    uint32_t offered = OFFERED;
    for (unsigned turns = 1; turns < OFFER_TURNS; turns++) {
        if (atomic_load(&duel->state) == TAKEN)
            return true;
        if (turns % 256 == 0)
            step_aside();
        relax();
    }
    return !atomic_compare_exchange_strong(&duel->state, &offered, IDLE);
}

static void judge(const struct hand *hand, int mine, int other)
{
    bool both = mine == COREPOOL_OK && other == COREPOOL_OK;
    if ((mine != COREPOOL_OK && mine != COREPOOL_ESTALE) || (other != COREPOOL_OK && other != COREPOOL_ESTALE))
        broke("L2", "two threads ended a lease on %s: %s and %s", hand->life->plan->name,
              corepool_error_name(mine), corepool_error_name(other));
    if (mine != COREPOOL_OK && other != COREPOOL_OK)
        broke("L2", "two threads ended a lease on %s and neither did", hand->life->plan->name);
    if (both && scene.portable)
        broke("L2", "two threads ended a lease on %s and both did", hand->life->plan->name);
    if (both)
        atomic_fetch_add(&shared.kinds[KIND_DUEL_BOTH], 1);
}

void offer_duel(struct client *client, struct hand *hand)
{
    static const enum kind hows[] = {KIND_PAIR, KIND_PAIR, KIND_REMOVE, KIND_FAIL};
    struct duel *duel = &client->duel;
    duel->lease = hand->lease;
    duel->how = hows[draw(&client->random) % 4];
    oracle_drop(hand, client->number);
    atomic_store(&duel->state, OFFERED);
    if (!find_partner(duel)) {
        if (corepool_checkin(&hand->lease) != COREPOOL_OK)
            broke("L2", "a holder cannot end its lease: %s", corepool_error_detail());
        return;
    }
    await_state(duel, TAKEN);
    uint64_t lead = draw(&client->random) % 64; /* who comes first is to vary */
    atomic_store(&duel->state, GO);
    for (; lead; lead--)
        relax();
    int mine = corepool_checkin(&hand->lease);
    await_state(duel, DONE);
    judge(hand, mine, duel->status);
    atomic_store(&duel->state, IDLE);
}

void join_duel(struct client *client)
{
    struct client *other = &scene.clients[draw(&client->random) % scene.client_count];
    struct duel *duel = &other->duel;
    uint32_t offered = OFFERED;
    if (other == client || atomic_load_explicit(&duel->state, memory_order_relaxed) != OFFERED ||
        !atomic_compare_exchange_strong(&duel->state, &offered, TAKEN))
        return;
    corepool_lease_t lease = duel->lease;
    uint64_t lead = draw(&client->random) % 64;
    await_state(duel, GO);
    for (; lead; lead--)
        relax();
    duel->status = end_lease(&lease, duel->how);
    atomic_store(&duel->state, DONE);
}
