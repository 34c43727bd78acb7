#include "stream/pickle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/die.h"

/* Enough for a dict of a million tensors, and all that a hostile file can take. */
enum {
    STACK_MAX = 1 << 16,  /* values; Python sets 1000 items of a dict at a time */
    MEMO_MAX = 1 << 23,   /* values; Python remembers some 6 a tensor */
    TUPLES_MAX = 1 << 24, /* values in all tuples */
    TENSORS_MAX = 1 << 20,
    TUPLE_MAX = 8,   /* values of one tuple: a shape */
    GLOBAL_MAX = 64, /* bytes of "module name" */
};

enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_BINUNICODE = 'X',
    OP_GLOBAL = 'c',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_TUPLE = ')',
    OP_EMPTY_DICT = '}',
    OP_PROTO = 0x80,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2,
    OP_TUPLE3,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE,
    OP_LONG1,
};

enum kind { MARK, TEXT, NUMBER, TRUTH, TUPLE, DICT, GLOBAL, STORAGE, TENSOR };

static const char *const kind_name[] = {
    [MARK] = "nothing",
    [TEXT] = "a string",
    [NUMBER] = "a number",
    [TRUTH] = "a bool",
    [TUPLE] = "a tuple",
    [DICT] = "a dict",
    [GLOBAL] = "a type or function",
    [STORAGE] = "a storage",
    [TENSOR] = "a tensor",
};

/* The types and functions that a dict of tensors needs. None is ever called: they only say what the
 * tuple that follows describes. */
static const struct global {
    const char *name;
    enum { MAKES_TENSOR, MAKES_DICT, STORAGE_TYPE } role;
    enum dtype dtype;
} globals[] = {
    {"torch._utils _rebuild_tensor_v2", MAKES_TENSOR, DTYPE_COUNT},
    {"collections OrderedDict", MAKES_DICT, DTYPE_COUNT},
    {"torch BFloat16Storage", STORAGE_TYPE, DTYPE_BF16},
    {"torch FloatStorage", STORAGE_TYPE, DTYPE_F32},
    {"torch HalfStorage", STORAGE_TYPE, DTYPE_F16},
    {"torch DoubleStorage", STORAGE_TYPE, DTYPE_F64},
    {"torch LongStorage", STORAGE_TYPE, DTYPE_I64},
    {"torch IntStorage", STORAGE_TYPE, DTYPE_I32},
    {"torch ShortStorage", STORAGE_TYPE, DTYPE_I16},
    {"torch CharStorage", STORAGE_TYPE, DTYPE_I8},
    {"torch ByteStorage", STORAGE_TYPE, DTYPE_U8},
    {"torch BoolStorage", STORAGE_TYPE, DTYPE_BOOL},
};

struct value {
    enum kind kind;
    uint32_t count; /* TUPLE and STORAGE: number of values */
    union {
        const char *text;
        int64_t number;
        const struct global *global;
        size_t first; /* TUPLE and STORAGE: index of its first value in tuples[]; TENSOR: its index
                       * in made[] */
    };
};

struct values {
    struct value *item;
    size_t count, capacity;
};

struct machine {
    const uint8_t *data;
    size_t size;
    size_t at;      /* the next byte */
    size_t present; /* offset of the current opcode */
    struct values stack, memo, tuples;
    struct pickle made; /* tensors that have no name yet */
    struct pickle *dict;
    char *error; /* the first one */
};

static const char only_tensors[] =
    "is more than tensors need; this file could run code: save a plain dict of tensors instead";

/* The key whose value is being built, or NULL. */
static const char *present_key(const struct machine *m)
{
    const struct values *stack = &m->stack;
    size_t i = stack->count > 1 && stack->item[1].kind == MARK ? 2 : 1;
    while (i + 1 < stack->count && stack->item[i + 1].kind == TENSOR)
        i += 2;
    return i < stack->count && stack->item[i].kind == TEXT ? stack->item[i].text : NULL;
}

