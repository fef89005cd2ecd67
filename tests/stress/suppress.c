/* tests/stress/suppress.c: reports of the thread sanitizer that say nothing about the library. In other
 * builds nobody calls this. */
#include "stress.h"

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);

/* libuv is not built with the sanitizer and closes descriptors by bare system calls, so a number that the
 * kernel hands out again looks like a race of the two calls that made it. Only those calls' own bookkeeping
 * is named here. */
const char *__tsan_default_suppressions(void)
{
    return "race:epoll_create1\n"
           "race:pipe2\n"
           "race:eventfd\n";
}
