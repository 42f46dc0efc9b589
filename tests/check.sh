#!/bin/sh
# Runs the tests named (all without a name), prints what failed, and ends with "N passed, N failed".
set -u
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}" # as the programs have it (common/base/threads.c): tests run side by side
# gcc's stacks for finding uses after a return are not aligned as vectors of 64 bytes need it
export ASAN_OPTIONS="detect_stack_use_after_return=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
cd "$(dirname "$0")/.."
MAKE=${MAKE:-make}
jobs=$(nproc 2>/dev/null || echo 2)
passed=0 failed=0
log=build/check; mkdir -p $log

# count FILE: adds the "N passed, N failed" lines of a runner's output
count() {
    set -- $(awk '/^[0-9]+ passed, [0-9]+ failed/ {p += $1; f += $3} END {print p + 0, f + 0}' "$1")
    passed=$((passed + $1)) failed=$((failed + $2))
}
# ended FILE STATUS NAME: the same, and says what failed; a runner that ended before it counted is a failure
ended() {
    count "$1"
    grep '^FAIL' "$1" | cut -c1-400
    if [ "$2" -gt 1 ] || ! grep -q '^[0-9]* passed, [0-9]* failed' "$1"; then failed=$((failed + 1)); echo "FAILED $3"; tail -n 30 "$1"; fi
}
single() { # single NAME STATUS: a single test that is its exit status
    if [ "$2" = 0 ]; then passed=$((passed + 1)); else
        failed=$((failed + 1)); echo "FAILED $1"; tail -n 40 "$log/$1.log" | sed 's/^/    /'; fi
}
one() { # one NAME COMMAND...: such a one, run here
    name=$1; shift
    "$@" > "$log/$name.log" 2>&1
    single "$name" $?
}
# together FILE: runs its lines, "NAME COMMAND", as many at a time as there are cores; golden-* are runners that count
together() {
    xargs -d '\n' -n 1 -P "$jobs" \
        sh -c 'name=${1%% *}; eval "${1#* }" > "$0/$name.log" 2>&1; echo $? > "$0/$name.status"' "$log" < "$1"
    while read -r name command; do
        if ! { read -r status < "$log/$name.status"; } 2>/dev/null; then
            failed=$((failed + 1)); echo "FAILED $name did not end"
            continue
        fi
        rm -f "$log/$name.status"
        case $name in golden-*) ended "$log/$name.log" "$status" "$name";; *) single "$name" "$status";; esac
    done < "$1"
}
build() { # build VARIANT TARGET...
    v=$1; shift
    one "build-${v:-default}" $MAKE -s -j"$jobs" VARIANT="$v" "$@"
}

