# Shared by the pipelines, which source it and define `usage`.

# The programs: beside the pipelines when installed, in ../bin in the source tree.
here=$(dirname "$(readlink -f "$0")")
PATH=${SEEKPIPE_BIN:-$here/../bin}:$here:$PATH
program=$(basename "$0")
export SEEKPIPE_PIPELINE=$program # stages after one that failed are silent; blame says which failed

# Options of every pipeline, for all stages, for st-read and for st-write; and for st-status.
plan=() talk=() overwrite=() verify=() zeros=()
color=() status_fd=() json=()

# lead "$@": run the script once more, in a process group of its own, and return in that run only. The first
# run stays behind as its leader: a signal to it ends the whole group. It waits until all of the group has
# ended, says how to go on, and exits with 128 + the signal's number, as shells do.
lead() {
    local leader=${SEEKPIPE_LEADER-} script=$0 life watch lines notes result group='' signal='' status i
    if [ "${leader%:*}" = "$PPID" ]; then
        watch=${leader#*:}
        unset SEEKPIPE_LEADER
        export SEEKPIPE_GROUP=$$ # stages end with the shells that started them (parent.h)
        export SEEKPIPE_TERMINAL=$PPID # they draw while the leader is in the terminal's foreground (status.h)
        shell_words "$program" "$@"
        command_line=$words
        end_with_leader "$watch" </dev/null &>/dev/null &
        disown $!
        exec {watch}<&-
        end_with_stages
        return
    fi
    [ -z "$leader" ] || exit 1 # it was killed before this run began
    export SEEKPIPE_OPEN='' # the descriptors that the user opened: more are to come (--status-fd)
    for i in "/proc/$$/fd"/*; do
        [ ! -e "$i" ] || SEEKPIPE_OPEN+=" ${i##*/} "
    done
    trap : USR1 # until there is something to show
    for i in HUP INT QUIT TERM; do
        # shellcheck disable=SC2064 # i is of now
        trap "signal=$i; end_group" "$i"
    done
    trap 'kill -STOP -- "-$group"; kill -STOP $$; kill -CONT -- "-$group"' TSTP
    # A pipe that only the leader holds open for writing, so that its end is seen, however it comes.
    exec {life}<> <(:)
    exec {watch}<"/proc/self/fd/$life"
    exec {lines}<> <(:) {notes}<> <(:) {result}<> <(:) # of the stages for st-status; of the run for say_ended; its status
    trap 'echo "{\"show\":true}" >&"$lines" &' USR1
    set -m
    [[ $0 == */* ]] || script=./$0 # not one in PATH
    SEEKPIPE_LEADER=$$:$watch SEEKPIPE_NOTES=$notes SEEKPIPE_RESULT=$result SEEKPIPE_STATUS=$lines:$(readlink "/proc/$BASHPID/fd/$lines") \
        "$BASH" -c "$silently" "$script" "$@" {life}>&- &
    group=$!
    set +m
    exec {watch}<&-
    [ -z "$signal" ] || end_group
    while :; do # a signal interrupts wait, in which bash would also say who was killed
        status=0
        wait "$group" 2>/dev/null || status=$?
        kill -0 "$group" 2>/dev/null || break
    done
    trap '' USR1
    [ "$status" != $((128 + $(kill -l USR1))) ] || # it came as the group ended, which has said its status
        read -r -t 1 -u "$result" status || :
    [ "$status" -ne 0 ] || exit 0
    end_group
    for ((i = 0; i < 100; i++)); do # what a killed shell of the group did not wait for
        group_lives || break
        sleep 0.1
    done
    [ "$status" -gt 128 ] || exit "$status"
    signal=${signal:-$(kill -l "$status")}
    (trap '' PIPE; say_ended "$signal" "$notes" "$@" >&2) || :
    exit $((128 + $(kill -l "$signal")))
}

# The script, run so that bash prints no lines of its own when one of its processes is killed: in a command
# substitution, it never does. The shell around it waits, whatever signals come. The group is not the terminal's
# foreground: where `stty tostop` is set, TTOU would stop it at the first line that it prints.
# shellcheck disable=SC2016 # for the inner shell
silently='trap : HUP INT QUIT TERM; trap "" TTOU; exec {out}>&1; none=$(exec >&"$out" {out}>&-; . "$0"); status=$?
    echo "$status" >&"$SEEKPIPE_RESULT"; exit "$status"'

# end_with_leader DESCRIPTOR: a process of the group that ends it if the leader was killed.
end_with_leader() {
    read -r -u "$1" || kill -TERM -- "-$$"
}

# group_lives: whether one of its processes still runs. Where process 1 reaps nothing, as in a container, the dead
# stay as zombies.
group_lives() {
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^.*) //' |
        awk -v group="$group" '$1 != "Z" && $3 == group { lives = 1 } END { exit !lives }'
}

end_group() {
    [ -z "$group" ] || kill -TERM -- "-$group" 2>/dev/null || :
}

# A shell of the group ends after its stages, which get the same signal.
end_with_stages() {
    trap 'wait; exit 143' HUP INT QUIT TERM
}

# quietly COMMAND...: run a single program, or the last of a pipeline, so that bash prints no line of its own if
# a signal ends it in a shell below the script's: what is waited for, it need not report.
quietly() {
    local status=0
    end_with_stages
    "$@" <&0 &
    wait $! 2>/dev/null || status=$?
    return "$status"
}

# note_destination DESTINATION: for say_ended, should the run be ended.
note_destination() {
    [ -n "${plan[*]}" ] || printf '%s\0' "$1" >&"$SEEKPIPE_NOTES"
}

# shell_words WORD...: set $words to them as a shell reads them, without characters that a terminal obeys.
shell_words() {
    local word LC_ALL=C
    words=''
    for word; do
        [[ $word =~ ^[[:alnum:]_./=,:@%+-]+$ ]] || printf -v word %q "$word"
        words+=${words:+ }$word
    done
}

# say_ended SIGNAL NOTES "$@": what is kept, and how to go on.
say_ended() {
    local words name destination=''
    printf '\0' >&"$2" # so that read does not wait
    IFS= read -r -d '' -u "$2" destination || :
    [ -n "$destination" ] || [ "$1" != PIPE ] || return 0 # a plan, of which somebody read enough
    echo "$program: ended by SIG$1; the same command continues:"
    shell_words "$program" "${@:3}"
    echo "    $words"
    destination=${destination%"${destination##*[!/]}"}
    for name in {,/}.partial {,/}.calib; do # inside, where it is a mount point
        [[ -n $destination && -e $destination$name ]] || continue
        shell_words "$destination$name"
        case $name in
        *.partial) echo "kept: $words, whose finished shards are not made again" ;;
        *.calib) echo "kept: $words, from which the calibration goes on" ;;
        esac
    done
}

# ---- the state of the run ----

# begin_status LOG INPUT...: st-status shows from now on where the run stands, and adds it to LOG once a line says so,
# unless that is a file that the run reads, or that its output goes to. Nothing depends on it: stages and shells never
# wait for it, whatever becomes of it.
showing='' step_names=() step_begins=() step_bytes=()
begin_status() {
    local lines=${SEEKPIPE_STATUS%%:*} log=(--log "$1") other
    if [ -n "${plan[*]}" ] || [ -z "$lines" ] || ! command -v st-status >/dev/null; then
        unset SEEKPIPE_STATUS
        return
    fi
    [ "${talk[*]}" != -q ] || status_fd+=(-q)
    for other in "/proc/$BASHPID/fd/1" "/proc/$BASHPID/fd/2" "${@:2}"; do
        [ ! -e "$1" ] || [[ ! $1 -ef $other ]] || log=()
    done
    st-status --name "$program" --command "$command_line" "${log[@]}" "${color[@]}" "${status_fd[@]}" <&"$lines" &
    showing=$!
    disown "$showing"
    [ -n "${log[*]}" ] || tell "$program: $1: is read, or is where this run's output goes; it has no log"
}

# draws: whether standard error is a terminal on which st-status may draw, as status.h has it.
draws() {
    [ -t 2 ] && [[ ${TERM-} != @(|dumb) ]] &&
        sed 's/^.*) //' "/proc/$SEEKPIPE_TERMINAL/stat" 2>/dev/null | awk '{ exit $3 != $6 }' # pgrp, tpgid
}

# announce STEP:KIND:WORK:SECONDS...: all steps, of which those of one kind take as long for each unit of work;
# SECONDS, if nothing is measured yet. A step without a kind takes no time to speak of.
announce() {
    local step kind work seconds list=''
    for step; do
        IFS=: read -r step kind work seconds <<<"$step"
        list+="${list:+,}{\"step\":\"$step\",\"kind\":\"$kind\",\"work\":${work:-0},\"seconds\":${seconds:-0}}"
    done
    tell_status "{\"steps\":[$list]}"
}

# bytes_of SOURCE: of its shards; 0 if it has none.
COPIED_A_SECOND=500000000 # what a disk does, until it is measured
bytes_of() {
    { stat -Lc %s -- "$1"/*.safetensors 2>/dev/null || :; } | awk '{ n += $1 } END { printf "%.0f\n", n }'
}

# step NAME [BYTES]: it begins, and will read that many bytes.
step() {
    step_names+=("$1") step_begins+=("$EPOCHREALTIME") step_bytes+=("${2:-0}")
    tell_status "{\"step\":\"$1\"}"
}

tell_status() {
    [ -z "$showing" ] || echo "$1" >&"${SEEKPIPE_STATUS%%:*}"
}

# end_status: the block is gone; what is printed from now on stays. Should st-status hang, it is killed.
end_status() {
    local i
    [ -n "$showing" ] || return 0
    tell_status '{"end":true}'
    for ((i = 0; i < 100; i++)); do
        kill -0 "$showing" 2>/dev/null || break
        sleep 0.02
    done
    ! kill -KILL "$showing" 2>/dev/null || ! draws || printf '\r\033[J' >&2
    showing=''
    unset SEEKPIPE_STATUS
}

# arrange OPTIONS "$@": parse the command line as the programs do (short options together, options
# after operands) into $arranged: options, each a word, then --, then operands. For
# eval "set -- $arranged". OPTIONS are the pipeline's own, as getopt(1) takes them.
arrange() {
    local common=allow-zeros,color:,help,version,verbose,quiet,plan,dry-run,json,overwrite,status-fd:,verify
    arranged=$(getopt -n "$program" -o "hnqv${own_letters-}" -l "$common,$1" -- "${@:2}") || try_help
}

print_version() { st-read --version | sed "s/^[^ ]*/$program/"; }

# common_option OPTION NEXT: one that every pipeline has; $taken: how many words after it are its value.
common_option() {
    taken=0
    case $1 in
    --color) choice "$1" "$2" auto always never; color=(--color "$2") taken=1 ;;
    --status-fd)
        number "$1" "$2" 1 2147483647
        takes_writes "$2" || usage_error "$1: descriptor $2 is not open for writing"
        status_fd=(--status-fd "$2") taken=1 ;;
    -h | --help) usage; exit 0 ;;
    --version) print_version && exit 0 ;;
    -n | --plan | --dry-run) plan=(-n) ;;
    -q | --quiet) talk=(-q) ;;
    -v | --verbose) talk=(-v) ;;
    --overwrite) overwrite=(--overwrite) ;;
    --verify) verify=(--verify) ;;
    --allow-zeros) zeros=(--allow-zeros) ;;
    --json) json=(--json) ;;
    esac
}

