# Names on the Hugging Face hub: snapshots in its cache as sources, and results that it takes.
load common
load craft

PATH=$PWD/pipelines:$PATH
name=tests/V4-Nano
commit=0123456789abcdef0123456789abcdef01234567

# cached CACHE CHECKPOINT: what `hf download $name` leaves in a cache: links to blobs.
cached() {
    local file blob repository=$1/models--tests--V4-Nano
    mkdir -p "$repository"/{refs,blobs} "$repository/snapshots/$commit"
    printf %s $commit >"$repository/refs/main"
    (cd "$2" && find . -type f -print0) | while IFS= read -r -d '' file; do
        file=${file#./} blob=$(tr / - <<<"${file#./}")
        cp "$2/$file" "$repository/blobs/$blob"
        mkdir -p "$(dirname "$repository/snapshots/$commit/$file")"
        ln -sr "$repository/blobs/$blob" "$repository/snapshots/$commit/$file"
    done
}

prepare() {
    export HF_HUB_CACHE=$T/cache HOME=$T/home
    cached "$T/cache" "$NANO"
    snapshot=$T/cache/models--tests--V4-Nano/snapshots/$commit
    mkdir "$T/work" "$T/home"
    cd "$T/work" || exit
}

@test "a name whose snapshot is in the cache works as its folder does, in every program" {
    echo '{"text": "a b c d"}' >a.jsonl
    [ "$(st-read --locate $name)" = "$snapshot" ]
    st-read $name | cmp - <(st-read "$snapshot")
    [ "$(st-sum $name)" = "$(st-sum "$NANO")" ]
    [ "$(st-ls $name)" = "$(st-ls "$NANO")" ]
    st-cmp --files "$NANO" $name
    st-stat --json $name | cmp - <(st-stat --json "$NANO")
    nvfp4-cast -n $name >plan.ts
    st-tokenize --tokenizer $name --length 4 -o tokens.ts a.jsonl
    st-tokenize --tokenizer "$NANO" --length 4 a.jsonl | st-cmp tokens.ts -
    amax-calib -q --tokens tokens.ts --layers 0-0 -o calib.ts $name
    st-ls --header calib.ts | grep -qF '"model": "tests/V4-Nano"'
    amax-calib -q --tokens tokens.ts --layers 0-0 "$NANO" | st-ls --header | grep -qF '"model": "ckpt"'
    st-eval -q --tokens tokens.ts -o loss $name
    amax-merge -q --model $name --input-scale 1 -o amax.ts
    nvfp4-cast --amax amax.ts $name | st-write -q nvfp4
    st-verify --source $name nvfp4
    cached "$T/results" nvfp4
    HF_HUB_CACHE=$T/results run st-verify $name
    [ "$status" -eq 0 ]
    [ "$output" = "$(st-verify nvfp4)" ]
    HF_HUB_CACHE=$T/results amax-merge -q --model "$NANO" -o again.ts $name
    # Errors say the name.
    run st-ls $name no-such-tensor
    [ "$output" = "st-ls: $name: no tensor's name matches 'no-such-tensor'" ]
}

@test "pipelines take a name, too, for the source and for --amax" {
    v4-experts -q --input-scale 1 $name a
    v4-experts -q --input-scale 1 "$NANO" b
    diff -r -x quant-report.html a b # which has times
    cached "$T/cache2" b
    HF_HUB_CACHE=$T/cache2 v4-experts -q --amax $name "$NANO" c
    st-cmp a c
    v4-bf16 -q $name d
    run v4-bf16 $name d
    [[ ${lines[0]} == *'complete already'* ]]
    # It is the source that --save-amax must not replace, and its config.json that tells the model.
    run v4-experts --calib x --save-amax "$T/cache/models--tests--V4-Nano/blobs/config.json" $name e
    [ "$status" -eq 2 ]
    [[ ${lines[0]} == *'is read; name another file' ]]
    run v3-nvfp4 --input-scale 1 $name e
    [ "$status" -eq 1 ]
    [[ $output == *'its model_type is deepseek_v4, which '* ]]
}

@test "where the cache is, and a folder of that name goes first" {
    unset HF_HOME XDG_CACHE_HOME HUGGINGFACE_HUB_CACHE
    for variables in "HF_HUB_CACHE=$T/cache HF_HOME=/x XDG_CACHE_HOME=/x HUGGINGFACE_HUB_CACHE=/x" \
        "HUGGINGFACE_HUB_CACHE=$T/d HF_HOME=/x HF_HUB_CACHE=" "HF_HOME=$T/a XDG_CACHE_HOME=/x HF_HUB_CACHE=" \
        "XDG_CACHE_HOME=$T/b HF_HUB_CACHE= HF_HOME=" "HOME=$T/c HF_HUB_CACHE=" \
        'HF_HUB_CACHE=~/e' 'HF_HOME=~/f HF_HUB_CACHE=' 'HF_HOME=~ HF_HUB_CACHE='; do
        case $variables in
        *=~/e) place=$T/home/e ;;
        *=~/f*) place=$T/home/f/hub ;;
        *=~*) place=$T/home/hub ;;
        HF_HUB_CACHE=*) place=$T/cache ;;
        HUGGINGFACE*) place=$T/d ;;
        HF_HOME=*) place=$T/a/hub ;;
        XDG*) place=$T/b/huggingface/hub ;;
        *) place=$T/c/.cache/huggingface/hub ;;
        esac
        # shellcheck disable=SC2086 # a list
        run env $variables st-ls other/$name
        [ "$status" -eq 1 ] && [[ $output == *'No such file or directory' ]]
        # shellcheck disable=SC2086
        run env $variables st-ls tests/missing
        [ "$output" = "st-ls: tests/missing: there is no such folder here, and no snapshot of it in $place; from the\
 Hugging Face hub, 'hf download tests/missing --local-dir missing' gets it" ]
        [ "$place" = "$T/cache" ] || { mkdir -p "${place%/*}" && ln -s "$T/cache" "$place"; }
        # shellcheck disable=SC2086
        [ "$(env $variables st-read --locate $name)" = "$snapshot" ]
    done
    mkdir tests # the owner's name alone is no such folder
    [ "$(st-read --locate $name)" = "$snapshot" ]
    ln -s gone $name # a link that leads nowhere stands for nothing else
    refused "$name: No such file or directory" st-read -n $name
    rm $name
    mkdir $name
    [ "$(st-read --locate $name)" = $name ]
    refused 'no .safetensors file' st-read -n $name
    [ "$(st-read --locate ./no/where)" = ./no/where ]
    for options in '-n' '--inline' '-o a.ts' '--layers 0-1'; do
        # shellcheck disable=SC2086 # a list
        run st-read --locate $options $name
        [ "$status" -eq 2 ]
    done
}

