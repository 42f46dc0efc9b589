#!/usr/bin/env bats
# swift-merge as a user runs it, on a tiny random model.

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 40); do
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"$((i % 5)) it is\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    export T="swift-train -q --dtype f32 --plot none --lr 0.01 --epochs 2"
    $T --model model --out lora train.shard
    cat > score.jsonl <<'E'
{"prompt": "say 3", "continuations": [" it is", "abc", "3 it is"]}
{"messages": [{"role": "user", "content": "say 1"}], "continuations": ["1 it is<|im_end|>", "no"]}
E
}

setup() { cd "$BATS_TEST_TMPDIR"; }
scores() { swift-infer -q --score --dtype f32 "$@" "$W/score.jsonl"; }
# Two files of scores differ by at most a log-probability.
near() {
    python3 - "$@" <<'E'
import json, sys
a, b = ([s["logprob"] for line in open(f) for s in json.loads(line)["scores"]] for f in sys.argv[1:3])
worst = max(abs(x - y) for x, y in zip(a, b, strict=True))
sys.exit(0 if worst <= float(sys.argv[3]) else f"{worst}: {a} {b}")
E
}
# name, type and shape of each tensor of safetensors files
tensors() {
    python3 - "$@" <<'E'
import json, struct, sys
for f in sys.argv[1:]:
    d = open(f, "rb").read()
    n = struct.unpack("<Q", d[:8])[0]
    for k, v in sorted(json.loads(d[8:8 + n]).items()):
        if k != "__metadata__":
            print(f.split("/")[-1], k, v["dtype"], v["shape"])
E
}
fails() {
    status=$1; shift
    got=0; "$@" > printed 2> told || got=$?
    [ "$got" = "$status" ] || { echo "status $got, not $status"; cat told; return 1; }
    [ "$(wc -l < told)" = 1 ] || { cat told; return 1; }
}

@test "a merged model scores as the base with its adapter, in its types, names and files" {
    swift-merge -q -m "$W/model" -a "$W/lora" -o merged
    scores -m "$W/model" > base; scores -m "$W/model" -a "$W/lora" > hung; scores -m merged > merged.scores
    near hung merged.scores 2e-4
    ! near base hung 0.1 || false
    [ "$(tensors merged/model.safetensors)" = "$(tensors "$W/model/model.safetensors")" ]
    for f in tokenizer.json; do cmp "$W/model/$f" merged/$f; done
    grep -q '"xxh128": *"[0-9a-f]\{32\}"' merged/swift-merge.json
}

@test "rank-stabilised scales, modules trained whole, and two adapters at once" {
    $T --model "$W/model" --rslora --lora-r 4 --target-modules q_proj --target-modules down_proj --modules-to-save embed_tokens --out one "$W/train.shard"
    swift-merge -q -m "$W/model" -a one -o merged
    scores -m "$W/model" -a one > hung; scores -m merged > whole
    near hung whole 2e-4
    swift-merge -q -m "$W/model" -a one -a "$W/lora" -o both
    scores -m "$W/model" -a one -a "$W/lora" > hung; scores -m both > whole
    near hung whole 2e-4
}

@test "without an adapter every byte stays, and --dtype converts" {
    swift-merge -q -m "$W/model" -o same
    cmp <(tail -c 100000 "$W/model/model.safetensors") <(tail -c 100000 same/model.safetensors)
    for t in bf16 f16; do
        swift-merge -q -m "$W/model" -a "$W/lora" --dtype $t -o $t
        [ "$(tensors $t/model.safetensors | awk '{print $3}' | sort -u)" = ${t^^} ]
        scores -m $t > $t.scores; scores -m "$W/model" -a "$W/lora" > hung
        near hung $t.scores 0.3
    done
    grep -q '"torch_dtype": *"bfloat16"' bf16/config.json
}

