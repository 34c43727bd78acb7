# Several processes that share the samples of a run.
load common
load craft

prepare() {
    random_ids "$T/tokens.safetensors" 8 32
    calib=(amax-calib --tokens "$T/tokens.safetensors" -j 1)
    # Four ports of this test's own: tests run at the same time.
    export MASTER_PORT=$((10000 + 4 * ($$ % 5000)))
}

teardown() {
    jobs=$(jobs -p)
    # shellcheck disable=SC2086 # a list
    [ -z "$jobs" ] || kill -9 $jobs 2>/dev/null || true
    [ -z "${net-}" ] || { ip netns del "$net.0"; ip netns del "$net.1"; }
    rm -rf "$T"
}

# rank R N COMMAND...: a process of a run of N, in the background; what it says goes to $T/R.
rank() {
    RANK=$1 WORLD_SIZE=$2 "${@:3}" >"$T/$1.out" 2>"$T/$1" 3>&- &
    pid[$1]=$!
}

# ended R...: wait for them; how each ended is put into $codes.
ended() {
    codes=
    for r; do
        local code=0
        wait "${pid[r]}" || code=$?
        codes+=" $code"
    done
    codes=${codes# }
}

# becomes COMMAND...: wait until it succeeds, which it does unless something is broken.
becomes() {
    for ((n = 0; n < 600; n++)); do
        ! "$@" || return 0
        sleep 0.1
    done
    return 1
}

# patience SECONDS: for which a rank may be silent.
patience() {
    export SEEKPIPE_RANK_TIMEOUT=$1
}

# never: a FIFO, $T/never, from which no tokens come. $T/met is there once a rank waits for them, which has met the
# others then.
never() {
    mkfifo "$T/never"
    { : >"$T/met" && exec sleep 100; } >"$T/never" 3>&- &
}

# together N COMMAND...: N ranks; the time is up to the slowest of them.
together() {
    local r
    for ((r = 0; r < $1; r++)); do rank $r "$1" "${@:2}"; done
    ended $(seq 0 $(($1 - 1)))
    cat "$T"/[0-9]
    [ -z "${codes//[0 ]/}" ]
}

@test "2, 3, 5 and 8 ranks: the same amaxes as one, to the byte" {
    all=("${calib[@]}" -q --mtp --recipe full)
    "${all[@]}" "$NANO" >"$T/alone.ts"
    for n in 2 3 5 8; do
        together "$n" "${all[@]}" -o "$T/$n.ts" "$NANO"
        cmp "$T/alone.ts" "$T/$n.ts"
    done
}

@test "8 ranks of V4.1 and of V3: amaxes, losses and predictions are those of one" {
    random_ids "$T/v41-tiny.safetensors" 8 32
    awk 'BEGIN { for (i = 0; i < 9 * 16; i++) printf "\\x%02x\\0\\0\\0", i * 37 % 256 }' >"$T/ids"
    safetensors "$T/v3-tiny.safetensors" '{"input_ids":{"dtype":"I32","shape":[9,16],"data_offsets":[0,576]}}' "$(<"$T/ids")"
    for model in v41-tiny v3-tiny; do
        for program in 'amax-calib -q -o' 'st-eval --save'; do
            read -ra run <<<"${program/ / -j 1 --tokens $T/$model.safetensors }"
            "${run[@]}" "$T/alone.ts" "test/data/$model/ckpt" >"$T/alone.out"
            together 8 "${run[@]}" "$T/eight.ts" "test/data/$model/ckpt"
            cmp "$T/alone.ts" "$T/eight.ts"
            cmp "$T/alone.out" "$T/0.out"
        done
    done
}

@test "launched by Open MPI, and by Slurm; from a stream of references" {
    "${calib[@]}" -q "$NANO" >"$T/alone.ts"
    st-read "$NANO" >"$T/weights.ts"
    for r in 0 1; do
        OMPI_COMM_WORLD_RANK=$r OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=$r \
            "${calib[@]}" -q -o "$T/openmpi.ts" "$T/weights.ts" 3>&- &
    done
    wait
    cmp "$T/alone.ts" "$T/openmpi.ts"
    for r in 0 1; do
        SLURM_PROCID=$r SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=$r SLURM_STEP_NUM_NODES=2 \
            MASTER_ADDR=localhost "${calib[@]}" -q -o "$T/slurm.ts" "$T/weights.ts" 3>&- &
    done
    wait
    cmp "$T/alone.ts" "$T/slurm.ts"
}

@test "the job script for Slurm: one node of tasks stands in for several" {
    "${calib[@]}" -q "$NANO" >"$T/alone.ts"
    mkdir "$T/cluster"
    cat >"$T/cluster/scontrol" <<'SH'
#!/bin/sh
[ "$*" = 'show hostnames here' ] && echo localhost
SH
    cat >"$T/cluster/srun" <<'SH'
#!/bin/bash
while [[ $1 == -* ]]; do shift; done
export SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NUM_NODES=$SLURM_NTASKS SLURM_LOCALID=0
for ((SLURM_PROCID = 0; SLURM_PROCID < SLURM_NTASKS; SLURM_PROCID++)); do export SLURM_PROCID && "$@" & done
for ((i = 0; i < SLURM_NTASKS; i++)); do wait -n || exit; done
SH
    chmod +x "$T"/cluster/*
    job() { # TASKS OPTION...
        env PATH="$T/cluster:$PATH" SLURM_JOB_NODELIST=here SLURM_JOB_ID=$((MASTER_PORT / 2)) SLURM_CPUS_PER_TASK=1 \
            SLURM_NTASKS="$1" \
            bash pipelines/slurm/amax-calib.sbatch "$T/tokens.safetensors" "$NANO" "$T/slurm.ts" -q "${@:2}"
        cmp "$T/alone.ts" "$T/slurm.ts"
    }
    job 3 --batch 1
    # A task alone may be started again, and goes on.
    job 1 --resume "$T/kept" --resume-keep
    [ -s "$T/kept/calibration.ts" ]
    job 1 --resume "$T/kept" --resume-keep
    run bash pipelines/slurm/amax-calib.sbatch "$T/tokens.safetensors" "$NANO" "$T/slurm.ts"
    [ "$status" -eq 2 ]
}

@test "st-eval: the same losses, predictions and samples as one" {
    eval=(st-eval -v -j 1 --mtp --tokens "$T/tokens.safetensors")
    "${eval[@]}" --save "$T/alone.ts" "$NANO" >"$T/alone.out" 2>"$T/alone"
    together 8 "${eval[@]}" --save "$T/eight.ts" "$NANO"
    cmp "$T/alone.ts" "$T/eight.ts"
    cmp "$T/alone.out" "$T/0.out"
    # All but the seconds that a layer took, and the line that each rank begins with.
    # shellcheck disable=SC2016 # the names, not their values
    said='as $RANK and $WORLD_SIZE say (unset them to run alone)'
    time=' s: read | of the time$'
    diff <(grep -vE "$time" "$T/alone") <(tail -n +2 "$T/0" | sed 's/^st-eval\[0\]/st-eval/' | grep -vE "$time")
    [ "$(head -n 1 "$T/0")" = "st-eval: rank 0 of 8, $said" ]
    [ ! -s "$T/1.out" ] && [ "$(<"$T/1")" = "st-eval: rank 1 of 8, $said" ]
}

@test "alone, where rank or size is not set, or empty" {
    "${calib[@]}" -q "$NANO" >"$T/alone.ts"
    for environment in 'WORLD_SIZE=2' 'RANK=1' 'RANK= WORLD_SIZE=2' 'OMPI_COMM_WORLD_SIZE=2' \
        'WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0' 'WORLD_SIZE=4 SLURM_PROCID=0 SLURM_NTASKS=4'; do
        # shellcheck disable=SC2086 # a list
        env $environment timeout 60 "${calib[@]}" "$NANO" >"$T/same.ts" 2>"$T/said"
        cmp "$T/alone.ts" "$T/same.ts"
        run grep -i rank "$T/said"
        [ "$status" -eq 1 ]
    done
}

@test "several machines need to know which is rank 0's" {
    run env SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=2 "${calib[@]}" "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *'MASTER_ADDR does not say'* ]]
    run env RANK=2 WORLD_SIZE=2 "${calib[@]}" "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *"\$RANK is '2', wanted a number from 0 to 1"* ]]
}

@test "a pipe is refused, and so are hidden states, with the reason" {
    export RANK=0 WORLD_SIZE=2
    run pipeline "st-read '$NANO' | amax-calib --tokens '$T/tokens.safetensors'"
    [ "$status" -eq 1 ]
    [[ $output == *'a pipe reaches only one'* ]]
    run "${calib[@]}" --states-out "$T/states.ts" "$NANO"
    [ "$status" -eq 2 ]
    [[ $output == *'the states of its own samples'* ]]
}

@test "other tokens, other options, other weights, more ranks than samples" {
    random_ids "$T/other.safetensors" 8 32 8
    st-read --layers 0-2 "$NANO" >"$T/part.ts"
    wrong() {
        rank 0 2 "${calib[@]}" -o "$T/x.ts" "$NANO"
        rank 1 2 "${@:2}"
        ended 0 1
        cat "$T/0" "$T/1"
        [ "$codes" = '1 1' ]
        grep -q "$1" "$T/0"
        [ ! -e "$T/x.ts" ]
    }
    wrong 'rank 1 has other options' "${calib[@]}" --mtp "$NANO"
    wrong 'rank 1 has other weights' "${calib[@]}" "$T/part.ts"
    MASTER_ADDR=localhost wrong 'rank 1 has other tokens' "${calib[@]/tokens.safetensors/other.safetensors}" "$NANO"
    rank 0 2 "${calib[@]}" --samples 1 "$NANO"
    rank 1 2 "${calib[@]}" --samples 1 "$NANO"
    ended 0 1
    [ "$codes" = '1 1' ]
    grep -q 'only 1 samples, fewer than ranks' "$T/1"
}

@test "a rank that is killed ends all, each with the reason" {
    never
    rank 0 3 "${calib[@]}" -o "$T/x.ts" "$NANO"
    rank 1 3 amax-calib --tokens "$T/never" "$NANO"
    rank 2 3 "${calib[@]}" "$NANO"
    becomes test -e "$T/met"
    kill -9 "${pid[1]}"
    ended 0 1 2
    cat "$T/0" "$T/2"
    [ "$codes" = '1 137 1' ]
    grep -qx 'amax-calib\[0\]: rank 1 has ended; its own message says why; all ranks end' "$T/0"
    grep -qx 'amax-calib\[2\]: rank 0 says: rank 1 has ended.*' "$T/2"
    [ ! -e "$T/x.ts" ]
}

@test "rank 0 killed: the others end" {
    never
    rank 0 2 amax-calib --tokens "$T/never" -o "$T/x.ts" "$NANO"
    rank 1 2 "${calib[@]}" "$NANO"
    becomes test -e "$T/met"
    kill -9 "${pid[0]}"
    ended 0 1
    [ "$codes" = '137 1' ]
    grep -qx 'amax-calib\[1\]: rank 0 has ended; its own message says why; all ranks end' "$T/1"
}

# connected N: so many connections with rank 0 are there.
connected() {
    [ "$(awk -v port="$(printf ':%04X$' "$MASTER_PORT")" '$4 == "01" && $2 ~ port' /proc/net/tcp | wc -l)" = "$1" ]
}

# lost_early N SIGNAL RANK WHY: of four ranks, the last does not come, and RANK gets SIGNAL while they wait; the
# others end and say WHY. On the Nth port, in a folder of its own.
lost_early() {
    T=$T/$1
    mkdir "$T"
    MASTER_PORT=$((MASTER_PORT + $1))
    for r in 0 1 2; do rank $r 4 "${calib[@]}" -o "$T/x.ts" "$NANO"; done
    becomes connected 4
    sleep 1 # until they know each other
    kill "-$2" "${pid[$3]}"
    ended $((1 - $3)) 2
    kill -9 "${pid[$3]}" || true
    wait "${pid[$3]}" || true
    cat "$T/0" "$T/1" "$T/2"
    [ "$codes" = '1 1' ]
    grep -q "rank $3 has $4" "$T/2"
}

# late: rank 0 is stopped, and another comes only then.
late() {
    T=$T/late
    mkdir "$T"
    MASTER_PORT=$((MASTER_PORT + 3))
    rank 0 2 "${calib[@]}" -o "$T/x.ts" "$NANO"
    # shellcheck disable=SC2317 # becomes calls it
    listens() { : >"/dev/tcp/127.0.0.1/$MASTER_PORT"; } 2>/dev/null
    becomes listens
    kill -STOP "${pid[0]}"
    rank 1 2 "${calib[@]}" "$NANO"
    ended 1
    kill -9 "${pid[0]}"
    wait "${pid[0]}" || true
    cat "$T/1"
    [ "$codes" = 1 ]
    grep -q 'rank 0 does not answer at 127.0.0.1, port [0-9]*; did it start?: Connection timed out' "$T/1"
}

@test "while one has not come yet, another is killed, or stopped: those that wait end" {
    [ -e /proc/net/tcp ] || skip 'no /proc/net/tcp'
    patience 3
    lost_early 0 KILL 1 ended 3>&- &
    runs=($!)
    lost_early 1 STOP 0 'been silent' 3>&- &
    runs+=($!)
    lost_early 2 STOP 1 'been silent' 3>&- &
    runs+=($!)
    late 3>&- &
    runs+=($!)
    for run in "${runs[@]}"; do wait "$run"; done
}

@test "a rank that fails by itself says why, and ends all" {
    rank 0 2 "${calib[@]}" "$NANO"
    rank 1 2 "${calib[@]/tokens.safetensors/none}" "$NANO"
    ended 0 1
    [ "$codes" = '1 1' ]
    grep -q '/none: No such file' "$T/1"
    grep -q 'rank 1 has ended' "$T/0"
}

@test "a rank that is stopped ends the others, and itself when it goes on" {
    patience 3
    never
    rank 0 3 "${calib[@]}" "$NANO"
    rank 1 3 amax-calib --tokens "$T/never" "$NANO"
    rank 2 3 "${calib[@]}" "$NANO"
    becomes test -e "$T/met"
    kill -STOP "${pid[1]}"
    ended 0 2
    kill -CONT "${pid[1]}"
    [ "$codes" = '1 1' ]
    grep -q 'rank 1 has been silent for 3 seconds' "$T/0"
    grep -q 'rank 0 says: rank 1 has been silent' "$T/2"
    ended 1
    [ "$codes" = 1 ]
    grep -q 'rank 0' "$T/1"
}

# two_machines: a network each, connected by a cable, rank 0's called 10.9.0.1; or false if that is not allowed here.
two_machines() {
    ip netns add "seekpipe$$.0" && net=seekpipe$$ && ip netns add "$net.1" &&
        ip link add cable netns "$net.0" type veth peer name cable netns "$net.1" || return
    for r in 0 1; do
        ip -n "$net.$r" addr add "10.9.0.$((r + 1))/24" dev cable
        ip -n "$net.$r" link set cable up
    done
    export MASTER_ADDR=10.9.0.1 SEEKPIPE_RANKS_SECRET=cable
} 2>/dev/null

@test "two machines find what one finds; cut off from each other, both end" {
    two_machines || skip 'no right to make networks, or no ip(8)'
    "${calib[@]}" -q "$NANO" >"$T/alone.ts"
    for r in 0 1; do rank $r 2 ip netns exec "$net.$r" "${calib[@]}" -q -o "$T/two.ts" "$NANO"; done
    ended 0 1
    cmp "$T/alone.ts" "$T/two.ts"
    patience 2
    never
    rank 0 2 ip netns exec "$net.0" amax-calib --tokens "$T/never" "$NANO"
    rank 1 2 ip netns exec "$net.1" "${calib[@]}" "$NANO"
    becomes test -e "$T/met"
    ip -n "$net.1" link set cable down
    ended 0 1
    [ "$codes" = '1 1' ]
    grep -q 'rank 1 has been silent' "$T/0"
    grep -q 'rank 0 has been silent' "$T/1"
}

@test "a rank that does not come, and a rank 0 that does not" {
    patience 1
    rank 0 3 "${calib[@]}" "$NANO"
    rank 2 3 "${calib[@]}" "$NANO"
    MASTER_PORT=$((MASTER_PORT + 1)) rank 1 2 "${calib[@]}" "$NANO"
    ended 0 2 1
    [ "$codes" = '1 1 1' ]
    grep -q 'rank 1 did not connect within 10 seconds' "$T/0"
    grep -q 'rank 0 has ended; its own message says why' "$T/2"
    grep -q "rank 0 does not answer at 127.0.0.1, port [0-9]*; did it start?: Connection refused" "$T/1"
}

@test "whoever else calls is hung up on; another run's ranks are told apart" {
    rank 0 2 "${calib[@]}" -q -o "$T/x.ts" "$NANO"
    call() { echo 'GET / HTTP/1.0' >"/dev/tcp/127.0.0.1/$MASTER_PORT"; } 2>/dev/null
    becomes call
    rank 1 2 "${calib[@]}" "$NANO"
    ended 0 1
    [ "$codes" = '0 0' ]
    [ -s "$T/x.ts" ]
    rank 0 2 "${calib[@]}" "$NANO"
    rank 1 3 "${calib[@]}" "$NANO"
    ended 0 1
    [ "$codes" = '1 1' ]
    grep -q 'rank 1 of 3 connected, but this is a run of 2' "$T/0"
    grep -q 'rank 0 has ended; its own message says why' "$T/1"
}

# greeting COUNT RANK CHANNEL: what a rank says first, with a number of zeros.
greeting() {
    local n
    printf 'seekrnk2'
    # shellcheck disable=SC2059 # bytes
    for n; do printf "\\0\\0\\0\\x$(printf %02x "$n")"; done
    printf '%16s' '' | tr ' ' '\0'
}

@test "strangers do not end a run, nor keep it waiting; another user cannot join it" {
    # shellcheck disable=SC2317 # becomes calls it
    listens() { : >"/dev/tcp/127.0.0.1/$MASTER_PORT"; } 2>/dev/null
    rank 0 2 "${calib[@]}" -q -o "$T/a.ts" "$NANO"
    becomes listens
    # Idle ones, more than are heard at a time; hellos of 20 bytes and without a proof.
    (
        # shellcheck disable=SC2034 # they stay open
        for ((i = 0; i < 90; i++)); do exec {fd}<>"/dev/tcp/127.0.0.1/$MASTER_PORT"; done
        : >"$T/idle"
        exec sleep 60
    ) 3>&- &
    idle=$!
    becomes test -e "$T/idle"
    { printf seekrank && head -c 12 /dev/zero; } >"$T/hello"
    cat "$T/hello" >"/dev/tcp/127.0.0.1/$MASTER_PORT"
    { greeting 3 1 1 && head -c 32 /dev/zero; } >"$T/hello"
    cat "$T/hello" >"/dev/tcp/127.0.0.1/$MASTER_PORT" || true
    if [ "$(id -u)" = 0 ] && setpriv --reuid 65534 true; then
        chmod 711 "$T"
        RANK=1 WORLD_SIZE=2 run setpriv --reuid 65534 --clear-groups amax-calib --tokens /none "$NANO"
        [[ $output == *'is another user'* || $output == *'Permission denied'* ]]
    fi
    rank 1 2 "${calib[@]}" -q "$NANO"
    ended 0 1
    kill "$idle"
    cat "$T/0" "$T/1"
    [ "$codes" = '0 0' ]
    grep -Eq '^amax-calib\[0\]: [0-9]+ connections of strangers were dropped$' "$T/0"
    "${calib[@]}" -q "$NANO" | cmp - "$T/a.ts"
}

# listening: where the port is listened on, as /proc has it: addresses in hexadecimal; nothing if nowhere.
listening() {
    awk -v port="$(printf ':%04X$' "$MASTER_PORT")" '$4 == "0A" && $2 ~ port { sub(/:.*/, "", $2); print $2 }' /proc/net/tcp*
}

