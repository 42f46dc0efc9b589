# Models by name: the caches of hubs, and downloads from one on loopback.

setup() {
    cd "$BATS_TEST_TMPDIR"
    for v in $(env | sed -n 's/^\(HF_[A-Z_]*\|HUGGING[A-Z_]*\|MODELSCOPE[A-Z_]*\|TRANSFORMERS_OFFLINE\|XDG_CACHE_HOME\|[a-zA-Z]*_[pP][rR][oO][xX][yY]\)=.*/\1/p'); do
        unset "$v"
    done
    export HOME=$PWD HF_HOME=$PWD/hf MODELSCOPE_CACHE=$PWD/ms
    mkdir -p served/org
    python3 "$BATS_TEST_DIRNAME/make_model.py" served/org/tiny
    repo=hf/hub/models--org--tiny
    mkfifo stop
    : > log
    python3 "$BATS_TEST_DIRNAME/hub_server.py" served log < stop > port 3>&- &
    exec 7> stop
    for _ in $(seq 100); do [ -s port ] && break; sleep 0.05; done
    export HF_ENDPOINT=http://127.0.0.1:$(cat port)
}

teardown() { exec 7>&-; }

settings() { echo "$1" > served/org/tiny/.hub.json; }
# opens a model as any program does; what it makes of it is the same for the same model
opens() { swift-quant -q -m "$1" -t f16 -o "${2:-m.gguf}"; }
tokenizes() { echo '{"text": "hello world"}' | swift-tokenize -q -m "$1" -o shard -; }
# the values of two GGUF files; before them they say how they were made
same() { cmp <(tail -c 60000 "$1") <(tail -c 60000 "$2"); }
fails() {
    got=0; "$@" > /dev/null 2> told || got=$?
    [ "$got" = 1 ] || { echo "status $got, not 1"; cat told; return 1; }
}
told() { grep -qF -- "$1" told || { cat told; return 1; }; }
count() { grep -c "$@" log || true; }
no_rest() { ! find hf -name '*.incomplete' -o -name '*.tmp.*' | grep .; }

@test "a model is downloaded once, into the layout that other programs share" {
    opens org/tiny
    opens served/org/tiny same.gguf
    same m.gguf same.gguf
    [ "$(cat $repo/refs/main)" = 0123456789abcdef0123456789abcdef01234567 ]
    snapshot=$repo/snapshots/0123456789abcdef0123456789abcdef01234567
    sha=$(sha256sum served/org/tiny/model.safetensors | cut -d' ' -f1)
    [ "$(readlink $snapshot/model.safetensors)" = "../../blobs/$sha" ]
    git=$({ printf 'blob %s\0' "$(wc -c < served/org/tiny/config.json)"; cat served/org/tiny/config.json; } | sha1sum | cut -d' ' -f1)
    [ "$(readlink $snapshot/config.json)" = "../../blobs/$git" ]
    for f in served/org/tiny/*; do cmp "$f" "$snapshot/$(basename "$f")"; done
    no_rest
    n=$(wc -l < log)
    opens org/tiny
    opens org/tiny@0123456789abcdef0123456789abcdef01234567
    [ "$(wc -l < log)" = "$n" ]
    exec 7>&-
    HF_HUB_OFFLINE=1 opens org/tiny@main
}

@test "a tokenizer comes without the weights, which come when they are needed" {
    tokenizes org/tiny
    [ "$(count safetensors)" = 0 ]
    [ "$(count tokenizer.json)" = 1 ]
    opens org/tiny
    [ "$(count '^storage')" = 1 ]
    [ "$(count tokenizer.json)" = 1 ]
}

@test "only what is needed comes: shards of the index before other formats, nothing from folders" {
    python3 - served/org/tiny <<'END'
import json, struct, sys
d = sys.argv[1]
raw = open(d + "/model.safetensors", "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
header, data, index = json.loads(raw[8:8 + n]), raw[8 + n:], {}
for part in range(3):
    h, body = {}, b""
    for name in sorted(header)[part::3]:
        a, b = header[name]["data_offsets"]
        h[name] = {**header[name], "data_offsets": [len(body), len(body) + b - a]}
        body += data[a:b]
        index[name] = f"model-0000{part + 1}-of-00003.safetensors"
    t = json.dumps(h).encode()
    open(f"{d}/model-0000{part + 1}-of-00003.safetensors", "wb").write(struct.pack("<Q", len(t)) + t + body)
json.dump({"weight_map": index}, open(d + "/model.safetensors.index.json", "w"))
END
    mkdir served/org/tiny/onnx
    mv served/org/tiny/model.safetensors served/org/tiny/consolidated.safetensors
    for f in onnx/model.bin pytorch_model.bin q.gguf training_args.bin README.md; do echo x > served/org/tiny/$f; done
    opens org/tiny
    [ "$(count 'storage.*model-0000[123]-of-00003')" = 3 ]
    [ "$(count '^storage')" = 3 ]
    [ "$(count README)" = 0 ]
    rm $repo/snapshots/*/model-00002-of-00003.safetensors $repo/blobs/"$(sha256sum served/org/tiny/model-00002-of-00003.safetensors | cut -d' ' -f1)"
    opens org/tiny # what is missing comes again, and nothing else
    [ "$(count '^storage')" = 4 ]
}

