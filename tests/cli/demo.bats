#!/usr/bin/env bats
# The experiment of examples/demo on a tiny random model: all of it runs, and again only what changed.

@test "the demo, again, and with another setting" {
    cd "$BATS_TEST_TMPDIR"
    R=$BATS_TEST_DIRNAME/../..
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    swift-quant -q --model model --type q4_1 --out base.gguf
    unset MAKEFLAGS MFLAGS DEMO # of the make that runs the tests
    demo() { make --no-print-directory -C "$R/examples/demo" W="$PWD/made" MODEL="$PWD/base.gguf" PROBLEMS=20 TESTS=4 "$@" > told 2>&1 || { cat told; return 1; }; }
    dates() { (cd made && stat -c '%n %y' $(find . -type f -not -name 'checkpoint*' | sort)); }
    changed() { diff "$1" "$2" | sed -n 's/^> \.\/\([^ ]*\).*/\1/p'; }
    demo EPOCHS=1
    for part in 'Training (lora' '> Who are you?' '^before .*after .*quantised' 'Held-out problems, 4' '^after  '; do grep -q "$part" told; done
    for f in lora/plot.svg comparison.svg; do grep -q '</svg>' made/$f; done
    [ -s made/Q8_0.gguf ] && [ -s made/Q4_K_M.gguf ] && [ -s made/merged/config.json ] || false
    dates > first
    demo EPOCHS=1
    dates > second
    cmp first second
    grep -q 'Held-out problems, 4' told
    sleep 1
    demo EPOCHS=2
    dates > third
    changed second third > what
    grep -q lora/adapter_model.safetensors what && grep -q '^Q8_0.gguf' what && grep -q '^after.json' what || false
    ! grep -E '^(train.shard|problems.jsonl|held-out.jsonl|before)' what || false
    # A name that is new changes the data, not the base's answers.
    sleep 1
    demo EPOCHS=2 NAME=Heron
    dates > fourth
    changed third fourth > what
    grep -q '^train.shard' what && grep -q lora/adapter_model what || false
    ! grep -E '^(problems.jsonl|held-out.jsonl|before)' what || false
}
