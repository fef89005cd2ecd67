/* bench/command/pace.c: multiplies instead of adding up, so that no error does either. */
#include "pace.h"

#include <math.h>

int64_t pace_time(const struct pace *pace, uint64_t n)
{
    return pace->first_ns + (int64_t)((double)(n - n % pace->burst) * pace->interval_ns);
}

uint64_t pace_due(const struct pace *pace, int64_t now_ns)
{
    if (now_ns <= pace->first_ns)
        return 0;
    double bursts = ceil((double)(now_ns - pace->first_ns) / (pace->interval_ns * pace->burst));
    uint64_t due = (uint64_t)bursts * pace->burst;
    /* Rounding may be out by one burst either way; pace_time decides. */
    while (due > 0 && pace_time(pace, due - 1) >= now_ns)
        due -= pace->burst;
    while (pace_time(pace, due) < now_ns)
        due += pace->burst;
    return due;
}
