/* tests/stress/outer.c: for builds with the shared library as everyone has it: nothing of its insides. */
#include "stress.h"

const bool inner_build = false;

uint64_t inner_aborts(void)
{
    return 0;
}

void inner_stir(uint64_t random)
{
    (void)random;
}

void inner_unstick(void)
{
}