@test "what refs/main may hold: a commit's digits, and nothing else" {
    ref=$T/cache/models--tests--V4-Nano/refs/main
    mkdir -p "$T/cache/models--tests--V4-Nano/snapshots/elsewhere" "$T/elsewhere"
    for content in '' ../../../elsewhere elsewhere .. . "$commit"$'\n' "$commit/../elsewhere" "${commit^^}" "${commit%7}/" \
        "${commit}7" $'\e[2J' "$T/elsewhere"; do
        printf %s "$content" >"$ref"
        refused "refs/main: is not the 40 digits of a commit; .*'hf download $name' makes it again" st-read -n $name
        run v4-bf16 $name out
        [ "$status" -eq 1 ]
        [[ ${lines[0]} == *'is not the 40 digits of a commit'* ]]
    done
    head -c 40 /dev/zero >"$ref"
    refused 'is not the 40 digits' st-read -n $name
    rm "$ref"
    mkfifo "$ref"
    refused 'is not the 40 digits' timeout 5 st-read -n $name
    rm "$ref"
    refused "no snapshot of it in $T/cache; from" st-read -n $name
    printf %s ${commit//0/f} >"$ref" # removed since
    refused "no snapshot of it in $T/cache; from" st-read -n $name
    run v4-experts --input-scale 1 $name out
    [ "$status" -eq 1 ]
    [[ ${lines[0]} == "st-read: $name: there is no such folder here"* ]]
    [ ! -e out ]
    # No names on the hub, whatever the cache has.
    for path in tests/V4--Nano tests/../V4-Nano tests--V4/Nano .tests/V4 -tests/V4 tests/V4. 'tests/V4 Nano' tests/a/b; do
        run st-read -n -- "$path"
        [[ $output == *'No such file or directory'* ]]
    done
}

@test "a snapshot that is not whole is refused as an incomplete checkpoint is" {
    mv "$snapshot/model-00002-of-00003.safetensors" "$T/link"
    refused "model-00002-of-00003.safetensors: named by model.safetensors.index.json .is the download complete.*" st-read -n $name
    mv "$snapshot/model.safetensors.index.json" "$T/index"
    refused "model-00002-of-00003.safetensors is missing, .*is the download complete" st-read -n $name
    mv "$T/index" "$snapshot/model.safetensors.index.json"
    ln -s ../../blobs/gone "$snapshot/model-00002-of-00003.safetensors"
    refused "named by model.safetensors.index.json .is the download complete" st-read -n $name
    mv "$T/link" "$snapshot/model-00002-of-00003.safetensors"
    truncate -s -1 "$T/cache/models--tests--V4-Nano/blobs/model-00002-of-00003.safetensors"
    refused "model-00002-of-00003.safetensors: " st-read -n $name
    rm "$snapshot"/*.safetensors "$snapshot/model.safetensors.index.json" # as after a download of the tokenizer alone
    refused "no .safetensors file and no model.safetensors.index.json in it" st-read -n $name
    run v4-experts --input-scale 1 $name out
    [ "$status" -eq 1 ]
    [ ! -e out ]
}

# What upload_folder() of huggingface_hub takes: every file below the folder, by its name in it. It refuses folders named
# .git and .cache, and a card whose metadata is no YAML.
@test "hf upload takes a result as it is: plain files, no dot files, no paths, a card in YAML" {
    source=$T/source
    cp -r "$NANO" "$source"
    chmod -R u+w "$source"
    mkdir -p "$source"/{.git,.cache/huggingface/download,inference}
    touch "$source"/{.git/config,.cache/huggingface/download/a.metadata,.gitattributes,.DS_Store,inference/.hidden}
    echo MIT >"$source/LICENSE"
    ln -s LICENSE "$source/COPYING"
    for run in 'v4-experts --input-scale 1' v4-bf16; do
        printf '%s\n' --- 'license: mit' 'license: [mit' 'license_name: "of mine' 'license_name: a: b' 'license_link: "LICENSE"' \
            --- '# V4-Nano' >"$source/README.md"
        # shellcheck disable=SC2086 # a list
        $run -q --overwrite "$source" out
        [ -z "$(find out ! -type f ! -type d)" ]
        [ -z "$(find out -mindepth 1 -name '.*')" ]
        run grep -rlF "$T" out --include='*.json' --include='*.md' --include='*.html'
        [ "$output" = "" ]
        sed -n '2,/^---$/p' out/README.md >"$T/head"
        # Of each key one, its value a scalar or a list.
        grep -Ev '^([a-z_]+: ([A-Za-z0-9][^:]*|"[^"\\]*")|tags:|- [a-z0-9]+|---)$' "$T/head" && false
        [ "$(grep '^[a-z]' "$T/head" | sed 's/:.*//')" = "$(grep '^[a-z]' "$T/head" | sed 's/:.*//' | sort -u)" ]
        [ "$(grep ^license "$T/head")" = $'license: mit\nlicense_link: "LICENSE"' ]
        for file in LICENSE COPYING README.md README.source.md quant-run.json config.json model.safetensors.index.json; do
            [ -s "out/$file" ]
        done
    done
}
