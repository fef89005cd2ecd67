/* tools/table.c: the live table and the comparison. */
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "command.h"

/* Rows where the height of the screen is not known. */
#define ROWS_DEFAULT 24u
/* Title, heads, sum, what is left out, and the line of the cursor. */
#define ROWS_OTHER 5u

const char *table_count(char text[TABLE_COUNT_BYTES], double number)
{
    char digits[TABLE_COUNT_BYTES];
    int length = snprintf(digits, sizeof digits, "%.0f", number < 0 || number > 1e15 ? 0.0 : number);
    char *at = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return text;
}

static double divide(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* ---- live ---- */

void table_init(table_t *table, FILE *out, const corepool_topology_t *topology)
{
    const char *kind = getenv("TERM");
    unsigned shards = corepool_topology_shards(topology);
    *table = (table_t){.out = out, .shards = shards};
    table->terminal = isatty(fileno(out)) && kind != NULL && strcmp(kind, "dumb") != 0;
    table->checkouts = tool_need(calloc(shards, sizeof *table->checkouts));
}

void table_finish(table_t *table)
{
    free(table->checkouts);
    table->checkouts = NULL;
}

static unsigned count_rows(const table_t *table)
{
    struct winsize size = {0};
    unsigned rows = ROWS_DEFAULT;
    if (table->terminal && ioctl(fileno(table->out), TIOCGWINSZ, &size) == 0 && size.ws_row > ROWS_OTHER)
        rows = size.ws_row;
    return rows - ROWS_OTHER < table->shards ? rows - ROWS_OTHER : table->shards;
}

static void print_stats(const table_t *table, const char *shard, const char *cpu, const corepool_stats_t *stats,
                        double rate)
{
    char text[TABLE_COUNT_BYTES];
    fprintf(table->out, "%5s %5s %6llu %6llu %7llu %12s %7.1f %9llu %9llu\n", shard, cpu,
            (unsigned long long)stats->idle, (unsigned long long)stats->leased,
            (unsigned long long)stats->waiting, table_count(text, rate),
            100 * divide((double)stats->shelf_hits, (double)stats->checkouts),
            (unsigned long long)stats->wait.p50_us, (unsigned long long)stats->wait.p99_us);
}

/* Returns the checkouts of that shard since the last drawing. */
static uint64_t draw_shard(table_t *table, unsigned shard, int cpu_number, corepool_pool_t pool,
                           double interval, bool shown)
{
    char name[16], cpu[16];
    corepool_stats_t stats;
    if (corepool_pool_stats(corepool_pool_at(pool, shard), &stats) != COREPOOL_OK)
        return 0;
    uint64_t fresh = stats.checkouts - table->checkouts[shard];
    table->checkouts[shard] = stats.checkouts;
    (void)snprintf(name, sizeof name, "%u", shard);
    (void)snprintf(cpu, sizeof cpu, "%d", cpu_number);
    if (shown)
        print_stats(table, name, cpu, &stats, divide((double)fresh, interval));
    return fresh;
}

static void draw_rows(table_t *table, const corepool_topology_t *topology, corepool_pool_t pool,
                      double interval)
{
    unsigned rows = count_rows(table);
    uint64_t fresh = 0;
    corepool_stats_t stats;
    for (unsigned i = 0; i < table->shards; i++) {
        corepool_shard_place_t place = {0};
        (void)corepool_topology_place(topology, i, &place); /* below the count: cannot fail */
        fresh += draw_shard(table, i, place.cpu, pool, interval, i < rows);
    }
    if (rows < table->shards)
        fprintf(table->out, "  ... and %u more\n", table->shards - rows);
    if (table->shards > 1 && corepool_pool_stats(pool, &stats) == COREPOOL_OK)
        print_stats(table, "all", "", &stats, divide((double)fresh, interval));
    table->drawn = 2 + rows + (rows < table->shards) + (table->shards > 1);
}

static void draw_title(table_t *table, const char *name, const load_t *load, double seconds)
{
    uint64_t done, failures;
    char rate[TABLE_COUNT_BYTES], count[TABLE_COUNT_BYTES];
    load_count(load, &done, &failures);
    fprintf(table->out, "%s: %.1f s, %s requests/s, %s failed\n", name, seconds,
            table_count(rate, divide((double)(done - table->requests), seconds - table->seconds)),
            table_count(count, (double)failures));
    fputs("shard   cpu   idle leased waiting  checkouts/s shelf % wait p50us     p99us\n", table->out);
    table->requests = done;
}

/* Wrapping is switched off meanwhile: on a narrow terminal a wrapped row would be two to go back. */
void table_draw(table_t *table, const char *name, const load_t *load, const corepool_topology_t *topology,
                corepool_pool_t pool, double seconds)
{
    if (table->terminal && table->drawn > 0)
        fprintf(table->out, "\033[%uA\033[J", table->drawn);
    if (table->terminal)
        fputs("\033[?7l", table->out);
    draw_title(table, name, load, seconds);
    draw_rows(table, topology, pool, seconds - table->seconds);
    table->seconds = seconds;
    if (table->terminal)
        fputs("\033[?7h", table->out);
    fflush(table->out);
}

/* ---- side by side ---- */

/* What a row says of one run; negative: nothing. */
typedef double (*read_t)(const column_t *);

static double requests_per_s(const column_t *run)
{
    return run->fetched ? divide((double)run->fetches.done, run->fetches.seconds) : -1;
}

static double cpu_us(const column_t *run)
{
    return run->fetched ? run->cpu_us : -1;
}

static double p50_us(const column_t *run)
{
    return run->fetched ? (double)run->fetches.p50_ns / 1e3 : -1;
}

static double p99_us(const column_t *run)
{
    return run->fetched ? (double)run->fetches.p99_ns / 1e3 : -1;
}

static double shelf_percent(const column_t *run)
{
    return run->fetched ? 100 * divide((double)run->stats.shelf_hits, (double)run->stats.checkouts) : -1;
}

static double answered(const column_t *run)
{
    return run->fetched ? (double)run->fetches.done : -1;
}

static double failed(const column_t *run)
{
    return run->fetched ? (double)run->fetches.failed : -1;
}

static double pairs_per_s(const column_t *run)
{
    return run->paired ? divide((double)run->pairs.done, run->pairs.seconds) : -1;
}

static double pairs_failed(const column_t *run)
{
    return run->paired ? (double)run->pairs.failed : -1;
}

static void print_value(FILE *out, double value, int decimals)
{
    char text[TABLE_COUNT_BYTES];
    if (value < 0)
        fprintf(out, " %16s", "-");
    else if (decimals == 0)
        fprintf(out, " %16s", table_count(text, value));
    else
        fprintf(out, " %16.*f", decimals, value);
}

static void print_row(FILE *out, const column_t *first, const column_t *second, const char *name, read_t read,
                      int decimals, bool with_ratio)
{
    double a = read(first), b = read(second);
    fprintf(out, "  %-28s", name);
    print_value(out, a, decimals);
    print_value(out, b, decimals);
    if (with_ratio && a >= 0 && b > 0)
        fprintf(out, " %9.2f", a / b);
    fputc('\n', out);
}

void table_compare(FILE *out, const column_t *first, const column_t *second)
{
    fprintf(out, "\n%-30s %16s %16s %9s\n", "", first->title, second->title, "ratio");
    fputs("fetching over HTTP\n", out);
    print_row(out, first, second, "requests/s", requests_per_s, 0, true);
    print_row(out, first, second, "CPU us per request (*)", cpu_us, 1, true);
    print_row(out, first, second, "latency p50, us", p50_us, 0, true);
    print_row(out, first, second, "latency p99, us", p99_us, 0, true);
    print_row(out, first, second, "served from the shelf, %", shelf_percent, 1, false);
    print_row(out, first, second, "requests answered", answered, 0, false);
    print_row(out, first, second, "requests failed", failed, 0, false);
    fputs("checkout and checkin only, no HTTP\n", out);
    print_row(out, first, second, "pairs/s", pairs_per_s, 0, true);
    print_row(out, first, second, "pairs failed", pairs_failed, 0, false);
    fputs("(*) of clients and managers; the embedded origin's threads are not counted\n", out);
}
