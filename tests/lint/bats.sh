#!/bin/sh
# A line of a bats test that is to hold must end the test when it does not. The shell goes on after `! command`, and after
# `a && b` where a fails, unless the line is the last: such a line needs `|| false`.
awk '
function complain(why) {print FILENAME ":" FNR ": " why; bad = 1}
{line = $0; sub(/^[ \t]+/, "", line); sub(/[ \t]+#.*$/, "", line)}
line ~ /^! / && line !~ /\|\| (false|\{.*\}|return 1)$/ {complain("`! command` holds nothing here; end the line with || false")}
line ~ /\|\| ! / && line !~ /\|\| false$/ {complain("`|| ! command` holds nothing here; end the line with || false")}
line ~ /^(\[|\[\[|grep|cmp|cp|mkdir) / && line ~ /(^[^\[].*|\]) && / && line !~ /\|\| (false|\{.*\}|return 1)$|&& (continue|break|return|false)( |;|$)/ {
    complain("`a && b` goes on where a fails; end the line with || false")
}
END {exit bad}' tests/cli/*.bats
