# What follows from the lines of quality.tsv, in words and small tables.

BEGIN { FS = "\t" }

# A line's measures, by checkpoint, recipe, weights and input.
{
    key = $1 SUBSEP $3 SUBSEP $4 SUBSEP $5
    weight_error[key] = $6
    layer_error[key] = $7
    kl[key] = $8
    top1[key] = $9
    perplexity[key] = $10
    if ($3 == "source") {
        checkpoint[++checkpoints] = $1
        family[$1] = $2
        source[$1] = $10
    } else if ($5 == "calib" && $4 == ($2 == "V4" ? "cast+max" : "max"))
        packed[++lines] = key # plain scales, beside which there may be others
}

function percent(ratio) { return sprintf("%+.1f %%", 100 * (ratio - 1)) }

# The same conversion with another search.
function with_search(key, search,    part) {
    split(key, part, SUBSEP)
    sub(/max$/, search, part[3])
    return part[1] SUBSEP part[2] SUBSEP part[3] SUBSEP part[4]
}

# summarize(SEARCH): over all conversions with it: how many, in how many the KL is lower, mean ratios to plain scales.
function summarize(search,    i, other) {
    n = lower = layers_lower = log_kl = log_layer = 0
    most = 0
    for (i = 1; i <= lines; i++) {
        other = with_search(packed[i], search)
        if (!(other in kl))
            continue
        n++
        ratio = kl[other] / kl[packed[i]]
        lower += ratio < 1
        layers_lower += layer_error[other] < layer_error[packed[i]]
        log_kl += log(ratio)
        log_layer += log(layer_error[other] / layer_error[packed[i]])
        most = ratio > most ? ratio : most
    }
}

function searches(    name, i, j, part, other) {
    split("mse 4over6 hessian", name, " ")
    print "## Scale searches\n"
    print "Compared with plain scales (`max`), where FP8 becomes NVFP4. Experts of V4, which are MXFP4, keep their codes"
    print "here.\n"
    print "| search | conversions | KL lower in | KL, mean | KL, at worst | layer error lower in | layer error, mean |"
    print "|---|---|---|---|---|---|---|"
    for (j = 1; j <= 3; j++) {
        summarize(name[j])
        if (!n)
            continue
        worst[name[j]] = most
        mean_kl[name[j]] = exp(log_kl / n)
        printf "| `%s` | %d | %d | %s | %s | %d | %s |\n", name[j], n, lower, percent(exp(log_kl / n)), percent(most),
            layers_lower, percent(exp(log_layer / n))
    }
    print ""
    best = "max"
    for (j = 1; j <= 3; j++)
        if (worst[name[j]] && worst[name[j]] < 1 && (best == "max" || mean_kl[name[j]] < mean_kl[best]))
            best = name[j]
    if (best == "max")
        print "No search lowers the KL in every conversion, so none is a safe default."
    else {
        printf "`%s` lowers the KL most, and in every conversion.", best
        if (best == "hessian" && worst["mse"] && worst["mse"] < 1)
            printf " `mse` lowers it in every conversion too,\nby %.1f %% on average, without second moments of the inputs and in less time.",
                100 * (1 - mean_kl["mse"])
        print ""
    }
    hessian_and_mse()
}

# By moments against the search by weights alone.
function hessian_and_mse(    i, mse, hessian) {
    n = lower = sum = 0
    for (i = 1; i <= lines; i++) {
        mse = with_search(packed[i], "mse")
        hessian = with_search(packed[i], "hessian")
        if (!(mse in kl && hessian in kl))
            continue
        n++
        lower += layer_error[hessian] < layer_error[mse]
        sum += log(layer_error[hessian] / layer_error[mse])
    }
    if (n)
        printf "`hessian` has a smaller layer error than `mse` in %d of %d conversions, by %.1f %% on average.\n",
            lower, n, 100 * (1 - exp(sum / n))
}

function row(name, recipe, weights, input) { return name SUBSEP recipe SUBSEP weights SUBSEP input }

# Packed experts: their KL, or the error of their weights.
function experts(name, weights, of_outputs,    key) {
    key = row(name, "experts", weights, "calib")
    return of_outputs ? kl[key] : weight_error[key]
}

function cast(    i, j, k, name, weights) {
    print "\n## MXFP4 experts: cast or packed\n"
    print "A cast keeps the codes; packing chooses new scales.\n"
    print "| checkpoint | weight error: `cast` | `4over6` | `mse` | `max` | KL: `cast` | `4over6` | `mse` | `max` |"
    print "|---|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= checkpoints; i++) {
        name = checkpoint[i]
        if (family[name] != "V4")
            continue
        printf "| %s |", name
        for (j = 0; j < 2; j++)
            for (k = 1; k <= split("cast 4over6 mse max", weights, " "); k++)
                printf " %.4f |", experts(name, weights[k], j)
        print ""
        inexact += experts(name, "4over6", 0) > 1e-6
    }
    if (inexact)
        return
    print "\n`4over6` finds the weights again. A tensor's `amax` is 6, 4, 3, 2 … times a power of two; so under `amax/1536`"
    print "the scales of MXFP4's blocks, or halves of them, are E4M3 values. Under `amax/2688`, which has a factor 7, they are"
    print "for some tensors only; and `max` takes the largest code of a block for 6 even where it is 4."
}

# What a rule for input scales changes of the KL.
function rules(    i, j, what, part, rule, base) {
    print "\n## Input scales\n"
    print "The KL compared with that of `calib`.\n"
    print "| checkpoint | recipe | `reference` | `headroom` | 1 |"
    print "|---|---|---|---|---|"
    split("reference headroom 1", rule, " ")
    for (i = 1; i <= checkpoints; i++)
        for (j = 1; j <= split("experts/cast full/cast+max mlp-wo/max", what, " "); j++) {
            split(what[j], part, "/")
            base = row(checkpoint[i], part[1], part[2], "calib")
            if (!(row(checkpoint[i], part[1], part[2], "headroom") in kl))
                continue
            printf "| %s | %s |", checkpoint[i], part[1]
            for (k = 1; k <= 3; k++) {
                other = row(checkpoint[i], part[1], part[2], rule[k])
                printf " %s |", other in kl ? percent(kl[other] / kl[base]) : ""
            }
            print ""
        }
    print "\nEngines choose the block scales of inputs as they run, so the scale above these hardly matters unless it is too"
    print "small, as it is for w2 where the amax was taken after the router's weight (`reference`)."
}

# The largest rise of perplexity of a family.
function speaks(    i, part, ratio, most, where, first) {
    print "\n## Perplexity\n"
    for (key in perplexity) {
        split(key, part, SUBSEP)
        if (part[2] == "source" || part[2] == "-")
            continue
        ratio = perplexity[key] / source[part[1]]
        if (ratio > worst_of[part[1]]) {
            worst_of[part[1]] = ratio
            worst_key[part[1]] = part[2] ", " part[3] ", " part[4]
        }
    }
    print "The largest rise over the source:\n"
    print "| checkpoint | source | largest rise | in |"
    print "|---|---|---|---|"
    for (i = 1; i <= checkpoints; i++)
        printf "| %s | %.2f | %s | %s |\n", checkpoint[i], source[checkpoint[i]], percent(worst_of[checkpoint[i]]),
            worst_key[checkpoint[i]]
}

END {
    searches()
    cast()
    rules()
    speaks()
}
