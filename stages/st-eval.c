/* st-eval: measure how well a model predicts text, with the arithmetic of serving engines. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/text.h"
#include "base/utf8.h"
#include "forward/forward_options.h"
#include "forward/greedy.h"
#include "forward/predictions.h"
#include "stream/report.h"
#include "text/tokenizer.h"

static const struct program program = {
    .about =
        "Run the model over samples of tokens and print the mean negative "
        "log-likelihood of each next token, and the perplexity. For NVFP4 weights, activations are "
        "quantized to NVFP4, as serving engines do. Reads a tensor stream of weights from a "
        "file or standard input, or a checkpoint's folder.",
    .operands = {"[stream]", "run run", "stream"},
    .examples = {"st-eval --tokens eval.ts DeepSeek-V4",
                 "st-eval --tokens eval.ts --save before.ts DeepSeek-V4",
                 "st-eval --tokens eval.ts --save after.ts DeepSeek-V4-NVFP4",
                 "st-eval --compare before.ts after.ts",
                 "st-eval --generate 'The first thing to do' --count 16 DeepSeek-V4-NVFP4"},
    .max_operands = 2,
};

/* The longest list of best tokens. */
enum { TOP_MOST = 1024 };

struct options {
    const char *arithmetic, *save, *generate;
    uint64_t top, count;
    bool compare, json;
    struct forward_options forward;
};

/* The losses of one MTP layer. */
struct mtp_loss {
    double sum;
    uint64_t count;
};

/* Results of the tokens so far. */
struct evaluation {
    const struct options *options;
    const struct stage *stage;
    const struct forward *run;
    struct predictions predictions;
    struct mtp_loss *mtp;
    uint64_t mtp_layers;
    uint64_t *length; /* by sample: how many tokens were predicted */
    uint64_t samples;
};

/* ---- collecting ---- */

static double add_losses(struct predictions *p, const float *loss, const float *value,
                         const int32_t *number, const int32_t *target, uint64_t rows)
{
    double sum = 0;
    for (uint64_t i = 0; i < rows; i++) {
        if (target[i] < 0)
            continue;
        sum += (double)loss[i];
        if (p)
            predictions_add(p, loss[i], value + i * p->top, number + i * p->top);
    }
    return sum;
}

static uint64_t count_targets(const int32_t *target, uint64_t rows)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < rows; i++)
        count += target[i] >= 0;
    return count;
}

static void add_mtp(struct evaluation *e, uint64_t layer, struct mtp_loss loss)
{
    for (; e->mtp_layers <= layer; e->mtp_layers++) {
        e->mtp = xgrow(e->mtp, (size_t)e->mtp_layers + 1, sizeof *e->mtp);
        e->mtp[e->mtp_layers] = (struct mtp_loss){0};
    }
    e->mtp[layer].sum += loss.sum;
    e->mtp[layer].count += loss.count;
}

static void take_logits(void *context, unsigned mtp, uint64_t first, struct mat logits,
                        const int32_t *target)
{
    struct evaluation *e = context;
    struct device *d = e->run->device;
    (void)first;
    uint64_t rows = logits.rows, top = e->predictions.top;
    struct mat loss = d->make(d, DTYPE_F32, rows, 1), wanted = d->make(d, DTYPE_I32, rows, 1);
    struct mat value = d->make(d, DTYPE_F32, rows, top), number = d->make(d, DTYPE_I32, rows, top);
    int32_t *known = xalloc((size_t)rows, sizeof *known);
    for (uint64_t i = 0; i < rows; i++)
        known[i] = target[i] < 0 ? 0 : target[i];
    d->write(d, wanted, known);
    d->loss(d, loss, logits, wanted);
    d->best(d, value, number, logits);
    float *host_loss = xalloc((size_t)rows, sizeof *host_loss);
    float *host_value = xalloc((size_t)(rows * top), sizeof *host_value);
    int32_t *host_number = xalloc((size_t)(rows * top), sizeof *host_number);
    d->read(d, host_loss, loss);
    d->read(d, host_value, value);
    d->read(d, host_number, number);
    double sum =
        add_losses(mtp ? NULL : &e->predictions, host_loss, host_value, host_number, target, rows);
    if (mtp)
        add_mtp(e, mtp - 1, (struct mtp_loss){sum, count_targets(target, rows)});
    free(known);
    free(host_loss);
    free(host_value);
    free(host_number);
    const struct mat mats[] = {loss, wanted, value, number};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        d->drop(d, mats[i]);
}

