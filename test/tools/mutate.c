/* mutate: change one thing in a checkpoint's folder, chosen by a seed: a tensor's dtype, shape,
 * name, place or bytes; a file cut, zeroed, swapped, doubled or removed; a key of config.json or of
 * the index. Says in one line what it did. The same seed and folder give the same change. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/die.h"
#include "base/number.h"
#include "base/text.h"
#include "stream/ts.h"

static const struct program program = {
    .about = "Change one thing in a copy of a checkpoint, chosen by a seed, and print what it was: "
             "for tests.",
    .operands = {"dir seed"},
    .examples = {"mutate copy 17"},
    .max_operands = 2,
};

struct mutation {
    uint64_t state; /* of the random numbers */
    const char *dir;
    char *shard[16]; /* paths, sorted */
    size_t shards;
};

/* ---- random numbers ---- */

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_bits(struct mutation *m)
{
    uint64_t z = m->state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t below(struct mutation *m, uint64_t n)
{
    return random_bits(m) % n;
}

/* ---- files ---- */

struct file {
    char *path, *data;
    size_t size;
};

static struct file load(const char *path)
{
    struct stat status;
    struct file file = {.path = xstrdup(path)};
    FILE *in = fopen(path, "rb");
    if (!in || fstat(fileno(in), &status))
        die_errno("%s", path);
    file.size = (size_t)status.st_size;
    file.data = xalloc(file.size + 1, 1);
    if (fread(file.data, 1, file.size, in) != file.size)
        die_errno("%s", path);
    fclose(in);
    return file;
}

static void save(const char *path, const void *data, size_t size)
{
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(data, 1, size, out) != size || fclose(out))
        die_errno("%s", path);
}

static void unload(struct file *file)
{
    free(file->path);
    free(file->data);
}

static char *path_in(const struct mutation *m, const char *name)
{
    return xprintf("%s/%s", m->dir, name);
}

static const char *base_name(const char *path)
{
    return strrchr(path, '/') + 1;
}

