# Pipelines with a stage that does something else first. For a file that loads common, too.

PATH=$PWD/pipelines:$PATH

prepare() {
    mkdir "$T/bin"
    ln -s "$PWD/$BIN"/* "$T/bin"
    export SEEKPIPE_BIN=$T/bin
    run=(v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out")
}

# instead PROGRAM COMMAND: where PROGRAM works, not where it plans or answers, it runs this before.
instead() {
    rm "$T/bin/$1"
    cat >"$T/bin/$1" <<SH
#!/bin/sh
case " \$* " in *' -n '* | *' --todo'* | *' --state '*) exec "$PWD/$BIN/$1" "\$@" ;; esac
$2
exec "$PWD/$BIN/$1" "\$@"
SH
    chmod +x "$T/bin/$1"
}

# as_before PROGRAM: it is itself again.
as_before() {
    ln -sf "$PWD/$BIN/$1" "$T/bin/$1"
}
