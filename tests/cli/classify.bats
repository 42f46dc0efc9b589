#!/usr/bin/env bats
# Encoders trained by swift-train, and decoders with a score head: classes of texts, and words that are hidden. The models are the
# tiny checkpoints of the golden tests.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    for m in roberta_cls modernbert_cls qwen2_cls bert_mlm; do
        mkdir $m
        cp "$BATS_TEST_DIRNAME/../golden/llm/$m/config.json" "$BATS_TEST_DIRNAME/../golden/llm/$m/model.safetensors" $m/
        # A tokenizer of the model's size: byte-level BPE over 96 printable bytes.
        awk 'BEGIN {
            printf "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<pad>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
            printf "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
            for (i = 33; i < 126; i++) { c = sprintf("%c", i); if (c == "\"" || c == "\\") c = "\\" c; printf "%s\"%s\":%d", (i > 33 ? "," : ""), c, i - 30 }
            printf "},\"merges\":[]}}\n" }' > $m/tokenizer.json
        printf '{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}' > $m/tokenizer_config.json
    done
    python3 - <<'E'
import json
t = json.load(open("bert_mlm/tokenizer.json"))
t["model"]["vocab"] = {k: v for k, v in t["model"]["vocab"].items() if v != 95}
t["added_tokens"].append({"id": 95, "content": "<hidden>", "special": True})
json.dump(t, open("bert_mlm/tokenizer.json", "w"))
E
    printf '{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<hidden>"}' > bert_mlm/tokenizer_config.json
    cp -r qwen2_cls qwen2_lm
    cp "$BATS_TEST_DIRNAME/../golden/llm/qwen2/"{config.json,model.safetensors} qwen2_lm/
    for i in $(seq 60); do echo "{\"text\": \"abcdefgh$((i % 10))ABCDEFGH$((i % 10))\"}"; done > words.jsonl
    swift-tokenize -q --model bert_mlm --out words.shard words.jsonl
    # The class is the letter; several classes are several letters; the values say which.
    for i in $(seq 60); do
        k=$((i % 3)) s=$(((i + i / 3) % 3)) letters=(a b c)
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))\", \"label\": $k}"
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))${letters[$s]}\", \"label\": [$k, $s]}" >&3
        echo "{\"text\": \"$i${letters[$k]}$((i * 7 % 11))\", \"label\": [$((k == 0)), -$((k == 1)).5, $((k == 2)).25]}" >&4
    done > one.jsonl 3> several.jsonl 4> values.jsonl
    for kind in one several values; do
        swift-tokenize -q --model roberta_cls --task classify --out $kind.shard $kind.jsonl
        tail -12 $kind.jsonl | swift-tokenize -q --model roberta_cls --task classify --out $kind.val
    done
    export T="swift-train -q -j 1 --dtype f32 --plot none --batch 6"
}

setup() { cd "$BATS_TEST_TMPDIR"; }

