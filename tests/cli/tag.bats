#!/usr/bin/env bats
# Classes of words: data with a class a word, training, evaluation by spans, and what swift-infer finds. The model is a tiny
# checkpoint of the golden tests.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    mkdir model
    cp "$BATS_TEST_DIRNAME"/../golden/llm/bert_tokens/{config.json,model.safetensors} model/
    # A tokenizer of the model's size: 96 printable bytes, and one word that is a token.
    python3 - <<'E'
import json
vocab = {chr(c): c - 30 for c in range(33, 124)}
vocab.update({"Ġ": 94, "to": 95})
special = [{"id": i, "content": t, "special": True} for i, t in enumerate(("<pad>", "<s>", "</s>"))]
level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
ends = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [], "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((1, "<s>"), (2, "</s>"))}}
json.dump({"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": level, "post_processor": ends,
           "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": vocab, "merges": ["t o"]}}, open("model/tokenizer.json", "w"))
# People are called Ann or Bob and Ny, places are Rome or New Oslo: spans of one word and of two.
rows = []
for i in range(60):
    who, where = [["Ann"], ["Bob", "Ny"]][i % 2], [["Rome"], ["New", "Oslo"]][i // 2 % 2]
    words = who + ["went", "to"] + where + ["."] if i % 3 else where + ["saw"] + who + ["."]
    name = {"Ann": "B-PER", "Bob": "B-PER", "Ny": "I-PER", "Rome": "B-LOC", "New": "B-LOC", "Oslo": "I-LOC"}
    rows.append({"tokens": words, "tags": [name.get(w, "O") for w in words], "id": i})
with open("names.jsonl", "w") as f:
    f.writelines(json.dumps(r) + "\n" for r in rows)
number = {"O": 0, "B-PER": 1, "I-PER": 2, "B-LOC": 3, "I-LOC": 4}
with open("numbers.jsonl", "w") as f:
    f.writelines(json.dumps({"words": r["tokens"], "ner_tags": [number[t] for t in r["tags"]]}) + "\n" for r in rows)
with open("texts.jsonl", "w") as f:
    for r in rows:
        text, entities = "", []
        for w, t in zip(r["tokens"], r["tags"]):
            text += " " if text else ""
            if t[0] == "I":
                entities[-1]["end"] = len(text) + len(w)
            elif t != "O":
                entities.append({"start": len(text), "end": len(text) + len(w), "label": t[2:]})
            text += w
        f.write(json.dumps({"text": text, "entities": entities[::-1]}) + "\n")
E
    for k in names numbers texts; do swift-tokenize -q --model model --out $k.shard $k.jsonl; done
    export T="swift-train -q -j 1 --dtype f32 --plot none --batch 6"
}

setup() { cd "$BATS_TEST_TMPDIR"; }

@test "names, numbers and spans of characters are the same records; the first token of a word has its class" {
    for k in names numbers texts; do swift-tokenize --inspect --model "$W/model" $W/$k.shard | grep -v '^#' > $k; done
    cmp names numbers
    cmp names texts
    # record 1: Bob Ny went to Rome .
    swift-tokenize --inspect --model "$W/model" "$W/names.shard" | sed -n '/^record 1:/,/^record 2:/s/^ *[0-9]* *[0-9]* 0 *//p' | tr '\n' ',' > first
    [ "$(cat first)" = '"<s>","B" B-PER,"o","b"," " I-PER,"N","y"," " O,"w","e","n","t"," " O,"to"," " B-LOC,"R","o","m","e"," " O,".","</s>",' ]
}

@test "all weights learn to find spans; swift-infer finds them in words and in texts" {
    $T --model "$W/model" --tuner full --lr 0.005 --epochs 12 --val "$W/texts.shard" --eval-first --out out "$W/names.shard"
    [ "$(kind eval out | tail -1 | field f1)" = 1 ] && [ "$(kind eval out | tail -1 | field accuracy)" = 1 ] || false
    awk "BEGIN {exit !($(kind eval out | head -1 | field f1) < 0.5 && $(kind eval out | tail -1 | field loss) < 0.05)}"
    [ "$(kind eval out | tail -1 | field words)" = 340 ]
    ! grep -q 'perplexity\|token_accuracy' out/metrics.jsonl || false
    for b in 1 7; do swift-infer -q -b $b --dtype f32 -m out "$W/names.jsonl" > words.$b; done
    sed 's/"scores".*"spans"/"spans"/' words.1 | cmp - <(sed 's/"scores".*"spans"/"spans"/' words.7)
    swift-infer -q --dtype f32 -m out "$W/texts.jsonl" > texts
    python3 - <<'E'
import json
for a, b in zip(map(json.loads, open("words.1")), map(json.loads, open("texts"))):
    assert a["classes"] == a["tags"] == b["classes"] and len(a["scores"]) == len(a["tokens"]) and min(a["scores"]) > 0.5, a
    assert b["words"] == a["tokens"] and "words" not in a
    assert [(s["start"], s["end"], s["label"]) for s in b["spans"]] == sorted((s["start"], s["end"], s["label"]) for s in b["entities"])
    assert all(b["text"][s["start"]:s["end"]] == s["text"] == " ".join(a["tokens"][t["start"]:t["end"]]) for s, t in zip(b["spans"], a["spans"]))
E
}

