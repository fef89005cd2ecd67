/* tests/example_http_test.c: the README's HTTP example, run as its reader would: against a real nginx, and against
 * nobody. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "support/nginx.h"
#include "support/peer.h"

/* The exit status of `http 127.0.0.1 PORT PATH`; what it printed. */
static int run(uint16_t port, const char *path, char *output, size_t bytes)
{
    char command[256];
    snprintf(command, sizeof command, "%s 127.0.0.1 %u %s 2>&1", HTTP, port, path);
    FILE *program = popen(command, "r");
    cr_assert_not_null(program);
    output[fread(output, 1, bytes - 1, program)] = '\0';
    int status = pclose(program);
    cr_assert(WIFEXITED(status), "%s", output);
    return WEXITSTATUS(status);
}

Test(example_http, prints_status_and_body)
{
    struct nginx nginx;
    char output[1024];
    nginx_start(&nginx);
    cr_expect_eq(run(nginx.port, "/file", output, sizeof output), 0);
    cr_expect_str_eq(output, "200\n" NGINX_FILE);
    cr_expect_eq(run(nginx.port, "/missing", output, sizeof output), 0);
    cr_expect_eq(strncmp(output, "404\n", 4), 0, "%s", output);
    nginx_end(&nginx);
}

Test(example_http, says_why_when_nobody_answers)
{
    char output[1024];
    cr_expect_eq(run(free_port(), "/", output, sizeof output), 1);
    cr_expect_not_null(strstr(output, "timed out"), "%s", output);
    cr_expect_not_null(strstr(output, "refused"), "%s", output);
}

Test(example_http, says_how_it_is_used)
{
    char output[1024];
    cr_expect_eq(run(0, "", output, sizeof output), 2);
    cr_expect_not_null(strstr(output, "usage: http HOST PORT PATH"), "%s", output);
}
