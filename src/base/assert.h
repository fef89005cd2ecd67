/* base/assert.h: checks of what the library itself promises; gone in release builds (NDEBUG). Bad input of a
 * caller is never asserted, it is an error code. */
#ifndef CP_BASE_ASSERT_H
#define CP_BASE_ASSERT_H

#include <assert.h>

#define cp_assert(condition) assert(condition)
#define cp_likely(condition) __builtin_expect(!!(condition), 1)
#define cp_unlikely(condition) __builtin_expect(!!(condition), 0)

/* For thread-local variables of the usual path: one instruction to read, also in the shared library. */
#define cp_initial_exec __attribute__((tls_model("initial-exec")))

/* A function of the usual path begins with a line, so that it lies in as few as it can, and beside the others of that path. */
#define cp_hot __attribute__((hot, aligned(64)))

/* Between conditions that are to stay branches of their own: of two that a register decides compilers like to make one
 * number first, which costs more than a branch that is never taken. */
#define cp_apart() __asm__ volatile("")

#define CP_CACHE_LINE 64
#define cp_line_aligned __attribute__((aligned(CP_CACHE_LINE)))

#endif
