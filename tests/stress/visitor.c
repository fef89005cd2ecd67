/* tests/stress/visitor.c: short-lived threads that exit with leases in their hands and requests under way. */
#include <stdlib.h>

#include "stress.h"

#define ASKS 3

struct visit {
    struct client self;
    struct ask *asks[ASKS];
    unsigned ask_count;
    bool has_loop;
};

static void ask_and_go(struct visit *visit)
{
    struct client *self = &visit->self;
    if (uv_loop_init(&self->loop) != 0)
        broke("oracle", "a visitor has no loop");
    visit->has_loop = true;
    if (corepool_loop_attach(scene.runtime, &self->loop, &self->attachment) != COREPOOL_OK)
        broke("oracle", "a visitor's loop cannot be attached: %s", corepool_error_detail());
    while (visit->ask_count < ASKS)
        visit->asks[visit->ask_count++] = start_ask(self, true);
    if (draw(&self->random) % 2)
        uv_run(&self->loop, UV_RUN_NOWAIT);
}

static void *run_visitor(void *arg)
{
    struct visit *visit = arg;
    struct client *self = &visit->self;
    self->thread = pthread_self();
    struct hand hand;
    corepool_checkout_options_t how = {.timeout_ms = 1};
    uint64_t chance = draw(&self->random);
    if (chance % 2 && take(self, pick_life(self), &how, &hand) == COREPOOL_OK)
        end(self, &hand);
    if (chance % 3 == 0)
        ask_and_go(visit);
    for (unsigned i = 0; i < (chance >> 8) % 3; i++)
        if (take(self, pick_life(self), &how, &hand) == COREPOOL_OK)
            BUMP(self->tally.kinds[KIND_LEFT_BEHIND]);
    return NULL;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* The loop outlives its thread; what the library had open on it is closed as it is. */
static void close_loop(uv_loop_t *loop)
{
    uv_walk(loop, close_handle, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    if (uv_loop_close(loop) != 0)
        broke("L7", "the loop of a thread that ended cannot be closed");
}

void visit(struct client *client)
{
    struct visit *visit = calloc(1, sizeof *visit);
    if (!visit)
        broke("oracle", "no memory for a visitor");
    visit->self.number = NUMBER_VISITOR + client->number;
    visit->self.random = draw(&client->random) | 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_visitor, visit) != 0)
        broke("oracle", "a visitor has no thread");
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < visit->ask_count; i++)
        forget_ask(visit->asks[i], &visit->self);
    if (visit->has_loop)
        close_loop(&visit->self.loop);
    add_tally(&client->tally, &visit->self.tally);
    free(visit);
}
