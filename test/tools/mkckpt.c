/* mkckpt: a synthetic DeepSeek-V4 checkpoint for tests and measurements. Names, shapes, dtypes,
 * shards and the order of tensors in them are those of the releases; the numbers are zeros that
 * take no disk space, or random: such that the model runs, with activations about 1 throughout and
 * tokens spread over experts.
 *
 * What the layout follows:
 *   names, dtypes, shapes   DeepSeek's V4-Flash release, inference/model.py; the published listing
 *                           of V4-Pro's 145,116 tensors (805.32 GiB in 64 files) is met exactly
 *   shards                  the same listing: embedding, one a layer, head, one an MTP block
 *   order in a shard        what the safetensors library writes: by dtype, then by name
 *   config.json             V4-Flash's and V4-Pro's own */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <omp.h>

#include "base/die.h"
#include "base/json.h"
#include "base/number.h"
#include "quantize/amax.h"
#include "stream/ts.h"
#include "tensor/weight.h"
#include "write/copy.h"

static const struct program program = {
    .about = "Make a checkpoint with DeepSeek-V4's tensors in a new folder: zeros that "
             "take no disk space.",
    .operands = {"dir"},
    .max_operands = 1,
};

struct options {
    const char *amax, *model, *ratios;
    struct arg_list set;
    uint64_t layers, shards, threads;
    bool fill, scales;
};

/* ---- config.json ---- */

/* What Flash and Pro have in common, and Flash's own values. */
static const char flash[] =
    "{\"architectures\": [\"DeepseekV4ForCausalLM\"], \"attention_bias\": false,"
    " \"attention_dropout\": 0.0, \"bos_token_id\": 0, \"eos_token_id\": 1, \"hc_eps\": 1e-06,"
    " \"hc_mult\": 4, \"hc_sinkhorn_iters\": 20, \"head_dim\": 512, \"hidden_act\": \"silu\","
    " \"hidden_size\": 4096, \"index_head_dim\": 128, \"index_n_heads\": 64, \"index_topk\": 512,"
    " \"initializer_range\": 0.02, \"max_position_embeddings\": 1048576,"
    " \"model_type\": \"deepseek_v4\", \"moe_intermediate_size\": 2048, \"n_routed_experts\": 256,"
    " \"n_shared_experts\": 1, \"norm_topk_prob\": true, \"num_attention_heads\": 64,"
    " \"num_experts_per_tok\": 6, \"num_hidden_layers\": 43, \"num_hash_layers\": 3,"
    " \"num_key_value_heads\": 1, \"num_nextn_predict_layers\": 1, \"o_groups\": 8,"
    " \"o_lora_rank\": 1024, \"q_lora_rank\": 1024, \"qk_rope_head_dim\": 64,"
    " \"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\","
    " \"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\", \"weight_block_size\": [128, 128]},"
    " \"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1,"
    " \"factor\": 16, \"original_max_position_embeddings\": 65536, \"type\": \"yarn\"},"
    " \"rope_theta\": 10000, \"routed_scaling_factor\": 1.5, \"scoring_func\": \"sqrtsoftplus\","
    " \"sliding_window\": 128, \"swiglu_limit\": 10.0, \"tie_word_embeddings\": false,"
    " \"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\","
    " \"transformers_version\": \"4.57.1\", \"use_cache\": true, \"vocab_size\": 129280,"
    " \"compress_rope_theta\": 160000}";

/* What differs from Flash. Compression ratios begin with those of layers 0 and 1; then 4 and 128
 * alternate, and MTP has 0. */
