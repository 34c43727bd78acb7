load common

prepare() {
    BIN=$BIN test/install "$T/root" /usr >"$T/log"
    usr=$T/root/usr
}

@test "installed: every program and pipeline, ready to run" {
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        case $name in
        slurm) diff -r "$source" "$usr/share/seekpipe/slurm" ;;
        *.bash) [ -f "$usr/bin/$name" ] ;;
        *) [ -x "$usr/bin/$name" ] ;;
        esac
    done
    [ ! -e "$usr/bin/test" ]
}

@test "installed: every page, in its section" {
    for page in man/*.[1-9]; do
        [ -f "$usr/share/man/man${page##*.}/${page##*/}" ]
    done
}

@test "installed: every recipe" {
    (cd pipelines && find recipes -type f) | while read -r recipe; do
        cmp "pipelines/$recipe" "$usr/share/seekpipe/$recipe"
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
}

@test "a relative PREFIX is refused" {
    run test/install "$T" usr
    [ "$status" -eq 2 ]
}
