#!/usr/bin/env bats
# Options of swift-train, each by what it changes, on a tiny random model.

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

metrics() { grep "\"kind\": *\"$1\"" "$2/metrics.jsonl"; }
same() { cmp "$1/adapter_model.safetensors" "$2/adapter_model.safetensors"; }

# trained OPTION...: names and shapes of what was trained, from the adapter's file
trained() {
    $T --max-steps 2 --lr 0.01 --overwrite --out shaped "$@" "$W/train.shard"
    python3 - <<'E'
import json, struct
d = open("shaped/adapter_model.safetensors", "rb").read()
n = struct.unpack("<Q", d[:8])[0]
for k, v in sorted(json.loads(d[8:8 + n]).items()):
    if k != "__metadata__":
        print(k.removeprefix("base_model.model."), *v["shape"])
E
}

@test "target patterns: names, all-linear, expressions, modules trained whole" {
    [ "$(trained | wc -l)" = 28 ] # two layers, seven Linears, A and B
    [ "$(trained --target-modules all-linear | wc -l)" = 28 ]
    [ "$(trained --target-modules q_proj --target-modules v_proj --lora-r 3)" = "$(for i in 0 1; do
        echo "model.layers.$i.self_attn.q_proj.lora_A.weight 3 64"; echo "model.layers.$i.self_attn.q_proj.lora_B.weight 64 3"
        echo "model.layers.$i.self_attn.v_proj.lora_A.weight 3 64"; echo "model.layers.$i.self_attn.v_proj.lora_B.weight 32 3"; done)" ]
    trained --target-modules 're:.*layers\.1\..*_proj' > names
    [ "$(grep -c layers.1 names)" = 14 ] && ! grep layers.0 names || false
    trained --target-modules q_proj --modules-to-save embed_tokens > names
    grep -q 'embed_tokens.weight 296 64' names
    grep -q '"modules_to_save": *\[' shaped/adapter_config.json
    run $T --target-modules nothing_proj --max-steps 1 --out none "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'no module of this model is meant; its names end in q_proj'* ]]
    for name in q_prj q_proj,v_proj; do # beside a good one, and as one word
        run $T --target-modules v_proj --target-modules $name --max-steps 1 --out none "$W/train.shard"
        [ "$status" = 1 ] && [[ $output == *"--target-modules $name: no module of this model is meant"*'v_proj'* ]] || false
    done
    run $T --modules-to-save nothing --max-steps 1 --out none "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *nothing* ]]
}

@test "rank-stabilised scale, alpha, dropout and label smoothing change what they should" {
    loss() { $T --max-steps 2 --lr 0.02 --warmup 0 --schedule constant --no-shuffle --overwrite --out o "$@" "$W/train.shard"; metrics train o | field loss; }
    loss > plain
    # alpha / sqrt(r) with alpha 8 is alpha / r with alpha 32, when r is 16
    loss --lora-r 16 --lora-alpha 8 --rslora > a
    grep -q '"use_rslora": *true' o/adapter_config.json
    loss --lora-r 16 --lora-alpha 32 > b
    cmp a b
    loss --lora-alpha 1 > small
    [ "$(head -1 small)" = "$(head -1 plain)" ] # B is 0 at first
    [ "$(tail -1 small)" != "$(tail -1 plain)" ]
    loss --lora-dropout 0.5 > dropped; loss --lora-dropout 0.5 > dropped.again
    cmp dropped dropped.again
    [ "$(tail -1 dropped)" != "$(tail -1 plain)" ]
    # (1 - e) H + e U, where U is the mean over the vocabulary: linear in e
    for e in 0 0.2 0.4; do loss --label-smoothing $e | head -1; done > smooth
    awk '{x[NR] = $1} END {d = x[1] - 2 * x[2] + x[3]; exit !(x[1] != x[2] && d * d < 1e-10 * x[1] * x[1])}' smooth
}

