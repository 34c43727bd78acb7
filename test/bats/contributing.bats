# CONTRIBUTING.md and CHANGELOG.md speak of what is there.
# shellcheck disable=SC2016 # backticks are the documents'
load common

# quoted: what CONTRIBUTING.md has between backticks, one a line.
quoted() {
    grep -oE '`[^`]+`' CONTRIBUTING.md | tr -d '`'
}

@test "every file and folder that CONTRIBUTING.md names is there" {
    quoted | tr " ='" '\n' | grep -E '^(\.ci|common|stages|man|pipelines|test|bin/test)/' >"$T/paths"
    [ "$(wc -l <"$T/paths")" -gt 20 ]
    while read -r path; do
        case $path in
        *NAME*) path=${path%/*NAME*} path=${path/MODEL_TYPE/deepseek_v4} ;;
        bin/*) path=$BIN/${path#bin/} ;;
        esac
        [ -e "$path" ] || { echo "$path" && missing=1; }
    done <"$T/paths"
    [ -z "${missing-}" ]
}

@test "every target that CONTRIBUTING.md names is one of make help" {
    make -s help >"$T/help"
    quoted | sed -n 's/^make \([a-z-]*\).*/\1/p' | sort -u >"$T/targets"
    [ "$(wc -l <"$T/targets")" -gt 10 ]
    while read -r target; do
        grep -q "^make $target " "$T/help" || { echo "$target" && missing=1; }
    done <"$T/targets"
    [ -z "${missing-}" ]
}

@test "the first entry of CHANGELOG.md is of the version that programs print" {
    version=$(st-ls --version)
    [[ $(grep -m 1 '^## ' CHANGELOG.md) =~ ^"## ${version##* } ("(not released yet|20[0-9][0-9]-[01][0-9]-[0-3][0-9])")"$ ]]
}

@test "every program that CHANGELOG.md names is there" {
    grep -oE '`(st|amax|v[34]|pt|fp8|nvfp4|mxfp4)-[a-z0-9]+`' CHANGELOG.md | tr -d '`' | sort -u >"$T/programs"
    [ -s "$T/programs" ]
    while read -r program; do
        [ -x "$BIN/$program" ] || [ -x "pipelines/$program" ] || { echo "$program" && missing=1; }
    done <"$T/programs"
    [ -z "${missing-}" ]
}
