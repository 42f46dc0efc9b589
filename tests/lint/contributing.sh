#!/bin/sh
# The worked example of CONTRIBUTING.md is a family that compiles, and takes fewer than 20 lines.
set -u
example=build/lint.example.c
{ echo '#include "model/family.h"'; echo '#include "base/json.h"'
  awk '/^## A model family/ {on = 1; next} /^## / {on = 0} on && /^    / {sub(/^    /, ""); print; seen = 1; next} on && seen && !/^$/ {exit} on && seen {print}' CONTRIBUTING.md
} > $example
lines=$(grep -c '[^ ]' $example)
bad=0
[ "$lines" -gt 10 ] || { echo "CONTRIBUTING.md: the example of a family is gone"; bad=1; }
[ "$lines" -lt 22 ] || { echo "CONTRIBUTING.md: the example of a family takes $((lines - 2)) lines, fewer than 20 are enough"; bad=1; }
${CC:-cc} -D_GNU_SOURCE -I. -Icommon -std=gnu11 -Wall -Wextra -Werror -fsyntax-only $example || bad=1
rm -f $example
exit $bad