static void take_states(void *context, const struct states *states)
{
    struct evaluation *e = context;
    forward_options_states(&e->options->forward, e->stage, e->run, states);
}

/* ---- gathering from ranks ---- */

static bool take_mtp(void *context, const void *data, size_t size)
{
    const struct mtp_loss *loss = data;
    if (size % sizeof *loss)
        return false;
    for (size_t i = 0; i < size / sizeof *loss; i++)
        add_mtp(context, i, loss[i]);
    return true;
}

static bool take_lengths(void *context, const void *data, size_t size)
{
    struct evaluation *e = context;
    size_t count = size / sizeof *e->length;
    if (size % sizeof *e->length)
        return false;
    e->length = xgrow(e->length, (size_t)e->samples + count, sizeof *e->length);
    memcpy(e->length + e->samples, data, size);
    e->samples += count;
    return true;
}

/* True if each sample has its predictions, and none is left. */
static bool lengths_fit(const struct evaluation *e)
{
    uint64_t left = e->predictions.count;
    for (uint64_t s = 0; s < e->samples; s++) {
        if (e->length[s] > left)
            return false;
        left -= e->length[s];
    }
    return !left;
}

static void gather(struct evaluation *e)
{
    struct ranks *ranks = e->run->ranks;
    const struct tokens *tokens = e->run->tokens;
    size_t lengths = (size_t)tokens->samples * sizeof *e->length;
    uint64_t *length = xalloc(lengths, 1);
    for (uint64_t s = 0; s < tokens->samples; s++)
        length[s] = tokens->start[s + 1] - tokens->start[s] - 1;
    take_lengths(e, length, lengths);
    ranks_gather(ranks, length, lengths, take_lengths, e);
    ranks_gather(ranks, e->mtp, (size_t)e->mtp_layers * sizeof *e->mtp, take_mtp, e);
    predictions_gather(&e->predictions, ranks);
    if (e->run->head && !lengths_fit(e))
        die("the ranks' samples and predictions do not go together; do all run the same program on "
            "the same model?");
    free(length);
}

/* ---- reporting ---- */

static json_t *loss_record(double sum, uint64_t count)
{
    double mean = sum / (double)count;
    return json_pack("{s:o, s:o, s:I}", "mean_nll", report_number(mean), "perplexity",
                     report_number(exp(mean)), "tokens", (json_int_t)count);
}

static void print_loss(const char *what, double sum, uint64_t count)
{
    double mean = sum / (double)count;
    printf("%smean nll %.6f perplexity %.4f tokens %" PRIu64 "\n", what, mean, exp(mean), count);
}

static void print_evaluation(const struct evaluation *e, bool json)
{
    const struct predictions *p = &e->predictions;
    if (!json) {
        print_loss("", predictions_sum(p), p->count);
        for (uint64_t i = 0; i < e->mtp_layers; i++) {
            char *what = xprintf("mtp %" PRIu64 ": ", i);
            print_loss(what, e->mtp[i].sum, e->mtp[i].count);
            free(what);
        }
        return;
    }
    json_t *record = loss_record(predictions_sum(p), p->count), *mtp = json_array();
    for (uint64_t i = 0; i < e->mtp_layers; i++)
        json_array_append_new(mtp, loss_record(e->mtp[i].sum, e->mtp[i].count));
    if (e->mtp_layers)
        json_object_set(record, "mtp", mtp);
    json_decref(mtp);
    report_record(REPORT_JSON, record);
}

/* With -v: each sample. */
static void print_samples(const struct evaluation *e)
{
    const float *loss = e->predictions.loss;
    for (uint64_t s = 0; s < e->samples; s++) {
        uint64_t count = e->length[s];
        double sum = 0;
        for (uint64_t i = 0; i < count; i++)
            sum += (double)*loss++;
        warn("sample %" PRIu64 ": mean nll %.6f tokens %" PRIu64, s, sum / (double)count, count);
    }
}