@test "learning rates: warm-up, linear, cosine and constant" {
    rates() { $T --max-steps 8 --lr 0.01 --overwrite --out o "$@" "$W/train.shard"; metrics train o | field lr | awk '{printf "%.6f ", $1}'; }
    [ "$(rates --schedule constant --warmup 0)" = '0.010000 0.010000 0.010000 0.010000 0.010000 0.010000 0.010000 0.010000 ' ]
    [ "$(rates --schedule linear --warmup 4)" = '0.000000 0.002500 0.005000 0.007500 0.010000 0.007500 0.005000 0.002500 ' ]
    [ "$(rates --schedule linear --warmup 0.5)" = '0.000000 0.002500 0.005000 0.007500 0.010000 0.007500 0.005000 0.002500 ' ]
    [ "$(rates --schedule cosine --warmup 4)" = '0.000000 0.002500 0.005000 0.007500 0.010000 0.008536 0.005000 0.001464 ' ]
}

@test "several epochs of a pipe see what a file gives, and one pass shuffles within its buffer" {
    $T --epochs 3 --out file "$W/train.shard"
    cat "$W/train.shard" | $T --epochs 3 --out pipe
    same file pipe
    ! ls -A pipe | grep spool || false
    # Read once, the number of updates not known before: each record comes once, in an order of the seed.
    once() { cat "$W/train.shard" | $T --schedule constant --warmup 0 --out "$@"; }
    once a; once b; once c --seed 3; once d --shuffle-buffer 4; once e --no-shuffle
    [ "$(metrics train a | wc -l)" = 10 ]
    same a b
    for x in c d e; do
        ! same a $x || false
        [ "$(metrics train $x | tail -1 | field tokens)" = "$(metrics train a | tail -1 | field tokens)" ]
    done
    $T --schedule constant --warmup 0 --no-shuffle --out f "$W/train.shard"
    same e f
    # A part of a pass, and one that --max-steps ends, are those of a file; a stream that ends first is told.
    for passes in "--epochs 0.5 --schedule constant --warmup 0" "--epochs 1 --max-steps 30" "--epochs 2 --max-steps 13"; do
        cat "$W/train.shard" | $T $passes --overwrite --out pipe
        $T $passes --overwrite --out file "$W/train.shard"
        same file pipe
    done
    cat "$W/train.shard" | $T --max-steps 30 --overwrite --out pipe 2> told
    [ "$(metrics train pipe | wc -l)" = 10 ]
    grep -q 'standard input ended after 10 of 30 updates' told
    # A stop in it goes on at the same record.
    once a --save-steps 3 --keep 0 --overwrite
    rm -r a/checkpoint-6 a/checkpoint-9 a/checkpoint-10
    once a --save-steps 3 --resume
    same a b
}

@test "a signal ends a run that waits for a pipe, which leaves no file" {
    for n in 0 1500; do
        for passes in "--epochs 2" "--max-steps 2" "--estimate"; do
            rm -rf fifo out told; mkfifo fifo
            $T $passes --out out - < fifo 2> told &
            pid=$!
            exec 7> fifo
            head -c $n "$W/train.shard" >&7
            sleep 0.3
            kill -TERM $pid; status=0; wait $pid || status=$?
            exec 7>&-
            [ "$status" = 1 ]
            grep -q interrupted told
            ! ls -A out | grep spool || false
        done
    done
    # Not even after a kill.
    $T --epochs 2 --out out - < fifo &
    pid=$!
    exec 7> fifo
    sleep 0.3
    kill -KILL $pid; wait $pid || true
    exec 7>&-
    ! ls -A out | grep spool || false
    # What was learnt is kept.
    for i in $(seq 100); do cat "$W/train.jsonl"; done | swift-tokenize -q --model "$W/model" --out long.shard
    rm -r out
    $T --schedule constant --warmup 0 --shuffle-buffer 5 --out out - < fifo 2> told &
    pid=$!
    exec 7> fifo
    head -c $(($(stat -c %s long.shard) - 20)) long.shard >&7
    for i in $(seq 3000); do [ -s out/metrics.jsonl ] && [ "$(grep -c train out/metrics.jsonl)" -gt 2 ] && break; sleep 0.02; done
    kill -TERM $pid; status=0; wait $pid || status=$?
    exec 7>&-
    [ "$status" = 1 ] && [ "$(ls -d out/checkpoint-* | wc -l)" = 1 ] || false
    grep -q '; --resume goes on from there' told
}

