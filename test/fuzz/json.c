/* The walker of json.h beside Jansson: what it takes for JSON is JSON. */
#include "base/json.h"

#include <string.h>

#include "fuzz.h"

struct document {
    const uint8_t *data;
    size_t size, piece;
};

/* A few bytes at a time, so that tokens lie on the borders. */
static size_t deliver(void *context, char *data, size_t room)
{
    struct document *document = context;
    size_t size = document->piece < room ? document->piece : room;
    if (size > document->size)
        size = document->size;
    memcpy(data, document->data, size);
    document->data += size;
    document->size -= size;
    return size;
}

static bool read_past(const uint8_t *data, size_t size, size_t piece)
{
    struct document document = {data, size, piece};
    struct json_walk *walk = json_walk_new(deliver, &document);
    bool good = json_walk_skip(walk) && json_walk_end(walk);
    const char *error = json_walk_error(walk);
    fuzz_must(good == !error, "an error without a text, or the reverse");
    fuzz_refused(error ? strdup(error) : NULL);
    json_walk_free(walk);
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool good = read_past(data, size, SIZE_MAX);
    fuzz_must(read_past(data, size, 1 + size % 7) == good, "it depends on how the bytes come");
    json_error_t error;
    json_t *tree = json_loadb((const char *)data, size, JSON_DECODE_ANY, &error);
    /* Jansson has numbers to represent; the walker passes over those that are too large. */
    bool too_large = !tree && json_error_code(&error) == json_error_numeric_overflow;
    fuzz_must(!good || tree || too_large, "what Jansson refuses is accepted");
    json_decref(tree);
    return 0;
}
