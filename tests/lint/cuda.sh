#!/bin/sh
# Above each CUDA kernel stands how long its bytes or operations take (ms, us), or that the launch takes longer.
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
exit $bad