static const struct {
    const char *name, *differs;
    int first_ratio;
} presets[] = {
    {"flash", "{}", 0},
    {"pro",
     "{\"hidden_size\": 7168, \"index_topk\": 1024, \"moe_intermediate_size\": 3072,"
     " \"n_routed_experts\": 384, \"num_attention_heads\": 128, \"num_hidden_layers\": 61,"
     " \"o_groups\": 16, \"q_lora_rank\": 1536, \"routed_scaling_factor\": 2.5}",
     128},
    {"tiny", /* of no release: a little of everything */
     "{\"hidden_size\": 256, \"head_dim\": 128, \"index_head_dim\": 64, \"index_n_heads\": 4,"
     " \"index_topk\": 16, \"max_position_embeddings\": 8192, \"moe_intermediate_size\": 128,"
     " \"n_routed_experts\": 8, \"num_attention_heads\": 4, \"num_experts_per_tok\": 2,"
     " \"num_hidden_layers\": 4, \"num_hash_layers\": 2, \"o_groups\": 2, \"o_lora_rank\": 128,"
     " \"q_lora_rank\": 128, \"sliding_window\": 32, \"vocab_size\": 1024}",
     0},
};

static void preset_ratios(json_t *config, int first_ratio)
{
    json_int_t layers = json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_int_t mtp = json_integer_value(json_object_get(config, "num_nextn_predict_layers"));
    json_t *ratios = json_array();
    for (json_int_t i = 0; i < layers; i++)
        json_array_append_new(ratios, json_integer(i < 2 ? first_ratio : i % 2 ? 128 : 4));
    for (json_int_t i = 0; i < mtp; i++)
        json_array_append_new(ratios, json_integer(0));
    json_object_set_new(config, "compress_ratios", ratios);
}

static json_t *config_load(const char *model)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, model)) {
            json_t *config = json_object_from(flash, strlen(flash), "flash");
            json_t *differs =
                json_object_from(presets[i].differs, strlen(presets[i].differs), model);
            json_object_update(config, differs);
            json_decref(differs);
            preset_ratios(config, presets[i].first_ratio);
            return config;
        }
    json_error_t error;
    json_t *config = json_load_file(model, 0, &error);
    if (!json_is_object(config))
        die("%s: neither pro, flash nor tiny, nor a config.json: %s", model, error.text);
    return config;
}

/* Layers are cut off behind `layers`; MTP blocks keep their ratios. */
static void config_limit(json_t *config, json_int_t layers)
{
    json_int_t all = json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_t *ratios = json_object_get(config, "compress_ratios");
    if (layers < 1 || layers > all)
        die_usage("--layers: %" PRId64 " of %" PRId64 " layers", (int64_t)layers, (int64_t)all);
    for (; all > layers; all--)
        json_array_remove(ratios, (size_t)all - 1);
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
}

/* Layers of these ratios instead; MTP blocks keep theirs. */
static void config_ratios(json_t *config, const char *list)
{
    size_t all = (size_t)json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_t *old = json_object_get(config, "compress_ratios"), *ratios = json_array();
    for (const char *p = list;; p++) {
        uint64_t ratio;
        if (!number_parse(&p, UINT16_MAX, &ratio) || (*p && *p != ','))
            die_usage("--ratios: '%s' is not a list of numbers, as 4,128", list);
        json_array_append_new(ratios, json_integer((json_int_t)ratio));
        if (!*p)
            break;
    }
    json_object_set_new(config, "num_hidden_layers",
                        json_integer((json_int_t)json_array_size(ratios)));
    for (size_t i = all; i < json_array_size(old); i++)
        json_array_append(ratios, json_array_get(old, i));
    json_object_set_new(config, "compress_ratios", ratios);
}

static void config_change(json_t *config, const char *change)
{
    char key[64], rest;
    uint64_t number;
    if (sscanf(change, "%63[a-z0-9_]=%18" SCNu64 "%c", key, &number, &rest) != 2 ||
        !json_is_integer(json_object_get(config, key)))
        die_usage("--set: '%s' is not KEY=N with a number's key of config.json", change);
    if (!strcmp(key, "num_hidden_layers"))
        config_limit(config, (json_int_t)number);
    else
        json_object_set_new(config, key, json_integer((json_int_t)number));
}

/* The numbers that shapes depend on. */
struct dims {
    uint64_t hidden, vocab, layers, hash_layers, mtp, hc;
    uint64_t heads, head, q_rank, o_rank, o_groups, index_heads, index_head;
    uint64_t experts, shared, per_token, inner;
    const json_t *ratios; /* by layer, then by MTP block */
};