/* Record the error with the tensor concerned and the offset. Returns false. */
__attribute__((format(printf, 2, 3))) static bool refuse(struct machine *m, const char *format, ...)
{
    const char *key = present_key(m);
    char *message;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&message, format, args);
    va_end(args);
    if (length < 0)
        die("out of memory");
    m->error = xprintf("%s%sbyte %zu of the pickle: %s", key ? key : "", key ? ": " : "",
                       m->present, message);
    free(message);
    return false;
}

/* ---- stack, memo, tuples ---- */

static bool append(struct machine *m, struct values *values, size_t most, struct value value)
{
    if (values->count == most)
        return refuse(m, "more than %zu values at once", most);
    if (values->count == values->capacity) {
        values->capacity = values->capacity ? 2 * values->capacity : 256;
        values->item = xgrow(values->item, values->capacity, sizeof *values->item);
    }
    values->item[values->count++] = value;
    return true;
}

static bool push(struct machine *m, struct value value)
{
    return append(m, &m->stack, STACK_MAX, value);
}

/* The topmost `count` values; NULL (and an error) if there are fewer above the last mark. */
static struct value *topmost(struct machine *m, size_t count)
{
    size_t there = 0;
    while (there < count && there < m->stack.count &&
           m->stack.item[m->stack.count - 1 - there].kind != MARK)
        there++;
    if (there == count)
        return m->stack.item + m->stack.count - count;
    refuse(m, "wanted %zu values on the stack, got %zu", count, there);
    return NULL;
}

/* The values above the last mark, *count of them and at most `most`; or NULL (and an error). */
static struct value *above_mark(struct machine *m, size_t most, size_t *count)
{
    for (*count = 0; *count < m->stack.count; ++*count) {
        struct value *below = &m->stack.item[m->stack.count - 1 - *count];
        if (below->kind == MARK)
            return below + 1;
        if (*count == most)
            break;
    }
    refuse(m, "wanted a mark and at most %zu values after it", most);
    return NULL;
}

/* Turn the topmost `count` values into one tuple. */
static bool make_tuple(struct machine *m, const struct value *value, size_t count, bool marked)
{
    struct value tuple = {.kind = TUPLE, .count = (uint32_t)count, .first = m->tuples.count};
    for (size_t i = 0; i < count; i++)
        if (!append(m, &m->tuples, TUPLES_MAX, value[i]))
            return false;
    m->stack.count -= count + marked;
    return push(m, tuple);
}

static bool tuple_of(struct machine *m, size_t count)
{
    struct value *value = topmost(m, count);
    return value && make_tuple(m, value, count, false);
}

static bool tuple_to_mark(struct machine *m)
{
    size_t count;
    struct value *value = above_mark(m, TUPLE_MAX, &count);
    return value && make_tuple(m, value, count, true);
}

static bool put(struct machine *m, uint64_t index)
{
    struct value *value = topmost(m, 1);
    if (value && index != m->memo.count) /* Python numbers them consecutively */
        return refuse(m, "wanted memo entry %zu, got %" PRIu64, m->memo.count, index);
    return value && append(m, &m->memo, MEMO_MAX, *value);
}

static bool get(struct machine *m, uint64_t index)
{
    if (index >= m->memo.count)
        return refuse(m, "memo entry %" PRIu64 " of %zu", index, m->memo.count);
    return push(m, m->memo.item[index]);
}

/* ---- operands ---- */

/* The next `count` bytes, or NULL. */
static const uint8_t *take(struct machine *m, uint64_t count)
{
    if (count > m->size - m->at) {
        refuse(m, "wanted %" PRIu64 " bytes more, but the pickle ends after %zu", count,
               m->size - m->at);
        return NULL;
    }
    const uint8_t *bytes = m->data + m->at;
    m->at += (size_t)count;
    return bytes;
}

