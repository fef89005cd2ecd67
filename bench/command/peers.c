/* bench/command/peers.c: finds and loads the module. */
#include "peers.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "fail.h"

/* From the program's folder: in the build's tree, and installed. */
static const char *const places[] = {"../bench/" BENCH_PEERS_MODULE, BENCH_PEERS_INSTALLED};

static void find_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    REQUIRE(length > 0, "--peers: cannot tell where this program is");
    folder[length] = '\0';
    const char *parent = dirname(folder); /* cuts it in place */
    memmove(folder, parent, strlen(parent) + 1);
}

#define WHY_BYTES (PATH_MAX + 256)

static bool load(uv_lib_t *module, char why[WHY_BYTES])
{
    char folder[PATH_MAX], path[PATH_MAX + 64];
    find_folder(folder);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, places[i]);
        if (access(path, F_OK) != 0)
            continue;
        if (uv_dlopen(path, module) == 0)
            return true;
        (void)snprintf(why, WHY_BYTES, "%s", uv_dlerror(module));
        uv_dlclose(module);
        return false;
    }
    (void)snprintf(why, WHY_BYTES, "neither %s nor %s is beside %s: build with -Dbench=true", places[0],
                   places[1], folder);
    return false;
}

const struct peer_entry *peers_load(void)
{
    static uv_lib_t module; /* threads of the peers may outlive all else */
    char why[WHY_BYTES];
    void *entries;
    REQUIRE(load(&module, why), "--peers: %s", why);
    REQUIRE(uv_dlsym(&module, BENCH_PEERS_SYMBOL, &entries) == 0, "--peers: %s", uv_dlerror(&module));
    return entries;
}
