# Small inputs that ask for much time or memory.

# shellcheck disable=SC2030,SC2031 # each test is a subshell
load common
load craft

# quick COMMAND...: ends well, within some seconds of a processor's time, however busy the machine is; sanitizers
# take several times as long.
quick() {
    local seconds=10
    [[ $BIN != *sanitize* ]] || seconds=100
    (ulimit -t $seconds && exec timeout 300 "$@") >"$T/out.ts"
}

# empty_pair DTYPE SHAPE SCALE DTYPE SHAPE [MORE [DATA]]: m.weight with a scale, both empty, as $T/a.safetensors.
empty_pair() {
    local rest=${6:+,$6}
    safetensors "$T/a.safetensors" "{\"m.weight\":{\"dtype\":\"$1\",\"shape\":$2,\"data_offsets\":[0,0]}
,\"$3\":{\"dtype\":\"$4\",\"shape\":$5,\"data_offsets\":[0,0]}$rest}" "${7-}"
}

@test "matrices of 2^40 rows or columns and no element pass at once" {
    n=$((1 << 40))
    for shape in "$n,0 $((n / 128)),0" "0,$n 0,$((n / 128))"; do
        read -r whole blocks <<<"$shape"
        empty_pair F8_E4M3 "[$whole]" m.weight_scale_inv F32 "[$blocks]"
        quick fp8-dequant "$T/a.safetensors"
        [ "$(st-ls --tsv "$T/out.ts" | cut -f2,3)" = BF16$'\t'"[$whole]" ]
    done
    for shape in "$n,0 $n,0" "0,$n 0,$((n / 16))"; do
        read -r whole blocks <<<"$shape"
        empty_pair I8 "[$whole]" m.scale F8_E8M0 "[$blocks]"
        quick mxfp4-unpack -o "$T/bf16.ts" "$T/a.safetensors"
        quick st-stat "$T/a.safetensors"
        quick st-cmp --values "$T/a.safetensors" "$T/bf16.ts"
    done
    for shape in "$n,0 $n,0" "0,$n 0,$((n / 8))"; do
        read -r whole blocks <<<"$shape"
        empty_pair U8 "[$whole]" m.weight_scale F8_E4M3 "[$blocks]" \
            '"m.weight_scale_2":{"dtype":"F32","shape":[],"data_offsets":[0,4]}' '\x00\x00\x80\x3f'
        quick nvfp4-unpack "$T/a.safetensors"
    done
}

# empty_expert DTYPE SHAPE [SCALE_SHAPE]: V4's first expert of layer 0 with three such weights.
empty_expert() {
    local w header=
    for w in 1 2 3; do
        header+="${header:+,}\"layers.0.ffn.experts.0.w$w.weight\":{\"dtype\":\"$1\",\"shape\":[$2],\"data_offsets\":[0,0]}"
        [ -z "${3-}" ] ||
            header+=",\"layers.0.ffn.experts.0.w$w.scale\":{\"dtype\":\"F8_E8M0\",\"shape\":[$3],\"data_offsets\":[0,0]}"
    done
    safetensors "$T/v4/a.safetensors" "{$header}"
}

@test "so do experts that become NVFP4 or FP8, and rows of tensors for ranks" {
    n=$((1 << 40))
    mkdir "$T/v4"
    cp "$NANO/config.json" "$T/v4"
    dump "$T/amax.safetensors" 1 1
    for shape in "$n,0 $n,0" "0,$n 0,$((n / 16))"; do
        read -r whole blocks <<<"$shape"
        empty_expert I8 "$whole" "$blocks"
        for window in max best; do
            quick nvfp4-cast -q --window "$window" --amax "$T/amax.safetensors" "$T/v4/a.safetensors"
        done
        quick nvfp4-cast -q --zero positive --amax "$T/amax.safetensors" "$T/v4/a.safetensors"
        quick nvfp4-pack -q --amax "$T/amax.safetensors" "$T/v4/a.safetensors"
        empty_expert BF16 "$whole"
        quick nvfp4-pack -q --amax "$T/amax.safetensors" "$T/v4/a.safetensors"
        quick nvfp4-pack -q --scale-search mse --amax "$T/amax.safetensors" "$T/v4/a.safetensors"
    done
    safetensors "$T/v4/a.safetensors" "{\"layers.0.attn.wo_b.weight\":{\"dtype\":\"BF16\",\"shape\":[$n,0],\"data_offsets\":[0,0]}}"
    quick st-reshard --ranks 2 "$T/v4/a.safetensors"
    # Tokens without a token are none.
    safetensors "$T/ids.safetensors" "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[$n,0],\"data_offsets\":[0,0]}}"
    refused 'no sample in it' st-tokenize --tokenizer "$NANO" --decode "$T/ids.safetensors"
}