/* A little-endian unsigned number of up to 8 bytes. */
static bool take_number(struct machine *m, unsigned size, uint64_t *number)
{
    const uint8_t *bytes = take(m, size);
    *number = 0;
    for (unsigned i = size; bytes && i-- > 0;)
        *number = *number << 8 | bytes[i];
    return bytes;
}

static bool push_number(struct machine *m, unsigned size, bool with_sign)
{
    uint64_t bits;
    if (!take_number(m, size, &bits))
        return false;
    unsigned above = 64 - 8 * size;
    if (with_sign && size && bits >> (8 * size - 1))
        bits |= above ? ~UINT64_C(0) << (64 - above) : 0;
    return push(m, (struct value){.kind = NUMBER, .number = (int64_t)bits});
}

static bool push_long(struct machine *m)
{
    uint64_t size;
    if (!take_number(m, 1, &size))
        return false;
    if (size > 8)
        return refuse(m, "a number of %" PRIu64 " bytes, wanted at most 8", size);
    return push_number(m, (unsigned)size, true);
}

static bool push_text(struct machine *m)
{
    uint64_t length;
    if (!take_number(m, 4, &length))
        return false;
    if (length > TENSOR_NAME_MAX)
        return refuse(m, "a string of %" PRIu64 " bytes, wanted at most %d", length,
                      TENSOR_NAME_MAX);
    const uint8_t *bytes = take(m, length);
    for (uint64_t i = 0; bytes && i < length; i++)
        if (bytes[i] < ' ' || bytes[i] > '~')
            return refuse(m, "a string with byte 0x%02x, wanted printable ASCII", bytes[i]);
    return bytes && push(m, (struct value){.kind = TEXT,
                                           .text = arena_copy(m->dict->arena, (const char *)bytes,
                                                              (size_t)length)});
}

/* "module\nname\n" */
static bool push_global(struct machine *m)
{
    char name[GLOBAL_MAX + 1];
    unsigned lines = 0;
    size_t length = 0;
    for (; lines < 2 && length < GLOBAL_MAX; length++) {
        const uint8_t *byte = take(m, 1);
        if (!byte)
            return false;
        lines += *byte == '\n';
        name[length] = (char)*byte;
        if (*byte == '\n')
            name[length] = ' ';
        else if (*byte < ' ' || *byte > '~')
            name[length] = '?';
    }
    name[length - (lines == 2)] = 0;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (lines == 2 && !strcmp(globals[i].name, name))
            return push(m, (struct value){.kind = GLOBAL, .global = &globals[i]});
    return refuse(m, "global '%s' %s", name, only_tensors);
}

/* ---- storages and tensors ---- */

static bool append_tensor(struct machine *m, struct pickle *list,
                          const struct pickle_tensor *tensor)
{
    if (list->count == TENSORS_MAX)
        return refuse(m, "more than %d tensors", TENSORS_MAX);
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 256;
        list->tensor = xgrow(list->tensor, list->capacity, sizeof *list->tensor);
    }
    list->tensor[list->count++] = *tensor;
    return true;
}

/* True if the tuple consists of `count` values of these kinds. */
static bool consists_of(const struct machine *m, struct value tuple, const enum kind *kind,
                        size_t count)
{
    bool same = tuple.count == count;
    for (size_t i = 0; same && i < count; i++)
        same = m->tuples.item[tuple.first + i].kind == kind[i];
    return same;
}

