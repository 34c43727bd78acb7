/* maps.h: a calibration as tables of layers and experts: how large the inputs and weights of each
 * product were, and how many tokens reached each expert. */
#ifndef MAPS_H
#define MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

/* Of experts beyond these, nothing is drawn: no name makes an unbounded picture. */
enum { MAP_ROWS_MAX = 1000, MAP_EXPERTS_MAX = 1024 };

enum map_kind { MAP_INPUT, MAP_WEIGHT, MAP_TOKENS };

struct map {
    enum map_kind kind;
    size_t order;   /* among those of its kind, as the model uses them */
    char *matrices; /* of an expert: "w1+w3"; "" of tokens */
    double *value;  /* [row * experts + expert]; NAN: there is none */
};

struct maps {
    size_t rows, count; /* of layers, of maps */
    uint32_t experts;
    struct place *layer; /* of each row, in the order of the model */
    struct map *map;     /* inputs, weights, tokens */
    bool *cold;          /* as map.value: no token reached this expert */
    size_t cold_count, expert_count;
};

/* Read a calibration of a model, a stream of amaxes as amax-merge writes it, from a file. Of the
 * matrices that are one product in engines, the largest counts. Where tokens were not counted, an
 * expert without an amax is cold, as amax-plot has it. maps_free() frees the result and accepts
 * NULL. */
struct maps *maps_load(const char *path, const struct model *model);
void maps_free(struct maps *maps);

/* True if a row has that expert: any value of it. */
bool maps_has(const struct maps *maps, size_t row, uint32_t expert);

#endif
