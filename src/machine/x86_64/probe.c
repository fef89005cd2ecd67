/* machine/x86_64/probe.c: probing for rseq, and the copy of glibc's offset for the fast path. */
#include "machine/probe.h"

#include <linux/membarrier.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "machine/shelf.h"

ptrdiff_t cp_rseq_offset;

/* Before any code of the program can reach a shelf: of a static library's constructors and the program's own those with the lowest
 * number come first. */
__attribute__((constructor(101))) static void copy_offset(void)
{
    cp_rseq_offset = __rseq_offset;
}

bool cp_probe_cpu(void)
{
    return __rseq_size != 0 && cp_rseq_cpu_registered() <= INT32_MAX;
}

bool cp_probe_rseq(const char **reason)
{
    const char *dummy;
    if (!reason)
        reason = &dummy;
    if (__rseq_size == 0) {
        *reason = "glibc has not registered rseq for this process";
        return false;
    }
    /* The two values above INT32_MAX are "uninitialised" and "registration failed". */
    if (cp_rseq_cpu_registered() > INT32_MAX) {
        *reason = "this thread is not registered for rseq";
        return false;
    }
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    if (commands < 0 || !(commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0) != 0) {
        *reason = "the kernel has no membarrier for rseq";
        return false;
    }
    *reason = "registered by glibc, membarrier available";
    return true;
}
