#!/bin/sh
# ptx.sh NVCC FLAGS... : what ptxas says that each kernel of kernels/cuda takes of the GPU, a line each: registers, spilled
# bytes, stack, static shared memory. Those that spill come first; more than SPILL_MOST bytes (64) of one are status 1, and so
# are products of warpgroups (of 9.0a) that wait for one another.
set -eu
out=$(for f in kernels/cuda/*.cu; do (
    case $f in *_wgmma.cu)
        for a; do
            shift
            set -- "$@" "$(printf %s "$a" | sed 's/_90\([,]\|$\)/_90a\1/g')"
        done
        set -- "$@" -DSW_WGMMA_BUILT
    esac
    "$@" -Xptxas -v -c "$f" -o /dev/null 2>&1
) done | c++filt -_ | awk -F"'" -v most="${SPILL_MOST:-64}" '
    /Compiling entry function/ { name = $2; arch = $4 }
    /spill stores/ {
        split($0, w, " ")
        stack = w[1]; spilled = w[5]
    }
    /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
        shared = 0
        if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH - 11)
        printf "%d\t%s\t%3d registers\t%5d spilled\t%5d stack\t%6d shared\t%s\n", (spilled > 0 ? 0 : 1), arch, registers, spilled, stack, shared, name
        kernels++; spilling += (spilled > 0); over += (spilled + 0 > most + 0)
    }
    /C7515/ { over++ }
    /error|warning|C7515/ { print "2\t" $0 }
    END { printf "3\t%d kernels, %d spill, %d too much\n", kernels, spilling, over }' | sort -s -k1,1n | cut -f2- | c++filt | sed -e 's/(anonymous namespace):://g' -e 's/	void /	/')
printf '%s\n' "$out"
case $out in *', 0 too much') ;; *) exit 1;; esac
