# swift-eval as its user runs it. Answers come from awk: what a model says is written here, what it reaches was counted
# by hand.

setup() {
    cd "$BATS_TEST_TMPDIR"
    cat > test.jsonl <<'END'
{"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
{"question": "A thousand?", "answer": "It is a thousand.\n#### 1,000"}
{"question": "Half of 5?", "answer": "5 / 2 = 2.5\n#### 2.50"}
{"question": "Three less than one?", "answer": "1 - 3 = -2\n#### -2"}
END
}

# A model: text number N for record N (JSON text without quotes, a line each on file "says").
answer() {
    awk 'NR == FNR {say[NR] = $0; next} {sub(/}$/, ", \"text\": \"" say[FNR] "\", \"finish_reason\": \"stop\"}"); print}' says -
}
# FILE EXPRESSION: the Python expression of each record o in it, a line each; fails where the last is false.
json() {
    python3 - "$@" <<'END'
import json, sys
text, at, decode = open(sys.argv[1]).read(), 0, json.JSONDecoder().raw_decode
while text[at:].strip():
    at += len(text[at:]) - len(text[at:].lstrip())
    o, at = decode(text, at)
    r = eval(sys.argv[2])
    print(r if isinstance(r, str) else json.dumps(r, separators=(",", ":")))
sys.exit(not r)
END
}
# FILE STATEMENT: the record o in it, changed.
change() {
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
exec(sys.argv[2])
print(json.dumps(o))' "$@"
}
value() { json "$1" "o['metrics']['$2']['value']" || true; }
# the message of a command that must fail with a status
fails() {
    status=$1; shift
    got=0; "$@" > printed 2> told || got=$?
    [ "$got" = "$status" ] || { echo "status $got, not $status"; cat told; return 1; }
    [ "$(wc -l < told)" = 1 ] || { cat told; return 1; }
}

@test "gsm8k from prompts to a report" {
    swift-eval prompts -q --task gsm8k test.jsonl > prompts
    [ "$(wc -l < prompts)" = 4 ]
    head -n 1 prompts > first
    json first 'o["id"] == "test:1" and o["task"] == "gsm8k" and o["answer"] == "4" and o["messages"] == [{"role": "user", "content": "Two and two?"}]'
    cat > says <<'END'
It is 4.\n#### 4
The answer is $1000.00.
#### 2.5 and not 3
first 2, so minus two
END
    answer < prompts > results
    swift-eval score -q results > report 2> told
    [ ! -s told ]
    # strict: 1 and 3; flexible: 1 and 2 (3 ends in 3, 4 in 2)
    [ "$(value report strict-match)" = 0.5 ]
    [ "$(value report flexible-extract)" = 0.5 ]
    json report 'o["count"] == 4 and o["records"]["sums"] == {"strict-match": [1,0,1,0], "flexible-extract": [1,1,0,0]}'
    json report 'o["made"]["inputs"][0]["file"] == "results" and o["made"]["command"].startswith("swift-eval score")'
}

@test "gsm8k: a minus as it is typeset is a minus" {
    echo '{"question": "1 - 19?", "answer": "#### -18"}' > minus.jsonl
    for says in '#### −18' '#### 18'; do
        swift-eval prompts -q --task gsm8k minus.jsonl > prompts
        echo "$says" > says
        answer < prompts | swift-eval score -q > report
        value report strict-match && value report flexible-extract
    done | tr '\n' ' ' > got
    [ "$(cat got)" = '1 1 0 0 ' ]
}

@test "the same through pipes, with the table for people on standard error" {
    yes '#### 4' | head -n 4 > says
    swift-eval prompts --task gsm8k test.jsonl 2> one | answer | swift-eval score 2> two > report
    [ "$(value report strict-match)" = 0.25 ]
    grep -q '4 records' one
    grep -q 'strict-match  *0.2500  \[0.0000, 0.7500\]' two
}

@test "reports do not depend on threads or the order of the records" {
    yes '#### 4' | head -n 4 > says
    swift-eval prompts -q --task gsm8k test.jsonl | answer > results
    tac results > turned
    swift-eval score -q -j 1 results > one
    swift-eval score -q -j 3 turned > three
    cmp <(change one 'del o["made"]') <(change three 'del o["made"]')
}

@test "several samples of a record are its mean" {
    printf '%s\n' '#### 4' '#### 4' '#### 5' '#### 1' > says
    swift-eval prompts -q --task gsm8k --limit 1 test.jsonl > one
    for i in 0 1 2 3; do sed 's/}$/, "sample": '$i'}/' one; done | answer | swift-eval score -q > report
    json report 'o["count"] == 1 and o["metrics"]["strict-match"]["value"] == 0.5'
}

@test "examples in front, chosen by seed and never the question itself" {
    swift-eval prompts -q --task gsm8k --shots 3 --train test.jsonl test.jsonl > prompts
    json prompts 'len(o["messages"]) == 7' | grep -cx true | grep -qx 4
    json prompts 'len({m["content"] for m in o["messages"] if m["role"] == "user"}) == 4' | grep -cx true | grep -qx 4
    swift-eval prompts -q --task gsm8k --shots 2 --format text --train test.jsonl --limit 1 test.jsonl > text
    json text 'o["prompt"]' > prompt
    grep -c '^Question: ' prompt | grep -qx 3
    [ "$(tail -n 1 prompt)" = 'Answer:' ]
    for s in 1 2 3 4 5; do swift-eval prompts -q --task gsm8k --shots 1 --seed $s --train test.jsonl --limit 1 test.jsonl; done | sort -u > seeds
    [ "$(wc -l < seeds)" -gt 1 ]
    fails 1 swift-eval prompts --task gsm8k --shots 4 --train test.jsonl test.jsonl
    grep -q '3 examples' told
}

@test "bbh: groups, letters, words and numbers" {
    cat > dates.json <<'END'
{"canary": "c", "examples": [{"input": "When?\nOptions:\n(A) now\n(B) then", "target": "(B)"}, {"input": "Who?\nOptions:\n(A) me\n(B) you", "target": "(A)"}]}
END
    echo '{"examples": [{"input": "How many?", "target": "8"}, {"input": "Sort: b a", "target": "a b"}, {"input": "Close [", "target": "]"}, {"input": "No?", "target": "No"}]}' > counts.json
    swift-eval prompts -q --task bbh dates.json counts.json > prompts
    cat > says <<'END'
So the answer is (B).
It is neither (B) nor (C): **(A)**
There are 8 of them
so the answer is: a b.
So the answer is >.
No, the answer is no
END
    answer < prompts > results
    swift-eval score -q --details details results > report
    json report 'o["groups"]["dates"]["count"] == 2 and o["groups"]["counts"]["count"] == 4 and o["count"] == 6'
    [ "$(json details 'list(o["scores"].values())' | tr '\n' ' ')" = '[1,1] [0,1] [0,1] [1,1] [0,0] [0,1] ' ]
    json report 'o["groups"]["dates"]["metrics"]["strict-match"]["value"] == 0.5 and o["groups"]["counts"]["metrics"]["flexible-extract"]["value"] == 0.75'
}

@test "bbh: an answer in bold type is found" {
    echo '{"examples": [{"input": "Sort: b a", "target": "a b"}]}' > sort.json
    swift-eval prompts -q --task bbh sort.json > prompts
    for says in 'So the answer is **a b**.' '**So the answer is: a b**' 'The answer is: **a b.**' '**The answer is:** a b'; do
        echo "$says" > says
        answer < prompts | swift-eval score -q > report
        [ "$(value report flexible-extract)" = 1 ] || { echo "$says"; return 1; }
    done
}

@test "exact: conversations that end in their answer, and options for what is the same" {
    cat > own.jsonl <<'END'
{"id": "a", "messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am Ada."}]}
{"id": "b", "query": "And you?", "response": "Bob"}
{"id": "c", "prompt": "Say yes", "answer": "Yes!"}
END
    swift-eval prompts -q --task exact own.jsonl > prompts
    head -n 1 prompts > first
    json first 'o["answer"] == "I am Ada." and len(o["messages"]) == 1'
    printf '%s\n' ' I am Ada. ' 'My name is bob' 'yes' > says
    answer < prompts > results
    reached() { # WANTED OPTION...
        wanted=$1; shift
        swift-eval score -q "$@" results > report
        [ "$(json report 'o["records"]["sums"]["exact-match"]')" = "$wanted" ]
    }
    reached '[1,0,0]'
    reached '[1,0,1]' --normalise case,punctuation
    reached '[0,1,1]' --normalise case,punctuation --extract '\w+\W*$'
    reached '[0,1,0]' --normalise case --extract '\w+\W*$'
}

