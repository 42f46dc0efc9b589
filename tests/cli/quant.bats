# swift-quant as its user runs it.

setup() {
    cd "$BATS_TEST_TMPDIR"
    cp -r "$BATS_TEST_DIRNAME/../golden/llm/llama" M
    chmod -R u+w M
    cat > M/tokenizer.json <<'END'
{"added_tokens": [{"id": 3, "content": "</s>", "special": true}, {"id": 4, "content": "<u>", "special": false}],
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}
END
    echo '{"eos_token": "</s>", "chat_template": "{{ messages }}"}' > M/tokenizer_config.json
}

# "name from to" of every tensor
types() { sed 's/{"tensor":"\([^"]*\)".*"from":"\([^"]*\)","to":"\([^"]*\)".*/\1 \2 \3/' "$@"; }
type_of() { types report | awk -v n="$1" '$1 == n {print $3}'; }
# the last line of standard error of a command that must fail with a status
fails() {
    status=$1; shift
    got=0; "$@" > /dev/null 2> told || got=$?
    [ "$got" = "$status" ] || { echo "status $got, not $status"; cat told; return 1; }
}
left_alone() { [ "$(LC_ALL=C ls | tr '\n' ' ')" = "$1" ] || { ls; return 1; }; }

@test "a folder becomes GGUF, every value kept in f32" {
    swift-quant -q -m M -t f32 -o m.gguf --report report
    [ "$(wc -l < report)" = 21 ]
    ! grep -v '"relative_rmse":0}' report || false
    [ "$(head -c 4 m.gguf)" = GGUF ]
    grep -aq 'tokenizer.ggml.pre' m.gguf
    grep -aq '{{ messages }}' m.gguf
}

@test "a GGUF file written again in its own types is the same tensors" {
    swift-quant -q -m M -t q8_0 -o a.gguf
    swift-quant -q -m a.gguf -t q8_0 -o b.gguf --report report
    ! grep -v '"relative_rmse":0}' report || false
    n=$(awk -F'[:,]' '/bytes_after/ {for (i = 1; i < NF; i++) if ($i == "\"bytes_after\"") s += int(($(i + 1) + 31) / 32) * 32} END {print s}' report)
    [ "$n" -gt 10000 ]
    tail -c "$n" a.gguf > a; tail -c "$n" b.gguf > b
    cmp a b
}

@test "norms stay f32, the head gets more bits, rows that fit no block get the next type" {
    swift-quant -q -m M -t q4_k_m -o m.gguf --report report
    [ "$(type_of blk.0.attn_norm.weight)" = f32 ]
    [ "$(type_of output_norm.weight)" = f32 ]
    [ "$(type_of output.weight)" = q8_0 ]
    [ "$(type_of token_embd.weight)" = q5_0 ]
    [ "$(type_of blk.0.ffn_down.weight)" = f16 ]
    swift-quant -q -m M -t q4_1 -o m.gguf --report report
    [ "$(type_of blk.1.attn_q.weight)" = q4_1 ]
}

@test "--keep wins, the first pattern first" {
    swift-quant -q -m M -t q4_0 -k 'blk.1.attn_*=q8_0' -k 'blk.*.attn_?.weight=f16' -o m.gguf --report report
    [ "$(type_of blk.0.attn_v.weight)" = f16 ]
    [ "$(type_of blk.1.attn_q.weight)" = q8_0 ]
    [ "$(type_of blk.1.attn_norm.weight)" = f32 ] # no reader takes another
    [ "$(type_of blk.0.ffn_up.weight)" = q4_0 ]
    fails 1 swift-quant -m M -k 'blk.0.ffn_down.weight=q4_0' -o n.gguf
    grep -q 'blk.0.ffn_down.weight has rows of 40' told
    for pattern in 'ouptut.weight=q8_0' 'blk.*_norm.weight=f16'; do
        fails 1 swift-quant -m M -k "$pattern" -o n.gguf
        grep -qF -- "--keep $pattern: no matrix of the model has such a name" told
    done
    [ ! -e n.gguf ]
}

