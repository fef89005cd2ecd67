/* tools/corepool.c: the command-line tool: picks the command. */
#include "command.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    char *title; /* argv[0] of the command, for its messages */
    int (*run)(int argc, char **argv);
} commands[] = {
    {"topology", (char[]){"corepool topology"}, topology_command},
    {"demo", (char[]){"corepool demo"}, demo_command},
    {"bench", (char[]){"corepool bench"}, bench_command},
};

int tool_complain(int err)
{
    fprintf(stderr, "corepool: %s\n",
            *corepool_error_detail() ? corepool_error_detail() : corepool_error_text(err));
    return err == COREPOOL_EINVAL ? TOOL_USAGE : TOOL_FAILED;
}

void *tool_need(void *memory)
{
    if (memory == NULL) {
        fputs("corepool: out of memory\n", stderr);
        exit(TOOL_FAILED);
    }
    return memory;
}

static error_t parse_none(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_ARG: argp_error(state, "unknown command '%s'", arg); return 0;
    case ARGP_KEY_NO_ARGS: argp_usage(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Output that did not arrive (a full disk) is a failure, even when all else went well. */
static int check_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "corepool: standard output: %s\n", strerror(errno));
    return status == TOOL_OK ? TOOL_FAILED : status;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse_none,
        .args_doc = "COMMAND [OPTION...]",
        .doc =
            "A resource pool that is sharded one manager per CPU.\n\nCommands:\n"
            "  topology   show where the shards sit on this machine, or would on another\n"
            "  demo       fetch over HTTP through a per-core pool and through a single manager, and compare\n"
            "  bench      compare policies of dispatch, and other pools, under the same load\n"
            "\v'corepool COMMAND --help' tells a command's options. Exit code: 0 success, 1 failure, 2 usage "
            "error.",
    };
    argp_program_version = "corepool " COREPOOL_VERSION;
    argp_err_exit_status = TOOL_USAGE;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            argv[1] = commands[i].title;
            return check_output(commands[i].run(argc - 1, argv + 1));
        }
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, NULL);
    return TOOL_OK;
}
