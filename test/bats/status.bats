# Where a pipeline stands: on a terminal, in the log, for scripts, when asked. And that nothing depends on it.
# shellcheck disable=SC2016,SC2030,SC2031 # for another shell; each test is a subshell
load common
load instead

# typed COLUMNS COMMAND: what it prints on a terminal of so many columns, in $T/typed.
typed() {
    command -v script >/dev/null || skip 'script, of util-linux, is missing'
    TERM=xterm timeout -k 1 60 script -qec "stty cols $1 rows 10; $2" "$T/typed" </dev/null >/dev/null
}

# drawn: the blocks of $T/typed, a line each.
drawn() {
    grep -ao $'\033\\[J[^\r]*\r*' "$T/typed" | sed $'s/\033\\[J//; s/\r//g'
}

@test "a block on the terminal: step, layer, bytes, rate; it is gone in the end" {
    instead st-write 'sleep 0.8'
    typed 100 "v4-experts --amax '$NANO_AMAX' '$NANO' '$T/out'"
    tr -d '\r' <"$T/typed" | grep -aq 'v4-experts: step 2 of 3, weights, .* so far'
    grep -aq $'\033\\[1m' "$T/typed" # in color
    # The last thing before the summary erases the block.
    sed $'s/v4-experts: .* was made from.*//' "$T/typed" | tr '\n' ' ' >"$T/before"
    grep -aqF $'\r\033[J' "$T/before"
    [ -e "$T/out/config.json" ]
    # st-write's bytes, and its layers.
    rm -rf "$T/out" "$T/out.log"
    as_before st-write
    typed 100 "st-read '$NANO' | fp8-dequant | { sleep 1; cat; } | st-write --progress '$T/out'"
    grep -aqE 'st-write: .* of 1[0-9.]+ MB \(' "$T/typed"
}

@test "color: --color, NO_COLOR" {
    instead st-write 'sleep 0.6'
    for how in 'never no' 'always yes' 'auto yes'; do
        typed 80 "v4-bf16 --color ${how% *} '$NANO' '$T/out-${how% *}'"
        if grep -aq $'\033\\[1m' "$T/typed"; then is=yes; else is=no; fi
        [ "$is" = "${how#* }" ]
    done
    typed 80 "NO_COLOR=1 v4-bf16 '$NANO' '$T/out-no'"
    if grep -aq $'\033\\[1m' "$T/typed"; then return 1; fi
    typed 80 "NO_COLOR=1 v4-bf16 --color always '$NANO' '$T/out-yes'"
    grep -aq $'\033\\[1m' "$T/typed"
    run v4-bf16 --color blue "$NANO" "$T/out"
    [ "$status" -eq 2 ]
}

@test "no line is wider than the window, also after it has become narrower" {
    instead st-write 'sleep 1.5'
    typed 70 "{ sleep 1; stty cols 24 </dev/tty; } & v4-experts --color never --amax '$NANO_AMAX' '$NANO' '$T/out'"
    drawn >"$T/blocks"
    grep -q 'step 2 of 3, weights, .* so far' "$T/blocks"
    narrow=$(grep -c '^v4-experts: step 2 of 3$\|^v4-experts: step 2 of 3,$' "$T/blocks" || true)
    [ "$narrow" -ge 1 ]
    tr '\r' '\n' <"$T/typed" | sed $'s/\033\\[J//' | grep -aE '^v4-experts: step|^[#-]{8}|left in this|^bound by' >"$T/all"
    [ "$(awk 'length > 69' "$T/all" | wc -l)" -eq 0 ]
}

@test "no block where TERM is dumb, in the background, or with -q" {
    instead st-write 'sleep 0.6'
    for command in "TERM=dumb v4-bf16 '$NANO' '$T/a'" "v4-bf16 -q '$NANO' '$T/b'" "set -m; v4-bf16 '$NANO' '$T/c' & wait"; do
        typed 80 "$command"
        if grep -aq 'so far' "$T/typed"; then return 1; fi
    done
    [ -e "$T/c/config.json" ]
}

@test "a terminal's messages stand on lines of their own" {
    instead st-write 'sleep 0.6'
    typed 90 "v4-experts --amax '$NANO_AMAX' '$NANO' '$T/out'"
    # What a screen shows: after each erasure nothing of a block is left before the message.
    grep -aoE $'\r\033\\[Jamax-merge: [^\r]*' "$T/typed" | grep -q 'filled in by layer-max'
}