@test "options that the tuner or the model cannot use are refused" {
    $T --max-steps 1 --lora-r 3 --target-modules v_proj --out small "$W/train.shard"
    for bad in "--tuner full --lora-r 8" "--tuner full --rslora" "--tuner full --modules-to-save lm_head" "--adapter small --lora-r 8" \
               "--adapter small --target-modules q_proj" "--epochs 0" "--epochs 0 --max-steps 3"; do
        run $T $bad --out out "$W/train.shard"
        [ "$status" = 2 ]
    done
    run $T --mask-share 0.3 --out out "$W/train.shard"
    [ "$status" = 1 ] && [[ $output == *'is a language model; --mask-share is for masked language models'* ]] || false
    [ ! -e out/metrics.jsonl ]
    # The options that a run saved are options.
    python3 -c 'import json; o = json.load(open("small/swift-train.json"))["options"]; del o["out"]; json.dump(o, open("same.json", "w"))'
    $T --config same.json --out again "$W/train.shard"
    same small again
    run $T --config same.json --tuner full --out out "$W/train.shard"
    [ "$status" = 2 ] && [[ $output == *'--lora-r is for --tuner lora'* ]] || false
}

@test "checkpoints by the clock, and one by a signal" {
    $T --max-steps 60 --save-steps 1000 --save-minutes 0.0003 --keep 0 --out out "$W/train.shard"
    [ "$(ls -d out/checkpoint-* | wc -l)" -gt 1 ]
    $T --max-steps 100000 --save-steps 1000000 --out out2 "$W/train.shard" 2> told &
    for i in $(seq 3000); do [ -s out2/metrics.jsonl ] && [ "$(grep -c train out2/metrics.jsonl)" -gt 2 ] && break; sleep 0.02; done
    kill -TERM $!; status=0; wait $! || status=$?
    [ "$status" = 1 ] && [ "$(ls -d out2/checkpoint-* | wc -l)" = 1 ] || false
}

@test "bf16 follows f32, and every base type trains" {
    $T --lr 0.01 --epochs 3 --out f32 "$W/train.shard"
    $T --dtype bf16 --lr 0.01 --epochs 3 --out bf16 "$W/train.shard"
    paste <(metrics train f32 | field loss) <(metrics train bf16 | field loss) |
        awk '($1 - $2) ^ 2 > (0.05 * $1 + 0.02) ^ 2 {print; bad = 1} END {exit bad || NR < 30}'
    for t in q4_0 q5_1 bf16; do
        swift-quant -q --model "$W/model" --type $t --out $t.gguf
        for how in "" --dequantise; do
            $T --model $t.gguf --lr 0.01 --epochs 6 $how --overwrite --out $t "$W/train.shard"
            awk "BEGIN {exit !($(metrics train $t | tail -1 | field loss) < 0.6 * $(metrics train $t | head -1 | field loss))}"
        done
    done
}

@test "a base of any quantised type trains as its decoded values do" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" wide --wide
    for t in q8_0 q4_0 q4_1 q5_0 q5_1 q4_k_m q5_k_m q6_k; do
        swift-quant -q --model wide --type $t --out $t.gguf
        swift-merge -q --model $t.gguf --dtype f32 --out decoded
        for m in $t.gguf decoded; do $T --model $m --warmup 0 --lr 0.01 --max-steps 3 --overwrite --out of.$m "$W/train.shard"; done
        paste <(metrics train of.$t.gguf | field loss) <(metrics train of.decoded | field loss) |
            awk '($1 - $2) ^ 2 > 1e-10 * $1 * $1 {print; bad = 1} END {exit bad || NR != 3}'
        metrics train of.decoded | field loss | tail -1 >> last
    done
    [ "$(sort -u last | wc -l)" = 8 ] # all of them another model
}

@test "a base of 8-bit floats with scales trains as its decoded values do, and is merged as they are" {
    for how in row tensor 16; do
        python3 "$BATS_TEST_DIRNAME/make_model.py" base-$how
        python3 "$BATS_TEST_DIRNAME/edit_tensors.py" base-$how "scaled $how"
        swift-merge -q --model base-$how --dtype f32 --out decoded-$how
        ! grep -aq F8_E4M3 decoded-$how/model.safetensors || false
        for m in base-$how decoded-$how; do $T --model $m --warmup 0 --lr 0.01 --max-steps 3 --out of.$m "$W/train.shard"; done
        paste <(metrics train of.base-$how | field loss) <(metrics train of.decoded-$how | field loss) |
            awk '($1 - $2) ^ 2 > 1e-10 * $1 * $1 {print; bad = 1} END {exit bad || NR != 3}'
        for m in base-$how decoded-$how; do swift-merge -q --model $m --adapter of.$m --dtype f32 --out merged.$m; done
        cmp merged.base-$how/model.safetensors merged.decoded-$how/model.safetensors
        $T --model base-$how --tuner full --max-steps 2 --save-dtype f32 --out full "$W/train.shard" --overwrite
        $T --model decoded-$how --tuner full --max-steps 2 --save-dtype f32 --out full-decoded "$W/train.shard" --overwrite
        cmp full/model.safetensors full-decoded/model.safetensors
    done
}