unit() {
    for v in "" asan; do
        build "$v" tests
        in=build/${v:+$v/}tests
        for t in "$in"/test_kernels "$in"/test_s* "$in"/test_*; do # the longest first
            case $t in *.d) continue;; esac
            [ -x "$t" ] && echo "$(basename "$t")${v:+-$v} CMOCKA_MESSAGE_OUTPUT=stdout $t"
        done | awk '!seen[$0]++' > "$log/unit.jobs"
        together "$log/unit.jobs"
    done
}
golden() {
    build "" tests
    build asan tests
    for v in "" asan; do
        for kind in tests/golden/*/; do
            kind=$(basename "$kind")
            for device in cpu reference; do
                case $kind in tokenizer|jinja|chat_template|template|loss_mask|quant) [ $device = cpu ] || continue;; esac
                [ "$v" = asan ] && [ $device = cpu ] && case $kind in llm|tuner|optimizer|loss) continue;; esac
                echo "golden-$kind-$device${v:+-$v} build/${v:+$v/}tests/golden $kind --device $device tests/golden/$kind"
            done
        done
    done > "$log/golden.jobs"
    together "$log/golden.jobs"
}
# The lines of a device: its kernels, and goldens but those of text and blocks, which have no device in them.
on() { # on NAME DEVICE TESTS [SETTINGS]
    echo "kernels-$1 SWIFT_TEST_DEVICES=$2 CMOCKA_MESSAGE_OUTPUT=stdout ${4-} $3/test_kernels"
    for kind in tests/golden/*/; do
        kind=$(basename "$kind")
        case $kind in tokenizer|jinja|chat_template|template|loss_mask|quant) continue;; esac
        echo "golden-$kind-$1 ${4-} $3/golden $kind --device $2 tests/golden/$kind"
    done
}
# The CUDA kernels without a GPU.
emulated() { # emulated VARIANT SEED [LATE]
    on "emulator${1:+-$1}-seed$2" emulator "build/${1:+$1/}tests" "SWIFT_EMULATOR_SEED=$2${3:+ SWIFT_EMULATOR_LATE=$3}"
}
emulator() {
    build "" build/tests/golden build/tests/test_kernels
    emulated "" 1 > "$log/emulator.jobs"
    together "$log/emulator.jobs"
}
emulator_all() { # kernels, or the copies beside them, as late as events allow
    for v in "" asan; do build "$v" "build/${v:+$v/}tests/golden" "build/${v:+$v/}tests/test_kernels"; done
    { emulated asan 4; emulated "" 1; emulated "" 2 0; emulated "" 3 1; } > "$log/emulator.jobs"
    together "$log/emulator.jobs"
}
gpu() { # where there is one; and what compute-sanitizer says of the kernels
    build "" all build/tests/golden build/tests/test_kernels
    { on cuda cuda build/tests
      for tool in memcheck racecheck; do
          echo "kernels-$tool SWIFT_TEST_DEVICES=cuda SWIFT_TEST_FILTER='cuda*' CMOCKA_MESSAGE_OUTPUT=stdout" \
              "compute-sanitizer --error-exitcode 3 --tool $tool build/tests/test_kernels"
      done; } > "$log/gpu.jobs"
    together "$log/gpu.jobs"
}
cli() {
    build "" all build/tests/swift-train-emulated
    for f in tests/cli/*.bats; do
        [ -f "$f" ] || continue
        out=$log/$(basename "$f").log
        PATH="$PWD/build/bin:$PATH" bats --tap "$f" > "$out" 2>&1
        p=$(grep -c '^ok ' "$out"); f=$(grep -c '^not ok ' "$out")
        passed=$((passed + p)) failed=$((failed + f))
        if [ "$f" -gt 0 ]; then grep -A 12 '^not ok ' "$out"; fi
        if [ $((p + f)) = 0 ]; then failed=$((failed + 1)); echo "FAILED $f ran nothing"; tail -n 20 "$out"; fi
    done
}
fuzz() {
    build fuzz fuzzers
    for t in build/fuzz/tests/fuzz_*; do
        case $t in *.d) continue;; esac
        [ -x "$t" ] || continue
        name=$(basename "$t"); corpus=tests/fuzz/corpus/${name#fuzz_}
        mkdir -p "build/fuzz/corpus/$name"
        [ -d "$corpus" ] || corpus=
        echo "$name $t -max_total_time=${FUZZ_SECONDS:-10} -timeout=20 -rss_limit_mb=3000 -print_final_stats=0" \
            "-artifact_prefix=build/fuzz/ build/fuzz/corpus/$name $corpus"
    done > "$log/fuzz.jobs"
    together "$log/fuzz.jobs"
}
lint() {
    build "" all man
    build clang all tests
    for t in tests/lint/*.sh; do
        case $t in */deps.sh) continue;; esac
        one "lint-$(basename "$t" .sh)" sh "$t"
    done
}
demo() { # the whole pipeline on a real model, which it downloads
    one demo $MAKE --no-print-directory -s demo DEMO=short
}

for part in ${@:-lint unit golden emulator cli fuzz}; do $part; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
