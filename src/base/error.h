/* base/error.h: how the library reports a failure: a code upwards, and words kept for the thread. Thread: any. */
#ifndef CP_BASE_ERROR_H
#define CP_BASE_ERROR_H

#include <corepool/error.h>

/* Keeps the words for corepool_error_detail on this thread and returns `code`, so that a failing function
 * ends in `return cp_fail(COREPOOL_EINVAL, "size: 0: …")`. Cut at 255 bytes. Never fails. */
int cp_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
