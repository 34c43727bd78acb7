#include "text/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/die.h"
#include "base/digest.h"
#include "base/hub.h"
#include "base/json.h"
#include "base/placeholder.h"
#include "base/utf8.h"
#include "text/chat_template.h"
#include "text/pattern.h"
#include "text/pretokenizer.h"

/* DeepSeek's tokenizer.json of 8 MB takes 60 MB, parsed. */
enum { FILE_MAX = 64 << 20, PARSED_MAX = 512 << 20, ADDED_MAX = 1 << 16 };
enum { CONTENT_MAX = 512 }; /* bytes of an added token, which may be compared at each of a text */

/* An added token, found in text as it is written. */
struct added {
    char *content;
    size_t length;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized;
};

/* Added tokens to search for in one pass, sorted by content. */
struct finder {
    const struct added **token;
    size_t count;
    bool begins[256]; /* some token begins with this byte */
};

struct tokenizer {
    struct bpe *bpe;
    struct pretokenizer *pretokenizer;
    struct added *added;
    size_t added_count;
    const struct added **by_id;   /* index: id */
    uint32_t size;                /* highest id + 1 */
    struct finder pass[2];        /* those that are not normalized, then the others */
    struct pattern *word;         /* matches a word character, for single_word */
    struct pattern_budget budget; /* of the pre-tokenizer's patterns */
    int32_t bos, eos, pad;
    char *chat_template;
    bool has_family;        /* config.json names a known family */
    enum chat_style family; /* its style */
    enum chat_style untemplated;
    char digest[DIGEST_TEXT];
};

/* ---- reading tokenizer.json ---- */

static char *load(json_t **json, const char *text, size_t length)
{
    json_error_t error;
    *json = json_load_within(text, length, JSON_REJECT_DUPLICATES, PARSED_MAX, &error);
    if (!*json)
        return xprintf("line %d: %s", error.line, error.text);
    return json_is_object(*json) ? NULL : xprintf("not a JSON object");
}

static char *check_normalizer(const json_t *normalizer)
{
    if (!normalizer || json_is_null(normalizer))
        return NULL;
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return xprintf("normalizer: '%.40s' is not supported", type ? type : "without a type");
    const json_t *items = json_object_get(normalizer, "normalizers");
    char *error = NULL;
    for (size_t i = 0; !error && i < json_array_size(items); i++) {
        type = json_string_value(json_object_get(json_array_get(items, i), "type"));
        error = xprintf("normalizer: '%.40s' is not supported", type ? type : "without a type");
    }
    return error;
}

static char *check_decoder(const json_t *decoder)
{
    const char *type = json_string_value(json_object_get(decoder, "type"));
    if (json_is_object(decoder) && (!type || strcmp(type, "ByteLevel") != 0))
        return xprintf("decoder: '%.40s' is not supported", type ? type : "without a type");
    return NULL;
}

static char *read_added(struct tokenizer *t, const json_t *items, const json_t *vocab)
{
    size_t count = json_array_size(items);
    if (count > ADDED_MAX)
        return xprintf("added_tokens: %zu of them, more than the %d allowed", count, ADDED_MAX);
    t->added = xalloc(count, sizeof *t->added);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(items, i), *id = json_object_get(item, "id");
        const char *content = json_string_value(json_object_get(item, "content"));
        if (!content || !json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= BPE_IDS_MAX)
            return xprintf("added_tokens[%zu]: wanted a text 'content' and an 'id' from 0 to %d", i,
                           BPE_IDS_MAX - 1);
        if (!*content)
            continue; /* the reference skips it, too */
        if (strlen(content) > CONTENT_MAX)
            return xprintf("added_tokens[%zu]: '%.40s…' has more than the %d bytes allowed", i,
                           content, CONTENT_MAX);
        const json_t *same = json_object_get(vocab, content);
        if (same && json_integer_value(same) != json_integer_value(id))
            return xprintf("added_tokens[%zu]: '%.40s' has another id in the vocabulary", i,
                           content);
        t->added[t->added_count++] = (struct added){
            .content = xstrdup(content),
            .length = strlen(content),
            .id = (int32_t)json_integer_value(id),
            .single_word = json_is_true(json_object_get(item, "single_word")),
            .lstrip = json_is_true(json_object_get(item, "lstrip")),
            .rstrip = json_is_true(json_object_get(item, "rstrip")),
            .normalized = json_is_true(json_object_get(item, "normalized")),
        };
    }
    return NULL;
}