@test "files of torch.save, where there are no others" {
    answer() { echo '{"prompt": "hello", "max_tokens": 8, "logprobs": 2}' | swift-infer -q --temperature 0 -m "$1"; }
    answer served/org/tiny > want
    python3 "$BATS_TEST_DIRNAME/to_torch.py" served/org/tiny 2
    answer org/tiny > got
    cmp want got
    [ "$(count 'storage.*pytorch_model-0000')" = 2 ]
}

@test "a connection that is cut again and again is taken up where it broke" {
    settings '{"cut": {"model.safetensors": 100000}}'
    opens org/tiny
    cmp served/org/tiny/model.safetensors $repo/snapshots/*/model.safetensors
    [ "$(count 'storage.*bytes=100000-')" = 1 ]
    [ "$(count 'storage.*bytes=200000-')" = 1 ]
    no_rest
}

@test "a killed download goes on, also where the server knows no ranges" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" served/org/tiny --vocab 16000
    settings '{"slow": 1}'
    for signal in TERM KILL; do
        swift-quant -m org/tiny -t f16 -o m.gguf 2> told 3>&- & pid=$!
        for _ in $(seq 100); do [ -n "$(find hf -name '*.incomplete' -size +200k 2> /dev/null)" ] && break; sleep 0.05; done
        kill -$signal $pid
        ! wait $pid || false
        [ $signal = KILL ] || told "what has come is kept"
        [ ! -e $repo/refs/main ]
    done
    settings '{}'
    opens org/tiny
    grep -q 'storage.*bytes=[1-9]' log
    rm -r hf
    settings '{"no_ranges": true, "cut": {}}'
    opens org/tiny
    sha=$(sha256sum served/org/tiny/model.safetensors | cut -d' ' -f1)
    head -c 300000 served/org/tiny/model.safetensors > $repo/blobs/$sha.incomplete
    rm $repo/blobs/$sha
    opens org/tiny
    cmp served/org/tiny/model.safetensors $repo/blobs/$sha
    # what lay there was of something else
    settings '{}'
    head -c 300000 /dev/zero > $repo/blobs/$sha.incomplete
    rm $repo/blobs/$sha
    opens org/tiny
    cmp served/org/tiny/model.safetensors $repo/blobs/$sha
}

@test "content that is not what its digest says is refused, and nothing of it stays" {
    settings '{"wrong": ["model.safetensors"]}'
    fails opens org/tiny
    told "its digest is"
    told "$(sha256sum served/org/tiny/model.safetensors | cut -d' ' -f1)"
    [ ! -e $repo/snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors ]
    [ ! -e $repo/blobs/"$(sha256sum served/org/tiny/model.safetensors | cut -d' ' -f1)" ]
    [ ! -e $repo/refs/main ]
    no_rest
    settings '{}'
    opens org/tiny
}

@test "a list without digests: they are asked for, file by file" {
    settings '{"digests": false}'
    opens org/tiny
    [ "$(count 'hub HEAD /org/tiny/resolve/.*/model.safetensors')" = 1 ]
    [ -e $repo/blobs/"$(sha256sum served/org/tiny/model.safetensors | cut -d' ' -f1)" ]
    settings '{"digests": false, "wrong": ["model.safetensors"]}'
    rm -r hf
    fails opens org/tiny
    told "it is refused"
}

@test "a busy server is asked again" {
    settings '{"busy": {"config.json": 2, "model.safetensors": 1}}'
    opens org/tiny
    [ "$(count 'resolve/.*/config.json')" = 3 ]
}

@test "private and gated models say which token is needed; storage never sees it" {
    settings '{"private": "hf_secret"}'
    fails opens org/tiny
    told "HF_TOKEN must then hold a token"
    HF_TOKEN=wrong fails opens org/tiny
    told "the token that was sent"
    HF_TOKEN=hf_secret opens org/tiny
    grep -q 'hub GET .*Bearer hf_secret' log
    grep -q '^storage' log
    ! grep 'storage.*hf_secret' log || false
    rm -r hf
    mkdir hf
    echo hf_secret > hf/token
    opens org/tiny
    rm -r hf
    settings '{"private": "hf_secret", "gated": true}'
    fails opens org/tiny
    told "the model is gated; accept its terms at $HF_ENDPOINT/org/tiny, and set HF_TOKEN"
    HF_TOKEN=other fails opens org/tiny
    told "has not been let in"
}