@test "rank 0 listens on loopback alone where MASTER_ADDR is this machine for all ranks, on other addresses elsewhere" {
    [ -e /proc/net/tcp ] || skip 'no /proc/net/tcp'
    # shellcheck disable=SC2317 # becomes calls it
    listens() { [ -n "$(listening)" ]; }
    "${calib[@]}" -q "$NANO" >"$T/alone.ts"
    # Loopback in all ways to write it, whether there is IPv6 or not; and a launcher that says it.
    for where in '' localhost LocalHost 127.0.0.1 127.0.0.2 127.1 ::1 0:0:0:0:0:0:0:1 0.0.0.0; do
        export MASTER_ADDR=$where
        [ "$where" != 0.0.0.0 ] || export LOCAL_WORLD_SIZE=2
        rank 0 2 "${calib[@]}" -q -o "$T/a.ts" "$NANO"
        becomes listens
        echo "MASTER_ADDR='$where': $(listening)"
        [ "$(listening)" = 0100007F ]
        rank 1 2 "${calib[@]}" -q "$NANO"
        ended 0 1
        cat "$T/0" "$T/1"
        [ "$codes" = '0 0' ]
        cmp "$T/alone.ts" "$T/a.ts"
    done
    unset LOCAL_WORLD_SIZE
    # This machine's own name may resolve to loopback here, and to another address elsewhere; so may one that looks
    # like such an address.
    for where in 0.0.0.0 "$(uname -n)" 127.example; do
        [ "$where" != localhost ] || continue
        MASTER_ADDR=$where rank 0 2 "${calib[@]}" -q -o "$T/a.ts" "$NANO"
        becomes listens
        echo "MASTER_ADDR='$where': $(listening)"
        [[ $(listening) =~ ^0+$ ]]
        becomes grep -q 'SEEKPIPE_RANKS_SECRET=' "$T/0"
        kill "${pid[0]}"
        wait "${pid[0]}" || true
    done
}

