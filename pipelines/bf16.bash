# What v3-bf16 and v4-bf16, which source it, have in common: all but their usage.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/seekpipe.bash"

# to_bf16 SOURCE DESTINATION: everything quantized to BF16.
to_bf16() {
    local found
    choose_last "$2"
    if [ -z "${plan[*]}${overwrite[*]}" ] && [ "$last" = st-write ] && [ "$(st-write --state "$2")" = complete ]; then
        found=$("$BASH" "$0" -n "${zeros[@]}" "$1" "$2") || exit
        ! complete_already "$found" || exit 0
    fi
    resume "$2"
    st-read "${plan[@]}" "${zeros[@]}" "${part[@]}" "$1" |
        fp8-dequant "${plan[@]}" |
        mxfp4-unpack "${plan[@]}" |
        nvfp4-unpack "${plan[@]}" |
        put "$2" ||
        blame "${PIPESTATUS[*]}" st-read {fp8-dequant,mxfp4-unpack,nvfp4-unpack} "$last"
}

# bf16_main "$@": the whole script, but for its usage.
bf16_main() {
    arrange '' "$@"
    eval "set -- $arranged"
    while [ "$1" != -- ]; do
        common_option "$1"
        shift
    done
    shift
    [ $# -eq 2 ] || usage_error "a source and a destination are needed"
    operand source "$1"
    source=$operand
    operand destination "$2"
    find_source "$source"
    to_bf16 "$source" "$operand"
}
