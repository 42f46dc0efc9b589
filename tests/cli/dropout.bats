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
