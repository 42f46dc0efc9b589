#!/bin/sh
# Manual pages against the programs: every program has a page with its option table, pages name only options and pages
# that there are, and mandoc finds nothing wrong. Lists of models and templates are up to date. Commands of pages, of --help and
# of the README use options that exist.
# Needs the programs and pages in build (make all man).
set -u
bad=0
complain() { echo "$*"; bad=1; }

# Options of a program, a line each, subcommands included.
options() { build/bin/"$1" --help=man | sed -n 's/^\.It .*Fl \\-\([^ ]*\).*/\1/p' | sed 's/\\-/-/g' | sort -u; }
known() { # known PROGRAM OPTION
    options "$1" | grep -qxF -e "$2" && return
    case $2 in no-*) options "$1" | grep -qxF -e "${2#no-}" && return;; esac
    return 1
}

for main in tools/*/main.c; do
    p=$(basename "$(dirname "$main")")
    page=man/man1/$p.1.in
    [ -f "$page" ] || { complain "$p has no manual page $page"; continue; }
    for table in OPTIONS EXAMPLES; do
        [ "$(grep -c "^@$table@$" "$page")" = 1 ] || complain "$page: needs one line @$table@"
    done
    for o in $(sed -n 's/.*Fl \\\{0,1\}-\([a-z][a-z0-9\\-]*\).*/\1/p' "$page" | sed 's/\\//g' | sort -u); do
        known "$p" "$o" || complain "$page: $p has no option --$o"
    done
    ran=$(build/bin/"$p" --help | sed -n 's/.*  \(swift-[a-z]* .*\)/\1/p')
    printf '%s\n' "$ran" | sed 's/|/\n/g' | while read -r word rest; do
        [ -x "build/bin/$word" ] || continue
        for o in $(printf '%s' "$rest" | grep -o -e '--[a-z][a-z0-9-]*' | sed 's/^--//'); do
            known "$word" "$o" || echo "$p --help: $word has no option --$o"
        done
    done > build/lint.examples
    [ ! -s build/lint.examples ] || { cat build/lint.examples; bad=1; }
    rm -f build/lint.examples
done

for page in build/man/man*/*.[157]; do
    told=$(mandoc -T lint -W warning "$page" 2>&1) || complain "$told"
done
for page in man/man*/*; do
    for x in $(sed -n 's/^\.Xr \(swift-[a-z-]*\) \([157]\).*/man\2\/\1.\2/p' "$page" | sort -u); do
        [ -f "man/$x" ] || [ -f "man/$x.in" ] || complain "$page: refers to $x, which there is not"
    done
done

# Pages that programs write from their tables are what they would write now.
build/bin/swift-infer --list-models --list-as man | cmp -s - man/man7/swift-models.7 ||
    complain "man/man7/swift-models.7: the families or models.def have changed; make lists writes it again"
build/bin/swift-tokenize --list-templates --list-as man | cmp -s - man/man7/swift-templates.7 ||
    complain "man/man7/swift-templates.7: the chat formats have changed; make lists writes it again"

for word in $(grep -o 'swift-[a-z]* [^|`]*' README.md | awk '{p = $1; for (i = 2; i <= NF; i++) if ($i ~ /^--[a-z]/) {o = $i; sub(/^--/, "", o); sub(/[=,.;:)].*/, "", o); print p "/" o}}' | sort -u); do
    [ -x "build/bin/${word%%/*}" ] || continue
    known "${word%%/*}" "${word#*/}" || complain "README.md: ${word%%/*} has no option --${word#*/}"
done
exit $bad