@test "the number of threads changes nothing" {
    OMP_NUM_THREADS=1 swift-quant -q -m M -t q5_1 -o m.gguf
    mv m.gguf one
    OMP_NUM_THREADS=3 swift-quant -q -m M -t q5_1 -o m.gguf
    cmp one m.gguf
}

@test "standard output takes the file, and nothing else" {
    swift-quant -m M -t q8_0 -o - > m.gguf 2> told
    swift-quant -q -m m.gguf -t f16 -o n.gguf
    grep -q '21 tensors' told
}

@test "wrong usage is status 2 and writes nothing" {
    fails 2 swift-quant -o m.gguf
    fails 2 swift-quant -m M
    fails 2 swift-quant -m M -o m.gguf --seed 1 # nothing is random here
    fails 2 swift-quant -m M -o m.gguf -t q9
    fails 2 swift-quant -m M -o m.gguf extra
    fails 2 swift-quant -m M -o m.gguf -k output.weight
    fails 2 swift-quant -m M -o m.gguf -k output.weight=i32
    grep -q 'iq4_nl' told
    left_alone 'M told '
}

@test "the model that is read is not written over" {
    cp M/model.safetensors was
    ln -s M/model.safetensors link
    for out in M/model.safetensors link M/config.json; do
        fails 1 swift-quant -m M -t q8_0 -o $out
        grep -q "$out: is read and would be overwritten" told
    done
    cmp M/model.safetensors was
    swift-quant -q -m M -t q8_0 -o M/a.gguf
    swift-quant -q -m M -t f16 -o M/a.gguf
    fails 1 swift-quant -m M/a.gguf -t q4_0 -o M/../M/a.gguf
    grep -q 'a.gguf: is read and would be overwritten' told
}

@test "a file cut short is refused, and the old output stays" {
    swift-quant -q -m M -t f16 -o m.gguf
    head -c 20000 m.gguf > cut.gguf
    echo old > out.gguf
    fails 1 swift-quant -m cut.gguf -o out.gguf
    grep -q 'cut.gguf.*cut short' told
    [ "$(cat out.gguf)" = old ]
    left_alone 'M cut.gguf m.gguf out.gguf told '
}

@test "what a folder lacks is named" {
    fails 1 swift-quant -m nowhere -o m.gguf
    grep -q nowhere told
    mv M/tokenizer.json .
    fails 1 swift-quant -m M -o m.gguf
    grep -q tokenizer.json told
    sed 's/ByteLevel/Whitespace/' tokenizer.json > M/tokenizer.json
    fails 1 swift-quant -m M -o m.gguf
    grep -q pre_tokenizer told
    python3 -c 'import json; t = json.load(open("tokenizer.json")); v = t["model"]["vocab"]; v[max(v, key=v.get)] = 96; json.dump(t, open("M/tokenizer.json", "w"))'
    fails 1 swift-quant -m M -o m.gguf
    grep -q 'no id within the 96 rows' told
    sed 's/"id": 4/"id": 96/' tokenizer.json > M/tokenizer.json # an added token is left out
    swift-quant -q -m M -o added.gguf 2> told
    grep -q "warning: the token '<u>' has no row in the model" told
    cp tokenizer.json M/
    cp M/config.json .
    sed 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' config.json > M/config.json
    fails 1 swift-quant -m M -o m.gguf
    grep -q 'model.layers.2.*missing' told
    sed '1s/{/{"quantization_config": {"quant_method": "gptq"},/' config.json > M/config.json
    fails 1 swift-quant -m M -o m.gguf
    grep -q 'quantised already (gptq)' told
    [ ! -e m.gguf ]
}

@test "a warning says where GGUF cuts texts otherwise than the folder" {
    cat > M/tokenizer.json <<'END'
{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581",
                   "prepend_scheme": "always", "split": true}]},
 "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["\u2581", -1], ["a", -2]]}}
