#include "text/passage.h"

#include <stdlib.h>

#include "base/die.h"

void passage_plain(struct passage *passage, size_t start, size_t end)
{
    struct stretch *last = passage->plains ? &passage->plain[passage->plains - 1] : NULL;
    if (start == end)
        return;
    if (last && last->end == start) {
        last->end = end;
        return;
    }
    passage->plain = xgrow(passage->plain, passage->plains + 1, sizeof *passage->plain);
    passage->plain[passage->plains++] = (struct stretch){start, end};
}

void passage_free(struct passage *passage)
{
    free(passage->text);
    free(passage->plain);
    *passage = (struct passage){0};
}
