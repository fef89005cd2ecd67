/* tests/thread_test.c: by which area a thread is known, and on which CPU that says it is: the usual path looks at
 * nothing else of it (corepool/layout.h). */
#include "support/both_shelves.h" /* need_rseq */

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine/thread.h"

static uint32_t cpu_of(const char *area)
{
    uint32_t cpu;
    memcpy(&cpu, area + offsetof(struct cp_area, cpu_id), sizeof cpu);
    return cpu;
}

static const struct cp_thread *become_known(void)
{
    int code;
    const struct cp_thread *self = cp_thread_self(&code);
    cr_assert_not_null(self);
    return self;
}

Test(thread, is_on_no_cpu_before_its_first_call)
{
    cr_expect_eq(cpu_of(cp_area), UINT32_MAX);
    cr_expect_eq(cpu_of(cp_client_area), UINT32_MAX);
    become_known();
    cr_expect_neq(cp_area, (char *)&cp_nobody.none);
}

Test(thread, is_its_rseq_area)
{
    need_rseq();
    const struct cp_thread *self = become_known();
    cr_expect_eq(cp_area, cp_rseq_area());
    cr_expect_eq(cp_client_area, cp_area);
    cr_expect_eq(cp_thread_of(cp_area), self);
}

/* As rseq(2) has registered it, which the C library does with this size at least. */
#define AREA_BYTES 32

Test(thread, has_an_area_of_its_own_but_no_cpu_where_it_is_not_registered)
{
    need_rseq();
    if (syscall(SYS_rseq, cp_rseq_area(), AREA_BYTES, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) != 0)
        cr_skip_test("this thread stays registered: %s", strerror(errno));
    const struct cp_thread *self = become_known();
    cr_expect_eq(cp_area, (const char *)&self->none);
    cr_expect_eq(cpu_of(cp_area), UINT32_MAX);
    cr_expect_eq(cp_client_area, cp_area);
    cr_expect_eq(cp_thread_of(cp_area), self);
}

Test(thread, that_never_blocks_is_on_no_cpu_for_what_blocks)
{
    const struct cp_thread *self = become_known();
    cp_thread_never_blocks();
    cr_expect_eq(cpu_of(cp_client_area), UINT32_MAX);
    cr_expect_eq(cp_thread_of(cp_area), self, "for the rest it is who it was");
}

/* --- others, and their ends --- */

struct guest {
    pthread_t thread;
    const struct cp_thread *self;
    const char *area;
    sem_t is_there, end;
};

static void await(sem_t *sem)
{
    while (sem_wait(sem) != 0)
        ; /* a signal */
}

static void *visit(void *arg)
{
    struct guest *guest = arg;
    int code;
    guest->self = cp_thread_self(&code);
    guest->area = cp_area;
    sem_post(&guest->is_there);
    await(&guest->end);
    return NULL;
}

static void start_guest(struct guest *guest)
{
    sem_init(&guest->is_there, 0, 0);
    sem_init(&guest->end, 0, 0);
    cr_assert_eq(pthread_create(&guest->thread, NULL, visit, guest), 0);
    await(&guest->is_there);
    cr_assert_not_null(guest->self);
}

static void end_guest(struct guest *guest)
{
    sem_post(&guest->end);
    cr_assert_eq(pthread_join(guest->thread, NULL), 0);
}

Test(thread, is_found_by_its_area_until_its_end)
{
    struct guest guests[3];
    const struct cp_thread *self = become_known();
    for (unsigned i = 0; i < 3; i++)
        start_guest(&guests[i]);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(cp_thread_of(guests[i].area), guests[i].self);
    for (unsigned i = 0; i < 3; i++) {
        end_guest(&guests[i]);
        cr_expect_null(cp_thread_of(guests[i].area));
    }
    cr_expect_eq(cp_thread_of(cp_area), self);
}

Test(thread, with_the_record_of_one_that_ended_is_known_by_its_own_area)
{
    struct guest first, second;
    start_guest(&first);
    end_guest(&first);
    start_guest(&second);
    cr_expect_eq(second.self, first.self);
    cr_expect_eq(cp_thread_of(second.area), second.self);
    become_known();
    cr_expect_neq(cp_area, second.area);
    end_guest(&second);
}

static const char *area_at_end;

static void note_area(struct cp_thread *thread)
{
    area_at_end = atomic_load(&thread->area);
}

Test(thread, has_its_area_while_its_end_is_looked_at)
{
    struct guest guest;
    cp_thread_on_exit(note_area);
    start_guest(&guest);
    end_guest(&guest);
    cr_expect_eq(area_at_end, guest.area);
}
