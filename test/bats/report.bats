# quant-report.html: what it says, that nothing from outside becomes markup, and how it looks in a browser.

# shellcheck disable=SC2016 # $ belongs to jq and scripts

load common
load craft

PATH=$PWD/pipelines:$PATH
text=$PWD/test/data/text

# made OPTION...: $T/out, with a report of all that there is.
made() {
    v4-experts -q --calib "$text/calib-prose.jsonl" --samples 8 --length 64 --eval "$text/eval.jsonl" "$@" "$NANO" \
        "$T/out" >"$T/results"
    look_at "$T/out"
}

# look_at FOLDER: what the functions below look at.
look_at() {
    page=$1/quant-report.html
}

# has TEXT...: the page has them, each on a line.
has() {
    local wanted
    for wanted; do grep -qF -- "$wanted" "$page" || { echo "no: $wanted" && return 1; }; done
}

# section ID: its lines.
section() {
    sed -n "/<section aria-labelledby=\"$1\">/,/<\/section>/p" "$page"
}

# plain: no markup but ours, nothing to load or to run, and HTML without faults.
plain() {
    local known='!DOCTYPE b body caption code desc details div figcaption figure footer h1 h2 h3 head header html image li
        linearGradient main mark meta p path pre rect circle section small span stop strong style summary svg table tbody
        td text th thead title tr ul'
    diff <(grep -oE '</?[a-zA-Z!][a-zA-Z0-9]*' "$page" | tr -d '</' | LC_ALL=C sort -u) \
        <(xargs -n 1 <<<"$known" | LC_ALL=C sort -u) | grep '^<' && return 1
    grep -oE '<[^<>]*>' "$page" | grep -iE ' on[a-z]+=|javascript:|https?:' && return 1
    [ "$(grep -oE '(href|src)="[^"]{0,22}' "$page" | sort -u | grep -cv '^href="data:image/png;base64')" = 0 ]
    grep -qF "Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline';" "$page"
    [ "$(grep -c '^</html>$' "$page")" = 1 ]
    ! command -v tidy >/dev/null || tidy -q -e "$page"
}

@test "the page: main figures, losses, texts, verdicts, commands, maps, scales, times, formats, origin" {
    made --generate 'Once upon a time' --save-amax "$T/amax.ts"
    plain
    read -r _ _ _ before _ after _ < <(awk '/^source:/ { print "_ _ _", $6 } /^result:/ { print "_", $6 }' "$T/results" | xargs)
    has "<h1>deepseek_v4 in NVFP4</h1>" "<span>Perplexity</span><strong>$(printf %.2f "$after")</strong>" \
        "<small>from $(printf %.2f "$before") (" "<td class=\"number\">$before</td>" "<td class=\"number\">$after</td>" \
        '<strong>100 %</strong><small>196608 of 196608 blocks keep their values</small>' \
        "<strong>3 of 4</strong><small>vLLM, SGLang, TensorRT-LLM</small>" '<code>eval.jsonl</code>' \
        'The model ran on 8 samples, 512 tokens: <code>calib-prose.jsonl</code> (8).' '<pre tabindex="0"><code>vllm serve .</code></pre>' \
        'All weights that became NVFP4 kept their values.' '<th scope="row">calibration</th>' '<td>layers.*.ffn.experts.*</td>' \
        'Recipe: <code>experts</code>.' '<code>model-00001-of-00003.safetensors</code>'
    grep -qF "KL divergence</span><strong>$(sed -nE 's/.*KL divergence (0\.[0-9]{4}).*/\1/p' "$T/results" | head -n 1 | cut -c1-5)" "$page"
    # The maps are those that amax-plot draws, with as many cold experts.
    cold=$(amax-plot "$T/amax.ts" | sed -nE '1s/.*; ([0-9]+) of 64 reached.*/\1/p')
    [ "$cold" -gt 0 ]
    has "<strong>$cold</strong><small>of 64</small>" "No token reached $cold of 64 experts"
    [ "$(grep -c '<image class="map"' "$page")" = 5 ]
    [ "$(grep -c '<path class="cross"' "$page")" = $((3 * cold)) ] # not on the two of weights
    [ "$(grep -c " logarithmic. $cold experts that no token reached are magenta. The table" "$page")" = 3 ]
    [ "$(grep -c ' logarithmic. The table' "$page")" = 2 ]
    # Who sets the scale of a layer is who the summary says.
    v4-experts -v --overwrite --amax "$T/amax.ts" "$NANO" "$T/again" 2>"$T/summary"
    awk '/^ +layers\.[0-9]\.ffn\.experts/ { split($1, name, "."); sub(/^ +[^ ]+/, "") }
        $3 == "expert" && $6 == "x" { print name[2], $1, $2, $4 }' "$T/summary" >"$T/wanted"
    [ "$(wc -l <"$T/wanted")" = 8 ]
    section scales | sed -nE 's,.*<th scope="row">([0-9])</th><td><code>(.*)</code></td><td class="number">([^<]*)</td><td class="number">([0-9]+)<.*,\1 \2 \3 \4,p' |
        diff "$T/wanted" -
    # What both write, side by side.
    for model in "$NANO" "$T/out"; do st-eval --generate 'Once upon a time' "$model"; done >"$T/written"
    section texts | sed -E 's/<[^>]*>//g; s/^(Source|Result)//' | grep -vE '^$|What it writes|^Both continue' |
        sed "s/&#39;/'/g; s/&quot;/\"/g; s/&lt;/</g; s/&gt;/>/g; s/&amp;/\&/g" | diff <(grep -v '^$' "$T/written") -
}

@test "equal runs: equal pages but for the times; no times without --report, no maps without --amax" {
    amaxes "$T/amax.ts"
    for out in a b; do
        v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/$out"
        st-read "$NANO" | nvfp4-cast --amax "$T/amax.ts" | st-write -q --amax "$T/amax.ts" "$T/by-hand-$out"
    done
    same_run "$T/a" "$T/b"
    diff -r "$T/by-hand-a" "$T/by-hand-b"
    diff <(without_times "$T/a/quant-report.html") "$T/by-hand-a/quant-report.html"
    st-read "$NANO" | nvfp4-cast --amax "$T/amax.ts" | st-write -q "$T/bare"
    look_at "$T/bare"
    plain
    run grep -E '<image|id="steps"' "$page"
    [ "$status" = 1 ]
    has 'id="scales"'
}

@test "the page is a file of the checkpoint: complete already, --verify, st-verify, another conversion, a copy" {
    run=(v4-experts -q --amax "$NANO_AMAX" "$NANO" "$T/out")
    "${run[@]}"
    st-verify -q --source "$NANO" "$T/out"
    "${run[@]}" --verify
    echo more >>"$T/out/quant-report.html"
    "${run[@]}"
    grep -qx more "$T/out/quant-report.html"
    st-read "$T/out" | st-write -q "$T/copy"
    cmp "$T/out/quant-report.html" "$T/copy/quant-report.html"
    v4-bf16 -q "$T/out" "$T/bf16"
    look_at "$T/bf16"
    plain
    has "<h1>$(sed -n 's/^# //p' "$T/bf16/README.md")</h1>" '<span>Size</span>'
    run grep -x more "$page"
    [ "$status" = 1 ]
    # In a source, a name that differs from it only by case would be the same file elsewhere.
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    echo x >"$T/source/Quant-Report.html"
    amaxes "$T/amax.ts"
    nvfp4-cast --amax "$T/amax.ts" "$T/source" >"$T/a.ts"
    refused 'are one file where case' st-write "$T/other" "$T/a.ts"
}

@test "weights that are requantized: their error by layer, as st-cmp finds it in all rows" {
    v4-experts -q --lossy --amax "$NANO_AMAX" "$NANO" "$T/out"
    look_at "$T/out"
    plain
    section weights | sed -nE 's,.*<th scope="row">([0-9])</th><td class="number">48</td><td class="number">([0-9.]+) %<.*,\1 \2,p' >"$T/got"
    st-cmp --values --common -v --json "$NANO" "$T/out" >"$T/differences" || true
    jq -sr 'map(select(.name | test("^layers.*experts\\.[0-9]+\\.w"))) | group_by(.name | split(".")[1])[] |
        "\(.[0].name | split(".")[1]) \(100 * (map(if .sqnr then pow(10; -.sqnr / 10) else 0 end) | add / length | sqrt))"' \
        "$T/differences" >"$T/wanted"
    paste "$T/wanted" "$T/got" | awk '{ n += $1 == $3 && $2 > 1 && $4 / $2 > 0.9 && $4 / $2 < 1.1 } END { exit n != 4 || NR != 4 }'
    # In parts it is the same.
    v4-experts -q --lossy --jobs 3 --amax "$NANO_AMAX" "$NANO" "$T/parts"
    same_run "$T/out" "$T/parts"
}

@test "names and texts from outside are text" {
    evil='<img src=x onerror=alert(1)>&amp;"'"'"'</pre></section><script>alert(2)</script>'
    cp -r "$NANO" "$T/source"
    chmod -R u+w "$T/source"
    jq --arg evil "$evil" '._name_or_path = "a/b" | .architectures = [$evil]' "$NANO/config.json" >"$T/source/config.json"
    amaxes "$T/amax.ts"
    jq -cn --arg evil "$evil" '{step: $evil, seconds: 1e300, bytes: -5}, {step: "x", seconds: "y"}, {evaluation: {kl_divergence: $evil, runs: [1, $evil]}, text: $evil},
        {prompt: $evil, source: {text: ($evil + "\u001b[31m\u202e")}, result: {text: $evil}}, {prompt: 1, source: 2}, {other: $evil}' >"$T/lines"
    st-read "$T/source" | nvfp4-cast --amax "$T/amax.ts" >"$T/a.ts"
    st-write -q --amax "$T/amax.ts" --report "$T/lines" "$T/out" "$T/a.ts"
    look_at "$T/out"
    plain
    has '&lt;img src=x onerror=alert(1)&gt;&amp;amp;&quot;&#39;&lt;/pre&gt;&lt;/section&gt;&lt;script&gt;'
    LC_ALL=C grep -c $'[\001-\010\013-\037\177]' "$page" && return 1
    name="$evil"
    name=${name//\//_}.jsonl
    cp "$text/eval.jsonl" "$T/$name"
    printf 'x\xff' >"$T/recipe"
    v4-experts -q --overwrite --calib "$T/$name" --samples 2 --length 32 --eval "$T/$name" "$NANO" "$T/out" >"$T/results"
    plain
    [ "$(grep -cF '&lt;script&gt;alert(2)' "$page")" -ge 2 ]
    # Not in UTF-8: what is shown of the name is.
    cp "$text/eval.jsonl" "$T/"$'a\xff"\\\nb.jsonl'
    v4-experts -q --overwrite --input-scale 1 --samples 2 --length 32 --eval "$T/"$'a\xff"\\\nb.jsonl' "$NANO" "$T/out" >"$T/results"
    plain
    has 'Text: <code>a&quot;\?b.jsonl</code>'
}

@test "--report and --amax: what is none is refused before any work" {
    amaxes "$T/amax.ts"
    st-read "$NANO" | nvfp4-cast --amax "$T/amax.ts" >"$T/a.ts"
    printf '{}\n[]\n' >"$T/array"
    printf '{}\n{"a": ' >"$T/cut"
    head -c 1100000 /dev/zero | tr '\0' ' ' >"$T/long"
    refused 'array: line 2: wanted an object in JSON' st-write --report "$T/array" "$T/out" "$T/a.ts"
    refused 'cut: line 2: wanted an object in JSON' st-write --report "$T/cut" "$T/out" "$T/a.ts"
    refused 'long: is larger than 1 MiB' st-write --report "$T/long" "$T/out" "$T/a.ts"
    refused 'gone: No such file' st-write --report "$T/gone" "$T/out" "$T/a.ts"
    refused 'gone: No such file' st-write --amax "$T/gone" "$T/out" "$T/a.ts"
    amax-merge -q -n --model "$NANO" --input-scale 1 >"$T/plan.ts"
    refused 'plan.ts: is a plan, without values' st-write --amax "$T/plan.ts" "$T/out" "$T/a.ts"
    [ ! -e "$T/out" ] && [ ! -e "$T/out.partial" ]
    : >"$T/empty"
    st-write -q --report "$T/empty" "$T/out" "$T/a.ts"
}

# calibration LAYERS EXPERTS: a calibration in which expert 7 of each layer is cold, as a file of safetensors.
calibration() {
    awk -v layers="$1" -v experts="$2" '
        BEGIN {
            split("w1_input_quantizer._amax w2_input_quantizer._amax w1_weight_quantizer._amax w2_weight_quantizer._amax", key, " ")
            for (l = 0; l < layers; l++) for (e = 0; e < experts; e++) for (k = 1; k <= 4; k++)
                if (e != 7 || k > 2) {
                    printf "%s\"layers.%d.ffn.experts.%d.%s\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[%d,%d]}", \
                        n ? "," : "{", l, e, key[k], n, n + 2
                    n += 2
                }
            print "}" n
        }' >"$T/header"
    local size
    size=$(sed 's/.*}//' "$T/header")
    sed -i 's/}[0-9]*$/}/' "$T/header"
    {
        le64 "$(stat -c %s "$T/header")"
        cat "$T/header"
        yes $'\x12\x3e\x40\x3f\x40\x40\x10\x41' | tr -d '\n' | head -c "$size"
    }
}

@test "61 layers of 384 experts: a page of less than 400 kB" {
    amaxes "$T/amax.ts"
    crafted=$T/large.safetensors
    calibration 61 384 >"$crafted"
    st-read "$NANO" | nvfp4-cast --amax "$T/amax.ts" | st-write -q --amax "$crafted" "$T/out"
    look_at "$T/out"
    plain
    [ "$(stat -c %s "$page")" -lt 400000 ]
    has 'No token reached 61 of 23424 experts' '61 layers from top to bottom, 384 experts from left to right'
    [ "$(section calibration | grep -c '<th scope="row">[0-9]*</th><td>7</td>')" = 61 ]
}

# ---- in a browser ----

# browser FILE OPTION...: Chromium's headless mode, which prints what is asked for.
browser() {
    timeout 60 chromium --headless --no-sandbox --disable-gpu --user-data-dir="$T/chromium" --window-size=1400,900 \
        "${@:2}" "file://$1"
}

# measured WIDTH SCRIPT [THEME]: what a function (document, window) gives in a window of that width. The page's own
# policy forbids scripts: so that of a copy in a frame is read.
measured() {
    sed '/Content-Security-Policy/d' "$page" >"$T/copy.html"
    [ "${3-light}" = light ] || sed -i 's/prefers-color-scheme: *dark/min-width:1px/' "$T/copy.html"
    {
        printf '<!DOCTYPE html><iframe style="border:0;width:%dpx;height:900px" srcdoc="' "$1"
        sed 's/&/\&amp;/g; s/"/\&quot;/g' "$T/copy.html"
        printf '"></iframe><script>const measure = %s;\n' "$2"
        echo 'onload = () => { const inner = frames[0]; document.title = measure(inner.document, inner); }</script>'
    } >"$T/frame.html"
    browser "$T/frame.html" --dump-dom 2>"$T/said" | sed -n 's,.*<title>\(.*\)</title>.*,\1,p' | tail -n 1
}

layout='(page, view) => {
    const right = e => e.getBoundingClientRect().right;
    const beyond = [...page.querySelectorAll("body *")]
        .filter(e => !e.closest(".scroll, pre") && right(e) > view.innerWidth + 1);
    const small = [...page.querySelectorAll("p, td, th, small, figcaption, text")]
        .filter(e => parseFloat(view.getComputedStyle(e).fontSize) < 11);
    const maps = [...page.querySelectorAll("image")].map(e => e.getBoundingClientRect());
    return [view.innerWidth, page.documentElement.scrollWidth <= view.innerWidth, beyond.length, small.length,
        maps.length, maps.every(e => e.width > 300 && e.height > 80)].join(" ");
}'

# The least contrast of text to what is behind it, as WCAG has it; 4.5 is enough.
contrast='(page, view) => {
    const value = c => c.match(/[\d.]+/g).map(Number);
    const light = c => value(c).slice(0, 3).map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        while (e && value(view.getComputedStyle(e).backgroundColor)[3] === 0) e = e.parentElement;
        return view.getComputedStyle(e || page.body).backgroundColor;
    };
    let least = 21, seen = 0;
    for (const e of page.querySelectorAll("body *")) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest("title, desc")) continue;
        const style = view.getComputedStyle(e);
        const a = light(e.closest("svg") ? style.fill : style.color), b = light(behind(e));
        least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
        seen++;
    }
    return [seen > 100, least >= 4.5].join(" ");
}'

@test "in Chromium: no word about errors, no script, and it fits at three widths, in light and dark" {
    command -v chromium >/dev/null || skip "chromium is not installed; make deps-browser installs it"
    made
    for width in 360 768 1280; do
        diff <(echo "$width true 0 0 5 true") <(measured $width "$layout")
    done
    for theme in light dark; do
        diff <(echo 'true true') <(measured 900 "$contrast" $theme)
    done
    browser "$page" --enable-logging=stderr --dump-dom >"$T/dom" 2>"$T/said"
    grep -q '<h2 id="glance">' "$T/dom"
    run grep CONSOLE "$T/said"
    [ "$status" = 1 ]
    # A script that got into it would not run.
    { cat "$page" && echo '<script>document.title = "ran"</script>'; } >"$T/evil.html"
    browser "$T/evil.html" --enable-logging=stderr --dump-dom >"$T/dom" 2>"$T/said"
    grep -q 'CONSOLE.*Content Security Policy' "$T/said"
    grep -q '<title>deepseek_v4 in NVFP4</title>' "$T/dom"
}