@test "a LoRA has the head beside it, as PEFT trains it; merged, it is the same classifier" {
    $T --model "$W/model" --lr 0.02 --epochs 15 --val "$W/names.shard" --out lora "$W/names.shard"
    [ "$(kind eval lora | tail -1 | field f1)" = 1 ]
    grep -q '"task_type": "TOKEN_CLS"' lora/adapter_config.json
    tr -d ' \n' < lora/adapter_config.json | grep -q '"modules_to_save":\["classifier"\]'
    swift-merge -q --model "$W/model" --adapter lora --out merged
    swift-infer -q --dtype f32 -m merged "$W/names.jsonl" | sed 's/"scores".*"spans"/"spans"/' > a
    swift-infer -q --dtype f32 -m "$W/model" -a lora "$W/names.jsonl" | sed 's/"scores".*"spans"/"spans"/' | cmp - a
}

@test "neither the split of an update, recomputation nor a stop changes the losses" {
    for how in "one --batch 6" "two --batch 2 --accumulate 3" "three --batch 6 --recompute"; do
        $T --model "$W/model" --max-steps 4 --lr 0.01 --out $how "$W/names.shard"
    done
    cmp one/adapter_model.safetensors three/adapter_model.safetensors
    paste <(kind train one | field loss) <(kind train two | field loss) > both
    awk 'function far(a, b) {return (a - b) ^ 2 > 1e-10 * a * a} far($1, $2) {print; bad = 1} END {exit bad || NR != 4}' both
}

@test "what cannot be learnt is refused, with its place" {
    try() { fails 1 "$2" swift-tokenize -q --model "$W/model" --task tag --out x <<< "$1"; }
    try '{"tokens": ["a", "b"], "tags": ["O"]}' 'line 1: field "tags": a list of 2 classes is needed, one for each of "tokens"'
    try '{"tokens": ["a"], "tags": ["B-ORG"]}' "'B-ORG' is no class of $W/model; \"id2label\" in its config.json names 5, from O to I-LOC"
    try '{"tokens": ["a"], "tags": [5]}' "a word's class is 5; the classes of $W/model are 0 to 4, and -100 is none"
    try '{"tokens": ["a"], "tags": [true]}' 'field "tags[0]": the name or number of a class is needed'
    try '{"tokens": [1], "tags": [1]}' 'are needed'
    try '{"text": "abc", "entities": [{"start": 1, "end": 4, "label": "PER"}]}' 'field "entities[0]": "end": 4 is not'
    try '{"text": "abc", "entities": [{"start": 1, "end": 1, "label": "PER"}]}' 'field "entities[0]": ends at character 1, not behind its start'
    try '{"text": "abcd", "entities": [{"start": 1, "end": 3, "label": "PER"}, {"start": 2, "end": 4, "label": "PER"}]}' 'reaches into "entities[0]"'
    echo '{"text": "abc"}' | swift-tokenize -q --model "$W/model" --out plain
    fails 1 "its words have no classes, which the objective tag learns" $T --model "$W/model" --out x plain
    fails 1 'have "tags", which the objective sft cannot use' $T --model "$BATS_TEST_DIRNAME/../golden/llm/llama" --out x "$W/names.shard"
    cp -r "$W/model" other
    sed -i 's/"I-LOC"/"I-ORG"/' other/config.json
    fails 1 "its 5 classes are not those of the model" $T --model other --out x "$W/names.shard"
    sed -i '/"4": "I-ORG"/d; s/"B-LOC",/"B-LOC"/; s/^{/{"num_labels": 5,/' other/config.json
    fails 1 '"id2label" names 4 classes, the head has 5' swift-infer -q -m other "$W/names.jsonl"
    fails 1 '"tokens" (a list of words) or "text" (a string) is needed' swift-infer -q -m "$W/model" <<< '{"prompt": "a"}'
    fails 1 "--problem is for classifiers of whole texts" $T --model "$W/model" --problem multi --out x "$W/names.shard"
}