@test "no terminal: a line now and then, none in a short run" {
    v4-bf16 "$NANO" "$T/out" 2>"$T/said"
    if grep -q 'step 1' "$T/said"; then return 1; fi
    { echo '{"steps":[{"step":"a"},{"step":"b"}]}'; echo '{"step":"a"}'; sleep 2.5; } |
        st-status --name run --every 1 2>"$T/said"
    [ "$(grep -cx 'run: step 1 of 2, a' "$T/said")" -eq 2 ]
    # --quiet
    { echo '{"step":"a"}'; sleep 1.5; } | st-status -q --every 1 2>"$T/said"
    [ ! -s "$T/said" ]
}

@test "bytes, rate, time left, and what bounds the run, from the lines of several stages" {
    task() { echo "{\"program\":\"$1\",\"task\":$2,\"layer\":3,\"layers\":9,\"done\":$3,\"total\":1000,\"cpu\":$4,\"disk\":$5,\"over\":false}"; }
    {
        echo '{"steps":[{"step":"one","kind":"k","work":10},{"step":"two","kind":"k","work":30},{"step":"three"}]}'
        echo '{"step":"one"}'
        task ahead 1 900 0 0; task slow 2 100 0 0; task slow 3 100 0 0
        sleep 1
        task ahead 1 1000 0.1 0; task slow 2 300 0 0.9; task slow 3 200 0 0
        sleep 1.2
        echo nonsense; echo '{"task":"x"}'; echo '[1]'; echo '{"step":7}'; echo '{"done":-1,"task":4,"total":5}'
        echo '{"end":true}'
    } | st-status --status-fd 1 >"$T/lines"
    jq -es 'map(select(.event == "state")) | last |
        .step == "one" and .number == 1 and .steps == 3 and .program == "slow" and .layer == 3 and .layers == 9 and
        .done == 500 and .total == 2000 and .bound == "slow" and .bound_by == "disk" and
        (.rate > 150 and .rate < 350) and (.left > 4 and .left < 10) and (.left_all > 16 and .left_all < 45)' "$T/lines"
    # The second step is three times the first.
    jq -es 'map(select(.event == "state")) | last | (.left_all - .left) / (.left + .seconds) | . > 2.5 and . < 3.5' "$T/lines"
    jq -es 'last | .event == "end" and .interrupted == false' "$T/lines"
}

@test "a task that ended before all of its bytes counts as what it did" {
    task() { echo "{\"program\":\"one\",\"task\":$1,\"layer\":0,\"layers\":0,\"done\":$2,\"total\":1000,\"cpu\":0,\"disk\":0,\"over\":$3}"; }
    { echo '{"step":"calibration"}' && task 1 100 true && task 2 400 false && sleep 1.5; } |
        st-status --status-fd 1 >"$T/lines"
    jq -se 'map(select(.event == "state")) | last | .done == 500 and .total == 1100' "$T/lines"
}

@test "figures from outside that no time has room for" {
    {
        echo '{"step":"a"}'
        sleep 1
        echo '{"program":"p","task":1,"done":1,"total":9223372036854775807}'
        echo '{"program":"p","task":2,"done":1,"total":9223372036854775807}'
        echo '{"show":true}'
        sleep 0.5
    } | st-status 2>"$T/said"
    grep -q ', 1000000h00m00s left in this step' "$T/said"
}

@test "--status-fd: each step and message, as JSON" {
    v4-experts -q --amax "$NANO_AMAX" --status-fd 5 "$NANO" "$T/out" 5>"$T/lines" 2>"$T/said"
    jq -s -r 'map(select(.event == "step") | "\(.number) \(.steps) \(.step)")[]' "$T/lines" |
        diff - <(printf '%s\n' '1 3 checks' '2 3 weights' '3 3 verdicts')
    jq -es 'map(.time | fromdate) | all' "$T/lines"
    # A failed run, its message, and a wrong descriptor.
    echo x >"$T/bad.pt"
    run v4-experts --amax "$T/bad.pt" --status-fd 5 "$NANO" "$T/other" 5>"$T/lines"
    [ "$status" -eq 1 ]
    jq -es 'map(select(.event == "message" and .program == "pt-read")) | length >= 1' "$T/lines"
    jq -es 'map(select(.event == "message" and .program == "v4-experts")) | last | .message | test("pt-read failed")' "$T/lines"
    # Descriptor 6 cannot be written; those from 10 on are the script's own, if any.
    for fd in 77 x -1 6 10 11 12 13 14 15 16; do
        run v4-bf16 --status-fd=$fd "$NANO" "$T/bf16" 6<"$T/said" 10>&- 11>&- 12>&- 13>&- 14>&- 15>&- 16>&-
        echo "$fd: $output"
        [ "$status" -eq 2 ]
    done
    v4-bf16 -q --status-fd 13 "$NANO" "$T/thirteen" 13>"$T/lines"
    jq -es 'last | .event == "end"' "$T/lines"
    run st-status --status-fd 6 6<"$T/said" </dev/null
    [ "$status" -eq 2 ]
    run st-status --status-fd 77 </dev/null
    [ "$status" -eq 2 ]
    # Nobody reads, or nobody reads on.
    v4-bf16 -q --status-fd 5 "$NANO" "$T/bf16" 5> >(exit)
    [ -e "$T/bf16/config.json" ]
}