@test "fp8-pack: matrices of 2^40 rows or columns and no element" {
    n=$((1 << 40)) name=model.layers.0.self_attn.q_a_proj
    mkdir "$T/v3"
    echo '{"model_type":"deepseek_v3","num_hidden_layers":1}' >"$T/v3/config.json"
    echo '{"name":"x","formats":{"model.layers.*.self_attn.q_a_proj":"FP8-per-tensor","*":"BF16"},
        "producer":{"name":"x","version":"1"},"kv_cache_quant_algo":null,"exclude_modules":null}' >"$T/v3/recipe.json"
    safetensors "$T/amax.safetensors" "{\"$name.input_quantizer._amax\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}" '\x00\x00\x80\x3f'
    for shape in "$n,0" "0,$n"; do
        safetensors "$T/v3/a.safetensors" "{\"$name.weight\":{\"dtype\":\"BF16\",\"shape\":[$shape],\"data_offsets\":[0,0]}}"
        quick fp8-pack -q --recipe "$T/v3/recipe.json" --amax "$T/amax.safetensors" "$T/v3/a.safetensors"
        [ "$(st-ls --tsv "$T/out.ts" | awk -F'\t' '$2 == "F8_E4M3" { print $3 }')" = "[$shape]" ]
    done
}

@test "every program takes such a stream, or refuses it, at once" {
    n=$((1 << 40))
    mkdir "$T/v4"
    cp "$NANO/config.json" "$T/v4"
    dump "$T/amax.safetensors" 1 1
    random_ids "$T/ids.safetensors" 1 8
    safetensors "$T/v4/a.safetensors" "{\"layers.0.attn.wq_a.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[$n,0],\"data_offsets\":[0,0]}
,\"layers.0.attn.wq_a.scale\":{\"dtype\":\"F8_E8M0\",\"shape\":[$((n / 128)),0],\"data_offsets\":[0,0]}
,\"layers.0.ffn.gate.weight\":{\"dtype\":\"BF16\",\"shape\":[0,$n],\"data_offsets\":[0,0]}
,\"model.x\":{\"dtype\":\"U8\",\"shape\":[$n,0,$n],\"data_offsets\":[0,0]}}"
    st-read "$T/v4/a.safetensors" >"$T/a.ts"
    st-read --inline "$T/v4/a.safetensors" >"$T/inline.ts"
    quick st-write -q --partial "$T/written" "$T/a.ts"
    for program in "$BIN"/*; do
        [ -f "$program" ] || continue
        name=${program##*/} refusal='nothing, if that is not here'
        case $name in
        pt-read | st-status | st-summary) continue ;; # read no stream
        st-read) runs=('st-read --inline INPUT' 'st-read --part 1/2 INPUT' 'st-read --layers 0-0 INPUT') ;;
        st-ls) runs=('st-ls INPUT' 'st-ls -l INPUT' 'st-ls --json INPUT') ;;
        st-stat) runs=('st-stat INPUT' 'st-stat --hist INPUT' 'st-stat --json INPUT') ;;
        st-sum) runs=('st-sum INPUT' 'st-sum --each INPUT') ;;
        st-cmp) runs=("st-cmp INPUT $T/written" "st-cmp --values $T/inline.ts INPUT") ;;
        st-speed) runs=("st-speed --seconds 1 $T INPUT") ;;
        st-grep) runs=('st-grep weight INPUT' 'st-grep -V gate INPUT') ;;
        st-write) runs=("st-write -n --partial $T/x INPUT" "st-write -q --overwrite --verify --partial $T/again INPUT") ;;
        st-verify) runs=("st-verify $T/written" "st-verify --values --source $T/v4 $T/written") refusal=faults ;;
        fp8-dequant | mxfp4-unpack | nvfp4-unpack) runs=("$name INPUT") ;;
        nvfp4-cast | nvfp4-pack) runs=("$name --amax $T/amax.safetensors INPUT") refusal='nothing to convert' ;;
        fp8-pack) runs=("fp8-pack --recipe experts --amax $T/amax.safetensors INPUT") ;;
        amax-merge) runs=('amax-merge --fallback none INPUT' "amax-merge --fallback none --model INPUT $T/amax.safetensors")
            refusal='wanted an amax|nothing to convert' ;;
        amax-calib | st-eval) runs=("$name --tokens $T/ids.safetensors INPUT") refusal='no config\.json|is missing' ;;
        st-tokenize) runs=("st-tokenize --tokenizer $NANO --decode INPUT") refusal='no tensor input_ids' ;;
        st-reshard) runs=('st-reshard --ranks 2 INPUT' 'st-reshard -r INPUT') refusal='model-parallel|no such tensor|ranks' ;;
        *) echo "$name: is not tried here" && return 1 ;;
        esac
        for run in "${runs[@]}"; do
            for input in "$T/a.ts" "$T/inline.ts" "$T/v4/a.safetensors"; do
                status=0
                # shellcheck disable=SC2086 # words
                (ulimit -t 10 && exec timeout 300 ${run//INPUT/$input}) >"$T/out" 2>"$T/said" || status=$?
                echo "$run: exit $status; $(head -c 300 "$T/said")"
                [ $status = 0 ] || { [ $status = 1 ] && cat "$T/out" "$T/said" | grep -Eq "$refusal"; }
            done
        done
    done
}

@test "a calibration names expert 999999999, or thousands of layers" {
    # made: V4's amaxes of the names in $T/names, all 1.
    made() {
        awk '{ printf("%s\"%s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[%d,%d]}", NR == 1 ? "{" : ",", $1, 4 * NR - 4, 4 * NR) }
            END { print "}" }' "$T/names" >"$T/header"
        { le64 "$(stat -c %s "$T/header")" && cat "$T/header" && head -c $((4 * $(wc -l <"$T/names"))) /dev/zero | tr '\0' '\1'; } >"$T/a.safetensors"
    }
    printf 'layers.%d.ffn.experts.999999999.w1_input_quantizer._amax\n' 0 1 2 >"$T/names"
    made
    for fallback in none layer-max projection-max; do
        refused 'experts\.999999999\.w1.*with as many experts as that, [0-9]+ amaxes would be missing; is the calibration damaged\?' \
            amax-merge --fallback $fallback "$T/a.safetensors"
    done
    refused 'lacks [0-9]+ of those' amax-merge --fallback layer-max --model "$NANO" "$T/a.safetensors"
    # Layers, each with an expert or two: the time grows as they do.
    layers=30000
    [[ $BIN != *sanitize* ]] || layers=3000
    for ((i = 0; i < layers; i++)); do
        printf 'layers.%d.ffn.experts.%d.w1_input_quantizer._amax\n' $i $((i % 2)) $i 2
        printf 'mtp.%d.ffn.experts.1.w1_input_quantizer._amax\n' $i
    done >"$T/names"
    made
    for fallback in layer-max projection-max; do
        quick amax-merge -q --fallback $fallback --summary "$T/summary" "$T/a.safetensors"
        grep -q "^layers\.$((layers - 1))\.ffn\.experts w1 input  *3  *1 " "$T/summary"
    done
}

@test "sizes in config.json that nothing in the checkpoint has" {
    cp -r "$NANO" "$T/c"
    chmod -R u+w "$T/c"
    random_ids "$T/ids.safetensors" 1 16
    # bounded KEY WANTED [JQ]: not above that.
    bounded() {
        jq "${3:-.$1 = 16777216}" "$NANO/config.json" >"$T/c/config.json"
        refused "config\.json: $1: wanted an integer from 1 to $2" st-eval --tokens "$T/ids.safetensors" "$T/c"
    }
    bounded sliding_window 1048576
    bounded hc_sinkhorn_iters 1000
    bounded hc_mult 64
    bounded index_topk 65536
    # A window beyond the text is the whole text.
    st-eval -q --tokens "$T/ids.safetensors" "$NANO" >"$T/right"
    jq '.sliding_window = 1048576' "$NANO/config.json" >"$T/c/config.json"
    quick st-eval -q --tokens "$T/ids.safetensors" "$T/c"
    diff "$T/out.ts" "$T/right"
}

@test "JSON of more values than anything of ours has is refused before it is parsed" {
    # empties N: an array of as many arrays, [[],[],...].
    empties() {
        printf '[[]'
        yes ,[] | head -n "$1" | tr -d '\n'
        printf ']'
    }
    empties 1000000 >"$T/many"
    # files ENTRY...: a stream of these files, as $T/a.ts.
    files() {
        local file
        for file; do
            tar_entry "$file" "$(stat -c %s "$T/x/$file")" && cat "$T/x/$file" && pad "$(stat -c %s "$T/x/$file")"
        done >"$T/a.ts"
    }
    mkdir -p "$T/x"
    : >"$T/x/.toc"
    printf '{"format":"tensor-stream","version":1,"scope":"all","files":{},"quant":{},"history":[]}\n' >"$T/x/.stream"
    { printf '{"tensors":0,"bytes":0,"plan":false,"counts":' && cat "$T/many" && echo '}'; } >"$T/x/.end"
    files .stream .toc .end
    refused '\.end: line 1: far too many values' st-ls "$T/a.ts"
    { printf '{"m.safetensors":' && cat "$T/many" && echo '}'; } >"$T/x/.counts"
    files .stream .toc .counts .end
    refused '\.counts: line 1: far too many values' st-ls "$T/a.ts"
    { printf '{"format":"tensor-stream","history":' && cat "$T/many" && echo '}'; } >"$T/x/.stream"
    files .stream .toc
    refused '\.stream: line 1: far too many values' st-ls "$T/a.ts"
    truncate -s 17M "$T/x/.stream"
    files .stream .toc
    refused '17825792 bytes, more than the 16777216 allowed' st-ls "$T/a.ts"
    # In a checkpoint: config.json of up to 1 MiB, the tokenizer's up to what takes 512 MiB.
    cp -r "$NANO" "$T/c"
    chmod -R u+w "$T/c"
    { printf '{"x":' && empties 340000 && echo '}'; } >"$T/c/config.json"
    refused 'config\.json: line 1: far too many values' st-ls "$T/c"
    { printf '{"x":' && cat "$T/many" && echo '}'; } >"$T/c/config.json"
    refused 'config\.json: more than 1048576 bytes' st-ls "$T/c"
    cp "$NANO/config.json" "$T/c"
    { printf '{"model":[' && cat "$T/many" && printf , && cat "$T/many" && echo ']}'; } >"$T/c/tokenizer.json"
    echo text >"$T/text.txt"
    refused 'tokenizer\.json: line 1: far too many values' st-tokenize --tokenizer "$T/c" --length 10 "$T/text.txt"
    { printf '{"x":' && cat "$T/many" && echo '}'; } >"$T/recipe.json"
    refused 'recipe\.json: line 1: more than 1 MiB' nvfp4-pack -n --recipe "$T/recipe.json" "$NANO"
}

# costly REGEX [PLACE [OPTION... FILE]]: with this pattern in a Split of the tokenizer (the first, or the second), and $T/text.txt
# or FILE, st-tokenize ends within some seconds of a processor's time, with an error that names the pattern.
costly() {
    local status=0 seconds=30
    [ $# -gt 2 ] || set -- "$1" "${2-first}" "$T/text.txt"
    [[ $BIN != *sanitize* ]] || seconds=100
    jq --arg regex "$1" --arg place "$2" '
        def split: {type: "Split", pattern: {Regex: .}, behavior: "Isolated", invert: false};
        .pre_tokenizer = {type: "Sequence", pretokenizers: [
            if $place == "second" then "\n" | split else empty end, ($regex | split),
            {type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false}]}' \
        "$NANO/tokenizer.json" >"$T/tokenizer.json"
    (ulimit -t $seconds && exec timeout 300 st-tokenize --tokenizer "$T/tokenizer.json" --no-bos --length 100 "${@:3}") >/dev/null 2>"$T/said" || status=$?
    cat "$T/said"
    [ "$status" -eq 1 ]
    grep -qF "pattern takes too many steps on this text: $1" "$T/said"
}

@test "a tokenizer's pattern of exponential cost: an error that names it, soon, whatever each match takes" {
    printf 'aaaaaaaaaaaaaaaaaaaaaaa c%.0s' {1..800} >"$T/text.txt" # 20 KB
    # The same in other words: nested, in alternatives that are equal, where it only looks, in a later step.
    for regex in '(?:a|aa)+b|.' '(?:a+)+b|.' '(?:a|a)*b|.' '(?=(?:a|aa)+b)|.' '.(?!(?:a*)*b)|.'; do costly "$regex"; done
    costly '(?:a+)+b|.' second
    # What real patterns meet, long runs of one kind, is not it.
    { head -c 200000 /dev/zero | tr '\0' ' ' && echo && head -c 200000 /dev/zero | tr '\0' a && echo; } >"$T/text.txt"
    quick st-tokenize --tokenizer "$NANO" --length 100 "$T/text.txt"
}

@test "so is one that takes a tolerable time for each of many texts" {
    jq -nc 'range(3000) | {text: ("a" * 60 + " c")}' >"$T/text.jsonl"
    costly '\p{L}+\p{L}+\p{L}+\p{L}+\p{L}+1|.' first --samples 3000 "$T/text.jsonl"
    # What real patterns meet leaves all of it to the next text.
    jq -nc 'range(100000) | {text: ("It is " + "a" * 200)}' >"$T/text.jsonl"
    quick st-tokenize --tokenizer "$NANO" --length 100 --samples 100000 "$T/text.jsonl"
}

@test "so is one of few steps that each read all of the text" {
    head -c 20000 /dev/zero | tr '\0' a >"$T/text.txt"
    costly 'a*a*[bc]|.'
    costly 'a{0,4000}a*[bc]|.'
    head -c 1000000 /dev/zero | tr '\0' a >"$T/text.txt"
    costly 'a*(?=a*)[bc]|.'
    costly '(?:aa?)*+[bc]' # in one search
}

@test "an added token of 200,000 characters is refused; one of 512 bytes costs a text little" {
    head -c 400000 /dev/zero | tr '\0' a >"$T/text.txt"
    added() { # LENGTH
        jq --argjson n "$1" '.added_tokens += [{id: 100000, content: ("a" * ($n - 1) + "b"), special: true, normalized: false}]' "$NANO/tokenizer.json" >"$T/tokenizer.json"
    }
    added 200001
    refused "added_tokens\[[0-9]+\]: 'a{40}…' has more than the 512 bytes allowed" st-tokenize --tokenizer "$T/tokenizer.json" --length 100 "$T/text.txt"
    added 512
    quick st-tokenize --tokenizer "$T/tokenizer.json" --no-bos --length 1000000 "$T/text.txt"
}

@test "st-write looks a few times at each source, however many shards there are" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    mkdir "$T/m"
    for ((i = 1; i <= 60; i++)); do
        safetensors "$T/m/model-000$i-of-60.safetensors" "{\"t$i\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}" abcd
    done
    st-read "$T/m" >"$T/m.ts"
    strace -f -o "$T/trace" -e trace=%%stat st-write -q "$T/out" "$T/m.ts"
    looks=$(grep -c "$T/m/" "$T/trace")
    [ "$looks" -ge 60 ]
    [ "$looks" -le $((60 * 15)) ]
}

# shards N: a checkpoint of N shards of 4 bytes each, as $T/N.
shards() {
    local i
    mkdir "$T/$1"
    for ((i = 10001; i <= 10000 + $1; i++)); do
        safetensors "$T/$1/s$i.safetensors" "{\"t$i\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}" abcd
    done
}

@test "what programs ask of the system grows as shards and sources do, not as their product" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cd "$T" || return
    # calls PROGRAM...: how often it looks at files, opens, reads and writes; st-verify finds no model here.
    calls() {
        strace -f -qq -c -U calls -o calls -e trace=%file,%desc "$@" >out || [ "$1" = st-verify ]
        awk 'END { print $1 }' calls
    }
    declare -A asked
    while read -r command; do commands+=("$command"); done <<'COMMANDS'
st-read -o N.ts N
st-read --inline -o N.inline.ts N
st-ls N
st-stat N.ts
st-sum N.ts
st-cmp N N.ts
fp8-dequant N.ts
st-verify --source N --values N
st-write -q N.out N.inline.ts
st-write -q --verify N.killed N.ts
st-write -q N.killed N.ts
st-write -q --join N.joined
st-write -q --join --verify N.verified
COMMANDS
    for n in 40 160; do
        shards $n
        for part in 1/2 2/2; do
            st-read --part $part $n >part.ts
            st-write -q --part $n.joined part.ts
            st-write -q --part $n.verified part.ts
        done
        st-read -o killed.ts $n
        strace -f -qq -o /dev/null -e trace=ftruncate -e inject=ftruncate:signal=SIGKILL:when=$((n * 9 / 10)) st-write -q $n.killed killed.ts || true
        [ -s $n.killed.partial/.journal ]
        for ((i = 0; i < ${#commands[@]}; i++)); do
            # shellcheck disable=SC2086 # words
            asked[$n.$i]=$(calls ${commands[i]//N/$n})
        done
    done
    for ((i = 0; i < ${#commands[@]}; i++)); do
        echo "${commands[i]}: ${asked[40.$i]} calls for 40, ${asked[160.$i]} for 160"
        [ "${asked[40.$i]}" -gt 40 ]
        [ "${asked[160.$i]}" -le $((5 * asked[40.$i])) ]
    done
}

@test "a journal's notes of sources are read once when a run goes on, however many there are" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    notes=200000
    [[ $BIN != *sanitize* ]] || notes=50000
    shards 2
    st-read -o "$T/2.ts" "$T/2"
    strace -f -qq -o /dev/null -e trace=ftruncate -e inject=ftruncate:signal=SIGKILL:when=2 st-write -q "$T/out" "$T/2.ts" || true
    seq $notes | sed 's|.*|source\tx&.safetensors\t1\t/nowhere/x|' >>"$T/out.partial/.journal"
    quick st-write -q "$T/out" "$T/2.ts"
    st-cmp "$T/2" "$T/out"
}

# ---- memory, as seekpipe(7) has it; sanitizers take more ----

# took COMMAND...: set $kib to the most memory that it takes.
took() {
    "$BIN/test/peak" "$T/kib" "$@" >"$T/out.ts"
    kib=$(<"$T/kib")
}

# many N NAME: as $T/in/many.safetensors, N tensors without a byte, with as short an entry in the header as there is,
# called NAME and five digits.
many() {
    awk -v n="$1" -v name="$2" 'BEGIN {
        for (i = 0; i < n; i++)
            printf("%s\"%s%05x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "{", name, i)
        print "}"
    }' >"$T/header"
    mkdir -p "$T/in"
    { le64 "$(stat -c %s "$T/header")" && cat "$T/header"; } >"$T/in/many.safetensors"
}

@test "memory for many tensors: for each 300 bytes, and five times its name and its shard's" {
    [[ $BIN != *sanitize* ]] || skip "measured without sanitizers"
    cd "$T" || return
    BIN=$OLDPWD/$BIN
    commands=('st-read -o x.ts in/many.safetensors' 'st-ls in/many.safetensors' 'st-stat x.ts' 'st-sum x.ts' 'st-cmp in/many.safetensors x.ts'
        'fp8-dequant x.ts' 'nvfp4-unpack x.ts' 'st-write -q --partial out x.ts' 'st-read out')
    measure() { # N NAME
        many "$@"
        for ((i = 0; i < ${#commands[@]}; i++)); do
            # shellcheck disable=SC2086 # words
            took ${commands[i]}
            found[i]=$kib
        done
        rm -r out
    }
    long=$(printf 'x%.0s' {1..190})
    measure 1 ''
    base=("${found[@]}")
    for names in '' "$long"; do
        n=100000
        [ -z "$names" ] || n=40000
        measure "$n" "$names"
        for ((i = 0; i < ${#commands[@]}; i++)); do
            bound=$((base[i] + n * (300 + 5 * (${#names} + 5 + 16)) / 1024))
            echo "${commands[i]}: $n tensors: ${found[i]} KiB of $bound, ${base[i]} without"
            [ "${found[i]}" -le "$bound" ]
        done
    done
}

# scaled [NAME DTYPE SHAPE SIZE]...: as $T/s.ts, tensors without a byte on disk that is not 0.
scaled() {
    local header='' at=0 size
    while [ $# -gt 0 ]; do
        size=$4
        header+="${header:+,}\"$1\":{\"dtype\":\"$2\",\"shape\":[$3],\"data_offsets\":[$at,$((at + size))]}"
        at=$((at + size))
        shift 4
    done
    safetensors "$T/v4/a.safetensors" "{$header}"
    truncate -s "+$at" "$T/v4/a.safetensors"
    st-read --allow-zeros -o "$T/s.ts" "$T/v4/a.safetensors"
}

# made FORMAT ROWS: matrices of these rows, each of which has 256 bytes of scales.
made() {
    local r=$2 w experts=()
    case $1 in
    mxfp4) scaled m.scale F8_E8M0 "$r,256" $((r * 256)) m.weight I8 "$r,4096" $((r * 4096)) ;;
    nvfp4) scaled m.weight_scale_2 F32 '' 4 m.weight_scale F8_E4M3 "$r,256" $((r * 256)) m.weight U8 "$r,2048" $((r * 2048)) ;;
    e8m0) scaled m.scale F8_E8M0 "$r,256" $((r * 256)) m.weight F8_E4M3 "$r,8192" $((r * 8192)) ;;
    f32) scaled m.weight_scale_inv F32 "$r,64" $((r * 256)) m.weight F8_E4M3 "$r,2048" $((r * 2048)) ;;
    experts)
        for w in 1 2 3; do
            experts+=("layers.0.ffn.experts.0.w$w.scale" F8_E8M0 "$r,256" $((r * 256)) "layers.0.ffn.experts.0.w$w.weight" I8 "$r,4096" $((r * 4096)))
        done
        scaled "${experts[@]}" ;;
    esac
}

@test "memory for large scales: of the matrices at work, once; five times for E8M0 of FP8" {
    [[ $BIN != *sanitize* ]] || skip "measured without sanitizers"
    mkdir "$T/v4"
    cp "$NANO/config.json" "$T/v4"
    dump "$T/amax.safetensors" 1 1
    # TIMES FORMAT COMMAND: the second measurement has 8 MiB of scales more in each matrix; how many bands are at
    # work at a time is chance, up to 4 MiB.
    while read -r times format command; do
        less=4096
        [ "$format" != experts ] || less=16384 # what a band takes is the same then
        for rows in $less $((less + 32768)); do
            made "$format" "$rows"
            # shellcheck disable=SC2086 # words
            took $command "$T/s.ts"
            [ "$rows" != $less ] || small=$kib
        done
        echo "$command, $format: $kib KiB, $small with less"
        [ "$kib" -le $((small + times * 8192 + 4096)) ]
    done <<COMMANDS
1 mxfp4 mxfp4-unpack
1 nvfp4 nvfp4-unpack
5 e8m0 fp8-dequant
1 f32 fp8-dequant
0 mxfp4 fp8-dequant
0 mxfp4 st-stat
2 experts nvfp4-cast -q --amax $T/amax.safetensors
3 experts nvfp4-pack -q --amax $T/amax.safetensors
COMMANDS
}
