#!/usr/bin/env bats
# swift-train as a user runs it, on a tiny random model.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 40); do
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"it is $((i % 5)), $(printf 'ab%.0s' $(seq $((i % 7 + 1))))\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    head -10 train.jsonl | swift-tokenize -q --model model --out val.shard
    export T="swift-train -q --model $W/model --dtype f32 --plot none"
}

setup() { cd "$BATS_TEST_TMPDIR"; }

# Fields of the records of a kind, without those that tell times and memory.
metrics() { grep "\"kind\": *\"$1\"" "$2/metrics.jsonl" | sed -E 's/"(tokens_per_second|memory|elapsed|time_left|peak_memory|path)": *[^,}]*,? *//g; s/, *}/}/'; }
same() { cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors"; }

@test "a stream from swift-tokenize trains a LoRA that lowers the loss and that swift-infer loads" {
    swift-tokenize -q --model "$W/model" "$W/train.jsonl" | $T --lr 0.01 --epochs 12 --out out
    first=$(metrics train out | head -1 | field loss) last=$(metrics train out | tail -1 | field loss)
    awk "BEGIN {exit !($last < $first / 2)}"
    [ -f out/adapter_config.json ] && [ -f out/adapter_model.safetensors ] && [ -f out/chat_template.jinja ] || false
    grep -q '"eos_token_id": 293\|293' out/generation_config.json
    run bash -c "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"say 3\"}], \"max_tokens\": 24}' | swift-infer -q -m $W/model --adapter out --dtype f32"
    [ "$status" = 0 ]
    [[ $output == *'"text": "it is 3'* && $output == *'"finish_reason": "stop"'* ]]
}

@test "the split of an update into batches changes neither loss nor gradient nor result" {
    $T --batch 8 --accumulate 1 --max-steps 3 --lr 0.01 --out one "$W/train.shard"
    $T --batch 2 --accumulate 4 --max-steps 3 --lr 0.01 --out many "$W/train.shard"
    paste <(metrics train one | field loss) <(metrics train many | field loss) <(metrics train one | field grad_norm) <(metrics train many | field grad_norm) > both
    [ "$(wc -l < both)" = 3 ]
    awk 'function near(a, b) {d = a - b; return d * d < 1e-12 * a * a} !near($1, $2) {print; bad = 1} !(($3 - $4) ^ 2 < 1e-10 * $3 * $3) {print; bad = 1} END {exit bad}' both
}

@test "recomputation gives the same bits" {
    $T --max-steps 4 --lora-dropout 0.1 --out plain "$W/train.shard"
    $T --max-steps 4 --lora-dropout 0.1 --recompute --out again "$W/train.shard"
    same plain again
}

@test "a run that was killed at any moment goes on to the same bits" {
    $T --epochs 4 --lora-dropout 0.1 --val "$W/val.shard" --eval-steps 7 --lr 0.01 --out whole "$W/train.shard"
    # Ended cleanly after a few updates, and gone on with
    $T --epochs 4 --lora-dropout 0.1 --val "$W/val.shard" --eval-steps 7 --lr 0.01 --save-steps 1 --out parts "$W/train.shard" &
    for i in $(seq 3000); do [ -d parts/checkpoint-3 ] && break; sleep 0.02; done
    kill -KILL $! 2> kills; wait $! || true
    for round in 1 2 3 4; do
        $T --epochs 4 --lora-dropout 0.1 --val "$W/val.shard" --eval-steps 7 --lr 0.01 --save-steps 1 --resume --out parts "$W/train.shard" &
        sleep 0.$((RANDOM % 4 + 1)); kill -$([ $((round % 2)) = 0 ] && echo KILL || echo TERM) $! 2>> kills || true; wait $! || true
    done
    $T --epochs 4 --lora-dropout 0.1 --val "$W/val.shard" --eval-steps 7 --lr 0.01 --save-steps 1 --resume --out parts "$W/train.shard"
    same whole parts
    cmp <(metrics train whole) <(metrics train parts)
    cmp <(metrics eval whole) <(metrics eval parts)
    # nothing half-built is left
    [ -z "$(ls -A parts | grep -E 'tmp|old|^\.result')" ]
}

@test "SIGTERM and a terminal that goes away save, say so, and fail; nohup goes on" {
    begun() { for i in $(seq 3000); do [ -s $1/metrics.jsonl ] && [ "$(grep -c train $1/metrics.jsonl)" -gt 2 ] && break; sleep 0.02; done; }
    for signal in TERM HUP; do
        env --default-signal=HUP $T --max-steps 100000 --out $signal "$W/train.shard" 2> told & # the tests may be under nohup
        begun $signal
        kill -$signal $!
        status=0
        wait $! || status=$?
        [ "$status" = 1 ]
        n=$(ls -d $signal/checkpoint-* | sed 's/.*-//' | sort -n | tail -1)
        grep -q "interrupted after update $n; --resume goes on from there" told
    done
    nohup $T --max-steps 100000 --out nohup "$W/train.shard" > said 2> told &
    begun nohup
    kill -HUP $!
    sleep 0.1
    kill -0 $!
    kill -TERM $!
    wait $! || true
}

@test "full training of an f32 model writes a whole model that generates" {
    $T --tuner full --lr 0.005 --epochs 10 --out out "$W/train.shard"
    for f in config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja generation_config.json; do [ -f out/$f ]; done
    run bash -c "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"say 2\"}], \"max_tokens\": 24}' | swift-infer -q -m out --dtype f32"
    [[ $output == *'"text": "it is 2'* && $output == *'"finish_reason": "stop"'* ]]
}

@test "an adapter trains over a quantised GGUF base, which stays as it is" {
    swift-quant -q --model "$W/model" --type q8_0 --out base.gguf
    before=$(cksum < base.gguf)
    $T --model base.gguf --lr 0.01 --epochs 10 --out out "$W/train.shard"
    [ "$(cksum < base.gguf)" = "$before" ]
    first=$(metrics train out | head -1 | field loss) last=$(metrics train out | tail -1 | field loss)
    awk "BEGIN {exit !($last < $first / 2)}"
    run bash -c "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"say 4\"}], \"max_tokens\": 24}' | swift-infer -q -m base.gguf --adapter out --dtype f32"
    [[ $output == *'"text": "it is 4'* ]]
}

@test "early stop leaves the best step's adapter" {
    $T --epochs 40 --lr 0.05 --schedule constant --val "$W/val.shard" --eval-steps 2 --early-stop 2 --out out "$W/train.shard"
    [ "$(metrics end out | field reason)" = '"early-stop"' ] || [ "$(metrics end out | field reason)" = '"done"' ]
    best=$(metrics eval out | sort -t: -k1 | awk -F'"loss": *' '{split($2, a, ","); if (NR == 1 || a[1] < m) {m = a[1]; line = $0}} END {print line}' | field step)
    same out out/best
    grep -q "\"step\": $best" out/swift-train.json
}

@test "checkpoints: the newest are kept, an earlier run is not overwritten unasked" {
    $T --max-steps 6 --save-steps 1 --keep 2 --out out "$W/train.shard"
    [ "$(ls -d out/checkpoint-* | xargs -n1 basename | sort | tr '\n' ' ')" = 'checkpoint-5 checkpoint-6 ' ]
    run $T --max-steps 6 --out out "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'--resume goes on with it, --overwrite begins anew'* ]]
    $T --max-steps 2 --overwrite --out out "$W/train.shard"
    [ "$(ls -d out/checkpoint-*)" = out/checkpoint-2 ]
}

@test "two runs do not write to one folder" {
    mkfifo pipe
    $T --out out - < pipe & first=$!
    exec 7> pipe
    for i in $(seq 100); do sleep 0.1; [ ! -d out ] || break; done
    sleep 0.1
    for how in "" --resume --overwrite; do
        fails 1 "out: another process is writing to it" $T --max-steps 1 $how --out out "$W/train.shard" 7>&-
    done
    cat "$W/train.shard" >&7; exec 7>&-
    wait $first
    [ -f out/adapter_config.json ] || false
    $T --max-steps 1 --overwrite --out out "$W/train.shard"
}

@test "a run does not go on with other data, another tuner or another seed" {
    $T --max-steps 2 --out out "$W/train.shard"
    for change in "--lora-r 4 $W/train.shard" "--seed 5 $W/train.shard" "--batch 3 $W/train.shard" "$W/val.shard"; do
        run $T --max-steps 4 --resume --out out $change
        [ "$status" = 1 ]
        [[ $output == *'trainer_state.json: '*' is '*' now; a run that resumes keeps it'* ]]
    done
}

@test "a shard of another tokenizer is refused with the reason" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" other
    sed -i 's/"<|im_end|>"/"<|done|>"/' other/tokenizer.json
    run $T --model other --out out "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'train.shard'*'tokenizer'* ]]
    python3 "$BATS_TEST_DIRNAME/make_model.py" small --vocab 256
    rm small/tokenizer*.json
    run $T --model small --out out "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'294 ids'*'256'* ]]
}