@test "f16 weights of a whole model are trained in their f32 masters, and written as --save-dtype says" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" half --bf16
    $T --model half --tuner full --max-steps 2 --out out "$W/train.shard"
    grep -aq '"BF16"' out/model.safetensors && ! grep -aq '"F32"' out/model.safetensors || false
    $T --model half --tuner full --max-steps 2 --save-dtype f32 --out out32 "$W/train.shard"
    grep -aq '"F32"' out32/model.safetensors && ! grep -aq '"BF16"' out32/model.safetensors || false
    # A rate below what bf16 can show still adds up in the masters.
    $T --model half --tuner full --max-steps 4 --lr 1e-7 --save-dtype f32 --out tiny "$W/train.shard"
    ! cmp -s <(tail -c 100000 tiny/model.safetensors) <(tail -c 100000 out32/model.safetensors) || false
}

@test "bases, shards and settings that are cut, missing or of another shape are named" {
    cp -r "$W/model" bad
    size=$(stat -c %s bad/model.safetensors)
    for n in 0 4 100 $((size / 2)) $((size - 1)); do
        head -c $n "$W/model/model.safetensors" > bad/model.safetensors
        run $T --model bad --out out "$W/train.shard"
        [ "$status" = 1 ]
        [[ $output == *bad/model.safetensors* ]]
    done
    cp "$W/model/model.safetensors" bad/
    for f in config.json tokenizer.json; do
        for n in 0 1 50 200; do
            head -c $n "$W/model/$f" > bad/$f
            run $T --model bad --out out "$W/train.shard"
            [ "$status" = 1 ]
            [[ $output == *bad/$f* ]]
        done
        cp "$W/model/$f" bad/
    done
    swift-quant -q --model "$W/model" --type q8_0 --out base.gguf
    size=$(stat -c %s base.gguf)
    for n in 0 3 4 20 1000 $((size / 2)) $((size - 1)); do
        head -c $n base.gguf > cut.gguf
        run $T --model cut.gguf --out out "$W/train.shard"
        [ "$status" = 1 ]
        [[ $output == *cut.gguf* ]]
    done
    for n in 1 100 $(($(stat -c %s "$W/val.shard") / 2)); do
        head -c $n "$W/val.shard" > cut.shard
        run $T --val cut.shard --out out "$W/train.shard"
        [ "$status" = 1 ]
        [[ $output == *cut.shard* ]]
    done
    run $T --out out missing.shard
    [ "$status" = 1 ] && [[ $output == *missing.shard* ]] || false
    [ ! -f out/adapter_config.json ]
    # A checkpoint that was damaged is no start.
    $T --max-steps 2 --out whole "$W/train.shard"
    for f in state.safetensors trainer_state.json; do
        cp -r whole hurt
        head -c 100 whole/checkpoint-2/$f > hurt/checkpoint-2/$f
        run $T --max-steps 4 --resume --out hurt "$W/train.shard"
        [ "$status" = 1 ]
        [[ $output == *checkpoint-2/$f* ]]
        rm -r hurt
    done
}

@test "an adapter is gone on with, under its own configuration" {
    $T --max-steps 5 --lr 0.01 --lora-r 5 --target-modules q_proj --out one "$W/train.shard"
    $T --max-steps 5 --lr 0.01 --adapter one --out two "$W/train.shard"
    grep -q '"r": *5' two/adapter_config.json
    awk "BEGIN {exit !($(metrics train two | head -1 | field loss) < $(metrics train one | head -1 | field loss))}"
    head -c 1000 one/adapter_model.safetensors > cut; mv cut one/adapter_model.safetensors
    run $T --adapter one --out three "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *one/adapter_model.safetensors* ]]
}
