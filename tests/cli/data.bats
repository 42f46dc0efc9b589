# Data sets as swift-tokenize reads them: sources, tasks, duplicates, packing, folders of shards, and what goes wrong.

load helpers

setup() {
    cd "$BATS_TEST_TMPDIR"
    M=$BATS_TEST_DIRNAME/tiny-tokenizer
    for i in $(seq 100); do echo "{\"query\": \"a$i\", \"response\": \"x\"}"; done > a.jsonl
    for i in $(seq 40); do echo "{\"query\": \"b$i\", \"response\": \"y\"}"; done > b.jsonl
}

tok() { swift-tokenize --model "$M" "$@"; }
records() { swift-tokenize --inspect "$@" | grep -v '^#'; }
# How many answers x and y.
answers() { swift-tokenize --inspect --model "$M" "$@" | awk '$4 == "\"x\"" {x++} $4 == "\"y\"" {y++} END {print x + 0, y + 0}'; }

@test "counts and weights of files, one after the other and interleaved" {
    tok a.jsonl#30 b.jsonl:2 > t.shard;                      [ "$(answers t.shard)" = "30 80" ]
    tok --mix once a.jsonl b.jsonl#5 > t.shard;              [ "$(answers t.shard)" = "100 5" ]
    tok --mix all a.jsonl:0.5 b.jsonl:0.5 > t.shard;         [ "$(answers t.shard | cut -d' ' -f1)" = 100 ]
    gzip -k a.jsonl
    tok a.jsonl.gz#150 > t.shard;                            [ "$(answers t.shard)" = "150 0" ]
    tok --seed 1 a.jsonl:0.5 > 1.shard; tok --seed 1 a.jsonl:0.5 > 2.shard; tok --seed 2 a.jsonl:0.5 > 3.shard
    cmp 1.shard 2.shard
    [ "$(records 1.shard)" != "$(records 3.shard)" ]
    tok - < a.jsonl > t.shard;                               [ "$(answers t.shard)" = "100 0" ]
    cat a.jsonl | { run tok ./-:0.5 b.jsonl; [ "$status" = 1 ]; }
    run tok nothere.jsonl; [ "$status" = 1 ]; [[ $output == *"nothere.jsonl"* ]]
    run tok .; [ "$status" = 1 ]; [[ $output == *"is a folder"* ]]
}

@test "interleaving gives the same bytes whatever the number of threads" {
    for j in 1 2 5; do
        echo "{\"threads\": $j}" > config.json
        swift-tokenize --config config.json --model "$M" --mix once --dedup near --out t.shard a.jsonl:3 b.jsonl
        mv t.shard $j.shard
    done
    cmp 1.shard 2.shard; cmp 1.shard 5.shard
}

@test "what the files are taken for is told" {
    echo '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": [{"name": "f"}]}' > m.jsonl
    printf 'instruction\toutput\nq\ta\n' > i.tsv
    { echo '{"text": "t"}'; cat b.jsonl; } > mixed.jsonl
    tok --out t.shard m.jsonl i.tsv mixed.jsonl 2> told
    grep -q 'm.jsonl: JSON Lines of conversations (messages) with tools$' told
    grep -q 'i.tsv: TSV of queries and responses$' told
    grep -q 'warning: mixed.jsonl: holds 40 queries and responses, 1 texts' told
}

