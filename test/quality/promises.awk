# What recipes promise, checked on the lines of quality.tsv: no search that a recipe may ask for is further from the
# source than plain scales, and V3's conversions keep the perplexity within 5 % of the source's.

BEGIN { FS = "\t" }

$3 == "source" { source[$1] = $10 }
$5 == "calib" { kl[$1, $3, $4] = $8 }
$2 == "V3" && $3 != "source" && !($10 <= 1.05 * source[$1]) { broken($1, $3, $4, "a perplexity of " $10) }

function broken(name, recipe, weights, what) {
    print "report: " name ", recipe " recipe ", " weights ": " what >"/dev/stderr"
    failed = 1
}

END {
    for (key in kl) {
        split(key, part, SUBSEP)
        plain = part[3]
        if (sub(/(mse|4over6|hessian)$/, "max", plain) && !(kl[key] <= kl[part[1], part[2], plain]))
            broken(part[1], part[2], part[3], "a KL of " kl[key] ", with plain scales " kl[part[1], part[2], plain])
    }
    exit failed
}
