# For the tests of this folder: load helpers

# The command ends with the status, and says the words on standard error, which is in `told`.
fails() { # fails STATUS WORDS COMMAND...
    status=$1 what=$2; shift 2
    got=0; "$@" > printed 2> told || got=$?
    [ "$got" = "$status" ] && [[ $(cat told) == *"$what"* ]] || { echo "status $got"; cat told; return 1; }
}

# Records of a kind in a run's metrics, and a field of records.
kind() { grep "\"kind\": *\"$1\"" "$2/metrics.jsonl"; }
field() { sed -nE "s/.*\"$1\": *([^,}]*).*/\1/p"; }