static void dims_read(struct dims *d, json_t *config)
{
    const struct {
        const char *key;
        uint64_t *to;
    } keys[] = {
        {"hidden_size", &d->hidden},
        {"vocab_size", &d->vocab},
        {"num_hidden_layers", &d->layers},
        {"num_hash_layers", &d->hash_layers},
        {"num_nextn_predict_layers", &d->mtp},
        {"hc_mult", &d->hc},
        {"num_attention_heads", &d->heads},
        {"head_dim", &d->head},
        {"q_lora_rank", &d->q_rank},
        {"o_lora_rank", &d->o_rank},
        {"o_groups", &d->o_groups},
        {"index_n_heads", &d->index_heads},
        {"index_head_dim", &d->index_head},
        {"n_routed_experts", &d->experts},
        {"n_shared_experts", &d->shared},
        {"num_experts_per_tok", &d->per_token},
        {"moe_intermediate_size", &d->inner},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *number = json_object_get(config, keys[i].key);
        if (!json_is_integer(number) || json_integer_value(number) < 0)
            die("config.json: %s: wanted a number that is not negative", keys[i].key);
        *keys[i].to = (uint64_t)json_integer_value(number);
    }
    d->ratios = json_object_get(config, "compress_ratios");
    if (json_array_size(d->ratios) < d->layers + d->mtp)
        die("config.json: compress_ratios: wanted %" PRIu64 " numbers", d->layers + d->mtp);
    if (!d->o_groups || !d->experts || d->hidden % 128 || d->inner % 128)
        die("config.json: wanted hidden_size and moe_intermediate_size in multiples of 128, and at "
            "least one expert and output group");
}

/* ---- the table ---- */

/* The tensors in the order of their making; what belongs in one file has one shard. */
struct plan {
    struct toc *toc;
    struct dims d;
    char prefix[32]; /* "layers.3." */
};

/* One tensor, called PREFIX MODULE SUFFIX: [rows, cols], or [rows] with cols == 0. */
static void add(struct plan *plan, enum dtype dtype, uint64_t rows, uint64_t cols,
                const char *module, const char *suffix)
{
    char *name = xprintf("%s%s%s", plan->prefix, module, suffix);
    struct tensor line = {.name = name,
                          .dtype = (uint8_t)dtype,
                          .rank = cols ? 2 : 1,
                          .dim = {rows, cols},
                          .shard = (uint32_t)plan->toc->shards - 1};
    const char *error = toc_add(plan->toc, &line);
    if (error)
        die("%s: %s", name, error);
    free(name);
}

static void add_fp8(struct plan *plan, const char *module, uint64_t rows, uint64_t cols)
{
    add(plan, DTYPE_F8_E8M0, (rows + 127) / 128, (cols + 127) / 128, module, ".scale");
    add(plan, DTYPE_F8_E4M3, rows, cols, module, ".weight");
}

static void add_mxfp4(struct plan *plan, const char *module, uint64_t rows, uint64_t cols)
{
    add(plan, DTYPE_F8_E8M0, rows, cols / 32, module, ".scale");
    add(plan, DTYPE_I8, rows, cols / 2, module, ".weight");
}

/* Ratio 4 overlaps its windows, which takes two projections. */
static void add_compressor(struct plan *plan, const char *module, uint64_t ratio, uint64_t head)
{
    uint64_t width = ratio == 4 ? 2 * head : head;
    add(plan, DTYPE_F32, ratio, width, module, ".ape");
    add(plan, DTYPE_BF16, head, 0, module, ".norm.weight");
    add(plan, DTYPE_BF16, width, plan->d.hidden, module, ".wgate.weight");
    add(plan, DTYPE_BF16, width, plan->d.hidden, module, ".wkv.weight");
}