static char *index_ids(struct tokenizer *t)
{
    t->size = bpe_size(t->bpe);
    for (size_t i = 0; i < t->added_count; i++)
        if ((uint32_t)t->added[i].id >= t->size)
            t->size = (uint32_t)t->added[i].id + 1;
    t->by_id = xalloc(t->size, sizeof *t->by_id);
    for (size_t i = 0; i < t->added_count; i++) {
        const struct added *added = &t->added[i];
        size_t length;
        const char *other = bpe_bytes(t->bpe, (uint32_t)added->id, &length);
        bool taken =
            other && (length != added->length || memcmp(other, added->content, length) != 0);
        if (taken || t->by_id[added->id])
            return xprintf("added_tokens: '%.40s' has the id of another token, %d", added->content,
                           added->id);
        t->by_id[added->id] = added;
    }
    return NULL;
}

static int by_content(const void *a, const void *b)
{
    return strcmp((*(const struct added *const *)a)->content,
                  (*(const struct added *const *)b)->content);
}

static char *index_contents(struct tokenizer *t)
{
    for (int pass = 0; pass < 2; pass++) {
        struct finder *finder = &t->pass[pass];
        finder->token = xalloc(t->added_count, sizeof *finder->token);
        for (size_t i = 0; i < t->added_count; i++)
            if (t->added[i].normalized == pass) {
                finder->token[finder->count++] = &t->added[i];
                finder->begins[(uint8_t)*t->added[i].content] = true;
            }
        qsort(finder->token, finder->count, sizeof *finder->token, by_content);
        for (size_t i = 1; i < finder->count; i++)
            if (!strcmp(finder->token[i - 1]->content, finder->token[i]->content))
                return xprintf("added_tokens: '%.40s' occurs twice", finder->token[i]->content);
    }
    return NULL;
}

static char *parse(struct tokenizer *t, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    char *error = check_normalizer(json_object_get(root, "normalizer"));
    if (!error)
        error = check_decoder(json_object_get(root, "decoder"));
    if (!error)
        error = pretokenizer_new(&t->pretokenizer, json_object_get(root, "pre_tokenizer"));
    if (!error)
        error = bpe_new(&t->bpe, model);
    if (!error)
        error =
            read_added(t, json_object_get(root, "added_tokens"), json_object_get(model, "vocab"));
    if (!error)
        error = index_ids(t);
    if (!error)
        error = index_contents(t);
    if (!error)
        error = pattern_new_word(&t->word);
    return error;
}

char *tokenizer_parse(struct tokenizer **out, const char *text, size_t length)
{
    struct tokenizer *t = *out = xalloc(1, sizeof *t);
    t->budget = pattern_budget();
    t->bos = t->eos = t->pad = -1;
    json_t *root;
    char *error = load(&root, text, length);
    if (!error)
        error = parse(t, root);
    json_decref(root);
    if (error)
        return error;
    struct digest *digest = digest_new();
    digest_add(digest, text, length);
    digest_end(digest, t->digest);
    t->bos = tokenizer_added(t, "<｜begin▁of▁sentence｜>");
    t->eos = t->pad = tokenizer_added(t, "<｜end▁of▁sentence｜>");
    return NULL;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->added_count; i++)
        free(t->added[i].content);
    for (int pass = 0; pass < 2; pass++)
        free(t->pass[pass].token);
    free(t->added);
    free(t->by_id);
    free(t->chat_template);
    pattern_free(t->word);
    pretokenizer_free(t->pretokenizer);
    bpe_free(t->bpe);
    free(t);
}

