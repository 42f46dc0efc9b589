#!/usr/bin/env bats
# swift-infer as a user runs it, on the tiny checkpoints of the golden tests.

setup() {
    cd "$BATS_TEST_TMPDIR"
    T=$BATS_TEST_DIRNAME/../golden
    mkdir model
    cp "$T/llm/llama/config.json" "$T/llm/llama/model.safetensors" model/
    # A tokenizer of the model's size: byte-level BPE over 96 printable bytes.
    awk 'BEGIN {
        printf "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<pad>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
        printf "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
        for (i = 33; i < 126; i++) { c = sprintf("%c", i); if (c == "\"" || c == "\\") c = "\\" c; printf "%s\"%s\":%d", (i > 33 ? "," : ""), c, i - 30 }
        printf "},\"merges\":[]}}\n" }' > model/tokenizer.json
    printf '{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}' > model/tokenizer_config.json
}

@test "a prompt is continued, unknown fields come through" {
    run bash -c "echo '{\"id\": 7, \"prompt\": \"abc\", \"max_tokens\": 5}' | swift-infer -m model --dtype f32 -q"
    [ "$status" = 0 ]
    [[ $output == '{"id": 7, "text": '* ]]
    [[ $output == *'"prompt_tokens": 3, "completion_tokens": 5, "finish_reason": "length"}' ]]
}

@test "an answer's own fields are the model's, once, whatever the record had" {
    echo '{"id": 1, "id": 2, "prompt": "abc", "max_tokens": 2, "text": "right", "finish_reason": "tool_calls", "tool_calls": [1], "sample": 5, "logprobs": 1}' > in
    swift-infer -m model --dtype f32 -q in > out
    ! grep -E 'right|tool_calls|sample|logprobs' out || false
    [ "$(grep -o '"text"' out | wc -l)" = 1 ]
    grep -q '^{"id": 1, "text": ' out
    echo '{"text": "kept", "scores": 3, "prompt": "a", "continuations": ["b"]}' > in
    swift-infer -m model --dtype f32 -q in > out
    grep -q '^{"text": "kept", "scores": \[{' out
    run swift-infer -m model -q <<< '{"prompt": "abc", "presence_penalty": 1e400}'
    [ "$status" = 1 ]
    [[ $output == *finite* ]]
}

@test "threads wait briefly for each other, unless the user says how long" {
    echo '{"prompt": "abc", "max_tokens": 1}' > in
    OMP_DISPLAY_ENV=verbose swift-infer -m model -q in 2>&1 >/dev/null | grep SPINCOUNT | tail -n 1 | grep "'1000'"
    GOMP_SPINCOUNT=77 OMP_DISPLAY_ENV=verbose swift-infer -m model -q in 2>&1 >/dev/null | grep SPINCOUNT | grep "'77'"
}

@test "a batch gives the same answers as one at a time, whatever the threads" {
    for i in 1 2 3 4 5 6 7; do printf '{"id": %d, "prompt": "%s", "max_tokens": %d, "temperature": 0.8, "seed": %d}\n' $i "$(printf 'xy%.0s' $(seq $i))" $((i + 2)) $i; done > in.jsonl
    swift-infer -m model --dtype f32 -b 1 -j 1 -q in.jsonl > one
    swift-infer -m model --dtype f32 -b 4 -j 2 -q in.jsonl > four
    cmp one four
    [ "$(wc -l < one)" = 7 ]
}

