# What README.md, the pages that it links to, and the tutorial show, runs; their links lead somewhere.
load common
load craft
load v3
load examples
PATH=$PWD/$BIN/test:$PWD/pipelines:$PATH

# The hub's releases, in small. The bundled V3 has no tokenizer: it gets one of bytes, in which the one that UTF-8 does
# not use begins a text.
hub() {
    given
    rm "$T/given/DeepSeek-V4-Flash"
    for name in news eval; do jq -c '.text |= .[:400]' "$T/hub/texts.jsonl" >"$T/given/$name.jsonl"; done
    for name in Flash Pro; do ln -s "$NANO" "$T/hub/DeepSeek-V4-$name"; done
    ln -s "$PWD/test/data/v41-tiny/ckpt" "$T/hub/DeepSeek-V4.1-Flash"
    cp -r test/data/v3-tiny/ckpt "$T/hub/DeepSeek-R1"
    jq '.model.merges = [] | .model.vocab |= with_entries(select(.value < 255)) | .added_tokens |= [.[0] | .id = 255]' \
        test/data/tokenizer/tiny.json >"$T/hub/DeepSeek-R1/tokenizer.json"
    mkdir "$T/hub/cnn_dailymail" "$T/hub/Nemotron-Post-Training-Dataset-v2"
    cp test/data/v3-tiny/golden/eval-ids.safetensors "$T/given/ids.safetensors"
    ln -s "$T/hub/DeepSeek-R1" "$T/given/DeepSeek-R1"
    ln -s "$PWD/test/data/v3-tiny/ckpt" "$T/given/Kimi-K2"
    ln -s "$PWD/pipelines" "$T/given/pipelines"
}

# fresh FOLDER: where nothing is but what a clone has, and what was built.
fresh() {
    local path
    mkdir "$1"
    for path in *; do
        case $path in
        bin | build) ;;
        *) ln -s "$PWD/$path" "$1" ;;
        esac
    done
    ln -s "$PWD/$BIN" "$1/bin"
}

@test "README.md: its commands run in order in a fresh clone, the demo too" {
    hub
    fresh "$T/clone"
    # shellcheck disable=SC2016 # for the stand-in
    stand_in make '[ $# = 0 ] || [ "$1" != demo ] || SEEKPIPE_BIN=$PWD/bin exec pipelines/seekpipe-demo build'
    markdown_examples README.md >"$T/commands"
    [ "$(grep -c . "$T/commands")" -gt 15 ]
    run env -u SEEKPIPE_BIN PATH="$T/stand-in:/usr/local/bin:/usr/bin:/bin" \
        bash -euo pipefail -c "cd '$T/clone' && $(cat "$T/commands")" </dev/null
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *'perplexity     '*'result against source: KL divergence '*', 0 differ, '* ]]
}

@test "README.md: as long as a visitor reads" {
    [ "$(wc -l <README.md)" -ge 80 ]
    [ "$(wc -l <README.md)" -le 120 ]
}

# For two GPUs, by which the bundled V4 checkpoint divides.
@test "the commands in docs/ run" {
    hub
    for page in docs/*.md; do
        examples=$(markdown_examples "$page" | sed 's/--ranks 8/--ranks 2/; s/^amax-calib --recipe/amax-calib --all-experts --recipe/')
        [ -n "$examples" ] || continue
        try "${page##*/}" "$examples" || wrong=1
    done
    [ -z "${wrong-}" ]
}

