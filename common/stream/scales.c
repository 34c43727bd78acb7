#include "stream/scales.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "tensor/e8m0.h"

enum { PIECE = 1 << 20 }; /* bytes of a scale that only passes, read at a time */

static void refuse(struct ts_in *in, const struct tensor *tensor, uint64_t i, const char *what)
{
    die("%s: %s: element %" PRIu64 " (byte %" PRIu64 " of the tensor) is %s; the checkpoint is "
        "damaged: compare its checksum with the publisher's",
        ts_name(in), tensor->name, i, i * dtype_size(tensor->dtype), what);
}

/* F32: from element `first` on. */
static void check_f32(struct ts_in *in, const struct tensor *tensor, uint64_t first,
                      const void *raw, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double value = dtype_value(DTYPE_F32, raw, i);
        if (!isfinite(value) || value < 0)
            refuse(in, tensor, first + i, isfinite(value) ? "negative" : "not finite");
    }
}

void scales_check(const struct weight *w, struct ts_in *in, uint32_t line, uint64_t at,
                  const void *raw, size_t size)
{
    const struct tensor *tensor = &ts_toc(in)->tensor[line];
    const uint8_t *code = raw;
    if (line == w->line)
        return;
    if (tensor->dtype == DTYPE_F8_E8M0) {
        const uint8_t *nan = memchr(code, E8M0_NAN, size);
        if (nan)
            refuse(in, tensor, at + (uint64_t)(nan - code), "the E8M0 code 255, NaN");
    } else if (tensor->dtype == DTYPE_F8_E4M3) {
        for (size_t i = 0; i < size; i++)
            if (code[i] % 128 == 127)
                refuse(in, tensor, at + i, "an E4M3 NaN");
    } else if (tensor->dtype == DTYPE_F32) {
        check_f32(in, tensor, at / sizeof(float), raw, size / sizeof(float));
    }
}

struct ts_held *scales_hold(const struct weight *w, struct ts_in *in)
{
    const struct tensor *tensor = ts_present(in);
    uint32_t line = (uint32_t)(tensor - ts_toc(in)->tensor);
    if (line == w->line)
        return NULL;
    struct ts_held *held = ts_hold(in);
    size_t most = tensor->size < PIECE ? (size_t)tensor->size : PIECE;
    void *raw = xgrow(NULL, most, 1);
    for (uint64_t at = 0; at < tensor->size; at += most) {
        size_t size = tensor->size - at < most ? (size_t)(tensor->size - at) : most;
        ts_held_read(held, at, raw, size);
        scales_check(w, in, line, at, raw, size);
    }
    free(raw);
    return held;
}

void scales_keep(struct scales *scales, const struct weight *w, struct ts_in *in, uint32_t line,
                 void *raw)
{
    const struct tensor *tensor = &ts_toc(in)->tensor[line];
    scales_check(w, in, line, 0, raw, (size_t)tensor->size);
    if (line == w->scale) {
        scales_set(scales, w, tensor, raw);
        return;
    }
    if (line == w->scale_2)
        memcpy(&scales->scale_2, raw, sizeof scales->scale_2);
    free(raw);
}

bool scales_take(struct scales *scales, const struct weight *w, struct ts_in *in)
{
    uint32_t line = (uint32_t)(ts_present(in) - ts_toc(in)->tensor);
    if (line != w->scale && line != w->scale_2 && line != w->input_scale)
        return false;
    scales_keep(scales, w, in, line, ts_read_all(in));
    return true;
}