@test "choice: by log-probability, and by that over the length" {
    cat > choices.jsonl <<'END'
{"question": "Short or long?", "choices": ["no", "certainly"], "answer": 1}
{"question": "Which?", "choices": ["abc", "abcd"], "answer": "A"}
{"question": "Whose?", "choices": ["mine", "yours"], "answer": "yours"}
END
    swift-eval prompts -q --task choice choices.jsonl > prompts
    [ "$(json prompts '[o["continuations"], o["lengths"], o["answer"]]' | head -n 1)" = '[[" no"," certainly"],[2,9],1]' ]
    [ "$(json prompts 'o["answer"]' | tr '\n' ' ')" = '1 0 1 ' ]
    printf '%s\n' '-2 -4.5' '-3 -3.5' '-1 -9' > logprobs
    awk 'NR == FNR {a[NR] = $1; b[NR] = $2; next} {sub(/}$/, ", \"scores\": [{\"logprob\": " a[FNR] "}, {\"logprob\": " b[FNR] "}]}"); print}' logprobs prompts |
        swift-eval score -q > report
    # acc: 1 wrong, 2 and 3: abc right, mine wrong; acc_norm: -1 against -0.5 right, -1 against -0.875 wrong, wrong
    json report 'o["records"]["sums"] == {"acc": [0,1,0], "acc_norm": [1,0,0]}'
}