@test "preference, kto, classify, prompt: what is missing is told, what is there gets columns" {
    echo '{"query": "q", "response": "a", "rejected_response": "b", "label": true, "id": 7}' > r.jsonl
    for t in sft:'ids weights' preference:'ids weights rejected.ids rejected.weights label' kto:'ids weights label' \
        classify:'ids weights label' prompt:'ids weights carried'; do
        tok --task "${t%%:*}" --out t.shard r.jsonl
        swift-tokenize --inspect t.shard | grep -q "^# columns      ${t#*:}\$"
        swift-tokenize --inspect t.shard | grep -q "^# task         ${t%%:*}\$"
    done
    records t.shard | grep -q '  carried: {"query": "q", "response": "a", "rejected_response": "b", "label": true, "id": 7, "messages": \[{"role": "user", "content": "q"}\]}'
    swift-tokenize --inspect --model "$M" t.shard | tail -2 | head -1 | grep -q '\\n' # ends with the generation prompt
    [ "$(records t.shard | awk '$1 ~ /^[0-9]+$/ && $3 != 0' | wc -l)" = 0 ]
    tok --carry id --out t.shard r.jsonl
    records t.shard | grep -q '  carried: {"id": 7}'
    run tok --task preference --out t.shard a.jsonl
    [ "$status" = 1 ]; [[ $output == *'a.jsonl: line 1: field "rejected"'* ]]
    run tok --task kto --out t.shard a.jsonl
    [ "$status" = 1 ]; [[ $output == *'a.jsonl: line 1: field "label"'* ]]
}

@test "a template that leaves calls and tools out: an error, and a warning" {
    tools='"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]'
    call='{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}'
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, $call], $tools}" > calls.jsonl
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"tool_call\", \"content\": {\"name\": \"f\", \"arguments\": {}}}]}" > role.jsonl
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}], $tools}" > tools.jsonl
    for f in calls.jsonl role.jsonl; do
        fails 1 "$f: line 1: has calls of tools, and the chat template" swift-tokenize -q --model "$M" --out t.shard $f
    done
    swift-tokenize -q --model "$M" --out t.shard tools.jsonl 2> told
    grep -q 'warning: 1 records have tools, and the chat template .* makes nothing of them' told
    swift-tokenize -q --model "$M" --task prompt --out t.shard tools.jsonl 2> told
    grep -q 'makes nothing of them' told
    swift-tokenize -q --model "$M" --template qwen2_5 --out t.shard calls.jsonl role.jsonl tools.jsonl 2> told
    [ ! -s told ] || { cat told; false; }
    swift-tokenize --inspect --model "$M" t.shard | sed -n 's/.* 1 *"\(.*\)"$/\1/p' | tr -d '\n' | grep -q '<tool_call>'
}

@test "a weight of 0 takes an answer's loss, as OpenAI and ShareGPT have it" {
    ask() { echo "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"aa\"$1}, {\"role\": \"user\", \"content\": \"q\", \"weight\": 0}, {\"role\": \"assistant\", \"content\": \"b\", \"weight\": 1}]}" | tok -q | records; }
    ask ', "loss": false' > want
    ask ', "weight": 0' > got; cmp want got
    grep -q ' 2 labelled' want
    ask ', "weight": 1' | grep -q ' 5 labelled'
    ask ', "weight": 0, "loss": true' | grep -q ' 5 labelled'
}

@test "compared texts" {
    echo '{"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "the world"}' > e.jsonl
    tok --out t.shard e.jsonl
    swift-tokenize --inspect --model "$M" t.shard > seen
    grep -q '^# task         embedding' seen
    grep -q '  positive: 2 tokens, 1 texts' seen
    grep -q '  negative: 5 tokens, 2 texts' seen
    tok --task reranker --out t.shard e.jsonl
    [ "$(swift-tokenize --inspect --model "$M" t.shard | grep -c 'im_end')" = 7 ] # q; q a; q b; q the world
    tok -L 2 --truncate right --task embedding --out t.shard e.jsonl 2> told
    records t.shard | grep -q '  negative: 4 tokens, 2 texts'
    grep -q '1 truncated' told
    tok -L 2 --task embedding --out t.shard e.jsonl 2> told
    grep -q '1 dropped' told
}

