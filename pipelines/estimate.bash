# What a run of a pipeline will take: measured by some seconds of it, for --dry-run. Sourced by pipelines.
# shellcheck disable=SC2154 # the variables of seekpipe.bash and quantize.bash

# Texts on which the model runs, and what it continues, if any, by that many tokens; --part if it is for --jobs.
calib=() eval='' prompts=() split=()
appended=64

# estimate BEGIN SOURCE DESTINATION COMMAND...: how long a run takes whose checks began at BEGIN, and which converts by
# COMMAND: the checks take as long in the run; some seconds of what is converted are written, of layers in the middle;
# and some samples run through some layers of the model. Nothing is left of either. Says nothing if that fails, or for -q.
estimate() {
    local planned=$EPOCHREALTIME layers speed made calibrating='0 0 0' evaluating='0 0 0' continuing='0 0' convert_all=("${@:4}")
    [ "${talk[*]}" != -q ] && [ -f "$2/config.json" ] && [ "$(state_of "$3")" != complete ] || return 0
    layers=$(config_number "$2" num_hidden_layers 0)
    made=$(st-read -n "${zeros[@]}" "$2" | "${@:4}" -q -n | st-write -n --json "${overwrite[@]}" "${split[@]}" "$3" |
        sed -n 's/^  "file_bytes": \([0-9]*\),$/\1/p') || return 0
    [ -z "${calib[*]}" ] || convert_all=(cat) # the amaxes are not known yet; they make little difference
    speed=$(speed_of "$2" "$3" "${convert_all[@]}")
    [ -z "${calib[*]}" ] || calibrating=$(model_speed amax-calib "$2" calib) || return 0
    [ -z "$eval" ] || evaluating=$(model_speed st-eval "$2" eval) || return 0
    [ -z "${prompts[*]}" ] || continuing=$(text_speed "$2") || return 0
    awk -v begin="$1" -v planned="$planned" -v speed="$speed" -v made="${made:-0}" -v layers="$layers" \
        -v calib="$(tokens_in calib) $calibrating" -v eval="$(tokens_in eval) $evaluating" \
        -v texts="${#prompts[@]} $continuing" -v appended=$appended -v cached="$(fits_memory "$2")" \
        -v verify="${verify[*]}" -v row="$((2 * $(config_number "$2" hidden_size 0) * $(config_number "$2" hc_mult 1)))" "$estimating"
}

# shellcheck disable=SC2016 # of awk
estimating='
    function text(s) {
        if (s < 60) return sprintf("%.1fs", s)
        if (s < 3600) return sprintf("%dm%02ds", s / 60, s % 60)
        return sprintf("%dh%02dm", s / 3600, s % 3600 / 60)
    }
    # Of one pass over all layers, each read while the one before it runs.
    function pass(read, compute) {
        seconds = layers * (compute > read ? compute : read)
        if (compute > read) computed += seconds
        else waited += seconds
        return seconds
    }
    # TOKENS, of which a layer is read in READ, and runs in FIXED and TOKEN for each.
    function run(line,    of) {
        split(line, of, " ")
        return of[1] ? pass(of[2], of[3] + of[1] * of[4]) : 0
    }
    # TEXTS, READ, and what a layer takes for each token that is appended: its weights are read again, of source and
    # result, from the disk unless they stay in memory.
    function continued(line,    of) {
        split(line, of, " ")
        return of[1] ? of[1] * 2 * appended * pass(cached ? 0 : of[2], of[3]) : 0
    }
    BEGIN {
        if (split(speed, s, " ") != 3 || s[1] <= 0) exit
        checks = planned - begin
        weights = made * s[2] / s[1] + checks # its stages start as those of the checks do
        if (verify) verification = made * (s[2] - s[3]) / s[1] # reads source and result, as writing moves both
        calibration = run(calib)
        evaluation = 2 * run(eval)
        generation = continued(texts)
        model = calibration + evaluation + generation
        bound = s[3] > s[2] / 2 ? "the conversion" : "the disk"
        if (model > weights + verification) bound = computed > waited ? "the model" : "reading"
        states = (calib + 0 > eval + 0 ? calib : eval) * row # their first numbers
        memory = model ? "4 GiB for weights" : "256 MiB a stage"
        if (states)
            memory = memory (states < 1e9 ? sprintf(", and %.1f MB", states / 1e6) : sprintf(", and %.1f GB", states / 1e9)) \
                " of hidden states"
        if (calibration) parts = parts ", calibration " text(calibration)
        if (evaluation) parts = parts ", evaluation " text(evaluation)
        if (generation) parts = parts ", texts of both " text(generation)
        if (verify) again = ", reading them again " text(verification)
        printf "time  about %s, bound by %s\n", text(checks + model + weights + verification), bound
        printf "      checks %s%s, weights %s at %.0f MB/s%s\n", text(checks), parts, text(weights), s[1] / s[2] / 1e6, again
        printf "memory at most %s\n", memory
    }'

