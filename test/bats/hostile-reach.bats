# What a stream's references and a folder's links lead to is read with the rights of whoever reads it.

load common
load craft

prepare() {
    # $T is private, as mktemp makes it.
    mkdir "$T/home" "$T/c"
    head -c 2000000 /dev/zero | tr '\0' s >"$T/home/secret"
    printf '0123456789' >"$T/c/m.safetensors"
}

# leads FILE: a stream, $T/a.ts, whose tensor's bytes are FILE's, and whose checkpoint is in $T/c.
leads() {
    stream "$1" "$T/c" a "${1##*/}"
}

# stream FILE SOURCE ENTRY LABEL: one of that entry, which refers to FILE, of a checkpoint in SOURCE.
stream() {
    local size mtime fraction
    read -r size mtime < <(stat -Lc '%s %.9Y' "$1")
    fraction=${mtime#*.}
    local bytes=$size
    [ "$3" = a ] || bytes=4
    header=$(printf '{"format":"tensor-stream","version":1,"scope":"all","source":"%s","files":{"%s":{"path":"%s","size":%d,"mtime_ns":%s}},"quant":{},"history":[]} ' \
        "$2" "$4" "$1" "$size" "${mtime%.*}$fraction")
    {
        entry .stream "$header"
        entry .toc $'a\tU8\t['"$bytes"$']\tm.safetensors\tdata\n'
        reference "$3" "$4@0+$size"
        [ "$3" = a ] || entry a abcd
        entry .end "{\"tensors\":1,\"bytes\":$bytes,\"plan\":false,\"counts\":[]}"$'\n'
        head -c 1024 /dev/zero
    } >"$T/a.ts"
}

# kept_out PATTERN: no program passes the bytes of $T/a.ts on.
kept_out() {
    refused "$1" st-write --partial "$T/out" "$T/a.ts"
    refused "$1" st-read --inline -o "$T/b.ts" "$T/a.ts"
    [ ! -e "$T/out" ] && [ ! -e "$T/b.ts" ]
    rm -rf "$T/out.partial"
}

@test "a stream's tensor leads to another's file" {
    wrong="home/secret: leads to $T/home/secret, which is private, .* give its folder's absolute path in .SEEKPIPE_ALLOW"
    leads "$T/home/secret"
    kept_out "$wrong"
    refused "$wrong" st-stat "$T/a.ts"
    refused "$wrong" st-sum "$T/a.ts"
    # A link does not hide it, nor one among the folders.
    ln -s "$T/home/secret" "$T/c/x.safetensors"
    leads "$T/c/x.safetensors"
    kept_out "c/x.safetensors: leads to $T/home/secret"
    ln -s "$T/home" "$T/c/sub"
    leads "$T/c/sub/secret"
    kept_out "c/sub/secret: leads to $T/home/secret"
    # That the stream calls its folder the checkpoint's is not enough.
    stream "$T/home/secret" "$T/home" a secret
    kept_out "$wrong"
    stream "$T/home/secret" / a secret
    kept_out "$wrong"
    # It may be named; others may not.
    leads "$T/home/secret"
    for allow in "$T/hom" "$T/home/s" "$T/c" relative ''; do
        SEEKPIPE_ALLOW=$allow kept_out "$wrong"
    done
    SEEKPIPE_ALLOW="/none:$T/home/" st-write -q --partial "$T/out" "$T/a.ts"
    rm -r "$T/out"
    # What everybody may read is nobody's secret.
    chmod 755 "$T" "$T/home"
    chmod 644 "$T/home/secret"
    st-write -q --partial "$T/out" "$T/a.ts"
    rm -r "$T/out"
    chmod 711 "$T/home" && st-write -q --partial "$T/out" "$T/a.ts"
    chmod 700 "$T/home" && rm -r "$T/out" && kept_out "$wrong"
}

@test "a side file does, and is small" {
    stream "$T/home/secret" "$T/c" files/LICENSE LICENSE
    kept_out 'home/secret: leads to'
    echo key >"$T/home/id_rsa"
    stream "$T/home/id_rsa" "$T/home" files/LICENSE LICENSE
    kept_out 'files/LICENSE: a side file of up to 1 MiB by reference; not made by st-read'
}

@test "links out of a folder that was downloaded" {
    cp -r "$NANO" "$T/d"
    chmod -R u+w "$T/d"
    ln -s ../home/secret "$T/d/LICENSE"
    refused "d/LICENSE: leads to $T/home/secret, which is private" st-read -o "$T/b.ts" "$T/d"
    SEEKPIPE_ALLOW=$T/home st-read -o "$T/b.ts" "$T/d"
    # It is allowed for each program that reads the bytes.
    refused "leads to $T/home/secret" st-write -q "$T/out" "$T/b.ts"
    SEEKPIPE_ALLOW=$T/home st-write -q "$T/out" "$T/b.ts"
    rm "$T/d/LICENSE"
    # Within the folder, and to tensors elsewhere.
    ln -s config.json "$T/d/copy.json"
    mkdir "$T/disk"
    mv "$T/d/model-00001-of-00003.safetensors" "$T/disk/"
    ln -s "$T/disk/model-00001-of-00003.safetensors" "$T/d/"
    pipeline "st-read '$T/d' | tee '$T/mid.ts' | st-write -q '$T/out2'"
    (cd / && st-sum "$T/mid.ts") >"$T/sum"
    mv "$T/d" "$T/e"
    mkdir "$T/elsewhere"
    (cd "$T/elsewhere" && st-read --root "$T/d=$T/e" ../mid.ts | st-sum) | diff - "$T/sum"
    # A snapshot of Hugging Face's cache: blobs beside it.
    mkdir -p "$T/hub/blobs" "$T/hub/snapshots/abc"
    for file in "$NANO"/*.*; do
        cp "$file" "$T/hub/blobs/${file##*/}.blob"
        ln -s "../../blobs/${file##*/}.blob" "$T/hub/snapshots/abc/${file##*/}"
    done
    pipeline "st-read '$T/hub/snapshots/abc' | st-write -q '$T/out3'"
}

