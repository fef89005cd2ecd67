/* shard/shard.c: the shard's thread: start, loop, local work, stop.
 *
 * States: starting → running → stopping → joined. Everything a shard does for its slices comes from three places in its
 * loop: messages (loop.c), the `soon` handle (local work and dirty slices, before the loop may sleep), and the
 * timer. An idle shard has none of them active and makes no system call. */
#include "shard/shard.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/point.h"
#include "machine/topology.h"
#include "shard/home.h"

/* Blocks are cut from chunks, so that thousands of small slices do not cost a page or more each; each is twice as large as
 * the one before, so that hundreds of shards with a few slices each do not cost the largest. */
#define CHUNK_BYTES_MIN ((size_t)16 * 1024)
#define CHUNK_BYTES_MAX CP_HUGE_PAGE

struct cp_chunk {
    struct cp_chunk *next;
    size_t bytes, used;
} cp_line_aligned;

struct start {
    struct corepool_shard *shard;
    struct cp_latch latch;
    int status;
    char detail[256];
};

/* For at least so many bytes; much memory is whole huge pages. */
static size_t next_chunk_bytes(const struct corepool_shard *shard, size_t bytes)
{
    size_t size = shard->chunks ? 2 * shard->chunks->bytes : CHUNK_BYTES_MIN;
    size = size < CHUNK_BYTES_MAX ? size : CHUNK_BYTES_MAX;
    bytes += sizeof(struct cp_chunk);
    if (bytes > CP_HUGE_PAGE)
        bytes = (bytes + CP_HUGE_PAGE - 1) & ~(CP_HUGE_PAGE - 1);
    return bytes > size ? bytes : size;
}

void *cp_shard_alloc(struct corepool_shard *shard, size_t bytes)
{
    bytes = (bytes + CP_CACHE_LINE - 1) & ~(size_t)(CP_CACHE_LINE - 1);
    struct cp_chunk *chunk = shard->chunks;
    if (!chunk || chunk->bytes - chunk->used < bytes) {
        size_t size = next_chunk_bytes(shard, bytes);
        chunk = cp_topology_alloc(shard->topology, shard->index, size);
        if (!chunk)
            return NULL;
        *chunk = (struct cp_chunk){.next = shard->chunks, .bytes = size, .used = sizeof *chunk};
        shard->chunks = chunk;
    }
    void *memory = (char *)chunk + chunk->used;
    chunk->used += bytes;
    return memory;
}

void cp_shard_finish(struct corepool_shard *shard)
{
    while (shard->chunks) {
        struct cp_chunk *chunk = shard->chunks;
        shard->chunks = chunk->next;
        cp_topology_free(shard->topology, chunk, chunk->bytes);
    }
}

/* --- the role ---------------------------------------------------------------------------------------------------- */

/* So often does the thread look for more asks before it lets its loop have a turn; and a caller, before it leaves them to
 * the thread and goes on with its own. */
#define LAST_LOOKS 16

void cp_shard_enter(struct corepool_shard *shard)
{
    cp_assert(cp_on_shard(shard));
    if (!shard->playing) {
        cp_token_take(&shard->token);
        shard->playing = true;
    }
}

static void deliver(struct cp_message *message)
{
    while (message) {
        struct cp_message *next = message->next; /* deliver may reuse it */
        message->deliver(message);
        message = next;
    }
}

static void deliver_asks(struct corepool_shard *shard)
{
    deliver(cp_mailbox_take(&shard->asks));
}

void cp_shard_wake_sleeper(struct corepool_shard *shard, _Atomic uint32_t *word)
{
    if (cp_on_shard(shard) || shard->wakes == CP_WAKES)
        cp_futex_wake(word, 1);
    else
        shard->wake[shard->wakes++] = word;
}

/* What callers cannot do stays on the list. */
static void pump_anywhere(struct corepool_shard *shard)
{
    struct cp_list left;
    cp_list_init(&left);
    while (!cp_list_is_empty(&shard->dirty)) {
        struct cp_slice *slice = cp_container(shard->dirty.next, struct cp_slice, dirty);
        cp_list_unlink(&slice->dirty);
        if (cp_slice_pump_anywhere(slice))
            cp_list_push_back(&left, &slice->dirty);
    }
    while (!cp_list_is_empty(&left)) {
        struct cp_list *slice = left.next;
        cp_list_unlink(slice);
        cp_list_push_back(&shard->dirty, slice);
        shard->thread_wanted = true;
    }
}

