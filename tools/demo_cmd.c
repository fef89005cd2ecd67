/* tools/demo_cmd.c: `corepool demo`: the same load on a per-core pool and on a single manager, side by side.
 *
 * Each run starts a runtime, fetches over HTTP with a live table, then only checks out and in for a second,
 * audits the laws and stops. Nothing differs between the runs but the runtime's CPUs and the pool's flags: same
 * request, same clients on the same CPUs, same number of workers. SIGINT and SIGTERM are blocked from the
 * start, in every thread, and looked at wherever this one waits: what was measured by then is still audited and
 * shown. */
#include "command.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "load.h"
#include "origin.h"
#include "table.h"
#include "target.h"

#define SECONDS_DEFAULT 4u
#define SECONDS_MAX 86400u
#define CLIENTS_DEFAULT 2u
/* Threads per CPU: beyond that one measures the scheduler. */
#define CLIENTS_MAX 1024u
#define WORKERS_PER_CPU 4u
#define PAIR_MS 1000
/* How often the table is drawn: fit for the eye, and for a log. */
#define DRAW_TERMINAL_MS 500
#define DRAW_LOG_MS 1000
/* For the first connection; a server that takes longer is called unreachable. */
#define OPEN_TIMEOUT_MS 5000
/* The same when it refuses, which it may do while it is starting. */
#define REFUSED_TIMEOUT_MS 1000
/* For terminating the workers at the end. */
#define STOP_TIMEOUT_MS 10000

typedef struct {
    const char *url; /* NULL: the embedded origin */
    unsigned seconds, clients, size;
} arguments_t;

typedef struct {
    arguments_t arguments;
    corepool_topology_t *topology;
    int *cpus; /* of the shards: clients run there */
    unsigned cpu_count;
    target_t target;
    origin_t *origin;
    sigset_t signals;
    bool interrupted;
    bool failed; /* a law, a request or a step: the exit code */
} demo_t;

/* What differs between the runs. */
typedef struct {
    const char *cpus;
    unsigned pool_flags;
    column_t *column;
} run_t;

/* ---- arguments ---- */

enum {
    KEY_URL = 256, /* no short ones: each command's would mean something else */
    KEY_SECONDS,
    KEY_CLIENTS,
    KEY_SIZE,
};

static const struct argp_option options[] = {
    {"url", KEY_URL, "URL", 0, "Fetch http://HOST:PORT/PATH from a real server instead of the embedded origin",
     0},
    {"seconds", KEY_SECONDS, "N", 0, "Fetch for N seconds in each run (default 4)", 0},
    {"clients", KEY_CLIENTS, "N", 0, "Client threads per CPU (default 2)", 0},
    {"size", KEY_SIZE, "N", 0, "Connections in all (default 4 per CPU)", 0},
    {0},
};

static unsigned parse_number(const char *name, const char *arg, unsigned max, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end != '\0' || errno != 0 || number < 1 || number > max)
        argp_error(state, "--%s: '%s' is not a number from 1 to %u", name, arg, max);
    return (unsigned)number;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    arguments_t *arguments = state->input;
    switch (key) {
    case KEY_URL: arguments->url = arg; return 0;
    case KEY_SECONDS: arguments->seconds = parse_number("seconds", arg, SECONDS_MAX, state); return 0;
    case KEY_CLIENTS: arguments->clients = parse_number("clients", arg, CLIENTS_MAX, state); return 0;
    case KEY_SIZE: arguments->size = parse_number("size", arg, COREPOOL_SIZE_MAX, state); return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- small things ---- */

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* CPU seconds of this process without the origin. */
static double cpu_s(const demo_t *demo)
{
    struct rusage used = {0};
    (void)getrusage(RUSAGE_SELF, &used); /* cannot fail for oneself */
    double all = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    return all - (double)origin_cpu_ns(demo->origin) / 1e9;
}

/* Sleeps; false as soon as a signal asks to end. */
static bool wait_ms(demo_t *demo, long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    if (!demo->interrupted && sigtimedwait(&demo->signals, NULL, &time) > 0)
        demo->interrupted = true;
    return !demo->interrupted;
}

static void complain(demo_t *demo, const char *what, int err)
{
    const char *detail = corepool_error_detail();
    fflush(stdout);
    fprintf(stderr, "corepool: %s: %s\n", what, *detail ? detail : corepool_error_text(err));
    demo->failed = true;
}

/* Both ends of each connection are ours when the origin is. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* refused: a big --size says so by itself */
    }
}

