# What a run of a pipeline will take: measured by some seconds of it, for --dry-run. Sourced by pipelines.
# shellcheck disable=SC2154 # the variables of seekpipe.bash and quantize.bash

# Texts on which the model runs, and what it continues, if any.
calib=() eval='' prompts=()

# estimate BEGIN SOURCE DESTINATION COMMAND...: how long a run takes whose checks began at BEGIN, and which converts by
# COMMAND: the checks take as long in the run; some seconds of what is converted are written, of layers in the middle;
# and some samples run through one layer of the model. Nothing is left of either. Says nothing if that fails, or for -q.
estimate() {
    local planned=$EPOCHREALTIME layers speed made model=() convert_all=("${@:4}")
    [ "${talk[*]}" != -q ] && [ -f "$2/config.json" ] && [ "$(state_of "$3")" != complete ] || return 0
    layers=$(config_number "$2" num_hidden_layers)
    made=$(st-read -n "${zeros[@]}" "$2" | "${@:4}" -q -n | st-write -n --json "${overwrite[@]}" "$3" |
        sed -n 's/^  "file_bytes": \([0-9]*\),$/\1/p') || return 0
    [ -z "${calib[*]}" ] || convert_all=(cat) # the amaxes are not known yet; they make little difference
    speed=$(speed_of "$2" "$3" "${convert_all[@]}")
    [ -z "${calib[*]}$eval${prompts[*]}" ] || mapfile -t model < <(model_speed "$2")
    awk -v begin="$1" -v planned="$planned" -v speed="$speed" -v made="${made:-0}" -v layers="${layers:-0}" \
        -v first="${model[0]-}" -v fixed="${model[1]-}" -v token="${model[2]-}" \
        -v texts="${#prompts[@]}" -v cached="$(fits_memory "$2")" -v calib="$(tokens_in calib)" -v eval="$(tokens_in eval)" \
        -v row="$((2 * $(config_number "$2" hidden_size 0) * $(config_number "$2" hc_mult 1)))" "$estimating"
}

# shellcheck disable=SC2016 # of awk
estimating='
    function text(s) {
        if (s < 60) return sprintf("%.1fs", s)
        if (s < 3600) return sprintf("%dm%02ds", s / 60, s % 60)
        return sprintf("%dh%02dm", s / 3600, s % 3600 / 60)
    }
    # Of one pass over all layers: a layer is read while the one before it runs.
    function computing(tokens) { return tokens ? layers * (fixed + tokens * token) : 0 }
    function run(tokens) { return !tokens ? 0 : computing(tokens) > reading ? computing(tokens) : reading }
    BEGIN {
        APPENDED = 64 # to a text: each of these tokens is a pass, of about as many tokens
        if (split(speed, s, " ") != 3 || s[1] <= 0) exit
        reading = layers * first
        checks = planned - begin
        weights = made * s[2] / s[1] + checks # its stages start as those of the checks do
        passes = texts * 2 * APPENDED
        generate = passes * (cached ? computing(APPENDED) : run(APPENDED))
        model = run(calib) + 2 * run(eval) + generate
        bound = s[3] > s[2] / 2 ? "the conversion" : "the disk"
        if (model > weights) {
            computed = computing(calib) + 2 * computing(eval) + passes * computing(APPENDED)
            bound = computed > ((calib > 0) + 2 * (eval > 0) + (cached ? 0 : passes)) * reading ? "the model" : "reading"
        }
        memory = "256 MiB a stage"
        if (calib) parts = parts ", calibration " text(run(calib))
        if (eval) parts = parts ", evaluation " text(2 * run(eval))
        states = (calib > eval ? calib : eval) * row
        states = states < 1e9 ? sprintf("%.1f MB", states / 1e6) : sprintf("%.1f GB", states / 1e9)
        if (model) memory = "4 GiB for weights, and " states " of hidden states"
        printf "time  about %s, bound by %s\n", text(checks + model + weights), bound
        if (texts) parts = parts ", texts of both " text(generate)
        printf "      checks %s%s, weights %s at %.0f MB/s\n", text(checks), parts, text(weights), s[1] / s[2] / 1e6
        printf "memory at most %s\n", memory
    }'

# config_number SOURCE KEY [DEFAULT]: the first one of that name in config.json.
config_number() {
    local found
    found=$(head -c 1M "$1/config.json" | sed -n 's/.*"'"$2"'" *: *\([0-9][0-9]*\).*/\1/p' | head -n 1) || :
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

# tokens_in NAME: of $scratch/NAME.ts, with those that fill up short samples; 0 if it is not there.
tokens_in() {
    [ ! -f "$scratch/$1.ts" ] || st-ls --tsv "$scratch/$1.ts" | awk '$1 == "input_ids" { print $4 / 4 }'
}

# model_speed SOURCE: seconds that one layer takes to be read and to run on few tokens, that it takes without reading,
# and besides these for each token: with more and more of them, until that takes a second or two. Layers before the
# first one with experts are left out. The texts are those of the run, or a prompt of --generate, again and again.
model_speed() {
    local layer samples took=0 tokens=0 before times=() text=${calib[0]-$eval}
    if [ -z "$text" ]; then
        text=$scratch/prompt.txt
        { yes -- "${prompts[0]}" || :; } | head -c 1M >"$text"
    fi
    layer=$(config_number "$1" first_k_dense_replace 0)
    for samples in 2 2 8 32 128 512; do
        before=$tokens
        st-tokenize -q --tokenizer "$1" --length "$length" --samples "$samples" "${field[@]}" \
            -o "$scratch/some.ts" -- "$text" 2>/dev/null
        tokens=$(tokens_in some)
        [ "$samples" = 2 ] || [ "$tokens" != "$before" ] || break # all of the text
        took=$(layer_time "$scratch/some.ts" "$layer")
        times+=("$took $tokens")
        [ "$samples" = 2 ] || [ "${took%.*}" -lt 1 ] || break
    done
    printf '%s\n' "${times[@]}" | awk '{ time[NR] = $1; tokens[NR] = $2 } END {
        token = tokens[NR] > tokens[2] ? (time[NR] - time[2]) / (tokens[NR] - tokens[2]) : 0
        if (token <= 0) token = time[NR] / tokens[NR]
        fixed = time[2] - token * tokens[2]
        print time[1]
        print (fixed > 0 ? fixed : 0)
        print token
    }'
}

# layer_time TOKENS LAYER: seconds of one layer, without those before it and without the start of the program.
layer_time() {
    local begin=$EPOCHREALTIME middle runs=(amax-calib -q --device "$device" --tokens "$1" -o /dev/null)
    if [ "$2" = 0 ]; then
        "${runs[@]}" -n --layers 0-0 "$weights"
    else
        "${runs[@]}" --layers "0-$(($2 - 1))" "$weights"
    fi
    middle=$EPOCHREALTIME
    "${runs[@]}" --layers "0-$2" "$weights"
    awk -v a="$begin" -v b="$middle" -v c="$EPOCHREALTIME" 'BEGIN { t = (c - b) - (b - a); printf "%.4f\n", (t > 0 ? t : 0) }'
}
