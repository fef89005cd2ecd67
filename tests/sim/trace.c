/* tests/sim/trace.c: what happened in this world, as a hash of all of it and the words of its end. */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

/* So many are told when a law breaks. */
#define LINES 64

struct line {
    int64_t at;
    enum note note;
    int a, b, c;
};

uint64_t note_counts[NOTES];

static struct line lines[LINES];
static uint64_t written, hash;
static bool is_aloud;

/* The process that reports. Shared with children. */
static _Atomic pid_t *reporter;

static const char *const words[NOTES] = {
#define NOTE_WORDS(name, text) text,
    NOTE_TABLE(NOTE_WORDS)
#undef NOTE_WORDS
};

static const char *const names[NOTES] = {
#define NOTE_NAME(name, text) #name,
    NOTE_TABLE(NOTE_NAME)
#undef NOTE_NAME
};

const char *note_name(enum note note)
{
    return names[note];
}

static void print_line(FILE *out, const struct line *line)
{
    char text[128];
    snprintf(text, sizeof text, words[line->note], line->a, line->b, line->c);
    fprintf(out, "%10" PRId64 "  %s\n", line->at, text);
}

static void mix(uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 29;
}

void note(enum note note, int a, int b, int c)
{
    struct line *line = &lines[written++ % LINES];
    *line = (struct line){world.now, note, a, b, c};
    note_counts[note]++;
    mix((uint64_t)world.now << 8 | (uint64_t)note);
    mix((uint64_t)(uint32_t)a << 40 ^ (uint64_t)(uint32_t)b << 20 ^ (uint32_t)c);
    if (is_aloud)
        print_line(stdout, line);
}

void trace_begin(bool aloud)
{
    written = hash = 0;
    is_aloud = aloud;
}

uint64_t trace_hash(void)
{
    return hash;
}

static void print_end(void)
{
    if (!is_aloud)
        for (uint64_t i = written > LINES ? written - LINES : 0; i < written; i++)
            print_line(stderr, &lines[i % LINES]);
}

/* One report is enough: who comes later waits for its end. A report that crashes is over. */
static void claim_report(void)
{
    pid_t nobody = 0;
    if (atomic_compare_exchange_strong(reporter, &nobody, getpid()))
        return;
    if (nobody == getpid())
        _exit(1);
    for (;;)
        pause();
}

_Noreturn void broke(const char *law, const char *format, ...)
{
    va_list args;
    claim_report();
    fflush(stdout);
    print_end();
    fprintf(stderr, "BROKEN %s: ", law);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n  seed %" PRIu64 ", step %" PRIu64 "; all of it: sim --trace %" PRIu64 "\n", world.seed,
            world.steps, world.seed);
    _exit(1);
}

/* Prints from a signal handler: the process is lost in any case, and in none of its own locks unless it crashed
 * while it printed. */
static void die(int signal_number)
{
    broke("assertion", "died of signal %d: %s", signal_number, strsignal(signal_number));
}

void trace_catch_signals(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    reporter = mmap(NULL, sizeof *reporter, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reporter == MAP_FAILED) {
        perror("sim");
        exit(1);
    }
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &(struct sigaction){.sa_handler = die, .sa_flags = (int)SA_RESETHAND}, NULL);
}
