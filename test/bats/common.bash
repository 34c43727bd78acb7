# What every Bats file loads: the programs on PATH, a folder of the test's own, the bundled data.

BIN=${BIN:-bin}
export PATH="$PWD/$BIN:$PATH"
export LC_ALL=C.UTF-8

NANO=$PWD/test/data/v4-nano/ckpt      # DeepSeek-V4 in small: 4 layers, 16 experts, 3 shards
NANO_AMAX=$PWD/test/data/v4-nano/golden/amax # its calibration dump, one rank
GOLDEN=$PWD/test/data/v4-nano/golden  # what Model Optimizer makes of it

setup() {
    T=$(mktemp -d)
    if declare -F prepare >/dev/null; then prepare; fi
}

teardown() {
    rm -rf "$T"
}

# fixtures NAME: the folder of a fixture in $FIXTURES: a bundled one, or a larger one; skips the test
# where it is not there.
fixtures() {
    FIXTURES=$PWD/test/data/$1
    [ -d "$FIXTURES" ] || FIXTURES=$PWD/../shared/fixtures/$1
    [ -d "$FIXTURES" ] || skip "larger fixtures ($1) are not here"
}

# A shell pipeline that fails if any of its stages fails.
pipeline() {
    bash -o pipefail -c "$1"
}

# digests DIR|STREAM: name, dtype, shape and SHA-256 of every tensor, as the golden files have them.
digests() {
    st-sum --each "$1" |
        awk -F'\t' '{ gsub(/[][]/, "", $4); print $2 "\t" $3 "\t" $4 "\t" $1 }' | LC_ALL=C sort
}

# same_run A B [OPTION...]: what two equal runs of a pipeline made, by diff with these options: their reports have
# different times.
same_run() {
    diff -r -x quant-report.html "${@:3}" "$1" "$2" &&
        diff <(without_times "$1/quant-report.html") <(without_times "$2/quant-report.html")
}

without_times() {
    sed '/<section aria-labelledby="steps">/,/<\/section>/d' "$1"
}

# golden_lines FILE: a golden file, or FILE.gz, sorted.
golden_lines() {
    if [ -f "$1" ]; then cat "$1"; else gzip -dc "$1.gz"; fi | LC_ALL=C sort
}

# golden FILE: its lines as digests() gives them: without the fifth column, the shard.
golden() {
    golden_lines "$1" | cut -f1-4 | LC_ALL=C sort
}

# same_json A B [FILTER]: equal as JSON documents.
same_json() {
    diff <(jq -S "${3:-.}" "$1") <(jq -S "${3:-.}" "$2")
}

# amaxes FILE [FALLBACK] [DUMPS] [MODEL]: an amax stream of the bundled dump.
amaxes() {
    pipeline "pt-read '${3:-$NANO_AMAX}' | amax-merge -q --model '${4:-$NANO}' --fallback '${2:-layer-max}' >'$1'"
}