static void add_attention(struct plan *plan, uint64_t ratio)
{
    const struct dims *d = &plan->d;
    add(plan, DTYPE_F32, d->heads, 0, "attn", ".attn_sink");
    add(plan, DTYPE_BF16, d->head, 0, "attn.kv_norm", ".weight");
    add(plan, DTYPE_BF16, d->q_rank, 0, "attn.q_norm", ".weight");
    add_fp8(plan, "attn.wkv", d->head, d->hidden);
    add_fp8(plan, "attn.wo_a", d->o_groups * d->o_rank, d->heads * d->head / d->o_groups);
    add_fp8(plan, "attn.wo_b", d->hidden, d->o_groups * d->o_rank);
    add_fp8(plan, "attn.wq_a", d->q_rank, d->hidden);
    add_fp8(plan, "attn.wq_b", d->heads * d->head, d->q_rank);
    if (ratio)
        add_compressor(plan, "attn.compressor", ratio, d->head);
    if (ratio == 4) {
        add_compressor(plan, "attn.indexer.compressor", ratio, d->index_head);
        add(plan, DTYPE_BF16, d->index_heads, d->hidden, "attn.indexer.weights_proj", ".weight");
        add_fp8(plan, "attn.indexer.wq_b", d->index_heads * d->index_head, d->q_rank);
    }
}

static void add_experts(struct plan *plan, bool hash)
{
    const struct dims *d = &plan->d;
    char module[64];
    add(plan, DTYPE_BF16, d->experts, d->hidden, "ffn.gate", ".weight");
    if (hash)
        add(plan, DTYPE_I64, d->vocab, d->per_token, "ffn.gate", ".tid2eid");
    else
        add(plan, DTYPE_F32, d->experts, 0, "ffn.gate", ".bias");
    add_fp8(plan, "ffn.shared_experts.w1", d->shared * d->inner, d->hidden);
    add_fp8(plan, "ffn.shared_experts.w2", d->hidden, d->shared * d->inner);
    add_fp8(plan, "ffn.shared_experts.w3", d->shared * d->inner, d->hidden);
    for (uint64_t i = 0; i < d->experts; i++)
        for (int matrix = 1; matrix <= 3; matrix++) {
            bool down = matrix == 2;
            snprintf(module, sizeof module, "ffn.experts.%" PRIu64 ".w%d", i, matrix);
            add_mxfp4(plan, module, down ? d->hidden : d->inner, down ? d->inner : d->hidden);
        }
}

static void add_hyper_connection(struct plan *plan, const char *module)
{
    uint64_t hc = plan->d.hc, mix = (2 + hc) * hc;
    add(plan, DTYPE_F32, mix, 0, module, "_base");
    add(plan, DTYPE_F32, mix, hc * plan->d.hidden, module, "_fn");
    add(plan, DTYPE_F32, 3, 0, module, "_scale");
}

static void add_hyper_head(struct plan *plan)
{
    add(plan, DTYPE_F32, plan->d.hc, 0, "hc_head", "_base");
    add(plan, DTYPE_F32, plan->d.hc, plan->d.hc * plan->d.hidden, "hc_head", "_fn");
    add(plan, DTYPE_F32, 1, 0, "hc_head", "_scale");
}

static void add_block(struct plan *plan, uint64_t ratio, bool hash)
{
    add_hyper_connection(plan, "hc_attn");
    add(plan, DTYPE_BF16, plan->d.hidden, 0, "attn_norm", ".weight");
    add_attention(plan, ratio);
    add_hyper_connection(plan, "hc_ffn");
    add(plan, DTYPE_BF16, plan->d.hidden, 0, "ffn_norm", ".weight");
    add_experts(plan, hash);
}

static void add_mtp(struct plan *plan)
{
    static const char *const norms[] = {"enorm", "hnorm", "norm"};
    for (size_t i = 0; i < 3; i++)
        add(plan, DTYPE_BF16, plan->d.hidden, 0, norms[i], ".weight");
    add_fp8(plan, "e_proj", plan->d.hidden, plan->d.hidden);
    add_fp8(plan, "h_proj", plan->d.hidden, plan->d.hidden);
    add_hyper_head(plan);
}

