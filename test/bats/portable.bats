# What `make portable` makes, builds without oneDNN, and test/tools/gpu-check.
load common
load craft

# Made once for all tests of this file; the objects stay in build/.
setup_file() {
    export DIST=$BATS_FILE_TMPDIR/dist
    make -j2 portable DIST="$DIST" >"$BATS_FILE_TMPDIR/log" 2>&1 || { cat "$BATS_FILE_TMPDIR/log" && false; }
}

# The names in a file's NEEDED.
needed() {
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}

# The libraries that we count on: GNU's C, C++ and compiler's.
of_system() {
    [[ $1 =~ ^(ld-linux.*|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so\.[0-9]+$ ]]
}

@test "programs and their libraries need nothing but each other and the system's C and C++" {
    wrong=0
    while read -r file; do
        for name in $(needed "$file"); do
            of_system "$name" || [ -f "$DIST/lib/$name" ] || { echo "$file: $name" && wrong=1; }
        done
    done < <(find "$DIST/bin" "$DIST/lib" -type f)
    [ $wrong = 0 ]
    [[ $(needed "$DIST/bin/st-write") != *dnnl* ]]
}

@test "all programs, pipelines, recipes and pages are there" {
    for source in stages/*.c; do [ -x "$DIST/bin/$(basename "$source" .c)" ]; done
    for folder in pipelines man; do diff -r "$folder" "$DIST/$folder"; done
    [ -x "$DIST/test/gpu-check" ] && [ -x "$DIST/test/gpu-bench" ] && [ -e "$DIST/test/gpu-peer.py" ]
    [ -x "$DIST/bin/test/mkckpt" ]
}

# A root with nothing but the system's libraries for C and C++ (and the locale that comes with them, and the
# folder for shared memory, which clang's OpenMP wants), the programs, and a checkpoint; $in runs a program there.
@test "in a root without our libraries: the same tensors as at home" {
    # /proc, from which $ORIGIN is known elsewhere, is not there.
    in=(env TMPDIR=/tmp LD_ORIGIN_PATH=/dist/bin chroot "$T/root")
    [ "$(id -u)" = 0 ] || in=(unshare -r "${in[@]}")
    mkdir -p "$T/root/tmp" "$T/root/dev/shm"
    ldd "$DIST/bin/amax-calib" | grep -oE '/[^ ]+' | while read -r path; do
        if of_system "${path##*/}"; then
            install -D "$path" "$T/root$path"
        fi
    done
    mkdir -p "$T/root/usr/lib/locale"
    cp -r /usr/lib/locale/C.utf8 "$T/root/usr/lib/locale/"
    cp -r "$DIST" "$T/root/dist"
    cp -r "$NANO" "$T/root/ckpt"
    cp -r "$NANO_AMAX" "$T/root/amax"
    cp "$GOLDEN/calib-ids.safetensors" "$T/root/tokens.safetensors"
    cp test/data/text/eval.jsonl "$T/root/text.jsonl"
    run "${in[@]}" /dist/bin/st-read --version
    [[ $output != *'not permitted'* ]] || skip 'no right to change the root'
    [ "$status" -eq 0 ]

    "${in[@]}" /dist/bin/st-read --inline /ckpt | "${in[@]}" /dist/bin/fp8-dequant | st-sum --each >"$T/there"
    st-read "$NANO" | fp8-dequant | st-sum --each >"$T/here"
    cmp "$T/here" "$T/there"
    "${in[@]}" /dist/bin/pt-read /amax | st-sum --each >"$T/there"
    pt-read "$NANO_AMAX" | st-sum --each >"$T/here"
    cmp "$T/here" "$T/there"
    "${in[@]}" /dist/bin/st-tokenize --tokenizer /ckpt --length 64 --samples 4 /text.jsonl | st-sum --each >"$T/there"
    st-tokenize --tokenizer "$NANO" --length 64 --samples 4 test/data/text/eval.jsonl | st-sum --each >"$T/here"
    cmp "$T/here" "$T/there"
    "${in[@]}" /dist/bin/amax-calib -q --samples 2 --tokens /tokens.safetensors /ckpt | st-sum --each >"$T/there"
    amax-calib -q --samples 2 --tokens "$GOLDEN/calib-ids.safetensors" "$NANO" | st-sum --each >"$T/here"
    cmp "$T/here" "$T/there"
}

@test "pipelines find the programs and recipes beside them" {
    PATH=/usr/bin:/bin run "$DIST/pipelines/v4-experts" --amax "$NANO_AMAX" "$NANO" "$T/nvfp4"
    echo "$output"
    [ "$status" -eq 0 ]
    digests "$T/nvfp4" >"$T/there"
    # In the source tree they find bin/; of programs that are elsewhere they must be told.
    [ "$BIN" = bin ] || export SEEKPIPE_BIN=$PWD/$BIN
    PATH=/usr/bin:/bin pipelines/v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/home"
    digests "$T/home" | cmp - "$T/there"
}

@test "a folder that is something else is not replaced" {
    mkdir "$T/mine"
    run env BIN="$BIN" packaging/portable "$T/mine"
    [ "$status" -eq 1 ]
    [[ $output == *'not of our making'* ]]
    [ -d "$T/mine" ]
}

