# A table of eleven updates, and the evaluations, of a metrics file of swift-train.
function number(name) { return match($0, "\"" name "\": [-0-9.e+]+") ? substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 4) : "" }
/"kind": "start"/ { every = int(number("steps") / 10); if (every < 1) every = 1
    print "update    loss  accuracy  gradient        rate  tokens/s  memory" }
/"kind": "train"/ && (number("step") == 1 || number("step") % every == 0) {
    printf "%6d  %6.3f  %8.3f  %8.3f  %10.2e  %8.0f  %3.0f MiB\n", number("step"), number("loss"), number("token_accuracy"),
        number("grad_norm"), number("lr"), number("tokens_per_second"), number("memory") / 1048576 }
/"kind": "eval"/ { printf "%6d  %6.3f on the validation shard\n", number("step"), number("loss") }
/"kind": "end"/ { printf "%d updates in %.0f s, %.0f MiB of memory at most\n", number("step"), number("elapsed"), number("peak_memory") / 1048576 }