/* ---- fetching ---- */

/* Waits until the workers are open. One open and the rest slow is enough to go on with, in the end; none open
 * and failures for a while will not get better: the probe then says why. */
static bool await_open(demo_t *demo, corepool_pool_t pool)
{
    corepool_stats_t stats = {0};
    double begin = now_s();
    for (;;) {
        int err = corepool_pool_stats(pool, &stats);
        double waited_ms = (now_s() - begin) * 1e3;
        if (err != COREPOOL_OK) {
            complain(demo, "pool", err);
            return false;
        }
        if (stats.idle == stats.quota || waited_ms > OPEN_TIMEOUT_MS)
            return true;
        if (stats.idle == 0 && stats.open_failures > 0 && waited_ms > REFUSED_TIMEOUT_MS)
            return true;
        if (!wait_ms(demo, 5))
            return false;
    }
}

/* One request ahead of all others, to say what is wrong before a thousand failures do. */
static bool probe_target(demo_t *demo, corepool_pool_t pool)
{
    const corepool_http_request_t request = {
        .path = demo->target.path,
        .pool_timeout_ms = REFUSED_TIMEOUT_MS,
        .receive_timeout_ms = OPEN_TIMEOUT_MS,
    };
    corepool_http_response_t *response;
    int err = corepool_http_perform(pool, &request, &response);
    if (err != COREPOOL_OK) {
        char what[sizeof demo->target.authority + sizeof demo->target.path + 8];
        (void)snprintf(what, sizeof what, "http://%s%s", demo->target.authority, demo->target.path);
        complain(demo, what, err);
        return false;
    }
    if (response->status != 200)
        printf("note: the server answers %d\n", response->status);
    corepool_http_response_free(response);
    return true;
}

static void watch(demo_t *demo, const run_t *run, const load_t *load, corepool_pool_t pool,
                  const corepool_topology_t *topology)
{
    table_t table;
    double begin = now_s(), end = begin + demo->arguments.seconds;
    table_init(&table, stdout, topology);
    long step = table.terminal ? DRAW_TERMINAL_MS : DRAW_LOG_MS;
    for (double left; !demo->interrupted && (left = end - now_s()) > 0;) {
        long ms = (long)(left * 1e3) + 1;
        (void)wait_ms(demo, ms < step + step / 2 ? ms : step); /* no tiny last step: its rates mean nothing */
        table_draw(&table, run->column->title, load, topology, pool, now_s() - begin);
    }
    table_finish(&table);
}

static load_plan_t plan_load(const demo_t *demo, corepool_pool_t pool, const char *path)
{
    return (load_plan_t){
        .pool = pool,
        .path = path,
        .cpus = demo->cpus,
        .cpu_count = demo->cpu_count,
        .clients = demo->arguments.clients,
    };
}

static load_t *start_load(demo_t *demo, corepool_pool_t pool, const char *path)
{
    load_plan_t plan = plan_load(demo, pool, path);
    load_t *load;
    int err = load_start(&plan, &load);
    if (err != 0) {
        fprintf(stderr, "corepool: client threads: %s\n", strerror(err));
        demo->failed = true;
    }
    return load;
}