@test "links between Markdown pages, pictures and reports resolve" {
    for page in *.md docs/*.md test/reports/*.md; do
        grep -oE '\]\([^)]+\)' "$page" | sed 's/^](//; s/)$//' | grep -v '^https:' | while read -r link; do
            case $link in
            '#'*) grep -qixE "#+ $(tr - ' ' <<<"${link#'#'}")" "$page" ;;
            *) [ -e "$(dirname "$page")/${link%%#*}" ] ;;
            esac || echo "$page: $link"
        done
    done >"$T/wrong"
    cat "$T/wrong"
    [ ! -s "$T/wrong" ]
}

@test "quantize-deepseek(7): its commands run in order" {
    hub
    page_examples man/quantize-deepseek.7 PROCEDURE | sed 's/--device cuda/--device cpu/' >"$T/commands"
    [ "$(grep -c . "$T/commands")" -gt 35 ]
    rm "$T/given/"*.jsonl "$T/given/DeepSeek-R1"
    try quantize-deepseek "$(cat "$T/commands")"
}

@test "quantize-deepseek(7): serves as the cards of the results say" {
    v4-experts -q --input-scale 1 "$NANO" "$T/keep"
    v4-experts -q --input-scale 1 --drafts cast "$NANO" "$T/cast"
    sed -n '/^## Serve/,/^## /s/^    //p' "$T"/{keep,cast}/README.md | sort -u >"$T/serve"
    [ "$(wc -l <"$T/serve")" -eq 5 ]
    page_examples man/quantize-deepseek.7 PROCEDURE >"$T/page"
    while read -r command; do grep -qxF -- "$command" "$T/page" || { echo "$command" && wrong=1; }; done <"$T/serve"
    [ -z "${wrong-}" ]
}

@test "make html: a page for each page, an index of all, no script, and every link leads somewhere" {
    packaging/html 1.2 "$T/html"
    for page in man/*.[1-9]; do
        grep -q 'class="manual-text"' "$T/html/${page##*/}.html"
        grep -qF "href=\"${page##*/}.html\"" "$T/html/index.html"
    done
    grep -q 'seekpipe 1.2' "$T/html/st-read.1.html"
    cd "$T/html"
    run grep -ciE '<script| on[a-z]+="|javascript:' ./*.html
    [ "$status" -eq 1 ]
    # Files, and places in them; and links, those within a page with its name.
    { ls && grep -oHE ' id="[^"]*"' -- *.html | sed 's/: id="/#/; s/"$//'; } | sort -u >"$T/places"
    grep -oHE '(href|src)="[^"]*"' -- *.html | sed -E 's/^([^:]*):[a-z]*="(#.*)"$/\1\2/; s/^[^:]*:[a-z]*="(.*)"$/\1/' | sort -u >"$T/links"
    [ "$(wc -l <"$T/links")" -gt 300 ]
    grep -qx 'st-write.1.html' "$T/links"
    grep -v '^https:' "$T/links" | comm -23 - "$T/places" >"$T/wrong"
    cd "$OLDPWD"
    # Pages of others: those of lint's list, and links that a page has as such.
    while read -r link; do
        page=${link#https://manpages.debian.org/}
        grep -qwF -- "${page%.*}-${page##*.}" test/tools/lint || grep -qF ".Lk $link" man/* || echo "$link"
    done < <(grep '^https:' "$T/links") >>"$T/wrong"
    cat "$T/wrong"
    [ ! -s "$T/wrong" ]
}

# The messages that a page lists, one a line.
entries() {
    awk '/^\.Sh/ { on = $2 == "DIAGNOSTICS" }
         on && item { sub(/^\\&/, ""); gsub(/\\-/, "-"); gsub(/\\e/, "\\"); print }
         { item = $0 == ".It" }' man/seekpipe-troubleshooting.7
}

@test "seekpipe-troubleshooting(7) has every message that names a next step, once, and no other" {
    test/tools/messages >"$T/said"
    [ "$(wc -l <"$T/said")" -gt 200 ]
    entries | LC_ALL=C sort >"$T/listed"
    echo '<: programs say it, and the page does not list it; >: the reverse'
    diff "$T/said" "$T/listed"
}

@test "messages: from C and shell, in whatever way they are said" {
    mkdir -p "$T/tree/test/tools" "$T/tree"/{common/base,stages,cuda,pipelines}
    cp test/tools/messages "$T/tree/test/tools"
    cat >"$T/tree/stages/a.c" <<'END'
/* "in a comment; remove it" */
static const struct arg options[] = {{.name = "x", .help = "as it is; choose this"}, {0}};
const char *wrong(int n)
{
    if (n == '"')
        die("%s: %s: has %" PRIu64 " bytes, "
            "\"%s\" wanted; get it again",
            a, b);
    return n ? "is empty; no step" : "is old; st-read makes it";
}
END
    touch "$T/tree/pipelines"/{a.bash,v4-x,amax-plot}
    cat >"$T/tree/pipelines/a.bash" <<'END'
    [ -n "$x" ] || usage_error "$1: '$2' is odd; \
name another" # here
    echo "$program: ${x:-y}: belongs to $(whoami); move it" >&2