/* ---- reading tokenizer_config.json ---- */

/* The token under `key` of the configuration, a text or an object with 'content'. *id becomes its
 * id, or -1 if it is null, and is unchanged if the key is missing. */
static char *configured(const struct tokenizer *t, const json_t *config, const char *key,
                        int32_t *id)
{
    const json_t *value = json_object_get(config, key);
    if (!value)
        return NULL;
    *id = -1;
    if (json_is_null(value))
        return NULL;
    const char *content =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (content)
        *id = tokenizer_added(t, content);
    return *id < 0 ? xprintf("%s: '%.40s' is not an added token of tokenizer.json", key,
                             content ? content : "")
                   : NULL;
}

/* The template in a text, or the default one in a list of templates by name. */
static const char *template_of(const json_t *value)
{
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)value, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default"))
            return json_string_value(json_object_get(item, "template"));
    }
    return json_string_value(value);
}

char *tokenizer_configure(struct tokenizer *t, const char *text, size_t length)
{
    json_t *config;
    char *error = load(&config, text, length);
    if (!error)
        error = configured(t, config, "bos_token", &t->bos);
    if (!error)
        error = configured(t, config, "eos_token", &t->eos);
    t->pad = t->eos;
    if (!error)
        error = configured(t, config, "pad_token", &t->pad);
    if (!error && t->pad < 0)
        t->pad = t->eos;
    const char *template = error ? NULL : template_of(json_object_get(config, "chat_template"));
    if (template)
        t->chat_template = xstrdup(template);
    json_decref(config);
    return error;
}

/* ---- files ---- */

/* A file's bytes, which the caller frees; NULL if it does not exist and is not needed. */
static char *slurp(const char *path, bool needed, size_t *length)
{
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO would be waited for */
    if (fd < 0 && errno == ENOENT && !needed)
        return NULL;
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    struct stat status;
    if (!file || fstat(fd, &status))
        die_errno("%s", path);
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX)
        die("%s: wanted a file of at most %d MiB", path, FILE_MAX >> 20);
    *length = (size_t)status.st_size;
    char *text = xgrow(NULL, *length + 1, 1);
    if (fread(text, 1, *length, file) != *length)
        die("%s: cannot be read, or changed meanwhile; try again", path);
    fclose(file);
    const char *what = placeholder(text, *length);
    if (what)
        die("%s: %s", path, what);
    return text;
}

/* The path of file `name` in the folder `path`, or beside the file `path`; the caller frees it. */
static char *beside(const char *path, bool folder, const char *name)
{
    const char *slash = strrchr(path, '/');
    return folder  ? xprintf("%s/%s", path, name)
           : slash ? xprintf("%.*s/%s", (int)(slash - path), path, name)
                   : xstrdup(name);
}

/* The model family in config.json, and its style of conversations. */
static void read_family(struct tokenizer *t, const char *path)
{
    size_t length;
    char *text = slurp(path, false, &length);
    json_t *config = text ? json_object_from(text, length, path) : NULL;
    struct model *model =
        model_open(json_string_value(json_object_get(config, "model_type")), config);
    t->has_family = *model_type(model);
    t->family = model_chat_style(model);
    t->untemplated = model_untemplated_chat(model);
    model_close(model);
    json_decref(config);
    free(text);
}

/* transformers keeps a template in a file of its own, which it prefers. */
static void read_template(struct tokenizer *t, char *path)
{
    size_t length;
    char *text = slurp(path, false, &length);
    free(path);
    if (!text)
        return;
    free(t->chat_template);
    text[length] = '\0';
    t->chat_template = text;
}

