#!/usr/bin/env bats
# swift-train on several ranks, as mpirun starts them, beside one process on the same records.

setup_file() {
    export W=$BATS_FILE_TMPDIR OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 42); do # not a multiple of an update: some ranks have no records in the last one
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"it is $((i % 5)), $(printf 'ab%.0s' $(seq $((i % 7 + 1))))\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    head -13 train.jsonl | swift-tokenize -q --model model --out val.shard
    export T="swift-train -q --model $W/model --plot none --lr 0.01 -j 1 --batch 2 --accumulate 4"
    # Small buckets, so that there are many
    $T --dtype f32 --epochs 2 --tuner full --val val.shard --out full train.shard
    $T --dtype f32 --epochs 2 --lora-dropout 0.2 --val val.shard --out lora train.shard
}

setup() { cd "$BATS_TEST_TMPDIR"; }
ranks() { timeout 120 mpirun --oversubscribe --bind-to none -n "$@"; }
# Two ranks, the second with what comes after the slashes. (Some mpirun cannot start programs that differ.)
apart() {
    ranks 2 bash -c 'first=()
        while [ "$1" != // ]; do first+=("$1"); shift; done
        if [ $OMPI_COMM_WORLD_RANK = 0 ]; then exec "${first[@]}"; else shift; exec "$@"; fi' - "$@"
}
numbers() { grep "\"kind\": *\"$1\"" "$2/metrics.jsonl" | sed -E 's/.*"loss": *([^,]*).*"(grad_norm|perplexity)": *([^,]*),.*/\1 \3/'; }
# Losses and norms of two runs, all and equal but for rounding
near() {
    [ "$(numbers "$1" "$2" | wc -l)" -gt "${4:-1}" ]
    diff <(numbers "$1" "$2" | wc -l) <(numbers "$1" "$3" | wc -l)
    paste <(numbers "$1" "$2") <(numbers "$1" "$3") |
        awk 'function off(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} off($1, $3) || off($2, $4) {print "differs: " $0; bad = 1} END {exit bad}'
}
newest() { ls "$1" | sed -nE 's/^checkpoint-([0-9]+)$/\1/p' | sort -n | tail -1; } # whole ones
# Ranks that note their process numbers, so that one of them can be killed
noted() { n=$1; shift; ranks "$n" sh -c 'echo $$ > pid.$OMPI_COMM_WORLD_RANK; exec "$@"' - "$@"; }
updates() { for i in $(seq 400); do [ -f "$1/metrics.jsonl" ] && [ "$(grep -c '"train"' "$1/metrics.jsonl")" -ge "$2" ] && return; sleep 0.05; done; return 1; }

@test "2 and 4 ranks train every weight to the losses of one process, whatever they share" {
    for shard in none optimizer gradients parameters; do
        for n in 2 4; do
            ranks $n $T --dtype f32 --epochs 2 --tuner full --shard $shard --bucket 1K --val "$W/val.shard" --out $shard-$n "$W/train.shard"
            near train "$W/full" $shard-$n 10
            near eval "$W/full" $shard-$n
        done
    done
}

@test "2 and 4 ranks train a LoRA with dropout to the losses of one process" {
    for run in "2 none 1K" "2 gradients 16M" "4 optimizer 1K" "4 parameters 1K --recompute"; do
        set -- $run
        ranks $1 $T --dtype f32 --epochs 2 --lora-dropout 0.2 --shard $2 --bucket $3 $4 --val "$W/val.shard" --out $2 "$W/train.shard"
        near train "$W/lora" $2 10
        near eval "$W/lora" $2
    done
}

@test "ranks train a LoRA whose Linears share products to the losses of one process" {
    $T --dtype f32 --epochs 1 --out one "$W/train.shard"
    for run in "2 gradients 1K" "4 parameters 1K --recompute"; do
        set -- $run
        ranks $1 $T --dtype f32 --epochs 1 --shard $2 --bucket $3 $4 --out $2 "$W/train.shard"
        near train one $2 4
    done
}

@test "ranks that share a mixture of experts train it, or a LoRA on it, to the losses of one process" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" model --experts 4
    for tuner in full lora; do
        T="$T --model model --dtype f32 --max-steps 4 --tuner $tuner" # the last --model counts
        $T --out one-$tuner "$W/train.shard"
        ranks 2 $T --shard parameters --bucket 1K --out two-$tuner "$W/train.shard"
        near train one-$tuner two-$tuner 3
    done
}

