#!/usr/bin/env bats
# Models whose encoder reads what the decoder answers, through all programs, on a tiny random T5.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model --t5
    for i in $(seq 40); do echo "{\"prompt\": \"say $((i % 5))\", \"completion\": \"is $((i % 5))\"}"; done > train.jsonl
    for i in 1 3 4; do echo "{\"prompt\": \"say $i\", \"max_tokens\": 9}"; done > ask.jsonl
    echo '{"prompt": "say 3", "continuations": ["is 3", "is 4", "no"]}' > score.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    export T="swift-train -q -j 1 --dtype f32 --plot none --dropout 0"
    $T --model model --lr 0.01 --epochs 8 --batch 8 --out lora train.shard
}

setup() { cd "$BATS_TEST_TMPDIR"; }
answers() { swift-infer -q -j 1 --dtype f32 "$@" | sed -E 's/.*"text": "([^"]*)".*"finish_reason": "([a-z]*)".*/\1 \2/'; }
losses() { sed -nE 's/.*"kind": "train".*"loss": ([^,]*),.*"grad_norm": ([^,]*),.*/\1 \2/p' "$1/metrics.jsonl"; }
# The bytes of tensors of FOLDER, a digest a line: tensors FOLDER NAME...
tensors() {
    python3 - "$@" <<'E'
import hashlib, json, struct, sys
d = open(sys.argv[1] + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", d[:8])[0]
header = json.loads(d[8:8 + n])
for name in sys.argv[2:] or sorted(k for k in header if k != "__metadata__"):
    a, b = header[name]["data_offsets"]
    print(hashlib.md5(d[8 + n + a:8 + n + b]).hexdigest() if sys.argv[2:] else f'{name} {header[name]["dtype"]} {header[name]["shape"]}')
E
}

@test "what encoder, decoder and adapters drop does not depend on how an update is split" {
    D="swift-train -q -j 1 --dtype f32 --plot none --lr 0.01 --max-steps 3 --dropout 0.2 --lora-dropout 0.3"
    $D --model "$W/model" --batch 4 --out whole "$W/train.shard"
    $D --model "$W/model" --batch 1 --accumulate 4 --recompute --out parts "$W/train.shard"
    paste <(losses whole) <(losses parts) | awk 'function off(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} off($1, $3) || off($2, $4) {print; bad = 1} END {exit bad || NR != 3}'
}

@test "the shard has the prompt as a text of its own, with its end, and the answer as labels" {
    run swift-tokenize --inspect --model "$W/model" --limit 1 "$W/train.shard"
    [[ $output == *'record 0: 11 tokens, 5 labelled'* ]]
    [[ $output == *'5      291 0      "<|endoftext|>"'*'6      105 1      "i"'*'10      291 1      "<|endoftext|>"'* ]]
}

@test "what is cut keeps something to read and something to answer" {
    printf '{"prompt": "say 1", "completion": "is 1"}\n{"prompt": "a", "completion": "%s"}\n' "$(printf 'x%.0s' {1..30})" > in.jsonl
    swift-tokenize -q --model "$W/model" --max-length 9 --truncate left --out left in.jsonl
    run swift-tokenize --inspect --model "$W/model" left
    [[ $output == *'record 0: 9 tokens, 5 labelled'* && $output != *'record 1'* ]]
    swift-tokenize -q --model "$W/model" --max-length 9 --truncate right --out right in.jsonl
    run swift-tokenize --inspect --model "$W/model" right
    [[ $output == *'record 0: 9 tokens, 3 labelled'* && $output == *'record 1: 9 tokens, 7 labelled'* ]]
    fails 2 "a part of an answer has no prompt" swift-tokenize -q --model "$W/model" --max-length 9 --truncate split --out x in.jsonl
}

@test "a LoRA learns to answer what the encoder read; merged, it is the same model" {
    printf 'is 1 stop\nis 3 stop\nis 4 stop\n' > want
    answers -m "$W/model" -a "$W/lora" "$W/ask.jsonl" | cmp - want
    swift-merge -q -m "$W/model" -a "$W/lora" -o merged
    answers -m merged "$W/ask.jsonl" | cmp - want
    [ "$(tensors merged)" = "$(tensors "$W/model")" ]
    for m in "$W/model -a $W/lora" merged; do swift-infer -q --score --dtype f32 -m $m "$W/score.jsonl"; done > scores
    python3 - <<'E'
import json
hung, merged = ([s["logprob"] for s in json.loads(line)["scores"]] for line in open("scores"))
assert max(abs(a - b) for a, b in zip(hung, merged)) < 2e-4, (hung, merged)
assert hung[0] > max(hung[1:]) + 1, hung
E
}

@test "the score of an answer is the sum of what its tokens had when it was written" {
    head -1 "$W/ask.jsonl" | swift-infer -q --dtype f32 --logprobs -m "$W/model" -a "$W/lora" > out
    python3 -c 'import json; o = json.load(open("out")); print(json.dumps({"prompt": "say 1", "continuations": [o["text"]]}))' > in
    swift-infer -q --dtype f32 -m "$W/model" -a "$W/lora" in > scored
    python3 - <<'E'
import json
o, s = json.load(open("out")), json.load(open("scored"))["scores"][0]
assert s["greedy"] and s["tokens"] == len(o["logprobs"]), s
assert abs(sum(t["logprob"] for t in o["logprobs"]) - s["logprob"]) < 1e-4
E
}

@test "prompts of all lengths share batches without a change to their answers" {
    for i in 1 2 3 4 5 6 7; do printf '{"prompt": "%s", "max_tokens": %d, "temperature": 0.9, "seed": %d, "n": 2}\n' "$(printf 'say %.0s' $(seq $((i * i * 3))))" $((i + 4)) $i; done > in.jsonl
    swift-infer -q -j 1 -b 1 --dtype f32 -m "$W/model" in.jsonl > one
    swift-infer -q -j 1 -b 5 --dtype f32 -m "$W/model" in.jsonl > five
    cmp one five
    [ "$(sort -u one | wc -l)" = 14 ]
}

@test "neither the split of an update nor recomputation changes the losses" {
    for how in "one --batch 8" "two --batch 2 --accumulate 4" "three --batch 8 --recompute"; do
        $T --model "$W/model" --max-steps 3 --lr 0.01 --out $how "$W/train.shard"
    done
    cmp one/adapter_model.safetensors three/adapter_model.safetensors
    paste <(losses one) <(losses two) > both
    [ "$(wc -l < both)" = 3 ]
    awk 'function far(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} far($1, $3) || far($2, $4) {print; bad = 1} END {exit bad}' both
}

@test "the embedding that a file holds four times is trained once and written four times" {
    cp -r "$W/model" four
    python3 "$BATS_TEST_DIRNAME/edit_tensors.py" four "copy shared.weight encoder.embed_tokens.weight" \
        "copy shared.weight decoder.embed_tokens.weight" "copy shared.weight lm_head.weight"
    answers -m four "$W/ask.jsonl" > four.told; answers -m "$W/model" "$W/ask.jsonl" | cmp - four.told
    $T --model four --tuner full --max-steps 2 --batch 8 --lr 0.005 --out out "$W/train.shard"
    $T --model "$W/model" --tuner full --max-steps 2 --batch 8 --lr 0.005 --out plain "$W/train.shard"
    [ "$(tensors out)" = "$(tensors four)" ]
    [ "$(tensors out shared.weight encoder.embed_tokens.weight decoder.embed_tokens.weight lm_head.weight | sort -u)" = "$(tensors plain shared.weight)" ]
    [ "$(tensors out shared.weight)" != "$(tensors four shared.weight)" ]
    answers -m out "$W/ask.jsonl" > told; answers -m plain "$W/ask.jsonl" | cmp - told
}

@test "a file without shared.weight has the embedding under another name" {
    cp -r "$W/model" other
    python3 "$BATS_TEST_DIRNAME/edit_tensors.py" other "rename shared.weight decoder.embed_tokens.weight"
    answers -m other "$W/ask.jsonl" > told; answers -m "$W/model" "$W/ask.jsonl" | cmp - told
}

@test "what cannot be is refused" {
    cp -r "$W/model" bad
    python3 "$BATS_TEST_DIRNAME/edit_tensors.py" bad "copy shared.weight encoder.embed_tokens.weight"
    python3 - <<'E'
import json, struct
d = bytearray(open("bad/model.safetensors", "rb").read())
n = struct.unpack("<Q", d[:8])[0]
d[8 + n + json.loads(d[8:8 + n])["encoder.embed_tokens.weight"]["data_offsets"][0] + 3] ^= 1
open("bad/model.safetensors", "wb").write(d)
E
    fails 1 "encoder.embed_tokens.weight has other values than shared.weight" swift-infer -q -m bad "$W/ask.jsonl"
    sed -i 's/"relative_attention_max_distance": 20/"relative_attention_max_distance": 4/' bad/config.json
    fails 1 '"relative_attention_max_distance": 4 is not more than half of' swift-infer -q -m bad "$W/ask.jsonl"
    echo '{"text": "abc"}' > text
    fails 1 "is a text alone" swift-tokenize -q --model "$W/model" --out x text
    fails 2 "--train-on all" swift-tokenize -q --model "$W/model" --train-on all --out x "$W/train.jsonl"
    echo '{"continuations": ["a"]}' > alone
    fails 1 'a "prompt" is needed' swift-infer -q -m "$W/model" alone
    fails 1 "has no place for these ranges of distances" swift-quant -q --model "$W/model" --out x.gguf
}

@test "tokens that a configuration forces begin and end an answer" {
    cp -r "$W/model" forced
    sed -i '0,/{/s//{"forced_bos_token_id": 49,/' forced/config.json
    ask() { swift-infer -q --dtype f32 --max-tokens 5 -m forced <<< '{"prompt": "say 3"}' | sed -E 's/.*"text": "([^"]*)".*/\1/'; }
    first=$(ask)
    echo '{"forced_bos_token_id": 50, "forced_eos_token_id": 51}' > forced/generation_config.json # which counts where it is there
    second=$(ask)
    python3 - "$first" "$second" <<'E'
import json, sys
words = {v: k for k, v in json.load(open("forced/tokenizer.json"))["model"]["vocab"].items()}
assert sys.argv[1][0] == words[49] and sys.argv[2][0] == words[50] and sys.argv[2][-1] == words[51], sys.argv
E
    echo '{"forced_bos_token_id": 4711}' > forced/generation_config.json
    fails 1 'generation_config.json: "forced_bos_token_id": the id of one token is needed, from 0 to' swift-infer -q -m forced "$W/ask.jsonl"
}
