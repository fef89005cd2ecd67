#!/bin/sh
# A program outside the tree, made with pkg-config from an installed corepool: outside.sh BUILD-DIRECTORY PROGRAM.c
set -eu
build=$1
program=$2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

meson install -C "$build" --no-rebuild --destdir "$stage/root" >"$stage/log" 2>&1 || {
    cat "$stage/log"
    exit 1
}
pc=$(find "$stage/root" -name corepool.pc)
[ -n "$pc" ] || {
    echo "no corepool.pc was installed"
    exit 1
}
prefix=$stage/root$(sed -n 's/^prefix=//p' "$pc")
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
cp "$program" "$stage/program.c"
cd "$stage"
cc -Wall -Wextra -o program program.c $(pkg-config --define-variable=prefix="$prefix" --cflags --libs corepool)
LD_LIBRARY_PATH=$(pkg-config --define-variable=prefix="$prefix" --variable=libdir corepool) ./program
echo "built and run outside the tree"