/* After the drop nothing of what this play has brought about may be looked at in the shard: it is another's. */
static void drop_and_wake(struct corepool_shard *shard)
{
    _Atomic uint32_t *wake[CP_WAKES];
    unsigned wakes = shard->wakes;
    bool thread_wanted = shard->thread_wanted;
    for (unsigned i = 0; i < wakes; i++)
        wake[i] = shard->wake[i];
    shard->wakes = 0;
    shard->thread_wanted = false;
    cp_token_drop(&shard->token);
    for (unsigned i = 0; i < wakes; i++) /* the request may be reused already: only its address is used */
        cp_futex_wake(wake[i], 1);
    if (thread_wanted)
        cp_loop_wake(&shard->loop);
}

/* What was asked comes first. */
static bool begin_play(struct corepool_shard *shard)
{
    if (!cp_token_try(&shard->token))
        return false;
    cp_point(PLAY_BEGUN);
    deliver_asks(shard);
    return true;
}

static void end_play(struct corepool_shard *shard)
{
    unsigned looks = 0;
    do {
        pump_anywhere(shard);
        drop_and_wake(shard);
        cp_point(PLAY_ENDED);
        if (cp_mailbox_is_empty(&shard->asks))
            return;
        if (++looks == LAST_LOOKS) {
            cp_loop_wake(&shard->loop);
            return;
        }
    } while (begin_play(shard));
}

static bool may_play(void)
{
    return cp_self != &cp_nobody && !cp_self->shard;
}

bool cp_shard_begin_play(struct corepool_shard *shard)
{
    if (!may_play())
        return false;
    cp_shard_hold(shard);
    if (begin_play(shard)) {
        if (!cp_mailbox_is_closed(&shard->asks))
            return true;
        cp_token_drop(&shard->token);
    }
    cp_shard_let_go(shard);
    return false;
}

void cp_shard_end_play(struct corepool_shard *shard)
{
    end_play(shard);
    cp_shard_let_go(shard);
}

/* Who has posted it sees that it is delivered. */
static void see_to(struct corepool_shard *shard, enum cp_post post, bool here)
{
    cp_point(ASK_POSTED);
    if (!here || !may_play()) {
        if (post == CP_POST_FIRST) /* else whoever came first sees to it */
            cp_loop_wake(&shard->loop);
    } else if (begin_play(shard)) {
        end_play(shard);
    }
}

static bool post_ask(struct corepool_shard *shard, struct cp_message *message, bool here)
{
    cp_shard_hold(shard); /* before the push */
    enum cp_post post = cp_mailbox_post(&shard->asks, message);
    if (post != CP_POST_CLOSED)
        see_to(shard, post, here);
    cp_shard_let_go(shard);
    return post != CP_POST_CLOSED;
}

bool cp_shard_ask(struct corepool_shard *shard, struct cp_message *message, bool here)
{
    if (cp_on_shard(shard))
        return cp_shard_send(shard, message);
    if (!here || !cp_shard_begin_play(shard))
        return post_ask(shard, message, here);
    message->deliver(message);
    cp_shard_end_play(shard);
    return true;
}

/* Afterwards nobody who has asked touches the shard: once it has stopped its memory may be freed. Who is between push and
 * play may be preempted there, so give it the CPU. */
static void refuse_asks(struct corepool_shard *shard)
{
    deliver(cp_mailbox_close(&shard->asks));
    while (atomic_load(&shard->askers))
        sched_yield();
}

/* --- local work ---------------------------------------------------------------------------------------------- */

static void on_soon(uv_idle_t *soon);

static void work_soon(struct corepool_shard *shard)
{
    if (!uv_is_active((uv_handle_t *)&shard->soon))
        uv_idle_start(&shard->soon, on_soon); /* fails without a callback only */
}

