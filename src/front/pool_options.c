/* front/pool_options.c: a pool's options: checked, each by its name, and brought into the manager's form. */
#include <execinfo.h>

#include "base/error.h"
#include "front/policy.h"

#define MAX_OPENING_DEFAULT 8
#define BACKOFF_MIN_DEFAULT_MS 20
#define BACKOFF_MAX_DEFAULT_MS 2000
#define SHED_INTERVAL_DEFAULT_MS 100
#define VALIDATE_AFTER_DEFAULT_MS 500
#define LIFETIME_JITTER_DEFAULT 10u
/* A second: no program would call a wait that is a thousand of these bounded. */
#define BARGING_LIMIT_US 1000000u
/* A day: far above any use, far below an overflow in nanoseconds. */
#define BACKOFF_LIMIT_MS (INT64_C(24) * 3600 * 1000)
/* Ten years, likewise. */
#define TIME_LIMIT_MS (BACKOFF_LIMIT_MS * 3653)

#define KNOWN_FLAGS (COREPOOL_POOL_LAZY | COREPOOL_POOL_PER_SHARD | COREPOOL_POOL_FIFO | COREPOOL_POOL_MANAGED | \
                     COREPOOL_POOL_SERIALISED | COREPOOL_POOL_TIME_LEASES)

#define KNOWN_CLASS_FLAGS (COREPOOL_CLASS_BLOCKING | COREPOOL_CLASS_MOVABLE)

/* --- checks ------------------------------------------------------------------------------------------------------- */

static int check_class(const corepool_class_t *cls)
{
    if (!cls)
        return cp_fail(COREPOOL_EINVAL, "cls: NULL: a pool needs a worker class");
    if (!cls->name || !*cls->name)
        return cp_fail(COREPOOL_EINVAL, "cls->name: a worker class needs a name");
    if (!cls->init)
        return cp_fail(COREPOOL_EINVAL, "cls->init: NULL: class %s cannot open workers", cls->name);
    if (cls->flags & ~KNOWN_CLASS_FLAGS)
        return cp_fail(COREPOOL_EINVAL, "cls->flags: 0x%x: unknown bits", cls->flags & ~KNOWN_CLASS_FLAGS);
    return COREPOOL_OK;
}

static int check_shedding(const corepool_pool_options_t *options)
{
    if (options->shed_target_ms < 0 || options->shed_target_ms > BACKOFF_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "shed_target_ms: %lld: 0 (never) to a day", (long long)options->shed_target_ms);
    if (options->shed_interval_ms < 0 || options->shed_interval_ms > BACKOFF_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "shed_interval_ms: %lld: 0 (default) to a day", (long long)options->shed_interval_ms);
    if (options->shed_interval_ms && !options->shed_target_ms)
        return cp_fail(COREPOOL_EINVAL, "shed_interval_ms: %lld without shed_target_ms", (long long)options->shed_interval_ms);
    return COREPOOL_OK;
}

static int check_barging(const corepool_pool_options_t *options)
{
    if (options->barging_us > BARGING_LIMIT_US)
        return cp_fail(COREPOOL_EINVAL, "barging_us: %u: 0 (none) to %u", options->barging_us, BARGING_LIMIT_US);
    if (options->barging_us && options->flags & (COREPOOL_POOL_MANAGED | COREPOOL_POOL_SERIALISED))
        return cp_fail(COREPOOL_EINVAL, "barging_us: %u: in a managed pool everything goes through the manager, in turn",
                       options->barging_us);
    return COREPOOL_OK;
}

