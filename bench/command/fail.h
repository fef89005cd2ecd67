/* bench/command/fail.h: a benchmark that cannot measure, or whose counts disagree, must not print a figure: it
 * ends the program instead. Thread: any. */
#ifndef BENCH_FAIL_H
#define BENCH_FAIL_H

/* What is measured at this moment, for the message; NULL: nothing. Thread: the command's, while it runs no
 * other. The text must live until the next call. */
void fail_context(const char *what);

/* "corepool bench: WHAT: the words" on stderr, exit code 1; nothing else is written any more. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define REQUIRE(condition, ...)                                                                                \
    do {                                                                                                       \
        if (!(condition))                                                                                      \
            fail(__VA_ARGS__);                                                                                 \
    } while (0)

/* For library calls: the detail of the last failure. */
#define REQUIRE_OK(call)                                                                                       \
    do {                                                                                                       \
        int required_ = (call);                                                                                \
        REQUIRE(required_ == COREPOOL_OK, "%s: %s", #call,                                                     \
                *corepool_error_detail() ? corepool_error_detail() : corepool_error_text(required_));          \
    } while (0)

#endif