static void deliver_local(struct corepool_shard *shard)
{
    struct cp_message *message = shard->local_first;
    shard->local_first = NULL;
    shard->local_last = &shard->local_first;
    deliver(message);
}

static void pump_dirty(struct corepool_shard *shard)
{
    while (!cp_list_is_empty(&shard->dirty)) {
        struct cp_slice *slice = cp_container(shard->dirty.next, struct cp_slice, dirty);
        cp_list_unlink(&slice->dirty);
        cp_slice_pump(slice);
    }
}

void cp_shard_settle(struct corepool_shard *shard)
{
    cp_shard_enter(shard);
    deliver_local(shard);
    deliver_asks(shard);
    pump_dirty(shard);
}

static void end_loop(struct corepool_shard *shard);

/* One round; what it brings about is done in the next turn of the loop, so that I/O gets its turn too. */
static void on_soon(uv_idle_t *soon)
{
    struct corepool_shard *shard = soon->data;
    cp_home_look(shard);
    cp_shard_settle(shard);
    if (shard->local_first || !cp_list_is_empty(&shard->dirty))
        return;
    uv_idle_stop(soon);
    if (shard->stop_wanted && !shard->stopping)
        end_loop(shard);
}

static void on_entered(struct cp_loop *loop)
{
    cp_shard_enter(cp_container(loop, struct corepool_shard, loop));
}

/* The loop is about to sleep: from here on callers may play. */
static void on_leaving(uv_prepare_t *leaving)
{
    struct corepool_shard *shard = leaving->data;
    for (unsigned looks = 0; shard->playing; looks++) {
        if (looks == LAST_LOOKS)
            work_soon(shard); /* it does not sleep, then */
        else if (!cp_mailbox_is_empty(&shard->asks))
            on_soon(&shard->soon);
        cp_point(LEAVE_LOOKED);
        shard->playing = false;
        cp_token_drop(&shard->token);
        if (looks < LAST_LOOKS && !cp_mailbox_is_empty(&shard->asks))
            shard->playing = cp_token_try(&shard->token); /* else who has it looks after them */
    }
}

/* What the messages brought about, without another turn of the loop. */
static void on_drained(struct cp_loop *loop)
{
    on_soon(&cp_container(loop, struct corepool_shard, loop)->soon);
}

bool cp_shard_send(struct corepool_shard *shard, struct cp_message *message)
{
    if (!cp_on_shard(shard))
        return cp_loop_send(&shard->loop, message);
    if (shard->stopping)
        return false;
    message->next = NULL;
    *shard->local_last = message;
    shard->local_last = &message->next;
    work_soon(shard);
    return true;
}

void cp_shard_look_after(struct corepool_shard *shard, struct cp_slice *slice)
{
    bool on_thread = cp_on_shard(shard);
    if (on_thread)
        cp_shard_enter(shard);
    slice->crowded = false;
    if (cp_list_is_empty(&slice->dirty))
        cp_list_push_back(&shard->dirty, &slice->dirty);
    if (on_thread)
        work_soon(shard);
}

/* --- time ------------------------------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer);

static void start_timer(struct corepool_shard *shard, int64_t when_ns)
{
    uv_update_time(&shard->uv);
    uint64_t timeout = (uint64_t)cp_left_ms(when_ns, cp_now_ns());
    if (!uv_is_active((uv_handle_t *)&shard->timer) || uv_timer_get_due_in(&shard->timer) > timeout)
        uv_timer_start(&shard->timer, on_timer, timeout, 0); /* fails without a callback only */
}

void cp_shard_wake_at(struct corepool_shard *shard, struct cp_slice *slice, int64_t when_ns)
{
    if (!cp_heap_has(&slice->sleeping) || when_ns < slice->sleeping.key) {
        cp_heap_remove(&shard->sleeping, &slice->sleeping);
        cp_heap_add(&shard->sleeping, &slice->sleeping, when_ns);
    }
    start_timer(shard, when_ns);
}