@test "the log: for its user alone, it grows, and says what happened" {
    umask 0
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out/"
    [ "$(stat -c %a "$T/out.log")" = 600 ]
    grep -qE '^20[0-9-]+ [0-9:]+ v4-experts: step 2 of 3, weights' "$T/out.log"
    grep -q 'v4-experts: ends after' "$T/out.log"
    size=$(stat -c %s "$T/out.log")
    cp "$T/out.log" "$T/before"
    instead st-write 'kill -TERM $$'
    run v4-experts -q --overwrite --input-scale 1 "$NANO" "$T/out"
    [ "$status" -eq 1 ]
    cmp -n "$size" "$T/before" "$T/out.log"
    grep -q 'v4-experts: st-write was ended by SIGTERM' "$T/out.log"
    # A plan, or a run that is done already, has nothing to log.
    as_before st-write
    rm "$T/out.log"
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out"
    v4-experts -n --overwrite --amax "$NANO_AMAX" "$NANO" "$T/out" >/dev/null
    [ ! -e "$T/out.log" ]
}

@test "the log: none of a run that is refused" {
    mkdir "$T/other" "$T/empty"
    touch "$T/other/mine"
    for command in v4-bf16 'v4-experts --input-scale 1'; do
        for destination in "$T/other" "$T/empty/." "$T/empty/.." "$T/none/out"; do
            run $command -q "$NANO" "$destination"
            [ "$status" -ne 0 ]
        done
    done
    [ "$(find "$T" -name '*log' | wc -l)" = 0 ]
}

@test "the log: a link, a FIFO, a file with other names are not written, and the run goes on" {
    echo mine >"$T/target"
    plant() { case $1 in link) ln -s target "$T/out.log" ;; fifo) mkfifo "$T/out.log" ;; names) ln "$T/target" "$T/out.log" ;; esac; }
    for what in link fifo names; do
        plant $what
        timeout 30 v4-bf16 "$NANO" "$T/out" 2>"$T/said"
        grep -q "out\.log: .*; this run has no log" "$T/said"
        [ "$(<"$T/target")" = mine ]
        rm -r "$T/out" "$T/out.log"
    done
    # No output may be there.
    run v4-experts --input-scale 1 --summary "$T/out.log" "$NANO" "$T/out"
    [ "$status" -eq 2 ]
}

@test "the log: never a file that the run reads, nor one that its output goes to" {
    cp test/data/text/eval.jsonl "$T/eval.log"
    amaxes "$T/amax.log"
    run v4-experts --amax "$T/amax.log" "$NANO" "$T/amax"
    [ "$status" = 0 ]
    [[ $output == *"$T/amax.log: is read, or is where this run's output goes; it has no log"* ]]
    amaxes "$T/again"
    cmp "$T/amax.log" "$T/again"
    v4-experts -q --input-scale 1 --eval "$T/eval.log" --field text --samples 2 --length 32 "$NANO" "$T/eval" 2>&1 || true
    cmp test/data/text/eval.jsonl "$T/eval.log"
    v4-experts --input-scale 1 "$NANO" "$T/out" 2>"$T/out.log"
    grep -q "it has no log" "$T/out.log"
    [ "$(grep -c '^20..-' "$T/out.log")" = 0 ]
}

@test "SIGUSR1 as the run ends does not change its exit status" {
    for i in 1 2 3 4 5 6; do
        v4-experts -q --input-scale 1 "$NANO" "$T/u$i" 2>/dev/null &
        run=$!
        until [ -e "$T/u$i.log" ]; do sleep 0.01; done
        while kill -USR1 $run 2>/dev/null; do sleep 0.01; done
        status=0
        wait $run || status=$?
        echo "$status"
        [ "$status" = 0 ]
        [ -e "$T/u$i/config.json" ]
    done
}

