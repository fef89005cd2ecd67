/* front/layout.c: which published layout this library speaks, and the names of those that it does not. Thread: any. */
#include "front/usual.h"

/* Never set: who reads them finds a thread that is on no CPU, and calls the exported functions. */
#define NOBODY ((struct corepool_layout_thread *)(void *)&cp_nobody)
__thread struct corepool_layout_thread *corepool_layout_self_0 = NOBODY;
__thread struct corepool_layout_thread *corepool_layout_client_0 = NOBODY;
__thread struct corepool_layout_thread *corepool_layout_self_1 = NOBODY;
__thread struct corepool_layout_thread *corepool_layout_client_1 = NOBODY;
__thread struct corepool_layout_thread *corepool_layout_self_2 = NOBODY;
__thread struct corepool_layout_thread *corepool_layout_client_2 = NOBODY;

unsigned corepool_layout_version(void)
{
    return COREPOOL_LAYOUT_VERSION;
}
