# What v3-bf16 and v4-bf16, which source it, have in common: all but their usage.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/seekpipe.bash"
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/estimate.bash"

# to_bf16 SOURCE DESTINATION: everything quantized to BF16.
to_bf16() {
    local bytes begin=$EPOCHREALTIME
    choose_last "$2"
    make_scratch
    trap 'end_status; rm -rf "$scratch"' EXIT
    if [ "$last" = st-write ]; then
        st-read -n "${zeros[@]}" "$1" | dequantize -n | plan_write "$2" "$scratch/plan" ||
            blame "${PIPESTATUS[*]}" st-read 'fp8-dequant | mxfp4-unpack | nvfp4-unpack' st-write
    fi
    if [ -n "${plan[*]}" ]; then
        estimate "$begin" "$1" "$2" dequantize
        return
    fi
    [ "$last" != st-write ] || ! complete_already "$(<"$scratch/plan")" || exit 0
    note_destination "$2"
    begin_status "${2%"${2##*[!/]}"}.log" "$1"/*
    bytes=$(bytes_of "$1")
    announce "weights:copy:$bytes:$((bytes / COPIED_A_SECOND + 1))"
    tell_status '{"log":true}'
    step weights
    resume "$2"
    st-read "${zeros[@]}" "${part[@]}" "$1" |
        fp8-dequant |
        mxfp4-unpack |
        nvfp4-unpack |
        put "$2" ||
        blame "${PIPESTATUS[*]}" st-read {fp8-dequant,mxfp4-unpack,nvfp4-unpack} "$last"
    closing_summary "$1" "$2" || :
}

# dequantize OPTION...: the same stages, for a plan, and for estimate.
dequantize() {
    end_with_stages
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
