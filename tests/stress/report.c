/* tests/stress/report.c: counts, the end of a program whose law broke, and the watchdog.
 *
 * The watchdog is the judge of L3 and L5: a client whose step lasts longer than the patience waits for
 * something that does not come. It looks at the clients' step counters only, so it needs nobody's help. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define WATCH_INTERVAL_MS 100

struct tally shared, total;

static const char *const kind_names[KINDS] = {
#define KIND_NAME(name, weight) #name,
    KIND_TABLE(KIND_NAME)
#undef KIND_NAME
};

static const unsigned kind_weights[KINDS] = {
#define KIND_WEIGHT(name, weight) weight,
    KIND_TABLE(KIND_WEIGHT)
#undef KIND_WEIGHT
};

static const char *const outcome_names[OUTCOMES] = {
#define OUTCOME_NAME(name) #name,
    OUTCOME_TABLE(OUTCOME_NAME)
#undef OUTCOME_NAME
};

const char *kind_name(enum kind kind)
{
    return kind_names[kind];
}

unsigned kind_weight(enum kind kind)
{
    return kind_weights[kind];
}

enum outcome outcome_of(int status)
{
    switch (status) {
    case COREPOOL_OK: return OUTCOME_GRANTED;
    case COREPOOL_ETIMEDOUT: return OUTCOME_TIMED_OUT;
    case COREPOOL_ECANCELED: return OUTCOME_CANCELLED;
    case COREPOOL_ESKIPPED: return OUTCOME_SKIPPED;
    case COREPOOL_ECLOSED: return OUTCOME_CLOSED;
    case COREPOOL_EEMPTY: return OUTCOME_EMPTY;
    default: broke("L5", "a request ended with %s: %s", corepool_error_name(status), corepool_error_detail());
    }
}

void add_tally(struct tally *sum, const struct tally *part)
{
    sum->issued += part->issued;
    for (unsigned i = 0; i < OUTCOMES; i++)
        sum->outcomes[i] += part->outcomes[i];
    for (unsigned i = 0; i < KINDS; i++)
        sum->kinds[i] += part->kinds[i];
}

static struct tally everything(void)
{
    struct tally sum = {0};
    add_tally(&sum, &total);
    add_tally(&sum, &shared);
    return sum;
}

void print_counts(void)
{
    struct tally sum = everything();
    printf("  requests %llu:", (unsigned long long)sum.issued);
    for (unsigned i = 0; i < OUTCOMES; i++)
        printf(" %s %llu", outcome_names[i], (unsigned long long)sum.outcomes[i]);
    printf("\n  steps:");
    for (unsigned i = 0; i < KINDS; i++)
        printf(" %s %llu", kind_names[i], (unsigned long long)sum.kinds[i]);
    printf("\n");
    if (!sum.kinds[KIND_WORKER_MOVED])
        printf("  no worker moved to another shard\n");
    if (inner_build)
        printf("  restarted sequences: %llu\n", (unsigned long long)inner_aborts());
    fflush(stdout);
}

void check_outcomes(void)
{
    struct tally sum = everything();
    uint64_t ended = 0;
    for (unsigned i = 0; i < OUTCOMES; i++)
        ended += sum.outcomes[i];
    if (ended != sum.issued)
        broke("L5", "%llu requests were made and %llu ended", (unsigned long long)sum.issued,
              (unsigned long long)ended);
}

void check_kinds(void)
{
    struct tally sum = everything();
    for (unsigned i = 0; i < KINDS; i++)
        if (kind_weights[i] && !sum.kinds[i])
            broke("coverage", "no step was of kind %s", kind_names[i]);
    for (unsigned i = 0; i < OUTCOMES; i++)
        if (!sum.outcomes[i])
            broke("coverage", "no request ended as %s", outcome_names[i]);
}

/* Where there is more than one shard, workers that may move do. */
void check_moves(void)
{
    if (scene.shards > 1 && !atomic_load(&shared.kinds[KIND_WORKER_MOVED]))
        broke("coverage", "no worker moved to another shard");
}

static void print_lease(const corepool_lease_info_t *info, void *arg)
{
    (void)arg;
    fprintf(stderr, "    %s: worker %u of shard %u is held by thread %lld (%s)\n", info->pool, info->worker,
            info->shard, (long long)info->thread_id, info->thread_name);
}

static void print_pools(void)
{
    corepool_stats_t stats;
    for (unsigned i = 0; i < scene.plan_count; i++) {
        struct life *life = atomic_load(&scene.lives[i]);
        if (!life || corepool_pool_stats(life->pool, &stats) != COREPOOL_OK)
            continue;
        fprintf(stderr,
                "  %-10s quota %llu vacant %llu opening %llu idle %llu leased %llu closing %llu waiting %llu\n",
                life->plan->name, (unsigned long long)stats.quota, (unsigned long long)stats.vacant,
                (unsigned long long)stats.opening, (unsigned long long)stats.idle,
                (unsigned long long)stats.leased, (unsigned long long)stats.closing,
                (unsigned long long)stats.waiting);
        corepool_pool_leases(life->pool, print_lease, NULL);
    }
}

static void print_clients(void)
{
    for (unsigned i = 0; i < scene.client_count; i++) {
        const struct client *client = &scene.clients[i];
        fprintf(stderr, "  client %u: %s, step %llu, cpu %d, parcels %u%s\n", client->number,
                kind_names[atomic_load(&client->doing)], (unsigned long long)atomic_load(&client->steps),
                client->cpu, atomic_load(&client->parcels), atomic_load(&client->tid) ? "" : ", gone");
    }
}

void broke(const char *law, const char *format, ...)
{
    static _Atomic bool first = true;
    va_list args;
    if (!atomic_exchange(&first, false)) /* the first report is the one to read, and it ends the program */
        for (;;)
            pause();
    fflush(stdout);
    fprintf(stderr, "BROKEN %s: ", law);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n  scene %s, seed %llu\n", scene.name ? scene.name : "none",
            (unsigned long long)options.seed);
    alarm(5); /* what follows asks the library, which may be stuck */
    print_counts();
    print_clients();
    print_pools();
    fflush(stderr);
    _exit(1);
}

struct seen {
    uint64_t steps;
    unsigned looks; /* since then */
};

static void look_at(const struct client *client, struct seen *seen)
{
    uint64_t steps = atomic_load(&client->steps);
    if (steps != seen->steps || !atomic_load(&client->tid))
        *seen = (struct seen){.steps = steps};
    else if (++seen->looks > options.patience_s * 1000 / WATCH_INTERVAL_MS)
        broke("L3", "client %u has stood in one step of kind %s for %u s", client->number,
              kind_names[atomic_load(&client->doing)], options.patience_s);
}

void *watch(void *stop)
{
    struct seen seen[CLIENTS_MAX] = {0};
    _Atomic bool *stopped = stop;
    while (!atomic_load(stopped)) {
        poll(NULL, 0, WATCH_INTERVAL_MS);
        for (unsigned i = 0; i < scene.client_count; i++)
            look_at(&scene.clients[i], &seen[i]);
    }
    return NULL;
}