@test "a cut shard is an error before anything is trained, and a cut stream after what came whole was saved" {
    head -c $(($(stat -c %s "$W/train.shard") - 50)) "$W/train.shard" > cut.shard
    run $T --out out cut.shard
    [ "$status" = 1 ]
    [ ! -e out/metrics.jsonl ]
    run bash -c "head -c 1000 $W/train.shard | $T --schedule constant --warmup 0 --out piped"
    [ "$status" = 1 ]
    [ ! -f piped/adapter_config.json ]
}

@test "a loss that is not a number stops the run, names the op and keeps the checkpoints" {
    run $T --lr 1e6 --clip 0 --schedule constant --warmup 0 --save-steps 1 --epochs 9 --out out "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'update '*' is not a number: '@('model.layers.'*|'a gradient of '*)' is NaN or infinite at element '* ]] || { echo "$output"; false; }
    [ -d out/checkpoint-1 ]
    [ ! -f out/adapter_config.json ]
}

@test "data that never trains the end token is warned of" {
    for i in 1 2 3; do echo '{"prompt": "say", "completion": "it"}'; done > none.jsonl
    swift-tokenize -q --model "$W/model" --out none.shard none.jsonl
    run $T --max-steps 1 --out out none.shard
    [[ $output == *"trains the template's end token <|im_end|>"* ]]
}