/* Begin a file: the tensors that follow lie in it, and in this block if its name is not "". */
static void begin_unit(struct plan *plan, const char *block, uint64_t number)
{
    char shard[32];
    plan->prefix[0] = 0;
    if (*block)
        snprintf(plan->prefix, sizeof plan->prefix, "%s.%" PRIu64 ".", block, number);
    snprintf(shard, sizeof shard, "unit-%zu", plan->toc->shards);
    toc_shard(plan->toc, shard);
}

static void add_head(struct plan *plan)
{
    begin_unit(plan, "", 0);
    add(plan, DTYPE_BF16, plan->d.hidden, 0, "norm", ".weight");
    add_hyper_head(plan);
    add(plan, DTYPE_BF16, plan->d.vocab, plan->d.hidden, "head", ".weight");
}

static void add_layer(struct plan *plan, uint64_t i)
{
    const struct dims *d = &plan->d;
    bool mtp = i >= d->layers;
    begin_unit(plan, mtp ? "mtp" : "layers", mtp ? i - d->layers : i);
    add_block(plan, (uint64_t)json_integer_value(json_array_get(d->ratios, i)), i < d->hash_layers);
    if (mtp)
        add_mtp(plan);
}

static void make_table(struct plan *plan)
{
    const struct dims *d = &plan->d;
    plan->toc = toc_new();
    begin_unit(plan, "", 0);
    add(plan, DTYPE_BF16, d->vocab, d->hidden, "embed", ".weight");
    for (uint64_t i = 0; i < d->layers; i++)
        add_layer(plan, i);
    add_head(plan);
    for (uint64_t i = 0; i < d->mtp; i++)
        add_layer(plan, d->layers + i);
}

/* ---- files ---- */

/* safetensors' order of dtypes within a file. */
static unsigned dtype_place(enum dtype dtype)
{
    static const enum dtype order[] = {DTYPE_I64,     DTYPE_F32,     DTYPE_BF16,
                                       DTYPE_F8_E8M0, DTYPE_F8_E4M3, DTYPE_I8};
    unsigned place = 0;
    while (order[place] != dtype)
        place++;
    return place;
}

static int by_dtype_and_name(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a;
    const struct tensor *y = *(const struct tensor *const *)b;
    int place = (int)dtype_place(x->dtype) - (int)dtype_place(y->dtype);
    return place ? place : strcmp(x->name, y->name);
}

/* The header of a file with these tensors, and where its data begin through *size; as the
 * safetensors library pads it, to a multiple of 8. The caller frees it. */
static char *make_header(const struct tensor **tensor, size_t count, uint64_t *size)
{
    char *text, shape[TENSOR_SHAPE_TEXT];
    size_t length;
    uint64_t at = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        die("out of memory");
    fprintf(out, "%8s{\"__metadata__\":{\"format\":\"pt\"}", "");
    for (size_t i = 0; i < count; at += tensor[i++]->size)
        fprintf(out,
                ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%" PRIu64 ",%" PRIu64
                "]}",
                tensor[i]->name, dtype_name(tensor[i]->dtype), tensor_shape(tensor[i], shape), at,
                at + tensor[i]->size);
    fputc('}', out);
    while (ftell(out) % 8)
        fputc(' ', out);
    if (fclose(out))
        die("out of memory");
    for (int i = 0; i < 8; i++)
        text[i] = (char)((length - 8) >> 8 * i & 0xff);
    *size = length;
    return text;
}

/* ---- numbers ---- */

