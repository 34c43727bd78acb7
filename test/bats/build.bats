# What a build says.
load common

@test "a build says what it makes, one line each; V=1 shows the commands" {
    quiet=$(make OBJ="$T/quiet" CUDA=0 CFLAGS=-O0 "$T/quiet/stages/st-read.c.o")
    [ "$quiet" = 'CC stages/st-read.c' ]
    full=$(make OBJ="$T/full" CUDA=0 CFLAGS=-O0 V=1 "$T/full/stages/st-read.c.o")
    [ "$(wc -l <<<"$full")" = 1 ]
    [[ $full == *' -O0 '*" -c -o $T/full/stages/st-read.c.o stages/st-read.c" ]]
    [ -f "$T/quiet/stages/st-read.c.o" ] && [ -f "$T/full/stages/st-read.c.o" ]
    # What is built already is not built again.
    [ -z "$(make -s OBJ="$T/quiet" CUDA=0 CFLAGS=-O0 "$T/quiet/stages/st-read.c.o")" ]
}

@test "every command of a build is quiet, or has its short line" {
    make -n BIN="$T/bin" OBJ="$T/obj" CUDA=0 all fuzzers tests >"$T/quiet"
    grep -qx "echo 'LD $T/bin/st-read';.*" "$T/quiet"
    grep -qx "echo 'AR $T/obj/common.a';.*" "$T/quiet"
    grep -E ' (-c|-shared|-o) ' "$T/quiet" >"$T/commands"
    [ "$(grep -c '' "$T/commands")" = "$(grep -c "^echo '[A-Z]* " "$T/commands")" ]
}

@test "a build that was not told otherwise, as that of make demo, is on all processors" {
    [[ $(make -n demo CUDA=0) == *" -j$(nproc) all"* ]]
    [[ $(make -n -j3 demo CUDA=0) != *" -j$(nproc) "* ]]
}
