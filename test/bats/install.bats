load common

prepare() {
    usr=$T/root/usr
    installing install
}

# installing TARGET [VARIABLE=VALUE...]: of the programs as they are.
installing() {
    make -o all BIN="$BIN" DESTDIR="$T/root" PREFIX=/usr "$@" >"$T/log" 2>&1
}

@test "installed: every program and pipeline, ready to run" {
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        case $name in
        slurm | recipes | *.bash) diff -r "$source" "$usr/share/seekpipe/$name" ;;
        *) [ -x "$usr/bin/$name" ] && programs+=("$name") ;;
        esac
    done
    # and nothing else
    diff <(printf '%s\n' "${programs[@]}" | sort) <(ls "$usr/bin")
}

@test "installed: every page, in its section, with the version that programs print" {
    version=$(st-ls --version) # "st-ls (seekpipe) 0.1.0"
    for page in man/*.[1-9]; do
        installed=$usr/share/man/man${page##*.}/${page##*/}
        diff <(sed "s/^\.Os.*/.Os seekpipe ${version##* }/" "$page") "$installed"
        [[ $(mandoc -T ascii "$installed" | tail -n 1) == "seekpipe ${version##* } "* ]]
    done
}

@test "installed: what completes the options of every program and pipeline, in three shells" {
    for program in "$usr"/bin/*; do
        name=${program##*/}
        grep -q " $name\$" "$usr/share/bash-completion/completions/$name"
        grep -qx "#compdef $name" "$usr/share/zsh/site-functions/_$name"
        grep -q "^complete -c $name " "$usr/share/fish/vendor_completions.d/$name.fish"
    done
}

@test "installed: files and folders are readable by all, writable by the owner" {
    [ -z "$(find "$usr" -type f ! -perm 755 ! -perm 644)" ]
    [ -z "$(find "$usr" -type d ! -perm 755)" ]
}

@test "installed programs run from where they are" {
    PATH=/usr/bin:/bin run bash -o pipefail -c \
        '"$1/st-read" "$2" | "$1/fp8-dequant" | tar tf - | head -n 2 >"$3"' - "$usr/bin" "$NANO" "$T/list"
    [ "$(cat "$T/list")" = $'.stream\n.toc' ]
}

@test "installed pipelines find the programs beside them, and the recipes" {
    unset SEEKPIPE_BIN SEEKPIPE_RECIPES
    PATH=/usr/bin:/bin run "$usr/bin/v4-experts" --lossy --amax "$NANO_AMAX" "$NANO" "$T/nvfp4"
    echo "$output"
    [ "$status" -eq 0 ]
    [ -f "$T/nvfp4/model.safetensors.index.json" ]
    # One that is another with a recipe of its own, by whatever name.
    ln -s "$usr/bin/v4-full" "$T/all"
    PATH=/usr/bin:/bin run "$T/all" -n --input-scale 1 "$NANO" "$T/full"
    [ "$status" -eq 0 ]
    [[ $output == *'no engine is known to serve this checkpoint'* ]]
}

@test "the installed demo runs, without the source tree, in a folder that it makes" {
    mkdir "$T/work"
    (cd "$T/work" && PATH=/usr/bin:/bin "$usr/bin/seekpipe-demo" >"$T/said" 2>"$T/log") || { cat "$T/log" && false; }
    [ "$(ls "$T/work")" = seekpipe-demo ]
    grep -q '^perplexity  ' "$T/said"
    grep -qF "$(printf '$ v4-experts --calib %q' "$usr/share/seekpipe/demo/text/calib-prose.jsonl")" "$T/said"
    st-verify -q "$T/work/seekpipe-demo/demo"
    # and says so if it lacks its data
    rm -r "$usr/share/seekpipe/demo"
    run "$usr/bin/seekpipe-demo" "$T/other"
    [ "$status" -eq 1 ]
    [[ ${lines[-1]} == "seekpipe-demo: $T/root/usr/test/data/v4-nano: it is not there, but the demo converts it" ]]
}

@test "a relative PREFIX is refused" {
    run installing install PREFIX=usr
    [ "$status" -eq 2 ]
    [[ $(cat "$T/log") == *"PREFIX 'usr' is not an absolute path"* ]]
}

@test "uninstall removes what install put there, and nothing else" {
    touch "$usr/bin/other" "$usr/share/man/man1/other.1"
    installing uninstall
    diff <(find "$T/root" -type f | sort) - <<<"$usr/bin/other"$'\n'"$usr/share/man/man1/other.1"
    [ ! -e "$usr/share/seekpipe" ]
}
