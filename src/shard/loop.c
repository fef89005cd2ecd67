/* shard/loop.c: the mailbox of a libuv loop and its wake-up.
 *
 * A message is a push; only the first into an empty mailbox wakes the loop (one eventfd write). A sender counts itself
 * in while it is between push and wake, so that closing can wait for it: after that no one touches the handle. */
#include "shard/loop.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/error.h"

void cp_loop_drain(struct cp_loop *loop)
{
    struct cp_message *message = cp_mailbox_take(&loop->mailbox);
    while (message) {
        struct cp_message *next = message->next; /* deliver may reuse it */
        message->deliver(message);
        message = next;
    }
}

static void on_wake(uv_async_t *wake)
{
    struct cp_loop *loop = wake->data;
    if (loop->entered)
        loop->entered(loop);
    cp_loop_drain(loop);
    if (loop->drained)
        loop->drained(loop);
}

void cp_loop_init(struct cp_loop *loop)
{
    memset(loop, 0, sizeof *loop);
    cp_list_init(&loop->requests);
    cp_list_init(&loop->spare);
    cp_list_init(&loop->made);
}

int cp_loop_open(struct cp_loop *loop, uv_loop_t *uv, struct cp_thread *thread)
{
    loop->uv = uv;
    loop->thread = thread;
    loop->closed = NULL;
    int status = uv_async_init(uv, &loop->wake, on_wake);
    if (status < 0)
        return cp_fail(COREPOOL_ESYSTEM, "uv_async_init: %s", uv_strerror(status));
    loop->wake.data = loop;
    loop->open_handles = 1;
    atomic_store(&loop->mailbox.newest, NULL); /* from here on messages may come */
    uv_unref((uv_handle_t *)&loop->wake);
    return COREPOOL_OK;
}

/* Its write is a cancellation point. A thread that ended there would take the wake-up with it, and the manager's role if it
 * plays that; it ends at the next point in the program. */
static void wake_uncancelled(struct cp_loop *loop)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    uv_async_send(&loop->wake); /* fails for closed handles only */
    pthread_setcancelstate(before, NULL);
}

bool cp_loop_send(struct cp_loop *loop, struct cp_message *message)
{
    atomic_fetch_add(&loop->senders, 1); /* before the push: pairs with the load in refuse_messages */
    enum cp_post post = cp_mailbox_post(&loop->mailbox, message);
    if (post == CP_POST_FIRST)
        wake_uncancelled(loop);
    atomic_fetch_sub(&loop->senders, 1);
    return post != CP_POST_CLOSED;
}

void cp_loop_wake(struct cp_loop *loop)
{
    atomic_fetch_add(&loop->senders, 1); /* as above */
    if (atomic_load(&loop->mailbox.newest) != cp_mailbox_closed(&loop->mailbox))
        wake_uncancelled(loop);
    atomic_fetch_sub(&loop->senders, 1);
}

static void refuse_messages(struct cp_loop *loop)
{
    struct cp_message *message = cp_mailbox_close(&loop->mailbox);
    while (message) {
        struct cp_message *next = message->next;
        message->deliver(message);
        message = next;
    }
    /* A sender is a push and a wake long; it may be preempted there, so give it the CPU. */
    while (atomic_load(&loop->senders))
        sched_yield();
}

void cp_loop_handle_opened(struct cp_loop *loop)
{
    loop->open_handles++;
}

void cp_loop_handle_closed(uv_handle_t *handle)
{
    struct cp_loop *loop = handle->data;
    if (--loop->open_handles == 0 && loop->closed)
        loop->closed(loop);
}

void cp_loop_close(struct cp_loop *loop, void (*closed)(struct cp_loop *loop))
{
    loop->closed = closed;
    refuse_messages(loop);
    if (loop->close_made)
        loop->close_made(loop);
    uv_close((uv_handle_t *)&loop->wake, cp_loop_handle_closed);
}

void cp_loop_abandon(struct cp_loop *loop)
{
    refuse_messages(loop);
}