@test "two runs give the same bits, in bf16 too, and what is shared changes none" {
    for out in a b; do
        ranks 4 $T --dtype bf16 --max-steps 4 --tuner full --bucket 1K --out $out "$W/train.shard"
    done
    ranks 4 $T --dtype bf16 --max-steps 4 --tuner full --bucket 1K --shard optimizer --clip 0 --out c "$W/train.shard"
    ranks 4 $T --dtype bf16 --max-steps 4 --tuner full --bucket 1K --clip 0 --out d "$W/train.shard"
    cmp a/checkpoint-4/state.safetensors b/checkpoint-4/state.safetensors
    cmp c/checkpoint-4/state.safetensors d/checkpoint-4/state.safetensors
}

@test "a checkpoint of 2 ranks goes on at 1 and at 4" {
    ranks 2 $T --dtype f32 --epochs 2 --tuner full --shard parameters --bucket 1K --save-steps 5 --keep 0 --out two "$W/train.shard"
    rm -r two/checkpoint-1?
    cp -r two one && cp -r two four || false
    $T --dtype f32 --epochs 2 --tuner full --resume --out one "$W/train.shard"
    ranks 4 $T --dtype f32 --epochs 2 --tuner full --shard gradients --bucket 1K --resume --out four "$W/train.shard"
    near train "$W/full" one 10
    near train "$W/full" four 10
    # and one of 1 at 2
    $T --dtype f32 --epochs 1 --schedule constant --save-steps 2 --out begun "$W/train.shard"
    $T --dtype f32 --epochs 2 --schedule constant --out whole "$W/train.shard"
    ranks 2 $T --dtype f32 --epochs 2 --schedule constant --shard optimizer --resume --out begun "$W/train.shard"
    near train whole begun 10
}

@test "a stream reaches all ranks through rank 0, spooled or not" {
    cat "$W/train.shard" | ranks 2 $T --dtype f32 --epochs 2 --lora-dropout 0.2 --shard parameters --out spooled
    near train "$W/lora" spooled 10
    $T --dtype f32 --schedule constant --warmup 0 --out one < <(cat "$W/train.shard")
    cat "$W/train.shard" | ranks 4 $T --dtype f32 --schedule constant --warmup 0 --out once
    near train one once 4
    head -c $(($(stat -c %s "$W/train.shard") - 50)) "$W/train.shard" > cut.shard
    run ranks 2 $T --dtype f32 --schedule constant --warmup 0 --out cut < cut.shard
    [ "$status" = 1 ]
    [ "$(grep -c '^swift-train' <<< "$output")" = 1 ]
}

@test "what ranks share takes less memory on each" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" big --vocab 60000
    for shard in none optimizer gradients parameters; do
        ranks 2 swift-train -q --model big --plot none --dtype f32 --tuner full -j 1 --batch 2 --accumulate 2 --max-steps 2 --shard $shard --out $shard "$W/train.shard"
        grep '"train"' $shard/metrics.jsonl | tail -1 | sed -E 's/.*"memory": *([0-9]*).*/\1/'
    done > memory
    # 3.9 million values of 4 bytes: two moments, gradients, and the values themselves, of each half
    awk '{m[NR] = $1 / 1e6} END {print m[1], m[2], m[3], m[4]; exit !(m[1] - m[2] > 13 && m[2] - m[3] > 6 && m[3] - m[4] > 6)}' memory
}

@test "SIGTERM to any rank saves, and the run goes on from there" {
    noted 2 $T --dtype f32 --max-steps 100000 --shard gradients --out out "$W/train.shard" 2> told &
    updates out 3
    kill -TERM $(cat pid.1)
    status=0
    wait $! || status=$?
    [ "$status" != 0 ]
    n=$(newest out)
    grep -q "interrupted after update $n; --resume goes on from there" told
    ranks 2 $T --dtype f32 --max-steps $((n + 2)) --epochs 100000 --resume --out out "$W/train.shard"
    [ -d out/checkpoint-$((n + 2)) ]
}