# takes_writes DESCRIPTOR: whether the user opened it, and for writing.
takes_writes() {
    local flags
    [[ "$SEEKPIPE_OPEN " = *" $1 "* ]] && flags=$(awk '$1 == "flags:" { print $2 }' "/proc/$$/fdinfo/$1" 2>/dev/null) &&
        [ "$((flags & 3))" != 0 ] # O_RDONLY; a leading 0 makes it octal, as it is
}

# tell LINES: on standard error, and in the log. That it is full, or its reader gone, ends no run.
tell() {
    local erase='' text=$1
    [ -z "$showing" ] || ! draws || erase=$'\r\e[J'
    (trap '' PIPE; echo "$erase$1" >&2) || :
    text=${text#"$program: "} # as the log says, too
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    while IFS= read -r text; do
        tell_status "{\"message\":\"${text//[[:cntrl:]]/?}\"}"
    done <<<"$text"
}

# state_of DESTINATION: in a word (st-write).
state_of() {
    SEEKPIPE_STATUS='' st-write --state "$1" 2>/dev/null
}

# choose_last DESTINATION: set $last, the last stage: st-write, or, with --verify, st-cmp if a complete
# checkpoint exists and is not to be replaced.
last=st-write
choose_last() {
    if [ -n "${verify[*]}" ] && [ -z "${plan[*]}${overwrite[*]}" ] &&
        [ "$(state_of "$1")" = complete ]; then
        last=st-cmp
    fi
}

# plan_write DESTINATION FILE [--part]: the last stage of a plan: to standard output with -n; before a run, to
# FILE, or to standard error if it fails, as for want of space.
plan_write() {
    local status=0
    if [ -n "${plan[*]}" ]; then
        quietly st-write -n "${overwrite[@]}" "${@:3}" "$1"
        return
    fi
    quietly st-write -n "${overwrite[@]}" "${@:3}" "$1" >"$2" 2>"$2.error" || status=$?
    [ "$status" = 0 ] || cat "$2" "$2.error" >&2
    return "$status"
}

# complete_already PLAN: whether st-write -n said so; then this says it, too.
complete_already() {
    [[ $1 == *': complete already, '* ]] || return
    [ "${talk[*]}" = -q ] || tell "$program: $1"
}

# put DESTINATION [OPTION...]: the last stage of a pipeline: write the stream to DESTINATION, with options of
# st-write, or compare it. What st-write says of it goes to $scratch/written, for closing_summary.
put() {
    local status=0 quiet=()
    if [ "$last" = st-write ]; then
        quietly st-write -q --json "${overwrite[@]}" "${verify[@]}" "${@:2}" "$1" >"$scratch/written"
        return
    fi
    [ "${talk[*]}" != -q ] || quiet=(-q)
    quietly st-cmp "${quiet[@]}" - "$1" || status=$?
    [ "$status" != 1 ] || tell "$program: $1: is not what this source and these options give"
    return "$status"
}

# verify_result DESTINATION SOURCE: a checkpoint that is in place: its headers, scalars and configs, and what each
# serving engine makes of it. One that st-cmp found to have the right tensors also has the source's other files.
# What is found goes to $scratch/checks.
verify_result() {
    local with=()
    [ "$last" = st-write ] || with=(--source "$2")
    ! quietly st-verify --json "${with[@]}" "$1" >"$scratch/checks" || return 0
    tell "$(quietly st-verify "${with[@]}" "$1")"
    tell "$program: $1 is in place, but not as it should be: see the faults above"
    exit 1
}

# closing_summary SOURCE DESTINATION: of a run that is done, on standard error, or (--json) standard output. The
# checkpoint is in place, whether or not that succeeds, and the caller goes on.
closing_summary() {
    local files=() name text
    end_status
    print_steps >"$scratch/steps"
    for name in written checks quality steps; do
        [ ! -s "$scratch/$name" ] || files+=("--$name" "$scratch/$name")
    done
    [ "${talk[*]}" != -v ] || files+=(-v)
    text=$(st-summary --name "$program" "${json[@]}" "${files[@]}" -- "$1" "$2") || {
        tell "$program: $2 is in place, but st-summary failed"
        return 0
    }
    if [ -z "${json[*]}" ]; then
        [ "${talk[*]}" = -q ] || tell "$text"
    else
        print_results "$2" "the summary" "$text"
    fi
}

# print_results DESTINATION WHAT TEXT: on standard output.
print_results() {
    (trap '' PIPE; echo "$3") 2>/dev/null ||
        tell "$program: $1 is in place, but standard output did not take $2:"$'\n'"$3"
}

# print_steps: how long each took, the last one until now, as lines of JSON.
print_steps() {
    local i names=("${step_names[@]}") begins=("${step_begins[@]}" "$EPOCHREALTIME")
    for ((i = 0; i < ${#names[@]}; i++)); do
        awk -v name="${names[i]}" -v from="${begins[i]}" -v to="${begins[i + 1]}" -v bytes="${step_bytes[i]}" \
            'BEGIN { printf "{\"step\":\"%s\",\"seconds\":%.3f,\"bytes\":%s}\n", name, to - from, bytes }'
    done
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
    if [ "$last" = st-write ] && [ -z "${plan[*]}" ] && missing=$(SEEKPIPE_STATUS='' st-write "$@" 2>/dev/null); then
        part=(--shards "$missing")
    fi
}

# blame "${PIPESTATUS[*]}" STAGE...: after a pipeline failed, say which stage failed first and exit,
# with 2 if it refused an option. SIGPIPE (141) only means that a later stage exited.
lost='no checkpoint was put in place'
blame() {
    local status statuses stage
    read -ra statuses <<<"$1"
    shift
    for status in "${statuses[@]}"; do
        stage=$1
        shift
        if [ "$status" -eq 0 ] || [ "$status" -eq 141 ]; then continue; fi
        if [ "$status" -gt 128 ]; then
            tell "$program: $stage was ended by SIG$(kill -l "$status"); $lost; the same command continues"
        else
            [ "$stage" != st-cmp ] || lost='nothing was written'
            tell "$program: $stage failed (exit $status); $lost"
        fi
        exit $((status == 2 ? 2 : 1))
    done
    tell "$program: a stage was cut off; $lost"
    exit 1
}

# in_parts N COMMAND...: run COMMAND 1/N to COMMAND N/N in parallel; if one fails, exit after all have
# ended.
in_parts() {
    local i failed='' running=() none
    for ((i = 1; i <= $1; i++)); do
        { end_with_stages && none=$(end_with_stages && "${@:2}" "$i/$1" >&2); } & # as $silently
        running+=($!)
    done
    for i in "${running[@]}"; do
        wait "$i" || failed=yes
    done
    [ -z "$failed" ] || exit 1
}

# make_scratch: an empty folder, $scratch, which the caller removes.
make_scratch() {
    scratch=$(mktemp -d 2>/dev/null) && scratch=$(readlink -f -- "$scratch") && return
    echo "$program: ${TMPDIR:-/tmp}: no folder can be made there; name another one in TMPDIR" >&2
    exit 1
}

# ---- values of options, which are refused before any work ----

# choice OPTION VALUE WORD...
choice() {
    local word
    for word in "${@:3}"; do
        [ "$2" != "$word" ] || return 0
    done
    usage_error "$1: '$2' is not one of ${*:3}"
}

# number OPTION VALUE LEAST MOST
number() {
    [[ $2 =~ ^(0|[1-9][0-9]{0,9})$ && $2 -ge $3 && $2 -le $4 ]] ||
        usage_error "$1: '$2' is not a number from $3 to $4"
}

# file_name WHAT VALUE: also of a folder.
file_name() {
    [ -n "$2" ] || usage_error "$1: the name is empty"
    [[ $2 != -* ]] || usage_error "$1: '$2' looks like an option; a file of that name is ./$2"
}

# is_planted NAME: whether it is a link, device or FIFO of another user, but not of root (owner.h).
planted='is a link, device or FIFO of another user, who would choose what is written'
is_planted() {
    local owner
    [ -L "$1" ] || { [ -e "$1" ] && [ ! -f "$1" ] && [ ! -d "$1" ]; } || return
    owner=$(stat -c %u -- "$1")
    [ "$owner" != 0 ] && [ "$owner" != "$EUID" ]
}

# operand WHAT NAME: set $operand to that name of a file or folder, so written that no program takes it for an option.
operand() {
    [ "$2" != - ] || usage_error "$1: - is no name here; a file of that name is ./-"
    [ -n "$2" ] || usage_error "$1: the name is empty"
    operand=$2
    [[ $2 != -* ]] || operand=./$2
}

# find_source NAME: set $source to the folder that it names: itself, or a snapshot in the cache of the Hugging Face hub.
find_source() {
    source=$(st-read --locate "$1" && echo /) || blame $? st-read
    source=${source%$'\n'/} # newlines at its end stay
    [ -e "$source" ] || { tell "$program: $source: No such file or directory" && exit 1; }
}

# config_value SOURCE KEY PATTERN: the first value of that name in config.json, on whatever line, if it is of PATTERN;
# else nothing.
config_value() {
    [ ! -f "$1/config.json" ] || { head -c 1M "$1/config.json" | grep -ao "\"$2\" *: *$3" | sed 's/^[^:]*: *//;q'; } 2>/dev/null || :
}

# folder_of NAME: set $folder to the folder that it is in; $() would drop newlines at the end.
folder_of() {
    local name=${1%"${1##*[!/]}"}
    folder=.
    [[ $name != */* ]] || folder=${name%/*}/
}

# output_file OPTION VALUE: a file that will be written.
output_file() {
    local folder file=$2
    file_name "$1" "$2"
    ! is_planted "$2" || usage_error "$1: $2 $planted; choose another name"
    [ ! -d "$2" ] || usage_error "$1: $2 is a folder; name a file"
    [ -e "$2" ] || [ ! -L "$2" ] || usage_error "$1: $2 is a symbolic link to nothing"
    if [ -e "$2" ] && [ ! -f "$2" ]; then # a device, or a pipe
        [ -w "$2" ] || usage_error "$1: $2 is not writable"
        return
    fi
    [ ! -L "$2" ] || file=$(readlink -f -- "$2")
    folder_of "$file"
    takes_files "$folder" || usage_error "$1: $2: its folder is not there or not writable"
    [[ ! -e $2 || ! -k $folder || -O $2 || -O $folder || $EUID = 0 ]] ||
        usage_error "$1: $2 belongs to another user, and only they may replace it; name another file"
}

# output_folder OPTION VALUE: a folder in which files will be written, and which is made if it is not there.
output_folder() {
    local folder
    if [ -e "$2" ] || [ -L "$2" ]; then
        takes_files "$2" || usage_error "$1: $2 is no folder, or not writable"
    else
        folder_of "$2"
        takes_files "$folder" || usage_error "$1: $2: its folder is not there or not writable"
    fi
}

# as_private_as FILE: what is written from now on has no readers that FILE has not (readers.h).
as_private_as() {
    local others
    others=$((~8#$(stat -Lc %a -- "$1") & 8#44))
    umask "$(printf %o $((8#$(umask) | others | others >> 1 | others >> 2)))"
}

# takes_files FOLDER: whether files can be made in it, by making one: permissions alone do not tell.
takes_files() {
    local made
    [ -d "$1" ] && made=$(mktemp -- "$1/.seekpipe-XXXXXX" 2>/dev/null) && rm -- "$made"
}

# put_file FILE OUTPUT: write OUTPUT as the programs write what -o names (output.h): a regular file when it is
# complete, until then in a folder of its own beside it, $beside, that others cannot open; a device or a pipe as it is.
beside=''
put_file() {
    local target
    if is_planted "$2"; then # by now
        echo "$program: $2: $planted; remove it" >&2
        exit 1
    fi
    if [ -e "$2" ] && [ ! -f "$2" ]; then
        cat -- "$1" >"$2"
        return
    fi
    target=$(readlink -fn -- "$2" && echo /) # so that a newline at its end stays
    target=${target%/}
    beside=$(mktemp -d -- "$target.XXXXXX.partial")
    (
        exec <"$1"
        cd -- "$beside" || exit
        [ -O . ] || { echo "$program: $beside: another user replaced it" >&2 && exit 1; }
        cat >new
        if [ -e "$target" ]; then chmod --reference="$target" -- new; else chmod -- =rw new; fi
        sync -- new
        mv -T -- new "$target"
    )
    rmdir -- "$beside"
    beside=''
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
