/* front/layout.c: which published layout this library speaks, and the names of those that it does not. Thread: any. */
#include "front/usual.h"

/* Up to version 3 the names were of a structure that began with the area's address. Never set: who reads them finds a thread
 * that is on no CPU, and calls the exported functions. */
struct former_thread {
    struct cp_area *area;
    uint32_t tag;
};

static struct cp_area nobodys = {.cpu_id = UINT32_MAX};
static struct former_thread nobody = {.area = &nobodys};

#define CP_FORMER(n)                                                                                          \
    extern COREPOOL_PUBLIC __thread struct former_thread *corepool_layout_self_##n, *corepool_layout_client_##n; \
    __thread struct former_thread *corepool_layout_self_##n = &nobody, *corepool_layout_client_##n = &nobody

CP_FORMER(0);
CP_FORMER(1);
CP_FORMER(2);
CP_FORMER(3);

unsigned corepool_layout_version(void)
{
    return COREPOOL_LAYOUT_VERSION;
}
