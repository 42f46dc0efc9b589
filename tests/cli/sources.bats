# What a model may lie in: formats, element types, sizes; and what is said of one that is not whole.

setup() {
    cd "$BATS_TEST_TMPDIR"
    export HF_HUB_OFFLINE=1
    python3 "$BATS_TEST_DIRNAME/make_model.py" M
}

edit() { python3 "$BATS_TEST_DIRNAME/edit_tensors.py" "$@"; }
to_torch() { python3 "$BATS_TEST_DIRNAME/to_torch.py" "$@"; }
answers() { echo '{"prompt": "hello world", "max_tokens": 12, "logprobs": 2}' | swift-infer -q --temperature 0 --dtype f32 -m "$1" > "$2"; }
fails() {
    got=0; "$@" > /dev/null 2> told || got=$?
    [ "$got" = 1 ] || { echo "status $got, not 1"; cat told; return 1; }
}
told() { grep -qF -- "$1" told || { cat told; return 1; }; }

@test "files of torch.save, new and old, one or several, give the answers of safetensors" {
    answers M want
    for how in "1" "1 old" "3" "3 old"; do
        rm -rf T; cp -r M T
        to_torch T $how
        [ ! -e T/model.safetensors ]
        answers T got
        cmp want got
    done
    # what is written from them is safetensors, of the same names and values
    swift-quant -q -m T -t f32 -o t.gguf --report report
    [ "$(wc -l < report)" = 20 ]
    ! grep -v '"relative_rmse":0}' report || false
}

@test "a file of torch.save that would run code is refused by the name of what it calls" {
    rm M/model.safetensors
    cp "$BATS_TEST_DIRNAME/../fuzz/corpus/torch/bad-system" M/pytorch_model.bin
    fails answers M got
    told "M/pytorch_model.bin: data.pkl: byte 2: it asks for posix.system, which is refused"
}

@test "f16, bf16 and both 8-bit floats have the values that f32 has" {
    for type in F16 BF16 F8_E4M3 F8_E5M2; do
        rm -rf A B
        cp -r M A; edit A "round $type"; cp -r A B; edit B "type $type"
        answers A want
        answers B got
        cmp want got
    done
}

@test "a chat template is found wherever a folder has it, and goes along" {
    python3 - <<'E'
import json
c = json.load(open("M/tokenizer_config.json"))
one = c.pop("chat_template")
json.dump(c, open("bare.json", "w"))
json.dump(c | {"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": one}]}, open("list.json", "w"))
json.dump({"chat_template": one}, open("template.json", "w"))
E
    ask() { swift-infer -q --dtype f32 -m "$1" <<< '{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}'; }
    ask M > want
    for where in list chat_template.json; do
        rm -rf N merged; cp -r M N
        if [ $where = list ]; then cp list.json N/tokenizer_config.json; else cp bare.json N/tokenizer_config.json; cp template.json N/chat_template.json; fi
        ask N | cmp - want
        swift-quant -q -m N -t f32 -o N.gguf; ask N.gguf | cmp - want
        swift-merge -q -m N -o merged; ask merged | cmp - want
    done
    echo '{"chat_template": 7}' > N/chat_template.json
    fails ask N; told 'N/chat_template.json: "chat_template": a string, or a list'
}

@test "all forms of a tokenizer, and the code that config.json names, go with the weights" {
    touch M/modeling_x.py M/SYSTEM_PROMPT.txt M/qwen.tiktoken M/spiece.model M/notes.txt M/.hidden.py M/optimizer.pt
    echo '{}' > M/processor_config.json
    swift-merge -q -m M -o merged
    for f in modeling_x.py SYSTEM_PROMPT.txt qwen.tiktoken spiece.model processor_config.json tokenizer.json; do [ -e merged/$f ]; done
    [ "$(ls -A merged | grep -c 'notes\|hidden\|optimizer')" = 0 ]
}