@test "what is written is no more readable than what it is made of, and where from is said" {
    umask 022
    cp -r "$NANO" "$T/d"
    chmod -R u+w,go+r "$T/d"
    mode() { stat -c %a "$T/out/$1"; }
    pipeline "st-read '$T/d' | st-write -q '$T/out'"
    [ "$(mode config.json),$(mode model-00001-of-00003.safetensors),$(mode .)" = 644,644,755 ]
    rm -r "$T/out"
    # A shard, a small side file, which is inside of the stream, and a large one.
    head -c 2000000 /dev/zero >"$T/d/large.txt"
    for file in model-00002-of-00003.safetensors generation_config.json large.txt; do
        for bits in 600 640; do
            chmod $bits "$T/d/$file"
            rm -f "$T/mid.ts" # what an old file may not, a new one may not, either
            pipeline "st-read '$T/d' | fp8-dequant -o '$T/mid.ts'"
            st-write -q "$T/out" <"$T/mid.ts"
            [ "$(mode config.json),$(mode model-00001-of-00003.safetensors),$(mode $file)" = $bits,$bits,$bits ]
            [ "$(mode .),$(stat -c %a "$T/mid.ts")" = "$([ $bits = 600 ] && echo 700,600 || echo 750,640)" ]
            rm -r "$T/out"
            st-write -q "$T/out" "$T/d"
            [ "$(mode $file)" = $bits ]
            rm -r "$T/out"
        done
        chmod 644 "$T/d/$file"
    done
    st-read "$T/d" | st-write -n "$T/out" | grep -qx "from  $T/d"
    st-read "$T/d" | st-write -n --json "$T/out" | jq -e --arg from "$T/d" '.folders == [$from]'
    [ "$(st-read -v "$T/d" 2>&1 >/dev/null | head -n 1)" = "st-read: from $T/d" ]
}

@test "what is made of a private stream, text or dump is private" {
    umask 022
    # private COMMAND...: writes $T/new for its user alone.
    private() {
        rm -rf "$T/new"
        "$@"
        [ "$(stat -c %A "$T/new" | cut -c 5-)" = ------ ]
    }
    st-read --inline "$NANO" >"$T/a.ts"
    cp "$NANO/model-00003-of-00003.safetensors" "$T/c/alone.safetensors"
    pt-read "$NANO_AMAX" >"$T/amax.ts"
    cp "$NANO_AMAX"/*.pt "$T/dump.pt"
    echo 'A letter.' >"$T/text.txt"
    chmod 600 "$T"/{a.ts,c/alone.safetensors,amax.ts,dump.pt,text.txt}
    private st-write -q "$T/new" "$T/a.ts"
    private pipeline "st-write -q '$T/new' <'$T/a.ts'"
    private fp8-dequant -o "$T/new" "$T/a.ts"
    private st-sum -o "$T/new" "$T/a.ts"
    private amax-merge -q --fallback layer-max -o "$T/new" "$T/amax.ts"
    private amax-merge -q --fallback layer-max --summary "$T/new" -o "$T/merged.ts" "$T/amax.ts"
    private pt-read -o "$T/new" "$T/dump.pt"
    private st-tokenize --tokenizer "$NANO" --length 10 -o "$T/new" "$T/text.txt"
    ! command -v gnuplot >/dev/null || private pipelines/amax-plot -o "$T/new" "$T/amax.ts"
    # Through pipes, over several stages, with the bytes in the stream.
    private pipeline "st-read --inline '$T/c/alone.safetensors' | fp8-dequant | st-write -q --partial '$T/new'"
    private pipeline "pt-read '$T/dump.pt' | st-grep w1 | amax-merge -q --fallback layer-max -o '$T/new'"
    [ "$(st-read --inline "$T/c/alone.safetensors" | st-ls --header - | jq -r .mode)" = 0600 ]
    chmod 644 "$T/dump.pt"
    rm "$T/new"
    pipeline "pt-read '$T/dump.pt' | st-grep w1 | amax-merge -q --fallback layer-max -o '$T/new'"
    [ "$(stat -c %a "$T/new")" = 644 ]
    [ "$(st-ls --header "$T/new" | jq .mode)" = null ]
}

@test "a side file that becomes a link while it is looked at" {
    strace -o /dev/null true 2>/dev/null || skip 'strace is missing, or may not trace'
    cp -r "$NANO" "$T/d"
    chmod u+w "$T/d"
    echo s3cr3t-key >"$T/home/id_rsa"
    for call in readlink,readlinkat %%stat; do
        rm -f "$T/d/LICENSE" "$T/trace" "$T/b.ts"
        echo no-licence >"$T/d/LICENSE" # of the same size
        strace -f -o "$T/trace" -P "$T/d/LICENSE" -e trace=$call -e inject=$call:signal=STOP:when=1 \
            st-read -o "$T/b.ts" "$T/d" 3>&- &
        until grep -qs 'stopped by SIGSTOP' "$T/trace" || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
        ln -sf "$T/home/id_rsa" "$T/d/LICENSE"
        pkill -CONT -P $! || true
        wait $! || true
        run grep -aqs s3cr3t-key "$T/b.ts"
        [ "$status" -ne 0 ]
    done
}
