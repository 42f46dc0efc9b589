#!/usr/bin/env bats
# The conversation of swift-infer on a terminal, with a tiny model that learnt to say back a number.

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 40); do
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"$((i % 5)) it is\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model train.jsonl |
        swift-train -q --model model --dtype f32 --plot none --lr 0.01 --epochs 20 --out lora
}

setup() { cd "$BATS_TEST_TMPDIR"; }
talk() { python3 "$BATS_TEST_DIRNAME/talk.py" swift-infer --model "$W/model" --adapter "$W/lora" --dtype f32 "$@"; }

@test "an answer streams, the conversation goes on, /save writes it and /reset forgets it" {
    talk --max-tokens 40 <<'E'
see /help lists the commands.*> 
type say 3\r
see 3 it is\r\n.*> 
type say 1\r
see it is\r\n.*> 
type /save two.jsonl\r
see 4 messages written to two.jsonl
type /stats\r
see [0-9]+ prompt tokens, first token after [0-9.]+ s, [0-9]+ tokens
type /reset\r
see > 
type say 2\r
see 2 it is\r\n.*> 
type /save one.jsonl\r
see 2 messages written to one.jsonl
type /save nowhere/at/all\r
see nowhere/at/all.*No such file
type /nonsense\r
see /reset +start anew
type /quit\r
end 0
E
    python3 - <<'E'
import json
two, one = (json.load(open(f"{n}.jsonl"))["messages"] for n in ("two", "one"))
assert [m["role"] for m in two] == ["user", "assistant"] * 2 and two[1]["content"] == "3 it is", two
assert one == [{"role": "user", "content": "say 2"}, {"role": "assistant", "content": "2 it is"}], one
E
    # What was saved is data to train on.
    swift-tokenize -q --model "$W/model" --out t.shard two.jsonl
}

@test "a text that ends the answers of a template ends them on the terminal too" {
    swift-tokenize -q --model "$W/model" --template zephyr "$W/train.jsonl" 2> told |
        swift-train -q --model "$W/model" --dtype f32 --plot none --lr 0.01 --epochs 20 --out zephyr
    python3 "$BATS_TEST_DIRNAME/talk.py" swift-infer --model "$W/model" --adapter zephyr --dtype f32 --max-tokens 60 <<'E'
see > 
type say 3\r
see 3 it is\r\n.*> 
type /save one.jsonl\r
see 2 messages
type /quit\r
end 0
E
    grep -q '"3 it is"' one.jsonl
}

@test "keys move, delete and bring lines back, in characters" {
    talk --max-tokens 40 <<'E'
see > 
type ay 4\x01s\r
see 4 it is\r\n.*> 
type say 49\x7f\r
see it is\r\n.*> 
type /reset\r
see > 
type \x1b[A\x1b[A\r
see 4 it is\r\n.*> 
type /save one.jsonl\r
see 2 messages
type /reset\r
see > 
type \xc3\xa4\xc3\xb6\x7f!\r
see \r\n.*> 
type /save umlaut.jsonl\r
see 2 messages
type \x04
end 0
E
    grep -q '"say 4"' one.jsonl
    grep -q '"content": "ä!"' umlaut.jsonl
}

@test "Control-C drops a line, and stops an answer without the end of the conversation" {
    talk --max-tokens 100000 --context 200000 --temperature 3 --frequency-penalty -1 <<'E'
see > 
type half a line\x03
see > 
type /save none.jsonl\r
see 0 messages
type a very long story\r
see story\r\n..........
type \x03
see > 
type /save cut.jsonl\r
see 2 messages
type \x04
end 0
E
    grep -q '"role": "assistant"' cut.jsonl
}

@test "a kill ends an answer and the conversation" {
    talk --max-tokens 100000 --context 200000 --temperature 3 --frequency-penalty -1 <<'E'
see > 
type a very long story\r
see story\r\n..........
kill TERM
end 0
E
    talk <<'E'
see > 
kill TERM
end 0
E
}

@test "a system prompt from the command line and from /system" {
    talk --max-tokens 40 --system 'be kind' <<'E'
see > 
type say 1\r
see \r\n.*> 
type /save a.jsonl\r
see 3 messages
type /system be "brief"\r
see > 
type say 1\r
see \r\n.*> 
type /save b.jsonl\r
see 3 messages
type \x04
end 0
E
    grep -q '"role": "system", "content": "be kind"' a.jsonl
    grep -q '"content": "be \\"brief\\""' b.jsonl
    ! grep -q kind b.jsonl || false
}

@test "a conversation from a pipe answers on standard output" {
    printf 'say 3\n\n/reset\nsay 0\n' | swift-infer -q --chat --model "$W/model" --adapter "$W/lora" --dtype f32 > told
    [ "$(cat told)" = '3 it is
0 it is' ]
}

@test "options of records are refused in a conversation" {
    for bad in "--samples 2" --logprobs --timing "--skip-bad 2" --score; do
        run swift-infer --chat --model "$W/model" $bad < /dev/null
        [ "$status" = 2 ]
    done
}

@test "a conversation longer than --context is told, and /reset goes on" {
    talk --context 40 <<'E'
see > 
type say 1 and say it again and again and again, as often as you can and then once more\r
see the conversation has [0-9]+ tokens, --context allows 39; /reset starts anew
type /reset\r
see > 
type say 1\r
see 1 it is\r\n.*> 
type \x04
end 0
E
}

@test "a model without a chat template talks by its family's" {
    cp -r "$W/model" bare
    echo '{"eos_token": "<|endoftext|>"}' > bare/tokenizer_config.json
    run bash -c "echo hello | swift-infer -q --chat --max-tokens 4 --model bare"
    [ "$status" = 0 ]
    [ -n "$output" ]
}
