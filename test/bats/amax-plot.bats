load common
load craft

PATH=$PWD/pipelines:$PATH
export SEEKPIPE_BIN=$PWD/$BIN COLUMNS=80

# calibration FILE: an amax stream of 3 layers (one of them MTP's) and 4 experts, with counts of tokens.
# Input amaxes are 1, but for 16 of layer 1's expert 0, weight amaxes 0.5; expert 2 of layer 1 is cold.
calibration() {
    local header='' data='' offset=0 layer expert
    # scalar NAME DTYPE SIZE BYTES
    scalar() {
        header+=",\"$1\":{\"dtype\":\"$2\",\"shape\":[],\"data_offsets\":[$offset,$((offset + $3))]}"
        data+=$4
        offset=$((offset + $3))
    }
    for layer in layers.0 layers.1 mtp.0; do
        for expert in 0 1 2 3; do
            local name=$layer.ffn.experts.$expert one='\x00\x00\x80\x3f' half='\x00\x00\x00\x3f' tokens='\x64'
            [ "$layer.$expert" != layers.1.0 ] || one='\x00\x00\x80\x41'
            [ "$layer.$expert" != layers.1.2 ] || tokens='\x00'
            for w in w1 w2 w3; do
                [ $tokens = '\x00' ] || scalar "$name.${w}_input_quantizer._amax" F32 4 "$one"
                scalar "$name.${w}_weight_quantizer._amax" F32 4 "$half"
            done
            scalar "$name.tokens" I64 8 "$tokens"'\x00\x00\x00\x00\x00\x00\x00'
        done
    done
    safetensors "$T/crafted.safetensors" "{${header#,}}" "$data"
    amax-merge -q --fallback layer-max -o "$1" "$T/crafted.safetensors"
}

needs_gnuplot() {
    command -v gnuplot >/dev/null || skip 'gnuplot is not here'
}

# size FILE: width and height of a PNG.
size() {
    [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ]
    od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }'
}

@test "text: three maps; a cold expert is an X, though its amax was filled in; its weight is known" {
    calibration "$T/amax.ts"
    amax-plot "$T/amax.ts" >"$T/text"
    diff - "$T/text" <<'TEXT'
3 layers of 4 experts; 1 of 12 reached by no token (X)

input amax of w1: 0 is 1, 9 is 16, on a logarithmic scale
 layer  0
     0  000000000000
     1  999000XXX000

 mtp 0  000000000000

weight amax of w1: 0.5 everywhere
 layer  0
     0  444444444444
     1  444444444444

 mtp 0  444444444444

tokens: 100 everywhere
 layer  0
     0  444444444444
     1  444444XXX444

 mtp 0  444444444444

TEXT
}

@test "numbers have three digits and no exponent; the model's name, whatever is in it" {
    cd "$T"
    st-tokenize -q --tokenizer "$NANO" --samples 2 --length 32 "$OLDPWD/test/data/text/calib-prose.jsonl" -o ids.ts
    amax-calib -q --tokens ids.ts -o amax.ts "$NANO"
    st-ls --header amax.ts | jq -e '.counts[-1].model == "ckpt"'
    run amax-plot amax.ts
    [ "$status" = 0 ]
    [[ ${lines[0]} == 'ckpt: 4 layers of 16 experts; '* ]]
    # shellcheck disable=SC2016 # a name, not a command
    cp -r "$NANO" "$(printf '%s' 'a" `touch it` $(touch it)_b')"
    amax-calib -q --tokens ids.ts -o odd.ts a*b
    run amax-plot <odd.ts
    [ "$status" = 0 ]
    [[ ${lines[0]} == 'a'*'touch?it'*'_b: 4 layers of 16 experts; '* ]]
    if command -v gnuplot; then amax-plot -o odd.png odd.ts; fi
    [ ! -e it ]
    # 1580.4, 12345678 and 0.00123456.
    for w in '\xcd\x8c\xc5\x44 1580' '\x4e\x61\x3c\x4b 12300000' '\xf6\xd0\xa1\x3a 0.00123'; do
        safetensors one.safetensors "$(printf '{"%s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' \
            layers.0.ffn.experts.0.w1_input_quantizer._amax)" "${w% *}"
        amax-merge -q -o one.ts one.safetensors
        amax-plot one.ts | grep -F "input amax of w1: ${w#* } everywhere"
    done
}

@test "colour: on a terminal unless NO_COLOR is set, always, or never" {
    calibration "$T/amax.ts"
    # coloured COMMAND...: how many lines of its output have colours.
    coloured() { "$@" | grep -c $'\e\[38;5;' || true; }
    on_terminal() { script -qec "$*" /dev/null </dev/null; }
    [ "$(coloured amax-plot "$T/amax.ts")" = 0 ]
    [ "$(coloured amax-plot --color always "$T/amax.ts")" -gt 0 ]
    [ "$(coloured on_terminal env TERM=xterm amax-plot "$T/amax.ts")" -gt 0 ]
    [ "$(coloured on_terminal env TERM=xterm NO_COLOR=1 amax-plot "$T/amax.ts")" = 0 ]
    [ "$(coloured on_terminal env TERM=xterm amax-plot --color=never "$T/amax.ts")" = 0 ]
    # A terminal that draws no colours, or of which this machine has not heard.
    [ "$(coloured on_terminal env TERM=dumb amax-plot "$T/amax.ts")" = 0 ]
    [ "$(coloured on_terminal env TERM=xterm-unheard-of amax-plot "$T/amax.ts")" -gt 0 ]
    run amax-plot --color sometimes "$T/amax.ts"
    [ "$status" = 2 ]
}