# config_number SOURCE KEY [DEFAULT]: the first one of that name in config.json.
config_number() {
    local found
    found=$(config_value "$1" "$2" '[0-9][0-9]*')
    echo "${found:-${3-}}"
}

# speed_of SOURCE DESTINATION COMMAND...: bytes, seconds, and seconds of waiting.
speed_of() {
    local folder
    folder_of "$2"
    { st-read "${zeros[@]}" ${layers:+--layers "$((layers / 2))-$((layers - 1))"} "$1" | "${@:3}" |
        st-speed --json "$folder" | sed -E 's/[{}]|"[a-z]+"://g; s/,/ /g'; } 2>/dev/null || :
}

# fits_memory SOURCE: 1 if its shards, and as much again for the result, can stay in the page cache; else 0.
fits_memory() {
    awk -v bytes="$(bytes_of "$1")" '/^MemAvailable:/ { room = $2 * 1024 } END { print (2 * bytes < room) + 0 }' /proc/meminfo
}

# samples_in NAME: how many are in $scratch/NAME.ts, and how long they are, with what fills up short ones.
samples_in() {
    st-ls --tsv "$scratch/$1.ts" | awk '$1 == "input_ids" { gsub(/[^0-9]/, " ", $3); print $3 }'
}

# tokens_in NAME: of all these; 0 if it is not there.
tokens_in() {
    local all=0 each=0
    [ ! -f "$scratch/$1.ts" ] || read -r all each < <(samples_in "$1")
    echo $((all * each))
}

# model_speed PROGRAM SOURCE NAME: seconds that a layer takes to be read, to run on few of the tokens in
# $scratch/NAME.ts, and besides for each token: on more and more of them, for some seconds.
model_speed() {
    local all each samples took times=() end=$((SECONDS + 2))
    read -r all each < <(samples_in "$3")
    for samples in 2 8 32 128 512; do
        samples=$((samples < all ? samples : all))
        took=$(layer_times "$1" "$2" "$scratch/$3.ts" --samples "$samples") || return
        times+=("$((samples * each)) $took")
        ((samples < all && SECONDS < end)) || break
    done
    printf '%s\n' "${times[@]}" | awk '{ tokens[NR] = $1; time[NR] = $3 } NR == 1 { read = $2 } END {
        token = NR > 1 ? (time[NR] - time[1]) / (tokens[NR] - tokens[1]) : 0
        if (token <= 0) token = time[NR] / tokens[NR]
        fixed = time[1] - token * tokens[1]
        print read, (fixed > 0 ? fixed : 0), token
    }'
}

# text_speed SOURCE: seconds that a layer takes to be read, and to run on as many tokens as a text of --generate has on the
# average, about.
text_speed() {
    { yes -- "${prompts[0]}" || :; } | head -c 1M | sed '$d' >"$scratch/prompt.txt" # it ends within a character, perhaps
    st-tokenize -q --tokenizer "$1" --length "$((appended / 2))" --samples 1 -o "$scratch/prompt.ts" "$scratch/prompt.txt"
    layer_times st-eval "$1" "$scratch/prompt.ts"
}

# layer_times PROGRAM SOURCE TOKENS [OPTION...]: seconds that a layer is read and is computed, with these: the mean of the
# first ones with experts, up to four of 4 GB, as layers of one model differ.
layer_times() {
    local first count to=-o
    [ "$1" != st-eval ] || to=--states-out # of layers that are not the last, it gives nothing else
    first=$(config_number "$2" first_k_dense_replace 0)
    count=$(awk -v bytes="$(bytes_of "$2")" -v layers="$layers" -v first="$first" 'BEGIN {
        count = bytes ? int(4e9 / (bytes / layers)) : 1
        if (count > layers - first) count = layers - first
        print (count < 1 ? 1 : count > 4 ? 4 : count)
    }')
    "$1" -v --device "$device" --tokens "$3" "${@:4}" "$to" /dev/null --layers "0-$((first + count - 1))" "$weights" 2>&1 |
        awk -v first="$first" '$2 ~ /layers\.[0-9]+\.$/ && $3 + 0 == $3 {
            number = split($2, part, ".")
            if (part[number - 1] < first) next
            read += $6
            compute += $10
            count++
        } END { if (!count) exit 1; print read / count, compute / count }'
}
