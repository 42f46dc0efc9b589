#!/bin/sh
# Above each CUDA kernel stands how long its bytes or operations take (ms, us), or that the launch takes longer. Programs that are made
# with VARIANT=emulator have the emulated device in them.
set -u
bad=0
for f in $(git ls-files -co --exclude-standard 'kernels/cuda/*.cu*'); do
    awk -v file="$f" '
        /^\/\*/ { text = ""; inside = 1 }
        inside { text = text $0 }
        inside && /\*\// { inside = 0; ends = NR; next }
        inside { next }
        /^template/ && !/__global__/ { if (ends == NR - 1) ends = NR }
        /^[^ #].*__global__/ || /^__global__/ {
            if (ends != NR - 1 || text !~ /[0-9] (ms|us)|launch/) { printf "%s:%d: a kernel without its bytes, operations and time\n", file, NR; bad = 1 }
        }
        END { exit bad }' "$f" || bad=1
done
${MAKE:-make} -nB VARIANT=emulator CUDA_ARCHS= build/emulator/bin/swift-quant 2> /dev/null | grep -q -- '-o build/emulator/bin/swift-quant .*cuda_device\.emulated\.o' ||
    { echo "Makefile: VARIANT=emulator leaves the emulator out of the programs"; bad=1; }
exit $bad