@test "without oneDNN: it builds, and says what it lacks when it is asked for" {
    make -j2 DNNL=0 CUDA=0 BIN="$T/bin" OBJ=build/no-dnnl/obj CFLAGS=-O0 "$T/bin/amax-calib" >"$T/log" 2>&1
    [[ $(needed "$T/bin/amax-calib") != *dnnl* ]]
    for plan in -q -n; do
        refused 'no CPU device: it was made without oneDNN' \
            "$T/bin/amax-calib" $plan --tokens "$GOLDEN/calib-ids.safetensors" "$NANO"
    done
}

# ---- gpu-check ----

# A folder like that of make portable, whose tests are what the caller makes them.
pretend() {
    mkdir -p "$T/pretend"/{bin/test,test,tree/test/data}
    cp test/tools/gpu-check "$T/pretend/test/"
    for program in bin/st-read bin/test/libraries; do write_script "$T/pretend/$program" true; done
    gpus 0
    check=(env PATH="$T/pretend:$PATH" "$T/pretend/test/gpu-check" "$T/pretend/tree")
}

# gpus N: nvidia-smi finds N.
gpus() {
    write_script "$T/pretend/nvidia-smi" "[ \"\$1\" != -L ] || seq -f 'GPU %g: pretended' $1"
}

@test "gpu-check: says what is there, and skips, counted, what has no data" {
    run "$DIST/test/gpu-check" "$T"
    [ "$status" -eq 0 ]
    [[ $output == *'# glibc: glibc '* ]]
    [[ $output =~ libcublasLt\.so\.13:\ (/|not\ found) ]]
    [[ $output =~ O_DIRECT:\ write\  ]]
    [[ $output =~ ok\ 1\ -\ [a-z0-9_]+\ \#\ SKIP ]]
    [[ $output =~ \#\ 0\ passed,\ 0\ failed,\ [1-9][0-9]*\ skipped$ ]]
}

@test "gpu-check: tests are numbered through, and run in the tree" {
    pretend
    write_script "$T/pretend/bin/test/a" 'echo 1..2' 'echo "ok 1 - one"' 'echo "not ok 2 # SKIP two"'
    write_script "$T/pretend/bin/test/b" 'echo 1..1' 'printf "ok 1 - " && ls test' 'echo "error 5"'
    run "${check[@]}"
    [ "$status" -eq 0 ]
    diff <(grep -v '^#' <<<"$output") - <<'TAP'
ok 1 - a: one
ok 2 - a: two # SKIP 
ok 3 - b: data
ok 4 - amax-calib: a GPU finds what the CPU finds # SKIP GPUs: 0, needs 1
ok 5 - st-eval: losses on a GPU are those on the CPU # SKIP GPUs: 0, needs 1
ok 6 - amax-calib: two GPUs find what one finds # SKIP GPUs: 0, needs 2
ok 7 - amax-calib: the same through cuFile # SKIP no libcufile.so.0
ok 8 - amax-calib: a GPU finds what the CPU finds, V3.2 # SKIP GPUs: 0, needs 1
ok 9 - st-eval: losses on a GPU are those on the CPU, V3.2 # SKIP GPUs: 0, needs 1
1..9
TAP
    [[ $output == *'# b: error 5'*'# 2 passed, 0 failed, 7 skipped' ]]
}

@test "gpu-check: a test that fails, and programs that die, fail it" {
    for ending in 'echo not ok 1 - one' 'echo ok 1 - one; exit 1' "kill -9 \$\$" 'exit 0'; do
        pretend
        write_script "$T/pretend/bin/test/a" "$ending"
        run "${check[@]}"
        [ "$status" -eq 1 ]
        [[ $output == *'not ok '* ]]
        [[ $output == *' 1 failed, 6 skipped' ]]
    done
}

# The CPU stands in for two GPUs: it has the programs' --device from this one.
@test "gpu-check: whole programs, on two GPUs; results that are off fail" {
    pretend
    gpus 2
    cp -rL test/data "$T/pretend/tree/test/"
    # shellcheck disable=SC2016 # for the stand-ins
    for program in amax-calib st-eval; do
        write_script "$T/pretend/bin/$program" \
            'for word; do shift; case $word in cpu | cuda | --device) ;; *) set -- "$@" "$word" ;; esac; done' \
            "exec '$PWD/$BIN/$program' -j 1 \"\$@\""
    done
    cp "$BIN/st-stat" "$T/pretend/bin/"
    run "${check[@]}"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'not a bit differs'*'ok 3 - amax-calib: two GPUs'*'not a bit differs'*'ok 5 - '*'V3.2'*'ok 6 - '*'V3.2'*'# 5 passed, 0 failed, 1 skipped' ]]

    # shellcheck disable=SC2016
    write_script "$T/pretend/bin/amax-calib" \
        'for word; do shift; [ "$word" = cuda ] && more=--all-experts; case $word in cpu | cuda | --device) ;; *) set -- "$@" "$word" ;; esac; done' \
        "exec '$PWD/$BIN/amax-calib' -j 1 \$more \"\$@\""
    run "${check[@]}"
    echo "$output"
    [ "$status" -eq 1 ]
    [[ $output == *'not ok 1 - amax-calib: a GPU'*'ok 2 - '* ]]
}