static char *some_shard(struct mutation *m)
{
    return m->shard[below(m, m->shards)];
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void find_shards(struct mutation *m)
{
    DIR *folder = opendir(m->dir);
    if (!folder)
        die_errno("%s", m->dir);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (ends_with(entry->d_name, ".safetensors") && m->shards < 16)
            m->shard[m->shards++] = path_in(m, entry->d_name);
    closedir(folder);
    if (!m->shards)
        die("%s: holds no shard", m->dir);
    qsort(m->shard, m->shards, sizeof *m->shard, by_name);
}

/* ---- a tensor's line ---- */

/* A shard's header, and one of its tensors. */
struct header {
    struct file file;
    json_t *json, *tensor; /* the tensor is borrowed */
    size_t size;           /* bytes of the header's text */
    char *name;
};

static void pick_tensor(struct mutation *m, struct header *h)
{
    *h = (struct header){.file = load(some_shard(m))};
    uint64_t size = 0;
    for (size_t i = 8; i-- > 0;)
        size = size << 8 | (uint8_t)h->file.data[i];
    h->size = (size_t)size;
    h->json = json_loadb(h->file.data + 8, h->size, 0, NULL);
    json_object_del(h->json, "__metadata__");
    uint64_t count = below(m, json_object_size(h->json));
    void *at = json_object_iter(h->json);
    while (count--)
        at = json_object_iter_next(h->json, at);
    h->name = xstrdup(json_object_iter_key(at));
    h->tensor = json_object_iter_value(at);
}

/* Write the header back, before the same data. */
static void put_header(struct header *h)
{
    char *text = json_dumps(h->json, JSON_COMPACT);
    size_t size = strlen(text), rest = h->file.size - 8 - h->size;
    char *data = xalloc(8 + size + rest, 1);
    for (size_t i = 0; i < 8; i++)
        data[i] = (char)(size >> 8 * i);
    memcpy(data + 8, text, size); /* NOLINT(bugprone-not-null-terminated-result): no string */
    memcpy(data + 8 + size, h->file.data + 8 + h->size, rest);
    save(h->file.path, data, 8 + size + rest);
    free(data);
    free(text);
}

static void close_header(struct header *h)
{
    json_decref(h->json);
    free(h->name);
    unload(&h->file);
}

static void change_dtype(struct mutation *m)
{
    static const char *const dtypes[] = {"BF16",    "F16",     "F32", "F64", "F8_E4M3",
                                         "F8_E8M0", "F8_E5M2", "I8",  "U8",  "I32",
                                         "I64",     "BOOL",    "F4"};
    struct header h;
    pick_tensor(m, &h);
    const char *dtype = dtypes[below(m, sizeof dtypes / sizeof *dtypes)];
    printf("dtype\t%s is %s\n", h.name, dtype);
    json_object_set_new(h.tensor, "dtype", json_string(dtype));
    put_header(&h);
    close_header(&h);
}

/* Its data stay as they are: some changes fit them, some don't. */
static void change_shape(struct mutation *m)
{
    struct header h;
    pick_tensor(m, &h);
    json_t *shape = json_object_get(h.tensor, "shape");
    size_t dims = json_array_size(shape), i = dims ? (size_t)below(m, dims) : 0;
    json_int_t size = json_integer_value(json_array_get(shape, i));
    switch (below(m, 6)) {
    case 0: /* transposed */
        json_array_insert_new(shape, 0, json_incref(json_array_get(shape, dims - 1)));
        json_array_remove(shape, dims);
        break;
    case 1:
        json_array_insert_new(shape, i, json_integer(1));
        break;
    case 2:
        json_array_set_new(shape, i, json_integer(size + (below(m, 2) ? 1 : -1)));
        break;
    case 3: /* folded */
        json_array_set_new(shape, i, json_integer(size / 2));
        json_array_append_new(shape, json_integer(2));
        break;
    case 4:
        json_array_set_new(shape, i, json_integer(0));
        break;
    default:
        json_array_remove(shape, i);
    }
    char *text = json_dumps(shape, JSON_COMPACT);
    printf("shape\t%s is %s\n", h.name, text);
    free(text);
    put_header(&h);
    close_header(&h);
}

/* Another spelling of a name; the caller frees it. */
static char *respelt(struct mutation *m, const char *name)
{
    size_t length = strlen(name), i = (size_t)below(m, length);
    char *digit = strpbrk(name, "0123456789");
    switch (below(m, 6)) {
    case 0:
        return xprintf("model.%s", name);
    case 1:
        return xprintf("%.*s", (int)length - 1, name);
    case 2:
        return xprintf("%s%s", name, ".weight");
    case 3:
        return ends_with(name, ".scale") ? xprintf("%s_scale_inv", name)
                                         : xprintf("%.*s%s", (int)i, name, name + i + 1);
    case 4:
        return digit ? xprintf("%.*s%c%s", (int)(digit - name), name, '0' + (int)below(m, 10),
                               digit + 1)
                     : xprintf("%s.0", name);
    default:
        return xprintf("%.*s%c%s", (int)i, name, 'a' + (int)below(m, 26), name + i + 1);
    }
}

static void change_name(struct mutation *m)
{
    struct header h;
    pick_tensor(m, &h);
    char *name = respelt(m, h.name);
    printf("name\t%s is %s\n", h.name, name);
    json_object_set(h.json, name, h.tensor);
    if (strcmp(name, h.name) != 0)
        json_object_del(h.json, h.name);
    put_header(&h);
    free(name);
    close_header(&h);
}

static void drop_tensor(struct mutation *m)
{
    struct header h;
    pick_tensor(m, &h);
    printf("tensor\t%s is not in its header\n", h.name);
    json_object_del(h.json, h.name);
    put_header(&h);
    close_header(&h);
}

static void move_tensor(struct mutation *m)
{
    struct header h;
    pick_tensor(m, &h);
    json_t *offsets = json_object_get(h.tensor, "data_offsets");
    json_int_t by = (json_int_t)below(m, 129) - 64;
    for (size_t i = below(m, 2); i < 2; i++)
        json_array_set_new(offsets, i,
                           json_integer(json_integer_value(json_array_get(offsets, i)) + by));
    char *text = json_dumps(offsets, JSON_COMPACT);
    printf("offsets\t%s is at %s\n", h.name, text);
    free(text);
    put_header(&h);
    close_header(&h);
}

/* Some bytes of it, or all, become random ones or all the same. */
static void change_bytes(struct mutation *m)
{
    static const uint8_t fills[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    struct header h;
    pick_tensor(m, &h);
    json_t *offsets = json_object_get(h.tensor, "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    size_t size = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
    char *data = h.file.data + 8 + h.size + begin;
    if (below(m, 4)) {
        uint64_t n = 1 + below(m, 16);
        printf("bytes\t%s: %" PRIu64 " random ones\n", h.name, n);
        while (n-- && size)
            data[below(m, size)] = (char)random_bits(m);
    } else {
        uint8_t fill = fills[below(m, sizeof fills)];
        printf("bytes\t%s: all are 0x%02x\n", h.name, fill);
        memset(data, fill, size);
    }
    save(h.file.path, h.file.data, h.file.size);
    close_header(&h);
}

/* ---- whole files ---- */

static void cut_file(struct mutation *m)
{
    struct file file = load(some_shard(m));
    size_t size = (size_t)below(m, file.size);
    printf("cut\t%s has %zu of %zu bytes\n", base_name(file.path), size, file.size);
    save(file.path, file.data, size);
    unload(&file);
}

static void zero_file(struct mutation *m)
{
    struct file file = load(some_shard(m));
    size_t from = below(m, 4) ? (size_t)below(m, file.size) : 0;
    printf("zeroed\t%s from byte %zu\n", base_name(file.path), from);
    memset(file.data + from, 0, file.size - from);
    save(file.path, file.data, file.size);
    unload(&file);
}

static void junk_file(struct mutation *m)
{
    struct file file = load(some_shard(m));
    uint64_t n = 1 + below(m, 8);
    printf("junk\t%s: %" PRIu64 " bytes of its first 4096\n", base_name(file.path), n);
    while (n--)
        file.data[below(m, file.size < 4096 ? file.size : 4096)] = (char)random_bits(m);
    save(file.path, file.data, file.size);
    unload(&file);
}

static void swap_files(struct mutation *m)
{
    struct file a = load(some_shard(m)), b = load(some_shard(m));
    printf("swapped\t%s and %s\n", base_name(a.path), base_name(b.path));
    save(a.path, b.data, b.size);
    save(b.path, a.data, a.size);
    unload(&a);
    unload(&b);
}

static void double_file(struct mutation *m)
{
    static const char *const names[] = {"consolidated.safetensors", "model-copy.safetensors",
                                        "model.safetensors", "model-00009-of-00009.safetensors"};
    struct file file = load(some_shard(m));
    const char *name = names[below(m, sizeof names / sizeof *names)];
    char *path = path_in(m, name);
    printf("doubled\t%s is %s, too\n", base_name(file.path), name);
    save(path, file.data, file.size);
    free(path);
    unload(&file);
}

static void remove_file(struct mutation *m)
{
    static const char *const names[] = {"config.json", "model.safetensors.index.json", NULL};
    const char *name = names[below(m, 3)];
    char *path = name ? path_in(m, name) : xstrdup(some_shard(m));
    printf("removed\t%s\n", base_name(path));
    if (unlink(path))
        die_errno("%s", path);
    free(path);
}

/* ---- JSON ---- */

static json_t *other_value(struct mutation *m, json_t *value)
{
    static const char *const words[] = {
        "", "fp4", "fp8", "nvfp4", "deepseek_v3", "deepseek_v41", "modelopt"};
    switch (below(m, 8)) {
    case 0:
        return json_null();
    case 1:
        return json_integer(0);
    case 2:
        return json_integer(json_integer_value(value) + 1);
    case 3:
        return json_integer(2 * json_integer_value(value));
    case 4:
        return json_integer(-1);
    case 5:
        return json_array();
    case 6:
        return json_object();
    default:
        return json_string(words[below(m, sizeof words / sizeof *words)]);
    }
}

/* Drop or change a key at any depth. */
static void change_key(struct mutation *m, json_t *object)
{
    uint64_t count = below(m, json_object_size(object));
    void *at = json_object_iter(object);
    while (count--)
        at = json_object_iter_next(object, at);
    const char *key = json_object_iter_key(at);
    json_t *value = json_object_iter_value(at);
    printf("%s", key);
    if (json_object_size(value) && below(m, 8)) {
        printf(".");
        change_key(m, value);
    } else if (below(m, 2)) {
        printf(" is not there\n");
        json_object_del(object, key);
    } else {
        json_t *other = other_value(m, value);
        char *text = json_dumps(other, JSON_ENCODE_ANY | JSON_COMPACT);
        printf(" is %s\n", text);
        free(text);
        json_object_set_new(object, key, other);
    }
}

static void change_json(struct mutation *m, const char *name)
{
    char *path = path_in(m, name);
    json_t *json = json_load_file(path, 0, NULL);
    if (!json_object_size(json))
        die("%s: holds no key", path);
    printf("%s\t", name);
    change_key(m, json);
    if (json_dump_file(json, path, JSON_INDENT(2)))
        die("%s: cannot write it", path);
    json_decref(json);
    free(path);
}

static void change_config(struct mutation *m)
{
    change_json(m, "config.json");
}

static void change_index(struct mutation *m)
{
    change_json(m, "model.safetensors.index.json");
}

/* A tensor that the index looks for in another shard. */
static void misplace(struct mutation *m)
{
    char *path = path_in(m, "model.safetensors.index.json");
    json_t *json = json_load_file(path, 0, NULL), *map = json_object_get(json, "weight_map");
    struct header h;
    pick_tensor(m, &h);
    const char *shard = below(m, 4) ? base_name(some_shard(m)) : "none.safetensors";
    printf("index\t%s is in %s\n", h.name, shard);
    json_object_set_new(map, h.name, json_string(shard));
    if (json_dump_file(json, path, JSON_INDENT(2)))
        die("%s: cannot write it", path);
    close_header(&h);
    json_decref(json);
    free(path);
}

/* ---- all of them ---- */

int main(int argc, char **argv)
{
    static void (*const change[])(struct mutation *) = {
        change_dtype, change_shape, change_name,   drop_tensor,   move_tensor,  change_bytes,
        cut_file,     zero_file,    junk_file,     swap_files,    double_file,  remove_file,
        misplace,     change_index, change_config, change_config, change_config};
    struct stage stage;
    stage_begin(&stage, &program, (const struct arg[]){{0}}, argc, argv);
    struct mutation m = {.dir = stage.operands == 2 ? stage.operand[0] : NULL};
    const char *seed = stage.operands == 2 ? stage.operand[1] : "";
    if (!number_parse(&seed, UINT64_MAX, &m.state) || *seed)
        die_usage("a folder and a seed are needed");
    m.state *= 0x9e3779b97f4a7c15; /* seeds are consecutive; their streams are not */
    find_shards(&m);
    change[below(&m, sizeof change / sizeof *change)](&m);
    for (size_t i = 0; i < m.shards; i++)
        free(m.shard[i]);
    return 0;
}
