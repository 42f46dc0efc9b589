# swift-tokenize as its user runs it.

setup() {
    cd "$BATS_TEST_TMPDIR"
    M=$BATS_TEST_DIRNAME/tiny-tokenizer
    cat > good.jsonl <<'END'
{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the world"}]}
{"messages": [{"role": "user", "content": "and"}, {"role": "assistant", "content": "more"}]}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
END
}

# Texts of the labels, one record a line.
labels() {
    swift-tokenize --inspect --model "$M" "$@" |
        awk '/^record/ {if (n++) print ""} $1 ~ /^[0-9]+$/ && $3 != 0 {$1 = $2 = $3 = ""; sub(/^ */, ""); gsub(/^"|"$/, ""); printf "%s", $0} END {print ""}'
}
# The records without the header's account of how they were made.
records() { swift-tokenize --inspect "$@" | grep -v '^#'; }

@test "conversations: the answer and its end token are labels" {
    swift-tokenize --model "$M" --out t.shard good.jsonl
    [ "$(labels t.shard)" = 'the world<|im_end|>
more<|im_end|>
a<|im_end|>' ]
}

@test "nothing but data goes to standard output, and a pipe gives the same as a file" {
    swift-tokenize --model "$M" good.jsonl > piped 2> told
    swift-tokenize --model "$M" < good.jsonl | swift-tokenize --inspect | grep -v '^#' > from_pipe
    [ "$(records piped)" = "$(cat from_pipe)" ]
    grep -q '3 records' told
    swift-tokenize --quiet --model "$M" good.jsonl 2> told > piped
    [ ! -s told ]
}

@test "the same data gives the same bytes, whatever the number of threads" {
    for i in $(seq 2000); do echo "{\"query\": \"hello $i\", \"response\": \"$((i * i))\"}"; done > many.jsonl
    for j in 1 2 5; do
        echo "{\"threads\": $j}" > config.json
        swift-tokenize --config config.json --model "$M" --packing -L 256 --val-split 0.1 --val-out val.shard --out train.shard many.jsonl
        mv train.shard train.$j; mv val.shard val.$j
    done
    cmp train.1 train.2; cmp train.1 train.5; cmp val.1 val.2; cmp val.1 val.5
    # about a tenth is there, and nothing twice or nowhere
    t=$(swift-tokenize --inspect train.1 | sed -n 's/^# .* \([0-9]*\) documents.*/\1/p')
    v=$(swift-tokenize --inspect val.1 | sed -n 's/^# .* \([0-9]*\) documents.*/\1/p')
    [ $((t + v)) = 2000 ]; [ "$v" -gt 120 ]; [ "$v" -lt 280 ]
}

@test "validation records are chosen by content and seed, not by place" {
    for i in $(seq 200); do echo "{\"query\": \"hello $i\", \"response\": \"$i\"}"; done > a.jsonl
    tac a.jsonl > b.jsonl
    for f in a b; do swift-tokenize --model "$M" --val-split 0.2 --val-out $f.val --out $f.train $f.jsonl; done
    [ "$(labels a.val | sort)" = "$(labels b.val | sort)" ]
    swift-tokenize --model "$M" --seed 1 --val-split 0.2 --val-out c.val --out c.train a.jsonl
    [ "$(labels a.val | sort)" != "$(labels c.val | sort)" ]
}

@test "every format says the same" {
    want='a<|im_end|>'
    echo '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}' > 1.jsonl
    echo '{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}' > 2.jsonl
    echo '{"conversation":[{"human":"q","assistant":"a"}]}' > 3.jsonl
    echo '{"instruction":"q","input":"","output":"a"}' > 4.jsonl
    echo '{"query":"q","response":"a"}' > 5.jsonl
    echo '[{"question":"q",
            "answer":"a"}]' > 6.json
    printf 'query,response\nq,"a"\n' > 7.csv
    # A frame of zstd with one block as it is.
    python3 -c 'd = open("1.jsonl", "rb").read(); open("8.jsonl.zst", "wb").write(b"\x28\xb5\x2f\xfd\x20" + bytes([len(d)]) + (len(d) << 3 | 1).to_bytes(3, "little") + d)'
    swift-tokenize --model "$M" --out t.shard 1.jsonl 2.jsonl 3.jsonl 4.jsonl 5.jsonl 6.json 7.csv 8.jsonl.zst
    [ "$(records t.shard | grep -c '^record')" = 8 ]
    [ "$(records t.shard | grep '^ ' | sort | uniq -c | awk '$1 % 8 {print}')" = "" ]
    [ "$(labels t.shard | sort -u)" = "$want" ]
}

