/* ids.h: a growing array of token ids. */
#ifndef IDS_H
#define IDS_H

#include <stddef.h>
#include <stdint.h>

/* Starts as all zeros; the owner frees `id`. */
struct ids {
    int32_t *id;
    size_t count, room;
};

void ids_add(struct ids *ids, int32_t id);

#endif