static int check_options(const corepool_pool_options_t *options)
{
    if (options->flags & ~KNOWN_FLAGS)
        return cp_fail(COREPOOL_EINVAL, "flags: 0x%x: unknown bits", options->flags & ~KNOWN_FLAGS);
    if (options->backoff_min_ms < 0 || options->backoff_min_ms > BACKOFF_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "backoff_min_ms: %lld: 0 (default) to a day", (long long)options->backoff_min_ms);
    if (options->backoff_max_ms < 0 || options->backoff_max_ms > BACKOFF_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "backoff_max_ms: %lld: 0 (default) to a day", (long long)options->backoff_max_ms);
    if (options->backoff_max_ms && options->backoff_max_ms < options->backoff_min_ms)
        return cp_fail(COREPOOL_EINVAL, "backoff_max_ms: %lld is less than backoff_min_ms",
                       (long long)options->backoff_max_ms);
    int status = check_barging(options);
    return status == COREPOOL_OK ? check_shedding(options) : status;
}

static int check_time(const char *field, int64_t time_ms)
{
    if (time_ms < 0 || time_ms > TIME_LIMIT_MS)
        return cp_fail(COREPOOL_EINVAL, "%s: %lld: 0 (default) to ten years", field, (long long)time_ms);
    return COREPOOL_OK;
}

/* What is said about idle workers and their age. */
static int check_idle_options(const corepool_pool_options_t *options, unsigned size)
{
    int status = check_time("idle_timeout_ms", options->idle_timeout_ms);
    if (status == COREPOOL_OK)
        status = check_time("idle_close_ms", options->idle_close_ms);
    if (status == COREPOOL_OK)
        status = check_time("max_lifetime_ms", options->max_lifetime_ms);
    if (status == COREPOOL_OK)
        status = check_time("validate_after_ms", options->validate_after_ms);
    if (status == COREPOOL_OK)
        status = check_time("lease_report_ms", options->lease_report_ms);
    if (status == COREPOOL_OK)
        status = check_time("lease_limit_ms", options->lease_limit_ms);
    if (status != COREPOOL_OK)
        return status;
    if (options->lifetime_jitter_percent > 100 && options->lifetime_jitter_percent != COREPOOL_NONE)
        return cp_fail(COREPOOL_EINVAL, "lifetime_jitter_percent: %u: 0 (default) to 100, or COREPOOL_NONE",
                       options->lifetime_jitter_percent);
    if (options->warm > size)
        return cp_fail(COREPOOL_EINVAL, "warm: %u: more than the size, %u", options->warm, size);
    return COREPOOL_OK;
}

int cp_pool_check_size(const struct corepool_runtime *runtime, unsigned size, unsigned flags)
{
    if (size == 0)
        return cp_fail(COREPOOL_EINVAL, "size: 0: a pool has at least one worker");
    if (size > COREPOOL_SIZE_MAX || (flags & COREPOOL_POOL_PER_SHARD && size > COREPOOL_SIZE_MAX / runtime->shards))
        return cp_fail(COREPOOL_EINVAL, "size: %u: a pool has at most %u workers in all", size, COREPOOL_SIZE_MAX);
    return COREPOOL_OK;
}

int cp_pool_check_open(corepool_runtime_t *runtime, const corepool_class_t *cls, unsigned size,
                       const corepool_pool_options_t *options)
{
    int status = runtime ? cp_check_control("opening a pool") : cp_fail(COREPOOL_EINVAL, "runtime: NULL");
    if (status == COREPOOL_OK)
        status = check_class(cls);
    if (status == COREPOOL_OK)
        status = check_options(options);
    if (status == COREPOOL_OK)
        status = cp_policy_check(options);
    if (status == COREPOOL_OK)
        status = cp_pool_check_size(runtime, size, options->flags);
    return status == COREPOOL_OK ? check_idle_options(options, size) : status;
}

/* --- what the manager gets ------------------------------------------------------------------------------------------ */

/* Its first call loads a library and allocates: better here than in somebody's checkout. */
static void load_backtrace(void)
{
    void *address;
    backtrace(&address, 1);
}

