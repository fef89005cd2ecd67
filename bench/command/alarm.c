/* bench/command/alarm.c: a timerfd that the loop polls.
 *
 * libuv's own timers count whole ms, longer than most waits that are to be measured. An idle handle that turns
 * until the moment has come would be as precise, but it would take the CPU from holds, of other shards where
 * these share it and of other programs, and the CPU time of a pair would be that of turning. With a timerfd the
 * loop sleeps. The kernel wakes it without the slack that it grants itself for a sleep with a timeout; how late
 * it still is counts as a wait, as it does for a thread that sleeps. It costs two system calls, one to set it
 * and one to read that it rang, and only when nothing is due. */
#include "alarm.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fail.h"

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct alarm *alarm = poll->data;
    uint64_t rings;
    (void)events;
    REQUIRE(status == 0, "cannot wait for a timer: %s", uv_strerror(status));
    if (read(alarm->fd, &rings, sizeof rings) < 0)
        return; /* it was set anew in the same turn of the loop */
    alarm->at_ns = 0;
    alarm->ring(alarm->arg);
}

void alarm_open(struct alarm *alarm, uv_loop_t *loop, alarm_cb ring, void *arg)
{
    *alarm = (struct alarm){.ring = ring, .arg = arg};
    alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    REQUIRE(alarm->fd >= 0, "cannot open a timer: %s", strerror(errno));
    REQUIRE(uv_poll_init(loop, &alarm->poll, alarm->fd) == 0, "cannot poll a timer");
    alarm->poll.data = alarm;
    REQUIRE(uv_poll_start(&alarm->poll, UV_READABLE, on_ready) == 0, "cannot poll a timer");
}

void alarm_set(struct alarm *alarm, int64_t at_ns)
{
    const struct itimerspec time = {
        .it_value = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000},
    };
    if (at_ns == alarm->at_ns)
        return;
    REQUIRE(timerfd_settime(alarm->fd, TFD_TIMER_ABSTIME, &time, NULL) == 0, "cannot set a timer: %s",
            strerror(errno));
    alarm->at_ns = at_ns;
}

void alarm_close(struct alarm *alarm, uv_close_cb closed)
{
    alarm->poll.data = alarm->arg;
    uv_close((uv_handle_t *)&alarm->poll, closed);
    close(alarm->fd); /* no longer polled */
}
