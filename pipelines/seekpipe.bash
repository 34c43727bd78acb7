# Shared by the pipelines, which source it and define `usage`.

# The programs: beside the pipelines when installed, in ../bin in the source tree.
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
PATH=${SEEKPIPE_BIN:-$here/../bin}:$here:$PATH
program=$(basename "$0")

# Options of every pipeline, for all stages, for st-read and for st-write.
plan=() talk=() overwrite=() verify=() zeros=()

# arrange OPTIONS "$@": parse the command line as the programs do (short options together, options
# after operands) into $arranged: options, each a word, then --, then operands. For
# eval "set -- $arranged". OPTIONS are the pipeline's own, as getopt(1) takes them.
arrange() {
    local common=allow-zeros,help,version,verbose,quiet,plan,dry-run,overwrite,verify
    arranged=$(getopt -n "$program" -o hnqv -l "$common,$1" -- "${@:2}") || try_help
}

# common_option OPTION: one that every pipeline has.
common_option() {
    case $1 in
    -h | --help) usage; exit 0 ;;
    --version) st-read --version | sed "s/^[^ ]*/$program/"; exit 0 ;;
    -n | --plan | --dry-run) plan=(-n) ;;
    -q | --quiet) talk=(-q) ;;
    -v | --verbose) talk=(-v) ;;
    --overwrite) overwrite=(--overwrite) ;;
    --verify) verify=(--verify) ;;
    --allow-zeros) zeros=(--allow-zeros) ;;
    esac
}

# choose_last DESTINATION: set $last, the last stage: st-write, or, with --verify, st-cmp if a complete
# checkpoint exists and is not to be replaced.
last=st-write
choose_last() {
    if [ -n "${verify[*]}" ] && [ -z "${plan[*]}${overwrite[*]}" ] &&
        [ "$(st-write --state "$1" 2>/dev/null)" = complete ]; then
        last=st-cmp
    fi
}

# put DESTINATION: the last stage: write the stream to DESTINATION, or compare it.
put() {
    local status=0 quiet=()
    if [ "$last" = st-write ]; then
        st-write "${plan[@]}" "${talk[@]}" "${overwrite[@]}" "${verify[@]}" "$1"
        return
    fi
    [ "${talk[*]}" != -q ] || quiet=(-q)
    st-cmp "${quiet[@]}" - "$1" || status=$?
    [ "$status" != 1 ] || echo "$program: $1: is not what this source and these options give" >&2
    return "$status"
}

# resume DESTINATION: if a run died there, set ${part[@]}, options of st-read, to its missing shards.
# Anything else in the way, st-write reports.
part=()
resume() {
    todo --todo "$1"
}

# resume_part I/N DESTINATION: the same for a part.
resume_part() {
    todo --todo-part "$1" "$2"
}

todo() {
    local missing
    if [ "$last" = st-write ] && [ -z "${plan[*]}" ] && missing=$(st-write "$@" 2>/dev/null); then
        part=(--shards "$missing")
    fi
}

# blame "${PIPESTATUS[*]}" STAGE...: after a pipeline failed, say which stage failed first and exit,
# with 2 if it refused an option. SIGPIPE (141) only means that a later stage exited.
blame() {
    local status statuses stage
    read -ra statuses <<<"$1"
    shift
    for status in "${statuses[@]}"; do
        stage=$1
        shift
        if [ "$status" -ne 0 ] && [ "$status" -ne 141 ]; then
            echo "$program: $stage failed (exit $status); no checkpoint was put in place" >&2
            exit $((status == 2 ? 2 : 1))
        fi
    done
    echo "$program: a stage was cut off; no checkpoint was put in place" >&2
    exit 1
}

# in_parts N COMMAND...: run COMMAND 1/N to COMMAND N/N in parallel; if one fails, exit after all have
# ended. Each is a process group of its own, which ends with this script.
in_parts() {
    local i failed='' running=()
    set -m
    for ((i = 1; i <= $1; i++)); do
        "${@:2}" "$i/$1" &
        running+=($!)
    done
    set +m
    trap 'kill -- "${running[@]/#/-}" 2>/dev/null; exit 1' HUP INT TERM
    for i in "${running[@]}"; do
        wait "$i" || failed=yes
    done
    trap - HUP INT TERM
    [ -z "$failed" ] || exit 1
}

# usage_error MESSAGE: as in the programs.
usage_error() {
    echo "$program: $1" >&2
    try_help
}

try_help() {
    echo "Try '$program --help'." >&2
    exit 2
}