END
    swift-quant -q -m M -t f32 -o m.gguf 2> told
    grep -q 'warning: GGUF.s Unigram cuts at spaces alone' told
    sed -i 's/{"type": "WhitespaceSplit"}, //' M/tokenizer.json
    swift-quant -q -m M -t f32 -o m.gguf 2> told
    [ ! -s told ]
}

@test "a full disk and signals leave no file" {
    status=0
    bash -c "ulimit -f 8; exec swift-quant -q -m M -t f32 -o m.gguf" 2> told || status=$?
    [ "$status" = 1 ]
    grep -q 'm.gguf.*File too large' told
    left_alone 'M told '
    python3 "$BATS_TEST_DIRNAME/make_model.py" big --vocab 12000
    for s in TERM INT KILL; do
        for wait in 0.005 0.01 0.02 0.04; do
            rm -f m.gguf*
            swift-quant -q -m big -t q4_0 -o m.gguf 2> told &
            sleep $wait; kill -$s $! 2> /dev/null || true
            wait $! || true
            if [ -e m.gguf ]; then swift-quant -q -m m.gguf -t f16 -o whole.gguf; rm whole.gguf; fi
            [ $s = KILL ] || ! ls | grep tmp || false
        done
    done
}

@test "GGUF and folders cut at any place are refused" {
    swift-quant -q -m M -t q8_0 -o m.gguf
    size=$(stat -c %s m.gguf)
    for n in 0 3 4 8 23 24 100 1000 4000 $((size / 2)) $((size - 1)); do
        head -c $n m.gguf > cut.gguf
        fails 1 swift-quant -q -m cut.gguf -t f16 -o n.gguf
        grep -q cut.gguf told
    done
    for f in config.json tokenizer.json tokenizer_config.json model.safetensors; do
        for n in 0 1 20; do
            head -c $n M/$f > part; cp M/$f whole; cat part > M/$f
            fails 1 swift-quant -q -m M -o n.gguf
            grep -q $f told
            cat whole > M/$f
        done
    done
    [ ! -e n.gguf ]
}

@test "a GGUF file in parts becomes one, of the same tensors" {
    swift-quant -q -m M -t f32 -o m.gguf
    python3 "$BATS_TEST_DIRNAME/split_gguf.py" m.gguf part
    swift-quant -q -m m.gguf -t q8_0 -o whole.gguf --report a
    for n in 1 2; do
        swift-quant -q -m part-0000$n-of-00002.gguf -t q8_0 -o joined.gguf --report b
        cmp a b
        ! grep -aq split joined.gguf || false
        swift-quant -q -m joined.gguf -t q8_0 -o again.gguf
    done
    n=$(awk -F'[:,]' '{for (i = 1; i < NF; i++) if ($i == "\"bytes_after\"") s += int(($(i + 1) + 31) / 32) * 32} END {print s}' a)
    cmp <(tail -c "$n" whole.gguf) <(tail -c "$n" joined.gguf)
}

@test "the mixtures ask the metadata: a mixture of eight experts" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" X --wide --experts 4
    swift-quant -q -m X -t q4_k_m -o m.gguf --report report
    [ "$(type_of blk.0.attn_k.weight)" = q4_K ]
    python3 "$BATS_TEST_DIRNAME/make_model.py" X --wide --experts 8
    swift-quant -q -m X -t q4_k_m -o m.gguf --report report
    [ "$(type_of blk.0.attn_k.weight)" = q8_0 ]
    [ "$(type_of blk.1.attn_output.weight)" = q5_K ]
    swift-quant -q -m X -t f16 -o f16.gguf
    swift-quant -q -m f16.gguf -t q4_k_m -o n.gguf --report again
    cmp <(types report | cut -d' ' -f1,3) <(types again | cut -d' ' -f1,3)
}
