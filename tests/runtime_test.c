/* tests/runtime_test.c: starting and stopping the shards, code on a shard, and what is refused with which
 * words. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/callers.h"

/* 128 shards. */
#define BIG "pack:2 l3:4 core:8 pu:2"

/* --- what is refused --- */

static void expect_refused(corepool_runtime_options_t options, int code, const char *word)
{
    corepool_runtime_t *runtime = (corepool_runtime_t *)&options;
    cr_expect_eq(corepool_runtime_start(&options, &runtime), code, "%s", corepool_error_detail());
    cr_expect_null(runtime);
    laws_expect_detail(word);
}

Test(runtime, a_bad_option_is_an_error_that_names_the_field_and_leaves_nothing_behind)
{
    laws_baseline();
    expect_refused((corepool_runtime_options_t){.cpus = "4095"}, COREPOOL_EINVAL, "4095");
    expect_refused((corepool_runtime_options_t){.cpus = "0-,"}, COREPOOL_EINVAL, "0-,");
    expect_refused((corepool_runtime_options_t){.place = (corepool_place_t)9}, COREPOOL_EINVAL, "place");
    expect_refused((corepool_runtime_options_t){.pin = (corepool_pin_t)9}, COREPOOL_EINVAL, "pin: 9");
    expect_refused((corepool_runtime_options_t){.pin = (corepool_pin_t)-1}, COREPOOL_EINVAL, "pin: -1");
    expect_refused((corepool_runtime_options_t){.shelf = (corepool_shelf_kind_t)9}, COREPOOL_EINVAL,
                   "shelf: 9");
    expect_refused((corepool_runtime_options_t){.name = ""}, COREPOOL_EINVAL, "name");
    expect_refused((corepool_runtime_options_t){.name = "elevenchars"}, COREPOOL_EINVAL, "elevenchars");
    expect_refused((corepool_runtime_options_t){.synthetic = "cheese:2"}, COREPOOL_EINVAL, "cheese:2");
    expect_refused((corepool_runtime_options_t){.synthetic = BIG, .shelf = COREPOOL_SHELF_RSEQ},
                   COREPOOL_EINVAL, "shelf");
    laws_expect_baseline();
}