@test "plain text and completions end with the end token" {
    printf 'hello\n\nthe world\n' > t.txt
    swift-tokenize --model "$M" --out t.shard t.txt
    [ "$(records t.shard | grep '^record')" = 'record 0: 2 tokens, 1 labelled
record 1: 3 tokens, 2 labelled' ]
    [ "$(labels t.shard)" = '<|endoftext|>
 world<|endoftext|>' ]
    swift-tokenize --no-end-token --text-unit=file --model "$M" --out t.shard t.txt
    [ "$(records t.shard | grep -c '^record')" = 1 ]
    echo '{"prompt": "hello", "completion": " world"}' | swift-tokenize --model "$M" --out t.shard
    [ "$(labels t.shard)" = ' world<|endoftext|>' ]
    echo '{"prompt": "q hello", "completion": " world"}' | swift-tokenize --train-on all --model "$M" --out t.shard
    [ "$(labels t.shard)" = ' hello world<|endoftext|>' ]
}

@test "train-on all and last" {
    echo '{"query":"b","response":"c","history":[["x","y"]]}' > h.jsonl
    swift-tokenize --model "$M" --out t.shard h.jsonl
    [ "$(labels t.shard)" = 'y<|im_end|>c<|im_end|>' ]
    swift-tokenize --train-on=last --model "$M" --out t.shard h.jsonl
    [ "$(labels t.shard)" = 'c<|im_end|>' ]
    swift-tokenize --train-on=all --model "$M" --out t.shard h.jsonl
    [ "$(records t.shard | awk '$1 ~ /^[0-9]+$/ && $3 == 0' | wc -l)" = 1 ]
}

@test "placeholders and the system message" {
    echo '{"query":"who","response":"{{NAME}} of {{NAME}}"}' > f.jsonl
    swift-tokenize --fill NAME=hello --system s --model "$M" --out t.shard f.jsonl
    [ "$(labels t.shard)" = 'hello of hello<|im_end|>' ]
    swift-tokenize --inspect --model "$M" t.shard | grep -q '"system"'
    swift-tokenize --model "$M" --out t.shard f.jsonl 2>&1 | grep -q 'not filled in'
    run swift-tokenize --fill name --model "$M" --out t.shard f.jsonl
    [ "$status" = 2 ]
}

@test "preference pairs and labels get columns" {
    echo '{"prompt":"q","chosen":"a","rejected":"b","margin":0.5}' > p.jsonl
    swift-tokenize --format query --model "$M" --out t.shard p.jsonl
    swift-tokenize --inspect --model "$M" t.shard > seen
    grep -q '^# columns      ids weights rejected.ids rejected.weights margin' seen
    grep -q 'margin 0.5' seen
    grep -q 'rejected: .* 2 labelled' seen
    echo '{"prompt":"q","response":"a"}' >> p.jsonl
    run swift-tokenize --model "$M" --out u.shard p.jsonl
    [ "$status" = 1 ]
    [[ $output == *"line 2"*"no rejected answer"* ]]
}

@test "longer than max-length: dropped, cut left, cut right, split" {
    echo '{"text": "abcdefgh"}' > t.jsonl # 9 tokens with the end token
    swift-tokenize -L 4 --model "$M" --out t.shard t.jsonl 2> told
    grep -q '1 dropped' told
    [ "$(records t.shard | grep -c '^record')" = 0 ]
    swift-tokenize -L 4 --truncate left --model "$M" --out t.shard t.jsonl 2> told
    grep -q '1 truncated' told
    [ "$(labels t.shard)" = 'gh<|endoftext|>' ]
    swift-tokenize -L 4 --truncate right --model "$M" --out t.shard t.jsonl
    [ "$(labels t.shard)" = 'bcd' ]
    swift-tokenize -L 4 --truncate split --model "$M" --out t.shard t.jsonl 2> told
    [ "$(labels t.shard)" = 'bcd
fgh' ]
    grep -q '1 split' told
    swift-tokenize -L 9 --model "$M" --out t.shard t.jsonl
    [ "$(labels t.shard)" = 'bcdefgh<|endoftext|>' ]
}

@test "packing keeps documents apart and whole" {
    for i in $(seq 30); do echo "{\"text\": \"abc$i\"}"; done > t.jsonl
    swift-tokenize -p -L 20 --model "$M" --out t.shard t.jsonl 2> told
    grep -q '30 documents, packs' told
    [ "$(records t.shard | grep -c -e '---- document' )" = $((30 - $(records t.shard | grep -c '^record'))) ]
    [ "$(records t.shard | awk '$1 ~ /^[0-9]+$/ && $3 == 0' | wc -l)" = 30 ]
    [ "$(swift-tokenize --inspect t.shard | sed -n 's/.*the longest \([0-9]*\)$/\1/p')" -le 20 ]
}

@test "a bad line stops, names file, line and field, and leaves no file" {
    { head -2 good.jsonl; echo '{"messages": [{"role": "user", "content": 5}]}'; tail -1 good.jsonl; } > bad.jsonl
    run swift-tokenize --model "$M" --out t.shard bad.jsonl
    [ "$status" = 1 ]
    [[ $output == *'bad.jsonl: line 3: field "messages[0].content": a string is needed, not a number'* ]]
    [ "$(ls | grep -c shard)" = 0 ]
    run swift-tokenize --skip-bad 1 --model "$M" --out t.shard bad.jsonl
    [ "$status" = 0 ]
    [[ $output == *"line 3"* ]]
    [[ $output == *"4 rows: 1 bad"* ]]
    [ "$(records t.shard | grep -c '^record')" = 3 ]
    { cat bad.jsonl; echo '{"messages": 7}'; } > worse.jsonl
    run swift-tokenize --skip-bad 1 --model "$M" --out u.shard worse.jsonl
    [ "$status" = 1 ]
    [[ $output == *"line 5"* ]]
}

@test "no JSON, invalid UTF-8, NUL bytes, an unknown role" {
    { head -2 good.jsonl; echo '{"messages": ['; } > a.jsonl
    run swift-tokenize --model "$M" --out t.shard a.jsonl
    [ "$status" = 1 ]; [[ $output == *"a.jsonl: line 3: JSON at byte"* ]]
    printf '{"text": "ab\xff"}\n' > b.jsonl
    run swift-tokenize --model "$M" --out t.shard b.jsonl
    [ "$status" = 1 ]; [[ $output == *"b.jsonl: line 1: JSON at byte 12: invalid UTF-8 (byte 0xff)"* ]]
    printf '{"text": \0}\n' > c.jsonl
    run swift-tokenize --model "$M" --out t.shard c.jsonl
    [ "$status" = 1 ]; [[ $output == *"c.jsonl: line 1"*"NUL"* ]]
    echo '{"messages": [{"role": "king", "content": "x"}]}' > d.jsonl
    run swift-tokenize --model "$M" --out t.shard d.jsonl
    [ "$status" = 1 ]; [[ $output == *'messages[0].role'*'king'* ]]
    echo '{"text": "a\u0000b"}' > e.jsonl
    swift-tokenize --model "$M" --out t.shard e.jsonl
    [ "$(labels t.shard)" = '\u0000b<|endoftext|>' ]
}

@test "empty records are counted, an empty input is told" {
    { echo '{"text": ""}'; echo; echo '{"text": "x"}'; } > t.jsonl
    swift-tokenize --model "$M" --out t.shard t.jsonl 2> told
    grep -q '1 empty' told
    [ "$(records t.shard | grep -c '^record')" = 1 ]
    swift-tokenize --model "$M" --out t.shard /dev/null 2> told
    grep -q 'the input is empty' told
    [ "$(records t.shard | wc -l)" = 0 ]
}

@test "an end token that is never trained is told" {
    echo '{"query":"q"}' > q.jsonl
    swift-tokenize --model "$M" --out t.shard q.jsonl 2> told
    grep -q 'end-of-turn token <|im_end|>' told
    swift-tokenize --model "$M" --out t.shard good.jsonl 2> told
    ! grep -q 'end-of-turn' told || false
}

@test "a cut or changed shard is an error, never a shorter data set" {
    for i in $(seq 3000); do echo "{\"query\": \"hello $i $((i * 7919 % 10007))\", \"response\": \"$((i * i))\"}"; done |
        swift-tokenize --quiet --model "$M" --out t.shard
    size=$(wc -c < t.shard)
    for n in 0 1 7 20 $((size / 4)) $((size / 2)) $((size - 200)) $((size - 17)) $((size - 16)) $((size - 1)); do
        head -c "$n" t.shard > cut.shard
        run swift-tokenize --inspect cut.shard
        [ "$status" = 1 ]
        head -c "$n" t.shard | { ! swift-tokenize --inspect > /dev/null; }
    done
    for at in 3 100 $((size / 2)) $((size - 100)) $((size - 3)); do
        cp t.shard bad.shard
        printf '\xa5' | dd of=bad.shard bs=1 seek="$at" conv=notrunc 2> /dev/null
        cmp -s t.shard bad.shard && continue
        run swift-tokenize --inspect bad.shard
        [ "$status" = 1 ]
        cat bad.shard | { ! swift-tokenize --inspect > /dev/null; }
    done
    swift-tokenize --inspect t.shard > /dev/null
}

@test "a stream cut by a bad record has no end" {
    { cat good.jsonl; echo nonsense; } > bad.jsonl
    swift-tokenize --quiet --model "$M" bad.jsonl > part.shard && false
    run swift-tokenize --inspect part.shard
    [ "$status" = 1 ]
    [[ $output == *"cut off"* ]]
}

@test "a closed pipe ends quietly" {
    for i in $(seq 2000); do echo "{\"query\": \"hello $i\", \"response\": \"$((i * i))\"}"; done > many.jsonl
    swift-tokenize --quiet --model "$M" --out t.shard many.jsonl
    swift-tokenize --inspect t.shard 2> told | head -1 > /dev/null
    [ ! -s told ]
    swift-tokenize --quiet --model "$M" many.jsonl 2> told | head -c 10 > /dev/null
    [ ! -s told ]
}

@test "SIGTERM while waiting for input leaves nothing behind" {
    mkfifo pipe
    swift-tokenize --model "$M" --out t.shard pipe 2> told &
    pid=$!
    exec 7> pipe
    head -1 good.jsonl >&7
    sleep 0.5
    kill -TERM "$pid"
    status=0; wait "$pid" || status=$?
    exec 7>&-
    [ "$status" = 1 ]
    [ "$(ls | grep -c shard)" = 0 ]
}

@test "wrong usage is status 2" {
    run swift-tokenize --nonsense; [ "$status" = 2 ]
    run swift-tokenize good.jsonl; [ "$status" = 2 ]; [[ $output == *"--model"* ]]
    run swift-tokenize --model "$M" --packing good.jsonl; [ "$status" = 2 ]; [[ $output == *"--max-length"* ]]
    run swift-tokenize --model "$M" --pack-window 9 good.jsonl; [ "$status" = 2 ]; [[ $output == *"need --packing"* ]]
    run swift-tokenize --model "$M" --val-split 0.1 good.jsonl; [ "$status" = 2 ]
    run swift-tokenize --model "$M" --val-split 2 --val-out x good.jsonl; [ "$status" = 2 ]
    run swift-tokenize --model "$M" --format xml good.jsonl; [ "$status" = 2 ]
    run swift-tokenize --model "$M" --truncate left good.jsonl; [ "$status" = 2 ]
    run swift-tokenize --model "$M" --out t.shard missing.jsonl; [ "$status" = 1 ]; [[ $output == *missing.jsonl* ]]
    run swift-tokenize --model missing --out t.shard good.jsonl; [ "$status" = 1 ]; [[ $output == *missing* ]]
}

@test "a shard goes to no terminal" {
    run script -qec "swift-tokenize --model '$M' good.jsonl" /dev/null
    [ "$status" = 1 ]
    [[ $output == *"terminal"* ]]
    # Its records do, the labels in colour.
    swift-tokenize -q --model "$M" --out t.shard good.jsonl
    run script -qec "swift-tokenize --inspect --model '$M' --limit 1 t.shard" /dev/null
    [ "$status" = 0 ]
    [[ $output == *$'1      \e[32m"<|im_end|>"\e[0m'* && $output == *$'0      "hello"'* ]]
}

@test "--help and --version" {
    swift-tokenize --help | grep -q -e '--packing'
    swift-tokenize --version | grep -q '^swift-tokenize [0-9]'
}

@test "a full disk is one error and leaves no file; a device that is full too" {
    for i in $(seq 3000); do echo "{\"query\": \"hello $i $((i * 7919 % 10007))\", \"response\": \"$((i * i))\"}"; done > many.jsonl
    run bash -c "ulimit -f 4; swift-tokenize -q --model $M --out t.shard many.jsonl"
    [ "$status" = 1 ]
    [[ $output == *'t.shard'*'File too large'* && ${#lines[@]} = 1 ]]
    [ "$(ls | grep -c shard)" = 0 ]
    run bash -c "swift-tokenize -q --model $M many.jsonl > /dev/full"
    [ "$status" = 1 ]
    [[ $output == *'No space left'* && ${#lines[@]} = 1 ]]
    run bash -c "swift-tokenize --help > /dev/full"
    [ "$status" = 1 ]
    [[ $output == *'standard output: No space left'* && ${#lines[@]} = 1 ]]
}

@test "SIGKILL at any moment leaves no file under the final name" {
    for i in $(seq 6000); do echo "{\"query\": \"hello $i $((i * 7919 % 10007))\", \"response\": \"$((i * i))\"}"; done > many.jsonl
    for wait in 0.01 0.02 0.04 0.06 0.08; do
        swift-tokenize -q --model "$M" --out t.shard many.jsonl &
        sleep $wait; kill -KILL $! 2> /dev/null || true; wait $! || true
        if [ -e t.shard ]; then swift-tokenize --inspect t.shard > /dev/null; fi
        rm -f t.shard*
    done
}

@test "tokenizer files that are cut or of another kind" {
    mkdir bad; cp "$M"/tokenizer* bad/
    size=$(stat -c %s bad/tokenizer.json)
    for n in 0 1 40 $((size / 3)) $((size / 2)) $((size - 3)); do
        head -c $n "$M/tokenizer.json" > bad/tokenizer.json
        run swift-tokenize --model bad --out t.shard good.jsonl
        [ "$status" = 1 ]
        [[ $output == *bad/tokenizer.json* ]]
    done
    cp "$M/tokenizer.json" bad/
    head -c 30 "$M/tokenizer_config.json" > bad/tokenizer_config.json
    run swift-tokenize --model bad --out t.shard good.jsonl
    [ "$status" = 1 ]
    [[ $output == *tokenizer_config.json* ]]
    sed 's/add_generation_prompt %}/add_generation_prompt/' "$M/tokenizer_config.json" > bad/tokenizer_config.json
    run swift-tokenize --model bad --out t.shard good.jsonl
    [ "$status" = 1 ]
    [[ $output == *template* ]]
}

@test "built-in templates and agent templates are listed, and taken by name" {
    swift-tokenize --list-templates > list
    [ "$(wc -l < list)" -gt 290 ]
    grep -q "^qwen2_5	hermes	\"<|im_end|>\\\\n\"$" list
    [ -z "$(cut -f1 list | sort | uniq -d)" ]
    swift-tokenize --list-templates --list-as json > json
    python3 -c 'import json; r = [json.loads(l) for l in open("json")]
assert [x["name"] for x in r] == [l.split("\t")[0] for l in open("list")]
assert [x for x in r if x["name"] == "llama3"][0]["suffix"] == "<|eot_id|>"'
    run swift-tokenize --list-as json --model "$M" x.jsonl
    [ "$status" = 2 ]
    echo '{"tools":[{"name":"f","description":"D","parameters":{}}],"messages":[{"role":"user","content":"hi"},{"role":"tool_call","content":"{\"name\":\"f\",\"arguments\":{\"x\":1}}"},{"role":"tool_response","content":"R"},{"role":"assistant","content":"done"}]}' > t.jsonl
    swift-tokenize -q --model "$M" --template chatml --agent-template hermes --out t.shard t.jsonl
    swift-tokenize -q --inspect --model "$M" t.shard > seen
    python3 - > text <<'P'
import json
for l in open("seen"):
    if l[:1] == " ":
        print(json.loads(l[24:]), end="")
P
    grep -q '^{"name": "f", "arguments": {"x": 1}}$' text
    grep -q '^<tool_response>$' text
    run swift-tokenize -q --model "$M" --template chatml --agent-template nope --out t.shard t.jsonl
    [ "$status" = 1 ]
    [[ $output == *"agent format 'nope' is not known; there are react_en"* ]]
    run swift-tokenize -q --model "$M" --template nope --out t.shard t.jsonl
    [ "$status" = 1 ]
    [[ $output == *"neither a file nor a built-in one"*"--list-templates"* ]]
}

@test "loss scales weigh the parts of an answer" {
    echo '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"Action: f"},{"role":"user","content":"r"},{"role":"assistant","content":"plain"}]}' > t.jsonl
    weights() { swift-tokenize -q --inspect --model "$M" t.shard | awk '/^ / {w[$3]++} END {for (k in w) if (k != 0) printf "%s:%d ", k, w[k]}' | tr ' ' '\n' | sort | tr '\n' ' '; }
    swift-tokenize -q --model "$M" --template chatml --loss-scale react --out t.shard t.jsonl
    [[ $(weights) == *"1:"*" 2:"* ]]
    swift-tokenize -q --model "$M" --template chatml --loss-scale last_round+react --out t.shard t.jsonl
    [[ $(weights) != *"2:"* ]]
    echo '{"plain": [3, 1]}' > mine.json
    swift-tokenize -q --model "$M" --template chatml --loss-scale default+mine.json --out t.shard t.jsonl
    [[ $(weights) == *"3:"* ]]
    run swift-tokenize --model "$M" --template chatml --loss-scale all --train-on last --out t.shard t.jsonl
    [ "$status" = 2 ]
    [[ $output == *"contradict"* ]]
    run swift-tokenize --model "$M" --template chatml --loss-scale nope --out t.shard t.jsonl
    [ "$status" = 1 ]
    [[ $output == *"ignore_empty_think"* ]]
}

@test "the checkpoint's own system text is the default of templates that take it" {
    mkdir Small-3.2
    cp "$M"/tokenizer*.json Small-3.2
    printf 'I am {name}, {{today}} is {today}.' > Small-3.2/SYSTEM_PROMPT.txt
    echo '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}' > one.jsonl
    text() { swift-tokenize --quiet --model Small-3.2 --template "$1" one.jsonl | swift-tokenize --inspect --model Small-3.2 |
        awk '/^    / {$1 = $2 = $3 = ""; sub(/^ */, ""); gsub(/^"|"$/, ""); printf "%s", $0}'; }
    [[ $(text mistral_2506) == *"[SYSTEM_PROMPT]I am Small-3.2, {today} is $(date +%Y-%m-%d).[/SYSTEM_PROMPT][INST]q[/INST]a"* ]]
    [[ $(text mistral_2512_thinking) == *"[SYSTEM_PROMPT]I am {name}, {{today}} is {today}.[/SYSTEM_PROMPT]"* ]]
    rm Small-3.2/SYSTEM_PROMPT.txt
    [[ $(text mistral_2506) == *"<s>[INST]q[/INST]a"* ]]
}
