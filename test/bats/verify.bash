# For tests of st-verify: faults planted in $T/bad, a copy of $T/good.

# in_headers FROM TO: change text of equal length in the headers of all shards, and in the index.
in_headers() {
    [ ${#1} = ${#2} ]
    LC_ALL=C sed -i "s/${1//./[.]}/$2/g" "$T"/bad/*.safetensors "$T/bad/model.safetensors.index.json"
}

# config FILTER [FILE]: change config.json.
config() {
    jq "$1" "$T/good/${2-config.json}" >"$T/bad/${2-config.json}"
}

# place NAME: the file and the offset of a tensor of the bad one.
place() {
    st-ls --json "$T/bad" | jq -r "select(.name == \"$1\").where" | sed 's/+.*//; s/@/ /'
}

# put NAME AT BYTES: write over a tensor's bytes.
put() {
    local file offset
    read -r file offset < <(place "$1")
    printf '%b' "$3" | dd of="$T/bad/$file" bs=1 seek=$((offset + $2)) conv=notrunc status=none
}

# finds LINE... [-- OPTION...]: st-verify exits 1 and prints a line that begins with each LINE.
finds() {
    local line wanted=() # `run` sets lines
    while [ $# -gt 0 ] && [ "$1" != -- ]; do wanted+=("$1") && shift; done
    run st-verify "${@:2}" "$T/bad"
    # shellcheck disable=SC2154 # of run
    echo "$output"
    # shellcheck disable=SC2154 # the same
    [ "$status" -eq 1 ]
    for line in "${wanted[@]}"; do
        grep -qF -- "$line" <<<"$output" || { echo "no line has: $line" && return 1; }
    done
}

# only NAME...: these are all faults that the last run found.
only() {
    [ "$(grep -oE '^fault [a-z0-9-]+' <<<"$output" | sort -u | sed 's/fault //' | xargs)" = "$*" ]
}
