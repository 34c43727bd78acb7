# Shared by the pipelines that quantize a checkpoint, which source it: options, the calibration, and the steps. A
# pipeline says in arrays
#     recipe     --recipe NAME for all stages, or nothing: their default
#     selection  that, and other options that select matrices, for amax-merge
#     policies   options of amax-merge about the values of amaxes
#     record     options of amax-calib about what else to record
#     convert    the command that quantizes the stream on standard input; takes -n and -q
# and in
#     converter  what to call that when it failed
#     drafts_too not empty: drafts are calibrated, too, where they have a forward pass

. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/seekpipe.bash"
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/estimate.bash" # calib and eval, too

amax='' samples='' length='' eval_samples='' eval_length='' all_experts=() save_amax='' device=''
fallback='' field=() input_scale='' jobs=1 summary='' mtp=() report=() headroom=() record=()
recipe=() selection=() policies=() convert=() converter='' drafts_too='' keep_every=() no_keep=() prompts=()

# What arrange takes for conversion_option.
own_letters=j:
conversion_options=amax:,calib:,field:,samples:,length:,all-experts,save-amax:,device:,eval:,fallback:,input-scale:
conversion_options+=,eval-length:,eval-samples:,generate:,jobs:,keep-every:,no-keep,recipe:,summary:

# conversion_option OPTION NEXT: one that every such pipeline has; $taken: how many words after it are its value.
conversion_option() {
    taken=1
    case $1 in
    --amax) file_name "$1" "$2"; amax=$2 ;;
    --calib) file_name "$1" "$2"; calib+=("$2") ;;
    --field) [[ $2 =~ ^[^+] ]] || usage_error "$1: '$2' names no field"; field=(--field "$2") ;;
    --samples)
        [[ $2 =~ ^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$ ]] || usage_error "$1: '$2' is not a list of numbers from 1"
        samples=$2 ;;
    --length) number "$1" "$2" 2 2147483647; length=$2 ;;
    --save-amax) output_file "$1" "$2"; save_amax=$2 ;;
    --device) choice "$1" "$2" cpu cuda; device=$2 ;;
    --eval) file_name "$1" "$2"; eval=$2 ;;
    --eval-samples) number "$1" "$2" 1 999999999; eval_samples=$2 ;;
    --eval-length) number "$1" "$2" 2 2147483647; eval_length=$2 ;;
    --generate)
        [ -n "$2" ] || usage_error "$1: no text to continue"
        printf '%s' "$2" | iconv -f UTF-8 -t UTF-8 &>/dev/null || usage_error "$1: wanted text in UTF-8"
        prompts+=("$2") ;;
    --fallback) choice "$1" "$2" layer-max projection-max none; fallback=$2 ;;
    --input-scale)
        headroom=() input_scale=''
        case $2 in
        calib) return ;;
        headroom) headroom=(--headroom); return ;;
        esac
        [[ $2 =~ ^[0-9]*\.?[0-9]*([eE][-+]?[0-9]+)?$ && ${2%[eE]*} =~ [1-9] ]] ||
            usage_error "$1: '$2' is not calib, headroom or a number above 0"
        input_scale=$2 ;;
    -j | --jobs) number "$1" "$2" 1 999; jobs=$2 ;;
    --keep-every) number "$1" "$2" 1 999999999; keep_every=(--keep-every "$2") ;;
    --no-keep) taken=0 no_keep=(--no-keep) ;;
    --recipe) file_name "$1" "$2"; recipe=(--recipe "$2") ;;
    --summary) output_file "$1" "$2"; summary=$2 ;;
    --all-experts) taken=0 all_experts=(--all-experts) ;;
    *) common_option "$@" ;;
    esac
}

