/* tests/cpus/cpus.h: a runtime under load while its CPUs come and go. Default of this header: the main thread.
 *
 * machine.c asks the kernel for the changes and sees to it that all is as before, however the program ends;
 * clients.c is the load, and the oracle of the laws; cpus.c is the play. */
#ifndef CPUS_CPUS_H
#define CPUS_CPUS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <corepool.h>

/* No request may end later than this after its deadline, on a machine that is itself never late. */
#define LATE_MS 100

/* --- machine.c */

/* Goes on in a child process; this one waits for its end, undoes what it did to the machine, and exits as it
 * did. */
void machine_guard(void);

/* Puts this process into a cpuset of its own with these CPUs. False: said why not. */
bool machine_enter_cpuset(const char *cpus);
void machine_set_cpuset(const char *cpus);

/* Whether this CPU may be taken offline without harm to others. False: said why not. */
bool machine_may_unplug(int cpu);
void machine_plug(int cpu, bool online);

/* Lets a thread run on one CPU, or with -1 on all that the kernel allows. */
void machine_place(pid_t thread, int cpu);

/* --- clients.c */

/* A law is broken: says which and ends the program. Thread: any. */
void broke(const char *law, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

void clients_start(corepool_runtime_t *runtime);

/* Ends them, and their pools' counts are judged: the runtime is quiescent. */
void clients_stop(void);

/* Closes the pools; the workers' ends are judged. */
void clients_close(void);

/* Checkouts that were granted so far. */
uint64_t clients_served(void);

/* Slices on the portable shelf, over all pools. */
uint64_t clients_portable(void);

unsigned clients_count(void);
pid_t clients_thread(unsigned number);

#endif