@test "a LoRA and its head learn classes, as PEFT trains them; merged, they are the same classifier" {
    for m in roberta_cls modernbert_cls qwen2_cls; do
        $T --model "$W/$m" --lr 0.01 --epochs 10 --val "$W/one.val" --out $m "$W/one.shard"
        [ "$(kind eval $m | tail -1 | field accuracy)" = 1 ]
        awk "BEGIN {exit !($(kind eval $m | tail -1 | field loss) < 0.05)}"
        ! grep -q 'perplexity\|token_accuracy' $m/metrics.jsonl || false
        [ ! -e $m/generation_config.json ]
    done
    grep -q '"task_type": "SEQ_CLS"' roberta_cls/adapter_config.json
    tr -d ' \n' < roberta_cls/adapter_config.json | grep -q '"modules_to_save":\["classifier"\]'
    tr -d ' \n' < qwen2_cls/adapter_config.json | grep -q '"modules_to_save":\["score"\]'
    python3 - <<'E'
import json, struct
d = open("roberta_cls/adapter_model.safetensors", "rb").read()
names = json.loads(d[8:8 + struct.unpack("<Q", d[:8])[0]])
for n in ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"):
    assert "base_model.model.classifier." + n in names
assert not any("classifier" in n and "lora" in n for n in names)
E
    swift-infer -q -b 5 --dtype f32 -m "$W/roberta_cls" -a roberta_cls "$W/one.jsonl" > answers
    python3 - <<'E'
import json
rows = [json.loads(line) for line in open("answers")]
assert len(rows) == 60 and all(r["class"] == f'LABEL_{r["label"]}' and r["scores"][r["label"]] == max(r["scores"]) for r in rows)
E
    swift-merge -q --model "$W/roberta_cls" --adapter roberta_cls --out merged
    swift-infer -q -b 1 --dtype f32 -m merged "$W/one.jsonl" | sed 's/, "scores.*//' | cmp - <(sed 's/, "scores.*//' answers)
    $T --model merged --lr 0 --max-steps 1 --val "$W/one.val" --eval-first --out again "$W/one.shard"
    awk -v a="$(kind eval roberta_cls | tail -1 | field loss)" -v b="$(kind eval again | head -1 | field loss)" 'BEGIN {exit !((a - b) ^ 2 < 1e-6 * a * a)}'
}

@test "all weights are trained and saved with the configuration's numbers as they were" {
    $T --model "$W/modernbert_cls" --tuner full --lr 0.003 --epochs 4 --val "$W/one.val" --out out "$W/one.shard"
    [ "$(kind eval out | tail -1 | field accuracy)" = 1 ]
    grep -q '"initializer_cutoff_factor": 2\.0,' out/config.json
    $T --model out --lr 0 --max-steps 1 --val "$W/one.val" --eval-first --out again "$W/one.shard"
    awk -v a="$(kind eval out | tail -1 | field loss)" -v b="$(kind eval again | head -1 | field loss)" 'BEGIN {exit !((a - b) ^ 2 < 1e-8 * a * a)}'
}

@test "a text may have several classes, or values" {
    $T --model "$W/roberta_cls" --problem multi --lr 0.01 --epochs 15 --val "$W/several.val" --out several "$W/several.shard"
    [ "$(kind eval several | tail -1 | field accuracy)" = 1 ]
    $T --model "$W/roberta_cls" --problem regression --lr 0.01 --epochs 15 --val "$W/values.val" --eval-first --out values "$W/values.shard"
    awk "BEGIN {exit !($(kind eval values | tail -1 | field loss) < 0.02 && $(kind eval values | head -1 | field loss) > 0.1)}"
    ! grep -q accuracy values/metrics.jsonl || false
    # Without --problem, what the configuration says
    cp -r "$W/roberta_cls" model
    sed -i 's/^{/{"problem_type": "multi_label_classification",/' model/config.json
    swift-infer -q --dtype f32 -m model -a several "$W/several.jsonl" > answers
    python3 - <<'E'
import json
for r in map(json.loads, open("answers")):
    assert r["classes"] == sorted({f"LABEL_{k}" for k in r["label"]}), r
E
    $T --model model --lr 0.01 --max-steps 3 --out told "$W/several.shard"
    $T --model "$W/roberta_cls" --problem multi --lr 0.01 --max-steps 3 --out given "$W/several.shard"
    cmp <(kind train told | field loss) <(kind train given | field loss)
}

@test "a masked language model learns the words that are hidden, the same ones however they are split" {
    $T --model "$W/bert_mlm" --tuner full --lr 0.005 --epochs 12 --val "$W/words.shard" --eval-first --out out "$W/words.shard"
    first=$(kind eval out | head -1 | field loss) last=$(kind eval out | tail -1 | field loss)
    awk "BEGIN {exit !($first > 3 && $last < 1)}"
    tokens=$(kind eval out | head -1 | field tokens) # of 60 texts of 18 words
    [ "$tokens" -gt 120 ] && [ "$tokens" -lt 205 ] || false
    for how in "one --batch 6" "two --batch 2 --accumulate 3" "three --batch 6 --recompute" "half --batch 6 --mask-share 0.5"; do
        $T --model "$W/bert_mlm" --max-steps 3 --lr 0.01 --out $how "$W/words.shard"
    done
    cmp one/adapter_model.safetensors three/adapter_model.safetensors
    paste <(kind train one | field loss) <(kind train two | field loss) > both
    awk 'function far(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} far($1, $2) {print; bad = 1} END {exit bad || NR != 3}' both
    ! cmp -s one/adapter_model.safetensors half/adapter_model.safetensors || false
}

