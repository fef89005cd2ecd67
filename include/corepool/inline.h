/* corepool/inline.h: corepool_checkout and corepool_checkin without a call, for C and C++ on x86-64 Linux.
 *
 * The same promises as in corepool/checkout.h. What is usual (an idle worker on the caller's CPU, a class without callbacks
 * in the way, nobody waiting) happens in the caller's own code; all else, and everything on other machines, calls
 * the exported function. A lease that stays in one function, and that only these two are shown, need not be in memory.
 * It pays where the pair itself counts: bench/pair measures by how much.
 *
 * A program compiled with one COREPOOL_LAYOUT_VERSION stays correct with a library of another: it calls the exported
 * functions for ever (corepool_inline_is_fast says so). With COREPOOL_LAYOUT_VERSION defined as 0 before the first
 * include of the library's headers nothing is ever inline.
 *
 * A shared object whose code is made of this must not be unloaded: link it with -Wl,-z,nodelete. (The kernel may still look at
 * the last sequence of a thread long after it has run.) Thread default: any. */
#ifndef COREPOOL_INLINE_H
#define COREPOOL_INLINE_H

#include <stdbool.h>

#include <corepool/layout.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the inline functions do anything by themselves in this program with the library that is loaded; on a machine
 * without restartable sequences their shelves never let them. Never blocks. */
static inline bool corepool_inline_is_fast(void)
{
    return COREPOOL_LAYOUT_IS_INLINE && corepool_layout_version() == COREPOOL_LAYOUT_VERSION;
}

/* As corepool_checkout. */
static inline __attribute__((always_inline)) int
corepool_inline_checkout(corepool_pool_t pool, const corepool_checkout_options_t *options, corepool_lease_t *lease)
{
    enum corepool_layout_outcome outcome = COREPOOL_LAYOUT_UNUSUAL;
    if (__builtin_expect(!lease, 0))
        return corepool_checkout(pool, options, lease);
    if (__builtin_expect(pool.impl != NULL, 1) &&
        __builtin_expect(!options || options->timeout_ms >= COREPOOL_INFINITE, 1))
        outcome = corepool_layout_checkout(pool, COREPOOL_LAYOUT_CLIENT, lease);
    if (__builtin_expect(outcome == COREPOOL_LAYOUT_DONE, 1))
        return COREPOOL_OK;
    corepool_lease_t whole; /* in memory, so that *lease need not be */
    int status = corepool_checkout(pool, options, &whole);
    *lease = whole;
    return status;
}

/* As corepool_checkin. */
static inline __attribute__((always_inline)) int corepool_inline_checkin(corepool_lease_t *lease)
{
    if (!lease)
        return corepool_checkin(lease);
    enum corepool_layout_outcome outcome = corepool_layout_checkin(COREPOOL_LAYOUT_SELF, lease);
    if (__builtin_expect(outcome == COREPOOL_LAYOUT_DONE, 1))
        return COREPOOL_OK;
    corepool_lease_t whole = *lease;
    int status = corepool_checkin(&whole);
    *lease = whole;
    return status;
}

#ifdef __cplusplus
}
#endif
#endif
