/* shard/stall.c: reading what a shard is doing, and judging whether it stalls. See stall.h. */
#include "shard/stall.h"

struct cp_sighting cp_mark_look(const struct cp_mark *mark)
{
    uint64_t before = atomic_load_explicit(&mark->entries, memory_order_acquire);
    uintptr_t running = atomic_load_explicit(&mark->running, memory_order_acquire);
    if (!running || atomic_load_explicit(&mark->entries, memory_order_relaxed) != before)
        return (struct cp_sighting){0};
    return (struct cp_sighting){.entry = before,
                                .slice = (struct cp_slice *)(running & ~CP_MARK_MASK),
                                .what = (enum cp_callback)(running & CP_MARK_MASK)};
}

const char *cp_callback_text(enum cp_callback what)
{
    switch (what) {
    case CP_CALLS_NOTHING: break;
#define CALLBACK_TEXT(name, text) \
    case CP_CALLS_##name: return text;
        CP_CALLBACK_TABLE(CALLBACK_TEXT)
#undef CALLBACK_TEXT
    }
    return "nothing";
}

int64_t cp_stall_judge(struct cp_stall *stall, uint64_t entry, int64_t limit_ns, int64_t now_ns)
{
    if (entry != stall->entry) {
        *stall = (struct cp_stall){.entry = entry, .since = now_ns, .report_at = now_ns + limit_ns};
        return 0;
    }
    if (entry == 0 || now_ns < stall->report_at)
        return 0;
    stall->report_at = now_ns + (now_ns - stall->since);
    return now_ns - stall->since;
}
