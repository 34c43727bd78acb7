# Text from outside that a terminal would obey, or show as another: in a stream's header, a checkpoint's
# configs, names, listings. Messages and tables show '?', JSON has it escaped.
# shellcheck disable=SC2016,SC2030,SC2031 # jq has variables; each test is a subshell

load common
load craft

ESC=$'\033]0;x\007' # a window's title
C1=$'\xc2\x9b31m'   # CSI as one character
RAW=$'\x9b31m'      # as one byte, which is not UTF-8
BIDI=$'\xe2\x80\xae' # what follows is shown from right to left
HIDDEN=$'\xe2\x80\x8b' # a space of no width

# harmless FILE...: has no such thing in it.
harmless() {
    local LC_ALL=C
    ! grep -aP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b\x8e\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf' "$@" || return 1
    iconv -f UTF-8 -t UTF-8 "$@" >/dev/null
}

# said COMMAND...: whatever its exit code, what it says is harmless, and something.
said() {
    timeout 20 "$@" >"$T/stdout" 2>"$T/stderr" || true
    [ -s "$T/stdout" ] || [ -s "$T/stderr" ]
    harmless "$T/stdout" "$T/stderr"
}

# hostile_stream JQ: the small checkpoint as a stream with a header changed so, as $T/tree.ts.
hostile_stream() {
    unpack "$NANO"
    jq -c --arg x "ü$ESC$C1$BIDI$HIDDEN" "$1" "$T/tree/.stream" >"$T/header"
    mv "$T/header" "$T/tree/.stream"
    pack "$T/tree.ts"
}

@test "a stream's header, in every place that is shown" {
    hostile_stream '.input.formats = {($x): 7, "BF16": 3} | .input.left_out = 3 | .input.left_out_first = $x | .scope = $x'
    said st-write -n "$T/out" "$T/tree.ts"
    said st-write --partial -n "$T/out" "$T/tree.ts"
    grep -q 'ü?]0;x??31m??' "$T/stdout"
    said st-write --partial "$T/out" "$T/tree.ts"
    grep -q 'ü?]0;x??31m??' "$T/stderr"
    rm -r "$T/out"
    # JSON is the same JSON.
    said st-write --partial -n --json "$T/out" "$T/tree.ts"
    [ "$(jq -r .input.left_out_first "$T/stdout")" = "ü$ESC$C1$BIDI$HIDDEN" ]
    said st-ls --header "$T/tree.ts"
    [ "$(jq -r .scope "$T/stdout")" = "ü$ESC$C1$BIDI$HIDDEN" ]
    grep -q ü "$T/stdout"
}

@test "labels of files, their paths, and names of side files" {
    for bad in "$C1" "$BIDI" "$HIDDEN"; do
        printf 0123 >"$T/m.safetensors"
        files="\"m$bad\":{\"path\":\"$T/m.safetensors\",\"size\":4,\"mtime_ns\":1}"
        stream() {
            local LC_ALL=C # sizes are bytes
            printf '{"format":"tensor-stream","version":1,"scope":"all","files":{%s},"quant":{},"history":[]}\n' "$files" >"$T/h"
            { entry .stream "$(<"$T/h")" && entry .toc $'a\tU8\t[4]\tm.safetensors\tdata\n'; "$@"; } >"$T/a.ts"
        }
        stream reference a "m$bad@0+4"
        said st-ls -l "$T/a.ts"
        grep -q "'files' entry 'm?.*' needs" "$T/stderr"
        files="\"m.safetensors\":{\"path\":\"/nowhere/$bad\",\"size\":4,\"mtime_ns\":1}"
        stream reference a m.safetensors@0+4
        said st-ls "$T/a.ts"
        files=
        stream entry "files/x$bad" x
        said st-ls "$T/a.ts"
        grep -q 'files/x?' "$T/stderr"
    done
}

@test "what is in configs, listings, checkpoints, file names" {
    for bad in "$ESC" "$C1" "$RAW" "$BIDI"; do
        # A listing that somebody sent.
        { st-sum --each "$NANO" && printf '%064d\tx%s\tU8\t[1]\n' 0 "$bad"; } >"$T/listing"
        said st-sum --check "$T/listing" "$NANO"
        grep -q '^x?' "$T/stdout"
        # A checkpoint.
        rm -rf "$T/c"
        cp -r "$NANO" "$T/c"
        chmod -R u+w "$T/c"
        printf '{"model_type":"x%s","num_hidden_layers":"%s"}' "$bad" "$bad" >"$T/c/config.json"
        said st-verify "$T/c"
        said st-write -n "$T/out" "$T/c"
        said st-eval --tokens "$T/none" "$T/c"
        printf '{"a%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' "$bad" >"$T/header"
        { le64 "$(stat -c %s "$T/header")" && cat "$T/header"; } >"$T/x.safetensors"
        said st-ls "$T/x.safetensors"
        printf '{"weight_map":{"a":"%s"}}' "$bad" >"$T/c/model.safetensors.index.json"
        said st-ls "$T/c"
        # A file's own name.
        said st-ls "$T/no$bad"
        touch "$T/c/y$bad"
        said st-read -n "$T/c"
    done
}
