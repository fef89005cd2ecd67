/* workers/bytes.h: a growing buffer that keeps its room for the next use. Thread: its owner's. */
#ifndef CP_WORKERS_BYTES_H
#define CP_WORKERS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Zero is an empty one. */
struct cp_bytes {
    char *at;
    size_t used, room;
};

/* First room: most heads fit without growing. */
#define CP_BYTES_FIRST 1024

/* Makes room for `more` bytes behind `used`. False: out of memory, nothing has changed. */
static inline bool cp_bytes_reserve(struct cp_bytes *bytes, size_t more)
{
    if (more <= bytes->room - bytes->used)
        return true;
    size_t room = bytes->room ? bytes->room : CP_BYTES_FIRST;
    while (room - bytes->used < more) {
        if (room > SIZE_MAX / 2)
            return false;
        room *= 2;
    }
    char *at = realloc(bytes->at, room);
    if (!at)
        return false;
    bytes->at = at;
    bytes->room = room;
    return true;
}

/* The caller has reserved. */
static inline void cp_bytes_put(struct cp_bytes *bytes, const void *data, size_t length)
{
    cp_assert(length <= bytes->room - bytes->used);
    if (length > 0)
        memcpy(bytes->at + bytes->used, data, length);
    bytes->used += length;
}

/* The same, of a text: the length of a literal is known to the compiler. */
static inline void cp_bytes_put_text(struct cp_bytes *bytes, const char *text)
{
    cp_bytes_put(bytes, text, strlen(text));
}

static inline bool cp_bytes_append(struct cp_bytes *bytes, const void *data, size_t length)
{
    if (!cp_bytes_reserve(bytes, length))
        return false;
    cp_bytes_put(bytes, data, length);
    return true;
}

static inline void cp_bytes_finish(struct cp_bytes *bytes)
{
    free(bytes->at);
    *bytes = (struct cp_bytes){0};
}

/* Empties it; room beyond `keep` is given back. */
static inline void cp_bytes_clear(struct cp_bytes *bytes, size_t keep)
{
    bytes->used = 0;
    if (bytes->room > keep)
        cp_bytes_finish(bytes);
}

#endif
