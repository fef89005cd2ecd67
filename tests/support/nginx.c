/* tests/support/nginx.c: a real nginx on a loopback port, in a directory of its own.
 *
 * The test itself opens the listening socket and nginx inherits it, as in nginx's upgrade on the fly: there is
 * no port to lose to somebody else and no moment at which a connect would be refused. (nginx crashes when it
 * inherits without a master process, so there are two processes: a group, killed and reaped as one.) The kernel
 * ends it if the test dies. */
#include "support/nginx.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char configuration[] =
    "daemon off; worker_processes 1; user root root; pid nginx.pid; error_log error.log;\n"
    "events { worker_connections 256; }\n"
    "http {\n"
    "  access_log off; root .; default_type text/plain;\n"
    "  client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;\n"
    "  uwsgi_temp_path temp; scgi_temp_path temp;\n"
    "  keepalive_timeout 60s; keepalive_requests 1000000;\n"
    "  client_max_body_size 64m;\n"
    "  server {\n"
    "    listen 127.0.0.1:%u;\n"
    "    location /chunked { ssi on; ssi_types text/plain; }\n"
    "    location /none { return 204; }\n"
    "    location /echo { return 200 \"$request_method $content_length $http_x_test\"; }\n"
    "    location /last { keepalive_timeout 0; return 200 last; }\n"
    "    location /three { keepalive_requests 3; return 200 three; }\n"
    "    location /hasty { keepalive_timeout 50ms; return 200 hasty; }\n"
    "  }\n"
    "}\n";

static FILE *create(const struct nginx *nginx, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", nginx->directory, name);
    FILE *file = fopen(path, "we");
    cr_assert(file, "cannot create %s", path);
    return file;
}

static void write_files(const struct nginx *nginx)
{
    FILE *file = create(nginx, "nginx.conf");
    fprintf(file, configuration, nginx->port);
    fclose(file);
    file = create(nginx, "file");
    fputs(NGINX_FILE, file);
    fclose(file);
    file = create(nginx, "chunked");
    fputs(NGINX_FILE, file);
    fclose(file);
    file = create(nginx, "big");
    for (unsigned i = 0; i < NGINX_BIG_BYTES; i++)
        fputc('a' + (int)(i % 26), file);
    fclose(file);
}

/* On nginx->port, or on a free one when that is zero. */
static int open_listener(struct nginx *nginx)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(nginx->port)};
    socklen_t length = sizeof address;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(listen(fd, 256), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    nginx->port = ntohs(address.sin_port);
    return fd;
}

static void run(const struct nginx *nginx, int listener)
{
    char inherited[16], prefix[80];
    int fd = dup(listener); /* without close-on-exec */
    snprintf(inherited, sizeof inherited, "%d;", fd);
    snprintf(prefix, sizeof prefix, "%s/", nginx->directory);
    setenv("NGINX", inherited, 1);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execlp("nginx", "nginx", "-p", prefix, "-e", "error.log", "-c", "nginx.conf", (char *)NULL);
    _exit(127);
}

static void spawn(struct nginx *nginx, int listener)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* its worker becomes ours when the master is killed */
    nginx->pid = fork();
    cr_assert(nginx->pid >= 0);
    if (nginx->pid == 0)
        run(nginx, listener);
    setpgid(nginx->pid, nginx->pid); /* whoever is first */
    close(listener);
}

void nginx_start(struct nginx *nginx)
{
    *nginx = (struct nginx){.directory = "/tmp/corepool-nginx-XXXXXX"};
    cr_assert(mkdtemp(nginx->directory));
    int listener = open_listener(nginx);
    write_files(nginx);
    spawn(nginx, listener);
}

void nginx_kill(struct nginx *nginx)
{
    if (nginx->pid > 0) {
        kill(-nginx->pid, SIGKILL);
        while (waitpid(-nginx->pid, NULL, 0) > 0)
            ;
    }
    nginx->pid = 0;
}

void nginx_restart(struct nginx *nginx)
{
    nginx_kill(nginx);
    spawn(nginx, open_listener(nginx));
}

void nginx_end(struct nginx *nginx)
{
    static const char *const names[] = {"nginx.conf", "file", "chunked", "big", "error.log", "nginx.pid"};
    char path[128];
    nginx_kill(nginx);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", nginx->directory, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/temp", nginx->directory);
    rmdir(path);
    rmdir(nginx->directory);
}
