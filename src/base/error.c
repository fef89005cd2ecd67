/* base/error.c: code table and the thread's detail text.
 *
 * The text is thread-local and of fixed size, so that reporting a failure cannot itself fail. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

/* Room for a path or an address and a sentence around it. */
#define DETAIL_BYTES 256

static _Thread_local char detail[DETAIL_BYTES];

int cp_fail(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    return code;
}

const char *corepool_error_detail(void)
{
    return detail;
}

const char *corepool_error_text(int code)
{
    switch (code) {
    case COREPOOL_OK: return "success";
    case COREPOOL_PENDING: return "pending";
    case COREPOOL_REMOVE: return "remove";
    case COREPOOL_SKIP: return "skip";
    case COREPOOL_IGNORE: return "ignore";
    case COREPOOL_STOP: return "stop";
#define ERROR_TEXT(name, value, text) \
    case value: return text;
        COREPOOL_ERROR_TABLE(ERROR_TEXT)
#undef ERROR_TEXT
    default: return "unknown code";
    }
}

const char *corepool_error_name(int code)
{
    switch (code) {
    case COREPOOL_OK: return "OK";
    case COREPOOL_PENDING: return "PENDING";
    case COREPOOL_REMOVE: return "REMOVE";
    case COREPOOL_SKIP: return "SKIP";
    case COREPOOL_IGNORE: return "IGNORE";
    case COREPOOL_STOP: return "STOP";
#define ERROR_NAME(name, value, text) \
    case value: return #name;
        COREPOOL_ERROR_TABLE(ERROR_NAME)
#undef ERROR_NAME
    default: return "unknown";
    }
}
