# What v3-bf16 and v4-bf16, which source it, have in common: all but their usage.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/seekpipe.bash"
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/estimate.bash"

# to_bf16 SOURCE DESTINATION: everything quantized to BF16.
to_bf16() {
    local found bytes begin=$EPOCHREALTIME
    choose_last "$2"
    if [ -z "${plan[*]}${overwrite[*]}" ] && [ "$last" = st-write ] && [ "$(state_of "$2")" = complete ]; then
        found=$("$BASH" "$0" -n "${zeros[@]}" "$1" "$2") || exit
        ! complete_already "$found" || exit 0
    fi
    note_destination "$2"
    make_scratch
    trap 'end_status; rm -rf "$scratch"' EXIT
    begin_status "${2%"${2##*[!/]}"}.log" "$1"/*
    bytes=$(bytes_of "$1")
    announce "weights:copy:$bytes:$((bytes / COPIED_A_SECOND + 1))"
    tell_status '{"log":true}'
    step weights
    resume "$2"
    st-read "${plan[@]}" "${zeros[@]}" "${part[@]}" "$1" |
        fp8-dequant "${plan[@]}" |
        mxfp4-unpack "${plan[@]}" |
        nvfp4-unpack "${plan[@]}" |
        put "$2" ||
        blame "${PIPESTATUS[*]}" st-read {fp8-dequant,mxfp4-unpack,nvfp4-unpack} "$last"
    if [ -n "${plan[*]}" ]; then
        estimate "$begin" "$1" "$2" dequantize
    else
        closing_summary "$1" "$2" || :
    fi
}

# dequantize OPTION...: the same stages, for estimate.
dequantize() {
    fp8-dequant "$@" | mxfp4-unpack "$@" | nvfp4-unpack "$@"
}

# bf16_main "$@": the whole script, but for its usage.
bf16_main() {
    arrange '' "$@"
    eval "set -- $arranged"
    while [ "$1" != -- ]; do
        common_option "$@"
        shift $((taken + 1))
    done
    shift
    [ $# -eq 2 ] || usage_error "a source and a destination are needed"
    operand source "$1"
    source=$operand
    operand destination "$2"
    find_source "$source"
    to_bf16 "$source" "$operand"
}
