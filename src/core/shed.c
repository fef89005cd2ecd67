/* core/shed.c: CoDel, one head of the queue at a time. See shed.h. */
#include "core/shed.h"

/* Refusing that begins again within so many intervals goes on nearly where it had ended (RFC 8289, section 5.5). */
#define RECENT_INTERVALS 16

/* Fractional bits of the square root: 1024ths, which an interval of a day leaves room for. */
#define ROOT_BITS 10

void cp_shed_init(struct cp_shed *shed, int64_t target_ns, int64_t interval_ns)
{
    *shed = (struct cp_shed){.target_ns = target_ns, .interval_ns = interval_ns, .above_since = INT64_MIN};
}

/* Floor of the square root, bit by bit. */
static uint64_t root(uint64_t square)
{
    uint64_t result = 0;
    for (uint64_t bit = UINT64_C(1) << 31; bit; bit >>= 1)
        if ((result + bit) * (result + bit) <= square)
            result += bit;
    return result;
}

/* The control law: the interval by the square root of the count. */
static int64_t step(const struct cp_shed *shed)
{
    uint64_t scaled = root((uint64_t)shed->count << 2 * ROOT_BITS);
    return (int64_t)(((uint64_t)shed->interval_ns << ROOT_BITS) / scaled);
}

/* Whether all have waited longer than the target for a whole interval. */
static bool is_too_long(struct cp_shed *shed, int64_t waited_ns, bool last, int64_t now_ns)
{
    if (waited_ns < shed->target_ns || last) {
        shed->above_since = INT64_MIN;
        return false;
    }
    if (shed->above_since == INT64_MIN)
        shed->above_since = now_ns;
    return now_ns - shed->above_since >= shed->interval_ns;
}

/* How many to count from: after a short pause, what the last time came to. */
static uint32_t first_count(const struct cp_shed *shed, int64_t now_ns)
{
    uint32_t before = shed->count - shed->last_count;
    bool recent = now_ns - shed->next_at < RECENT_INTERVALS * shed->interval_ns;
    return before > 1 && recent ? before : 1;
}

bool cp_shed_head(struct cp_shed *shed, int64_t waited_ns, bool last, int64_t now_ns)
{
    if (!shed->target_ns)
        return false;
    if (!is_too_long(shed, waited_ns, last, now_ns)) {
        shed->refusing = false;
        return false;
    }
    if (!shed->refusing) {
        shed->refusing = true;
        shed->last_count = shed->count = first_count(shed, now_ns);
        shed->next_at = now_ns + step(shed);
        return true;
    }
    if (now_ns < shed->next_at)
        return false;
    shed->count += shed->count < UINT32_MAX;
    shed->next_at += step(shed);
    return true;
}
