/* piece.h: operations whose rows are computed on their own, on all threads. */
#ifndef CPU_PIECE_H
#define CPU_PIECE_H

#include "cpu/cpu.h"

/* Rows first … last - 1 of an operation. */
typedef void piece(const void *args, uint64_t first, uint64_t last);

/* Defines one, in a version for each width of vectors (vectors.h): PIECE(name) { ... } */
#define PIECE(name)                                                                                \
    VECTORS(void, name, (const void *args, uint64_t first, uint64_t last), (args, first, last))

/* Columns at a time, where several loops over them are faster than one. */
enum { COLS = 64 };

/* Run an operation on `rows` rows, each worth `elements` elements. */
void cpu_each_row(struct device *d, uint64_t rows, uint64_t elements, piece *run, const void *args);

#endif