static struct cp_look_options look_options(const corepool_class_t *cls, const corepool_pool_options_t *options)
{
    bool pings = cls->ping && options->max_idle_pings != COREPOOL_NONE;
    unsigned jitter = options->lifetime_jitter_percent;
    int64_t validate_ms = options->validate_after_ms ? options->validate_after_ms : VALIDATE_AFTER_DEFAULT_MS;
    return (struct cp_look_options){
        .idle_timeout_ns = pings ? options->idle_timeout_ms * CP_NS_PER_MS : 0,
        .max_idle_pings = options->max_idle_pings,
        .idle_close_ns = options->idle_close_ms * CP_NS_PER_MS,
        .max_lifetime_ns = options->max_lifetime_ms * CP_NS_PER_MS,
        .lifetime_jitter_percent = jitter == COREPOOL_NONE ? 0 : jitter ? jitter : LIFETIME_JITTER_DEFAULT,
        .validate_after_ns = cls->validate ? validate_ms * CP_NS_PER_MS : 0,
        .lease_report_ns = options->lease_report_ms * CP_NS_PER_MS,
        .lease_limit_ns = options->lease_limit_ms * CP_NS_PER_MS,
    };
}

static void warn(const corepool_pool_options_t *options, const char *pool, const char *text)
{
    corepool_event_t event = {.kind = COREPOOL_EVENT_WARNING, .pool = pool, .text = text};
    if (options->on_event)
        options->on_event(&event, options->event_arg);
}

/* Options that this class makes of no effect. */
static void warn_of_options(const corepool_class_t *cls, const corepool_pool_options_t *options, const char *pool)
{
    if (options->idle_timeout_ms && !cls->ping)
        warn(options, pool, "idle_timeout_ms has no effect: the class has no ping callback");
    if (options->validate_after_ms && !cls->validate)
        warn(options, pool, "validate_after_ms has no effect: the class has no validate callback");
}

void cp_pool_configure(struct cp_slice_config *config, const corepool_class_t *cls, void *arg,
                       const corepool_pool_options_t *options, const char *name, unsigned shards)
{
    int64_t least = options->backoff_min_ms ? options->backoff_min_ms : BACKOFF_MIN_DEFAULT_MS;
    int64_t most = options->backoff_max_ms ? options->backoff_max_ms : BACKOFF_MAX_DEFAULT_MS;
    int64_t interval = options->shed_interval_ms ? options->shed_interval_ms : SHED_INTERVAL_DEFAULT_MS;
    if (options->backtrace_every)
        load_backtrace();
    warn_of_options(cls, options, name);
    *config = (struct cp_slice_config){
        .cls = cls,
        .arg = arg,
        .name = name,
        .fifo = options->flags & COREPOOL_POOL_FIFO,
        .serialised = options->flags & COREPOOL_POOL_SERIALISED,
        .timed = options->flags & COREPOOL_POOL_TIME_LEASES,
        .barging_ns = options->barging_us * INT64_C(1000),
        .backtrace_every = options->backtrace_every,
        .core = {.lazy = options->flags & COREPOOL_POOL_LAZY,
                 .warm = options->flags & COREPOOL_POOL_PER_SHARD ? options->warm * shards : options->warm,
                 .managed = options->flags & (COREPOOL_POOL_MANAGED | COREPOOL_POOL_SERIALISED),
                 .fifo = options->flags & COREPOOL_POOL_FIFO,
                 .steals = shards > 1 && options->policy == COREPOOL_POLICY_LOCAL,
                 .movable = cls->flags & COREPOOL_CLASS_MOVABLE,
                 .max_opening = options->max_opening ? options->max_opening : MAX_OPENING_DEFAULT,
                 .backoff_min_ns = least * CP_NS_PER_MS,
                 .backoff_max_ns = (most < least ? least : most) * CP_NS_PER_MS,
                 .max_waiting = options->max_waiting,
                 .shed_target_ns = options->shed_target_ms * CP_NS_PER_MS,
                 .shed_interval_ns = interval * CP_NS_PER_MS,
                 .look = look_options(cls, options)},
        .on_event = options->on_event,
        .event_arg = options->event_arg,
    };
}
