/* core/verdict.h: what a worker class's callback says about a worker, as a reason to end it. Thread: any. */
#ifndef CP_CORE_VERDICT_H
#define CP_CORE_VERDICT_H

#include <corepool/worker.h>

/* Beside a reason in what cp_verdict returns: the callback's value means nothing here, and a COREPOOL_EVENT_WARNING is
 * due. Above all reasons, so that a reason's eight bits are without it. */
#define CP_VERDICT_NONSENSE 0x100u

/* NONE: the worker stays. Else why it ends: `standard` for COREPOOL_REMOVE, or the program's own reason. */
static inline uint32_t cp_verdict(int outcome, corepool_reason_t standard)
{
    if (outcome == COREPOOL_OK)
        return COREPOOL_REASON_NONE;
    if (outcome == COREPOOL_REMOVE)
        return standard;
    if (outcome >= COREPOOL_REMOVE_BECAUSE(COREPOOL_REASON_USER) && outcome <= COREPOOL_REMOVE_BECAUSE(COREPOOL_REASON_MAX))
        return (uint32_t)outcome - COREPOOL_REMOVE_BECAUSE(0);
    return standard | CP_VERDICT_NONSENSE;
}

#endif
