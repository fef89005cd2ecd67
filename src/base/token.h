/* base/token.h: who plays a role that any thread may play, but one at a time: taken by trying, and by one thread, to which
 * the role falls, by waiting.
 *
 * Every change is one sequentially consistent exchange, so that work can be left to the holder: who leaves work and then
 * fails to take the token can go; the holder looks for work once more after it has dropped it, and finds it. */
#ifndef CP_BASE_TOKEN_H
#define CP_BASE_TOKEN_H

#include "base/futex.h"

struct cp_token {
    _Atomic uint32_t state; /* zero: free */
};

enum { CP_TOKEN_FREE, CP_TOKEN_HELD, CP_TOKEN_AWAITED };

/* Thread: any. */
static inline bool cp_token_try(struct cp_token *token)
{
    uint32_t found = CP_TOKEN_FREE;
    return atomic_load(&token->state) == CP_TOKEN_FREE &&
           atomic_compare_exchange_strong(&token->state, &found, CP_TOKEN_HELD);
}

/* Sleeps while another has it. Thread: the one to which the role falls. */
static inline void cp_token_take(struct cp_token *token)
{
    uint32_t found = CP_TOKEN_FREE;
    if (atomic_compare_exchange_strong(&token->state, &found, CP_TOKEN_HELD))
        return;
    while (atomic_exchange(&token->state, CP_TOKEN_AWAITED) != CP_TOKEN_FREE)
        cp_futex_wait(&token->state, CP_TOKEN_AWAITED, CP_NEVER);
}

static inline void cp_token_drop(struct cp_token *token)
{
    if (atomic_exchange(&token->state, CP_TOKEN_FREE) == CP_TOKEN_AWAITED)
        cp_futex_wake(&token->state, 1);
}

#endif