Test(runtime, a_missing_runtime_is_an_error_everywhere)
{
    cr_expect_eq(corepool_runtime_start(NULL, NULL), COREPOOL_EINVAL);
    laws_expect_detail("runtime");
    cr_expect_eq(corepool_runtime_stop(NULL, 0), COREPOOL_EINVAL);
    cr_expect_eq(corepool_runtime_audit(NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_shard_post(NULL, 0, NULL, NULL), COREPOOL_EINVAL);
    cr_expect_eq(corepool_runtime_destroy(NULL), COREPOOL_OK);
}

Test(runtime, an_unknown_shelf_in_the_environment_is_refused_by_name)
{
    cr_assert_eq(setenv("COREPOOL_SHELF", "bookcase", 1), 0);
    expect_refused((corepool_runtime_options_t){0}, COREPOOL_EINVAL, "COREPOOL_SHELF: \"bookcase\"");
}

Test(runtime, the_environment_chooses_the_shelf_only_where_the_program_left_it_open)
{
    cr_assert_eq(setenv("COREPOOL_SHELF", "portable", 1), 0);
    cr_expect_eq(corepool_runtime_shelf(laws_start(NULL)), COREPOOL_SHELF_PORTABLE);
    laws_end();
    cr_assert_eq(unsetenv("COREPOOL_SHELF"), 0);
    cr_expect_eq(corepool_runtime_shelf(laws_start(NULL)), corepool_shelf_probe(NULL));
    laws_end();
}

Test(runtime, rseq_that_was_asked_for_is_had_whatever_the_environment_says)
{
    laws_need_rseq();
    cr_assert_eq(setenv("COREPOOL_SHELF", "portable", 1), 0);
    cr_expect_eq(
        corepool_runtime_shelf(laws_start(&(corepool_runtime_options_t){.shelf = COREPOOL_SHELF_RSEQ})),
        COREPOOL_SHELF_RSEQ);
    laws_end();
}

Test(runtime, rseq_that_was_asked_for_without_pins_is_refused)
{
    laws_need_rseq();
    corepool_runtime_t *runtime;
    const corepool_runtime_options_t options = {.shelf = COREPOOL_SHELF_RSEQ, .pin = COREPOOL_PIN_NONE};
    int status = corepool_runtime_start(&options, &runtime);
    cr_expect(status == COREPOOL_EINVAL || status == COREPOOL_ENOTSUP, "%s", corepool_error_name(status));
    laws_expect_detail("shelf");
}

Test(runtime, unpinned_shards_have_the_portable_shelf)
{
    cr_expect_eq(corepool_runtime_shelf(laws_start(&(corepool_runtime_options_t){.pin = COREPOOL_PIN_NONE})),
                 COREPOOL_SHELF_PORTABLE);
    laws_end();
}

/* --- shards --- */

static unsigned count_threads_named(const char *prefix)
{
    char path[300], name[32];
    unsigned found = 0;
    DIR *tasks = opendir("/proc/self/task");
    cr_assert(tasks);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        found += file && fgets(name, sizeof name, file) && strncmp(name, prefix, strlen(prefix)) == 0;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return found;
}

Test(runtime, its_threads_carry_its_name_and_their_shard_in_the_process_list)
{
    unsigned shards = corepool_runtime_shards(laws_start(&(corepool_runtime_options_t){.name = "tenletters"}));
    cr_expect_eq(count_threads_named("tenletters/"), shards);
    cr_expect_eq(count_threads_named("tenletters/0"), 1);
    laws_end();
}

struct seat {
    cpu_set_t affinity;
    corepool_shard_t *shard;
    unsigned index;
    int cpu, runs_on;
    bool has_loop;
};

static void look_around(void *arg)
{
    struct seat *seat = arg;
    sched_getaffinity(0, sizeof seat->affinity, &seat->affinity);
    seat->runs_on = sched_getcpu();
    seat->shard = corepool_shard_current();
    seat->index = corepool_shard_index(seat->shard);
    seat->cpu = corepool_shard_cpu(seat->shard);
    seat->has_loop = corepool_shard_loop(seat->shard)->active_handles > 0;
}

Test(runtime, each_shard_is_pinned_to_its_cpu_and_knows_itself)
{
    const corepool_runtime_t *runtime = laws_start(NULL);
    cr_expect_null(corepool_shard_current());
    for (unsigned i = 0; i < corepool_runtime_shards(runtime); i++) {
        struct seat seat;
        laws_on_shard(i, look_around, &seat);
        cr_expect_eq(seat.index, i);
        cr_expect_eq(seat.cpu, laws_cpu_of(i));
        cr_expect_eq(seat.runs_on, seat.cpu);
        cr_expect_eq(CPU_COUNT(&seat.affinity), 1);
        cr_expect(CPU_ISSET((unsigned)seat.cpu, &seat.affinity));
        cr_expect_eq(corepool_shard_runtime(seat.shard), runtime);
        cr_expect(seat.has_loop);
    }
    laws_end();
}

Test(runtime, only_the_listed_cpus_get_a_shard)
{
    char list[16];
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET((unsigned)last, &set))
        last--;
    snprintf(list, sizeof list, "%d", last);
    cr_expect_eq(corepool_runtime_shards(laws_start(&(corepool_runtime_options_t){.cpus = list})), 1);
    cr_expect_eq(laws_cpu_of(0), last);
    laws_end();
}

struct hooks {
    _Atomic unsigned started, stopped, foreign, timers;
    uv_timer_t left_open[2];
};

static void never(uv_timer_t *timer)
{
    (void)timer;
}

static void on_start(corepool_shard_t *shard, void *arg)
{
    struct hooks *hooks = arg;
    unsigned index = corepool_shard_index(shard);
    atomic_fetch_add(&hooks->started, 1);
    if (corepool_shard_current() != shard)
        atomic_fetch_add(&hooks->foreign, 1);
    if (index < 2) {
        uv_timer_init(corepool_shard_loop(shard), &hooks->left_open[index]);
        uv_timer_start(&hooks->left_open[index], never, 3600000, 0);
    }
}

