load common
load craft
load v3

# The SYNOPSIS of a page, on one line, white space squeezed.
synopsis() {
    mandoc -T ascii -O width=200 "$1" | sed 's/.\x08//g' |
        awk '/^[A-Z]/ { on = $1 == "SYNOPSIS"; next } on' | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

# The usage lines of a program: up to the first empty line.
usage() {
    "$@" -h | sed '/^$/,$d; 1s/^usage: //' | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

@test "every program has a page whose SYNOPSIS is what -h says" {
    wrong=0
    for source in stages/*.c pipelines/*; do
        case $source in *.bash | */slurm | */recipes) continue ;; esac
        name=$(basename "$source" .c)
        command=$BIN/$name
        [ "${source%%/*}" = stages ] || command=$source
        if [ ! -f "man/$name.1" ]; then
            echo "$name: there is no man/$name.1"
            wrong=1
        elif [ "$(synopsis "man/$name.1")" != "$(usage "$command")" ]; then
            printf '%s:\n  -h:       %s\n  SYNOPSIS: %s\n' \
                "$name" "$(usage "$command")" "$(synopsis "man/$name.1")"
            wrong=1
        fi
    done
    [ $wrong = 0 ]
}

@test "every page is of something that exists" {
    wrong=0
    for page in man/*.1; do
        name=$(basename "$page" .1)
        [ -f "stages/$name.c" ] || [ -f "pipelines/$name" ] || { echo "$page: of what?" && wrong=1; }
    done
    [ $wrong = 0 ]
}

@test "a quotation ends before the next one begins" {
    wrong=0 left=$'\u2018' right=$'\u2019'
    for page in man/*; do # .Ql takes all that follows it on its line
        nested=$(mandoc -T utf8 -O width=500 "$page" | sed 's/.\x08//g' | grep -o "${left}[^$right]*$left" | head -n 1)
        [ -z "$nested" ] || { echo "$page: $nested" && wrong=1; }
    done
    [ $wrong = 0 ]
}

@test "every page has the sections that a reader looks for" {
    wrong=0
    for page in man/*.1; do
        for section in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
            grep -qE "^\.Sh \"?$section\"?$" "$page" || { echo "$page: no $section" && wrong=1; }
        done
    done
    [ $wrong = 0 ]
}

@test "every option that -h explains is in the page" {
    wrong=0
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        command=$BIN/$name
        [ "${source%%/*}" = stages ] || command=$source
        [ -f "man/$name.1" ] || continue
        mandoc -T ascii "man/$name.1" | sed 's/.\x08//g' >"$T/page"
        for option in $("$command" -h | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
            grep -qF -- "$option" "$T/page" || { echo "$name: $option is not in its page" && wrong=1; }
        done
    done
    [ $wrong = 0 ]
}

@test "seekpipe(7) lists every program and pipeline" {
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        [ "${name%.bash}" != "$name" ] || [ -d "$source" ] || grep -qx "\.It Xr $name 1" man/seekpipe.7 || missing+=" $name"
    done
    echo "missing:${missing-}"
    [ -z "${missing-}" ]
}

# ---- examples: every command that a page or -h shows runs ----

# The names that examples read, in $T/given; and stand-ins for what is not here or would not do.
# shellcheck disable=SC2016 # the stand-ins are for another shell
given() {
    mkdir "$T/given" "$T/stand-in"
    cp -r "$NANO" "$T/given/DeepSeek-V4"
    cp -r "$NANO" "$T/given/copy"
    cp -r "$NANO_AMAX" "$T/given/dumps"
    cp -r "$NANO_AMAX-mp2" "$T/given/amax-mp2"
    head -n 2 test/data/text/calib-prose.jsonl >"$T/given/news.jsonl"
    head -n 2 test/data/text/eval.jsonl >"$T/given/eval.jsonl"
    cp test/data/tokenizer/chat.jsonl "$T/given/chats.jsonl"
    jq -r .text test/data/text/eval.jsonl >"$T/given/book.txt"
    jq -c '{summary: .text}' test/data/text/eval.jsonl | gzip >"$T/given/web.jsonl.zst"
    (
        cd "$T/given" || exit
        ln -s DeepSeek-V4 DeepSeek-V4-Flash
        ln -s dumps amax
        cp dumps/amax_dict_rank0-mp1.pt .
        pt-read dumps | amax-merge --quiet --model DeepSeek-V4 --fallback layer-max >amax.ts
        amax-merge --quiet --model DeepSeek-V4 --recipe full --input-scale 1 >full.ts
        st-grep 'experts\.[0-7]\.' amax.ts >rank0.ts
        st-grep -V 'experts\.[0-7]\.' amax.ts >rank1.ts
        st-read DeepSeek-V4 | tee a.ts >v4.ts
        st-read DeepSeek-V4 | fp8-dequant | mxfp4-unpack >bf16.ts
        nvfp4-cast --amax amax.ts DeepSeek-V4 | st-write --quiet DeepSeek-V4-NVFP4
        nvfp4-pack --amax amax.ts DeepSeek-V4 | st-write --quiet other
    )
    # DeepSeek-V3, and calibrations of it: what a default one has, and one of attention, too.
    v3_checkpoint "$T/given/DeepSeek-V3"
    mkdir "$T/given/v3-dumps"
    v3_dump "$T/given/v3-dumps/amax.safetensors" layers.{0,1}.attn.wo layers.0.ffn.w{1,2,3} \
        layers.1.ffn.{experts.{0,1},shared_experts}.w{1,2,3}
    v3_dump "$T/mla.safetensors" layers.{0,1}.attn.{wq_a,wq_b,wkv_a,wo} layers.0.ffn.w{1,2,3} \
        layers.1.ffn.{experts.{0,1},shared_experts}.w{1,2,3}
    st-read --inline "$T/mla.safetensors" >"$T/given/mla-amax.ts"
    amax-merge -q --model "$T/given/DeepSeek-V3" --recipe mla-fp8 --peer-max "$T/mla.safetensors" >"$T/given/v3.ts"
    # Two short samples of token ids.
    safetensors "$T/ids.safetensors" \
        '{"input_ids":{"dtype":"I32","shape":[2,4],"data_offsets":[0,32]}}' \
        '\x00\x00\x00\x00\x05\x01\x00\x00\x31\x07\x00\x00\x21\x02\x00\x00\x00\x00\x00\x00\x09\x03\x00\x00\x77\x0f\x00\x00\x04\x04\x00\x00'
    st-read "$T/ids.safetensors" --inline | tee "$T/given/calib.ts" >"$T/given/eval.ts"
    # Another host is this one, its home the folder of the example.
    stand_in ssh 'shift; exec sh -c "$*"'
    stand_in zstd 'case ${1-} in -d) exec gzip -dc ;; *) exec gzip -c ;; esac'
    # Parquet files of texts that are here as JSON lines.
    stand_in duckdb "case \"\$*\" in
        *article*) exec jq -c '{article: .text}' '$T/given/news.jsonl' ;;
        *) exec cat '$T/given/chats.jsonl' ;;
        esac"
    # What is on the hub is here already, and DuckDB installed.
    stand_in hf '[ "$1" = download ] && [ -d "$4" ]'
    stand_in pipx true
    # One node, on which tasks run one after the other.
    cp pipelines/slurm/* "$T/given"
    stand_in sbatch 'for option; do
            shift
            case $option in
            --array=1-*) tasks=${option#--array=1-} ;;
            --wrap) exec sh -c "$1" >&2 ;;
            --*) ;;
            *) break ;;
            esac
        done
        for task in $(seq "$tasks"); do SLURM_ARRAY_TASK_ID=$task bash "$option" "$@" >&2 || exit; done
        echo 1'
    # Reads to the end, so that what feeds it does not sometimes die of SIGPIPE.
    stand_in head '/usr/bin/head "$@" && cat >/dev/null'
    # That the checkpoint called "other" differs is the answer, not a failure.
    stand_in st-cmp 'case " $* " in
        *" other "*) "$SEEKPIPE_BIN/st-cmp" "$@" || [ $? = 1 ] ;;
        *) exec "$SEEKPIPE_BIN/st-cmp" "$@" ;;
        esac'
    PATH=$T/stand-in:$PATH:$PWD/pipelines
    export SEEKPIPE_BIN=$PWD/$BIN
}

stand_in() {
    printf '#!/bin/sh\n%s\n' "$2" >"$T/stand-in/$1"
    chmod +x "$T/stand-in/$1"
}

# What a page shows in EXAMPLES, as plain text.
page_examples() {
    awk '/^\.Sh/ { on = $2 == "EXAMPLES" }
         on && /^\.Ed/ { literal = 0 }
         on && literal { print }
         on && /^\.Bd -literal/ { literal = 1 }
         on && /^\.Dl / { print substr($0, 5) }' "$1" |
        sed "s/\\\\(aq/'/g; s/\\\\(dq/\"/g; s/\\\\(ti/~/g; s/\\\\(ha/^/g; s/\\\\&//g; s/\\\\-/-/g; s/\\\\e/\\\\/g"
}

# What a section of README.md shows as commands, each on a line. What begins with a program and a colon is output.
readme_examples() {
    awk -v section="## $1" '/^## / { on = $0 == section }
         !/^    / { block = "" }
         on && /^    / && !block { block = /^    [a-z-]+: / ? "output" : "commands" }
         block == "commands" { print substr($0, 5) }' README.md | sed -e ':more' -e '/\\$/{' -e N -e 's/\\\n *//' -e 'b more' -e '}'
}