@test "what does not exist is said with the nearest name" {
    fails opens org/tinny
    told "the nearest name is org/tiny"
    HF_TOKEN=x fails opens org/tinny
    told "the nearest name is org/tiny"
    fails opens org/tiny@v1.1
    told "org/tiny has no revision v1.1; the nearest is v1.0"
    echo x > served/org/tiny/tiny-q4_0.gguf
    fails opens org/tiny:tiny-q4_1.gguf
    told "org/tiny has no file tiny-q4_1.gguf; the nearest is tiny-q4_0.gguf"
    fails opens ../org/tiny
    told "no hub id of the form org/name"
    fails opens org/tiny@../../x
    told "no hub id of the form org/name"
    [ ! -e $repo/refs ]
}

@test "file names that would leave the folder are refused" {
    for name in ../../../../evil.safetensors /tmp/evil.json a/../../evil.json 'a\\..\\evil.json' ''; do
        settings "{\"extra\": [\"$name\"]}"
        fails opens org/tiny
        told "it would not stay in its folder"
        [ ! -e $repo/snapshots ]
    done
    python3 "$BATS_TEST_DIRNAME/to_torch.py" served/org/tiny 2
    sed -i 's|pytorch_model-00001-of-00002.bin|../pytorch_model-00001-of-00002.bin|' served/org/tiny/pytorch_model.bin.index.json
    settings '{}'
    fails opens org/tiny
    told "has no plain file name"
}

@test "two processes that want the same share the work" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" served/org/tiny --vocab 8000
    settings '{"slow": 0.3}'
    swift-quant -m org/tiny -t f16 -o a.gguf 2> a.told 3>&- & a=$!
    swift-quant -m org/tiny -t f16 -o b.gguf 2> b.told 3>&- & b=$!
    wait $a
    wait $b
    same a.gguf b.gguf
    [ "$(count '^storage')" = 1 ]
    grep -h 'another process downloads' a.told b.told
    no_rest
}

@test "GGUF files: by name, by a part of it, the only one, and all parts of a split one" {
    opens served/org/tiny f16.gguf
    swift-quant -q -m served/org/tiny -t q8_0 -o served/org/tiny/tiny-Q8_0.gguf
    rm served/org/tiny/*.json served/org/tiny/model.safetensors
    opens org/tiny a.gguf # the only one
    swift-quant -q -m f16.gguf -t q4_0 -o served/org/tiny/tiny-Q4_0.gguf
    opens org/tiny:tiny-Q8_0.gguf b.gguf
    opens org/tiny:q8_0 c.gguf
    same a.gguf b.gguf
    same a.gguf c.gguf
    [ "$(count '^storage')" = 1 ]
    rm -r hf
    fails opens org/tiny
    told "org/tiny has 2 GGUF files (tiny-Q4_0.gguf, tiny-Q8_0.gguf); name one: org/tiny:FILE"
    tokenizes org/tiny:Q4_0
    mkdir served/org/tiny/split
    for i in 1 2; do cp served/org/tiny/tiny-Q8_0.gguf served/org/tiny/split/x-0000$i-of-00002.gguf; echo $i >> served/org/tiny/split/x-0000$i-of-00002.gguf; done
    opens org/tiny:split/x-00001-of-00002.gguf || true
    [ "$(count 'storage.*split/x-0000[12]-of-00002.gguf')" = 2 ]
    [ "$(readlink $repo/snapshots/*/split/x-00002-of-00002.gguf | cut -c1-15)" = ../../../blobs/ ]
}

@test "offline, and without a hub" {
    HF_HUB_OFFLINE=1 fails opens org/tiny
    told "HF_HUB_OFFLINE forbids to download it"
    told "hf/hub/models--org--tiny"
    [ ! -s log ]
    HF_ENDPOINT=http://127.0.0.1:9 fails opens org/tiny
    told "127.0.0.1 port 9"
    told "org/tiny: is no file or folder"
}

@test "models of ModelScope's cache are found, by both of its spellings" {
    mkdir -p ms/models/org 'ms/hub/org'
    cp -r served/org/tiny ms/models/org/tiny1___5
    cp -r served/org/tiny ms/hub/org/old
    export HF_HUB_OFFLINE=1
    opens org/tiny1.5
    opens org/old
    opens org/old@master
    fails opens org/old@v2
    rm ms/hub/org/old/model.safetensors
    fails opens org/old
}