# conversion_operands "$@": source and destination; and what does not go together.
conversion_operands() {
    local folder
    while [ -n "${calib[*]}" ] && [ $# -gt 2 ]; do # --calib texts/*.jsonl source destination
        operand --calib "$1"
        calib+=("$operand")
        shift
    done
    [ $# -eq 2 ] || usage_error "a source and a destination are needed"
    operand source "$1"
    source=$operand
    operand destination "$2"
    destination=$operand
    case ${amax:+a}${calib:+c}${input_scale:+i} in
    a | c | i) ;;
    '') usage_error "how large do activations get? --calib TEXT finds out by running the model; --amax AMAX takes a \
calibration, or an NVFP4 checkpoint of this model; --input-scale 1 does without" ;;
    *) usage_error "--amax, --calib and --input-scale exclude each other" ;;
    esac
    [ -n "${calib[*]}" ] || [ -z "${keep_every[*]}${no_keep[*]}" ] ||
        usage_error "--keep-every and --no-keep are for a calibration that is made here, with --calib"
    [ -z "${keep_every[*]}" ] || [ -z "${no_keep[*]}" ] || usage_error "--keep-every and --no-keep exclude each other"
    [ -n "${calib[*]}$eval" ] || [ -z "${field[*]}$samples$length" ] ||
        usage_error "--field, --samples and --length are for running the model on a text, with --calib or --eval"
    [ -n "$eval" ] || [ -z "$eval_samples$eval_length" ] ||
        usage_error "--eval-samples and --eval-length are for --eval"
    [ -n "${calib[*]}$eval${prompts[*]}" ] || [ -z "$device" ] ||
        usage_error "--device is for running the model, with --calib, --eval or --generate"
    [ -z "$save_amax" ] || [ "$save_amax" != "$summary" ] || usage_error "--save-amax and --summary name the same file"
    find_source "$source"
    [ -z "$save_amax" ] || apart --save-amax "$save_amax"
    [ -z "$summary" ] || apart --summary "$summary"
    [ -z "${plan[*]}" ] || summary=''
    samples=${samples:-128} length=${length:-512} device=${device:-cpu}
    eval_samples=${eval_samples:-${samples##*,}} eval_length=${eval_length:-$length}
    kept=${destination%"${destination##*[!/]}"}.calib # what a killed run leaves to the next one
    folder_of "$kept"
    [ -w "$folder" ] || [ ! -d "$destination" ] || kept=$destination/.calib # as where the destination is a mount point
}

# apart OPTION NAME: an output must not be a file that the run reads, nor be in the way of the checkpoint.
apart() {
    local path other
    path=$(readlink -mn -- "$2" && echo /) # so that a newline at its end stays
    for other in "$source" "$source"/* "${calib[@]}" "$eval" "$amax" "$amax"/*.{pt,json,safetensors}; do
        [ ! -f "$2" ] || [[ ! $2 -ef $other ]] || usage_error "$1: $2 is read; name another file"
    done
    [[ $path != "$(readlink -mn -- "$source" && echo /)"* ]] ||
        usage_error "$1: $2 is in the source's folder; name a file elsewhere"
    for other in '' .partial .calib .log .replaced; do
        other=$(readlink -mn -- "${destination%"${destination##*[!/]}"}$other" && echo /)
        [[ $path != "$other"* ]] || usage_error "$1: $2 is where the checkpoint is made; name a file elsewhere"
    done
}

# refuse_types PIPELINE TYPE...: a source of one of these model types is for that pipeline, whose recipes differ.
refuse_types() {
    local type
    type=$(config_value "$source" model_type '"[^"]*"')
    type=${type//\"/}
    [[ " ${*:2} " != *" $type "* ]] || [ -z "$type" ] || {
        tell "$program: $source: its model_type is $type, which $1 converts"
        exit 1
    }
}

# conversion_begin: make $scratch, in which amax.ts will be. What is not a pipeline's first stage reads $weights: a
# source that ends in zeros through st-read, too; its table alone, where no more is looked at.
conversion_begin() {
    local headers=()
    make_scratch
    trap end_conversion EXIT
    begin_status "${destination%"${destination##*[!/]}"}.log" "$source"/* "${calib[@]}" "$eval" "$amax" \
        "$amax"/*.{pt,json,safetensors} "${recipe[@]:1}"
    source_bytes=$(bytes_of "$source")
    plan_steps
    step checks
    weights=$source
    [ -n "${zeros[*]}" ] || return 0
    weights=$scratch/source.ts
    [ -n "${calib[*]}$eval${prompts[*]}" ] || headers=("${plan[@]}")
    quietly st-read "${headers[@]}" "${zeros[@]}" -o "$weights" "$source" || blame $? st-read
}

# plan_steps: what st-status is to expect. Running the model takes as long as there are tokens, the rest as there are
# bytes.
plan_steps() {
    local steps=(checks) calib_bytes eval_bytes
    [ -n "$showing" ] || return 0
    calib_bytes=$(stat -c %s -- "$scratch/calib.ts" 2>/dev/null) || :
    eval_bytes=$(stat -c %s -- "$scratch/eval.ts" 2>/dev/null) || :
    [ -z "${calib[*]}" ] || steps+=("calibration:model:$calib_bytes")
    [ -z "$eval" ] || steps+=({"evaluation of the source","evaluation of the result"}":model:$eval_bytes")
    [ -z "${prompts[*]}" ] || steps+=('texts of both')
    announce "${steps[@]}" "weights:copy:$source_bytes:$((source_bytes / COPIED_A_SECOND + 1))" verdicts
}

end_conversion() {
    end_status
    rm -rf "$scratch"
    # Nothing was kept; unless amax-calib is at work there for another run, or it is another user's.
    [ ! -O "$kept" ] || flock -n "$kept" rmdir "$kept" 2>/dev/null || :
}

# json_text TEXT: as a string in JSON.
json_text() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    text=${text//$'\t'/\\t}
    printf '"%s"' "${text//[[:cntrl:]]/?}"
}

# tokenize RESULT SAMPLES LENGTH TEXT...: by the checkpoint's own tokenizer.
tokenize() {
    quietly st-tokenize "${talk[@]:--v}" --tokenizer "$source" --length "$3" --samples "$2" \
        "${field[@]}" -o "$1" -- "${@:4}" || blame $? st-tokenize
}

# merge_amaxes OPTION...: with what all runs of amax-merge have.
merge_amaxes() {
    quietly amax-merge "${talk[@]}" --model "$weights" "${selection[@]}" ${summary:+--summary "$summary"} \
        -o "$scratch/amax.ts" "$@"
}

# merge CALIBRATION [-n]: merge its ranks, let fused matrices share, fill in experts never reached. An existing
# calibration that lacks many experts may be another model's; they are filled in only if the user named a --fallback.
# A calibration that is made here is of this model.
merge() {
    local dumps=("$1"/*.pt) options=("${@:2}" "${policies[@]}" "${headroom[@]}" --fallback "${fallback:-layer-max}")
    [ -z "$amax" ] || [ -n "${calib[*]}" ] || [ -n "$fallback" ] || options+=(--coverage 90)
    if [[ $1 = *.pt || -e ${dumps[0]} ]]; then
        pt-read -- "$1" | merge_amaxes "${options[@]}" || blame "${PIPESTATUS[*]}" pt-read amax-merge
    else
        merge_amaxes "${options[@]}" -- "$1" || blame $? amax-merge
    fi
}

# write_part I/N: one part of the weights, for st-write --join.
write_part() {
    resume_part "$1" "$destination"
    st-read --part "$1" "${zeros[@]}" "${part[@]}" "$source" |
        "${convert[@]}" -q |
        quietly st-write -q "${overwrite[@]}" "${verify[@]}" --part "$destination" ||
        blame "${PIPESTATUS[*]}" {st-read,"$converter",st-write}" of part $1"
}

# own_folder FOLDER: make it if it is not there. Another user could have left anything in it.
own_folder() {
    local probe owners
    mkdir -p -- "$1"
    probe=$(mktemp -- "$1/source-XXXXXX.partial")
    owners=$(stat -c %u -- "$1" "$probe" | uniq | wc -l)
    rm -f -- "$probe"
    [ "$owners" = 1 ] || {
        tell "$program: $1: belongs to another user; move or remove it, or choose another destination"
        exit 1
    }
}

# unmade FILE: an output that was asked for cannot come from a run with nothing to do.
unmade() {
    tell "$program: $1: was not written, as $destination is complete already; amax-calib and amax-merge write it \
alone, or --overwrite"
    exit 1
}

# convert_checkpoint: all of it.
convert_checkpoint() {
    local begin=$EPOCHREALTIME
    get_calibration
    plan_steps
    make_plan
    if [ -n "${plan[*]}" ]; then
        [ "$last" != st-write ] || estimate "$begin" "$source" "$destination" "${convert[@]}"
        return 0
    fi
    if complete_already "$(<"$scratch/plan")"; then
        for file in "$save_amax" ${calib[0]:+"$summary"}; do
            [ -z "$file" ] || [ -e "$file" ] || unmade "$file"
        done
        [ -z "$eval" ] || tell "$program: --eval was not done again; st-eval does it alone"
        [ -z "${prompts[*]}" ] || tell "$program: --generate was not done; st-eval --generate does it alone"
        return 0
    fi
    note_destination "$destination"
    tell_status '{"log":true}'
    [ -z "${calib[*]}" ] || calibrate
    [ -z "$eval" ] || evaluate
    [ -z "${prompts[*]}" ] || { step 'texts of both' && generate; }
    report+=(--report "$scratch/report")
    [ -n "$input_scale" ] || report+=(--amax "$scratch/amax.ts")
    print_steps >>"$scratch/report"
    step weights "$source_bytes"
    write_weights
    step verdicts
    verify_result "$destination" "$source" # what serving engines make of it
    # Nothing is left to do for which anything was kept.
    rm -f "$kept"/source-????????????????.ts{,.*.partial}
    [ -z "${calib[*]}" ] || amax-calib --resume "$kept" --resume-discard || blame $? amax-calib
    closing_summary "$source" "$destination" || : # that TMPDIR is full changes nothing
    [ -z "$eval" ] || [ -n "${json[*]}" ] || print_results "$destination" 'what --eval found' "$results"
}

# Texts to tokens. Amaxes that are there, or no calibration.
get_calibration() {
    [ -z "${calib[*]}" ] || tokenize "$scratch/calib.ts" "$samples" "$length" "${calib[@]}"
    [ -z "$eval" ] || tokenize "$scratch/eval.ts" "$eval_samples" "$eval_length" "$eval"
    [ -z "$amax" ] || merge "$amax"
    [ -z "$input_scale" ] || merge_amaxes --input-scale "$input_scale" || blame $? amax-merge
}

# The plan, which fails early where the work would fail, and tells whether all is done.
make_plan() {
    choose_last "$destination"
    if [ -n "${calib[*]}" ]; then
        keeps=("${keep_every[@]}" "${no_keep[@]}")
        [ -n "${overwrite[*]}" ] || [ "$(state_of "$destination")" != complete ] ||
            keeps=(--no-keep) # no calibration is to come, and needs no room
        plan_calib=(quietly amax-calib -n "${talk[@]}" "${all_experts[@]}" "${headroom[@]}" "${recipe[@]}"
            --device "$device" --tokens "$scratch/calib.ts" --resume "$kept" --resume-keep "${keeps[@]}"
            -o "$scratch/plan.ts")
        # Drafts that are cast are calibrated, too, where they have a forward pass.
        if [ -n "$drafts_too" ] && SEEKPIPE_STATUS='' "${plan_calib[@]}" --mtp "$weights" 2>"$scratch/said"; then
            mtp=(--mtp)
            [ ! -s "$scratch/said" ] || tell "$(<"$scratch/said")"
        else
            "${plan_calib[@]}" "$weights" || blame $? amax-calib
        fi
        merge "$scratch/plan.ts" -n
    fi
    judge=(quietly st-eval --device "$device" --tokens "$scratch/eval.ts")
    if [ -n "$eval" ]; then
        "${judge[@]}" -n "$weights" || blame $? st-eval
        st-read -n "${zeros[@]}" "$source" |
            "${convert[@]}" -n |
            "${judge[@]}" -n ||
            blame "${PIPESTATUS[*]}" st-read "$converter" st-eval
    fi
    [ -z "${prompts[*]}" ] || plan_generate
    : >"$scratch/plan"
    [ "$jobs" = 1 ] || split=(--part)
    if [ "$last" = st-write ]; then
        st-read -n "${zeros[@]}" "$source" |
            "${convert[@]}" -n |
            plan_write "$destination" "$scratch/plan" "${split[@]}" ||
            blame "${PIPESTATUS[*]}" st-read "$converter" st-write
    fi
    if [ "$jobs" != 1 ] && [ "$(st-write --state "$destination")" = partial ]; then # were they as many parts?
        st-read -n --part "1/$jobs" "${zeros[@]}" "$source" |
            "${convert[@]}" -q -n |
            quietly st-write -n "${overwrite[@]}" --part "$destination" >/dev/null ||
            blame "${PIPESTATUS[*]}" st-read "$converter" st-write
    fi
}

# What generate would refuse.
plan_generate() {
    local prompt writes=(quietly st-eval -n --device "$device")
    st-read -n "${zeros[@]}" "$source" | "${convert[@]}" -q -n >"$scratch/written.ts" ||
        blame "${PIPESTATUS[*]}" st-read "$converter"
    for prompt in "${prompts[@]}"; do
        "${writes[@]}" --generate "$prompt" "$weights" || blame $? st-eval
        "${writes[@]}" --generate "$prompt" "$scratch/written.ts" || blame $? st-eval
    done
    rm -f "$scratch/written.ts"
}

# A calibration of our own: the model runs on the text, expert by expert. The result is kept until the weights are
# written.
calibrate() {
    step calibration "$source_bytes"
    amax=${save_amax:-$scratch/calib-amax.ts}
    [ -z "${record[*]}" ] || own_folder "$kept"
    quietly amax-calib "${talk[@]}" "${all_experts[@]}" "${headroom[@]}" "${record[@]}" "${recipe[@]}" "${mtp[@]}" \
        --device "$device" --tokens "$scratch/calib.ts" --resume "$kept" --resume-keep "${keep_every[@]}" \
        "${no_keep[@]}" -o "$amax" "$weights" || blame $? amax-calib
    merge "$amax"
}

# How well source and result predict a text, each with its serving arithmetic. The source's predictions are kept
# until the weights are written, under a name that tells source, text and device.
evaluate() {
    judge+=("${talk[@]}")
    local lines name
    name=$(printf '%s' "${eval##*/}" | iconv -cf UTF-8 -t UTF-8) || : # of a name in another encoding, what is UTF-8
    name=${name//[[:cntrl:]]/?}
    digest=$({ st-read -n "${zeros[@]}" "$source" && cat "$scratch/eval.ts" && echo "$device"; } | sha256sum)
    before=$kept/source-${digest:0:16}.ts
    own_folder "$kept"
    if [ -e "$before" ]; then
        step 'evaluation of the source'
        quietly st-sum -o /dev/null "$before" || blame $? st-sum
    else
        step 'evaluation of the source' "$source_bytes"
        "${judge[@]}" --save "$before" -o /dev/null "$weights" || blame $? st-eval
    fi
    step 'evaluation of the result' "$source_bytes"
    st-read "${zeros[@]}" "$source" |
        "${convert[@]}" |
        "${judge[@]}" --save "$scratch/result.ts" -o /dev/null ||
        blame "${PIPESTATUS[*]}" st-read "$converter" st-eval
    quietly st-eval --compare -v -o "$scratch/both" "$before" "$scratch/result.ts" || blame $? st-eval
    quietly st-eval --compare -v --json -o "$scratch/quality" "$before" "$scratch/result.ts" || blame $? st-eval
    printf '{"evaluation": %s, "text": %s}\n' "$(<"$scratch/quality")" "$(json_text "$name")" >>"$scratch/report"
    mapfile -t lines <"$scratch/both"
    results=$(printf 'source: %s\nresult: %s\nresult against source: %s' "${lines[@]}")
    printf 'text: %s\n%s\n' "$name" "$results" >"$scratch/measured"
    report+=(--measured "$scratch/measured") # for README.md
}

# What source and result write, for the report. st-eval reads the weights once per token: the result's, of which only
# what is new takes space, are in a file.
generate() {
    local prompt writes=(quietly st-eval "${talk[@]}" --device "$device" --json) before after
    st-read "${zeros[@]}" "$source" | "${convert[@]}" >"$scratch/written.ts" ||
        blame "${PIPESTATUS[*]}" st-read "$converter"
    for prompt in "${prompts[@]}"; do
        before=$("${writes[@]}" --generate "$prompt" "$weights") || blame $? st-eval
        after=$("${writes[@]}" --generate "$prompt" "$scratch/written.ts") || blame $? st-eval
        printf '{"prompt": %s, "source": %s, "result": %s}\n' "$(json_text "$prompt")" "$before" "$after" \
            >>"$scratch/report"
    done
    rm -f "$scratch/written.ts"
}

# The weights, to disk. Until here, nothing was put in place.
write_weights() {
    if [ "$jobs" = 1 ] || [ "$last" = st-cmp ]; then
        resume "$destination"
        st-read "${zeros[@]}" "${part[@]}" "$source" |
            "${convert[@]}" |
            put "$destination" "${report[@]}" ||
            blame "${PIPESTATUS[*]}" st-read "$converter" "$last"
    else
        in_parts "$jobs" write_part
        print_steps | tail -n 1 >>"$scratch/report"
        quietly st-write -q --json "${overwrite[@]}" "${report[@]}" --join "$destination" >"$scratch/written" ||
            blame $? 'st-write --join'
        [ -z "${verify[*]}" ] || [ "${talk[*]}" = -q ] || tell "$program: verified: each part read its shards again"
    fi
}
