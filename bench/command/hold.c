/* bench/command/hold.c: the work is a chain of multiplications, which no other instruction overlaps. */
#include "hold.h"

#include <errno.h>
#include <time.h>

#define TRIALS 20
#define TRIAL_STEPS 200000u

static double steps_per_us;

int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void sleep_until(int64_t ns)
{
    const struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

static void work(uint64_t steps)
{
    uint64_t value = steps;
    while (steps--) {
        value *= UINT64_C(6364136223846793005);
        __asm__ volatile("" : "+r"(value));
    }
}

/* The fastest trial was disturbed least. */
void hold_calibrate(void)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < TRIALS; i++) {
        int64_t begin = clock_ns();
        work(TRIAL_STEPS);
        int64_t taken = clock_ns() - begin;
        best = taken < best ? taken : best;
    }
    steps_per_us = TRIAL_STEPS / ((double)best / 1e3);
}

void hold_perform(const struct hold *hold)
{
    if (hold->sleeps)
        sleep_until(clock_ns() + (int64_t)(hold->us * 1e3));
    else if (hold->us > 0)
        work((uint64_t)(hold->us * steps_per_us));
}
