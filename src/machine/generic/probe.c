/* machine/generic/probe.c: no restartable sequences of ours for this architecture. */
#include "machine/probe.h"

bool cp_probe_cpu(void)
{
    return true;
}

bool cp_probe_rseq(const char **reason)
{
    if (reason)
        *reason = "no restartable sequences for this architecture";
    return false;
}
