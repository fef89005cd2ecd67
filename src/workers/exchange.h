/* workers/exchange.h: one request and its reply over two descriptors. Thread: any that may block. */
#ifndef CP_WORKERS_EXCHANGE_H
#define CP_WORKERS_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

/* Caller keeps everything; `received` is the outcome beside the code. */
struct cp_exchange {
    int in;  /* non-blocking socket that takes the request */
    int out; /* non-blocking descriptor that brings the reply */
    const char *request;
    size_t unsent; /* of request, from its start */
    char *reply;
    size_t capacity;
    size_t received;
    char delimiter;
    int64_t deadline_ns;
};

/* Sends and receives at the same time, until the delimiter has come. COREPOOL_OK with the reply's length in
 * `received`; COREPOOL_ETIMEDOUT, COREPOOL_EPEER, COREPOOL_ELIMIT, COREPOOL_EPROTO, COREPOOL_ESYSTEM, with
 * detail. */
int cp_exchange(struct cp_exchange *x);

#endif
