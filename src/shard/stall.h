/* shard/stall.h: what a shard's thread is doing for the program at this moment, so that a watchdog can say what stalls it.
 *
 * Marked around every callback on the shard's thread, in a runtime that watches; the outermost is named, which is the one
 * that keeps the shard from its loop. Stores by the shard, loads by the watchdog: `entries` changes before `running` is
 * set, so that two equal readings of it with a mark between are of one callback. */
#ifndef CP_SHARD_STALL_H
#define CP_SHARD_STALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

struct cp_slice;

/* name, and how the program knows it. */
#define CP_CALLBACK_TABLE(X)               \
    X(ON_START, "on_start")             \
    X(ON_STOP, "on_stop")               \
    X(POSTED, "a posted function")      \
    X(COMPLETED, "an asynchronous checkout's callback") \
    X(ON_EVENT, "on_event")             \
    X(POOL_INIT, "pool_init")           \
    X(POOL_TERMINATE, "pool_terminate") \
    X(INIT, "init")                     \
    X(INIT_CANCEL, "init_cancel")       \
    X(TERMINATE, "terminate")           \
    X(DETACH, "detach")                 \
    X(ENQUEUE, "enqueue")               \
    X(CHECKOUT, "checkout")             \
    X(CHECKIN, "checkin")               \
    X(CANCELLED, "cancelled")           \
    X(UPDATE, "update")                 \
    X(VALIDATE, "validate")             \
    X(INFO, "info")                     \
    X(PING, "ping")

enum cp_callback {
    CP_CALLS_NOTHING,
#define CP_CALLBACK_ENUM(name, text) CP_CALLS_##name,
    CP_CALLBACK_TABLE(CP_CALLBACK_ENUM)
#undef CP_CALLBACK_ENUM
};

/* A slice's address has room for them in its low bits. */
#define CP_MARK_MASK ((uintptr_t)(CP_CACHE_LINE - 1))
_Static_assert(CP_CALLS_PING < CP_CACHE_LINE, "one of them fits into the low bits of an aligned address");

struct cp_mark {
    bool on;                    /* fixed */
    _Atomic uintptr_t running;  /* slice (NULL: none) | enum cp_callback; 0: none */
    _Atomic uint64_t entries;
} cp_line_aligned;

/* NULL: nothing was marked. Thread: the shard's. */
static inline struct cp_mark *cp_mark_enter(struct cp_mark *mark, const struct cp_slice *slice, enum cp_callback what)
{
    if (cp_likely(!mark->on) || atomic_load_explicit(&mark->running, memory_order_relaxed))
        return NULL;
    uint64_t entries = atomic_load_explicit(&mark->entries, memory_order_relaxed);
    atomic_store_explicit(&mark->entries, entries + 1, memory_order_release);
    atomic_store_explicit(&mark->running, (uintptr_t)slice | what, memory_order_release);
    return mark;
}

static inline void cp_mark_leave(struct cp_mark **mark)
{
    if (cp_unlikely(*mark != NULL))
        atomic_store_explicit(&(*mark)->running, 0, memory_order_release);
}

/* Marks the rest of the block. */
#define CP_MARKED(shard, slice, what) \
    __attribute__((cleanup(cp_mark_leave), unused)) struct cp_mark *cp_marked = cp_mark_enter(&(shard)->mark, slice, what)

/* What the watchdog read at one moment. */
struct cp_sighting {
    uint64_t entry;            /* of the callback that runs; 0: none does, or it has just changed */
    struct cp_slice *slice;    /* NULL: of no pool */
    enum cp_callback what;
};

/* Thread: any. */
struct cp_sighting cp_mark_look(const struct cp_mark *mark);

/* "init" and so on. Static storage. Thread: any. */
const char *cp_callback_text(enum cp_callback what);

/* One shard, as the watchdog follows it. Zero: nothing seen. */
struct cp_stall {
    uint64_t entry;     /* seen running, since */
    int64_t since;
    int64_t report_at;
};

/* What to say about a sighting: 0: nothing; else for how many ns the callback has run by now (too low by at most the time
 * between two looks): once after `limit_ns`, and again whenever that has doubled. Pure. */
int64_t cp_stall_judge(struct cp_stall *stall, uint64_t entry, int64_t limit_ns, int64_t now_ns);

#endif
