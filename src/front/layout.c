/* front/layout.c: which published layout this library speaks, and the names of those that it does not. Thread: any. */
#include "front/usual.h"

/* Never set: who reads them finds no thread, and calls the exported functions. */
__thread struct corepool_layout_thread *corepool_layout_self_0;
__thread struct corepool_layout_thread *corepool_layout_client_0;
__thread struct corepool_layout_thread *corepool_layout_self_1;
__thread struct corepool_layout_thread *corepool_layout_client_1;
__thread struct corepool_layout_thread *corepool_layout_self_2;
__thread struct corepool_layout_thread *corepool_layout_client_2;

unsigned corepool_layout_version(void)
{
    return COREPOOL_LAYOUT_VERSION;
}
