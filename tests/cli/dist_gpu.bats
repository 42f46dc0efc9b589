#!/usr/bin/env bats
# swift-train on emulated GPUs: copies beside kernels; on two of them the NCCL engine, and what ranks share in their memory, beside one
# process.

setup_file() {
    export W=$BATS_FILE_TMPDIR OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 SWIFT_EMULATOR_PIECE=4096
    export TRAIN=$(realpath "$BATS_TEST_DIRNAME/../../build/tests/swift-train-emulated")
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 10); do # not a multiple of an update
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"it is $((i % 5)), $(printf 'ab%.0s' $(seq $((i % 3 + 1))))\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    export O="-q --model $W/model --plot none --lr 0.01 -j 1 --batch 1 --accumulate 4 --dtype f32 --bucket 1K"
    $TRAIN $O --device emulator --tuner full --out full train.shard
}

setup() { cd "$BATS_TEST_TMPDIR"; }
gpus() { timeout 300 mpirun --oversubscribe --bind-to none -n 2 sh -c "exec $TRAIN $O --device emulator:\$OMPI_COMM_WORLD_LOCAL_RANK \"\$@\"" - "$@"; }
numbers() { grep "\"kind\": *\"train\"" "$1/metrics.jsonl" | sed -E 's/.*"loss": *([^,]*).*"grad_norm": *([^,]*),.*/\1 \2/'; }
near() {
    [ "$(numbers "$1" | wc -l)" -gt 1 ]
    diff <(numbers "$1" | wc -l) <(numbers "$2" | wc -l)
    paste <(numbers "$1") <(numbers "$2") |
        awk 'function off(a, b) {return (a - b) ^ 2 > 1e-9 * a * a} off($1, $3) || off($2, $4) {print "differs: " $0; bad = 1} END {exit bad}'
}

@test "batches are sent while the GPU is at work on those before, to the same bits" {
    for late in 0 1; do # the kernels are, the copies are
        SWIFT_EMULATOR_LATE=$late SWIFT_EMULATOR_COUNTS=counts$late $TRAIN $O --device emulator --tuner full --out late$late "$W/train.shard"
        cmp "$W/full/model.safetensors" late$late/model.safetensors
    done
    [ "$(sed -n 's/^beside //p' counts0)" -gt 20 ] # of the batches of some ten parts
}

@test "the host waits for an update's losses and the norm of its gradient, and for nothing else" {
    for n in 1 2; do
        SWIFT_EMULATOR_COUNTS=counts$n $TRAIN $O --device emulator --max-steps $n --out $n "$W/train.shard"
    done
    waits() { sed -n 's/^waits //p' "$1"; }
    [ $(($(waits counts2) - $(waits counts1))) -eq 9 ] # of four parts each token's loss and the likeliest one; the norm
}

@test "what is read ahead is neither lost nor taken twice where a run evaluates, or stops and goes on" {
    train() { $TRAIN $O --device emulator --tuner full --schedule constant --epochs 3 "$@" "$W/train.shard"; }
    train --out whole --save-steps 4 --keep 9
    train --out evaluated --val "$W/train.shard" --eval-steps 1
    mkdir stopped
    cp -r whole/checkpoint-4 whole/metrics.jsonl stopped # as of a run that was killed
    train --out stopped --resume
    for run in evaluated stopped; do
        cmp whole/model.safetensors $run/model.safetensors
        diff <(numbers whole) <(numbers $run)
    done
    [ "$(numbers whole | wc -l)" -eq 9 ]
}

@test "2 GPUs train every weight to the losses of one, whatever they share" {
    for shard in none optimizer gradients parameters; do
        gpus --tuner full --shard $shard --out $shard "$W/train.shard"
        near "$W/full" $shard
    done
}

@test "a LoRA in bf16 trains on 2 GPUs that share what they train" {
    gpus --dtype bf16 --shard parameters --out lora "$W/train.shard"
    [ "$(numbers lora | wc -l)" -gt 1 ]
}

@test "2 GPUs that share a mixture of experts train it to the losses of one" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" model --experts 4
    O="$O --model model --max-steps 2" # the last --model counts
    $TRAIN $O --device emulator --tuner full --out one "$W/train.shard"
    gpus --tuner full --shard parameters --out two "$W/train.shard"
    near one two
}

@test "NCCL that fails on the way ends all ranks with one message" {
    for at in 0 9; do
        SWIFT_EMULATOR_NCCL_FAILS=1:$at run gpus --tuner full --shard gradients --out broken "$W/train.shard"
        [ "$status" -ne 0 ] && [ "$status" -ne 124 ] || false
        [ "$(grep -c 'NCCL: ' <<< "$output")" -eq 1 ]
        [ ! -e broken/model.safetensors ]
    done
}

@test "a GPU that cannot be used, or is too small, is one clear error" {
    refused() { # refused TEXT SETTING...
        text=$1; shift
        run env "$@" $TRAIN $O --device emulator --tuner full --out refused "$W/train.shard"
        [ "$status" -eq 1 ]
        [ "${#lines[@]}" -eq 1 ]
        grep -q -- "$text" <<< "$output"
        [ ! -e refused/model.safetensors ]
    }
    refused "no NVIDIA driver on this machine; install one, or use --device cpu" SWIFT_EMULATOR_DRIVER=0
    refused "driver serves CUDA 12.4 and this build needs 13.0 or later" SWIFT_EMULATOR_DRIVER=12040
    refused "there is a driver but no GPU" SWIFT_EMULATOR_GPUS=0
    refused "has compute capability 6.1, and this build needs 7.5 or later" SWIFT_EMULATOR_CAPABILITY=61
    refused "emulator:0: out of memory" SWIFT_EMULATOR_MEMORY=1000000       # for the device itself
    refused "its weights take .* of which emulator:0 has " SWIFT_EMULATOR_MEMORY=33700000
    refused "out of memory: .* lower the batch size or the length" SWIFT_EMULATOR_MEMORY=34500000
}

@test "2 GPUs where there is one is an error of the rank that has none" {
    SWIFT_EMULATOR_GPUS=1 run gpus --tuner full --out none "$W/train.shard"
    [ "$status" -ne 0 ] && [ "$status" -ne 124 ] || false
    grep -q "device 'emulator:1': this machine has 1 GPU, numbered from 0" <<< "$output"
}