struct tokenizer *tokenizer_open(const char *given)
{
    struct stat status;
    char *path = hub_folder(given);
    bool folder = !stat(path, &status) && S_ISDIR(status.st_mode);
    char *file = folder ? beside(path, folder, "tokenizer.json") : xstrdup(path);
    if (folder && lstat(file, &status) && errno == ENOENT)
        die("%s: no tokenizer.json in it; is it a checkpoint? (for one that has none, other "
            "programs make the ids: amax-calib --tokens)",
            path);
    char *config = beside(path, folder, "tokenizer_config.json");
    char *model = beside(path, folder, "config.json");
    struct tokenizer *t;
    size_t length;
    char *text = slurp(file, true, &length), *error = tokenizer_parse(&t, text, length);
    if (error)
        die("%s: %s", file, error);
    free(text);
    text = slurp(config, false, &length);
    error = text ? tokenizer_configure(t, text, length) : NULL;
    if (error)
        die("%s: %s", config, error);
    read_template(t, beside(path, folder, "chat_template.jinja"));
    read_family(t, model);
    free(text);
    free(model);
    free(config);
    free(file);
    free(path);
    return t;
}

int32_t tokenizer_added(const struct tokenizer *t, const char *content)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (!strcmp(t->added[i].content, content))
            return t->added[i].id;
    return -1;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}

enum chat_style tokenizer_chat_style(const struct tokenizer *t)
{
    if (t->family != CHAT_UNKNOWN)
        return t->family;
    bool v4 =
        tokenizer_added(t, "｜DSML｜") >= 0 && tokenizer_added(t, "<｜latest_reminder｜>") >= 0;
    bool system = tokenizer_added(t, "<｜System｜>") >= 0; /* new in V4.1 */
    if (v4 && !t->has_family)
        return system ? CHAT_V41 : CHAT_V4;
    return t->chat_template ? chat_template_style(t->chat_template) : t->untemplated;
}

const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return t->chat_template;
}

const char *tokenizer_digest(const struct tokenizer *t)
{
    return t->digest;
}

/* ---- encoding ---- */

/* The longest token of a pass that the text begins with, or NULL. */
static const struct added *token_at(const struct finder *finder, const char *text, size_t length)
{
    const struct added *found = NULL;
    size_t first = 0, last = finder->count; /* tokens that match the text so far */
    for (size_t k = 0; first < last; k++) {
        if (finder->token[first]->length == k)
            found = finder->token[first++]; /* the shortest comes first */
        if (k == length)
            break;
        uint8_t wanted = (uint8_t)text[k];
        size_t low = first, high = last;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if ((uint8_t)finder->token[middle]->content[k] < wanted)
                low = middle + 1;
            else
                high = middle;
        }
        first = low;
        high = last;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if ((uint8_t)finder->token[middle]->content[k] <= wanted)
                low = middle + 1;
            else
                high = middle;
        }
        last = low;
    }
    return found;
}

