# The commands that pages show, and a place where they run.

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
        *article*) exec jq -c '{article: .text[:400]}' '$T/hub/texts.jsonl' ;;
        *) exec head -n 1 '$T/hub/chats.jsonl' ;;
        esac"
    # What is on the hub lies in $T/hub, or is here already; and what pipx installs is here.
    mkdir "$T/hub"
    cp "$T/given/news.jsonl" "$T/hub/texts.jsonl"
    cp "$T/given/chats.jsonl" "$T/hub"
    stand_in hf "case \$1 in
        upload) [ -e \"\$3/config.json\" ] ;;
        download)
            while [ \$# -gt 1 ] && [ \"\$1\" != --local-dir ]; do from=\${from:-\$2} && shift; done
            [ -d \"\$2\" ] || cp -r \"$T/hub/\${from##*/}\" \"\$2\" ;;
        esac"
    stand_in pipx '[ "$1" = install ]'
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
        export SLURM_JOB_ID=1
        [ -n "${tasks-}" ] || SLURM_JOB_NODELIST=localhost exec bash "$option" "$@" >&2
        for task in $(seq "$tasks"); do SLURM_ARRAY_TASK_ID=$task bash "$option" "$@" >&2 || exit; done
        echo 1'
    stand_in scontrol 'echo localhost'
    stand_in srun 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'
    # Engines, in the folder that they serve; apt; and make, whose targets are those of make help.
    for name in vllm trtllm-serve python3; do stand_in "$name" 'grep -q "quant_algo" config.json'; done
    stand_in sudo 'exec "$@"'
    stand_in apt '[ "$1" = install ]'
    stand_in make "[ \$# = 0 ] || /usr/bin/make -s -C '$PWD' help | grep -q \"^make \$1 \""
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

# page_examples PAGE [SECTION]: what it shows in EXAMPLES, or in another section, as plain text.
page_examples() {
    awk -v section="${2-EXAMPLES}" '/^\.Sh/ { on = $2 == section }
         on && /^\.Ed/ { literal = 0 }
         on && literal { print }
         on && /^\.Bd -literal/ { literal = 1 }
         on && /^\.Dl / { print substr($0, 5) }' "$1" |
        sed "s/\\\\(aq/'/g; s/\\\\(dq/\"/g; s/\\\\(ti/~/g; s/\\\\(ha/^/g; s/\\\\&//g; s/\\\\-/-/g; s/\\\\e/\\\\/g"
}

# What a Markdown file shows as commands: its indented blocks. One that begins with a program and a colon is output.
markdown_examples() {
    awk '!/^    / { block = "" }
         /^    / && !block { block = /^    [a-z0-9-]+: / ? "output" : "commands" }
         block == "commands" { print substr($0, 5) }' "$1" | sed -e ':more' -e '/\\$/{' -e N -e 's/\\\n *//' -e 'b more' -e '}'
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