/* splitmix64 (Steele, Lea, Flood 2014), at any place of its sequence. */
static uint64_t random_at(uint64_t seed, uint64_t place)
{
    uint64_t z = seed + (place + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t seed_of(const char *name)
{
    uint64_t seed = 0;
    for (const char *p = name; *p; p++)
        seed = seed * 31 + (uint8_t)*p;
    return seed;
}

/* For rows of `cols` numbers that have the root mean square `rms`: the exponent of a factor that
 * makes the products of such rows with inputs about 1 about 1 again. */
static int factor_exponent(uint64_t cols, double rms)
{
    return (int)lround(-log2(rms * sqrt((double)cols)));
}

/* The same for the codes of a quantized weight, which are all equally likely. */
static int scale_exponent(const struct tensor *weight)
{
    return weight->dtype == DTYPE_I8 ? factor_exponent(2 * weight->dim[1], 2.926)
                                     : factor_exponent(weight->dim[1], 107.2);
}

/* What random bits become: an element is bits & keep, plus base, and has the sign of bits & sign.
 */
struct form {
    uint64_t keep, base, sign;
};

#define BYTES(x) ((uint64_t)(x)*0x0101010101010101)
#define HALVES(x) ((uint64_t)(x)*0x0001000100010001)
#define WORDS(x) ((uint64_t)(x)*0x0000000100000001)

/* Numbers like those of trained weights: norms a little above 1, matrices of BF16 and F32 in two
 * binades (rms 2.415 times the smaller), scales of E8M0 in four (of rms 1.15, from a quarter to
 * twice what scale_exponent() says), hyper-connections' scales from 1/4 to 1. */
static struct form form_of(const struct tensor *tensor)
{
    bool vector = tensor->rank == 1;
    int exponent = vector ? -7 : factor_exponent(tensor->dim[1], 2.415);
    size_t length = strlen(tensor->name);
    switch (tensor->dtype) {
    case DTYPE_F8_E8M0: /* its weight is the table's next line */
        return (struct form){BYTES(3), BYTES(127 - 2 + scale_exponent(tensor + 1)), 0};
    case DTYPE_BF16:
        if (vector)
            return (struct form){HALVES(0x000f), HALVES(0x3f80), 0};
        return (struct form){HALVES(0x00ff), HALVES((127 + exponent) << 7), HALVES(0x8000)};
    case DTYPE_F32:
        if (length > 6 && !strcmp(tensor->name + length - 6, "_scale"))
            return (struct form){WORDS(0x00ffffff), WORDS((127 - 2) << 23), 0};
        return (struct form){WORDS(0x00ffffff), WORDS((127 + exponent) << 23), WORDS(0x80000000)};
    default: /* codes */
        return (struct form){UINT64_MAX, 0, 0};
    }
}

/* Element `place` of tid2eid [vocabulary, used]: a token's experts are different ones. */
static uint64_t hash_expert(uint64_t seed, uint64_t place, uint64_t used, uint64_t experts)
{
    uint64_t bits = random_at(seed, place / used);
    uint64_t steps = used > 1 && experts >= used ? (experts - 1) / (used - 1) : 1;
    uint64_t step = 1 + (bits >> 32) % steps;
    return ((bits & UINT32_MAX) + place % used * step) % experts;
}

enum { PIECE = 1 << 20 };

/* What one thread fills at a time: PIECE bytes of a tensor, or what is left, from `first` on. */
struct piece {
    const struct tensor *tensor;
    uint64_t first, at; /* in the tensor, in the file */
};

/* The same bytes for the same name, wherever the tensor lies and whoever fills it. */
static void fill_piece(int fd, const struct piece *piece, uint64_t *words, uint64_t experts)
{
    const struct tensor *tensor = piece->tensor;
    uint64_t size = tensor->size - piece->first, seed = seed_of(tensor->name);
    size = size < PIECE ? size : PIECE;
    uint64_t first = piece->first / sizeof *words, count = (size + 7) / sizeof *words;
    const struct form form = form_of(tensor);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bits = random_at(seed, first + i);
        words[i] = tensor->dtype == DTYPE_I64
                       ? hash_expert(seed, first + i, tensor->dim[1], experts)
                       : ((bits & form.keep) + form.base) | (bits & form.sign);
    }
    uint8_t *byte = (uint8_t *)words;
    for (uint64_t i = 0; i < size && tensor->dtype == DTYPE_F8_E4M3; i++)
        byte[i] -= (byte[i] & 0x7f) == 0x7f; /* NaN */
    write_at(fd, piece->at, words, size, tensor->name);
}

static void fill_shard(int fd, const struct piece *piece, size_t count, unsigned threads,
                       uint64_t experts)
{
#pragma omp parallel num_threads(threads)
    {
        uint64_t *words = xalloc(PIECE, 1);
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < count; i++)
            fill_piece(fd, &piece[i], words, experts);
        free(words);
    }
}