@test "choice: among numbers a text is one of them, a number a place" {
    printf '{"question": "1 - 1?", "choices": ["2", "1", "0"], "answer": %s}\n' '"0"' 0 '"2"' 2 '"1"' > numbers.jsonl
    swift-eval prompts -q --task choice numbers.jsonl > prompts
    [ "$(json prompts 'o["answer"]' | tr '\n' ' ')" = '2 0 0 2 1 ' ]
}

@test "perplexity: weighed by tokens, words and bytes; parts are one record" {
    printf '%s\n' '{"text": "a bc"}' '{"text": "hello world, again"}' > texts.jsonl
    swift-eval prompts -q --task perplexity texts.jsonl > prompts
    [ "$(json prompts '[o["prompt"], o["continuations"][0], o["words"], o["bytes"]]' | tr '\n' ' ')" = '["","a bc",2,4] ["","hello world, again",3,18] ' ]
    printf '%s\n' '-3 4' '-7 6' > logprobs
    awk 'NR == FNR {a[NR] = $1; b[NR] = $2; next} {sub(/}$/, ", \"scores\": [{\"logprob\": " a[FNR] ", \"tokens\": " b[FNR] "}]}"); print}' logprobs prompts |
        swift-eval score -q > report
    # exp(10 / 10), exp(10 / 5), 10 / ln 2 / 22
    json report 'all(abs(o["metrics"][k]["value"] - v) < 1e-12 for k, v in
        [("token_perplexity", 2.718281828459045), ("word_perplexity", 7.38905609893065), ("bits_per_byte", 0.6557704731313742)])'
    # A long text is cut at white space, and nothing of it is lost.
    awk 'BEGIN {printf "{\"text\": \""; for (i = 0; i < 3000; i++) printf "w\303\266rd%d ", i; print "end\"}"}' > long.jsonl
    swift-eval prompts -q --task perplexity long.jsonl > parts
    [ "$(wc -l < parts)" = 5 ]
    cmp <(json parts 'o["continuations"][0]' | tr -d '\n') <(json long.jsonl 'o["text"]' | tr -d '\n')
    [ "$(json parts 'o["words"]' | awk '{n += $1} END {print n}')" = 3001 ]
    ! json parts 'len(o["continuations"][0].encode()) == o["bytes"] <= 6000 and len(o["prompt"].encode()) <= 2000' | grep false || false
    sed 's/}$/, "scores": [{"logprob": -5, "tokens": 10}]}/' parts | swift-eval score -q > report
    json report 'o["count"] == 1 and o["records"]["sums"]["token_perplexity"] == [25]'
}

