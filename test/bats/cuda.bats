# CUDA is found, not demanded; and nobody computes on the CPU who asked for a GPU.
load common

# A toolkit whose nvcc knows the GPUs in $1.
toolkit() {
    mkdir -p "$T/cuda/bin" "$T/cuda/include"
    touch "$T/cuda/include/cublasLt.h"
    cat >"$T/cuda/bin/nvcc" <<EOF
#!/bin/sh
case \$1 in
--list-gpu-code) printf '%s\n' $1 ;;
--version) echo 'Cuda compilation tools, release 12.8, V12.8.93' ;;
esac
EOF
    chmod +x "$T/cuda/bin/nvcc"
}

@test "make says which GPUs it builds for: those that nvcc knows" {
    toolkit 'sm_80 sm_90 sm_100 sm_120'
    [ "$(make -s cuda NVCC="$T/cuda/bin/nvcc")" = 'cuda: sm_90 sm_100 sm_120, nvcc 12.8' ]
    toolkit 'sm_80 sm_90 sm_90a'
    [ "$(make -s cuda NVCC="$T/cuda/bin/nvcc")" = 'cuda: sm_90, nvcc 12.8' ]
    # found by $PATH
    [ "$(PATH=$T/cuda/bin:$PATH make -s cuda)" = 'cuda: sm_90, nvcc 12.8' ]
}

@test "make says that there is no CUDA: not wanted, no nvcc, too old, no cuBLASLt" {
    toolkit 'sm_80 sm_90'
    [ "$(make -s cuda CUDA=0 NVCC="$T/cuda/bin/nvcc")" = 'cuda: no' ]
    [ "$(make -s cuda NVCC="$T/nowhere/nvcc")" = 'cuda: no' ]
    [ "$(make -s cuda SANITIZE=1 NVCC="$T/cuda/bin/nvcc")" = 'cuda: no' ]
    toolkit 'sm_60 sm_80'
    [ "$(make -s cuda NVCC="$T/cuda/bin/nvcc")" = 'cuda: no' ]
    toolkit 'sm_80 sm_90'
    rm "$T/cuda/include/cublasLt.h"
    [ "$(make -s cuda NVCC="$T/cuda/bin/nvcc")" = 'cuda: no' ]
}

@test "asking for a GPU that is not there is an error" {
    tokens=../shared/fixtures/v4-nano/golden/calib-ids.safetensors
    [ -f "$tokens" ] || skip 'larger fixture v4-nano is not here'
    ! nvidia-smi -L || skip 'there is a GPU'
    run "$BIN/amax-calib" --device cuda --tokens "$tokens" -o "$T/amax.ts" "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == 'amax-calib: --device cuda: '* ]]
    [ ! -e "$T/amax.ts" ]
    run "$BIN/st-eval" --device gpu --tokens "$tokens" "$NANO"
    [ "$status" -eq 2 ]
}

# ---- CUDA in a library of its own (make CUDA=library) ----

# separate CODE: st-eval as installed without CUDA, and a library beside it, of this C; it is asked for a GPU, and
# fails: $said.
separate() {
    nm -D "$BIN/st-eval" | grep -q ' T device_attended$' || skip 'this build has CUDA inside'
    version=$(st-eval --version)
    library=$T/root/lib/seekpipe/cuda-${version##* }.so
    mkdir -p "$T/root/bin" "${library%/*}"
    cp "$BIN/st-eval" "$T/root/bin/"
    [ -z "$1" ] || ${CC:-cc} -shared -fPIC -x c -o "$library" - <<<"$1"
    ! said=$("$T/root/bin/st-eval" --device cuda --tokens "$GOLDEN/eval-ids.safetensors" "$NANO" 2>&1) || false
    echo "$said"
}

@test "a library of the program's version, beside it, is the CUDA device; it may call the program" {
    separate 'void die(const char *, ...);
        void *gather_nccl;
        void *device_cuda(unsigned gpu, const char **why) { die("GPU %u, as the library says", gpu); return 0; }'
    [ "$said" = 'st-eval: GPU 0, as the library says' ]
}

@test "without the library, with a damaged one, and with one that needs what programs lack: --device cuda is refused" {
    separate ''
    [[ $said == *"this build has no CUDA, and $library is not installed"* ]]
    echo damaged >"$library"
    separate ''
    [[ $said == "st-eval: --device cuda: $library: "* ]]
    separate 'void of_another_version(void); void gather_nccl(void) {} void device_cuda(void) { of_another_version(); }'
    [[ $said == "st-eval: --device cuda: "*'undefined symbol: of_another_version'* ]]
}

@test "programs that run the model export what the library needs" {
    nm -D "$BIN/st-eval" | grep -q ' T device_attended$' || skip 'this build has CUDA inside'
    names=$(sed -n 's/^ *\([a-z_]*\);$/\1/p' cuda/exports | sort)
    [ -n "$names" ]
    for program in st-eval amax-calib; do
        diff <(echo "$names") <(nm -D --defined-only "$BIN/$program" | awk '$2 == "T" { print $3 }' |
            grep -xF "$names" | sort)
    done
}
