/* machine/thread.c: thread records: made at the first call, freed by a thread-specific key's destructor.
 *
 * The destructor may run before those of the program's own keys; if one of these calls the library again the thread
 * gets a new record, and the destructor runs once more (POSIX repeats while keys are set). */
#include "machine/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "machine/cpus.h"
#include "machine/shelf.h"

struct cp_thread cp_nobody = {.area = (char *)&cp_nobody.none, .none = {.cpu_id = UINT32_MAX}};
_Thread_local struct cp_thread *cp_self = &cp_nobody;
_Thread_local char *cp_area = (char *)&cp_nobody.none;
_Thread_local char *cp_client_area = (char *)&cp_nobody.none;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool has_key;
static _Atomic(struct cp_thread *) newest;
static struct cp_thread *unused;
static _Atomic int runtimes;
static _Atomic uint64_t ended_runtimes;
static _Atomic bool forked;
static void (*_Atomic on_exit_fn)(struct cp_thread *thread);

static void become(struct cp_thread *thread)
{
    cp_self = thread;
    cp_area = cp_client_area = atomic_load(&thread->area);
}

void cp_thread_never_blocks(void)
{
    cp_client_area = atomic_load(&cp_nobody.area);
}

static void free_record(struct cp_thread *thread)
{
    atomic_store(&thread->area, NULL);
    pthread_mutex_lock(&lock);
    thread->next = unused;
    unused = thread;
    pthread_mutex_unlock(&lock);
}

static void end_thread(void *value)
{
    struct cp_thread *thread = value;
    void (*fn)(struct cp_thread *) = atomic_load(&on_exit_fn);
    become(thread);
    if (fn)
        fn(thread);
    become(&cp_nobody);
    free_record(thread);
}

/* There are no leases: only reports know a thread by its area, which one of the child's may have, or by its number. */
static void forget_parents_threads(void)
{
    for (struct cp_thread *thread = atomic_load(&newest); thread; thread = thread->before)
        if (thread != cp_self)
            atomic_store(&thread->area, NULL);
    if (cp_self != &cp_nobody)
        atomic_store(&cp_self->id, syscall(SYS_gettid));
}

/* Other threads are gone, and with them shards and locks: nothing of the parent's is touched. */
static void after_fork_in_child(void)
{
    if (atomic_load(&runtimes) == 0) {
        forget_parents_threads();
        return;
    }
    atomic_store(&forked, true);
    if (cp_self != &cp_nobody)
        pthread_setspecific(key, NULL);
    become(&cp_nobody);
}

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork_child(void)
{
    pthread_mutex_unlock(&lock);
    after_fork_in_child();
}

static void init_once(void)
{
    has_key = pthread_key_create(&key, end_thread) == 0 &&
              pthread_atfork(before_fork, after_fork, after_fork_child) == 0;
}

/* Under the lock. */
static struct cp_thread *make_record(void)
{
    struct cp_thread *thread = aligned_alloc(CP_CACHE_LINE, sizeof *thread);
    struct cp_thread *before = atomic_load(&newest);
    if (!thread)
        return NULL;
    *thread = (struct cp_thread){.number = before ? before->number + 1 : 0, .before = before,
                                 .none = {.cpu_id = UINT32_MAX}};
    for (unsigned i = 0; i < CP_THREAD_TURNS; i++)
        thread->turns[i] = thread->number; /* so that threads do not go round in step */
    cp_list_init(&thread->requests);
    atomic_store(&newest, thread);
    return thread;
}

/* The usual path looks up by_cpu[cpu_id] as it is: only where that is a CPU's number, and the tables have all. */
static char *area_of(struct cp_thread *thread)
{
    bool registered = cp_rseq_cpu_registered() < cp_cpus_of_kernel();
    return registered ? cp_rseq_area() : (char *)&thread->none;
}

const struct cp_thread *cp_thread_of(const char *area)
{
    const struct cp_thread *thread = atomic_load(&newest);
    while (thread && atomic_load(&thread->area) != area)
        thread = thread->before;
    return thread;
}

struct cp_thread *cp_thread_register(int *code)
{
    pthread_once(&once, init_once);
    if (atomic_load(&forked)) {
        *code = cp_fail(COREPOOL_EFORKED, "corepool was running in the parent when this process was forked");
        return NULL;
    }
    pthread_mutex_lock(&lock);
    struct cp_thread *thread = unused;
    if (thread)
        unused = thread->next;
    else if (has_key)
        thread = make_record();
    pthread_mutex_unlock(&lock);
    if (!thread || pthread_setspecific(key, thread) != 0) {
        if (thread) /* it has taken nothing; and what has no holder is not its */
            free_record(thread);
        *code = cp_fail(COREPOOL_ENOMEM, "no memory to register this thread");
        return NULL;
    }
    memset(thread->seen, 0, sizeof thread->seen);
    thread->many = 0;
    thread->seen_since = atomic_load(&ended_runtimes);
    thread->turn_of = 0; /* whoever had this record before may have had one */
    thread->shard = NULL;
    thread->loop = NULL;
    cp_list_init(&thread->requests);
    atomic_store(&thread->id, syscall(SYS_gettid));
    if (pthread_getname_np(pthread_self(), thread->name, sizeof thread->name) != 0)
        thread->name[0] = '\0';
    atomic_store(&thread->area, area_of(thread));
    become(thread);
    return thread;
}

void cp_thread_on_exit(void (*fn)(struct cp_thread *thread))
{
    atomic_store(&on_exit_fn, fn);
}

void cp_thread_remember(struct cp_thread *thread, struct corepool_worker *worker)
{
    unsigned place = 0;
    while (place < CP_THREAD_SEEN && thread->seen[place] && thread->seen[place] != worker)
        place++;
    if (place == CP_THREAD_SEEN) {
        thread->many = 1;
        return;
    }
    memmove(thread->seen + 1, thread->seen, place * sizeof *thread->seen);
    thread->seen[0] = worker;
}

bool cp_thread_remembers(const struct cp_thread *thread)
{
    return !thread->many && thread->seen_since == atomic_load(&ended_runtimes);
}

void cp_thread_runtime_begins(void)
{
    atomic_fetch_add(&runtimes, 1);
}

void cp_thread_runtime_ends(void)
{
    atomic_fetch_add(&ended_runtimes, 1);
    atomic_fetch_sub(&runtimes, 1);
}

bool cp_thread_is_forked(void)
{
    return atomic_load(&forked);
}
