# What the scripts of test/torture share. Sourced, not run.
#
# Each script does one kind of harm many times and judges what is left by the same rules:
#   - exit 0 only with everything: what is in place equals what an undisturbed run makes;
#   - whatever the exit, nothing broken under the final name;
#   - no hang, no crash;
#   - the same command again, undisturbed, makes the same bytes.
# It prints one line a case: kind, case, attempts, how many made the whole result, how many failed and left
# nothing in place, how many of the latter were made whole by running again, faults (separated by tabs).
# What was wrong goes to standard error, and the exit is 1 then.

# shellcheck disable=SC2034 # used by those who source this
set -euo pipefail
shopt -s inherit_errexit nullglob
export LC_ALL=C.UTF-8 BIN=${BIN:-bin}
export SEEKPIPE_BIN=$PWD/$BIN SEEKPIPE_RECIPES=$PWD/pipelines/recipes
export PATH="$SEEKPIPE_BIN:$SEEKPIPE_BIN/test:$PWD/pipelines:$PATH:/usr/sbin:/sbin"
export NANO=$PWD/test/data/v4-nano LIMIT=120 # seconds: what takes longer hangs
# Programs that strace runs cannot look for leaks, and end without freeing their memory anyway.
export ASAN_OPTIONS=detect_leaks=0:exitcode=99
jobs=$(nproc)

T=$(mktemp -d "${TMPDIR:-/tmp}/torture.XXXXXX")
export T
clean_up() { rm -rf "$T"; }
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- what is run ----

# A checkpoint of half a megabyte with all kinds of weights, and what the programs need beside it.
make_inputs() {
    mkckpt --model tiny --layers 1 --set n_routed_experts=2 \
        --set num_experts_per_tok=1 --set hidden_size=128 --set moe_intermediate_size=128 --shards 2 \
        --set vocab_size=4096 --fill --amax "$T/amax.ts" "$T/src"
    st-read -o "$T/refs.ts" "$T/src"
    st-read --inline -o "$T/inline.ts" "$T/src"
    nvfp4-cast -q --amax "$T/amax.ts" -o "$T/cast.ts" "$T/refs.ts"
    st-tokenize -q --tokenizer "$NANO/ckpt" --length 16 --samples 2 -o "$T/tokens.ts" test/data/text/eval.jsonl
}