/* When the next sleeper is to wake, after those that are due have. */
static int64_t wake_sleepers(struct corepool_shard *shard, int64_t now_ns)
{
    struct cp_heap_node *first;
    while ((first = shard->sleeping.least) && first->key <= now_ns) {
        cp_heap_remove(&shard->sleeping, first);
        cp_shard_look_after(shard, cp_container(first, struct cp_slice, sleeping));
    }
    return first ? first->key : CP_NEVER;
}

static void on_timer(uv_timer_t *timer)
{
    struct corepool_shard *shard = timer->data;
    cp_shard_enter(shard);
    int64_t next_at = wake_sleepers(shard, cp_now_ns());
    if (next_at != CP_NEVER)
        start_timer(shard, next_at);
}

/* --- start and stop --------------------------------------------------------------------------------------------- */

/* Before 1.51 a uv_loop_init that fails leaves its epoll descriptor open. */
#define UV_VERSION_WITHOUT_LEAK (1 << 16 | 51 << 8)

static int init_loop(uv_loop_t *uv)
{
    uv->backend_fd = -1; /* it may fail before it sets this itself */
    int status = uv_loop_init(uv);
    if (status < 0 && uv_version() < UV_VERSION_WITHOUT_LEAK && uv->backend_fd != -1)
        close(uv->backend_fd);
    return status;
}

static int open_handles(struct corepool_shard *shard)
{
    cp_loop_init(&shard->loop);
    int status = init_loop(&shard->uv);
    if (status < 0)
        return cp_fail(COREPOOL_ESYSTEM, "shard %u: uv_loop_init: %s", shard->index, uv_strerror(status));
    status = cp_loop_open(&shard->loop, &shard->uv, cp_self);
    if (status < 0) {
        uv_loop_close(&shard->uv);
        return status;
    }
    shard->loop.entered = on_entered;
    shard->loop.drained = on_drained;
    shard->loop.runtime = shard->runtime;
    /* The shard's loop lives until it is told to stop. */
    uv_ref((uv_handle_t *)&shard->loop.wake);
    uv_idle_init(&shard->uv, &shard->soon);
    uv_timer_init(&shard->uv, &shard->timer);
    uv_unref((uv_handle_t *)&shard->timer);
    uv_prepare_init(&shard->uv, &shard->leaving);
    uv_prepare_start(&shard->leaving, on_leaving); /* fails without a callback only */
    uv_unref((uv_handle_t *)&shard->leaving);
    shard->soon.data = shard->timer.data = shard->leaving.data = shard;
    cp_home_open(shard);
    return COREPOOL_OK;
}

static int begin(struct corepool_shard *shard)
{
    int status = COREPOOL_OK;
    pthread_setname_np(pthread_self(), shard->name); /* length checked by the runtime; a name is no reason to fail */
    if (shard->pinned)
        status = cp_topology_pin(shard->topology, shard->index);
    shard->pin_refused = status == COREPOOL_ESYSTEM;
    if (status < 0)
        return status;
    if (!cp_thread_self(&status))
        return status;
    status = open_handles(shard);
    if (status < 0)
        return status;
    cp_self->shard = shard;
    cp_self->loop = &shard->loop;
    cp_thread_never_blocks();
    return COREPOOL_OK;
}