@test "tokens from quantised weights: on a CPU the same alone and in a batch; --dtype multiplies exactly" {
    swift-quant -q -m model -t q8_0 -o q.gguf
    swift-quant -q -m q.gguf -t f32 -o exact.gguf
    for i in $(seq 11); do printf '{"id": %d, "prompt": "x%d", "max_tokens": %d}\n' $i $((i % 10)) $((i + 9)); done > in.jsonl
    swift-infer --device cpu -m q.gguf -b 1 -j 1 -q --logprobs in.jsonl > one
    swift-infer --device cpu -m q.gguf -b 4 -j 2 -q --logprobs in.jsonl > four
    cmp one four
    SWIFT_ISA=base swift-infer --device cpu -m q.gguf -q --logprobs in.jsonl > rounded
    SWIFT_ISA=base swift-infer --device cpu -m q.gguf --dtype f32 -q --logprobs in.jsonl > f32
    SWIFT_ISA=base swift-infer --device cpu -m exact.gguf -q --logprobs in.jsonl > exact
    python3 - <<'P'
import json
for a, b, c in zip(*(map(json.loads, open(n)) for n in ("rounded", "f32", "exact"))):
    a, b, c = ([t["logprob"] for t in r["logprobs"]] for r in (a, b, c))
    assert all(abs(x - y) < 1e-5 for x, y in zip(b, c)), (b, c)
    assert a[0] == b[0] and a[1] != b[1], "the prompt is exact, a token is not"
    assert abs(a[1] - b[1]) < 1e-3, (a, b)
P
}

@test "several samples differ and are numbered" {
    run bash -c "echo '{\"prompt\": \"abc\", \"max_tokens\": 12, \"temperature\": 2, \"n\": 2}' | swift-infer -m model --dtype f32 -q"
    [ "$status" = 0 ]
    [[ ${lines[0]} == *'"sample": 0'* && ${lines[1]} == *'"sample": 1'* ]]
    [ "$(sed 's/.*"text"/"text"/' <<< "${lines[0]}")" != "$(sed 's/.*"text"/"text"/' <<< "${lines[1]}")" ]
}

@test "the score of the greedy answer says so, and matches its log-probabilities" {
    text=$(echo '{"prompt": "abc", "max_tokens": 3}' | swift-infer -m model --dtype f32 -q --logprobs | tee out | python3 -c 'import json,sys; print(json.load(sys.stdin)["text"])')
    echo "{}" | python3 -c "
import json,sys
print(json.dumps({'prompt': 'abc', 'continuations': [$(printf %s "$text" | python3 -c 'import json,sys; print(json.dumps(sys.stdin.read()))'), 'zz']}))" | swift-infer -m model --dtype f32 -q > scored
    python3 - <<'P'
import json
o, s = json.load(open("out")), json.load(open("scored"))["scores"]
assert s[0]["greedy"] and not s[1]["greedy"], s
assert s[0]["tokens"] == 3 and s[1]["tokens"] == 2
assert abs(sum(t["logprob"] for t in o["logprobs"]) - s[0]["logprob"]) < 1e-4
P
}

@test "a bad line is named, what came before is answered" {
    printf '{"prompt": "ab", "max_tokens": 2}\n{"prompt": "cd", "max_tokens": 2}\n{"prompt": 5}\n' > in.jsonl
    run swift-infer -m model --dtype f32 -q in.jsonl
    [ "$status" = 1 ]
    [[ $output == *'in.jsonl: line 3'* ]]
    [ "$(grep -c '"text"' <<< "$output")" = 2 ]
    run swift-infer -m model --dtype f32 -q --skip-bad 1 in.jsonl
    [ "$status" = 0 ]
}

