#!/bin/sh
# Fails on an include that points upwards, and on a file name used twice.
set -u
bad=0
rank() {
    case $1 in
    common/base/*) echo 0;;
    kernels/*) echo 1;;
    common/text/*|common/store/*|common/dist/*) echo 2;;
    common/data/*|common/nn/*) echo 3;;
    common/adapter/*) echo 4;;
    common/model/*) echo 5;;
    tools/*) echo 6;;
    *) echo 9;;
    esac
}
for f in $(git ls-files -co --exclude-standard 'common/*.[ch]' 'kernels/*.[ch]' 'kernels/*.cu*' 'tools/*.[ch]'); do
    r=$(rank "$f")
    for i in $(sed -n 's/^[ \t]*#[ \t]*include "\([^"]*\)".*/\1/p' "$f"); do
        if [ -f "$(dirname "$f")/$i" ]; then t=$(dirname "$f")/$i
        elif [ -f "common/$i" ]; then t=common/$i
        else t=$i; fi
        s=$(rank "$t")
        if [ "$s" -gt "$r" ]; then echo "$f: includes $i, which lies above it"; bad=1; fi
        case $f:$t in
        kernels/*:common/base/*|kernels/*:kernels/*) ;;
        kernels/*) echo "$f: kernels include base and kernels only, not $i"; bad=1;;
        tools/*:tools/*) a=${f#tools/}; b=${t#tools/}
            [ "${a%%/*}" = "${b%%/*}" ] || { echo "$f: includes another program's $i"; bad=1; };;
        esac
    done
done
twice=$(git ls-files -co --exclude-standard 'common/*.[ch]' 'kernels/*.[ch]' 'kernels/*.cu*' 'tools/*.[ch]' | grep -v '/main\.c$' | sed 's|.*/||' | sort | uniq -d)
for n in $twice; do
    [ "$(git ls-files -co --exclude-standard "*/$n" | sed 's|/[^/]*$||' | sort -u | grep -c '^kernels')" -gt 1 ] && continue
    echo "file name used twice: $n"; bad=1
done
git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh' | xargs wc -l | awk '$2 != "total" && $1 > 700 {print "note: " $2 " has " $1 " lines"}'
exit $bad