@test "a base in several files keeps them" {
    python3 - "$W/model" <<'E'
import json, os, shutil, struct, sys
src = sys.argv[1]
os.mkdir("parts")
for f in os.listdir(src):
    if f != "model.safetensors":
        shutil.copy(f"{src}/{f}", "parts")
d = open(f"{src}/model.safetensors", "rb").read()
n = struct.unpack("<Q", d[:8])[0]
h, body, where = json.loads(d[8:8 + n]), d[8 + n:], {}
for k, part in enumerate([[x for x in h if ".1." in x], [x for x in h if ".1." not in x]]):
    name, at, head, out = f"model-{k + 1:05}-of-00002.safetensors", 0, {}, b""
    for x in part:
        a, b = h[x]["data_offsets"]
        head[x] = h[x] | {"data_offsets": [at, at + b - a]}
        out, at, where[x] = out + body[a:b], at + b - a, name
    text = json.dumps(head).encode()
    open(f"parts/{name}", "wb").write(struct.pack("<Q", len(text)) + text + out)
json.dump({"metadata": {"total_size": len(body)}, "weight_map": where}, open("parts/model.safetensors.index.json", "w"))
E
    swift-merge -q -m parts -a "$W/lora" -o merged
    [ "$(tensors merged/*.safetensors)" = "$(tensors parts/*.safetensors)" ]
    scores -m "$W/model" -a "$W/lora" > hung; scores -m merged > whole
    near hung whole 2e-4
    rm parts/model-00002-of-00002.safetensors
    fails 1 swift-merge -q -m parts -a "$W/lora" -o merged2
    grep -q 'model-00002-of-00002.safetensors' told
}

@test "a GGUF base becomes a folder: weights, configuration, tokenizer, template, end token" {
    for t in f32 q8_0; do
        swift-quant -q -m "$W/model" -t $t -o $t.gguf
        swift-merge -q -m $t.gguf -a "$W/lora" --dtype f32 -o $t
        scores -m $t.gguf -a "$W/lora" > hung; scores -m $t > whole
        near hung whole 2e-4
        swift-tokenize -q --model $t --out t.shard "$W/train.jsonl"
        cmp <(swift-tokenize --inspect "$W/train.shard" | grep -v '^#') <(swift-tokenize --inspect t.shard | grep -v '^#')
    done
    [ "$(tensors f32/model.safetensors | sort)" = "$(tensors "$W/model/model.safetensors" | sort)" ]
    swift-merge -q -m q8_0.gguf -o plain # bf16 where the base is quantised
    [ "$(tensors plain/model.safetensors | awk '!/norm/ {print $3}' | sort -u)" = BF16 ]
    python3 - "$W/model" <<'E'
import json, sys
a, b = (json.load(open(f"{d}/config.json")) for d in (sys.argv[1], "f32"))
for k in ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
          "vocab_size", "rms_norm_eps", "rope_theta", "tie_word_embeddings"):
    assert a[k] == b.get(k) or abs(a[k] - b[k]) < 1e-6 * a[k], (k, a[k], b.get(k)) # metadata has single precision
template = json.load(open(sys.argv[1] + "/tokenizer_config.json"))["chat_template"]
assert json.load(open("f32/tokenizer_config.json"))["chat_template"] == template
g = json.load(open("f32/generation_config.json"))["eos_token_id"]
assert 293 in (g if isinstance(g, list) else [g]), g # <|im_end|>, which was trained
E
}

@test "the template that an adapter was trained with, and its end token, go into the merged model" {
    echo "{% for m in messages %}[{{ m.role }}] {{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}" > mine.jinja
    swift-tokenize -q --model "$W/model" --template mine.jinja "$W/train.jsonl" | $T --model "$W/model" --out mine
    swift-merge -q -m "$W/model" -a "$W/lora" -a mine -o merged
    cmp mine/chat_template.jinja merged/chat_template.jinja
    python3 - <<'E'
import json
c = json.load(open("merged/tokenizer_config.json"))
assert c["chat_template"] == open("mine.jinja").read() or c["chat_template"] == open("mine/chat_template.jinja").read()
assert c["eos_token"] == "<|endoftext|>", c["eos_token"]
first = lambda d: (lambda g: g if isinstance(g, int) else g[0])(json.load(open(d + "/generation_config.json"))["eos_token_id"])
assert first("merged") == first("mine"), first("merged")
E
    scores -m "$W/model" -a "$W/lora" -a mine > hung; scores -m merged > whole
    near hung whole 2e-4
}