@test "a task of one's own" {
    swift-eval tasks | grep -q '^gsm8k '
    swift-eval tasks choice > choice.json
    change choice.json 'o |= {"name": "letters", "choices": "choices.text", "labels": "choices.label", "continuation": "{{ letter }}",
        "input": "{{ question }}{% for c in choices.text %} {{ choices.label[loop.index0] }}. {{ c }}{% endfor %} A:"}' > mine.json
    echo '{"question": "Q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answer": "3"}' > data.jsonl
    swift-eval prompts -q --task mine.json data.jsonl > prompts
    json prompts 'o["prompt"] == "Q 1. x 2. y 3. z A:" and o["continuations"] == ["A", "B", "C"] and o["answer"] == 2'
    sed 's/}$/, "scores": [{"logprob": -3}, {"logprob": -2}, {"logprob": -1}]}/' prompts > results
    swift-eval score -q --task mine.json results > report
    json report 'o["task"] == "letters" and o["metrics"]["acc"]["value"] == 1'
    fails 1 swift-eval score results
    grep -q "no task 'letters'" told
    change mine.json 'o["colour"] = 1' > bad.json
    fails 1 swift-eval prompts --task bad.json data.jsonl
    grep -q 'bad.json: a task has no "colour"' told
    change mine.json 'o["input"] = "{{ question"' > bad.json
    fails 1 swift-eval prompts --task bad.json data.jsonl
    grep -q 'bad.json: "input": line 1' told
    change mine.json 'del o["continuation"]' > bad.json
    fails 1 swift-eval prompts --task bad.json data.jsonl
}

@test "compare: a table, the best, paired differences, a plot" {
    seq -f '{"question": "q%g", "answer": "#### 1"}' 40 > many.jsonl
    swift-eval prompts -q --task gsm8k many.jsonl > prompts
    awk '{print NR % 4 ? "#### 0" : "#### 1"}' prompts > says
    answer < prompts | swift-eval score -q -o before.json
    awk '{print NR % 4 == 1 ? "#### 0" : "#### 1"}' prompts > says
    answer < prompts | swift-eval score -q -o after.json
    swift-eval compare before.json new=after.json --plot plot.svg > table
    grep -q '^before  0.2500 \[.*\]  *0.2500' table
    grep -q '^new     0.7500 \[0\..*, 0\..*\] \*' table
    grep -q '^new  *+0.5000 \[+0\.[23].*, +0\.[67].*\] \*' table
    grep -q '</svg>' plot.svg
    swift-eval compare -f json before.json after.json > table
    json table 'o["rows"][1]["values"][0]["best"] and o["rows"][1]["values"][0]["difference"]["value"] == 0.5'
    swift-eval compare -f markdown before.json after.json | grep -q '^| after | \*\*0.7500\*\* \['
    # An = in a name or a path parts nothing.
    mkdir lr=1e-4; cp after.json lr=1e-4/
    swift-eval compare before.json lr=1e-4/after.json lr=1=lr=1e-4/after.json > table
    grep -q '^after   0.7500' table
    grep -q '^lr=1    0.7500' table
    # The same report against itself differs by nothing at all.
    swift-eval compare -f json before.json x=before.json > table
    json table 'o["rows"][1]["values"][0]["difference"] == {"value": 0, "low": 0, "high": 0}'
    # Other questions: no test, and a warning.
    tail -n 30 prompts | answer | swift-eval score -q -o fewer.json
    swift-eval compare before.json fewer.json > table 2> told
    ! grep -q minus table || false
    grep -q 'other questions' told
    fails 1 swift-eval compare a=before.json a=after.json
    fails 1 swift-eval compare before.json nothing.json
    fails 2 swift-eval compare --plot x.pdf before.json
    # Without gnuplot: told, and no file.
    eval=$(command -v swift-eval)
    PATH=/nowhere run "$eval" compare --plot other.png before.json
    [ "$status" = 1 ]
    [[ $output == *'not installed'* ]]
    [ ! -e other.png ]
}

