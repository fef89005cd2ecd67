/* base/siphash.c: SipHash-2-4 as its paper defines it: two rounds for each word of eight bytes, four at the
 * end. */
#include "base/siphash.h"

#include <endian.h>
#include <string.h>

struct state {
    uint64_t a, b, c, d;
};

static inline uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void mix(struct state *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = rotate(s->b, 13) ^ s->a;
    s->d = rotate(s->d, 16) ^ s->c;
    s->a = rotate(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = rotate(s->b, 17) ^ s->c;
    s->d = rotate(s->d, 21) ^ s->a;
    s->c = rotate(s->c, 32);
}

static inline void take_word(struct state *s, uint64_t word)
{
    s->d ^= word;
    mix(s);
    mix(s);
    s->a ^= word;
}

/* Little-endian, the missing bytes zero. */
static inline uint64_t load(const unsigned char *from, size_t bytes)
{
    uint64_t word = 0;
    memcpy(&word, from, bytes);
    return le64toh(word);
}

uint64_t cp_siphash(const uint64_t seed[2], const void *data, size_t bytes)
{
    const unsigned char *at = data;
    /* The paper's constants: "somepseudorandomlygeneratedbytes". */
    struct state s = {seed[0] ^ UINT64_C(0x736f6d6570736575), seed[1] ^ UINT64_C(0x646f72616e646f6d),
                      seed[0] ^ UINT64_C(0x6c7967656e657261), seed[1] ^ UINT64_C(0x7465646279746573)};
    for (size_t left = bytes / 8; left > 0; left--, at += 8)
        take_word(&s, load(at, 8));
    take_word(&s, load(at, bytes % 8) | (uint64_t)bytes << 56);
    s.c ^= 0xff;
    for (unsigned i = 0; i < 4; i++)
        mix(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}