@test "ended by a signal while standard error takes nothing: the status tells" {
    instead st-write "echo \$\$ >'$T/at'; sleep 30"
    for to in /dev/full /dev/null; do
        rm -f "$T/at"
        v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/x" 2>$to &
        run=$!
        for ((i = 0; i < 200; i++)); do [ ! -s "$T/at" ] || break; sleep 0.05; done
        kill -TERM $run
        status=0
        wait $run || status=$?
        [ "$status" = 143 ]
    done
}

@test "a standard error whose reader is gone ends no run, nor a stage that has something to say" {
    st-tokenize -q --tokenizer "$NANO" --samples 1 --length 16 -o "$T/ids.ts" test/data/text/calib-prose.jsonl
    for command in "amax-calib -v --tokens $T/ids.ts -o $T/amax.ts $NANO" \
        "v4-experts --calib test/data/text/calib-prose.jsonl --samples 1 --length 16 $NANO $T/out"; do
        # shellcheck disable=SC2086 # a list
        { sleep 0.2 && $command && echo ended >>"$T/ended"; } 2>&1 >/dev/null | true
    done
    [ "$(grep -c ended "$T/ended")" = 2 ]
    [ -e "$T/out/config.json" ] && [ -s "$T/amax.ts" ]
}

@test "SIGUSR1: a pipeline, or one stage, says once where it stands, and goes on" {
    instead st-write "echo \$\$ >'$T/at'; sleep 1"
    v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out" 2>"$T/said" &
    pid=$!
    for ((i = 0; i < 200; i++)); do [ ! -s "$T/at" ] || break; sleep 0.05; done
    kill -USR1 $pid
    wait $pid
    [ "$(grep -cE '^v4-experts: step 2 of 3, weights' "$T/said")" -eq 1 ]
    [ -e "$T/out/config.json" ]
    mkfifo "$T/pipe"
    "$PWD/$BIN/fp8-dequant" "$NANO" >"$T/pipe" 2>"$T/said" &
    pid=$!
    exec 4<"$T/pipe"
    head -c 1000 <&4 >/dev/null
    sleep 0.3
    kill -USR1 $pid
    sleep 0.3
    cat <&4 >/dev/null
    exec 4<&-
    wait $pid
    [ "$(grep -cE '^fp8-dequant: (layer [0-9]+ of 4, )?[0-9.]+ .?B of 12.7 MB' "$T/said")" -eq 1 ]
}

@test "st-status is killed, stopped or not there: the run goes on, with the same result" {
    for what in KILL STOP none; do
        rm -rf "$T/out" "$T/at"
        instead st-write "echo \$\$ >'$T/at'; sleep 0.5"
        if [ $what = none ]; then rm "$T/bin/st-status"; fi
        v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out" &
        pid=$!
        for ((i = 0; i < 200; i++)); do [ ! -s "$T/at" ] || break; sleep 0.05; done
        group=$(ps -o pgid= -p "$(<"$T/at")" | tr -d ' ')
        shower=$(ps -e -o pid=,pgid=,comm= | awk -v g="$group" '$2 == g && $3 == "st-status" { print $1 }')
        if [ $what != none ]; then kill -$what "$shower"; fi
        wait $pid
        if [ $what != none ] && kill -0 "$shower" 2>/dev/null; then return 1; fi
        if [ $what = KILL ]; then mv "$T/out" "$T/first"; else diff -r -x quant-report.html "$T/first" "$T/out"; fi
    done
}

@test "SEEKPIPE_STATUS that is of another pipe, or of none, is left alone" {
    for text in '' 9 9:pipe:[1] x:y 99:pipe:[7] "9:$(readlink /proc/self/fd/1)"; do
        SEEKPIPE_STATUS=$text st-sum -o "$T/sum" "$NANO" 9>"$T/nine"
        [ ! -s "$T/nine" ]
    done
    # Of this one, it gets lines, until it is full; then they are lost.
    mkfifo "$T/pipe"
    exec 9<>"$T/pipe"
    SEEKPIPE_STATUS=9:$(readlink /proc/$BASHPID/fd/9) st-sum -o "$T/sum" "$NANO"
    [ "$(timeout 0.2 cat <&9 | wc -l)" -eq 0 ] # a FIFO with a name is no pipe of a script
}