@test "bad input is one clear error, and no report" {
    swift-eval prompts -q --task gsm8k test.jsonl > prompts
    yes '#### 4' | head -n 4 > says
    answer < prompts > results
    bad() { # TEXT COMMAND...: must fail and say TEXT
        text=$1; shift
        fails 1 "$@"
        grep -qF "$text" told || { cat told; return 1; }
        [ ! -s printed ]
    }
    (sed -n 1,2p test.jsonl; echo '{"question":') > broken.jsonl
    fails 1 swift-eval prompts --task gsm8k broken.jsonl
    grep -q 'broken.jsonl: line 3' told
    bad 'prompts: line 1: the record has no "text"' swift-eval score prompts
    echo '{"query": "Which?", "answer": ["Paris", "paris"]}' > several
    bad 'several: line 1: "answer" of the task: the right answer is a text or a number' swift-eval prompts --task exact several
    (sed -n 1,2p results; echo '{"id": 1,') > broken
    bad 'broken: line 3' swift-eval score broken
    (cat results; head -n 1 results) > twice
    bad 'twice: line 5: "id": "test:1" was in result 1 already' swift-eval score twice
    : > empty
    bad 'empty: has no records' swift-eval score empty
    bad 'empty: has no records' swift-eval prompts --task gsm8k empty
    bad "line 1: \"task\": the result is of the task 'gsm8k', not of 'bbh'" swift-eval score --task bbh results
    printf '{"id": 1, "task": "gsm8k", "answer": "1", "text": "\xff"}\n' > bytes
    bad 'bytes: line 1: JSON at byte' swift-eval score bytes
    echo '{"question": "q"}' > missing.jsonl
    bad 'missing.jsonl: line 1: the task gsm8k needs a field answer' swift-eval prompts --task gsm8k missing.jsonl
    echo '{"question": "q", "answer": "none"}' > form.jsonl
    bad 'does not have the form' swift-eval prompts --task gsm8k form.jsonl
    printf '%s\n' '{"id": 1, "query": "q", "answer": "a"}' '{"id": 1, "query": "r", "answer": "b"}' > ids.jsonl
    fails 1 swift-eval prompts --task exact ids.jsonl
    grep -q 'ids.jsonl: line 2: the id 1 was used before, at ids.jsonl: line 1' told
    echo '{"question": "q", "choices": ["a", "b"], "answer": 2}' > choice.jsonl
    bad "the answer '2' names none of the 2 choices" swift-eval prompts --task choice choice.jsonl
    sed 's/"finish_reason": "stop"/"finish_reason": "interrupted"/' results > cut
    bad 'cut: line 1: "finish_reason": the answer was interrupted' swift-eval score cut
    bad "there is no task 'gsm9k'" swift-eval prompts --task gsm9k test.jsonl
    bad 'nowhere' swift-eval score nowhere
    bad 'regular expression' swift-eval score --extract '(' results
    fails 1 swift-eval score -q twice -o report --details details
    [ ! -e report ] && [ ! -e details ] || false
    fails 2 swift-eval prompts test.jsonl
    fails 2 swift-eval prompts --task gsm8k --shots 2 test.jsonl
    fails 2 swift-eval nothing
    fails 2 swift-eval score --confidence 2 results
}

@test "reports that are no reports" {
    yes '#### 4' | head -n 4 > says
    swift-eval prompts -q --task gsm8k test.jsonl | answer | swift-eval score -q -o good.json
    for edit in 'del o["task"]' 'o["count"] = 5' 'o["count"] = 1e18' 'o["metrics"] = {}' 'o["metrics"]["strict-match"]["value"] = "x"' \
                'o["records"]["sums"]["strict-match"][2] = None' 'o["records"]["weights"] = {"strict-match": [0,0,0,0]}' \
                'o["records"]["weights"] = {"strict-match": [1,1,-1,1]}' 'o["bootstrap"]["samples"] = 0' 'o["bootstrap"]["confidence"] = 1' \
                'o["groups"] = {"g": 1}' 'o = [o]' 'o["metrics"]["strict-match"]["scale"] = "log"'; do
        change good.json "$edit" > bad.json
        fails 1 swift-eval compare good.json bad.json
        grep -q 'bad.json: ' told
    done
    change good.json 'del o["records"]' > plain.json
    swift-eval compare -q good.json plain.json | grep -q '^plain  0.2500'
}

@test "a full disk and a closed pipe" {
    seq -f '{"question": "q%g", "answer": "#### 1"}' 3000 > many.jsonl
    seq -f '{"id": "q%g", "task": "gsm8k", "answer": "1", "text": "#### 1"}' 3000 > results
    run bash -c "ulimit -f 4; swift-eval score -q --out report.json --details details results"
    [ "$status" = 1 ]
    [[ $output == *'File too large'* && ${#lines[@]} = 1 ]]
    [ ! -e report.json ] && [ ! -e details ] && ! ls | grep tmp || false
    swift-eval prompts -q --task gsm8k many.jsonl 2> told | head -n 1 > first
    [ ! -s told ] && [ -s first ] || false
    run bash -c "swift-eval prompts -q --task gsm8k many.jsonl > /dev/full"
    [ "$status" = 1 ]
    [[ $output == *'No space left'* && ${#lines[@]} = 1 ]]
}