@test "a secret: all have it, or are not of the run" {
    # shellcheck disable=SC2317 # becomes calls it
    listens() { : >"/dev/tcp/127.0.0.1/$MASTER_PORT"; } 2>/dev/null
    SEEKPIPE_RANKS_SECRET=right rank 0 2 "${calib[@]}" -q -o "$T/a.ts" "$NANO"
    becomes listens
    for secret in wrong '' right2; do
        SEEKPIPE_RANKS_SECRET=$secret rank 1 2 "${calib[@]}" -q "$NANO"
        ended 1
        [ "$codes" = 1 ]
        grep -q 'is not of this run: what answers has another .SEEKPIPE_RANKS_SECRET' "$T/1"
    done
    SEEKPIPE_RANKS_SECRET=right rank 1 2 "${calib[@]}" -q "$NANO"
    ended 0 1
    [ "$codes" = '0 0' ]
    "${calib[@]}" -q "$NANO" | cmp - "$T/a.ts"
}

@test "no secret where ranks may be on several machines: rank 0 makes one, and waits for ranks that have it" {
    # 0.0.0.0 is this machine, which a rank cannot know.
    for none in unset empty; do
        [ $none = unset ] || export SEEKPIPE_RANKS_SECRET=
        MASTER_ADDR=0.0.0.0 rank 0 2 "${calib[@]}" -q -o "$T/a.ts" "$NANO"
        becomes grep -q 'SEEKPIPE_RANKS_SECRET=' "$T/0"
        secret=$(sed -n 's/^amax-calib\[0\]: waiting for ranks .*SEEKPIPE_RANKS_SECRET=\([0-9a-f]\{32\}\), .*/\1/p' "$T/0")
        [ "${#secret}" -eq 32 ]
        [ "$secret" != "${before-}" ]
        before=$secret
        # Without it, one ends before it connects; so does one that takes rank 0 for one of this machine, and one
        # with another.
        MASTER_ADDR=0.0.0.0 rank 1 2 "${calib[@]}" -q "$NANO"
        ended 1
        [ "$codes" = 1 ]
        # shellcheck disable=SC2016 # the name, not its value
        grep -q 'rank 0 is at 0\.0\.0\.0, perhaps another machine, .*set \$SEEKPIPE_RANKS_SECRET' "$T/1"
        rank 1 2 "${calib[@]}" -q "$NANO"
        ended 1
        [ "$codes" = 1 ]
        grep -q 'or of a run with another .MASTER_ADDR' "$T/1"
        SEEKPIPE_RANKS_SECRET=${secret%?}x MASTER_ADDR=0.0.0.0 rank 1 2 "${calib[@]}" -q "$NANO"
        ended 1
        [ "$codes" = 1 ]
        SEEKPIPE_RANKS_SECRET=$secret MASTER_ADDR=0.0.0.0 rank 1 2 "${calib[@]}" -q "$NANO"
        ended 0 1
        cat "$T/0" "$T/1"
        [ "$codes" = '0 0' ]
        "${calib[@]}" -q "$NANO" | cmp - "$T/a.ts"
    done
}