@test "data without records or without labels is an error, and leaves no result" {
    : > none.jsonl
    for i in 1 2 3; do echo '{"messages": [{"role": "user", "content": "hi"}]}'; done > unanswered.jsonl
    for how in "--max-steps 3" "--epochs 2"; do
        fails 1 "standard input: holds no records" bash -c "swift-tokenize -q --model $W/model none.jsonl 2> /dev/null | $T $how --out out"
        [ ! -e out/adapter_config.json ]
    done
    swift-tokenize -q --model "$W/model" --out un.shard unanswered.jsonl
    fails 1 "un.shard: the records hold no labelled tokens" $T --out out un.shard
    [ ! -e out/adapter_config.json ]
}

@test "a limit on memory is kept" {
    run $T --max-memory 10K --out out "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'--max-memory 10'*'alone take'* ]]
    run $T --max-memory 1M --batch 40 --out out "$W/train.shard"
    [ "$status" = 1 ]
    [ ! -f out/adapter_config.json ]
}

@test "the longest batch is checked at the start, not when it comes" {
    for i in $(seq 60); do echo "{\"query\": \"a\", \"response\": \"$(printf 'b%.0s' $(seq $((i == 60 ? 200 : 3))))\"}"; done |
        swift-tokenize -q --model "$W/model" --out long.shard
    run $T --no-shuffle --batch 2 --max-memory 2M --out out long.shard
    [ "$status" = 1 ]
    [[ $output == *'a batch of 2 records of the longest length (213 tokens) will take about '*'--recompute'* ]]
    [ "$(metrics train out | wc -l)" = 1 ]
    $T --no-shuffle --batch 2 --max-memory 20M --out out long.shard
}

@test "the estimate trains nothing and names what it would take" {
    run swift-train --model "$W/model" --dtype f32 --estimate --epochs 3 "$W/train.shard"
    [ "$status" = 0 ]
    [[ $output == *'trained '*'updates          30 of 4 records'*'memory, most'*'tokens/s'* ]]
}

@test "metrics on standard output are JSON lines and nothing else; SIGUSR1 draws a plot" {
    $T --max-steps 3 --metrics - --out out "$W/train.shard" > lines
    python3 -c 'import json,sys; k = [json.loads(l)["kind"] for l in open("lines")]; assert k.count("train") == 3 and k[0] == "start" and k[-1] == "end", k'
    $T --max-steps 100000 --plot out2.svg --out out2 "$W/train.shard" &
    for i in $(seq 3000); do [ -s out2/metrics.jsonl ] && [ "$(grep -c train out2/metrics.jsonl)" -gt 2 ] && break; sleep 0.02; done
    kill -USR1 $!
    for i in $(seq 3000); do [ -s out2.svg ] && break; sleep 0.02; done
    kill -TERM $!; wait $! || true
    grep -q '<svg' out2.svg
}

@test "a plot of nothing but zeros says nothing" {
    swift-train -q --model "$W/model" --dtype f32 --lr 0 --max-steps 2 --out out "$W/train.shard" 2> told
    [ ! -s told ] && [ -s out/plot.svg ] || { cat told; false; }
}

@test "a full disk fails with one error and leaves no result" {
    run bash -c "ulimit -f 150; $T --tuner full --max-steps 2 --out out $W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'File too large'* && ${#lines[@]} = 1 ]]
    run bash -c "$T --max-steps 2 --metrics - --out full $W/train.shard > /dev/full"
    [ "$status" = 1 ]
    [[ $output == *'standard output: write: No space left'* && ${#lines[@]} = 1 ]]
    [ ! -f out/config.json ] && [ -z "$(ls -A out | grep -E 'tmp|checkpoint|result')" ] || false
    # The earlier checkpoints of a run stay good.
    $T --tuner full --max-steps 2 --out out --overwrite "$W/train.shard"
    run bash -c "ulimit -f 150; $T --tuner full --max-steps 4 --resume --out out $W/train.shard"
    [ "$status" = 1 ]
    $T --tuner full --max-steps 4 --resume --out out "$W/train.shard"
    $T --tuner full --max-steps 4 --out whole "$W/train.shard"
    cmp out/model.safetensors whole/model.safetensors
}

@test "wrong usage is told" {
    for bad in "--tuner what" "--schedule what" "--optimizer what" "--early-stop 3" "--plot x.pdf" "--lr -3" "--resume --overwrite"; do
        run $T $bad --out out "$W/train.shard"
        [ "$status" = 2 ]
    done
    run swift-train --model "$W/model" "$W/train.shard"
    [ "$status" = 2 ]
    [[ $output == *'--out is needed'* ]]
}