static void on_stop(corepool_shard_t *shard, void *arg)
{
    struct hooks *hooks = arg;
    atomic_fetch_add(&hooks->stopped, 1);
    if (corepool_shard_current() != shard)
        atomic_fetch_add(&hooks->foreign, 1);
}

Test(runtime, on_start_and_on_stop_run_once_on_each_shard_and_handles_left_open_are_closed)
{
    static struct hooks hooks;
    unsigned shards = corepool_runtime_shards(
        laws_start(&(corepool_runtime_options_t){.on_start = on_start, .on_stop = on_stop, .arg = &hooks}));
    cr_expect_eq(atomic_load(&hooks.started), shards, "started before the call returns");
    cr_expect_eq(atomic_load(&hooks.stopped), 0);
    laws_end();
    cr_expect_eq(atomic_load(&hooks.stopped), shards);
    cr_expect_eq(atomic_load(&hooks.foreign), 0);
}

Test(runtime, a_bigger_machine_can_be_played_unpinned)
{
    struct laws_count count = {0};
    const corepool_runtime_t *runtime = laws_start(&(corepool_runtime_options_t){.synthetic = BIG});
    cr_expect_eq(corepool_runtime_shards(runtime), 128);
    cr_expect_eq(corepool_runtime_shelf(runtime), COREPOOL_SHELF_PORTABLE);
    corepool_pool_t pool = laws_open(&laws_class, &count, 200, 0);
    laws_await_idle(pool, 200);
    for (unsigned i = 0; i < 128; i++) {
        corepool_lease_t lease = laws_take(corepool_pool_at(pool, i));
        cr_expect_eq(corepool_shard_index(corepool_worker_shard(lease.worker)), i);
        cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    }
    laws_end();
}

/* --- posting --- */

#define POSTS 1000

struct order {
    unsigned next, wrong;
    _Atomic unsigned ran;
};
struct post {
    struct order *order;
    unsigned number;
};

static void note_order(corepool_shard_t *shard, void *arg)
{
    const struct post *post = arg;
    (void)shard;
    post->order->wrong += post->number != post->order->next++;
    atomic_fetch_add(&post->order->ran, 1);
}

static struct post *number_posts(struct order *order)
{
    static struct post posts[POSTS];
    for (unsigned i = 0; i < POSTS; i++)
        posts[i] = (struct post){order, i};
    return posts;
}

Test(runtime, posts_of_one_thread_run_in_their_order)
{
    struct order order = {0};
    struct post *posts = number_posts(&order);
    corepool_runtime_t *runtime = laws_start(NULL);
    for (unsigned i = 0; i < POSTS; i++)
        cr_assert_eq(corepool_shard_post(runtime, 0, note_order, &posts[i]), COREPOOL_OK);
    laws_await_count(&order.ran, POSTS);
    cr_expect_eq(order.wrong, 0);
    laws_end();
}

struct own_posts {
    struct order order;
    struct post *posts;
    unsigned early, failed;
};

static void post_to_self(void *arg)
{
    struct own_posts *own = arg;
    corepool_runtime_t *runtime = corepool_shard_runtime(corepool_shard_current());
    for (unsigned i = 0; i < POSTS; i++)
        own->failed += corepool_shard_post(runtime, 0, note_order, &own->posts[i]) != COREPOOL_OK;
    own->early = atomic_load(&own->order.ran);
}

Test(runtime, a_shard_s_posts_to_itself_run_later_and_in_their_order)
{
    struct own_posts own = {0};
    own.posts = number_posts(&own.order);
    laws_start(NULL);
    laws_on_shard(0, post_to_self, &own);
    laws_await_count(&own.order.ran, POSTS);
    cr_expect_eq(own.early, 0, "it ran inside the call");
    cr_expect_eq(own.order.wrong + own.failed, 0);
    laws_end();
}