@test "neither the split of an update nor recomputation changes the losses" {
    for how in "one --batch 6" "two --batch 2 --accumulate 3" "three --batch 6 --recompute"; do
        $T --model "$W/qwen2_cls" --max-steps 3 --lr 0.01 --out $how "$W/one.shard"
    done
    cmp one/adapter_model.safetensors three/adapter_model.safetensors
    paste <(kind train one | field loss) <(kind train two | field loss) <(kind train one | field grad_norm) <(kind train two | field grad_norm) > both
    [ "$(wc -l < both)" = 3 ]
    awk 'function far(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} far($1, $2) || far($3, $4) {print; bad = 1} END {exit bad}' both
}

@test "embeddings are printed, pooled and normalised as sentence-transformers' files say" {
    cp -r "$W/bert_mlm" body
    sed -i 's/BertForMaskedLM/BertModel/' body/config.json
    embed() { swift-infer -q --dtype f32 "$@"; }
    head -9 "$W/words.jsonl" > texts
    embed -b 1 -m body texts > mean
    embed -b 4 -m body texts > batched
    mkdir body/1_Pooling
    echo '{"pooling_mode_cls_token": true}' > body/1_Pooling/config.json
    embed -m body texts > first
    cp -r body made # files often name the class that theirs was made from, whose head they lack
    cp "$W/bert_mlm/config.json" made/
    python3 "$BATS_TEST_DIRNAME/edit_tensors.py" made "drop cls.predictions.bias" \
        "drop cls.predictions.transform."{dense,LayerNorm}.{weight,bias}
    embed -m made texts | cmp - first
    swift-quant -q -m made -t f32 -o made.gguf
    embed -m made.gguf texts > written
    swift-merge -q -m made -o again
    grep -q BertModel again/config.json
    embed -m again texts | cmp - first
    rm -r made/1_Pooling
    fails 1 "cls.predictions.decoder.bias [96] is missing" swift-infer -q -m made texts
    echo '[{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]' > body/modules.json
    embed -m body texts > unit
    embed -m "$W/qwen2_lm" --embed texts > decoder
    python3 - <<'E'
import json
rows = {n: [json.loads(line) for line in open(n)] for n in ("mean", "batched", "first", "unit", "decoder", "written")}
for m, b, f, u, d, w in zip(*rows.values()):
    m, b, f, u, w = (r["embedding"] for r in (m, b, f, u, w))
    assert max(abs(x - y) for x, y in zip(f, w)) < 1e-5
    assert len(m) == 32 and max(abs(x - y) for x, y in zip(m, b)) < 1e-5 and max(abs(x - y) for x, y in zip(m, f)) > 0.01
    size = sum(x * x for x in f) ** 0.5
    assert abs(sum(x * x for x in u) - 1) < 1e-5 and max(abs(x / size - y) for x, y in zip(f, u)) < 1e-5
    assert len(d["embedding"]) == 32 and d["text"]
E
    echo '[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]' > body/modules.json
    fails 1 "2_Dense (sentence_transformers.models.Dense) changes the vectors" swift-infer -q -m body texts
    fails 1 "is a classifier or reward model, it makes no embeddings" swift-infer -q --embed -m "$W/roberta_cls" texts
    fails 1 "is read for embeddings; --samples is for answers" swift-infer -q --embed --samples 2 -m "$W/qwen2_lm" texts
    fails 1 "is read for classes; --temperature is for answers" swift-infer -q --temperature 0 -m "$W/roberta_cls" texts
    fails 1 "makes embeddings of whole texts" swift-infer -q --embed -m "$W/qwen2_lm" <<< '{"prompt": "a", "continuations": ["b"]}'
}