static bool is_filled(const struct options *o, const struct tensor *tensor)
{
    return o->fill || (o->scales && tensor->dtype == DTYPE_F8_E8M0);
}

static void write_shard(int folder, const char *name, const struct tensor **tensor, size_t count,
                        const struct options *o, uint64_t experts)
{
    uint64_t at;
    size_t pieces = 0;
    qsort(tensor, count, sizeof *tensor, by_dtype_and_name);
    char *header = make_header(tensor, count, &at);
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        die_errno("%s", name);
    write_at(fd, 0, header, at, name);
    for (size_t i = 0; i < count; i++)
        pieces += (size_t)(tensor[i]->size + PIECE - 1) / PIECE;
    struct piece *piece = xalloc(pieces, sizeof *piece);
    pieces = 0;
    for (size_t i = 0; i < count; at += tensor[i++]->size)
        for (uint64_t first = 0; first < tensor[i]->size && is_filled(o, tensor[i]); first += PIECE)
            piece[pieces++] = (struct piece){tensor[i], first, at + first};
    if (ftruncate(fd, (off_t)at))
        die_errno("%s", name);
    fill_shard(fd, piece, pieces, (unsigned)o->threads, experts);
    if (close(fd))
        die_errno("%s", name);
    free(piece);
    free(header);
}

static void write_json(int folder, const char *name, json_t *value)
{
    char *text = json_text(value, true, false);
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        die_errno("%s", name);
    write_at(fd, 0, text, strlen(text), name);
    if (close(fd))
        die_errno("%s", name);
    free(text);
}

/* Which file line i lies in: its unit's; or, with --shards, so that all are about the same size. */
static uint32_t file_of(const struct toc *toc, size_t i, uint64_t before, uint64_t bytes,
                        uint64_t shards)
{
    return shards ? (uint32_t)((double)before / (double)bytes * (double)shards)
                  : toc->tensor[i].shard;
}

static void write_checkpoint(const struct plan *plan, const struct options *o, json_t *config,
                             int folder)
{
    const struct toc *toc = plan->toc;
    uint64_t shards = o->shards ? o->shards : toc->shards, bytes = toc_bytes(toc, true), before = 0;
    const struct tensor **tensor = xalloc(toc->count, sizeof *tensor);
    json_t *map = json_object();
    for (size_t first = 0, i; first < toc->count; first = i) {
        uint32_t file = file_of(toc, first, before, bytes, o->shards);
        char *name = xprintf("model-%05" PRIu32 "-of-%05" PRIu64 ".safetensors", file + 1, shards);
        for (i = first; i < toc->count && file_of(toc, i, before, bytes, o->shards) == file; i++) {
            tensor[i - first] = &toc->tensor[i];
            before += toc->tensor[i].size;
            json_object_set_new(map, toc->tensor[i].name, json_string(name));
        }
        write_shard(folder, name, tensor, i - first, o, plan->d.experts);
        free(name);
    }
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map);
    json_t *generation = json_pack("{s:s, s:i, s:i}", "_from_model_config", "true", "bos_token_id",
                                   0, "eos_token_id", 1);
    write_json(folder, "model.safetensors.index.json", index);
    write_json(folder, "config.json", config);
    write_json(folder, "generation_config.json", generation);
    json_decref(index);
    json_decref(generation);
    free(tensor);
}

/* ---- amaxes ---- */

/* Both amaxes of every routed expert but MTP's, as a calibration gives them. The weight's is the
 * largest that --fill makes: 6 times the largest scale. */
