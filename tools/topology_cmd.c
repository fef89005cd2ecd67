/* tools/topology_cmd.c: `corepool topology`: the map, for people or as JSON. */
#include "command.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

typedef struct {
    corepool_topology_options_t topology;
    unsigned size; /* of a pool whose slices are shown; 0: none */
    bool json;
} arguments_t;

enum {
    KEY_SYNTHETIC = 256, /* no short ones: each command's would mean something else */
    KEY_CPUS,
    KEY_EXCEPT,
    KEY_PLACE,
    KEY_SIZE,
    KEY_JSON,
};

static const struct argp_option options[] = {
    {"synthetic", KEY_SYNTHETIC, "MACHINE", 0, "Plan for another machine, such as \"pack:2 l3:4 core:8 pu:2\"",
     0},
    {"cpus", KEY_CPUS, "LIST", 0, "Shards on these CPUs only, such as \"0-3,8\"", 0},
    {"except", KEY_EXCEPT, "LIST", 0, "No shards on these CPUs", 0},
    {"place", KEY_PLACE, "WHAT", 0, "One shard per \"cpu\" (default), \"core\", last-level \"cache\" or \"numa\" node", 0},
    {"size", KEY_SIZE, "N", 0, "Show also on which shards a pool of N workers has its slices", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

static void parse_place(const char *arg, corepool_place_t *place, struct argp_state *state)
{
    for (int i = COREPOOL_PLACE_CPU; i <= COREPOOL_PLACE_NUMA; i++)
        if (strcmp(arg, map_place_name((corepool_place_t)i)) == 0) {
            *place = (corepool_place_t)i;
            return;
        }
    argp_error(state, "--place: unknown place '%s': use cpu, core, cache or numa", arg);
}

static void parse_size(const char *arg, unsigned *size, struct argp_state *state)
{
    char *end;
    unsigned long number = strtoul(arg, &end, 10);
    if (*arg < '0' || *arg > '9' || *end != '\0' || number == 0 || number > COREPOOL_SIZE_MAX)
        argp_error(state, "--size: '%s': a pool has 1 to %u workers", arg, COREPOOL_SIZE_MAX);
    *size = (unsigned)number;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    arguments_t *arguments = state->input;
    switch (key) {
    case KEY_SYNTHETIC: arguments->topology.synthetic = arg; return 0;
    case KEY_CPUS: arguments->topology.cpus = arg; return 0;
    case KEY_EXCEPT: arguments->topology.except = arg; return 0;
    case KEY_SIZE: parse_size(arg, &arguments->size, state); return 0;
    case KEY_PLACE: parse_place(arg, &arguments->topology.place, state); return 0;
    case KEY_JSON: arguments->json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- JSON ---- */

/* What the machine does not say is null. */
static json_t *number_or_null(int number)
{
    return tool_need(number < 0 ? json_null() : json_integer(number));
}

static void set_new(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, tool_need(value)) != 0)
        tool_need(NULL);
}

static void append_new(json_t *array, json_t *value)
{
    if (json_array_append_new(array, tool_need(value)) != 0)
        tool_need(NULL);
}

static json_t *describe_ranges(const unsigned *numbers, size_t count)
{
    char *text = map_ranges(numbers, count);
    json_t *value = json_string(text);
    free(text);
    return value;
}

static json_t *describe_order(const corepool_topology_t *plan, unsigned shard)
{
    unsigned count = corepool_topology_shards(plan) - 1;
    unsigned *order = tool_need(calloc(count + 1, sizeof *order));
    json_t *steps = tool_need(json_array());
    corepool_topology_neighbours(plan, shard, order);
    for (unsigned i = 0, next; i < count; i = next) {
        corepool_distance_t distance = corepool_topology_distance(plan, shard, order[i]);
        for (next = i + 1; next < count; next++)
            if (corepool_topology_distance(plan, shard, order[next]) != distance)
                break;
        json_t *step = tool_need(json_object());
        set_new(step, "shared", json_string(corepool_distance_name(distance)));
        set_new(step, "shards", describe_ranges(order + i, next - i));
        append_new(steps, step);
    }
    free(order);
    return steps;
}

static json_t *describe_shard(const corepool_topology_t *plan, unsigned shard)
{
    corepool_shard_place_t place = {0};
    json_t *object = tool_need(json_object());
    (void)corepool_topology_place(plan, shard, &place); /* below the count: cannot fail */
    unsigned *cpus = tool_need(calloc(place.members, sizeof *cpus));
    map_members(plan, shard, cpus);
    set_new(object, "shard", json_integer(shard));
    set_new(object, "cpu", json_integer(place.cpu));
    set_new(object, "cpus", describe_ranges(cpus, place.members));
    set_new(object, "core", number_or_null(place.core));
    set_new(object, "l2", number_or_null(place.l2));
    set_new(object, "l3", number_or_null(place.l3));
    set_new(object, "numa_node", number_or_null(place.numa_node));
    set_new(object, "package", number_or_null(place.package));
    set_new(object, "steal_order", describe_order(plan, shard));
    free(cpus);
    return object;
}

static json_t *describe_slices(const corepool_topology_t *plan, unsigned size)
{
    unsigned count;
    map_slice_t *slices = map_slices(plan, size, &count);
    json_t *array = tool_need(json_array());
    unsigned *shards = tool_need(calloc(corepool_topology_shards(plan), sizeof *shards));
    for (unsigned i = 0; i < corepool_topology_shards(plan); i++)
        shards[i] = i;
    for (unsigned i = 0; i < count; i++) {
        json_t *object = tool_need(json_object());
        set_new(object, "shard", json_integer(slices[i].shard));
        set_new(object, "workers", json_integer(slices[i].workers));
        set_new(object, "serves", describe_ranges(shards + slices[i].shard, slices[i].serves));
        append_new(array, object);
    }
    free(shards);
    free(slices);
    return array;
}

static json_t *describe_topology(const corepool_topology_t *plan, const arguments_t *arguments)
{
    const char *reason = NULL;
    json_t *object = tool_need(json_object());
    json_t *shards = tool_need(json_array()), *shard_of = tool_need(json_array());
    corepool_shelf_kind_t shelf = map_shelf(plan, &reason);
    unsigned quota = corepool_topology_cpu_quota(plan);
    for (unsigned i = 0; i < corepool_topology_shards(plan); i++)
        append_new(shards, describe_shard(plan, i));
    for (unsigned cpu = 0; cpu < corepool_topology_possible_cpus(plan); cpu++)
        append_new(shard_of, json_integer(corepool_topology_shard_of(plan, cpu)));
    set_new(object, "synthetic", json_boolean(!corepool_topology_is_real(plan)));
    set_new(object, "place", json_string(map_place_name(arguments->topology.place)));
    set_new(object, "cpu_quota_thousandths", quota > 0 ? json_integer(quota) : json_null());
    set_new(object, "shelf", json_string(map_shelf_name(shelf)));
    set_new(object, "shelf_reason", json_string(reason == NULL ? "" : reason));
    set_new(object, "possible_cpus", json_integer(corepool_topology_possible_cpus(plan)));
    set_new(object, "shards", shards);
    set_new(object, "shard_of_cpu", shard_of);
    if (arguments->size > 0) {
        set_new(object, "pool_size", json_integer(arguments->size));
        set_new(object, "slices", describe_slices(plan, arguments->size));
    }
    return object;
}

static int print_json(const corepool_topology_t *plan, const arguments_t *arguments)
{
    json_t *object = describe_topology(plan, arguments);
    int err = json_dumpf(object, stdout, JSON_INDENT(2));
    json_decref(object);
    putchar('\n');
    return err == 0 ? TOOL_OK : TOOL_FAILED;
}

/* ---- the command ---- */

int topology_command(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc =
            "Shows packages, NUMA nodes, caches, cores and CPUs, how much CPU time control groups allow, which shard "
            "sits where, how many slices pools of which size have, and in which order a starving shard asks the others.",
    };
    arguments_t arguments = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    corepool_topology_t *cpus = NULL, *plan = NULL;
    int err = corepool_topology_open(&arguments.topology, &plan);
    arguments_t single = arguments;
    single.topology.place = COREPOOL_PLACE_CPU;
    single.topology.except = NULL;
    if (err == COREPOOL_OK)
        err = corepool_topology_open(&single.topology, &cpus);
    int status = TOOL_OK;
    if (err != COREPOOL_OK)
        status = tool_complain(err);
    else if (arguments.json)
        status = print_json(plan, &arguments);
    else
        map_print(stdout, cpus, plan, arguments.size);
    corepool_topology_close(cpus);
    corepool_topology_close(plan);
    return status;
}