@test "bad continuations make a bad record, which is left out or stops before its line" {
    printf '%s\n' '{"id": 1, "prompt": "a", "continuations": ["b"]}' '{"id": 2, "prompt": "a", "continuations": ["b", 7]}' \
        "{\"id\": 3, \"prompt\": \"a\", \"continuations\": [\"$(printf 'word %.0s' $(seq 60))\"]}" '{"id": 4, "prompt": "a", "continuations": ["c"]}' > in
    [ "$(swift-infer -q -m model --context 32 --skip-bad 2 in 2> told | sed 's/, "scores.*//')" = $'{"id": 1\n{"id": 4' ]
    grep -q 'line 2.*a list of strings' told; grep -q 'line 3.*--context allows 32' told
    ! swift-infer -q -m model --context 32 --skip-bad 1 in > out 2> told || false
    [ "$(wc -l < out)" = 1 ]; grep -q 'line 3' told
}

@test "options out of range, unknown options and missing models" {
    run swift-infer -m model --top-p 2
    [ "$status" = 2 ]
    [[ $output == *'--top-p: 2 is not between'* ]]
    run swift-infer --nonsense
    [ "$status" = 2 ]
    HF_HUB_OFFLINE=1 run swift-infer -m nowhere/model
    [ "$status" = 1 ]
    [[ $output == *'nowhere/model: is no file or folder'* ]]
    run swift-infer -m model --device vulkan
    [ "$status" = 1 ]
    [[ $output == *"'vulkan'"* ]]
}

@test "families and published models are listed" {
    swift-infer --list-models > table
    [ "$(wc -l < table)" -gt 100 ]
    grep -q "^qwen2	qwen2	Qwen2ForCausalLM" table
    [ -z "$(cut -f1 table | sort | uniq -d)" ]
    [ "$(awk -F'\t' '{n += $5} END {print n}' table)" -gt 400 ]
    swift-infer --list-models --list-as json > json
    python3 - <<'P'
import json
rows = [json.loads(l) for l in open("json")]
table = [l.rstrip("\n").split("\t") for l in open("table")]
assert [r["family"] for r in rows] == [t[0] for t in table]
assert [len(r["models"]) for r in rows] == [int(t[4]) for t in table]
qwen = {m["id"]: m["weights"] for r in rows if r["family"] == "qwen" for m in r["models"]}
assert qwen["Qwen/Qwen-7B-Chat"] == "plain" and qwen["Qwen/Qwen-7B-Chat-Int4"] == "gptq", qwen
assert all("lora" in r["tuners"] and "bf16" in r["weights"] for r in rows)
P
    run swift-infer -m model --list-as json
    [ "$status" = 2 ]
    [[ $output == *'--list-as needs --list-models'* ]]
}

@test "matrices in a layout that is not read are refused by its name" {
    sed -i 's/"intermediate_size": 40/"intermediate_size": 40, "quantization_config": {"quant_method": "gptq", "bits": 4}/' model/config.json
    run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
    [ "$status" = 1 ]
    [[ $output == *'model: is quantised already (gptq)'*'qweight'*'GGUF'* ]]
    sed -i 's/"gptq"/"quip"/' model/config.json
    run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
    [ "$status" = 1 ]
    [[ $output == *'already (quip)'* ]]
}

@test "a model whose tensors do not fit its configuration" {
    sed -i 's/"intermediate_size": 40/"intermediate_size": 48/' model/config.json
    run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
    [ "$status" = 1 ]
    [[ $output == *'model.layers.0.mlp.gate_proj.weight is [40, 32], the configuration asks for [48, 32]'* ]]
    sed -i 's/"architectures"/"x"/; s/"model_type": "llama"/"model_type": "lama"/' model/config.json
    run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
    [ "$status" = 1 ]
    [[ $output == *"'lama'"*'nearest is llama'* ]]
}

@test "a weight of integers is refused by name" {
    sed -i 's/"F32"/"I32"/' model/model.safetensors
    run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
    [ "$status" = 1 ]
    [[ $output == *'is of type i32'* ]]
}

@test "a weight that is no number is an error, not a text" {
    python3 - <<'END'
import json, struct
raw = bytearray(open("model/model.safetensors", "rb").read())
n = struct.unpack("<Q", raw[:8])[0]
at = 8 + n + json.loads(raw[8:8 + n])["model.layers.0.mlp.up_proj.weight"]["data_offsets"][0]
raw[at:at + 4] = struct.pack("<f", float("nan"))
open("model/model.safetensors", "wb").write(raw)
END
    run swift-infer -m model -q <<< '{"prompt": "abc", "max_tokens": 2}'
    [ "$status" = 1 ]
    [[ $output == *'logits are no numbers'* ]]
    run swift-infer -m model -q <<< '{"prompt": "abc", "continuations": ["d"]}'
    [ "$status" = 1 ]
    [[ $output == *'line 1: '*'logits are no numbers'* ]]
}

@test "files cut at several places" {
    for n in 0 4 8 100 2000 60000; do
        head -c $n "$T/llm/llama/model.safetensors" > model/model.safetensors
        run bash -c "echo '{\"prompt\": \"a\"}' | swift-infer -m model"
        [ "$status" = 1 ]
        [[ $output == *model.safetensors* ]]
    done
}

@test "settings cut at any place are one line that names the file" {
    echo '{"eos_token_id": [2, 1]}' > generation_config.json
    sed 's/, /,\n/g' model/tokenizer_config.json > tokenizer_config.json
    for f in generation_config.json tokenizer_config.json; do
        cp $f model/$f
        for n in $(seq 0 3 $(($(stat -c %s $f) - 3))); do
            head -c $n $f > model/$f
            run bash -c "echo '{\"prompt\": \"a\", \"max_tokens\": 1}' | swift-infer -q -m model"
            [ "$status" = 1 ]
            [[ $output == *$f* && ${#lines[@]} = 1 ]]
        done
        cp $f model/$f
    done
    echo '{"prompt": "a", "max_tokens": 1}' | swift-infer -q -m model
}

# Answers of records: the options of a record win over those of the command line.
texts() { swift-infer -q -m model --dtype f32 "$@" | python3 -c 'import json,sys; [print(json.dumps(json.loads(l)["text"]), json.loads(l)["finish_reason"], json.loads(l)["completion_tokens"]) for l in sys.stdin]'; }

@test "a stop string ends an answer before it, wherever tokens end" {
    whole=$(echo '{"prompt": "abc", "max_tokens": 12}' | swift-infer -q -m model --dtype f32 | python3 -c 'import json,sys; print(json.load(sys.stdin)["text"])')
    [ "${#whole}" -ge 8 ]
    for at in 0 3 6; do
        stop=${whole:$at:2}
        python3 -c 'import json,sys; print(json.dumps({"prompt": "abc", "max_tokens": 12, "stop": [sys.argv[1], "never here"]}))' "$stop" > in
        want=$(python3 -c 'import json,sys; print(json.dumps(sys.argv[1].split(sys.argv[2])[0]))' "$whole" "$stop")
        run texts in
        [[ $output == "$want stop "* ]]
        run texts --stop "$stop" <<< '{"prompt": "abc", "max_tokens": 12}'
        [[ $output == "$want stop "* ]]
    done
}

@test "generation_config.json: ends are taken, and what is not is told" {
    config() { echo "$1" > model/generation_config.json; swift-infer -m model --dtype f32 "${@:2}" <<< '{"prompt": "hello", "max_tokens": 12}' 2> told; }
    text() { python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])'; }
    whole=$(config '{}' | text)
    [ ! -s told ]
    [ "$(config "{\"stop_strings\": [\"${whole:3:1}\"]}" | text)" = "${whole%%"${whole:3:1}"*}" ]
    [ "$(config "{\"stop_strings\": \"${whole:3:1}\"}" | text)" = "${whole%%"${whole:3:1}"*}" ]
    [ "$(config '{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}' | text)" = "$whole" ]
    grep -q 'generation_config.json asks for --temperature 0.6 --top-k 20 --top-p 0.95 --repetition-penalty 1.1;' told
    config '{"do_sample": false, "temperature": 0.6, "repetition_penalty": 1.1, "top_k": 50}' --repetition-penalty 1.2
    [ ! -s told ]
    config '{"num_beams": 4, "no_repeat_ngram_size": 3, "min_length": 0, "bad_words_ids": [[5]], "suppress_tokens": [], "guidance_scale": null}'
    grep -q 'warning: model/generation_config.json asks for bad_words_ids, no_repeat_ngram_size, num_beams, which' told
    for bad in '{"eos_token_id": "</s>"}' '{"eos_token_id": [2.5]}' '{"stop_strings": [7]}' '[]'; do
        ! config "$bad" || false
        [ "$(grep -c 'model/generation_config.json: ' told)" = 1 ]
    done
}

@test "options of a record, and seeds" {
    for i in 1 2; do
        printf '%s\n' '{"prompt": "abc"}' '{"prompt": "abc", "temperature": 3, "seed": 5}' '{"prompt": "abc", "temperature": 3, "seed": 5}' \
            '{"prompt": "abc", "temperature": 3, "seed": 6}' '{"prompt": "abc", "temperature": 3, "seed": 7, "top_k": 1}' \
            '{"prompt": "abc", "temperature": 3, "seed": 8, "top_p": 1e-6}' '{"prompt": "abc", "temperature": 3, "seed": 9, "min_p": 1}' |
            texts -n 10 > answers.$i
    done
    cmp answers.1 answers.2
    line() { sed -n "$1p" answers.1; }
    [ "$(line 2)" = "$(line 3)" ]
    [ "$(line 2)" != "$(line 4)" ]
    for i in 5 6 7; do [ "$(line $i)" = "$(line 1)" ]; done
    [ "$(texts --seed 5 -t 3 -n 10 <<< '{"prompt": "abc"}')" = "$(line 2)" ]
}

@test "penalties keep an answer from saying the same again" {
    # Greedy answers of a random model fall into a loop; a large penalty makes every token another one.
    repeats() { swift-infer -q -m model --dtype f32 --logprobs "$@" | python3 -c 'import json,sys; ids = [t["id"] for t in json.load(sys.stdin)["logprobs"]]; print(len(ids) - len(set(ids)))'; }
    record='{"prompt": "abc", "max_tokens": 24'
    [ "$(repeats <<< "$record}")" -gt 0 ]
    for p in '"presence_penalty": 100' '"frequency_penalty": 100' '"repetition_penalty": 1000'; do
        [ "$(repeats <<< "$record, $p}")" -lt "$(repeats <<< "$record}")" ]
    done
    [ "$(repeats --presence-penalty 100 <<< "$record}")" = 0 ]
    [ "$(repeats --frequency-penalty 100 <<< "$record}")" = 0 ]
}

