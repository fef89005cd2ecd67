/* bench/command/alarm.h: wakes a loop at a moment, to the microsecond. Thread: the loop's. */
#ifndef BENCH_ALARM_H
#define BENCH_ALARM_H

#include <stdint.h>

#include <uv.h>

typedef void (*alarm_cb)(void *arg);

struct alarm {
    uv_poll_t poll;
    int fd;
    int64_t at_ns; /* when it will ring; 0: it is not set */
    alarm_cb ring;
    void *arg;
};

/* Not set yet. Ends the program when it cannot. */
void alarm_open(struct alarm *alarm, uv_loop_t *loop, alarm_cb ring, void *arg);

/* It rings once, from the loop, at that time of CLOCK_MONOTONIC, at once when that has passed; not at the one
 * that it was set for before. */
void alarm_set(struct alarm *alarm, int64_t at_ns);

/* It rings no more. `closed` is called from the loop, once, with a handle whose data is `arg`; until then the
 * memory is in use. */
void alarm_close(struct alarm *alarm, uv_close_cb closed);

#endif
