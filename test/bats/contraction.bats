# Products and sums stay apart, whatever the processor that the user's CFLAGS name.

load common

@test "no fused multiply-add in the device's code for a processor that has it" {
    [ "$(uname -m)" = x86_64 ] || skip 'the instructions looked for are those of x86'
    fused='\bvfn?m(add|sub)'
    compile() {
        # shellcheck disable=SC2086 # as in make, "ccache gcc" is two words
        ${CC:-cc} -std=gnu17 -fopenmp -D_GNU_SOURCE -Icommon -O3 -march=haswell "${@:2}" -S -o "$T/s" "$1"
    }
    for file in common/cpu/*.c; do
        compile "$file" -ffp-contract=off
        ! grep -nE "$fused" "$T/s" || { echo "$file" && false; }
    done
    compile common/cpu/rows.c -ffp-contract=fast # they would be found
    grep -qE "$fused" "$T/s"
}
