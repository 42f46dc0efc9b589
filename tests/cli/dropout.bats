#!/usr/bin/env bats
# The dropout that a model's configuration asks for. The model is the tiny GPT-2 of the golden tests.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    for m in none some; do
        mkdir $m
        cp "$BATS_TEST_DIRNAME"/../golden/llm/gpt2/{config.json,model.safetensors} $m/
    done
    sed -i -E 's/"(resid|embd)_pdrop": 0.0/"\1_pdrop": 0.2/; s/"attn_pdrop": 0.0/"attn_pdrop": 0.1/' some/config.json
    python3 - <<'E'
import json
vocab = {chr(c): c - 30 for c in range(33, 125)}
for m in ("none", "some"):
    json.dump({"version": "1.0", "added_tokens": [{"id": i, "content": t, "special": True} for i, t in enumerate(("<pad>", "<s>", "</s>"))],
               "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "post_processor": None,
               "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}, open(m + "/tokenizer.json", "w"))
with open("text.jsonl", "w") as f:
    f.writelines(json.dumps({"text": "abc%ddefg" % (i * 7919)}) + "\n" for i in range(48))
E
    swift-tokenize -q --model none --out text.shard text.jsonl
    export T="swift-train -j 1 --dtype f32 --plot none --batch 6 --tuner full --lr 0.001 --schedule constant --warmup 0"
}

setup() { cd "$BATS_TEST_TMPDIR"; }
losses() { sed -nE 's/.*"kind": "train".*"loss": ([^,]*),.*"grad_norm": ([^,]*),.*/\1 \2/p' "$1/metrics.jsonl"; }

@test "the configuration's dropout is applied; --dropout 0 is a configuration without it; what is not applied is told once" {
    $T --model "$W/some" --max-steps 3 --out some "$W/text.shard" 2> told
    [ "$(grep -c 'asks for attn_pdrop 0.1, which is not applied here' told)" = 1 ]
    $T --model "$W/some" --max-steps 3 --dropout 0 --out off "$W/text.shard" 2> quiet
    $T --model "$W/none" --max-steps 3 --out none "$W/text.shard" 2>> quiet
    ! grep 'not applied' quiet || false
    cmp off/model.safetensors none/model.safetensors
    ! cmp -s some/model.safetensors none/model.safetensors || false
    $T --model "$W/none" --max-steps 3 --dropout 0.2 --out given "$W/text.shard"
    cmp <(losses some) <(losses given)
    fails 1 "drop nothing; leave --dropout out" $T --model "$BATS_TEST_DIRNAME/../golden/llm/llama" --dropout 0.1 --out x "$W/text.shard"
    fails 2 "--dropout -0.5 is negative" $T --model "$W/none" --dropout -0.5 --out x "$W/text.shard"
}

# near A B...: losses and norms of runs, equal but for rounding
near() {
    of=$1; shift
    for run in "$@"; do
        [ "$(losses "$run" | wc -l)" = "$(losses "$of" | wc -l)" ]
        paste <(losses "$of") <(losses "$run") |
            awk 'function off(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} off($1, $3) || off($2, $4) {print "differs: " $0; bad = 1} END {exit bad || !NR}'
    done
}

@test "neither how an update is split nor the number of ranks changes what is dropped" {
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    swift-tokenize -q --model "$W/none" --packing --packing-length 64 --out packed.shard "$W/text.jsonl"
    for data in "$W/text.shard" packed.shard; do
        run() { out=$1; shift; $T -q --model "$W/some" --overwrite --epochs 1 "$@" --out $out $data; }
        run whole --batch 4
        run two --batch 2 --accumulate 2
        run one --batch 1 --accumulate 4
        near whole two one
        T="timeout 120 mpirun --oversubscribe --bind-to none -n 2 $T" run ranks --batch 2 --accumulate 2
        near whole ranks
    done
    lora="swift-train -q -j 1 --dtype f32 --plot none --lr 0.01 --max-steps 4 --dropout 0.1 --lora-dropout 0.3 --target-modules all-linear --target-modules lm_head"
    $lora --model "$W/none" --batch 4 --out lora "$W/text.shard"
    $lora --model "$W/none" --batch 1 --accumulate 4 --recompute --out alone "$W/text.shard"
    $lora --model "$W/none" --batch 4 --lora-dropout 0 --out less "$W/text.shard"
    near lora alone
    ! near lora less > /dev/null || false
    # Experts' adapters, whose rows lie in the order of experts: at once, and one by one where not all are alike.
    mkdir experts
    cp "$BATS_TEST_DIRNAME"/../golden/llm/glm4_moe/{config.json,model.safetensors} "$W/none/tokenizer.json" experts/
    for targets in "--target-modules gate_proj --target-modules up_proj" "--target-modules experts.0.up_proj --target-modules experts.1.up_proj"; do
        lora="swift-train -q -j 1 --dtype f32 --plot none --overwrite --lr 0.01 --max-steps 3 --model experts $targets"
        $lora --lora-dropout 0.3 --batch 4 --out lora "$W/text.shard"
        $lora --lora-dropout 0.3 --batch 1 --accumulate 4 --recompute --out alone "$W/text.shard"
        $lora --batch 4 --out less "$W/text.shard"
        near lora alone
        ! near lora less > /dev/null || false
    done
}

@test "a run that stopped goes on to the same bits; recomputation drops the same values; evaluation drops none" {
    $T -q --model "$W/some" --max-steps 6 --val "$W/text.shard" --eval-first --out whole "$W/text.shard"
    $T -q --model "$W/some" --max-steps 3 --out parts "$W/text.shard"
    $T -q --model "$W/some" --max-steps 6 --resume --out parts "$W/text.shard"
    cmp whole/model.safetensors parts/model.safetensors
    $T -q --model "$W/some" --max-steps 6 --recompute --out again "$W/text.shard"
    cmp whole/model.safetensors again/model.safetensors
    $T -q --model "$W/none" --max-steps 1 --val "$W/text.shard" --eval-first --out none "$W/text.shard"
    first() { grep '"kind": *"eval"' "$1/metrics.jsonl" | head -1 | sed -nE 's/.*"loss": *([^,]*),.*/\1/p'; }
    [ "$(first whole)" = "$(first none)" ]
    fails 1 "dropout was" $T --model "$W/some" --max-steps 9 --dropout 0.5 --resume --out parts "$W/text.shard"
}