# command_of CASE OUT: the command that makes OUT, a file or folder, in ${command[@]}.
command_of() {
    local dump=$NANO/golden/amax/amax_dict_rank0-mp1.pt
    case $1 in
    st-read) command=(st-read -o "$2" "$T/src") ;;
    st-read-inline) command=(st-read --inline -o "$2" "$T/src") ;;
    st-grep) command=(st-grep -o "$2" experts "$T/inline.ts") ;;
    st-ls) command=(st-ls -o "$2" "$T/src") ;;
    st-stat) command=(st-stat -o "$2" "$T/src") ;;
    st-sum) command=(st-sum --each -o "$2" "$T/inline.ts") ;;
    fp8-dequant) command=(fp8-dequant -o "$2" "$T/refs.ts") ;;
    mxfp4-unpack) command=(mxfp4-unpack -o "$2" "$T/inline.ts") ;;
    nvfp4-cast) command=(nvfp4-cast -q --amax "$T/amax.ts" -o "$2" "$T/refs.ts") ;;
    nvfp4-pack) command=(nvfp4-pack -q --amax "$T/amax.ts" -o "$2" "$T/refs.ts") ;;
    nvfp4-unpack) command=(nvfp4-unpack -o "$2" "$T/cast.ts") ;;
    pt-read) command=(pt-read -o "$2" "$dump") ;;
    amax-merge) command=(amax-merge -q --fallback layer-max --model "$T/src" -o "$2" "$T/amax.ts") ;;
    amax-calib) command=(amax-calib -q --tokens "$T/tokens.ts" -o "$2" "$T/refs.ts") ;;
    amax-calib-resume)
        command=(amax-calib -q --tokens "$T/tokens.ts" --resume "$2.kept" --keep-every 1 -o "$2" "$T/refs.ts")
        ;;
    st-eval) command=(st-eval -q --tokens "$T/tokens.ts" -o "$2" "$T/refs.ts") ;;
    st-tokenize)
        command=(st-tokenize -q --tokenizer "$NANO/ckpt" --length 16 --samples 2 -o "$2" test/data/text/eval.jsonl)
        ;;
    st-write) command=(st-write -q "$2" "$T/refs.ts") ;;
    st-write-inline) command=(st-write -q "$2" "$T/inline.ts") ;;
    *-over | *-renames) command_of "${1%-*}" "$2" ;;
    st-write-overwrite) command=(st-write -q --overwrite "$2" "$T/refs.ts") ;;
    st-write-join) command=(st-write -q --join "$2") ;;
    st-write-join-overwrite) command=(st-write -q --join --overwrite "$2") ;;
    amax-merge-summary)
        command=(amax-merge -q --fallback layer-max --model "$T/src" --summary "$2" -o "$2.ts" "$T/amax.ts")
        ;;
    amax-plot) command=(amax-plot -o "$2" "$T/amax.ts") ;;
    st-write-nano) command=(st-write -q "$2" "$T/nano.ts") ;;
    v4-bf16) command=(v4-bf16 -q "$T/src" "$2") ;;
    v4-experts) command=(v4-experts -q --amax "$T/amax.ts" "$T/src" "$2") ;;
    v4-experts-lossy) command=(v4-experts -q --lossy --amax "$T/amax.ts" "$T/src" "$2") ;;
    v4-experts-dump) command=(v4-experts -q --amax "$NANO/golden/amax" "$NANO/ckpt" "$2") ;;
    *) echo "no case '$1'" >&2 && exit 2 ;;
    esac
}
stages=(st-read st-read-inline st-grep st-ls st-stat st-sum fp8-dequant mxfp4-unpack nvfp4-cast nvfp4-pack
    nvfp4-unpack pt-read amax-merge amax-calib st-eval st-tokenize st-write st-write-inline)
pipelines=(v4-bf16 v4-experts v4-experts-lossy)

# What is there before: an old checkpoint, an old stream, and parts to join.
make_old() {
    fp8-dequant "$T/refs.ts" | st-write -q "$T/old"
    st-grep -o "$T/old.ts" experts "$T/inline.ts"
    for part in 1/2 2/2; do st-read --part $part "$T/src" | st-write -q --part "$T/joined"; done
    mv "$T/joined.partial" "$T/parts"
}

# prepare CASE OUT: put there what the case's command finds.
prepare() {
    case $1 in *join*) cp -a "$T/parts" "$2.partial" ;; esac
    case $1 in
    *overwrite*) cp -a "$T/old" "$2" ;;
    *-over) cp -a "$T/old.ts" "$2" ;;
    esac
}

# was_there CASE OUT: OUT is still what prepare made, if that made it.
was_there() {
    case $1 in
    *overwrite*) diff -r "$T/old" "$2" >/dev/null ;;
    *-over) cmp -s "$T/old.ts" "$2" ;;
    *) [ ! -e "$2" ] ;;
    esac
}
export -f prepare was_there

# whole CASE: what an undisturbed run makes, in $T/whole/CASE.
whole() {
    mkdir -p "$T/whole"
    prepare "$1" "$T/whole/$1"
    command_of "$1" "$T/whole/$1"
    "${command[@]}"
}

# ---- how it is judged ----

# same CASE OUT [OPTION...]: OUT is what an undisturbed run makes, by diff with these options. Streams may differ in
# what they say of their sources' last changes.
same() {
    case $1 in v4-experts*) set -- "$@" -x quant-report.html ;; esac # which has times
    diff -r "${@:3}" "$T/whole/$1" "$2" >/dev/null ||
            { is_stream "$T/whole/$1" && [ -f "$2" ] && diff <(content "$T/whole/$1") <(content "$2") >/dev/null; }
}

is_stream() { [ -f "$1" ] && [ "$(tar tf "$1" 2>/dev/null | head -n 1)" = .stream ]; }