@test "media need a template that uses them, and are carried" {
    echo '{"query": "<image>q", "response": "a", "images": ["x.png"]}' > i.jsonl
    run tok --out t.shard i.jsonl
    [ "$status" = 1 ]; [[ $output == *"makes nothing of them"* ]]
    tok --map images= --map query=question --out t.shard i.jsonl
    cat > mm.jinja <<'END'
{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'image' %}the{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
END
    tok --template mm.jinja --out t.shard i.jsonl a.jsonl
    records t.shard | grep -q '  media: {"images": \["x.png"\]}'
    [ "$(records t.shard | grep -c media)" = 1 ]
    [ "$(swift-tokenize --inspect --model "$M" t.shard | grep -c '"the"')" = 1 ]
    tok --template mm.jinja -p -L 100 --out t.shard a.jsonl
    run tok --template mm.jinja -p -L 100 --out t.shard i.jsonl
    [ "$status" = 1 ]; [[ $output == *"cannot be packed"* ]]
}

@test "duplicates: exact by what is trained, near by words" {
    { echo '{"query": "q", "response": "a"}'; echo '{"response": "a",   "query": "q", "id": 5}'; echo '{"query": "q", "response": "b"}'; } > d.jsonl
    tok --dedup exact --out t.shard d.jsonl 2> told
    grep -q '1 duplicates' told
    [ "$(records t.shard | grep -c '^record')" = 2 ]
    w=$(seq -s ' ' 100 199)
    { echo "{\"text\": \"$w\"}"; echo "{\"text\": \"$w 7\"}"; echo "{\"text\": \"$(seq -s ' ' 300 400)\"}"; } > n.jsonl
    tok --dedup exact --out t.shard n.jsonl; [ "$(records t.shard | grep -c '^record')" = 3 ]
    tok --dedup near --out t.shard n.jsonl;  [ "$(records t.shard | grep -c '^record')" = 2 ]
    # the same answer once wanted and once not is no duplicate
    { echo '{"query": "q", "response": "a", "label": true}'; echo '{"query": "q", "response": "a", "label": false}'; } > k.jsonl
    tok --dedup near --out t.shard k.jsonl;  [ "$(records t.shard | grep -c '^record')" = 2 ]
}

@test "statistics as JSON and as a plot" {
    tok --stats s.json --out t.shard a.jsonl b.jsonl
    python3 - <<'END'
import json
s = json.load(open("s.json"))
assert s["rows"] == 140 and s["tokens"]["count"] == 140
assert s["tokens"]["min"] <= s["tokens"]["p50"] <= s["tokens"]["max"]
assert sum(b[2] for b in s["tokens"]["histogram"]) == 140
assert s["labelled"]["sum"] == 280 and [f["records"] for f in s["files"]] == [100, 40]
END
    tok --stats s.svg --out t.shard a.jsonl
    grep -q '<svg' s.svg
}

@test "blocks: all documents joined and cut, segments kept" {
    for i in $(seq 50); do echo "{\"text\": \"abcdefghij$i\"}"; done > t.jsonl
    tok --out plain.shard t.jsonl
    tok -p --packing-strategy wrapped --packing-length 16 --out t.shard t.jsonl 2> told
    # the same tokens in the same order, in full blocks but the last
    ids() { swift-tokenize --inspect "$1" | awk '$1 ~ /^[0-9]+$/ {print $2}'; }
    [ "$(ids plain.shard)" = "$(ids t.shard)" ]
    n=$(records t.shard | grep -c '^record')
    [ "$(records t.shard | grep -c '^record [0-9]*: 16 tokens')" -ge $((n - 1)) ]
    [ "$n" = $(( ($(ids plain.shard | wc -l) + 15) / 16 )) ]
    tok -p --packing-strategy sequential --packing-length 30 --out t.shard t.jsonl 2> told
    [ "$(ids plain.shard)" = "$(ids t.shard)" ]
    [ "$(records t.shard | awk '$1 ~ /^[0-9]+$/ && $3 == 0' | wc -l)" = 50 ] # whole documents
    grep -q 'packs [0-9.]*% full' told
}

@test "a folder of shards goes on after a stop, to the same bytes" {
    for i in $(seq 3000); do echo "{\"query\": \"hello $i\", \"response\": \"$((i * i))\"}"; done > many.jsonl
    head -1000 many.jsonl > 1.jsonl; sed -n 1001,2000p many.jsonl > 2.jsonl; tail -1000 many.jsonl > 3.jsonl
    series() { echo '{}' > c.json; swift-tokenize --config c.json --model "$M" --packing -L 64 --shard-tokens 5000 --resume --out out "$@"; }
    series 1.jsonl 2.jsonl 3.jsonl; mv out whole
    [ "$(ls whole/*.shard | wc -l)" -gt 8 ]
    # a run that stops in the middle: at a bad record
    cp 2.jsonl good2.jsonl; sed -i '700s/.*/nonsense/' 2.jsonl
    run series 1.jsonl 2.jsonl 3.jsonl; [ "$status" = 1 ]
    n=$(ls out/*.shard | wc -l); [ "$n" -gt 1 ]; [ "$n" -lt "$(ls whole/*.shard | wc -l)" ]
    cp good2.jsonl 2.jsonl
    touch -d '2001-01-01' out/part-00000.shard
    series 1.jsonl 2.jsonl 3.jsonl 2> told
    grep -q "$n shards are there" told
    [ "$(stat -c %Y out/part-00000.shard)" -lt 1000000000 ] # not made again
    diff <(ls whole) <(ls out)
    for f in whole/*.shard; do [ "$(records "$f" | md5sum)" = "$(records "out/${f##*/}" | md5sum)" ]; done
    # done is done; other options or inputs are refused; more files may follow
    series 1.jsonl 2.jsonl 3.jsonl 2>&1 | grep -q 'all is done'
    run series 1.jsonl 3.jsonl;                     [ "$status" = 1 ]; [[ $output == *"input 2 was 2.jsonl"* ]]
    run series --system s 1.jsonl 2.jsonl 3.jsonl;  [ "$status" = 1 ]; [[ $output == *"another --system"* ]]
    series 1.jsonl 2.jsonl 3.jsonl b.jsonl
    total=0; for f in out/*.shard; do total=$((total + $(swift-tokenize --inspect "$f" | sed -n 's/^# .* \([0-9]*\) documents.*/\1/p'))); done
    [ "$total" = 3040 ]
    run swift-tokenize --model "$M" --packing -L 64 --shard-tokens 5000 --out out 1.jsonl
    [ "$status" = 1 ]; [[ $output == *"--resume"* ]]
}

