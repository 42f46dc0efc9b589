#!/usr/bin/env bats
# Heads for classes made over bases that have none: language models, masked ones and bare encoders. The bases are the tiny
# checkpoints of the golden tests.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    for m in llama gpt2 bert_mlm modernbert_cls opt_350m olmo2; do
        mkdir $m
        cp "$BATS_TEST_DIRNAME/../golden/llm/$m/"{config.json,model.safetensors} $m/
        byte_tokenizer $m
    done
    # Bare encoders: without their heads, BERT's also without "bert." before its names.
    python3 - <<'E2'
import json, os, shutil, struct
def bare(source, to, architecture, cut, gone):
    shutil.copytree(source, to)
    d = open(source + "/model.safetensors", "rb").read()
    n = struct.unpack("<Q", d[:8])[0]
    h, body = json.loads(d[8:8 + n]), d[8 + n:]
    out, data = {}, b""
    for k, v in h.items():
        if k != "__metadata__" and not any(g in k for g in gone):
            a, b = v["data_offsets"]
            out[k.removeprefix(cut)] = {**v, "data_offsets": [len(data), len(data) + b - a]}
            data += body[a:b]
    text = json.dumps(out).encode()
    text += b" " * (-len(text) % 8)
    open(to + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
    c = json.load(open(to + "/config.json"))
    c["architectures"] = [architecture]
    for k in ("id2label", "label2id"):
        c.pop(k, None)
    json.dump(c, open(to + "/config.json", "w"))
bare("bert_mlm", "bare", "BertModel", "bert.", ["pooler", "cls."])
bare("modernbert_cls", "modern", "ModernBertModel", "", ["classifier.", "head."])
c = json.load(open("llama/config.json"))
del c["pad_token_id"]
json.dump(c, open("llama/config.json", "w"))
E2
    # The class is the letter.
    for i in $(seq 60); do
        k=$((i % 3)) letters=(a b c) names=(low mid high)
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))\", \"label\": $k}"
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))\", \"label\": \"${names[$k]}\"}" >&3
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))\", \"label\": $((k - 1)).5}" >&4
        echo "{\"tokens\": [\"${letters[$k]}x\", \"y${letters[$k]}\"], \"tags\": [\"${names[$k]}\", \"O\"]}" >&5
    done > numbers.jsonl 3> names.jsonl 4> values.jsonl 5> words.jsonl
    swift-tokenize -q --model llama --task classify --out numbers.shard numbers.jsonl
    swift-tokenize -q --model llama --task classify --labels low,mid,high --out names.shard names.jsonl
    swift-tokenize -q --model llama --task classify --out values.shard values.jsonl
    swift-tokenize -q --model llama --task tag --labels O,low,mid,high --out words.shard words.jsonl
    export T="swift-train -q -j 1 --dtype f32 --plot none --batch 6"
}

