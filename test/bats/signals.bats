# Signals to a pipeline, or to one of its stages: everything ends, nothing appears later, the same command goes on.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # for another shell; each test is a subshell
load common
load instead

# signalled SIGNAL COMMAND...: the signal reaches the script alone, when a stage is at work, which then waits.
signalled() {
    local signal=$1 pid status=0
    shift
    rm -f "$T/at"
    env --default-signal=INT "$@" >"$T/said" 2>&1 &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        [ ! -s "$T/at" ] || break
        sleep 0.05
    done
    kill "-$signal" "$pid"
    wait "$pid" || status=$?
    cat "$T/said"
    [ "$status" = $((128 + $(kill -l "$signal"))) ]
    if kill -0 "$(<"$T/at")" 2>/dev/null; then return 1; fi
    [ "$(grep -v '^kept: ' "$T/said")" = "$1: ended by SIG$signal; the same command continues:
    $*" ]
}

@test "TERM, HUP and INT to the script alone" {
    "${run[@]}"
    mv "$T/out" "$T/whole"
    instead st-write "echo \$\$ >'$T/at'; sleep 0.5"
    for signal in TERM HUP INT; do
        signalled "$signal" "${run[@]}"
    done
    sleep 1
    [ ! -e "$T/out" ]
    as_before st-write
    "${run[@]}"
    same_run "$T/whole" "$T/out"
}

@test "the same with --jobs, in v4-bf16, and in a calibration, which leaves no empty folder" {
    wait='echo $$ >"$T/at"; sleep 0.5'
    export T
    instead st-write "$wait"
    signalled TERM "${run[@]}" --jobs 2
    signalled TERM v4-bf16 -q "$NANO" "$T/bf16"
    instead amax-calib "$wait"
    signalled HUP v4-experts -q --samples 1 --length 8 --calib test/data/text/eval.jsonl "$NANO" "$T/calibrated"
    sleep 1
    [ ! -e "$T/out" ]
    [ ! -e "$T/bf16" ]
    [ ! -e "$T/calibrated.calib" ]
    as_before st-write
    "${run[@]}" --jobs 2
    [ -e "$T/out/config.json" ]
}

@test "a stage is killed: the stage and the signal are named, bash says nothing" {
    for stage in st-read nvfp4-cast st-write; do
        for signal in KILL TERM; do
            instead "$stage" "kill -$signal \$\$"
            run "${run[@]}"
            echo "$output"
            [ "$status" -eq 1 ]
            [ "${lines[-1]}" = \
                "v4-experts: $stage was ended by SIG$signal; no checkpoint was put in place; the same command continues" ]
            [[ ! $output =~ Killed|Terminated|'line '[0-9] ]]
            [ ! -e "$T/out" ]
        done
        as_before "$stage"
    done
    instead nvfp4-cast "kill -KILL \$\$"
    run "${run[@]}" --jobs 2
    [ "$status" -eq 1 ]
    [[ ! $output =~ Killed|'line '[0-9] ]]
    [[ $output == *'nvfp4-cast of part '[12]/2' was ended by SIGKILL'* ]]
    as_before nvfp4-cast
    "${run[@]}"
    [ -e "$T/out/config.json" ]
}

@test "a script whose process is killed: its stages end, too" {
    for program in st-write amax-merge; do
        instead $program 'kill -KILL "$PPID"; sleep 1'
        for jobs in 1 2; do
            run "${run[@]}" --jobs $jobs
            echo "$output"
            [ "$status" -ne 0 ]
            [ ! -e "$T/out" ]
            rm -rf "$T/out.partial"
            [[ $output == 'v4-experts: '*SIGKILL*'the same command continues'* ]]
            [[ ! $output =~ Killed|Done|Terminated|'line '[0-9] ]]
        done
        as_before $program
    done
    # The whole group's first process.
    instead st-write 'kill -KILL "$(ps -o pgid= -p $$ | tr -d " ")"; sleep 1'
    run "${run[@]}"
    [ "$status" -eq 137 ]
    [ "${lines[0]}" = 'v4-experts: ended by SIGKILL; the same command continues:' ]
    sleep 1
    [ ! -e "$T/out" ]
}

# gone PID...: none of them runs.
gone() {
    local pid
    for pid; do
        if [[ $(ps -o stat= -p "$pid") == [^Z]* ]]; then ps -o pid,stat,args -p "$pid" && return 1; fi
    done
}

@test "KILL to the script alone, or to all of its shells at once: stages end, parts in the background, too" {
    # Some stages wait for their input, some have not begun.
    instead st-write 'echo $$ >>"$T/at"; sleep 1'
    instead nvfp4-cast 'echo $$ >>"$T/at"; exec 9<>"$T/never"; exec <&9'
    instead amax-calib 'echo $$ >>"$T/at"; sleep 1'
    mkfifo "$T/never"
    export T
    calib=(v4-experts -q --samples 1 --length 8 --calib test/data/text/eval.jsonl "$NANO" "$T/calibrated")
    for shells in script all; do
        for command in "${run[*]}" "${run[*]} --jobs 2" "${calib[*]}"; do
            wanted=2
            case $command in *--jobs*) wanted=4 ;; *--calib*) wanted=1 ;; esac
            rm -f "$T/at"
            # shellcheck disable=SC2086 # words
            $command >"$T/said" 2>&1 3>&- &
            pid=$!
            for ((i = 0; i < 300; i++)); do
                [ ! -e "$T/at" ] || [ "$(wc -l <"$T/at")" -lt $wanted ] || break
                sleep 0.05
            done
            mapfile -t stages <"$T/at"
            [ ${#stages[@]} -eq $wanted ]
            group=$(ps -o pgid= -p "${stages[0]}" | tr -d ' ')
            others=()
            [ $shells = script ] ||
                mapfile -t others < <(ps -e -o pid=,pgid=,comm= | awk -v group="$group" '$2 == group && $3 == "bash" { print $1 }')
            kill -KILL "$pid" "${others[@]}" 2>/dev/null || true # some end as soon as others do
            wait "$pid" || true
            sleep 2
            gone "${stages[@]}" "${others[@]}"
            [ ! -e "$T/out" ]
            [ ! -e "$T/calibrated" ]
            [ -z "$(find "$T" -name '.journal' -exec grep -l '^whole' {} +)" ]
            rm -rf "$T/out.partial" "$T/calibrated.calib"
        done
    done
}

@test "the leader of a script is killed before the script begins" {
    SEEKPIPE_LEADER=1:0 run "${run[@]}"
    [ "$status" -ne 0 ]
    [ -z "$output" ]
    [ ! -e "$T/out" ]
}

@test "Ctrl-Z stops the script and all its stages, and CONT lets them go on" {
    instead st-write 'echo $$ >"$T/at"; sleep 0.5'
    export T
    states() { # of all processes of the script
        local group
        group=$(ps -o pgid= -p "$(<"$T/at")" | tr -d ' ')
        ps -o stat= -p "$pid" && ps -e -o pgid=,stat= | awk -v group="$group" '$1 == group { print $2 }'
    }
    for signal in TSTP STOP; do
        rm -f "$T/at"
        "${run[@]}" 3>&- &
        pid=$!
        for ((i = 0; i < 200; i++)); do
            [ ! -s "$T/at" ] || break
            sleep 0.05
        done
        kill "-$signal" "$pid"
        sleep 0.3
        [ "$signal" = STOP ] || [ "$(states | grep -vc ^T)" = 0 ] || { states && return 1; }
        kill -CONT "$pid"
        wait "$pid"
        [ -e "$T/out/config.json" ]
        rm -r "$T/out"
    done
}

@test "a terminal that stops what prints in the background does not stop the script" {
    command -v script >/dev/null || skip 'script, of util-linux, is missing'
    timeout -k 1 60 script -qec "stty tostop; v4-experts --amax '$NANO_AMAX' '$NANO' '$T/out'" "$T/typed" </dev/null >"$T/said"
    grep -q 'lossless MXFP4->NVFP4' "$T/said"
    [ -e "$T/out/config.json" ]
}

@test "Ctrl-C: what is kept, and the command that goes on, as a shell reads it" {
    command -v script >/dev/null || skip 'script, of util-linux, is missing'
    text=$PWD/test/data/text/calib-code.jsonl odd="$T/o'u t"
    instead nvfp4-cast "echo \$PPID >'$T/at'; sleep 5"
    printf 'v4-experts -q --samples 1 --length 8 --calib %q --overwrite %q %q' "$text" "$NANO" "$odd" >"$T/script"
    typing() { # the key
        for ((i = 0; i < 200; i++)); do [ ! -s "$T/at" ] || break; sleep 0.05; done
        sleep 0.3
        printf '\003'
    }
    run timeout -k 1 60 script -qec "bash '$T/script'" "$T/typed" < <(typing)
    tr -d '\r' <"$T/typed" >"$T/said"
    cat "$T/said"
    grep -q 'v4-experts: ended by SIGINT; the same command continues:' "$T/said"
    grep -q "^kept: .*calib'*, from which the calibration goes on" "$T/said"
    as_before nvfp4-cast
    command=$(sed -n 's/^    \(v4-experts -q .*\)/\1/p' "$T/said")
    bash -c "$command"
    [ -e "$odd/config.json" ]
}