content() {
    local part
    stat -c %s "$1" && tar tf "$1" && tar tvf "$1" | grep -o '[^ ]* -> .*'
    tar xOf "$1" --exclude=.stream --exclude=.end | sha256sum
    for part in .stream .end; do tar xOf "$1" $part | jq -S 'del(.files[]?.ctime_ns, .digest)'; done
} 2>&1

# judge CASE OUT STATUS WHAT: the verdict on an attempt that is over, as a line in $T/verdicts/CASE. WHAT
# says in a few words what was done to it. Signals that were sent are no crash: give 1 as their STATUS.
judge() {
    local case=$1 out=$2 status=$3 what=$4 verdict=failed
    if [ "$status" = 124 ]; then
        verdict="fault: hangs"
    elif [ "$status" -ge 126 ] || [ "$status" = 99 ]; then
        verdict="fault: crashes with exit $status"
    elif [ -e "$out" ]; then
        verdict=whole
        # A journal in its final place says that the end was not reached; running again removes it.
        same "$case" "$out" -x .journal || verdict="fault: broken result in place, exit $status"
    elif [ "$status" = 0 ]; then
        verdict="fault: exit 0 without a result"
    fi
    [[ $verdict != fault* ]] || echo "$case: $what: ${verdict#fault: }" >&2
    echo "${verdict%%:*}" >>"$T/verdicts/$case"
    if [ "$verdict" = failed ] || [ -e "$out/.journal" ]; then run_again "$case" "$out" "$what"; fi
}

run_again() {
    local case=$1 out=$2 what=$3 command
    command_of "$case" "$out"
    if timeout "$LIMIT" "${command[@]}" >/dev/null 2>"$out.again" && same "$case" "$out"; then
        echo again >>"$T/verdicts/$case"
    else
        echo "$case: $what: when run again: $(tail -n 1 "$out.again" 2>/dev/null)" >&2
        echo fault >>"$T/verdicts/$case"
    fi
}

# attempts COMMAND: run the function COMMAND once for each line of standard input, with the line's words,
# several at a time.
attempts() {
    mkdir -p "$T/verdicts"
    # shellcheck disable=SC2016 # for the inner shell
    xargs -r -d '\n' -P "$jobs" -n 1 bash -c 'set -u; read -ra words <<<"$2"; '"$1"' "${words[@]}"' - "$1"
}

# tally KIND CASE: the line for the report.
tally() {
    awk -v kind="$1" -v case="$2" -v OFS='\t' '
        { n[$1]++ }
        END {
            print kind, case, n["whole"] + n["failed"] + 0, n["whole"] + 0, n["failed"] + 0, n["again"] + 0, n["fault"] + 0
            exit n["fault"] > 0
        }' "$T/verdicts/$2"
}
export -f command_of same is_stream content judge run_again

# A folder of its own for an attempt: nothing is in it but OUT and what comes with it.
fresh() { mktemp -d "$T/try.XXXXXX"; }
export -f fresh

# ---- system calls ----

