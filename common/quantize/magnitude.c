#include "quantize/magnitude.h"

#include <stdlib.h>

#include "base/die.h"
#include "tensor/bf16.h"

float magnitude_largest(const struct codec *codec, const struct weight *w, struct ts_held *held,
                        const struct scales *scales)
{
    const struct tensor *tensor = ts_held_tensor(held);
    uint64_t all = weight_filled_rows(w), most = weight_band(w, tensor);
    uint64_t row_bytes = weight_row_bytes(w, tensor);
    if (!all)
        return 0;
    char *raw = xalloc((size_t)most, (size_t)row_bytes);
    uint16_t *out = xalloc((size_t)(most * w->cols), sizeof *out);
    uint16_t largest = 0; /* BF16 magnitudes order as integers */
    for (uint64_t first = 0; first < all; first += most) {
        uint64_t rows = at_most(all - first, most);
        ts_held_read(held, first * row_bytes, raw, (size_t)(rows * row_bytes));
        weight_rows_by(codec, w, tensor, scales, first, rows, raw, out);
        for (size_t i = 0; i < rows * w->cols; i++)
            if ((out[i] & 0x7fff) > largest)
                largest = out[i] & 0x7fff;
    }
    free(raw);
    free(out);
    return bf16_to_f32(largest);
}