/* ('storage', type, key, location, elements) becomes a storage. */
static bool make_storage(struct machine *m)
{
    static const enum kind wanted[] = {TEXT, GLOBAL, TEXT, TEXT, NUMBER};
    struct value *tuple = topmost(m, 1);
    if (!tuple)
        return false;
    if (tuple->kind != TUPLE || !consists_of(m, *tuple, wanted, 5))
        return refuse(m, "wanted ('storage', type, key, location, elements), got %s of other form",
                      kind_name[tuple->kind]);
    const struct value *part = &m->tuples.item[tuple->first];
    if (strcmp(part[0].text, "storage") != 0 || part[1].global->role != STORAGE_TYPE)
        return refuse(m, "wanted a storage, got '%s' of type %s", part[0].text,
                      part[1].global->name);
    if (part[4].number < 0)
        return refuse(m, "a storage of %" PRIi64 " elements", part[4].number);
    tuple->kind = STORAGE;
    return true;
}

/* Copy the numbers of a tuple to number[]. */
static bool read_numbers(struct machine *m, struct value tuple, const char *what, uint64_t *number)
{
    for (size_t i = 0; i < tuple.count; i++) {
        const struct value *part = &m->tuples.item[tuple.first + i];
        if (part->kind != NUMBER || part->number < 0)
            return refuse(m, "its %s holds %s, wanted numbers from 0", what,
                          part->kind == NUMBER ? "a negative number" : kind_name[part->kind]);
        number[i] = (uint64_t)part->number;
    }
    return true;
}

/* (storage, offset, shape, stride, requires_grad, backward_hooks) becomes a tensor in made[]. */
static bool make_tensor(struct machine *m, struct value arguments, struct value *result)
{
    static const enum kind wanted[] = {STORAGE, NUMBER, TUPLE, TUPLE, TRUTH, DICT};
    if (!consists_of(m, arguments, wanted, 6))
        return refuse(m, "wanted a tensor made of (storage, offset, shape, stride, requires_grad, "
                         "backward_hooks), got other arguments");
    const struct value *part = &m->tuples.item[arguments.first];
    const struct value *storage = &m->tuples.item[part[0].first];
    if (part[1].number < 0)
        return refuse(m, "its offset is %" PRIi64, part[1].number);
    if (part[2].count != part[3].count)
        return refuse(m, "its shape has %" PRIu32 " dimensions, its stride %" PRIu32, part[2].count,
                      part[3].count);
    struct pickle_tensor tensor = {
        .storage = storage[2].text,
        .elements = (uint64_t)storage[4].number,
        .offset = (uint64_t)part[1].number,
        .rank = (uint8_t)part[2].count,
        .dtype = (uint8_t)storage[1].global->dtype,
    };
    *result = (struct value){.kind = TENSOR, .first = m->made.count};
    return read_numbers(m, part[2], "shape", tensor.dim) &&
           read_numbers(m, part[3], "stride", tensor.stride) && append_tensor(m, &m->made, &tensor);
}

/* A call: a type or function applied to a tuple. */
static bool reduce(struct machine *m)
{
    struct value *called = topmost(m, 2);
    if (!called)
        return false;
    struct value arguments = called[1];
    if (called->kind != GLOBAL || arguments.kind != TUPLE)
        return refuse(m, "a call of %s with %s %s", kind_name[called->kind],
                      kind_name[arguments.kind], only_tensors);
    if (called->global->role == STORAGE_TYPE ||
        (called->global->role == MAKES_DICT && arguments.count))
        return refuse(m, "a call of '%s' %s", called->global->name, only_tensors);
    struct value result = {.kind = DICT};
    if (called->global->role == MAKES_TENSOR && !make_tensor(m, arguments, &result))
        return false;
    *called = result;
    m->stack.count--;
    return true;
}

/* ---- the dict ---- */

/* Move `count` values, pairs of key and tensor, into the dict at `below` on the stack. */
static bool set_items(struct machine *m, const struct value *item, size_t count, size_t below)
{
    if (!below || m->stack.item[below - 1].kind != DICT || count % 2)
        return refuse(m, "wanted a dict followed by pairs of key and tensor");
    if (below > 1)
        return refuse(m, "wanted a tensor, got a dict; save the inner dict alone");
    for (size_t i = 0; i < count; i += 2) {
        const struct value *key = &item[i], *value = &item[i + 1];
        if (key->kind != TEXT)
            return refuse(m, "a key is %s, wanted a string", kind_name[key->kind]);
        if (value->kind != TENSOR)
            return refuse(m, "wanted a tensor, got %s; save a flat dict of tensors only",
                          kind_name[value->kind]);
        struct pickle_tensor tensor = m->made.tensor[value->first];
        tensor.name = key->text;
        if (!append_tensor(m, m->dict, &tensor))
            return false;
    }
    m->stack.count = below;
    return true;
}

