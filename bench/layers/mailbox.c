/* bench/layers/mailbox.c: posting messages and taking them, by one thread for itself and from producers elsewhere.
 *
 * Every message must arrive, those of one producer in their order, and each take that finds some must have had exactly one
 * post that said it was the first: the wake-ups of a shard. */
#include <sched.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "layers.h"
#include "machine/mailbox.h"

#define PRODUCERS_MAX 16
/* Of one producer on their way at once. */
#define LETTERS 256

struct letter {
    struct cp_message message;
    unsigned producer;
    uint64_t number;
};

struct producer {
    struct letter letters[LETTERS];
    uint64_t firsts; /* posts that found the mailbox empty */
    _Atomic uint64_t arrived cp_line_aligned; /* written by the consumer */
};

static struct cp_mailbox mailbox cp_line_aligned;
static struct producer producers[PRODUCERS_MAX];
static uint64_t arrivals, batches;

static void deliver(struct cp_message *message)
{
    struct letter *letter = cp_container(message, struct letter, message);
    struct producer *producer = &producers[letter->producer];
    uint64_t arrived = atomic_load_explicit(&producer->arrived, memory_order_relaxed);
    BENCH_REQUIRE(letter->number == arrived, "message %llu of a producer arrived as number %llu",
                  (unsigned long long)letter->number, (unsigned long long)arrived);
    arrivals++;
    /* Release: the producer writes the letter again once it has seen this. */
    atomic_store_explicit(&producer->arrived, arrived + 1, memory_order_release);
}

static bool take_all(void)
{
    struct cp_message *next, *message = cp_mailbox_take(&mailbox);
    if (!message)
        return false;
    batches++;
    for (; message; message = next) {
        next = message->next; /* delivered, it may be posted again */
        message->deliver(message);
    }
    return true;
}

static void post(unsigned number, uint64_t nth)
{
    struct producer *producer = &producers[number];
    struct letter *letter = &producer->letters[nth % LETTERS];
    *letter = (struct letter){.message.deliver = deliver, .producer = number, .number = nth};
    enum cp_post outcome = cp_mailbox_post(&mailbox, &letter->message);
    BENCH_REQUIRE(outcome != CP_POST_CLOSED, "the mailbox is closed");
    producer->firsts += outcome == CP_POST_FIRST;
}

static void empty(void)
{
    memset(producers, 0, sizeof producers);
    arrivals = batches = 0;
}

static void check(uint64_t posted)
{
    uint64_t firsts = 0;
    for (unsigned i = 0; i < PRODUCERS_MAX; i++)
        firsts += producers[i].firsts;
    BENCH_REQUIRE(arrivals == posted, "%llu messages of %llu arrived", (unsigned long long)arrivals,
                  (unsigned long long)posted);
    BENCH_REQUIRE(firsts == batches, "%llu posts were the first of %llu takes", (unsigned long long)firsts,
                  (unsigned long long)batches);
    BENCH_REQUIRE(!cp_mailbox_take(&mailbox), "the mailbox is not empty");
}

/* --- one thread --- */

static double post_and_take(uint64_t messages, uint64_t batch)
{
    messages -= messages % batch;
    empty();
    int64_t begin = layer_begin(true);
    for (uint64_t n = 0; n < messages; n += batch) {
        for (uint64_t i = 0; i < batch; i++)
            post(0, n + i);
        take_all();
    }
    int64_t ns = layer_end(begin);
    check(messages);
    BENCH_REQUIRE(batches == messages / batch, "%llu takes", (unsigned long long)batches);
    return (double)ns / (double)messages;
}

/* --- a consumer and producers --- */

struct load {
    uint64_t messages; /* of each producer */
    unsigned producers;
};

static void produce(unsigned number, uint64_t messages)
{
    struct producer *producer = &producers[number];
    for (uint64_t n = 0; n < messages; n++) {
        /* Acquire pairs with the release in deliver. */
        while (n - atomic_load_explicit(&producer->arrived, memory_order_acquire) == LETTERS)
            sched_yield();
        post(number, n);
    }
}

static void consume(uint64_t messages)
{
    while (arrivals < messages)
        if (!take_all())
            sched_yield();
}

static void take_part(unsigned number, void *arg)
{
    const struct load *load = arg;
    layer_meet();
    int64_t begin = layer_begin(false); /* they wait for each other */
    if (number == 0)
        consume(load->messages * load->producers);
    else
        produce(number - 1, load->messages);
    layer_end(begin);
}

static double from_producers(uint64_t messages, uint64_t count)
{
    struct load load = {.messages = messages / count, .producers = (unsigned)count};
    empty();
    int64_t ns = layer_threads(load.producers + 1, 1, take_part, &load);
    check(load.messages * count);
    return (double)ns / (double)(load.messages * count);
}

static struct layer_case cases[] = {
    {.name = "1 thread, post 1, take 1", .run = post_and_take, .arg = 1},
    {.name = "1 thread, post 16, take 16", .run = post_and_take, .arg = 16},
    {.name = "1 thread, post 256, take 256", .run = post_and_take, .arg = LETTERS},
    {.name = "a consumer and 1 producer", .run = from_producers, .arg = 1, .dearer = 4},
    {.name = "a consumer and 2 producers", .run = from_producers, .arg = 2, .dearer = 4},
    {.name = "a consumer and 4 producers", .run = from_producers, .arg = 4, .dearer = 4},
    {.name = "a consumer and 16 producers", .run = from_producers, .arg = 16, .dearer = 4},
};

int main(int argc, char **argv)
{
    return layer_main(argc, argv, "mailbox: ns of a message, posted and delivered; producers pinned to the CPUs in turn",
                      cases, sizeof cases / sizeof cases[0], 5000000);
}
