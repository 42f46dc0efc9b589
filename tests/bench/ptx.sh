#!/bin/sh
# ptx.sh LIBRARY CUOBJDUMP: what the kernels in a shared object take of the GPU, a line each, for every architecture:
# registers, stack (where spills lie), shared memory. Those that use the stack come first.
set -eu
"$2" --dump-resource-usage "$1" 2>/dev/null | c++filt | awk '
    /arch =/ { arch = $3 }
    / Function / { name = $0; sub(/^ *Function */, "", name); sub(/:$/, "", name); gsub(/\(anonymous namespace\)::/, "", name); sub(/\(.*/, "", name); sub(/^void /, "", name) }
    /REG:/ {
        match($0, /REG:[0-9]+/); reg = substr($0, RSTART + 4, RLENGTH - 4)
        match($0, /STACK:[0-9]+/); stack = substr($0, RSTART + 6, RLENGTH - 6)
        match($0, /SHARED:[0-9]+/); shared = substr($0, RSTART + 7, RLENGTH - 7)
        printf "%d\t%s\t%s registers\t%s bytes of stack\t%s shared\t%s\n", stack > 0 ? 0 : 1, arch, reg, stack, shared, name
        kernels++; spilling += stack > 0
    }
    END { printf "9\t%d kernels, %d with a stack\n", kernels, spilling }' | sort -s -k1,1n -k6 | cut -f2-