static void report_all(const struct evaluation *e)
{
    if (e->run->head)
        print_evaluation(e, e->options->json);
    if (e->run->head && e->stage->verbose)
        print_samples(e);
    if (e->options->save)
        predictions_save(&e->predictions, e->stage, e->options->save);
}

static enum arithmetic arithmetic_of(const struct options *o)
{
    return !strcmp(o->arithmetic, "engine")  ? ARITHMETIC_ENGINE
           : !strcmp(o->arithmetic, "model") ? ARITHMETIC_SERVED
                                             : ARITHMETIC_SOURCE;
}

static int evaluate(const struct options *o, struct stage *stage)
{
    struct forward run;
    struct tokens tokens;
    forward_options_open(&o->forward, stage, &run, &tokens, 2);
    struct evaluation e = {.options = o, .stage = stage, .run = &run};
    e.predictions = (struct predictions){.top = o->top};
    if (o->top > run.network->vocabulary)
        e.predictions.top = run.network->vocabulary;
    memcpy(e.predictions.tokens, tokens.digest, DIGEST_TEXT);
    run.arithmetic = arithmetic_of(o);
    run.head = run.last + 1 == run.network->layers;
    run.context = &e;
    run.logits = take_logits;
    run.states = take_states;
    if (!run.head && (o->save || !o->forward.states_out))
        die_usage("--layers: losses need the last layer, and no other output is asked for; see "
                  "--states-out");
    if (!ranks_rank(run.ranks) && !stage->plan)
        report_begin(stage);
    forward_options_run(&run);

    if (!stage->plan)
        gather(&e);
    if (!ranks_rank(run.ranks) && !stage->plan)
        report_all(&e);
    forward_options_close(&run);
    predictions_free(&e.predictions);
    free(e.mtp);
    free(e.length);
    tokens_free(&tokens);
    return report_end(stage);
}

/* ---- --compare ---- */

static void print_comparison(const struct comparison *c, const struct predictions *a,
                             const struct predictions *b, bool losses)
{
    if (losses) {
        print_loss("", predictions_sum(a), a->count);
        print_loss("", predictions_sum(b), b->count);
    }
    printf("KL divergence %.6f top-1 agreement %.4f%% perplexity ratio %.6f tokens %" PRIu64 "\n",
           c->divergence, 100 * c->agreement, c->ratio, a->count);
}

static json_t *comparison_record(const struct comparison *c, const struct predictions *a,
                                 const struct predictions *b, bool losses)
{
    json_t *record =
        json_pack("{s:o, s:o, s:o, s:I}", "kl_divergence", report_number(c->divergence),
                  "top1_agreement", report_number(c->agreement), "perplexity_ratio",
                  report_number(c->ratio), "tokens", (json_int_t)a->count);
    if (losses)
        json_object_set_new(record, "runs",
                            json_pack("[o, o]", loss_record(predictions_sum(a), a->count),
                                      loss_record(predictions_sum(b), b->count)));
    return record;
}

static int compare(const struct options *o, struct stage *stage)
{
    if (stage->operands != 2)
        die_usage("--compare: two runs, as --save wrote them");
    struct predictions a, b;
    struct comparison c;
    predictions_load(&a, stage->operand[0]);
    predictions_load(&b, stage->operand[1]);
    predictions_compare(&c, &a, stage->operand[0], &b, stage->operand[1]);
    report_begin(stage);
    if (o->json)
        report_record(REPORT_JSON, comparison_record(&c, &a, &b, stage->verbose));
    else
        print_comparison(&c, &a, &b, stage->verbose);
    predictions_free(&a);
    predictions_free(&b);
    return report_end(stage);
}

/* ---- --generate ---- */

/* The growing text, and how much of it is printed. */
struct text {
    const struct tokenizer *tokenizer;
    uint64_t first; /* 1 if the text begins with a token that is not printed */
    size_t printed;
};

