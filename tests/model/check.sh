#!/bin/sh
# Checks the model of the waiting protocol: it must hold as it is, and fail with each step taken out. Exit status 77:
# spin or gcc is not here.
set -eu

model=$(cd "$(dirname "$0")" && pwd)/wait.pml
broken=$(sed -n 's/^ \*   \([A-Z]\{4,\}\)  *.*/\1/p' "$model")

command -v spin >/dev/null && command -v gcc >/dev/null || {
    echo "skipped: spin or gcc is missing"
    exit 77
}
[ -n "$broken" ] || {
    echo "$model names no variants"
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# explore [VARIANT]: 0 when every state was visited and none was wrong, 1 when one was, 2 when this cannot be said.
# 512 MB and 30 s are some hundred times what it takes.
explore() {
    spin -a ${1:+"-D$1"} "$model" >spin.log 2>&1 &&
        gcc -O1 -w -DSAFETY -DMEMLIM=512 -o pan pan.c 2>gcc.log || {
        cat spin.log gcc.log
        return 2
    }
    timeout 30 ./pan -m200000 >pan.log 2>&1 || return 2
    grep -q 'max search depth too small\|out of memory' pan.log && return 2
    grep -q 'errors: 0$' pan.log && return 0
    grep -q 'errors: [1-9]' pan.log && return 1
    return 2
}

status=0
explore && result=0 || result=$?
states=$(sed -n 's/ states, stored.*//p' pan.log)
if [ "$result" -eq 0 ]; then
    echo "as it is: holds in all$states states"
else
    cat pan.log
    echo "FAILED: the model as it is: result $result"
    status=1
fi
for variant in $broken; do
    explore "$variant" && result=0 || result=$?
    if [ "$result" -eq 1 ]; then
        echo "$variant: $(sed -n 's/^pan:1: //p' pan.log | head -n 1)"
    else
        echo "FAILED: $variant is not found out: result $result"
        status=1
    fi
done
exit $status
