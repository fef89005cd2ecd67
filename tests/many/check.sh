#!/bin/sh
# Ten thousand idle pools make no system call: check.sh IDLE-PROGRAM POOLS SECONDS
set -eu
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT

strace -f -o "$trace" "$1" "$2" "$3"

# Between the program's two words only its own sleep is allowed: one line when nothing comes between, else two.
calls=$(awk '/write\(1, "idle to here/ { on = 0 } on { print } /write\(1, "idle from here/ { on = 1 }' "$trace" |
    grep -v clock_nanosleep || true)
if [ -n "$calls" ]; then
    echo "$2 idle pools made these in $3 s:"
    echo "$calls" | head -20
    exit 1
fi
grep -q 'write(1, "idle from here' "$trace" && grep -q 'write(1, "idle to here' "$trace"
echo "$2 idle pools, $3 s: no system call"
