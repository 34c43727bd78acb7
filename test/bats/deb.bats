# The Debian package, of the programs as they are: `make deb` builds them, with Debian's options, and takes longer.
load common

setup_file() {
    local program
    export LACKS=''
    for program in dh dpkg-buildpackage; do
        command -v $program >/dev/null || LACKS=$program
    done
    dpkg-query -W build-essential >/dev/null 2>&1 || LACKS=build-essential
    [ -z "$LACKS" ] || return 0
    export DEB=$BATS_FILE_TMPDIR/deb ROOT=$BATS_FILE_TMPDIR/root
    VERSION=$("$BIN/st-ls" --version)
    export VERSION=${VERSION##* }
    BUILT=$PWD/$BIN packaging/deb "$VERSION" "$DEB" >"$BATS_FILE_TMPDIR/said" 2>&1 ||
        { cat "$BATS_FILE_TMPDIR/said" && false; }
    dpkg-deb -x "$DEB"/seekpipe_*.deb "$ROOT"
}

prepare() {
    [ -z "$LACKS" ] || skip "no $LACKS"
}

@test "one package, of the programs' version; CUDA's is left out if it is not asked for" {
    [ "$(cd "$DEB" && printf '%s\n' *.deb | grep -v dbgsym)" = "seekpipe_${VERSION}_$(dpkg --print-architecture).deb" ]
    [ "$(dpkg-deb -f "$DEB"/seekpipe_*.deb Version)" = "$VERSION" ]
    [ "$("$ROOT/usr/bin/st-ls" --version)" = "st-ls (seekpipe) $VERSION" ]
    tail -n 1 "$BATS_FILE_TMPDIR/said" | grep -q "^deb: to install: apt install .*/seekpipe_${VERSION}_"
}

@test "every program has its page and what completes it, where Debian's man and shells look" {
    for program in "$ROOT"/usr/bin/*; do
        name=${program##*/}
        gzip -t "$ROOT/usr/share/man/man1/$name.1.gz"
        [ -s "$ROOT/usr/share/bash-completion/completions/$name" ]
        [ -s "$ROOT/usr/share/zsh/vendor-completions/_$name" ]
        [ -s "$ROOT/usr/share/fish/vendor_completions.d/$name.fish" ]
    done
    [ "$name" = v4-full ]
}

@test "what autopkgtest runs, from the package alone" {
    command=$(sed -n 's/^Test-Command: //p' packaging/debian/tests/control | head -n 1)
    [ -n "$command" ]
    AUTOPKGTEST_TMP=$T PATH=$ROOT/usr/bin:/usr/bin:/bin run sh -c "$command"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'perplexity  '*' faults 0, '* ]]
}

@test "the package is built with what make deps-build installs" {
    # gcc's own packages have libc6-dev and OpenMP
    diff <(sed -n '/^build=/,/dnnl.h/p' test/tools/setup | grep -oE '[^ ]+-dev' | grep -vE '^lib(c6|omp)-' | sort) \
        <(grep -oE 'lib[a-z0-9-]+-dev' packaging/debian/control | sort)
}