@test "options after the stream, and --version, as everywhere" {
    calibration "$T/amax.ts"
    cmp <(amax-plot "$T/amax.ts" --projection w2) <(amax-plot --projection=w2 "$T/amax.ts")
    [ "$(amax-plot --version)" = "$(st-read --version | sed 's/^st-read/amax-plot/')" ]
    cmp <(amax-plot "$T/amax.ts") <(COLUMNS=wide amax-plot --col=never "$T/amax.ts")
    cp "$T/amax.ts" "$T/-v"
    cd "$T" && amax-plot -- -v | grep -q '3 layers'
}

@test "a dump without counts: the expert that misses its amaxes is cold" {
    amaxes "$T/amax.ts"
    pt-read "$NANO_AMAX" | tee "$T/dump.ts" >/dev/null
    for stream in amax dump; do
        for w in w1 w2 w3; do
            amax-plot --projection $w <"$T/$stream.ts" >"$T/text"
            grep -qx '4 layers of 16 experts; 1 of 64 reached by no token (X)' "$T/text"
            # Layer 3's expert 13, in both maps.
            [ "$(grep -cE '^     3  [0-9]{39}XXX[0-9]{6}$' "$T/text")" = 2 ]
            [ "$(grep -c tokens "$T/text")" = 0 ]
        done
    done
}

@test "experts that are too many for a line share a character" {
    # 100 experts in 50 characters: three were reached, by 5, 1 and 1 tokens.
    header='' data=''
    for expert in 96 97 99; do
        header+=",\"layers.0.ffn.experts.$expert.tokens\":{\"dtype\":\"I64\",\"shape\":[],"
        header+="\"data_offsets\":[$((${#data} / 4)),$((${#data} / 4 + 8))]}"
        [ $expert = 96 ] && data+='\x05' || data+='\x01'
        data+='\x00\x00\x00\x00\x00\x00\x00'
    done
    safetensors "$T/far.safetensors" "{${header#,}}" "$data"
    COLUMNS=58 amax-plot "$T/far.safetensors" >"$T/text"
    printf -v cold '%48s' ''
    diff - "$T/text" <<TEXT
1 layers of 100 experts; 97 of 100 reached by no token (X)

tokens, fewest of each 2 experts: 0 is 1, 9 is 5, on a logarithmic scale
 layer  0                 36                72
     0  ${cold// /X}0X

TEXT
}

@test "-o: a PNG, put in place when it is complete" {
    needs_gnuplot
    calibration "$T/amax.ts"
    DISPLAY='' amax-plot -o "$T/amax.png" "$T/amax.ts" 2>"$T/messages"
    [ ! -s "$T/messages" ]
    [ "$(size "$T/amax.png")" = '1500 670' ]
    [ ! -e "$T/amax.png.partial" ]
    # One layer, one expert: no image of gnuplot's own is that small.
    st-grep 'layers\.1\..*experts\.0\.' "$T/amax.ts" | amax-plot -o "$T/one.png" 2>"$T/messages"
    [ ! -s "$T/messages" ]
    size "$T/one.png"
}

@test "the model's own size, 61 layers of 384 experts" {
    needs_gnuplot
    "$BIN/test/mkckpt" -q --model pro --amax "$T/amax.ts" "$T/pro"
    amax-plot -o "$T/amax.png" "$T/amax.ts" 2>"$T/messages"
    [ ! -s "$T/messages" ]
    size "$T/amax.png"
}

@test "gnuplot is not here: what to install" {
    calibration "$T/amax.ts"
    mkdir "$T/path"
    for program in bash basename dirname getopt readlink mktemp rm; do ln -s "$(command -v $program)" "$T/path"; done
    PATH=$T/path run bash pipelines/amax-plot -o "$T/amax.png" "$T/amax.ts"
    [ "$status" -eq 1 ]
    [[ $output == *gnuplot-nox* ]]
    [ ! -e "$T/amax.png" ]
}

@test "what is no amax stream, or broken, makes no picture" {
    run amax-plot "$NANO"
    [ "$status" -eq 1 ]
    [[ $output == *"$NANO: no amaxes and no tokens of routed experts in it"* ]]
    calibration "$T/amax.ts"
    head -c 5000 "$T/amax.ts" >"$T/cut.ts"
    run amax-plot "$T/cut.ts"
    [ "$status" -eq 1 ]
    [[ ${lines[-1]} == 'amax-plot: st-stat failed (exit 1); nothing was drawn' ]]
    [[ $output != *'layers of'* ]]
}

@test "-o: never the stream that is drawn, by whatever name" {
    needs_gnuplot
    calibration "$T/amax.ts"
    cp "$T/amax.ts" "$T/before"
    ln -s amax.ts "$T/link"
    for command in "-o $T/amax.ts $T/amax.ts" "-o$T/link $T/amax.ts" "-o $T/amax.ts <$T/amax.ts"; do
        eval "run amax-plot $command"
        [ "$status" -eq 2 ]
        [[ $output == *'is also read; name another file'* ]]
        cmp "$T/before" "$T/amax.ts"
    done
}

@test "wrong command lines" {
    amaxes "$T/amax.ts"
    for arguments in "--projection w4 $T/amax.ts" '--projection' '-x' 'a b' '-o' "-o $T" "-o $T/none/a.png" '-o -x'; do
        # shellcheck disable=SC2086
        run amax-plot $arguments
        [ "$status" -eq 2 ]
    done
}