@test "--score asks for continuations, and --logprobs itemises their scores" {
    echo '{"id": 1, "prompt": "abc", "continuations": ["xyz", "q"]}' | swift-infer -q -m model --dtype f32 --score --logprobs > out
    python3 - <<'P'
import json
s = json.load(open("out"))["scores"]
assert [x["tokens"] for x in s] == [3, 1], s
for x in s:
    assert len(x["logprobs"]) == x["tokens"] and abs(sum(t["logprob"] for t in x["logprobs"]) - x["logprob"]) < 1e-6
assert [t["token"] for t in s[0]["logprobs"]] == ["x", "y", "z"], s
P
    # The chain rule: what is said in two pieces is as likely as in one.
    printf '%s\n' '{"prompt": "abc", "continuations": ["x"]}' '{"prompt": "abcx", "continuations": ["yz"]}' '{"continuations": ["abcxyz"]}' '{"continuations": ["abc"]}' |
        swift-infer -q -m model --dtype f32 > parts
    python3 - <<'P'
import json
x, yz, all, abc = (json.loads(l)["scores"][0]["logprob"] for l in open("parts"))
whole = json.load(open("out"))["scores"][0]["logprob"]
assert abs(x + yz - whole) < 1e-4 and abs(all - abc - whole) < 1e-4, (x, yz, whole, all, abc)
P
    run bash -c "echo '{\"prompt\": \"abc\"}' | swift-infer -q -m model --score"
    [ "$status" = 1 ]
    [[ $output == *'line 1: "continuations" is missing'* ]]
}

