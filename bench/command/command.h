/* bench/command/command.h: `corepool bench`. */
#ifndef BENCH_COMMAND_H
#define BENCH_COMMAND_H

/* argv[0] is "corepool bench", for messages. Returns the exit code, as tools/command.h has them: 0; ends the
 * program itself with 1 for a failure, 2 for bad input. */
int bench_command(int argc, char **argv);

#endif
