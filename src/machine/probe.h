/* machine/probe.h: whether this process can have rseq shelves. Thread: any. */
#ifndef CP_MACHINE_PROBE_H
#define CP_MACHINE_PROBE_H

#include <stdbool.h>

/* Whether restartable sequences work here: architecture, glibc's registration (not turned off by
 * GLIBC_TUNABLES, not under valgrind), and the kernel's membarrier for them, for which the process is registered
 * on the way. *reason (may be NULL) receives why, static storage. */
bool cp_probe_rseq(const char **reason);

/* Whether cp_rseq_cpu tells the CPU; else it is 0 on all, and the C library is to be asked. */
bool cp_probe_cpu(void);

#endif