@test "a file of settings that is cut is not handed on" {
    cp -r "$W/model" cut
    for f in generation_config.json tokenizer_config.json special_tokens_map.json; do
        for text in '' '{' '{"eos_token_id": 29'; do
            printf '%s' "$text" > cut/$f
            fails 1 swift-merge -q -m cut -o merged
            grep -q "$f" told
            [ ! -e merged ]
        done
        rm cut/$f
        [ ! -e "$W/model/$f" ] || cp "$W/model/$f" cut/
    done
}

@test "an earlier result is replaced, other files are not" {
    swift-merge -q -m "$W/model" -o merged
    swift-merge -q -m "$W/model" -a "$W/lora" -o merged
    mkdir home empty; echo precious > home/letter
    fails 1 swift-merge -q -m "$W/model" -o home
    grep -q 'home: holds files that are not of an earlier merge (letter)' told
    [ "$(cat home/letter)" = precious ]
    swift-merge -q -m "$W/model" -o empty
    [ -f empty/model.safetensors ]
}

@test "adapters that are cut, of other shapes or types, or for other modules" {
    cp -r "$W/lora" bad
    for n in 0 1 7 8 100 5000 $(($(stat -c %s "$W/lora/adapter_model.safetensors") - 1)); do
        head -c $n "$W/lora/adapter_model.safetensors" > bad/adapter_model.safetensors
        fails 1 swift-merge -q -m "$W/model" -a bad -o merged
        grep -q 'bad/adapter_model.safetensors' told
    done
    sed 's/"F32"/"I32"/g' "$W/lora/adapter_model.safetensors" > bad/adapter_model.safetensors
    fails 1 swift-merge -q -m "$W/model" -a bad -o merged
    cp "$W/lora/adapter_model.safetensors" bad/
    sed -i 's/"r": 8/"r": 4/' bad/adapter_config.json
    fails 1 swift-merge -q -m "$W/model" -a bad -o merged
    grep -q 'lora_A' told
    head -c 50 "$W/lora/adapter_config.json" > bad/adapter_config.json
    fails 1 swift-merge -q -m "$W/model" -a bad -o merged
    grep -q 'bad/adapter_config.json' told
    rm bad/adapter_config.json
    fails 1 swift-merge -q -m "$W/model" -a bad -o merged
    fails 1 swift-merge -q -m "$W/model" -a nowhere -o merged
    grep -q nowhere told
    fails 2 swift-merge -q -m "$W/model"
    [ ! -e merged ] && [ -z "$(ls | grep tmp)" ] || false
}

@test "a full disk and a signal leave no folder" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" big --vocab 12000
    fails 1 bash -c "ulimit -f 1000; exec swift-merge -q -m big -o merged"
    grep -q 'merged.*File too large' told
    [ ! -e merged ] && [ -z "$(ls | grep tmp)" ] || false
    for s in TERM INT KILL; do
        for wait in 0.002 0.005 0.01 0.02 0.04; do
            rm -rf merged*
            swift-merge -q -m big -o merged 2> told &
            sleep $wait; kill -$s $! 2> /dev/null || true
            status=0; wait $! || status=$?
            # whole, or not there at all
            if [ -e merged ]; then [ -f merged/swift-merge.json ] && [ -f merged/tokenizer.json ] && scores -m merged > /dev/null; fi
            [ $s = KILL ] || [ -z "$(ls | grep tmp)" ]
        done
    done
}
