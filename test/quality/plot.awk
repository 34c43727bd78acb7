# The lines of quality.tsv as an SVG: the KL divergence of each recipe, a dot for each scale search.

BEGIN {
    FS = "\t"
    searches = split("max mse 4over6 hessian", search, " ")
    left = 170; width = 520; step = 24; top = 74
}

# Of V4, recipes as the pipelines make them: with the codes of MXFP4.
$5 == "calib" && ($2 == "V4" ? $4 ~ /^cast($|\+)/ : 1) {
    name = $1 SUBSEP $3
    if (!(name in known)) {
        known[name] = 1
        line[++lines] = name
    }
    sub(/^cast\+?/, "", $4)
    kl[name, $4 == "" ? "cast" : $4] = $8
    largest = $8 > largest ? $8 : largest
}

function x_of(value) { return left + width * value / most }

function text(x, y, class, what) { printf "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, what }

function dot(x, y, class) { printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"%s\"/>\n", x, y, class }

function axis(bottom,    tick) {
    for (tick = 0; tick <= most + 1e-9; tick += 0.01) {
        printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" class=\"grid\"/>\n", x_of(tick), x_of(tick), top - 10, bottom
        text(x_of(tick), bottom + 16, "tick", sprintf("%.2f", tick))
    }
}

function legend(    i, x) {
    x = left
    dot(x, 44, "cast")
    text(x + 8, 48, "label", "cast, not searched")
    for (i = 1; i <= searches; i++) {
        x = left + 60 + 80 * i
        dot(x, 44, "s" i)
        text(x + 8, 48, "label", search[i])
    }
}

END {
    most = 0.01 * (int(largest * 100) + 1)
    y = top
    for (i = 1; i <= lines; i++) {
        split(line[i], part, SUBSEP)
        if (part[1] != before)
            y += before == "" ? 0 : step / 2
        before = part[1]
        at[i] = y
        y += step
    }
    height = y + 34
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 %d\" width=\"720\" height=\"%d\">\n", height, height
    print "<title>KL divergence from the source, by recipe and scale search</title>"
    print "<style>"
    print "svg { background: #fff; font: 13px sans-serif; } text { fill: #333; }"
    print ".grid { stroke: #ddd; } .tick { fill: #666; text-anchor: middle; font-size: 11px; }"
    print ".name { font-weight: bold; } .title { font-size: 15px; } .recipe { text-anchor: end; }"
    print ".cast { fill: #888; } .s1 { fill: #fff; stroke: #333; stroke-width: 1.5; }"
    print ".s2 { fill: #1f77b4; } .s3 { fill: #2ca02c; } .s4 { fill: #e07b00; }"
    print "@media (prefers-color-scheme: dark) {"
    print "svg { background: #0d1117; } text { fill: #ddd; } .grid { stroke: #333; } .tick { fill: #aaa; }"
    print ".s1 { fill: #0d1117; stroke: #ddd; } .s2 { fill: #5aa9e6; } .s3 { fill: #5fd068; } .s4 { fill: #ffa23a; }"
    print "}"
    print "</style>"
    text(left, 22, "title", "KL divergence from the source, in nats: less is better")
    legend()
    axis(y - step / 2)
    before = ""
    for (i = 1; i <= lines; i++) {
        split(line[i], part, SUBSEP)
        if (part[1] != before)
            text(10, at[i] + 4, "name", part[1])
        before = part[1]
        text(left - 12, at[i] + 4, "recipe", part[2])
        if ((line[i], "cast") in kl)
            dot(x_of(kl[line[i], "cast"]), at[i], "cast")
        for (j = 1; j <= searches; j++)
            if ((line[i], search[j]) in kl)
                dot(x_of(kl[line[i], search[j]]), at[i] + 3 * (j - 2.5), "s" j)
    }
    print "</svg>"
}
