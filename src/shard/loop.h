/* shard/loop.h: a libuv loop that messages can be posted to: a shard's own, or a program's attached one.
 *
 * Thread default: the loop's own; exceptions are marked. */
#ifndef CP_SHARD_LOOP_H
#define CP_SHARD_LOOP_H

#include <uv.h>

#include "base/list.h"
#include "machine/mailbox.h"
#include "machine/thread.h"

struct cp_loop {
    /* Written by any thread. */
    struct cp_mailbox mailbox;
    _Atomic uint32_t senders; /* inside cp_loop_send: closing waits for them */
    /* The loop's thread. */
    uv_loop_t *uv;
    struct cp_thread *thread;
    uv_async_t wake;
    struct corepool_runtime *runtime; /* whose pools may be asked; set by the owner */
    /* Of front/async.c: checkouts under way, their cache, and all that were ever made for this loop. */
    struct cp_list requests, spare, made;
    uint32_t open_handles;    /* until their close callbacks */
    void (*entered)(struct cp_loop *loop); /* set by the owner: before the messages of a wake-up; may be NULL */
    void (*drained)(struct cp_loop *loop); /* set by the owner: after the messages of a wake-up; may be NULL */
    void (*close_made)(struct cp_loop *loop); /* set by front/async.c: when it closes; may be NULL */
    void (*closed)(struct cp_loop *loop);  /* all handles are closed */
};

/* For memory the caller owns: once, before the first open. */
void cp_loop_init(struct cp_loop *loop);

/* Negative code with detail. The loop is not kept alive by it. May be opened again after it was closed. */
int cp_loop_open(struct cp_loop *loop, uv_loop_t *uv, struct cp_thread *thread);

/* Takes no more messages; runs those it has; closes its handles, and calls `closed` from the loop when the last one
 * is. No request may be under way. */
void cp_loop_close(struct cp_loop *loop, void (*closed)(struct cp_loop *loop));

/* The same when the thread has ended, and its uv loop perhaps with it: messages run, handles are not touched. */
void cp_loop_abandon(struct cp_loop *loop);

/* Posts a message. False: closed, not consumed. Thread: any. Never blocks. */
bool cp_loop_send(struct cp_loop *loop, struct cp_message *message);

/* Has `entered` and `drained` called on the loop's thread, unless it is closed. Thread: any. Never blocks. */
void cp_loop_wake(struct cp_loop *loop);

/* Delivers what is in the mailbox, in order. */
void cp_loop_drain(struct cp_loop *loop);

/* Counts a handle of the loop's own, and its end (as the handle's close callback; handle->data is the loop). */
void cp_loop_handle_opened(struct cp_loop *loop);
void cp_loop_handle_closed(uv_handle_t *handle);

#endif
