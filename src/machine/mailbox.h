/* machine/mailbox.h: many producers, one consumer: a push-only stack that the consumer takes whole and turns round.
 *
 * Messages are embedded in what they are about, so posting cannot fail for want of memory. Order is kept per
 * producer. Taking everything at once makes ABA harmless. */
#ifndef CP_MACHINE_MAILBOX_H
#define CP_MACHINE_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct cp_message {
    struct cp_message *next;
    /* Runs on the consumer's thread; the message may be reused from then on. */
    void (*deliver)(struct cp_message *message);
};

struct cp_mailbox {
    _Atomic(struct cp_message *) newest; /* zero: open and empty */
};

enum cp_post { CP_POST_FIRST, CP_POST_BEHIND, CP_POST_CLOSED };

/* The head of a mailbox that takes no more: an address that is no message's. */
static inline struct cp_message *cp_mailbox_closed(struct cp_mailbox *mailbox)
{
    return (struct cp_message *)(void *)mailbox;
}

/* FIRST: it was empty, the consumer is to be woken. BEHIND: someone else's wake is under way. CLOSED: not consumed.
 * Thread: any. The release pairs with the acquire in cp_mailbox_take. */
static inline enum cp_post cp_mailbox_post(struct cp_mailbox *mailbox, struct cp_message *message)
{
    struct cp_message *seen = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do {
        if (seen == cp_mailbox_closed(mailbox))
            return CP_POST_CLOSED;
        message->next = seen;
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &seen, message, memory_order_seq_cst,
                                                    memory_order_relaxed));
    return seen ? CP_POST_BEHIND : CP_POST_FIRST;
}

static inline struct cp_message *cp_mailbox_reverse(struct cp_message *newest)
{
    struct cp_message *oldest = NULL;
    while (newest) {
        struct cp_message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* Whether there is none, at this moment. Sequentially consistent: pairs with the push. Thread: any. */
static inline bool cp_mailbox_is_empty(struct cp_mailbox *mailbox)
{
    struct cp_message *seen = atomic_load(&mailbox->newest);
    return !seen || seen == cp_mailbox_closed(mailbox);
}

/* Thread: any. */
static inline bool cp_mailbox_is_closed(struct cp_mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->newest, memory_order_relaxed) == cp_mailbox_closed(mailbox);
}

/* All messages, oldest first, linked by next; NULL when there are none. Thread: the consumer. */
static inline struct cp_message *cp_mailbox_take(struct cp_mailbox *mailbox)
{
    struct cp_message *seen = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    if (!seen || seen == cp_mailbox_closed(mailbox))
        return NULL;
    return cp_mailbox_reverse(atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire));
}

/* The same, and no message is taken after it. Thread: the consumer. */
static inline struct cp_message *cp_mailbox_close(struct cp_mailbox *mailbox)
{
    struct cp_message *seen =
        atomic_exchange_explicit(&mailbox->newest, cp_mailbox_closed(mailbox), memory_order_seq_cst);
    return seen == cp_mailbox_closed(mailbox) ? NULL : cp_mailbox_reverse(seen);
}

#endif