Test(runtime, what_was_accepted_runs_before_the_stop_and_later_posts_are_refused)
{
    struct order order = {0};
    struct post *posts = number_posts(&order);
    laws_baseline();
    corepool_runtime_t *runtime;
    cr_assert_eq(corepool_runtime_start(NULL, &runtime), COREPOOL_OK);
    for (unsigned i = 0; i < POSTS; i++)
        cr_assert_eq(corepool_shard_post(runtime, 0, note_order, &posts[i]), COREPOOL_OK);
    cr_assert_eq(corepool_runtime_stop(runtime, COREPOOL_INFINITE), COREPOOL_OK);
    cr_expect_eq(atomic_load(&order.ran), POSTS);
    cr_expect_eq(corepool_shard_post(runtime, 0, note_order, posts), COREPOOL_ECLOSED);
    laws_expect_detail("stopped");
    cr_assert_eq(corepool_runtime_destroy(runtime), COREPOOL_OK);
    laws_expect_baseline();
}

Test(runtime, a_post_to_nowhere_or_of_nothing_is_refused)
{
    corepool_runtime_t *runtime = laws_start(NULL);
    cr_expect_eq(corepool_shard_post(runtime, corepool_runtime_shards(runtime), note_order, NULL),
                 COREPOOL_EINVAL);
    laws_expect_detail("index");
    cr_expect_eq(corepool_shard_post(runtime, 0, NULL, NULL), COREPOOL_EINVAL);
    laws_expect_detail("fn");
    laws_end();
}

/* --- the wrong thread --- */

struct verdicts {
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    int start, stop, destroy, audit, open, close;
};

static void call_control_on_shard(void *arg)
{
    struct verdicts *got = arg;
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    got->start = corepool_runtime_start(NULL, &runtime);
    got->stop = corepool_runtime_stop(got->runtime, 0);
    got->destroy = corepool_runtime_destroy(got->runtime);
    got->audit = corepool_runtime_audit(got->runtime);
    got->open = corepool_pool_open(got->runtime, &laws_class, NULL, 1, NULL, &pool);
    got->close = corepool_pool_close(got->pool, COREPOOL_INFINITE);
}

Test(runtime, what_would_wait_for_its_own_shard_is_refused_there)
{
    struct laws_count count = {0};
    struct verdicts got = {.runtime = laws_start(NULL)};
    got.pool = laws_open(&laws_class, &count, 1, 0);
    laws_on_shard(0, call_control_on_shard, &got);
    cr_expect_eq(got.start, COREPOOL_EDEADLK);
    cr_expect_eq(got.stop, COREPOOL_EDEADLK);
    cr_expect_eq(got.destroy, COREPOOL_EDEADLK);
    cr_expect_eq(got.audit, COREPOOL_EDEADLK);
    cr_expect_eq(got.open, COREPOOL_EDEADLK);
    cr_expect_eq(got.close, COREPOOL_EDEADLK);
    laws_end();
}

static void call_in_child(void *arg)
{
    struct verdicts *got = arg;
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_lease_t lease;
    got->start = corepool_runtime_start(NULL, &runtime);
    got->stop = corepool_runtime_stop(got->runtime, 0);
    got->destroy = corepool_shard_post(got->runtime, 0, note_order, NULL);
    got->audit = corepool_checkout(got->pool, NULL, &lease);
    got->open = corepool_pool_open(got->runtime, &laws_class, NULL, 1, NULL, &pool);
    got->close = corepool_pool_close(got->pool, 0);
}

Test(runtime, a_forked_child_is_refused_and_its_parent_goes_on)
{
    struct laws_count count = {0};
    struct verdicts got = {.runtime = laws_start(NULL)};
    int status;
    got.pool = laws_open(&laws_class, &count, 2, 0);
    laws_await_idle(got.pool, 2);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        call_in_child(&got);
        _exit((got.start == COREPOOL_EFORKED) + (got.stop == COREPOOL_EFORKED) +
              (got.destroy == COREPOOL_EFORKED) + (got.audit == COREPOOL_EFORKED) +
              (got.open == COREPOOL_EFORKED) + (got.close == COREPOOL_EFORKED));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_expect_eq(WEXITSTATUS(status), 6, "%d of 6 calls were refused", WEXITSTATUS(status));
    corepool_lease_t lease = laws_take(got.pool);
    cr_expect_eq(corepool_checkin(&lease), COREPOOL_OK);
    laws_end();
}