@test "a rank that is killed ends all, and the last checkpoint stays whole" {
    noted 4 $T --dtype f32 --tuner full --max-steps 100000 --save-steps 2 --shard parameters --out out "$W/train.shard" > told 2>&1 &
    updates out 5
    kill -KILL $(cat pid.2)
    status=0
    wait $! || status=$?
    [ "$status" != 0 ] && [ "$status" != 124 ] || false
    grep -q 'signal 9' told
    for i in 0 1 3; do ! kill -0 $(cat pid.$i) 2> /dev/null; done
    n=$(newest out)
    $T --dtype f32 --tuner full --max-steps $((n + 1)) --epochs 100000 --resume --out out "$W/train.shard"
    [ -d out/checkpoint-$((n + 1)) ]
}

@test "what is wrong is said once" {
    said() { [ "$status" != 0 ] && [ "$(grep -c '^swift-train' <<< "$output")" = 1 ] && grep -q "^swift-train: $1" <<< "$output"; }
    run ranks 3 $T --out out "$W/train.shard"
    said '--batch 2 times --accumulate 4 are 8 records an update, which 3 ranks cannot share evenly'
    run ranks 2 $T --model nothing --out out "$W/train.shard"
    said 'nothing: is no file or folder'
    run ranks 2 $T --shard all --out out "$W/train.shard"
    said '--shard'
    run ranks 2 $T --estimate "$W/train.shard"
    said '--estimate is for one process'
    run apart $T --out out "$W/train.shard" // $T --seed 4 --out out "$W/train.shard"
    said 'rank 1: seed is 0 on rank 0 and 4 here; all ranks need the same'
    run apart $T --out out "$W/train.shard" // $T --out out "$W/val.shard"
    said 'rank 1: data is .* on rank 0 and .* here'
    python3 "$BATS_TEST_DIRNAME/make_model.py" other --scale 2
    run apart $T --out out "$W/train.shard" // $T --model other --out out "$W/train.shard"
    said 'rank 1: .* on rank 0 and .* here; all ranks need the same'
    run apart $T --out out "$W/train.shard" // $T --nothing --out out "$W/train.shard"
    said 'rank 1: there is no option --nothing'
    [ ! -e out/metrics.jsonl ]
    run ranks 2 $T --dtype f32 --lr 1e6 --clip 0 --schedule constant --warmup 0 --epochs 9 --out nan "$W/train.shard"
    said '.*is not a number: model'
}

@test "a rank that fails alone ends all with its reason" {
    # Rank 0 may not write files as long as a checkpoint's
    python3 "$BATS_TEST_DIRNAME/make_model.py" big --vocab 60000
    big="swift-train -q --model big --plot none --dtype f32 --tuner full -j 1 --batch 2 --accumulate 2 --max-steps 2 --save-steps 1 --shard gradients --out out $W/train.shard"
    run apart bash -c 'trap "" XFSZ; ulimit -f 30000; exec "$@"' - $big // $big
    [ "$status" != 0 ] && [ "$status" != 124 ] || false
    grep -q '^swift-train: rank 0: checkpoint: .*File too large' <<< "$output"
    [ -z "$(ls -d out/checkpoint-* 2> /dev/null)" ]
}

@test "several processes without MPI are refused, one is not, and --help takes no time" {
    mkdir -p bin && cp "$(command -v swift-train)" bin/ || false
    run ranks 2 bin/$T --out out "$W/train.shard"
    [ "$status" = 1 ]
    [ "$(grep -c '^swift-train' <<< "$output")" = 1 ]
    grep -q 'mpirun has started 2 processes, for which MPI is needed: .*libswift-mpi.so is not there' <<< "$output"
    bin/$T --max-steps 1 --out out "$W/train.shard"
    ! ldd "$(command -v swift-train)" | grep -q 'libmpi\|libnccl' || false
    SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 run $T --out out2 "$W/train.shard"
    [ "$status" = 1 ]
    [[ $output == *'srun has started 2 processes'*'--mpi=pmix'* ]]
}
