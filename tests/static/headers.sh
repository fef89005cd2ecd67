#!/bin/sh
# Each public header compiles alone, as C and as C++: headers.sh INCLUDE-DIRECTORY
# GNU dialects, because uv.h needs them.
set -eu
include=$1
flags="-fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Werror -I$include"
failed=0
checked=0

try() {
    # shellcheck disable=SC2086 # several flags
    if ! printf '#include <%s>\nextern int not_empty;\n' "$header" | "$@" $flags -; then
        echo "FAILED: $header: $*"
        failed=1
    fi
    checked=$((checked + 1))
}

cd "$include"
for header in corepool.h corepool/*.h; do
    try gcc -x c -std=gnu11
    try clang -x c -std=gnu17
    try g++ -x c++ -std=gnu++11
    try clang++ -x c++ -std=gnu++17
done
[ "$checked" -ge 12 ] || failed=1
echo "$checked compilations"
exit $failed