static void close_leftover(uv_handle_t *handle, void *shard)
{
    (void)shard;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void *run_shard(void *arg)
{
    struct start *start = arg;
    struct corepool_shard *shard = start->shard;
    int status = begin(shard);
    start->status = status;
    if (status < 0)
        memccpy(start->detail, corepool_error_detail(), 0, sizeof start->detail - 1);
    cp_latch_down(&start->latch); /* `start` is gone from here on */
    if (status < 0)
        return NULL;
    while (!shard->stopping) /* a program's uv_stop does not end a shard */
        uv_run(&shard->uv, UV_RUN_DEFAULT);
    /* Handles that the program left open: closed without a callback, as promised. */
    uv_walk(&shard->uv, close_leftover, NULL);
    uv_run(&shard->uv, UV_RUN_DEFAULT);
    uv_loop_close(&shard->uv);
    if (shard->playing)
        cp_token_drop(&shard->token);
    shard->playing = false;
    cp_self->shard = NULL;
    cp_self->loop = NULL;
    return NULL;
}

int cp_shard_start(struct corepool_shard *shard)
{
    struct start start = {.shard = shard};
    cp_latch_init(&start.latch, 1);
    cp_list_init(&shard->slices);
    cp_list_init(&shard->dirty);
    shard->sleeping = (struct cp_heap){0};
    for (unsigned i = 0; i < CP_BLOCK_CLASSES; i++)
        cp_list_init(&shard->spare_blocks[i]);
    shard->local_first = NULL;
    shard->local_last = &shard->local_first;
    /* The program's signal handlers are not to run here, between a callback and the next. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&shard->thread, NULL, run_shard, &start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return cp_fail(COREPOOL_ESYSTEM, "shard %u: cannot create its thread: %s", shard->index, strerror(error));
    cp_latch_wait(&start.latch, CP_NEVER);
    if (start.status < 0) {
        pthread_join(shard->thread, NULL);
        return cp_fail(start.status, "%s", start.detail);
    }
    return COREPOOL_OK;
}

static void run_on_stop(struct corepool_shard *shard)
{
    CP_MARKED(shard, NULL, CP_CALLS_ON_STOP);
    if (shard->on_stop)
        shard->on_stop(shard, shard->arg);
}

/* Nothing is accepted any more; what was runs; then on_stop, the last word. */
static void end_loop(struct corepool_shard *shard)
{
    cp_assert(cp_list_is_empty(&shard->slices));
    shard->stopping = true;
    cp_loop_close(&shard->loop, NULL);
    refuse_asks(shard);
    while (shard->local_first)
        deliver_local(shard);
    run_on_stop(shard);
    uv_close((uv_handle_t *)&shard->soon, NULL);
    uv_close((uv_handle_t *)&shard->timer, NULL);
    uv_close((uv_handle_t *)&shard->leaving, NULL);
    cp_home_close(shard);
    uv_stop(&shard->uv);
}

/* The rest of the messages that came with this one go first. */
static int stop_on_shard(struct corepool_shard *shard, void *arg)
{
    (void)arg;
    shard->stop_wanted = true;
    work_soon(shard);
    return COREPOOL_OK;
}

void cp_shard_stop(struct corepool_shard *shard)
{
    cp_shard_call(shard, stop_on_shard, NULL);
    pthread_join(shard->thread, NULL);
}

/* --- calls ------------------------------------------------------------------------------------------------------- */

struct call {
    struct cp_message message;
    struct corepool_shard *shard;
    int (*fn)(struct corepool_shard *, void *);
    void *arg;
    int status;
    char detail[256];
    struct cp_latch latch;
};

static void deliver_call(struct cp_message *message)
{
    struct call *call = cp_container(message, struct call, message);
    call->status = call->fn(call->shard, call->arg);
    if (call->status < 0)
        memccpy(call->detail, corepool_error_detail(), 0, sizeof call->detail - 1);
    cp_latch_down(&call->latch);
}

int cp_shard_call(struct corepool_shard *shard, int (*fn)(struct corepool_shard *, void *), void *arg)
{
    struct call call = {.message.deliver = deliver_call, .shard = shard, .fn = fn, .arg = arg};
    cp_latch_init(&call.latch, 1);
    if (!cp_loop_send(&shard->loop, &call.message))
        return cp_fail(COREPOOL_ECLOSED, "shard %u has stopped", shard->index);
    cp_latch_wait(&call.latch, CP_NEVER);
    return call.status < 0 ? cp_fail(call.status, "%s", call.detail) : call.status;
}

/* --- public: where code runs ---------------------------------------------------------------------------------------- */

corepool_shard_t *corepool_shard_current(void)
{
    return cp_self->shard;
}

uv_loop_t *corepool_shard_loop(corepool_shard_t *shard)
{
    return &shard->uv;
}

unsigned corepool_shard_index(const corepool_shard_t *shard)
{
    return shard->index;
}

int corepool_shard_cpu(const corepool_shard_t *shard)
{
    return shard->cpu;
}

corepool_runtime_t *corepool_shard_runtime(const corepool_shard_t *shard)
{
    return shard->runtime;
}