# As Vicuna, InternLM 2 and mT5 are published.
@test "a sentencepiece model without tokenizer.json: what tokenizer_config.json says of its tokens is done" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" S --vocab 1008; rm S/tokenizer.json S/tokenizer_config.json
    xz -dc "$BATS_TEST_DIRNAME/../golden/tokenizer/spm-bpe-bytes/tokenizer.model.xz" > S/tokenizer.model
    ids() { # JSON TEXT
        echo "$1" > S/tokenizer_config.json
        printf '{"text": "%s"}\n' "$2" | swift-tokenize -q --no-end-token -m S -o t.shard
        swift-tokenize --inspect t.shard | awk '$1 ~ /^[0-9]+$/ {printf "%s%s", n++ ? " " : "", $2}'
    }
    llama='"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>", "eos_token"'
    word=$(ids "{$llama: \"</s>\", \"legacy\": true}" a)
    later=$(ids "{$llama: \"</s>\", \"legacy\": false}" '</s>a')
    [[ $word == '1 '* && $later == '1 2 '* && ${later#1 2 } != "${word#1 }" ]]
    [ "$(ids "{$llama: {\"content\": \"</s>\"}, \"legacy\": true}" 'a</s>a')" = "$word 2 ${word#1 }" ]
    [ "$(ids "{$llama: \"</s>\"}" 'a</s>a')" = "$word 2 ${later#1 2 }" ]
    [ "$(ids "{$llama: \"</s>\", \"add_bos_token\": false, \"add_eos_token\": true}" a)" = "${word#1 } 2" ]
    [ "$(ids '{"tokenizer_class": "T5Tokenizer", "eos_token": "</s>"}' a)" = "${word#1 } 2" ]
    # Ids that the configuration gives: in place of a word of the model, and behind its last.
    named='"added_tokens_decoder": {"990": {"content": "<|im_end|>", "special": true}, "1003": {"content": "<|x|>", "special": true}}'
    [ "$(ids "{$llama: \"<|im_end|>\", $named}" 'a<|im_end|><|x|>')" = "$word 990 1003" ]
    echo '{"query": "q", "response": "r"}' > d.jsonl
    echo '{"tokenizer_class": "XLMRobertaTokenizer"}' > S/tokenizer_config.json
    fails swift-tokenize -q -m S -o t.shard d.jsonl; told "a XLMRobertaTokenizer without tokenizer.json is not known here"
    # The same in files of their own, as they were before there was a list in tokenizer_config.json.
    echo '{"<|im_end|>": 990, "<|x|>": 1003}' > S/added_tokens.json; echo '{"eos_token": {"content": "<|im_end|>"}}' > S/special_tokens_map.json
    [ "$(ids '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>"}' 'a<|im_end|><|x|>')" = "$word 990 1003" ]
    swift-tokenize -q -m S -t chatml -o e.shard d.jsonl 2> told # its end token is one
    [ ! -s told ]
    echo '{"<|im_end|>": "x"}' > S/added_tokens.json
    fails swift-tokenize -q -m S -o e.shard d.jsonl; told 'S/added_tokens.json: "<|im_end|>": an id is needed, not a string'
    rm S/added_tokens.json S/special_tokens_map.json
    # The end token of the template is known to the training, and shards of another vocabulary are refused.
    ids "{$llama: \"</s>\"}" a
    swift-tokenize -q -m S -t llama -o s.shard d.jsonl
    swift-train -q -m S --max-steps 1 --plot none -o out s.shard 2> told
    python3 -c 'import json; ends = json.load(open("out/generation_config.json"))["eos_token_id"]; assert ends[0] == 2, ends'
    swift-tokenize -q -m M -o m.shard d.jsonl
    fails swift-train -q -m S --max-steps 1 --plot none -o bad m.shard; told "another vocabulary"
    swift-infer -q -m S -a out <<< '{"messages": [{"role": "user", "content": "q"}], "max_tokens": 2}' | grep -q '"finish_reason"'
    swift-quant -q -m S -o S.gguf
}

# Gemma 3 1B has a token for pictures behind its last row.
@test "an added token without a row is an error where it is used, and not before" {
    python3 - <<'E'
import json
t = json.load(open("M/tokenizer.json"))
t["added_tokens"].append({"id": 296, "content": "<image>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})
json.dump(t, open("M/tokenizer.json", "w"))
E
    answers M plain
    swift-quant -q -m M -t f32 -o M.gguf
    answers M.gguf from; cmp plain from
    fails swift-infer -q -m M <<< '{"prompt": "hello <image>"}'
    told "line 1: the token '<image>' has the id 296, which the model has no row for"
    fails swift-infer -q -m M <<< '{"prompt": "hello", "continuations": ["<image>"]}'; told "the token '<image>'"
    echo '{"prompt": "hello", "completion": " world"}' | swift-tokenize -q -m M -o good.shard
    swift-train -q -m M --plot none -o good good.shard
    echo '{"prompt": "hello", "completion": "<image>"}' | swift-tokenize -q -m M -o bad.shard
    fails swift-train -q -m M --plot none -o bad bad.shard
    told "record 0 has the token 296, which the model has no row for"
    python3 - <<'E'
import json
t = json.load(open("M/tokenizer.json"))
t["model"]["vocab"]["hello again"] = 300
json.dump(t, open("M/tokenizer.json", "w"))
E
    fails answers M got; told "the tokenizer has ids up to 300, the model's vocabulary ends at 295"
}

@test "what is read is not overwritten, whatever it is called" {
    echo '{"text": "abc"}' > data.jsonl; ln -s data.jsonl link; ln data.jsonl other
    swift-quant -q -m M -o model.gguf
    echo '{"id": "1", "task": "exact", "answer": "a", "text": "a"}' > answers.jsonl
    sha256sum data.jsonl model.gguf answers.jsonl > sums
    for to in data.jsonl link other ./data.jsonl; do
        fails swift-tokenize -q -m M --out $to data.jsonl:2; told "$to: is read and would be overwritten"
    done
    fails swift-tokenize -q -m M --val-split 0.5 --val-out data.jsonl --out a.shard link; told "data.jsonl: is read"
    fails swift-quant -q -m model.gguf -t q4_0 -o model.gguf; told "model.gguf: is read"
    fails swift-quant -q -m model.gguf -t q4_0 --report model.gguf -o q4.gguf; told "model.gguf: is read"
    fails swift-eval score -q --out answers.jsonl answers.jsonl; told "answers.jsonl: is read"
    fails swift-eval score -q --details answers.jsonl answers.jsonl; told "answers.jsonl: is read"
    sha256sum -c --quiet sums
}

@test "a file that is cut while it is used is named" {
    python3 "$BATS_TEST_DIRNAME/make_model.py" big --vocab 20000
    mkfifo asked
    swift-infer -q -m big asked > out 2> told & infer=$!
    exec 7> asked
    echo '{"prompt": "hello", "max_tokens": 2}' >&7 # opened: the first record is read before the batch begins
    for i in $(seq 100); do grep -q big/model.safetensors /proc/$infer/maps && break; sleep 0.05; done
    : > big/model.safetensors
    exec 7>&-
    got=0; wait $infer || got=$?
    [ "$got" = 1 ] || { echo "status $got"; cat told; false; }
    told "swift-infer: big/model.safetensors: was cut while it was used"
}

@test "weights are used where they lie: a model larger than the memory that a program may have" {
    edit M "round BF16" "type BF16" "size model.embed_tokens.weight 3000000"
    sed -i 's/"vocab_size": 296/"vocab_size": 3000000/' M/config.json
    [ "$(stat -c %s M/model.safetensors)" -gt 384000000 ]
    # -d counts what a process can write to, not maps of files
    (ulimit -d 250000; echo '{"prompt": "a", "max_tokens": 2}' | swift-infer -q -j 1 --device cpu --temperature 0 -m M > got)
    grep -q '"completion_tokens": 2' got
    ! (ulimit -d 20000; echo '{"prompt": "a", "max_tokens": 2}' | swift-infer -q -j 1 --device cpu --temperature 0 -m M > got 2> told) || false
}

@test "missing, unexpected and misshapen tensors are named, all at once" {
    edit M "drop model.layers.1.mlp.up_proj.weight" "rename model.layers.0.self_attn.q_proj.weight model.layers.0.attention.q.weight" \
        "rows model.layers.1.self_attn.k_proj.weight 16"
    fails answers M got
    told "model.layers.1.mlp.up_proj.weight [96, 64] is missing"
    told "model.layers.0.self_attn.q_proj.weight [64, 64] is missing"
    told "model.layers.0.attention.q.weight is unexpected"
    told "model.layers.1.self_attn.k_proj.weight is [16, 64], the configuration asks for [32, 64]"
}

@test "a head beside a tied embedding is passed over; without tying it is needed" {
    answers M want
    cp -r M A
    edit A "copy model.embed_tokens.weight lm_head.weight"
    answers A got
    cmp want got
    sed -i 's/"tie_word_embeddings": true/"tie_word_embeddings": false/' A/config.json M/config.json
    answers A got
    cmp want got
    fails answers M got
    told "lm_head.weight [296, 64] is missing"
}

@test "an index is taken at its word: files and tensors that are not there are named" {
    to_torch M 3
    rm M/pytorch_model-00002-of-00003.bin M/pytorch_model-00003-of-00003.bin
    fails answers M got
    told "of the 3 files that it names 2 are missing: pytorch_model-00002-of-00003.bin, pytorch_model-00003-of-00003.bin"
}
