load common
load craft
load v3
load examples

# The SYNOPSIS of a page, on one line, white space squeezed.
synopsis() {
    mandoc -T ascii -O width=200 "$1" | sed 's/.\x08//g' |
        awk '/^[A-Z]/ { on = $1 == "SYNOPSIS"; next } on' | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

# The usage lines of a program: up to the first empty line.
usage() {
    "$@" -h | sed '/^$/,$d; 1s/^usage: //' | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

@test "every program has a page whose SYNOPSIS is what -h says" {
    wrong=0
    for source in stages/*.c pipelines/*; do
        case $source in *.bash | */slurm | */recipes) continue ;; esac
        name=$(basename "$source" .c)
        command=$BIN/$name
        [ "${source%%/*}" = stages ] || command=$source
        if [ ! -f "man/$name.1" ]; then
            echo "$name: there is no man/$name.1"
            wrong=1
        elif [ "$(synopsis "man/$name.1")" != "$(usage "$command")" ]; then
            printf '%s:\n  -h:       %s\n  SYNOPSIS: %s\n' \
                "$name" "$(usage "$command")" "$(synopsis "man/$name.1")"
            wrong=1
        fi
    done
    [ $wrong = 0 ]
}

# Its examples are to be copied whole.
@test "what -h says fits a terminal of 80 columns" {
    for source in stages/*.c pipelines/*; do
        case $source in *.bash | */slurm | */recipes) continue ;; esac
        command=$source
        [ "${source%%/*}" != stages ] || command=$BIN/$(basename "$source" .c)
        "$command" -h | awk -v name="$source" '/^Example/ { exit } length > 80 { print name ": " $0 }'
    done >"$T/wide"
    cat "$T/wide"
    [ ! -s "$T/wide" ]
}

@test "every page is of something that exists" {
    wrong=0
    for page in man/*.1; do
        name=$(basename "$page" .1)
        [ -f "stages/$name.c" ] || [ -f "pipelines/$name" ] || { echo "$page: of what?" && wrong=1; }
    done
    [ $wrong = 0 ]
}

@test "a quotation ends before the next one begins" {
    wrong=0 left=$'\u2018' right=$'\u2019'
    for page in man/*; do # .Ql takes all that follows it on its line
        nested=$(mandoc -T utf8 -O width=500 "$page" | sed 's/.\x08//g' | grep -o "${left}[^$right]*$left" | head -n 1)
        [ -z "$nested" ] || { echo "$page: $nested" && wrong=1; }
    done
    [ $wrong = 0 ]
}

@test "every page has the sections that a reader looks for" {
    wrong=0
    for page in man/*.1; do
        for section in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
            grep -qE "^\.Sh \"?$section\"?$" "$page" || { echo "$page: no $section" && wrong=1; }
        done
    done
    [ $wrong = 0 ]
}

@test "every option that -h explains is in the page" {
    wrong=0
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        command=$BIN/$name
        [ "${source%%/*}" = stages ] || command=$source
        [ -f "man/$name.1" ] || continue
        mandoc -T ascii "man/$name.1" | sed 's/.\x08//g' >"$T/page"
        for option in $("$command" -h | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' | grep -oE -- '--[a-z-]+'); do
            grep -qF -- "$option" "$T/page" || { echo "$name: $option is not in its page" && wrong=1; }
        done
    done
    [ $wrong = 0 ]
}

@test "seekpipe(7) lists every program and pipeline" {
    for source in stages/*.c pipelines/*; do
        name=$(basename "$source" .c)
        [ "${name%.bash}" != "$name" ] || [ -d "$source" ] || grep -qx "\.It Xr $name 1" man/seekpipe.7 || missing+=" $name"
    done
    echo "missing:${missing-}"
    [ -z "${missing-}" ]
}

# ---- examples: every command that a page or -h shows runs ----

# What -h shows after "Examples:".
usage_examples() {
    "$1" -h | sed '1,/^Examples*:$/d'
}

@test "the examples of every page run" {
    given
    for page in man/*.[1-9]; do
        case $page in */quantize-deepseek.7 | */seekpipe-troubleshooting.7) continue ;; esac # see docs.bats
        examples=$(page_examples "$page")
        [ -n "$examples" ] || { echo "$page: no examples" && wrong=1; }
        try "${page##*/}" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}

@test "the examples of every -h run" {
    given
    for source in stages/*.c pipelines/v[34]-*; do
        name=$(basename "$source" .c)
        examples=$(usage_examples "$name")
        [ -n "$examples" ] || { echo "$name: no examples" && wrong=1; }
        try "$name" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}