static void judge(demo_t *demo, const char *what, const load_result_t *result)
{
    if (result->failed > 0) {
        fflush(stdout);
        fprintf(stderr, "corepool: %s: %llu failed; the first: %s\n", what, (unsigned long long)result->failed,
                result->failure);
    }
    if (result->odd_status != 0) {
        fflush(stdout);
        fprintf(stderr, "corepool: %s: not every answer was a 200: the last other one was %d\n", what, result->odd_status);
    }
    demo->failed |= result->failed > 0 || (result->done == 0 && !demo->interrupted);
}

/* False when there is nothing to go on with. */
static bool fetch(demo_t *demo, const run_t *run, corepool_runtime_t *runtime, corepool_pool_t pool)
{
    column_t *column = run->column;
    if (!await_open(demo, pool) || !probe_target(demo, pool))
        return false;
    double cpu = cpu_s(demo);
    load_t *load = start_load(demo, pool, demo->target.path);
    if (load == NULL)
        return false;
    watch(demo, run, load, pool, corepool_runtime_topology(runtime));
    load_stop(load, &column->fetches);
    cpu = cpu_s(demo) - cpu;
    column->cpu_us = column->fetches.done > 0 ? cpu * 1e6 / (double)column->fetches.done : 0;
    column->fetched = corepool_pool_stats(pool, &column->stats) == COREPOOL_OK;
    judge(demo, column->title, &column->fetches);
    return column->fetched;
}

/* ---- checking out and in ---- */

/* A worker that is nothing: what is left is the pool. */
static int open_nothing(corepool_worker_t *worker, void *pool_state, void **resource)
{
    (void)pool_state;
    *resource = worker;
    return COREPOOL_OK;
}

static const corepool_class_t nothing_class = {.name = "nothing", .init = open_nothing};

static void pair(demo_t *demo, const run_t *run, corepool_pool_t pool)
{
    column_t *column = run->column;
    if (!await_open(demo, pool))
        return;
    load_t *load = start_load(demo, pool, NULL);
    if (load == NULL)
        return;
    (void)wait_ms(demo, PAIR_MS);
    load_stop(load, &column->pairs);
    column->paired = true;
    judge(demo, "checkout and checkin", &column->pairs);
}

/* ---- one run ---- */

static bool open_pool(demo_t *demo, const run_t *run, corepool_runtime_t *runtime, const corepool_class_t *cls,
                      void *arg, corepool_pool_t *pool)
{
    corepool_pool_options_t pool_options = {.flags = run->pool_flags};
    int err = corepool_pool_open(runtime, cls, arg, demo->arguments.size, &pool_options, pool);
    if (err != COREPOOL_OK)
        complain(demo, "pool", err);
    return err == COREPOOL_OK;
}

/* Also after a failure: the laws hold whatever the server does. */
static void stop_runtime(demo_t *demo, corepool_runtime_t *runtime)
{
    int err = corepool_runtime_audit(runtime);
    if (err != COREPOOL_OK)
        complain(demo, "audit", err);
    err = corepool_runtime_stop(runtime, STOP_TIMEOUT_MS);
    if (err != COREPOOL_OK)
        complain(demo, "stop", err);
    else if ((err = corepool_runtime_destroy(runtime)) != COREPOOL_OK)
        complain(demo, "destroy", err);
}

/* False when a step failed, so that another run would fail as well; failed requests are no reason to stop. */
static bool perform_run(demo_t *demo, const run_t *run)
{
    const corepool_runtime_options_t runtime_options = {.cpus = run->cpus};
    corepool_runtime_t *runtime;
    corepool_pool_t connections, nothings;
    int err = corepool_runtime_start(&runtime_options, &runtime);
    if (err != COREPOOL_OK) {
        complain(demo, "start", err);
        return false;
    }
    putchar('\n');
    bool on = open_pool(demo, run, runtime, &corepool_http_class, &demo->target.http, &connections) &&
              fetch(demo, run, runtime, connections);
    if (on && !demo->interrupted && open_pool(demo, run, runtime, &nothing_class, NULL, &nothings))
        pair(demo, run, nothings);
    stop_runtime(demo, runtime);
    return on;
}