# calls_of LOG: the system calls that strace wrote down, less those of the program's start by the loader:
# lines "name number", numbers being strace's (which begin with the loader's first, in each process and thread).
calls_of() {
    awk '{ process = $1; sub(/^[0-9]+ +/, "") }
        match($0, /^[a-z0-9_]+\(/) {
            name[++count] = substr($0, 1, RLENGTH - 1)
            number[count] = ++n[process, name[count]]
        }
        /^prlimit64\(0, RLIMIT_STACK, NULL/ && !main {
            main = count
            for (i = 1; i <= count; i++) loader[name[i]] = number[i]
        }
        END {
            for (i = main + 1; i <= count; i++)
                if (number[i] > loader[name[i]]) print name[i], number[i]
        }' "$1"
}

# evenly N: N lines of standard input, evenly spaced, the first and last among them; all if there are fewer.
evenly() {
    awk -v n="$1" '{ line[NR] = $0 }
        END {
            if (NR <= n || n < 2) { for (i = 1; i <= NR && (n > 1 || i <= n); i++) print line[i]; exit }
            for (i = 0; i < n; i++) print line[1 + int(i * (NR - 1) / (n - 1))]
        }'
}

# Calls that change what is on a disk.
writing='write|pwrite64|writev|copy_file_range|ioctl|ftruncate|fallocate|fsync|fdatasync|rename|renameat|renameat2|mkdir|mkdirat|unlink|unlinkat|openat|linkat|close'

# trace CASE PATTERN: the calls of an undisturbed run whose names match, as calls_of has them; once each.
trace() {
    local command
    prepare "$1" "$T/traced"
    command_of "$1" "$T/traced"
    strace -f -qq -o "$T/log" "${command[@]}" >/dev/null 2>&1
    rm -r "$T"/traced*
    calls_of "$T/log" | grep -E "^($2) " | awk '!seen[$0]++'
}

# watch PID LOGS HOOK: until process PID ends, look for programs that strace, by its LOGS.*, says are stopped:
# run the function HOOK, once for each, and let the program go on; again each time, for its threads stop it, too.
watch() {
    local runner=$1 logs=$2 hook=$3 log stopped
    local -A hooked=()
    while kill -0 "$runner" 2>/dev/null; do
        sleep 0.01
        for log in "$logs".*; do
            # Any of its threads, of which some may have ended.
            stopped=$(awk '/stopped by SIGSTOP/ && !seen[$1]++ { print $1 }' "$log" 2>/dev/null) || continue
            [ -n "$stopped" ] || continue
            [ -n "${hooked[$log]-}" ] || "$hook"
            hooked[$log]=yes
            # shellcheck disable=SC2086 # one or more
            kill -CONT $stopped 2>/dev/null || true
        done
    done
}

# stop_at CALL N HOOK COMMAND...: run it, stop it when it begins its N-th CALL, run the function HOOK, let it
# go on. Its exit status.
stop_at() {
    local call=$1 number=$2 hook=$3 logs status=0
    logs=$(mktemp -u "$T/log.XXXXXX")
    shift 3
    timeout "$LIMIT" strace -f -qq -o "$logs.1" -e "trace=$call" -e "inject=$call:signal=SIGSTOP:when=$number" "$@" \
        >/dev/null 2>&1 &
    watch $! "$logs" "$hook"
    wait $! || status=$?
    rm -f "$logs"*
    return "$status"
}
export -f watch stop_at

# ---- stages of pipelines ----

# members_of CASE: the stages of a pipeline, in ${members[@]}.
members_of() {
    case $1 in
    v4-bf16) members=(st-read fp8-dequant mxfp4-unpack nvfp4-unpack st-write) ;;
    v4-experts) members=(st-read amax-merge nvfp4-cast st-write) ;;
    v4-experts-lossy) members=(st-read amax-merge nvfp4-pack st-write) ;;
    esac
}

# with_stage FOLDER STAGE OPTION...: a folder of programs in which STAGE runs by strace with these options.
with_stage() {
    local folder=$1 stage=$2 program
    shift 2
    mkdir "$folder"
    for program in "$SEEKPIPE_BIN"/*; do [ -d "$program" ] || ln -s "$program" "$folder"; done
    rm "$folder/$stage"
    printf '#!/bin/bash\nexec strace -f -qq -o %q.$$ %s %q "$@"\n' "$folder/log" "${*@Q}" "$SEEKPIPE_BIN/$stage" \
        >"$folder/$stage"
    chmod +x "$folder/$stage"
}

# points_of CASE STAGE N: N of its calls, evenly spaced.
points_of() {
    local command
    command_of "$1" "$T/traced"
    with_stage "$T/bin" "$2"
    SEEKPIPE_BIN=$T/bin "${command[@]}" >/dev/null 2>&1
    for log in "$T"/bin/log.*; do calls_of "$log"; done >"$T/calls"
    rm -r "$T/traced" "${T:?}/bin"
    sort -s -u -k1,1 -k2,2n "$T/calls" | grep -vE '^(exit_group|execve|futex|madvise|brk) ' | evenly "$3"
}
export -f with_stage
