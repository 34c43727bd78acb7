# The quality report: what was measured is what it says, and what recipes promise.

load common

@test "quality.md and its plot are those of quality.tsv" {
    cp test/reports/quality.tsv "$T/"
    test/quality/write "$T"
    cmp test/reports/quality.md "$T/quality.md"
    cmp test/reports/quality.svg "$T/quality.svg"
    for name in v4-nano v4-mini v3-nano v32-nano; do grep -q "^### $name$" "$T/quality.md"; done
}

@test "recipes keep their promises; a search that is further from the source breaks one, and so does a perplexity" {
    awk -f test/quality/promises.awk test/reports/quality.tsv
    awk 'BEGIN { FS = OFS = "\t" } $1 == "v4-nano" && $3 == "full" && $4 == "cast+mse" { $8 *= 1.2 } { print }' \
        test/reports/quality.tsv >"$T/kl"
    run awk -f test/quality/promises.awk "$T/kl"
    [ "$status" -eq 1 ]
    [[ $output == *'v4-nano, recipe full, cast+mse: a KL of '* ]]
    awk 'BEGIN { FS = OFS = "\t" } $1 == "v3-nano" && $3 == "mlp" { $10 *= 1.05 } { print }' \
        test/reports/quality.tsv >"$T/perplexity"
    run awk -f test/quality/promises.awk "$T/perplexity"
    [ "$status" -eq 1 ]
    [[ $output == *'v3-nano, recipe mlp, max: a perplexity of '* ]]
}
