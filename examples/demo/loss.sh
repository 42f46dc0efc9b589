#!/bin/sh
# loss.sh METRICS: the loss over the updates, drawn with characters where gnuplot is there.
command -v gnuplot > /dev/null || exit 0
sed -n 's/.*"kind": "train", "step": \([0-9]*\),.*"loss": \([-0-9.e+]*\).*/\1 \2/p' "$1" |
    gnuplot -e 'set terminal dumb 78 18; set title "loss"; set xlabel "update"; set yrange [0:*]; plot "-" with lines notitle' |
    sed 's/ *$//; /^\f*$/d'
