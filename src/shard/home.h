/* shard/home.h: a shard and its CPU. Thread: the shard's. */
#ifndef CP_SHARD_HOME_H
#define CP_SHARD_HOME_H

struct corepool_shard;

void cp_home_open(struct corepool_shard *shard);
void cp_home_close(struct corepool_shard *shard);

/* Looks where the thread runs, if it is to run on certain CPUs: cp_home_lost, or nothing. Costs no system call. */
void cp_home_look(struct corepool_shard *shard);

/* The thread was found off its CPU: from now on it tries to come back. */
void cp_home_lost(struct corepool_shard *shard);

#endif