static bool is_space(uint32_t c)
{
    return (c >= '\t' && c <= '\r') || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* The length in bytes of the character before text[at], at > 0. */
static size_t size_before(const char *text, size_t at)
{
    size_t size = 1;
    while (size < 4 && size < at && ((uint8_t)text[at - size] & 0xc0) == 0x80)
        size++;
    return size;
}

static bool is_word(const struct tokenizer *t, const char *character, size_t size)
{
    size_t start, end;
    struct pattern_budget budget = {0};
    return pattern_find(t->word, character, size, 0, &budget, &start, &end) == PATTERN_FOUND;
}

static bool stands_alone(const struct tokenizer *t, const char *text, size_t length, size_t start,
                         size_t stop)
{
    if (start > 0) {
        size_t size = size_before(text, start);
        if (is_word(t, text + start - size, size))
            return false;
    }
    bool valid;
    return stop == length ||
           !is_word(t, text + stop, utf8_step(text + stop, length - stop, &valid));
}

struct encoding {
    struct tokenizer *t;
    const struct passage *passage;
    struct ids *ids;
    size_t enough;
    const char *error;
};

static bool take_piece(void *context, const char *piece, size_t length)
{
    struct encoding *e = context;
    bpe_encode(e->t->bpe, piece, length, e->ids);
    return e->ids->count < e->enough;
}

/* The first plain stretch that ends after byte `at`; an empty one at the passage's end if there is
 * none. */
static struct stretch plain_from(const struct passage *passage, size_t at)
{
    size_t low = 0, high = passage->plains;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (passage->plain[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < passage->plains ? passage->plain[low]
                                 : (struct stretch){passage->length, passage->length};
}

/* The first added token of a pass from byte *at on, outside the plain stretches; *at becomes its
 * position. NULL if there is none. */
static const struct added *next_token(const struct encoding *e, const struct finder *finder,
                                      const char *text, size_t length, size_t *at)
{
    size_t first = (size_t)(text - e->passage->text); /* the text's position in the passage */
    struct stretch plain = plain_from(e->passage, first + *at);
    while (*at < length) {
        if (first + *at >= plain.start) {
            *at = plain.end - first;
            plain = plain_from(e->passage, plain.end);
            continue;
        }
        size_t end = plain.start - first < length ? plain.start - first : length;
        const struct added *token =
            finder->begins[(uint8_t)text[*at]] ? token_at(finder, text + *at, end - *at) : NULL;
        if (token)
            return token;
        ++*at;
    }
    return NULL;
}

/* Passes 0 and 1 search for added tokens; then the text between them is encoded. False: stop. */
static bool encode_from(struct encoding *e, int pass, const char *text, size_t length)
{
    if (pass == 2) {
        e->error = pretokenizer_cut(e->t->pretokenizer, text, length, &e->t->budget, take_piece, e);
        return !e->error && e->ids->count < e->enough;
    }
    const struct finder *finder = &e->t->pass[pass];
    const struct added *token;
    size_t done = 0, at = 0;
    while ((token = next_token(e, finder, text, length, &at))) {
        size_t start = at, stop = at + token->length;
        at = stop;
        if (token->single_word && !stands_alone(e->t, text, length, start, stop))
            continue;
        while (token->lstrip && start > done &&
               is_space(utf8_decode(text + start - size_before(text, start))))
            start -= size_before(text, start);
        while (token->rstrip && stop < length && is_space(utf8_decode(text + stop))) {
            bool valid;
            stop += utf8_step(text + stop, length - stop, &valid);
        }
        if (start > done && !encode_from(e, pass + 1, text + done, start - done))
            return false;
        ids_add(e->ids, token->id);
        done = stop;
        if (e->ids->count >= e->enough)
            return false;
    }
    return done >= length || encode_from(e, pass + 1, text + done, length - done);
}

char *tokenizer_encode_passage(struct tokenizer *t, const struct passage *passage, size_t enough,
                               struct ids *ids)
{
    struct encoding e = {t, passage, ids, enough, NULL};
    pattern_budget_begin(&t->budget, passage->length);
    encode_from(&e, 0, passage->text, passage->length);
    pattern_budget_end(&t->budget);
    return e.error ? xprintf("%s", e.error) : NULL;
}

char *tokenizer_encode(struct tokenizer *t, const char *text, size_t length, size_t enough,
                       struct ids *ids)
{
    return tokenizer_encode_passage(t, &(struct passage){.text = (char *)text, .length = length},
                                    enough, ids);
}

/* ---- decoding ---- */

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *length)
{
    const char *bytes = id < 0 ? NULL : bpe_bytes(t->bpe, (uint32_t)id, length);
    const struct added *added = id >= 0 && (uint32_t)id < t->size ? t->by_id[id] : NULL;
    if (bytes || !added)
        return bytes;
    *length = added->length;
    return added->content;
}

size_t tokenizer_decode(const struct tokenizer *t, const int32_t *id, size_t count, char **text,
                        size_t *length)
{
    char *bytes;
    size_t size, i;
    FILE *out = open_memstream(&bytes, &size);
    if (!out)
        die("out of memory");
    for (i = 0; i < count; i++) {
        size_t piece_size;
        const char *piece = tokenizer_token(t, id[i], &piece_size);
        if (!piece)
            break;
        fwrite(piece, 1, piece_size, out);
    }
    if (fclose(out))
        die("out of memory");
    if (i == count)
        *length = utf8_repair(bytes, size, text);
    free(bytes);
    return i;
}