static void write_amaxes(struct stage *stage, const struct toc *toc, const char *path)
{
    struct model *model = model_open("deepseek_v4", NULL);
    float *value = xalloc(2 * toc->count, sizeof *value);
    struct toc *out_toc = toc_new();
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        weight_module(&toc->tensor[i], module);
        if (toc->tensor[i].dtype != DTYPE_I8 || !strncmp(module, "mtp.", 4))
            continue;
        for (int which = AMAX_INPUT; which <= AMAX_WEIGHT; which++) {
            char *name = amax_name(model, module, (enum amax_which)which);
            value[out_toc->count] =
                which == AMAX_INPUT ? 3 : ldexpf(6, scale_exponent(&toc->tensor[i]) + 1);
            toc_append(out_toc, "amax.safetensors", name, DTYPE_F32, 0, NULL);
            free(name);
        }
    }
    stage->output = path;
    struct ts_out *out = ts_create(stage, NULL, out_toc);
    for (size_t i = 0; i < out_toc->count; i++)
        ts_put(out, out_toc->tensor[i].name, &value[i], sizeof *value);
    ts_finish(out, NULL, NULL);
    toc_free(out_toc);
    free(value);
    model_close(model);
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "amax",
         .kind = ARG_TEXT,
         .to = &o->amax,
         .value = "file",
         .help = "write an amax stream of all its experts, too",
         .silent = true},
        {.name = "fill",
         .to = &o->fill,
         .help = "random numbers instead of zeros: they do take space",
         .silent = true},
        {.name = "scales",
         .to = &o->scales,
         .help = "random E8M0 scales, a sixteenth of the bytes; all else stays zero",
         .or_previous = true,
         .silent = true},
        arg_threads(&o->threads),
        {.name = "layers",
         .kind = ARG_NUMBER,
         .to = &o->layers,
         .value = "N",
         .help = "the first N layers (and MTP) only; short for --set num_hidden_layers=N",
         .silent = true},
        {.name = "model",
         .kind = ARG_TEXT,
         .to = &o->model,
         .value = "name",
         .help = "dimensions: pro, flash (default), tiny, or a config.json",
         .silent = true},
        {.name = "ratios",
         .kind = ARG_TEXT,
         .to = &o->ratios,
         .value = "list",
         .help = "other layers: one for each ratio of compression, as 4,128",
         .silent = true},
        {.name = "set",
         .kind = ARG_LIST,
         .to = &o->set,
         .value = "key=N",
         .help = "change a number of config.json; may be given again",
         .silent = true},
        {.name = "shards",
         .kind = ARG_NUMBER,
         .to = &o->shards,
         .value = "N",
         .help = "N files of about the same size, instead of one a layer",
         .silent = true},
        {.name = "plan", .in = NO_FORM},
        {.name = "output", .in = NO_FORM},
        {.name = "progress", .in = NO_FORM},
        {.name = "verbose", .help = "say how much was made"},
        {0},
    };
    stage_begin(stage, &program, args, argc, argv);
}

int main(int argc, char **argv)
{
    struct options o = {.model = "flash", .threads = (uint64_t)omp_get_num_procs()};
    struct stage stage;
    struct plan plan;
    take_options(&o, &stage, argc, argv);
    if (!stage.operands)
        die_usage("into which folder?");
    const char *path = stage.operand[0];
    if (o.threads < 1 || o.threads > 1024)
        die_usage("--threads: from 1 to 1024");
    json_t *config = config_load(o.model);
    if (o.ratios)
        config_ratios(config, o.ratios);
    if (o.layers)
        config_limit(config, (json_int_t)o.layers);
    for (size_t i = 0; i < o.set.count; i++)
        config_change(config, o.set.text[i]);
    dims_read(&plan.d, config);
    make_table(&plan);

    if (mkdir(path, 0777))
        die_errno("%s", path);
    int folder = open(path, O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die_errno("%s", path);
    write_checkpoint(&plan, &o, config, folder);
    close(folder);
    if (o.amax)
        write_amaxes(&stage, plan.toc, o.amax);
    if (stage.verbose)
        warn("%s: %zu tensors, %" PRIu64 " bytes", path, plan.toc->count,
             toc_bytes(plan.toc, true));
    toc_free(plan.toc);
    json_decref(config);
    free(o.set.text);
    return stage_end(&stage);
}
