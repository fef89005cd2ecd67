#!/bin/sh
# The library builds for a machine without restartable sequences: generic.sh SOURCE-ROOT
# By this machine's compiler, which is told that it has none. All that the sources call is there.
set -eu
cd "$1"
library=$(mktemp)
trap 'rm -f "$library"' EXIT
flags="-std=gnu17 -D_GNU_SOURCE -DCOREPOOL_LAYOUT_VERSION=0 -Wall -Wextra -Wpedantic -Werror -fPIC -shared -Wl,-z,defs"

# shellcheck disable=SC2046,SC2086 # several words each
cc $flags -Isrc -Iinclude -Isrc/machine/generic $(pkg-config --cflags libuv hwloc) -o "$library" \
    $(find src -name '*.c' ! -path '*/machine/x86_64/*' | sort) $(pkg-config --libs libuv hwloc) -lhttp_parser -lm -pthread
nm -D "$library" | grep -q ' T corepool_checkout$'
echo "linked"
