# What packaging/completion makes of --help, in the shells that read it.
load common

# command_of SOURCE: the program or pipeline of stages/X.c or pipelines/X; fails for what is none.
command_of() {
    case $1 in
    stages/*) echo "$BIN/$(basename "$1" .c)" ;;
    *.bash | */slurm | */recipes) return 1 ;;
    *) echo "$1" ;;
    esac
}

# listed COMMAND: the options that --help explains, one a line, sorted.
listed() {
    "$1" --help | grep -E '^  (-[a-zA-Z0-9], |    )--[a-z]' | grep -oE '^ *(-[a-zA-Z0-9], )?--[a-z0-9-]+' |
        grep -oE -- '--?[a-zA-Z0-9-]+' | sort
}

# each_offers SHELL: whether OFFERED_BY_SHELL FILE NAME prints the options that are listed, for every program.
each_offers() {
    local source command name wrong=0
    for source in stages/*.c pipelines/*; do
        command=$(command_of "$source") || continue
        name=${command##*/}
        packaging/completion "$1" "$command" >"$T/$name"
        [ -n "$(listed "$command")" ]
        diff <(listed "$command") <("offered_by_$1" "$T/$name" "$name" | sort) >"$T/diff" ||
            { echo "$name:" && cat "$T/diff" && wrong=1; }
    done
    return "$wrong"
}

# completed FILE WORD...: what bash offers for the last word of a command line.
# shellcheck disable=SC2016 # for the inner shell
completed() {
    env -i PATH="$PATH" bash -c '
        . "$1"
        COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
        command=$(complete -p "$2") # "complete -o default -F FUNCTION NAME"
        read -ra command <<<"$command"
        "${command[4]}"
        [ ${#COMPREPLY[@]} = 0 ] || printf "%s\n" "${COMPREPLY[@]}"' - "$@"
}

offered_by_bash() {
    completed "$1" "$2" -
}

# The words that _arguments is given: "(-j --threads)-j+[help]:N: ", "*:file:_files".
offered_by_zsh() {
    zsh -f -c '_arguments() { print -rl -- "$@" }; . "$1"' - "$1" |
        sed -E -n 's/^(\([^)]*\)|\*)?(--?[a-zA-Z0-9][a-z0-9-]*)[+=]?\[.*/\2/p'
}

# fish lists both names of an option for "--", and the letters for "-".
offered_by_fish() {
    for word in - --; do
        HOME=$T fish --no-config -c ". '$1'; complete -C '$2 $word'"
    done | cut -f1 | sort -u
}

@test "bash offers every option of every program that --help lists, and no other" {
    each_offers bash
}

@test "zsh offers every option of every program that --help lists, and no other" {
    each_offers zsh
}

@test "fish offers every option of every program that --help lists, and no other" {
    each_offers fish
}

@test "bash completes options, their choices and nothing where a value is free" {
    packaging/completion bash pipelines/v4-experts >"$T/v4"
    packaging/completion bash "$BIN/st-sum" >"$T/sum"
    [ "$(completed "$T/v4" v4-experts source --all)" = $'--all-experts\n--allow-zeros' ]
    [ "$(completed "$T/v4" v4-experts --device '')" = $'cpu\ncuda' ]
    [ "$(completed "$T/v4" v4-experts --device cu)" = cuda ]
    [ "$(completed "$T/v4" v4-experts --device = cu)" = cuda ]
    [ "$(completed "$T/v4" v4-experts --device =)" = $'cpu\ncuda' ]
    [ "$(completed "$T/v4" v4-experts --scale-search '')" = $'max\nmse\n4over6\nhessian' ]
    [ "$(completed "$T/sum" st-sum -a x)" = xxh128 ]
    [ -z "$(completed "$T/v4" v4-experts --jobs '')" ]
    [ -z "$(completed "$T/v4" v4-experts --amax --all)" ] # a file of that name: bash offers files
}

@test "a terminal's bash completes options, choices and files" {
    packaging/completion bash "$BIN/amax-calib" >"$T/calib"
    : >"$T/tokens.ts"
    printf '. ./calib\namax-calib --resume-d\t --device=cu\t --tokens tok\t -j \t\x01echo \x05 >line\nexit\n' |
        (cd "$T" && env -i PATH="$PATH" TERM=dumb bash --norc --noprofile -i) &>"$T/log"
    cat "$T/log"
    [ "$(cat "$T/line")" = 'amax-calib --resume-discard --device=cuda --tokens tokens.ts -j' ]
}

# shellcheck disable=SC2016 # for the inner shells
@test "a terminal's zsh completes options and choices" {
    packaging/completion zsh pipelines/v4-experts >"$T/_v4-experts"
    HOME=$T timeout 60 zsh -f -c '
        zmodload zsh/zpty
        zpty terminal zsh -f -i
        zpty -w terminal "fpath=(${(q)1} \$fpath); autoload -U compinit; compinit -D -u"
        zpty -w -n terminal $2
        while zpty -r terminal line; do print -r -- $line; done' - "$T" \
        $'v4-experts --device=cu\t--draf\tke\t --verb\t >$HOME/line\x01echo \nexit\n' >"$T/log"
    cat -v "$T/log"
    [ "$(cat "$T/line")" = 'v4-experts --device=cuda --drafts=keep --verbose' ]
}

@test "fish completes options, choices and files" {
    packaging/completion fish pipelines/v4-experts >"$T/v4-experts.fish"
    : >"$T/text.jsonl"
    fish_completes() {
        (cd "$T" && HOME=$T fish --no-config -c ". v4-experts.fish; complete -C 'v4-experts $1'") | cut -f1 | sort
    }
    [ "$(fish_completes '--all')" = $'--all-experts\n--allow-zeros' ]
    [ "$(fish_completes '--device ')" = $'cpu\ncuda' ]
    [ "$(fish_completes '--eval te')" = text.jsonl ]
    [ -z "$(fish_completes '--jobs te')" ]
}

@test "completion: a help text that it cannot read is an error" {
    printf '#!/bin/sh\necho usage\n' >"$T/none"
    printf '#!/bin/sh\necho usage: x; echo; echo "      --save FILE keep it"\n' >"$T/narrow"
    chmod +x "$T/none" "$T/narrow"
    run packaging/completion bash "$T/none"
    [ "$status" -eq 1 ]
    [ "$output" = 'completion: none: no options in its --help' ]
    run packaging/completion bash "$T/narrow"
    [ "$status" -eq 1 ]
    [ "$output" = 'completion: narrow: no two spaces before the help of --save' ]
    run packaging/completion tcsh "$T/none"
    [ "$status" -eq 2 ]
}
