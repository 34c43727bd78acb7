#include "base/ids.h"

#include "base/die.h"

void ids_add(struct ids *ids, int32_t id)
{
    if (ids->count == ids->room) {
        ids->room = ids->room ? 2 * ids->room : 1024;
        ids->id = xgrow(ids->id, ids->room, sizeof *ids->id);
    }
    ids->id[ids->count++] = id;
}