static char *text_of(const struct text *text, const struct ids *ids, size_t *length)
{
    char *all;
    const int32_t *id = ids->id + text->first;
    size_t count = ids->count - text->first, good;
    good = tokenizer_decode(text->tokenizer, id, count, &all, length);
    if (good < count)
        die("the model predicted token %" PRId32 ", which its tokenizer.json does not have",
            id[good]);
    return all;
}

/* Print the new text; before the end, hold back a character that may be incomplete. */
static void print_new(struct text *text, const struct ids *ids, bool end)
{
    static const char broken[] = "\xEF\xBF\xBD";
    const size_t size = sizeof broken - 1;
    size_t length;
    char *all = text_of(text, ids, &length);
    while (!end && length >= text->printed + size && !memcmp(all + length - size, broken, size))
        length -= size;
    text_write(stdout, all + text->printed, length - text->printed);
    fflush(stdout);
    text->printed = length;
    free(all);
}

static void print_token(void *context, const struct ids *ids)
{
    print_new(context, ids, false);
}

static void keep_quiet(void *context, const struct ids *ids)
{
    (void)context;
    (void)ids;
}

/* The ids of a prompt, after the begin-of-text token. */
static struct ids encode(struct tokenizer *tokenizer, const char *prompt)
{
    struct ids ids = {0};
    int32_t bos = tokenizer_bos(tokenizer);
    if (bos >= 0)
        ids_add(&ids, bos);
    char *error = tokenizer_encode(tokenizer, prompt, strlen(prompt), SIZE_MAX, &ids);
    if (error)
        die("--generate: %s", error);
    if (!ids.count)
        die_usage("--generate: no text to continue");
    return ids;
}

/* A side file's text, which the caller frees, or NULL. */
static char *side_file(struct ts_in *in, const char *name, uint64_t *size)
{
    for (size_t i = 0; i < ts_files(in); i++)
        if (!strcmp(ts_file(in, i, size), name))
            return ts_file_read(in, i);
    return NULL;
}

/* The tokenizer that comes with the weights. */
static struct tokenizer *tokenizer_of(struct ts_in *in)
{
    struct tokenizer *tokenizer;
    uint64_t size;
    char *text = side_file(in, "tokenizer.json", &size);
    if (!text)
        die("%s: no tokenizer.json in it; --generate needs one", ts_name(in));
    char *error = tokenizer_parse(&tokenizer, text, (size_t)size);
    if (error)
        die("%s: tokenizer.json: %s", ts_name(in), error);
    free(text);
    text = side_file(in, "tokenizer_config.json", &size);
    error = text ? tokenizer_configure(tokenizer, text, (size_t)size) : NULL;
    if (error)
        die("%s: tokenizer_config.json: %s", ts_name(in), error);
    free(text);
    return tokenizer;
}

static void check_generate(const struct options *o, const struct stage *stage)
{
    const struct forward_options *f = &o->forward;
    const char *path = stage_input(stage);
    struct stat status;
    if (f->tokens || f->samples || f->layers.text || f->mtp || f->states_in || f->states_out ||
        o->save)
        die_usage("--generate takes none of the options for tokens and layers");
    if (!path || (!stat(path, &status) && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)))
        die_usage("--generate reads the weights once per token: give a checkpoint's folder, or a "
                  "stream in a file, not a pipe");
    if (utf8_valid(o->generate, strlen(o->generate)) < strlen(o->generate))
        die_usage("--generate: wanted text in UTF-8");
}

/* Print how the text goes on. */
static void print_text(const struct options *o, const struct stage *stage,
                       const struct forward *run, struct tokenizer *tokenizer, struct ids *ids)
{
    struct text text = {.tokenizer = tokenizer, .first = tokenizer_bos(tokenizer) >= 0};
    uint64_t prompt = ids->count;
    if (!o->json)
        print_new(&text, ids, false);
    greedy_continue(&(struct greedy){.path = stage_input(stage),
                                     .count = o->count,
                                     .end = tokenizer_eos(tokenizer),
                                     .context = &text,
                                     .added = o->json ? keep_quiet : print_token},
                    run, stage, ids);
    if (o->json) {
        size_t length;
        char *all = text_of(&text, ids, &length);
        report_record(REPORT_JSON, json_pack("{s:s%, s:I}", "text", all, length, "tokens",
                                             (json_int_t)(ids->count - prompt)));
        free(all);
    } else {
        print_new(&text, ids, true);
        putchar('\n');
    }
}

