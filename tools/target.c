/* tools/target.c: reads the URL that is to be fetched. */
#include "target.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <http_parser.h>

#define DEFAULT_PORT 80

static void aim(target_t *target, uint16_t port)
{
    target->http = (corepool_http_options_t){
        .stream = {.host = target->host, .port = port},
        .host_header = target->authority,
    };
}

void target_loopback(target_t *target, uint16_t port, const char *path)
{
    *target = (target_t){.host = "127.0.0.1"};
    (void)snprintf(target->authority, sizeof target->authority, "%s:%u", target->host, (unsigned)port);
    (void)snprintf(target->path, sizeof target->path, "%s", path);
    aim(target, port);
}

static bool has(const struct http_parser_url *parts, enum http_parser_url_fields field)
{
    return (parts->field_set & (1u << field)) != 0;
}

/* The Host header: as written in the URL, the port only where it is not 80. */
static void name_host(target_t *target, uint16_t port)
{
    bool brackets = strchr(target->host, ':') != NULL;
    int length = snprintf(target->authority, sizeof target->authority, brackets ? "[%s]" : "%s", target->host);
    if (port != DEFAULT_PORT && length > 0 && (size_t)length < sizeof target->authority)
        (void)snprintf(target->authority + length, sizeof target->authority - (size_t)length, ":%u",
                       (unsigned)port);
}

const char *target_parse(target_t *target, const char *url)
{
    struct http_parser_url parts;
    *target = (target_t){.path = "/"};
    http_parser_url_init(&parts);
    if (http_parser_parse_url(url, strlen(url), 0, &parts) != 0 || !has(&parts, UF_SCHEMA) ||
        !has(&parts, UF_HOST))
        return "not a URL such as http://host:port/path";
    if (parts.field_data[UF_SCHEMA].len != 4 || strncmp(url, "http", 4) != 0)
        return "only http:// is spoken";
    if (has(&parts, UF_USERINFO))
        return "a user name in it is not supported";
    if (parts.field_data[UF_HOST].len > TARGET_HOST_MAX)
        return "the host name is too long";
    if (has(&parts, UF_PORT) && parts.port == 0)
        return "port 0 cannot be connected to";
    memcpy(target->host, url + parts.field_data[UF_HOST].off, parts.field_data[UF_HOST].len);
    if (has(&parts, UF_PATH)) {
        const char *path = url + parts.field_data[UF_PATH].off;
        size_t length = strcspn(path, "#");
        if (length >= sizeof target->path)
            return "the path is too long";
        memcpy(target->path, path, length);
        target->path[length] = '\0';
    } else if (has(&parts, UF_QUERY)) {
        return "a query needs a path before it";
    }
    uint16_t port = has(&parts, UF_PORT) ? parts.port : DEFAULT_PORT;
    name_host(target, port);
    aim(target, port);
    return NULL;
}