@test "a line without end: refused, or passed over, in little memory" {
    long() { head -1 a.jsonl; printf '{"query": "'; head -c 400000000 /dev/zero | tr '\0' x; printf '"}\n'; tail -1 a.jsonl; }
    rss() { awk '/^VmHWM/ {print $2}' "/proc/$1/status" 2> /dev/null || true; }
    long | tok --max-record 8M > t.shard 2> told && false
    grep -q 'standard input: line 2: the row is longer than the 8388608 bytes' told
    mkfifo in; long > in & 
    tok --max-record 8M --skip-bad 1 in > t.shard 2> told & pid=$!
    peak=0; while kill -0 $pid 2> /dev/null; do r=$(rss $pid); [ "${r:-0}" -gt $peak ] && peak=$r; sleep 0.05; done
    wait $pid
    [ "$peak" -gt 0 ]; [ "$peak" -lt 150000 ]
    grep -q 'skipped: in: line 2' told
    [ "$(answers t.shard)" = "2 0" ]
}

@test "endless input: memory stays what it was" {
    yes '{"messages": [{"role": "user", "content": "hello the world"}, {"role": "assistant", "content": "and more"}]}' |
        swift-tokenize --quiet --model "$M" --packing -L 256 --dedup near --dedup-memory 16M > /dev/null & pid=$!
    sleep 1; one=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
    sleep 2; two=$(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")
    kill $pid; wait $pid || true
    [ "$one" -gt 0 ]; [ "$two" -lt $((one + 20000)) ]; [ "$two" -lt 150000 ]
}

@test "invalid UTF-8, NUL bytes, CRLF, a byte order mark, deep nesting" {
    printf '{"text": "ab\xff"}\n' > b.jsonl
    run tok --out t.shard b.jsonl; [ "$status" = 1 ]; [[ $output == *"line 1"*"invalid UTF-8 (byte 0xff)"* ]]
    tok --utf8-errors replace --out t.shard b.jsonl
    swift-tokenize --inspect --model "$M" t.shard | grep -q '"b"'
    printf 'text\nab\xff\n' > b.csv
    run tok --out t.shard b.csv; [ "$status" = 1 ]; [[ $output == *'b.csv: line 2: column "text": byte 2: invalid UTF-8 (byte 0xff)'* ]]
    printf 'text\na\0b\n' > n.csv
    run tok --out t.shard n.csv; [ "$status" = 1 ]; [[ $output == *'column "text": a NUL byte'* ]]
    printf '\xef\xbb\xbf{"query": "q", "response": "x"}\r\n{"query": "q", "response": "y"}\r\n' > c.jsonl
    tok --out t.shard c.jsonl; [ "$(answers t.shard)" = "1 1" ]
    { printf '{"query": '; head -c 100000 /dev/zero | tr '\0' '['; echo '}'; } > deep.jsonl
    run tok --out t.shard deep.jsonl; [ "$status" = 1 ]; [[ $output == *"line 1"*"nested deeper than"* ]]
}

@test "Parquet" {
    P=$BATS_TEST_DIRNAME/../unit/parquet
    # rows 0, 11, 22 and 33 have empty conversations
    tok --skip-bad 4 --task sft --carry id --out t.shard "$P/snappy.parquet" 2> told
    grep -q 'snappy.parquet: Parquet of conversations (messages)$' told
    grep -q 'snappy.parquet: line 12: field "messages": the conversation is empty' told
    [ "$(records t.shard | grep -c '^record')" = 36 ]
    records t.shard | tail -40 | grep -q '  carried: {"id": 39}'
    for f in zstd gzip-v2 plain; do
        tok --skip-bad 4 --task sft --carry id --out u.shard "$P/$f.parquet"
        [ "$(records u.shard)" = "$(records t.shard)" ]
    done
    tok --skip-bad 40 --task sft "$P/plain.parquet#80" > t.shard
    [ "$(records t.shard | grep -c '^record')" = 72 ]
}

@test "files of other kinds say what to do" {
    printf 'PAR1\x15\x00\x15\x00' > d.parquet; printf 'PK\x03\x04xxxx' > d.zip
    run tok --out t.shard d.parquet; [ "$status" = 1 ]; [[ $output == *"d.parquet: the Parquet file is cut off"* ]]
    cat d.parquet | { run tok --out t.shard -; [ "$status" = 1 ]; [[ $output == *"give the file, not a pipe"* ]]; }
    run tok --out t.shard d.zip;     [ "$status" = 1 ]; [[ $output == *"unzip -p"* ]]
    gzip -k a.jsonl; head -c 150 a.jsonl.gz > cut.gz
    run tok --out t.shard cut.gz;    [ "$status" = 1 ]; [[ $output == *"cut off at byte 150"* ]]
}

@test "swift-train refuses what its objective cannot use" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    train() { swift-train -q --model model --dtype f32 --plot none --max-steps 1 --out out "$@"; }
    make() { swift-tokenize -q --model model "$@"; }
    echo '{"query": "q", "response": "a", "rejected_response": "b", "label": true}' > r.jsonl
    for t in preference:rejected.ids kto:label; do
        make --task ${t%:*} --out t.shard r.jsonl
        run train t.shard
        [ "$status" = 1 ]; [[ $output == *"t.shard: its records have \"${t#*:}\", which the objective sft cannot use"* ]]
    done
    make --task prompt --out t.shard r.jsonl
    run train t.shard; [ "$status" = 1 ]; [[ $output == *"prompts without answers"* ]]
    make --task sft --carry label --out t.shard r.jsonl
    train t.shard
}

@test "wrong usage is status 2" {
    for o in "--packing" "--packing-strategy wrapped" "--resume" "--shard-tokens 5" "--dedup-threshold 0.9" "--map x" "--max-record 5" \
        "-p -L 9 --task kto" "-p -L 9 --packing-length 5" "--shard-tokens 5 --out d --stats x"; do
        run tok $o a.jsonl
        [ "$status" = 2 ]
    done
}