static void note_thread(const corepool_lease_info_t *info, void *id)
{
    *(int64_t *)id = info->thread_id;
}

/* Whether a lease of the calling thread, which may have called the library before, is shown as that. */
static bool is_shown_as_holder(void)
{
    corepool_runtime_t *runtime;
    corepool_pool_t pool;
    corepool_lease_t lease;
    int64_t id = 0;
    bool shown = corepool_adopt(&(corepool_lease_t){0}) == COREPOOL_ESTALE &&
                 corepool_runtime_start(NULL, &runtime) == COREPOOL_OK &&
                 corepool_pool_open(runtime, &laws_plain_class, &(struct laws_count){0}, 1, NULL, &pool) == COREPOOL_OK &&
                 corepool_checkout(pool, NULL, &lease) == COREPOOL_OK &&
                 corepool_pool_leases(pool, note_thread, &id) == 1 && corepool_checkin(&lease) == COREPOOL_OK &&
                 corepool_runtime_stop(runtime, COREPOOL_INFINITE) == COREPOOL_OK &&
                 corepool_runtime_destroy(runtime) == COREPOOL_OK;
    return shown && id == gettid();
}

static void expect_shown_in_child(bool (*in_child)(void))
{
    int status;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        _exit(in_child() ? 0 : 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(runtime, a_child_of_a_process_without_a_runtime_shows_its_threads_as_they_are_there)
{
    cr_assert_eq(corepool_adopt(&(corepool_lease_t){0}), COREPOOL_ESTALE); /* it is known by its number here */
    expect_shown_in_child(is_shown_as_holder);
}

/* A thread that is known to the library until it is told to end. */
struct known {
    sem_t begun, end;
    pthread_t thread;
};

static void *be_known(void *arg)
{
    struct known *known = arg;
    corepool_adopt(&(corepool_lease_t){0});
    sem_post(&known->begun);
    while (sem_wait(&known->end) != 0)
        ; /* a signal */
    return NULL;
}

static void known_start(struct known *known, const pthread_attr_t *attributes)
{
    sem_init(&known->begun, 0, 0);
    sem_init(&known->end, 0, 0);
    cr_assert_eq(pthread_create(&known->thread, attributes, be_known, known), 0);
    while (sem_wait(&known->begun) != 0)
        ;
}

static void known_end(struct known *known)
{
    sem_post(&known->end);
    cr_assert_eq(pthread_join(known->thread, NULL), 0);
}

/* Where a thread is in the parent, and one in the child. */
static _Alignas(4096) char stack[1 << 20];
static pthread_attr_t on_stack;

static void *note_shown(void *shown)
{
    *(bool *)shown = is_shown_as_holder();
    return NULL;
}

static bool is_shown_on_stack(void)
{
    pthread_t thread;
    bool shown = false;
    return pthread_create(&thread, &on_stack, note_shown, &shown) == 0 && pthread_join(thread, NULL) == 0 && shown;
}

/* It gets the record of one that ended before, so that of the parent's thread is found first if it is still in the books. */
Test(runtime, a_child_s_thread_in_the_place_of_one_of_its_parent_s_is_not_shown_as_that)
{
    struct known before, parents;
    cr_assert_eq(pthread_attr_init(&on_stack), 0);
    cr_assert_eq(pthread_attr_setstack(&on_stack, stack, sizeof stack), 0);
    known_start(&before, NULL);
    known_start(&parents, &on_stack);
    known_end(&before);
    expect_shown_in_child(is_shown_on_stack);
    known_end(&parents);
    pthread_attr_destroy(&on_stack);
}
