# A little of each kind of harm; `make torture` does all of it. What holds is in test/torture/common.bash.

load common

# harm KIND [OPTION...]: there are no faults.
harm() {
    [ "$BIN" = bin ] || skip "tortured without sanitizers, which strace and limits disturb"
    TMPDIR=$T run "test/torture/$1" "${@:2}"
    echo "$output"
    [ "$status" -ne 3 ] || skip "cannot mount images here"
    [ "$status" -eq 0 ]
}

@test "system calls fail, reads and writes move less" {
    harm calls 2
}

@test "killed at calls that write, and at random moments" {
    harm kills 3 6
}

@test "stages are killed, stopped, or nobody reads" {
    harm signals 1
}

@test "limits on files, full outputs" {
    harm limits 2
}

@test "the source changes meanwhile" {
    harm sources 3
}

@test "full disks, and disks that are cut off" {
    harm disks 2
}

@test "killed where something is replaced, and calls that fail there" {
    harm lifetimes 3 st-write-overwrite st-write-join-overwrite-renames amax-merge-summary st-sum-over
}

@test "other users and other runs in the same folder" {
    chmod 711 "$T" # they come in
    harm neighbours 1 fp8-dequant-over st-write-overwrite
}

@test "one thing in a checkpoint is changed: a refusal, or a right result" {
    harm mutations 100
}