@test "how texts are pooled goes from a folder to GGUF and back, and along when a folder is merged" {
    cp -r "$W/bert_mlm" body
    sed -i 's/BertForMaskedLM/BertModel/' body/config.json
    cp -r "$W/qwen2_lm" decoder
    head -3 "$W/words.jsonl" > texts
    for m in body decoder; do
        mkdir $m/1_Pooling
        case $m in body) mode=cls_token ;; *) mode=mean_tokens ;; esac
        echo "{\"pooling_mode_$mode\": true, \"pooling_mode_lasttoken\": false}" > $m/1_Pooling/config.json
        swift-quant -q -m $m -t f32 -o $m.gguf
        swift-merge -q -m $m.gguf -o $m.back
        swift-merge -q -m $m -o $m.again
        for x in $m $m.gguf $m.back $m.again; do
            swift-infer -q --dtype f32 --embed -m $x texts > $x.rows
        done
        python3 - $m $mode <<'E'
import json, sys
m, mode = sys.argv[1:]
rows = {x: [json.loads(line)["embedding"] for line in open(f"{m}{x}.rows")] for x in ("", ".gguf", ".back", ".again")}
for x, got in rows.items():
    assert max(abs(a - b) for u, v in zip(got, rows[""], strict=True) for a, b in zip(u, v)) < 1e-5, x
for x in (".back", ".again"):
    assert [part["path"] for part in json.load(open(f"{m}{x}/modules.json"))] == ["", "1_Pooling"]
    pooling = json.load(open(f"{m}{x}/1_Pooling/config.json"))
    assert pooling["word_embedding_dimension"] == 32 and [k for k, v in pooling.items() if v is True] == ["pooling_mode_" + mode]
E
    done
    rm -r decoder/1_Pooling
    swift-quant -q -m decoder -t f32 -o plain.gguf
    swift-merge -q -m plain.gguf -o plain
    [ ! -e plain/modules.json ]
}

@test "what cannot be learnt is refused" {
    swift-tokenize -q --model "$W/roberta_cls" --out plain "$W/one.jsonl" --map label=
    fails 1 "its records have no label" $T --model "$W/roberta_cls" --out x plain
    fails 1 'have "label", which the objective sft cannot use' $T --model "$BATS_TEST_DIRNAME/../golden/llm/llama" --out x "$W/one.shard"
    fails 1 "2 classes as its label; where a text may have several, give --problem multi" $T --model "$W/roberta_cls" --out x "$W/several.shard"
    echo '{"text": "abc", "label": 3}' | swift-tokenize -q --model "$W/roberta_cls" --task classify --out far
    fails 1 "label is 3; the model has the classes 0 to 2" $T --model "$W/roberta_cls" --out y far
    cp -r "$W/bert_mlm" body
    sed -i 's/BertForMaskedLM/BertModel/' body/config.json
    fails 1 "is an embedding model; language models, masked ones and classifiers are trained" $T --model body --out z "$W/words.shard"
    swift-tokenize -q --model "$W/bert_mlm" --task classify --out labelled "$W/one.jsonl"
    fails 1 'have "label", which the objective mlm cannot use' $T --model "$W/bert_mlm" --out z labelled
    cp -r "$W/bert_mlm" bare
    sed -i 's/, "mask_token": "<hidden>"//' bare/tokenizer_config.json
    fails 1 "has no mask token" $T --model bare --out z "$W/words.shard"
    echo '{"prompt": "a", "continuations": ["b"]}' > both
    fails 1 "which scores whole texts" swift-infer -q -m "$W/roberta_cls" both
    fails 1 "is a masked language model, it cannot generate text" swift-infer -q -m "$W/bert_mlm" "$W/one.jsonl"
    fails 1 "--label-smoothing is for language models" $T --model "$W/roberta_cls" --label-smoothing 0.1 --out z "$W/one.shard"
}
