/* mkckpt: a synthetic DeepSeek checkpoint, of V4 or V3, for tests and measurements. Names, shapes,
 * dtypes, files and the order of tensors in them are those of the releases (mkckpt/ has them by
 * family); the order in a file is what the safetensors library writes: by dtype, then by name. The
 * numbers are zeros that take no disk space, or random: such that a model of V4 runs, with
 * activations about 1 throughout and tokens spread over experts. */
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
#include "mkckpt/layout.h"
#include "model/model.h"
#include "quantize/amax.h"
#include "stream/ts.h"
#include "tensor/weight.h"
#include "write/copy.h"

static const struct program program = {
    .about = "Make a checkpoint with DeepSeek-V4's or V3's tensors in a new folder: zeros that "
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

static const struct maker *const makers[] = {&maker_deepseek_v4, &maker_deepseek_v3};
enum { MAKERS = sizeof makers / sizeof *makers };

static json_t *config_load(const char *model)
{
    for (size_t i = 0; i < MAKERS; i++) {
        json_t *config = makers[i]->preset(model);
        if (config)
            return config;
    }
    json_error_t error;
    json_t *config = json_load_file(model, 0, &error);
    if (!json_is_object(config))
        die("%s: neither a release's name nor a config.json: %s", model, error.text);
    return config;
}

/* The maker of that model's family, whose names it must have; the caller closes *model. */
static const struct maker *maker_of(const json_t *config, struct model **model)
{
    *model = model_open(json_string_value(json_object_get(config, "model_type")), config);
    for (size_t i = 0; i < MAKERS; i++)
        if (!strcmp(makers[i]->type, model_type(*model)))
            return makers[i];
    die("config.json: model_type is neither V4's nor V3's");
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

/* Of FP8 weights or MXFP4's. */
static bool is_scale(const struct tensor *tensor)
{
    return tensor->dtype == DTYPE_F8_E8M0 || tensor_has_suffix(tensor, ".weight_scale_inv");
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
 * twice what scale_exponent() says), those of F32 in the two in the middle, hyper-connections'
 * scales from 1/4 to 1. */
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
        if (is_scale(tensor))
            return (struct form){WORDS(0x00ffffff),
                                 WORDS((127 - 1 + scale_exponent(tensor + 1)) << 23), 0};
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
    return o->fill || (o->scales && is_scale(tensor));
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

static void write_checkpoint(const struct toc *toc, const struct options *o, json_t *config,
                             int folder)
{
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
        write_shard(folder, name, tensor, i - first, o, layout_number(config, "n_routed_experts"));
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

/* Both amaxes of every routed expert of V4's, or of every FP8 weight of V3's, but for MTP's, as a
 * calibration gives them. The weight's is the largest that --fill makes: the largest code times the
 * largest scale. */
static void write_amaxes(struct stage *stage, const struct toc *toc, const struct model *model,
                         enum dtype quantized, const char *path)
{
    float code = quantized == DTYPE_I8 ? 6 : 448;
    float *value = xalloc(2 * toc->count, sizeof *value);
    struct toc *out_toc = toc_new();
    for (size_t i = 0; i < toc->count; i++) {
        char module[TENSOR_NAME_MAX + 1];
        weight_module(&toc->tensor[i], module);
        if (toc->tensor[i].dtype != quantized || model_place(model, module).section == SECTION_MTP)
            continue;
        for (int which = AMAX_INPUT; which <= AMAX_WEIGHT; which++) {
            char *name = amax_name(model, module, (enum amax_which)which);
            value[out_toc->count] =
                which == AMAX_INPUT ? 3 : ldexpf(code, scale_exponent(&toc->tensor[i]) + 1);
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
}

static void take_options(struct options *o, struct stage *stage, int argc, char **argv)
{
    const struct arg args[] = {
        {.name = "amax",
         .kind = ARG_TEXT,
         .to = &o->amax,
         .value = "file",
         .help = "write an amax stream of its experts (V3: of all FP8 weights), too",
         .silent = true},
        {.name = "fill",
         .to = &o->fill,
         .help = "random numbers instead of zeros: they do take space",
         .silent = true},
        {.name = "scales",
         .to = &o->scales,
         .help = "random scales, V4's a sixteenth of the bytes; all else stays zero",
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
         .help = "pro, flash (default), tiny, of V4; v3, v3.2, kimi-k2; or a config.json",
         .silent = true},
        {.name = "ratios",
         .kind = ARG_TEXT,
         .to = &o->ratios,
         .value = "list",
         .help = "of V4: other layers, one for each ratio of compression, as 4,128",
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
    struct layout layout = {.toc = toc_new()};
    struct model *model;
    take_options(&o, &stage, argc, argv);
    if (!stage.operands)
        die_usage("into which folder?");
    const char *path = stage.operand[0];
    if (o.threads < 1 || o.threads > 1024)
        die_usage("--threads: from 1 to 1024");
    json_t *config = config_load(o.model);
    if (o.ratios)
        deepseek_v4_ratios(config, o.ratios);
    if (o.layers)
        config_limit(config, (json_int_t)o.layers);
    for (size_t i = 0; i < o.set.count; i++)
        config_change(config, o.set.text[i]);
    const struct maker *maker = maker_of(config, &model);
    maker->lay_out(&layout, config);

    if (mkdir(path, 0777))
        die_errno("%s", path);
    int folder = open(path, O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die_errno("%s", path);
    write_checkpoint(layout.toc, &o, config, folder);
    close(folder);
    if (o.amax)
        write_amaxes(&stage, layout.toc, model, maker->quantized, o.amax);
    if (stage.verbose)
        warn("%s: %zu tensors, %" PRIu64 " bytes", path, layout.toc->count,
             toc_bytes(layout.toc, true));
    toc_free(layout.toc);
    model_close(model);
    json_decref(config);
    free(o.set.text);
    return stage_end(&stage);
}