static int generate(const struct options *o, struct stage *stage)
{
    check_generate(o, stage);
    struct forward run;
    forward_options_open(&o->forward, stage, &run, NULL, 0);
    struct tokenizer *tokenizer = tokenizer_of(run.in);
    struct ids ids = encode(tokenizer, o->generate);
    run.arithmetic = arithmetic_of(o);
    if (stage->plan) {
        greedy_check(&run, &ids);
    } else {
        report_begin(stage);
        print_text(o, stage, &run, tokenizer, &ids);
    }
    forward_options_close(&run);
    tokenizer_free(tokenizer);
    free(ids.id);
    return report_end(stage);
}

static struct arg arithmetic_arg(struct options *o)
{
    return (struct arg){
        .name = "arithmetic",
        .kind = ARG_CHOICE,
        .to = &o->arithmetic,
        .value = "which",
        .choices = "engine|model|source",
        .help = "how NVFP4 weights are used: engine (default), as serving engines do; model, as "
                "the model's own code would: each expert's own input scale, and the router's "
                "weight before w2; source: FP8 activations as for the MXFP4 weights they were "
                "made from",
        .in = FORM(0) | FORM(2)};
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg own[] = {
        arithmetic_arg(o),
        {.name = "save",
         .kind = ARG_OUTPUT,
         .to = &o->save,
         .value = "file",
         .help = "write each token's loss and best candidates to file, a stream",
         .in = FORM(0),
         .silent = true},
        {.name = "top",
         .kind = ARG_NUMBER,
         .to = &o->top,
         .value = "K",
         .help = "how many candidates (default: 32)",
         .in = FORM(0)},
        {.name = "compare",
         .to = &o->compare,
         .help = "compare two runs that --save wrote: Kullback-Leibler divergence of the second "
                 "from the first, agreement of the best token, ratio of perplexities",
         .in = FORM(1),
         .required = FORM(1)},
        {.name = "generate",
         .kind = ARG_TEXT,
         .to = &o->generate,
         .value = "text",
         .help = "continue a text, each time with the most likely token, and print it; this reads "
                 "the weights once per token",
         .in = FORM(2),
         .required = FORM(2)},
        {.name = "count",
         .kind = ARG_NUMBER,
         .to = &o->count,
         .value = "N",
         .help = "how many tokens, unless the text ends earlier (default: 64)",
         .in = FORM(2)},
        {.name = "json", .to = &o->json, .help = "print an object of JSON", .silent = true},
        {.name = "mtp", .help = "also print the losses of the multi-token prediction layers"},
        {.name = "layers", .help = "only layers A to B; no losses unless B is the last one"},
        {.name = "plan",
         .help = "check that model, weights and tokens go together; compute and write nothing",
         .in = FORM(0) | FORM(2)},
        {.name = "progress", .in = FORM(0) | FORM(2)},
        {.name = "verbose",
         .help = "print each sample's loss, and where time went; with --compare, the losses of "
                 "both runs",
         .in = FORM(0) | FORM(1)},
        {0},
    };
    struct arg *args = forward_options_args(&o->forward, own, FORM(2));
    stage_begin(stage, &program, args, argc, argv);
    free(args);
}

int main(int argc, char **argv)
{
    struct options o = {.arithmetic = "engine", .top = 32, .count = 64};
    struct stage stage;
    take_options(&o, &stage, argc, argv);
    if (stage.plan && o.compare)
        die_usage("-n goes with --tokens or --generate");
    if (o.top < 1 || o.top > TOP_MOST)
        die_usage("--top: from 1 to %d", TOP_MOST);
    if (!o.compare && stage.operands > 1)
        die_usage("one checkpoint at a time; --compare takes two runs");
    if (o.compare && o.generate)
        die_usage("--compare and --generate are two things to do; one at a time");
    return (o.compare ? compare : o.generate ? generate : evaluate)(&o, &stage);
}
