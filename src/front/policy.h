/* front/policy.h: which slice serves a caller. Thread: any, unless marked. */
#ifndef CP_FRONT_POLICY_H
#define CP_FRONT_POLICY_H

#include "front/runtime.h"

/* Whether callers take on their own CPU only, or those on other CPUs that share its slice. */
static inline bool cp_policy_is_local(corepool_policy_t policy)
{
    return policy == COREPOOL_POLICY_LOCAL || policy == COREPOOL_POLICY_LOCAL_ONLY;
}

/* What corepool_pool_open checks of it. */
int cp_policy_check(const corepool_pool_options_t *options);

/* Of a pool that is being opened. Thread: control. */
void cp_policy_set(struct corepool_pool_impl *impl, const corepool_pool_options_t *options);

/* Binds an unbound handle to the shard that its pool's policy chooses for this checkout, if it chooses. The handle may be to
 * a pool that is closed; then to any. OK, or EINVAL naming the shard that an own policy returned and that is none. */
int cp_policy_bind(corepool_pool_t *pool, uint64_t key, struct cp_thread *self);

#endif