static bool set_one(struct machine *m)
{
    struct value *item = topmost(m, 2);
    return item && set_items(m, item, 2, m->stack.count - 2);
}

static bool set_to_mark(struct machine *m)
{
    size_t count;
    struct value *item = above_mark(m, STACK_MAX, &count);
    return item && set_items(m, item, count, m->stack.count - count - 1);
}

/* ---- the machine ---- */

static bool step(struct machine *m, uint8_t opcode)
{
    uint64_t number;
    switch (opcode) {
    case OP_MARK:
        return push(m, (struct value){.kind = MARK});
    case OP_EMPTY_DICT:
        return push(m, (struct value){.kind = DICT});
    case OP_EMPTY_TUPLE:
        return push(m, (struct value){.kind = TUPLE});
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push(m, (struct value){.kind = TRUTH});
    case OP_BININT:
        return push_number(m, 4, true);
    case OP_BININT1:
        return push_number(m, 1, false);
    case OP_BININT2:
        return push_number(m, 2, false);
    case OP_LONG1:
        return push_long(m);
    case OP_BINUNICODE:
        return push_text(m);
    case OP_GLOBAL:
        return push_global(m);
    case OP_TUPLE:
        return tuple_to_mark(m);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return tuple_of(m, opcode - OP_TUPLE1 + 1U);
    case OP_BINPUT:
        return take_number(m, 1, &number) && put(m, number);
    case OP_LONG_BINPUT:
        return take_number(m, 4, &number) && put(m, number);
    case OP_BINGET:
        return take_number(m, 1, &number) && get(m, number);
    case OP_LONG_BINGET:
        return take_number(m, 4, &number) && get(m, number);
    case OP_BINPERSID:
        return make_storage(m);
    case OP_REDUCE:
        return reduce(m);
    case OP_SETITEM:
        return set_one(m);
    case OP_SETITEMS:
        return set_to_mark(m);
    default:
        return refuse(m, "opcode 0x%02x %s", opcode, only_tensors);
    }
}

static bool run(struct machine *m)
{
    if (m->size < 2 || m->data[0] != OP_PROTO || m->data[1] != 2)
        return refuse(m, "no pickle of protocol 2, which torch.save() writes by default");
    for (m->at = 2;;) {
        m->present = m->at;
        const uint8_t *opcode = take(m, 1);
        if (!opcode)
            return false;
        if (*opcode == OP_STOP)
            break;
        if (!step(m, *opcode))
            return false;
    }
    if (m->stack.count != 1 || m->stack.item[0].kind != DICT)
        return refuse(m, "wanted one dict of tensors, got %s",
                      m->stack.count == 1 ? kind_name[m->stack.item[0].kind] : "something else");
    if (m->at != m->size)
        return refuse(m, "the pickle stops here, but %zu bytes follow", m->size - m->at);
    return true;
}

char *pickle_parse(struct pickle *pickle, const void *data, size_t size)
{
    *pickle = (struct pickle){.arena = arena_new()};
    struct machine m = {.data = data, .size = size, .dict = pickle};
    run(&m);
    free(m.stack.item);
    free(m.memo.item);
    free(m.tuples.item);
    free(m.made.tensor);
    return m.error;
}

void pickle_free(struct pickle *pickle)
{
    arena_free(pickle->arena);
    free(pickle->tensor);
    *pickle = (struct pickle){0};
}