END
    "$T/tree/test/tools/messages" >"$T/found"
    diff - "$T/found" <<'END'
'...' is odd; name another
belongs to ...; move it
has ... bytes, "..." wanted; get it again
is old; st-read makes it
END
}

@test "terminal-svg: what a terminal showed, when, and its last screen" {
    printf 'Script started\nab\rA\033[1m<b>\033[0m\r\n\033[31mred\033[0m one\r\033[Ktwo\r\nüx\r\n' >"$T/typescript"
    printf '%s\n' '0.5 2' '9.0 15' '0.1 3' '0.1 13' '1.0 9' '0.1 1' '0.1 4' >"$T/timing" # parts of ESC [ 31 m, of ü
    terminal-svg "$T/timing" "$T/typescript" 20 2 >"$T/a.svg"
    cat "$T/a.svg"
    # Nine seconds of pause are 1.5; what is drawn over soon is not shown.
    grep -qF '<text y="17" visibility="hidden">ab<set attributeName="visibility" to="visible" begin="r.begin+0.5s" dur="1.5s"/></text>' "$T/a.svg"
    grep -A 1 -F '<g><set attributeName="visibility" to="hidden" begin="r.begin" dur="2.1s"/>' "$T/a.svg" |
        grep -qxF '<text y="17">A<tspan font-weight="bold">&lt;b&gt;</tspan></text>'
    grep -qF '<text y="34" visibility="hidden"><tspan fill="#ff7b72">red</tspan> one<set ' "$T/a.svg"
    grep -qF '<text y="34">two</text>' "$T/a.svg"
    grep -qF '<text y="51">üx</text>' "$T/a.svg"
    # Four lines, of which the screen shows the last two.
    grep -qF '<g transform="translate(0 -34)">' "$T/a.svg"
    run grep -c '[[:cntrl:]]' "$T/a.svg"
    [ "$output" = 0 ]
    run terminal-svg "$T/timing" "$T/timing.none"
    [ "$status" -eq 1 ]
}

@test "pictures: small, of one piece, without scripts" {
    for picture in docs/*.svg; do
        [ "$(stat -c %s "$picture")" -lt 40000 ]
        run grep -ciE '<script|href=|url\([^#]|@import' "$picture"
        [ "$status" -eq 1 ]
    done
}

# gigabytes MODEL PIPELINE: what a plan says of a release with all its tensors, whose bytes are holes: in, out.
gigabytes() {
    mkckpt -q --model "$1" "$T/$1"
    "$2" -n --allow-zeros --input-scale 1 "$T/$1" "$T/$1-out" 2>&1 |
        sed -nE 's/^(in|out) .* tensors, +([0-9]+ GB): .*/\2/p' | paste -sd ,
}

@test "README.md, quantize-deepseek(7): sizes of sources and results are those of plans" {
    flash=$(gigabytes flash v4-experts) pro=$(gigabytes pro v4-experts) r1=$(gigabytes v3 v3-nvfp4)
    grep -qxF "| disk: source, result | ${flash/,/, } | ${pro/,/, } | ${r1/,/, } |" README.md
    grep -qxF ".It source Ta ${flash%,*} Ta ${pro%,*} Ta ${r1%,*}" man/quantize-deepseek.7
    grep -qxF ".It result Ta ${flash#*,} Ta ${pro#*,} Ta ${r1#*,}" man/quantize-deepseek.7
}
