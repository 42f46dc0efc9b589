#!/bin/sh
# Word problems with worked answers, as JSON Lines.
#
#   sh arithmetic.sh train 640 1 > train.jsonl     # split, how many, seed
#   sh arithmetic.sh test 120 1 > test.jsonl
#
# No draw of numbers is in both splits. Half of the test problems are worded in ways that no training problem has
# ("wording": "new"). The same arguments give the same problems with any awk.
set -eu
split=${1:?train or test} count=${2:?how many} seed=${3:-1}
case $split in train|test) ;; *) echo "arithmetic.sh: train or test, not '$split'" >&2; exit 2;; esac

exec awk -v split_name="$split" -v count="$count" -v seed="$seed" '
# Lehmer generator, modulus 2^31 - 1: exact in doubles, unlike rand() the same everywhere.
function draw(n) { state = state * 16807 % 2147483647; return int(state / 2147483647 * n) }
function between(low, high) { return low + draw(high - low + 1) }
function pick(list,    words, n) { n = split(list, words, " "); return words[1 + draw(n)] }

# Numbers for the operations, small enough to be done in the head; the worked lines go to `work`.
function numbers(ops,    i, n, op, r, x, line) {
    n = split(ops, op, "")
    r = op[1] == "*" ? between(2, 12) : op[1] == "/" ? 0 : between(5, 40)
    work = ""; key = 0
    for (i = 1; i <= n; i++) {
        if (op[i] == "/") {
            x = between(2, 9); r = x * between(2, 12)
        } else if (op[i] == "*") {
            x = between(2, 9)
        } else if (op[i] == "-") {
            x = between(1, r - 1)
        } else {
            x = between(2, 30)
        }
        if (i == 1) value["a"] = r
        value[substr("bcd", i, 1)] = x
        line = r " " op[i] " " x " = "
        key = (key * 31 + r * 7 + x) % 1009
        r = op[i] == "+" ? r + x : op[i] == "-" ? r - x : op[i] == "*" ? r * x : r / x
        work = work line r "\\n"
    }
    result = r
}

function problem(template,    part, text, name, other, things, unit) {
    split(template, part, "|")
    do numbers(part[1]); while ((key % 5 == 0) != (split_name == "test") || result < 1 || result > 199)
    text = part[2]
    name = pick("Anna Ben Carla David Emma Felix Grace Hugo Iris Jonas Kira Leo Mia Noah Olga Paul")
    other = pick("Alex Bella Chen Dora Elias Fatma Gita Henry Ida Jamal")
    things = pick("apples books coins pencils stickers marbles cards shells stamps buttons cookies eggs")
    unit = pick("boxes bags baskets jars crates")
    gsub(/NAME/, name, text); gsub(/OTHER/, other, text); gsub(/THINGS/, things, text); gsub(/UNITS/, unit, text)
    gsub(/<a>/, value["a"], text); gsub(/<b>/, value["b"], text); gsub(/<c>/, value["c"], text)
    return text
}

BEGIN {
    # Operations, then the text: <a> is the first number, <b> goes with the first operation, <c> with the second.
    known[++k] = "+|NAME has <a> THINGS and buys <b> more. How many THINGS does NAME have now?"
    known[++k] = "+|There are <a> THINGS on the table and <b> THINGS on the floor. How many THINGS are there in all?"
    known[++k] = "-|NAME had <a> THINGS and gave <b> of them to OTHER. How many THINGS does NAME have left?"
    known[++k] = "-|A shop had <a> THINGS. It sold <b> of them. How many THINGS are left in the shop?"
    known[++k] = "*|NAME has <a> UNITS with <b> THINGS in each. How many THINGS does NAME have in all?"
    known[++k] = "*|One of the THINGS costs <a> dollars. How many dollars do <b> of them cost?"
    known[++k] = "/|NAME shares <a> THINGS equally among <b> friends. How many THINGS does each friend get?"
    known[++k] = "+-|NAME has <a> THINGS. NAME finds <b> more and then loses <c>. How many THINGS does NAME have now?"
    known[++k] = "-+|NAME had <a> THINGS, gave <b> to OTHER and then bought <c> more. How many THINGS does NAME have now?"
    known[++k] = "*+|NAME fills <a> UNITS with <b> THINGS each and has <c> THINGS left over. How many THINGS are there in all?"
    known[++k] = "*-|NAME buys <a> UNITS of <b> THINGS each and gives <c> THINGS to OTHER. How many THINGS does NAME keep?"
    known[++k] = "/+|NAME shares <a> THINGS equally among <b> UNITS. Then <c> more THINGS go into the first. How many THINGS are in the first?"
    known[++k] = "--|NAME had <a> THINGS. On Monday NAME sold <b>, on Tuesday <c>. How many THINGS are left?"
    known[++k] = "++|NAME picks <a> THINGS in the morning, <b> at noon and <c> in the evening. How many THINGS is that in all?"
    fresh[++f] = "+|OTHER gives <b> THINGS to NAME, who had <a> before. How many THINGS does NAME have after that?"
    fresh[++f] = "-|Of the <a> THINGS in a drawer NAME takes out <b>. How many THINGS stay in the drawer?"
    fresh[++f] = "*|A shelf has <a> rows of <b> THINGS. How many THINGS are on the shelf?"
    fresh[++f] = "/|NAME puts <a> THINGS into <b> equal piles. How many THINGS are in a pile?"
    fresh[++f] = "+-|A bus has <a> people in it. At the first stop <b> get on, at the second <c> get off. How many people are in the bus now?"
    fresh[++f] = "*+|NAME has <a> packs of <b> THINGS, and OTHER brings <c> more THINGS. How many THINGS do they have together?"
    fresh[++f] = "*-|There were <a> UNITS with <b> THINGS in each, but <c> of the THINGS broke. How many THINGS are still whole?"

    state = (seed % 2147483645 + 1) * 48271 % 2147483647
    for (i = 0; i < 10; i++) draw(2)
    for (n = 0; n < count;) {
        wording = split_name == "test" && n % 2 ? "new" : "seen"
        question = wording == "new" ? problem(fresh[1 + draw(f)]) : problem(known[1 + draw(k)])
        if (question in asked) {
            if (++again > 100 * count) { print "arithmetic.sh: there are not that many different problems" > "/dev/stderr"; exit 1 }
            continue
        }
        asked[question] = 1
        printf "{\"id\": \"%s-%d\", \"wording\": \"%s\", \"question\": \"%s\", \"answer\": \"%s#### %d\"}\n", split_name, ++n, wording, question, work, result
    }
}'