# What -h shows after "Examples:".
usage_examples() {
    "$1" -h | sed '1,/^Examples*:$/d'
}

# try NAME COMMANDS: run them in a folder of their own, where the given names are. Streams are copied,
# for examples may write over them; a checkpoint that the commands make is not there before.
try() {
    local folder=$T/run/$1 path name
    mkdir -p "$folder"
    for path in "$T/given"/*; do
        name=${path##*/}
        if [ ! -d "$path" ]; then
            cp "$path" "$folder"
        elif ! grep -qE "st-write( -[^ ]+)* $name( |\$)|v[34]-.* $name\$" <<<"$2"; then
            ln -s "$path" "$folder"
        fi
    done
    (cd "$folder" && bash -euo pipefail -c "$2") </dev/null >"$folder.log" 2>&1 && return
    printf '%s: exit %d\n%s\n--\n' "$1" $? "$2"
    tail -n 20 "$folder.log"
    return 1
}

@test "the examples of every page run" {
    given
    for page in man/*.[1-9]; do
        examples=$(page_examples "$page")
        [ -n "$examples" ] || { echo "$page: no examples" && wrong=1; }
        try "${page##*/}" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}

@test "the examples of every -h run" {
    given
    for source in stages/*.c pipelines/v[34]-*; do
        name=$(basename "$source" .c)
        examples=$(usage_examples "$name")
        [ -n "$examples" ] || { echo "$name: no examples" && wrong=1; }
        try "$name" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}

# For two GPUs, by which the bundled V4 checkpoint divides. The small V3 one has no tokenizer, and few tokens do not
# reach all of its experts.
@test "the commands in README.md run" {
    given
    jq -rs '.[0].text[:200]' test/data/text/eval.jsonl >"$T/given/book.txt"
    jq -sc '.[0] | .text |= .[:200]' test/data/text/calib-prose.jsonl >"$T/given/news.jsonl"
    head -n 1 test/data/tokenizer/chat.jsonl >"$T/given/chats.jsonl"
    ln -s DeepSeek-V3 "$T/given/DeepSeek-R1"
    ln -s "$PWD/test/data/v3-tiny/ckpt" "$T/given/Kimi-K2"
    cp test/data/v3-tiny/golden/eval-ids.safetensors "$T/given/ids.safetensors"
    for section in 'Convert a checkpoint' DeepSeek-V3 Calibrate; do
        examples=$(readme_examples "$section" | sed 's/-n 8/-n 2/; s/^v3-nvfp4 --calib .*book.txt/v3-nvfp4 --input-scale 1/
            s/^amax-calib --recipe/amax-calib --all-experts --recipe/')
        [ "$(wc -l <<<"$examples")" -ge 2 ]
        try "$section" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}
