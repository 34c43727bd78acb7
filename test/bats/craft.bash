# Small inputs made by hand.

# le64 N: N as 8 bytes, little-endian.
le64() {
    local i n=$1 text='' byte
    for ((i = 0; i < 8; i++)); do
        printf -v byte '\\x%02x' $((n >> 8 * i & 255))
        text+=$byte
    done
    printf '%b' "$text"
}

# safetensors FILE HEADER [DATA]: a .safetensors file of that JSON header (ASCII) and data (escapes as
# printf '%b' takes them: \x00).
safetensors() {
    { le64 ${#2} && printf '%s' "$2" && printf '%b' "${3-}"; } >"$1"
}

# add NAME DTYPE SHAPE SIZE BYTE: a tensor of SIZE equal bytes more in $header and $data, of which a caller makes a
# file with safetensors; $at is where the next one begins.
add() {
    local bytes
    printf -v bytes "%$4s" ''
    header+="${header:+,}\"$1\":{\"dtype\":\"$2\",\"shape\":$3,\"data_offsets\":[$at,$((at + $4))]}"
    data+=${bytes// /$5}
    at=$((at + $4))
}

# random_ids FILE SAMPLES LENGTH [FIRST]: token ids below 4096 that look random, from FIRST (7) on, and depend
# on nothing, as a .safetensors file.
random_ids() {
    local count=$(($2 * $3))
    safetensors "$1" "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[$2,$3],\"data_offsets\":[0,$((4 * count))]}}" \
        "$(awk -v n=$count -v x="${4-7}" 'BEGIN { while (n--) { x = (x * 75 + 74) % 65537; printf "\\x%02x\\x%02x\\x00\\x00", x % 256, int(x / 256) % 16 } }')"
}

# refused PATTERN COMMAND...: COMMAND ends soon, with exit code 1 and one line on standard error, in which
# the extended regular expression PATTERN is found after "program: ".
refused() {
    local pattern="^[a-z0-9-]+: .*($1)" status=0 line
    shift
    timeout 20 "$@" >/dev/null 2>"$T/refused" || status=$?
    mapfile -t line <"$T/refused"
    [ "$status,${#line[@]}" = 1,1 ] && [[ ${line[0]} =~ $pattern ]] && return
    printf '%s\n' "$*: wanted exit 1 and one line with '$pattern', got exit $status and:" "${line[@]}"
    return 1
}

# tar_entry NAME SIZE [TYPE [LINK [SUM]]]: a tar header of any kind, right or wrong; the data are the caller's.
# TYPE: 0 file (default), 1 hard link, 2 symbolic link, 5 folder, x pax header, ...
tar_entry() {
    local sum=${5-}
    [ -n "$sum" ] ||
        sum=$(tar_header '        ' "$@" | od -An -v -tu1 | awk '{ for (i = 1; i <= NF; i++) n += $i } END { printf "%06o", n }')
    tar_header "$sum\0 " "$@"
}

# tar_header SUM NAME SIZE [TYPE [LINK]]: the same with SUM as its checksum.
tar_header() {
    local LC_ALL=C nul
    printf -v nul '%155s' ''
    nul=${nul// /'\0'}
    printf "%s${nul:0:2*(100 - ${#2})}" "$2"
    printf '%07o\0%07o\0%07o\0%011o\0%011o\0%b%s' 420 0 0 "$3" 0 "$1" "${4-0}"
    printf "%s${nul:0:2*(100 - ${#5})}" "${5-}"
    # shellcheck disable=SC2059 # NULs are the format
    printf "ustar\\00000${nul:0:2*(80 + 12)}$nul"
}

# pad SIZE: the zeros that fill SIZE bytes up to whole tar blocks.
pad() {
    head -c $(((512 - $1 % 512) % 512)) /dev/zero
}

# entry NAME TEXT: a regular file of that text (as it is) in a tar stream.
entry() {
    tar_entry "$1" ${#2} && printf '%s' "$2" && pad ${#2}
}

# reference NAME TEXT: a symbolic link.
reference() {
    tar_entry "$1" 0 2 "$2"
}

# pax NAME KEY=VALUE...: a pax header for the entry after it.
pax() {
    local LC_ALL=C record text='' length
    for record in "${@:2}"; do
        # The length counts itself, two to four digits, a space and a newline.
        length=$((${#record} + (${#record} < 96 ? 4 : ${#record} < 995 ? 5 : 6)))
        text+="$length $record"$'\n'
    done
    tar_entry "$1" ${#text} x && printf '%s' "$text" && pad ${#text}
}

# unpack SOURCE: a checkpoint's or stream's entries, to be changed, as files in $T/tree, their order in $T/order.
unpack() {
    rm -rf "$T/tree"
    mkdir "$T/tree"
    st-read --inline "$1" >"$T/inline.ts"
    tar xf "$T/inline.ts" -C "$T/tree"
    tar tf "$T/inline.ts" >"$T/order"
}

# unseal [FOLDER]: take the digest, which no longer fits, from the trailer of what was unpacked (in $T/tree).
unseal() {
    jq -c 'del(.digest)' "${1-$T/tree}/.end" >"$T/end"
    mv "$T/end" "${1-$T/tree}/.end"
}

# pack STREAM: these as a stream again, in the order of .toc, with an .end that fits.
pack() {
    local sizes=()
    mapfile -t sizes < <(cut -f1 "$T/tree/.toc" | (cd "$T/tree" && xargs -d '\n' stat -L -c %s --))
    jq -c --argjson tensors "${#sizes[@]}" --argjson bytes "$((0${sizes[*]/#/+}))" \
        '.tensors = $tensors | .bytes = $bytes | del(.digest)' "$T/tree/.end" >"$T/end"
    mv "$T/end" "$T/tree/.end"
    { grep -E '^(\.stream|\.toc|files/.*)$' "$T/order" && cut -f1 "$T/tree/.toc" && echo .end; } >"$T/packed"
    tar -C "$T/tree" --format=ustar --hard-dereference --owner=0 --group=0 --no-recursion -cf "$1" --verbatim-files-from -T "$T/packed"
}

# to_fp8 NAMES: of what was unpacked, MXFP4 matrices with a module that matches this regular expression become
# FP8 ones, all 1.0, with a scale a block of 128 x 128.
to_fp8() {
    local name rows cols
    awk -F'\t' -v OFS='\t' -v names="^($1)[.](weight|scale)$" -v blocks="$T/blocks" '
        $1 ~ names && $2 == "I8" {
            split(substr($3, 2), n, /[],]/)
            $2 = "F8_E4M3"; $3 = "[" n[1] "," 2 * n[2] "]"
            print $1, n[1], 2 * n[2] >blocks }
        $1 ~ names && $2 == "F8_E8M0" {
            split(substr($3, 2), n, /[],]/)
            $3 = "[" int((n[1] + 127) / 128) "," int((32 * n[2] + 127) / 128) "]" }
        1' "$T/tree/.toc" >"$T/toc"
    mv "$T/toc" "$T/tree/.toc"
    while read -r name rows cols; do
        head -c $((rows * cols)) /dev/zero | tr '\0' '\70' >"$T/tree/$name"
        rows=$(((rows + 127) / 128)) cols=$(((cols + 127) / 128))
        head -c $((rows * cols)) /dev/zero | tr '\0' '\177' \
            >"$T/tree/${name%weight}scale"
    done <"$T/blocks"
}

# dump FILE LAYERS EXPERTS: a calibration of the first LAYERS layers' first EXPERTS experts, as V4's names have
# them: every input amax is 1.
dump() {
    local header data count=$(($2 * $3 * 3))
    header=$(jq -nc --argjson layers "$2" --argjson experts "$3" '
        [range($layers) as $l | range($experts) as $e | "w1", "w2", "w3"
            | "layers.\($l).ffn.experts.\($e).\(.)_input_quantizer._amax"] | to_entries
            | map({key: .value, value: {dtype: "F32", shape: [], data_offsets: [.key * 4, .key * 4 + 4]}}) | from_entries')
    printf -v data '\\0\\0\\x80\\x3f%.0s' $(seq "$count")
    safetensors "$1" "$header" "$data"
}

# spoil TENSOR BYTES [CHECKPOINT]: in a copy of the checkpoint (of the bundled one), $T/ckpt, what the tensor's
# first bytes become.
spoil() {
    local source=${3:-$NANO} place file offset
    rm -rf "$T/ckpt"
    cp -r "$source" "$T/ckpt"
    chmod -R u+w "$T/ckpt"
    place=$(st-read "$source" | tar tvf - | sed -n "s/.* $1 -> //p")
    file=${place%@*} offset=${place#*@}
    # shellcheck disable=SC2059 # escapes
    printf "$2" | dd of="$T/ckpt/$file" bs=1 seek="${offset%+*}" conv=notrunc status=none
}

# stopped_at CALL N DO COMMAND...: run COMMAND, stop it after its N-th CALL, and run DO meanwhile. Sets status.
stopped_at() {
    local stopped=''
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    : >"$T/log"
    strace -f -o "$T/log" -e "trace=$1" -e "inject=$1:signal=SIGSTOP:when=$2" "${@:4}" 2>"$T/said" 3>&- &
    until [ -n "$stopped" ]; do
        kill -0 $!
        sleep 0.02
        [ ! -e "$T/log" ] || stopped=$(awk '/stopped by SIGSTOP/ { print $1; exit }' "$T/log")
    done
    "$3"
    kill -CONT "$stopped"
    status=0
    wait $! || status=$?
}

# write_script FILE LINE...: a program of these lines for sh.
write_script() {
    printf '%s\n' '#!/bin/sh' "${@:2}" >"$1"
    chmod +x "$1"
}