@test "a continuation without text has no tokens; one that cannot be scored is left out alone" {
    printf '%s\n' '{"prompt": "abc", "continuations": ["", "d"]}' '{"prompt": "abc", "continuations": ["d", 1]}' \
        '{"prompt": "abc", "continuations": ["ddddddddddddddddddddd"]}' '{"id": 4, "prompt": "abc", "continuations": ["d"]}' > in.jsonl
    swift-infer -q -m model --dtype f32 --context 20 --skip-bad 2 in.jsonl > out 2> told
    [ "$(wc -l < out)" = 2 ]
    grep -q '^{"scores": \[{"logprob": 0, "tokens": 0, "greedy": true}, {"logprob": -[0-9.]*, "tokens": 1, ' out
    grep -q '^{"id": 4, ' out
    grep -q 'in.jsonl: line 2: "continuations": a list of strings' told
    grep -q 'in.jsonl: line 3: prompt and continuation have 24 tokens, --context allows 20' told
}

@test "learned places end: an answer there, longer prompts by an error that names the record" {
    cp "$BATS_TEST_DIRNAME"/../golden/llm/gpt2/{config.json,model.safetensors} model/
    a=$(printf 'a%.0s' $(seq 60))
    printf '{"prompt": "%s", "max_tokens": 50}\n' "$a" "${a}aaaa" "$a" > in.jsonl
    swift-infer -q -m model --dtype f32 --skip-bad 1 in.jsonl > out 2> told
    [ "$(grep -c '"prompt_tokens": 60, "completion_tokens": 4, "finish_reason": "length"' out)" = 2 ]
    grep -q 'in.jsonl: line 2: the prompt has 64 tokens, the places that the model has learned allow 63' told
}

