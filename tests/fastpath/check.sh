#!/bin/sh
# The usual checkout and checkin make no system call, no allocation, and execute no locked instruction:
# check.sh LIBRARY PAIRS-PROGRAM. A check of optimised code; where the machine has no rseq it is skipped (77).
set -eu
library=$1
pairs=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The code of both functions: straight, with jumps to other functions for whatever is unusual. On x86-64 a locked
# instruction is one with a lock prefix, or an exchange with memory.
for name in corepool_checkout corepool_checkin; do
    objdump --disassemble="$name" --no-show-raw-insn "$library" | sed -n '/^[0-9a-f]* <'"$name"'>:/,$p' >"$folder/$name"
    lines=$(grep -c . "$folder/$name")
    [ "$lines" -gt 30 ] || { echo "$name: only $lines lines of code found"; exit 1; }
    if grep -Ew 'lock|syscall|call|callq|mfence' "$folder/$name" || grep -E 'xchg .*\(' "$folder/$name"; then
        echo "$name: the instruction above is on it"
        exit 1
    fi
    echo "$name: $lines lines, no lock prefix, no exchange with memory, no fence, no call, no system call"
done

"$pairs" 1000000

# A thousand times the pairs, the same system calls; a few may differ by the scheduling of start and stop.
calls() {
    strace -f -c -o "$folder/strace" "$pairs" "$1" >/dev/null
    awk '$NF == "total" { print $3 == "" ? $(NF - 1) : ($4 ~ /^[0-9]+$/ ? $4 : $3) }' "$folder/strace"
}
few=$(calls 1000)
many=$(calls 1000000)
echo "system calls of the whole program: $few with 1,000 pairs, $many with 1,000,000"
[ "$many" -lt $((few + 200)) ]
