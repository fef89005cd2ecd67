/* tools/table.h: what the demo shows: a live table per shard, and two runs side by side. One thread. */
#ifndef TOOLS_TABLE_H
#define TOOLS_TABLE_H

#include <stdio.h>

#include "load.h"

/* On a terminal each drawing replaces the one before; elsewhere they follow each other, without control codes.
 */
typedef struct table {
    FILE *out;
    bool terminal;
    unsigned drawn; /* lines on the terminal that the next drawing replaces */
    unsigned shards;
    uint64_t *checkouts; /* per shard, at the last drawing */
    double seconds;      /* of the run, at the last drawing */
    uint64_t requests;   /* answered, at the last drawing */
} table_t;

void table_init(table_t *table, FILE *out, const corepool_topology_t *topology);
void table_finish(table_t *table);

/* Draws a title (`name`, `seconds` into the run) and a row per shard: its rate since the last drawing, the rest since its pool
 * was opened. */
void table_draw(table_t *table, const char *name, const load_t *load, const corepool_topology_t *topology,
                corepool_pool_t pool, double seconds);

/* One run, for comparison. */
typedef struct column {
    const char *title;
    bool fetched; /* the fields below hold */
    load_result_t fetches;
    double cpu_us; /* per request, the origin's threads not counted */
    corepool_stats_t stats;
    bool paired;
    load_result_t pairs;
} column_t;

/* Prints both side by side with the ratio of the first to the second. */
void table_compare(FILE *out, const column_t *first, const column_t *second);

/* "1,234,567" in `text`. */
#define TABLE_COUNT_BYTES 28
const char *table_count(char text[TABLE_COUNT_BYTES], double number);

#endif