@test "empty prompts, prompts that are too long, fields of a wrong kind" {
    while IFS='|' read -r record want; do
        printf '%s\n' '{"prompt": "a", "max_tokens": 1}' "$record" > in.jsonl
        run swift-infer -q -m model --dtype f32 --context 20 in.jsonl
        [ "$status" = 1 ]
        [[ $output == *"in.jsonl: line 2: "*"$want"* ]] || { echo "$record: $output"; return 1; }
        [ "$(grep -c '"text"' <<< "$output")" = 1 ]
    done <<'P'
{"prompt": ""}|the prompt is empty
{"prompt": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}|--context allows 19
{"prompt": "a", "temperature": -1}|"temperature" must be 0 or more
{"prompt": "a", "temperature": "hot"}|"temperature"
{"prompt": "a", "top_k": 1.5}|"top_k"
{"prompt": "a", "n": 0}|"n"
{"prompt": "a", "stop": 5}|"stop"
{"messages": []}|"messages"
{"messages": [{"role": "critic", "content": "hi"}]}|"messages[0].role": "critic" is not known
{"messages": [{"role": "user", "content": "hi"}], "tools": {}}|"tools": a list of functions
{"prompt": "a", "continuations": "b"}|"continuations"
[1]|an object is needed
{"prompt": "a"|JSON
P
    printf '{"prompt": "a\xff"}\n' > in.jsonl
    run swift-infer -q -m model in.jsonl
    [ "$status" = 1 ]
    [[ $output == *'in.jsonl: line 1: JSON at byte'*'invalid UTF-8'* ]]
}

@test "a closed pipe ends quietly, a full disk does not" {
    for i in $(seq 400); do echo '{"prompt": "abc", "max_tokens": 2}'; done > many.jsonl
    swift-infer -q -m model many.jsonl 2> told | head -n 1 > first
    [ ! -s told ] && [ -s first ] || false
    run bash -c "ulimit -f 1; swift-infer -q -m model many.jsonl 2>&1 > cut"
    [ "$status" = 1 ]
    [[ $output == *'standard output: '*'File too large'* ]]
    run bash -c "swift-infer -q -m model many.jsonl > /dev/full"
    [ "$status" = 1 ]
    [[ $output == *'No space left'* && ${#lines[@]} = 1 ]]
}

@test "a model that was taught to call a tool calls it" {
    cat > t.jinja <<'J'
{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}{% generation %}{% for c in m.tool_calls %}<tool_call>{"name":"{{ c.function.name }}","arguments":{"x":{{ c.function.arguments.x }}}}</tool_call>{% endfor %}</s>{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}a:{% endif %}
J
    q='"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"messages":[{"role":"user","content":"go"}'
    echo "{$q,{\"role\":\"tool_call\",\"content\":\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{\\\"x\\\":7}}\"}]}" |
        swift-tokenize -q -m model --template t.jinja -o d.shard
    swift-train -q -j 1 --model model --tuner full --lr 0.02 --warmup 0 --max-steps 40 --out out d.shard
    run bash -c "echo '{$q]}' | swift-infer -q -j 1 -m out --dtype f32 -n 60"
    [ "$status" = 0 ]
    [[ $output == *'"tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 7}"}}], "finish_reason": "tool_calls"}' ]]
    run bash -c "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"go\"}]}' | swift-infer -q -j 1 -m out --dtype f32 -n 60"
    [[ $output == *'<tool_call>'*'"finish_reason": "stop"}' ]] # nothing was offered to call
    run bash -c "echo '{\"tools\": 5, \"messages\":[{\"role\":\"user\",\"content\":\"go\"}]}' | swift-infer -q -m out"
    [ "$status" = 1 ]
    [[ $output == *'line 1: "tools": a list of functions is needed'* ]]
}
