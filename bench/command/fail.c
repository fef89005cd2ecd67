/* bench/command/fail.c: ends the program. */
#include "fail.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

static const char *context;

void fail_context(const char *what)
{
    context = what;
}

/* Other threads run on: no exit handlers. */
void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    flockfile(stderr);
    fprintf(stderr, "corepool bench: %s%s", context ? context : "", context ? ": " : "");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    _exit(1);
}