/* ---- all of it ---- */

static int find_cpus(demo_t *demo)
{
    int err = corepool_topology_open(NULL, &demo->topology);
    if (err != COREPOOL_OK)
        return err;
    demo->cpu_count = corepool_topology_shards(demo->topology);
    demo->cpus = tool_need(calloc(demo->cpu_count, sizeof *demo->cpus));
    for (unsigned i = 0; i < demo->cpu_count; i++) {
        corepool_shard_place_t place = {0};
        (void)corepool_topology_place(demo->topology, i, &place); /* below the count: cannot fail */
        demo->cpus[i] = place.cpu;
    }
    if (demo->arguments.size == 0)
        demo->arguments.size = WORKERS_PER_CPU * demo->cpu_count;
    return COREPOOL_OK;
}

/* An origin thread to every second CPU: it has less to do per request than the clients. */
static bool find_server(demo_t *demo)
{
    if (demo->arguments.url != NULL)
        return true;
    int err = origin_start((demo->cpu_count + 1) / 2, &demo->origin);
    if (err != 0) {
        fprintf(stderr, "corepool: the embedded origin: %s\n", uv_strerror(err));
        return false;
    }
    target_loopback(&demo->target, origin_port(demo->origin), "/");
    return true;
}

static void compare_runs(demo_t *demo)
{
    char one_cpu[16];
    column_t many = {.title = "per-core pool"}, one = {.title = "single manager"};
    (void)snprintf(one_cpu, sizeof one_cpu, "%d", demo->cpus[0]);
    const run_t runs[] = {{NULL, 0, &many}, {one_cpu, COREPOOL_POOL_MANAGED, &one}};
    printf("\nserver   http://%s%s%s\n", demo->target.authority, demo->target.path,
           demo->origin == NULL ? "" : " (embedded)");
    printf("load     %u clients on each of %u CPU%s, %u connections; one run of %u s each\n",
           demo->arguments.clients, demo->cpu_count, demo->cpu_count > 1 ? "s" : "", demo->arguments.size,
           demo->arguments.seconds);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0] && !demo->interrupted; i++)
        if (!perform_run(demo, &runs[i]))
            break;
    if (many.fetched)
        table_compare(stdout, &many, &one);
    if (demo->interrupted)
        puts("ended early by a signal");
    if (demo->failed)
        puts("FAILED: see above");
    else
        puts(many.fetched ? "every request was answered and the laws held" : "nothing was fetched");
}

int demo_command(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc =
            "Fetches over HTTP/1.1 through a per-core pool, then through a single manager on one CPU, and "
            "prints "
            "both side by side.\vCtrl-C ends it at any time with the summary so far. Exit code: 0 when every "
            "request was answered and the laws held, 1 when not, 2 for a usage error.",
    };
    demo_t demo = {.arguments = {.seconds = SECONDS_DEFAULT, .clients = CLIENTS_DEFAULT}};
    argp_parse(&argp, argc, argv, 0, NULL, &demo.arguments);
    const char *wrong = demo.arguments.url == NULL ? NULL : target_parse(&demo.target, demo.arguments.url);
    if (wrong != NULL) {
        fprintf(stderr, "corepool: --url: '%s': %s\n", demo.arguments.url, wrong);
        return TOOL_USAGE;
    }
    sigemptyset(&demo.signals);
    sigaddset(&demo.signals, SIGINT);
    sigaddset(&demo.signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &demo.signals, NULL);
    raise_descriptor_limit();
    int err = find_cpus(&demo);
    if (err != COREPOOL_OK)
        return tool_complain(err);
    map_print(stdout, demo.topology, demo.topology, 0);
    demo.failed = !find_server(&demo);
    if (!demo.failed)
        compare_runs(&demo);
    origin_stop(demo.origin);
    free(demo.cpus);
    corepool_topology_close(demo.topology);
    return demo.failed ? TOOL_FAILED : TOOL_OK;
}