# A tokenizer of the models' size: byte-level BPE over printable bytes.
byte_tokenizer() {
    python3 - "$1" <<'E2'
import json, sys
special = [{"id": i, "content": t, "special": True} for i, t in enumerate(("<pad>", "<s>", "</s>"))]
vocab = {chr(c): c - 30 for c in range(33, 124)}
json.dump({"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
           "post_processor": None, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": []}}, open(sys.argv[1] + "/tokenizer.json", "w"))
json.dump({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, open(sys.argv[1] + "/tokenizer_config.json", "w"))
E2
}

setup() { cd "$BATS_TEST_TMPDIR"; }

# config FILE EXPRESSION: of Python, over c
config() { python3 -c "import json; c = json.load(open('$1')); assert $2, c"; }

@test "a LoRA with a new head learns classes over a language model; it is found again beside its adapter, merged, and trained on" {
    $T --model "$W/llama" --labels low,mid,high --lr 0.01 --epochs 10 --val "$W/names.shard" --out lora "$W/names.shard"
    [ "$(kind eval lora | tail -1 | field accuracy)" = 1 ]
    tr -d ' \n' < lora/adapter_config.json | grep -q '"modules_to_save":\["score"\]'
    config lora/config.json "c['architectures'] == ['LlamaForSequenceClassification'] and c['id2label'] == {'0': 'low', '1': 'mid', '2': 'high'}"
    config lora/config.json "c['label2id']['mid'] == 1 and c['problem_type'] == 'single_label_classification' and c['pad_token_id'] == 0"
    swift-infer -q -b 7 --dtype f32 -m "$W/llama" -a lora "$W/names.jsonl" > answers
    python3 -c "
import json
rows = [json.loads(line) for line in open('answers')]
assert len(rows) == 60 and all(r['class'] == r['label'] for r in rows)"
    swift-merge -q --model "$W/llama" --adapter lora --out merged
    swift-infer -q --dtype f32 -m merged "$W/names.jsonl" | sed 's/, "scores.*//' | cmp - <(sed 's/, "scores.*//' answers)
    ! grep -q lm_head merged/model.safetensors || false
    config merged/config.json "c['architectures'] == ['LlamaForSequenceClassification'] and c['pad_token_id'] == 0"
    $T --model "$W/llama" --adapter lora --lr 0 --max-steps 1 --val "$W/names.shard" --eval-first --out more "$W/names.shard"
    awk -v a="$(kind eval lora | tail -1 | field loss)" -v b="$(kind eval more | head -1 | field loss)" 'BEGIN {exit !((a - b) ^ 2 < 1e-10 * a * a)}'
    rm lora/config.json # as PEFT leaves it: the head's rows say how many classes there are
    swift-infer -q -b 7 --dtype f32 -m "$W/llama" -a lora "$W/numbers.jsonl" | python3 -c "
import json, sys
assert all(r['class'] == f'LABEL_{r[\"label\"]}' for r in map(json.loads, sys.stdin))"
}

@test "all weights learn with a new head over each kind of base, and are written as the class with the head" {
    for m in gpt2:GPT2:score bert_mlm:Bert:classifier bare:Bert:classifier modern:ModernBert:classifier opt_350m:OPT:score olmo2:Olmo2:score; do
        IFS=: read -r name class head <<< "$m"
        $T --model "$W/$name" --labels 3 --dropout 0 --tuner full --lr 0.003 --epochs 8 --val "$W/numbers.shard" --out $name "$W/numbers.shard"
        [ "$(kind eval $name | tail -1 | field accuracy)" = 1 ]
        config $name/config.json "c['architectures'] == ['${class}ForSequenceClassification'] and c['id2label']['2'] == 'LABEL_2'"
        grep -q "\"$head.weight\"" $name/model.safetensors
        ! grep -q '"lm_head\|"cls\.\|"decoder\.' $name/model.safetensors || false
        $T --model $name --dropout 0 --lr 0 --max-steps 1 --val "$W/numbers.shard" --eval-first --out again-$name "$W/numbers.shard"
        awk -v a="$(kind eval $name | tail -1 | field loss)" -v b="$(kind eval again-$name | head -1 | field loss)" 'BEGIN {exit !((a - b) ^ 2 < 1e-8 * a * a)}'
    done
    grep -q '"bert.embeddings.word_embeddings.weight"' bare/model.safetensors
    grep -q '"bert.pooler.dense.weight"' bare/model.safetensors
}

@test "words get classes, values one score; what is new is saved beside an adapter" {
    $T --model "$W/llama" --labels O,low,mid,high --task tag --lr 0.01 --epochs 10 --val "$W/words.shard" --out words "$W/words.shard"
    [ "$(kind eval words | tail -1 | field accuracy)" = 1 ]
    config words/config.json "c['architectures'] == ['LlamaForTokenClassification'] and 'problem_type' not in c"
    swift-infer -q --dtype f32 -m "$W/llama" -a words "$W/words.jsonl" | python3 -c "
import json, sys
assert all(r['classes'] == r['tags'] for r in map(json.loads, sys.stdin))"
    $T --model "$W/gpt2" --labels O,low,mid,high --task tag --max-steps 1 --out gpt2 "$W/words.shard"
    grep -q '"base_model.model.classifier.weight"' gpt2/adapter_model.safetensors
    $T --model "$W/llama" --labels 1 --lr 0.01 --epochs 15 --val "$W/values.shard" --eval-first --out value "$W/values.shard"
    awk "BEGIN {exit !($(kind eval value | tail -1 | field loss) < 0.05 && $(kind eval value | head -1 | field loss) > 1)}"
    config value/config.json "c['problem_type'] == 'regression' and c['id2label'] == {'0': 'LABEL_0'}"
    $T --model "$W/bare" --labels 3 --max-steps 1 --out bare "$W/numbers.shard"
    tr -d ' \n' < bare/adapter_config.json | grep -q '"modules_to_save":\["classifier","pooler"\]'
    grep -q '"base_model.model.bert.pooler.dense.weight"' bare/adapter_model.safetensors
    swift-quant -q --model "$W/llama" --type q8_0 --out llama.gguf
    $T --model llama.gguf --labels O,low,mid,high --task tag --lr 0.01 --epochs 10 --val "$W/words.shard" --out gguf "$W/words.shard"
    [ "$(kind eval gguf | tail -1 | field accuracy)" = 1 ]
    swift-infer -q --dtype f32 -m llama.gguf -a gguf "$W/words.jsonl" | python3 -c "
import json, sys
assert all(r['classes'] == r['tags'] for r in map(json.loads, sys.stdin))"
    $T --model "$W/llama" --labels 3 --problem multi --max-steps 1 --out multi "$W/numbers.shard"
    config multi/config.json "c['problem_type'] == 'multi_label_classification'"
}

@test "values are drawn by the seed as transformers' distribution has them; a run that stopped goes on to the same bits" {
    run() { $T --model "$W/llama" --labels 3 --lr 0.01 --schedule constant --warmup 0 "$@" "$W/numbers.shard"; }
    run --max-steps 4 --out whole
    run --max-steps 2 --save-steps 2 --out parts
    run --max-steps 4 --resume --out parts
    run --max-steps 4 --seed 7 --out other
    cmp whole/adapter_model.safetensors parts/adapter_model.safetensors
    ! cmp -s whole/adapter_model.safetensors other/adapter_model.safetensors || false
    fails 1 "labels was" $T --model "$W/llama" --labels a,b,c --max-steps 6 --resume --out parts "$W/numbers.shard"
    # normal, 0.02 wide, cut at two deviations where ModernBERT's configuration says so
    $T --model "$W/llama" --labels 200 --tuner full --lr 0 --max-steps 1 --weight-decay 0 --out drawn "$W/numbers.shard"
    $T --model "$W/modern" --labels 200 --tuner full --lr 0 --max-steps 1 --weight-decay 0 --out cut "$W/numbers.shard"
    python3 - <<'E2'
import json, struct, math
def read(path, name):
    d = open(path + "/model.safetensors", "rb").read()
    n = struct.unpack("<Q", d[:8])[0]
    t = json.loads(d[8:8 + n])[name]
    a, b = t["data_offsets"]
    return t["shape"], struct.unpack(f"<{(b - a) // 4}f", d[8 + n + a:8 + n + b])
def spread(v): return math.sqrt(sum(x * x for x in v) / len(v))
shape, v = read("drawn", "score.weight")
assert shape[0] == 200 and abs(spread(v) / 0.02 - 1) < 0.05 and abs(sum(v) / len(v)) < 0.001 and max(v) > 0.05, (shape, spread(v))
shape, v = read("cut", "classifier.weight")
wide = 1 / math.sqrt(shape[1])
assert max(map(abs, v)) <= 2 * wide * 1.0001 and abs(spread(v) / wide / 0.8796 - 1) < 0.05, spread(v) / wide
assert set(read("cut", "classifier.bias")[1]) == {0}
E2
}

@test "what has no head, or labels that are none, is refused" {
    fails 1 "'odd' is the name of a class; --labels says" swift-tokenize -q --model "$W/llama" --task classify --out x <<< '{"text": "a", "label": "odd"}'
    fails 1 "odd is none of the 2 classes, low, high (0 to 1)" swift-tokenize -q --model "$W/llama" --task classify --labels low,high --out x <<< '{"text": "a", "label": "odd"}'
    fails 1 "2 is none of the 2 classes" swift-tokenize -q --model "$W/llama" --task classify --labels low,high --out x <<< '{"text": "a", "label": 2}'
    fails 1 "has the name of one before it" swift-tokenize -q --model "$W/llama" --task classify --labels low,low --out x <<< '{"text": "a", "label": 2}'
    fails 2 "--labels names the classes of --task classify or tag" swift-tokenize -q --model "$W/llama" --labels a --out x <<< '{"text": "a"}'
    fails 1 "a record's label is 2; the model has the classes 0 to 1" $T --model "$W/llama" --labels 2 --out x "$W/numbers.shard"
    fails 1 "its 3 classes are not those of the model, which has 3 (id2label of its config.json, or --labels): class 0 is low and LABEL_0" $T --model "$W/llama" --labels 3 --out x "$W/names.shard"
    swift-tokenize -q --model "$W/llama" --task tag --out plain.shard <<< '{"tokens": ["a"], "tags": [5]}'
    fails 1 "a word's class is 5, the model has the classes 0 to 1" $T --model "$W/llama" --labels 2 --task tag --out x plain.shard
    fails 1 "is a classifier or reward model with 3 classes already" $T --model "$BATS_TEST_DIRNAME/../golden/llm/roberta_cls" --labels 2 --out x "$W/numbers.shard"
    fails 1 "T5ForConditionalGeneration has an encoder and a decoder, and gets no head for classes" $T --model "$BATS_TEST_DIRNAME/../golden/llm/t5_plain" --labels 2 --out x "$W/numbers.shard"
    fails 1 "MambaForCausalLM (mamba) is not known to have a head for classes of texts" $T --model "$BATS_TEST_DIRNAME/../golden/llm/mamba" --labels 2 --out x "$W/numbers.shard"
    fails 1 "OPTForCausalLM (opt) is not known to have a head for classes of words" $T --model "$W/opt_350m" --labels 2 --task tag --out x "$W/words.shard"
    fails 1 "which the objective sft cannot use" $T --model "$W/llama" --out x "$W/numbers.shard"
    fails 2 "--labels and --adapter exclude each other" $T --model "$W/llama" --labels 2 --adapter x --out x "$W/numbers.shard"
    fails 2 "--task says what the new head of --labels is for" $T --model "$W/llama" --task tag --out x "$W/words.shard"
}
