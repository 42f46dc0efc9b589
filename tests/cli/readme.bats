#!/usr/bin/env bats
# What the README tells to type works: its blocks of commands are run as they stand, in order, on a tiny model.

setup() {
    cd "$BATS_TEST_TMPDIR"
    R=$BATS_TEST_DIRNAME/../..
    awk '/^```sh$/ {on = 1; next} /^```$/ {on = 0} on' "$R/README.md" > all
    grep -v '^make\b' all > commands || true
    grep -o '^make\b[^#]*' all > makes || true
}

@test "commands between the programs" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    swift-quant -q --model model --type q8_0 --out base.gguf
    for i in $(seq 12); do echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"$((i % 5)) it is\"}]}"; done > train.jsonl
    head -n 4 train.jsonl > test.jsonl
    swift-eval tasks exact | sed 's/"max_tokens": *[0-9]*/"max_tokens": 8/' > task.json
    [ "$(grep -c swift- commands)" -ge 5 ]
    bash -euo pipefail commands > printed
    grep -q '"text"' printed
    for made in lora/adapter_config.json after.json merged/config.json mine.gguf; do [ -s $made ]; done
}

@test "make targets" {
    [ "$(wc -l < makes)" -ge 2 ]
    while read -r make target rest; do grep -qE "^\.PHONY:.*\b$target\b" "$R/Makefile"; done < makes
}

@test "every program is in the table, and every file named is there" {
    for p in "$R"/tools/*/main.c; do grep -q "^| \`$(basename "$(dirname "$p")")\`" "$R/README.md"; done
    for f in examples/demo man CONTRIBUTING.md LICENSE; do [ -e "$R/$f" ]; done
    head -n 1 "$R/LICENSE" | grep -qi 'MIT License'
}

@test "make install puts programs, pages and completions under DESTDIR" {
    make -s -C "$R" install DESTDIR="$PWD/root" PREFIX=/usr Q=@ > told 2>&1
    for p in "$R"/tools/*/main.c; do
        p=$(basename "$(dirname "$p")")
        [ "$(root/usr/bin/$p --version)" = "$($p --version)" ]
        grep -q -- 'help' root/usr/share/man/man1/$p.1
        ! grep -q '@OPTIONS@' root/usr/share/man/man1/$p.1 || false
        bash -n root/usr/share/bash-completion/completions/$p
    done
    [ -f root/usr/share/man/man5/swift-shard.5 ] && [ -f root/usr/share/man/man5/swift-metrics.5 ] || false
    # A completion completes: options by their beginning, subcommands.
    complete_word() { # PROGRAM WORD
        bash -c 'source root/usr/share/bash-completion/completions/$1; COMP_WORDS=("$1" "$2"); COMP_CWORD=1; compopt() { :; }; _${1//-/_}; printf "%s\n" "${COMPREPLY[@]}"' - "$@"
    }
    [ "$(complete_word swift-train --lora-dr)" = '--lora-dropout=' ]
    [ "$(complete_word swift-eval comp)" = 'compare' ]
    [ "$(complete_word swift-infer --sco)" = '--score' ]
}
