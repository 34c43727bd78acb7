/* Tensors kept for reading again, in memory or in $TMPDIR. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/die.h"
#include "base/temporary.h"
#include "stream/ts_in.h"

enum { BUFFER = 1 << 20, HOLD_MEMORY = 64 << 20 }; /* more than HOLD_MEMORY goes to a file */

struct ts_held {
    struct ts_in *in;
    const struct tensor *tensor;
    size_t source; /* the location, if data == NULL and fd < 0 */
    uint64_t offset;
    char *data;
    int fd;
};

static int spool(struct ts_in *in)
{
    const char *folder = temporary_folder();
    int fd = temporary_file(folder);
    if (fd < 0)
        die_errno("%s: %s: cannot spool to $TMPDIR, %s", in->name, in->tensor->name, folder);
    char *buffer = xgrow(NULL, BUFFER, 1);
    for (uint64_t left = in->tensor->size; left;) {
        size_t size = left < BUFFER ? (size_t)left : BUFFER;
        ts_read(in, buffer, size);
        for (size_t done = 0; done < size;) {
            ssize_t put = write(fd, buffer + done, size - done);
            if (put < 0 && errno != EINTR)
                die_errno("%s: %s: spooling to $TMPDIR, %s", in->name, in->tensor->name, folder);
            done += put > 0 ? (size_t)put : 0;
        }
        left -= size;
    }
    free(buffer);
    return fd;
}

struct ts_held *ts_hold(struct ts_in *in)
{
    struct ts_held *held = xalloc(1, sizeof *held);
    *held = (struct ts_held){.in = in, .tensor = in->tensor, .fd = -1};
    if (in->by_reference) {
        held->source = in->source;
        held->offset = in->offset;
    } else if (in->tensor->size <= HOLD_MEMORY - in->held_memory) {
        held->data = ts_read_all(in);
        in->held_memory += (size_t)in->tensor->size;
    } else {
        held->fd = spool(in);
    }
    return held;
}

const struct tensor *ts_held_tensor(const struct ts_held *held)
{
    return held->tensor;
}

void ts_held_read(struct ts_held *held, uint64_t offset, void *data, size_t size)
{
    if (offset > held->tensor->size || size > held->tensor->size - offset)
        die("%s: %s: read beyond its end", held->in->name, held->tensor->name);
    if (held->data) {
        memcpy(data, held->data + offset, size);
    } else if (held->fd < 0) {
        sources_read(&held->in->checkpoint.sources, held->source, held->offset + offset, data, size,
                     held->tensor->name);
    } else {
        for (size_t done = 0; done < size;) {
            ssize_t got = pread(held->fd, (char *)data + done, size - done, (off_t)(offset + done));
            if (got == 0 || (got < 0 && errno != EINTR))
                die_errno("%s: %s: reading back from $TMPDIR", held->in->name, held->tensor->name);
            done += got > 0 ? (size_t)got : 0;
        }
    }
}

bool ts_held_ref(const struct ts_held *held, size_t *source, uint64_t *offset)
{
    *source = held->source;
    *offset = held->offset;
    return !held->data && held->fd < 0;
}

void ts_release(struct ts_held *held)
{
    if (!held)
        return;
    if (held->data)
        held->in->held_memory -= (size_t)held->tensor->size;
    if (held->fd >= 0)
        close(held->fd);
    free(held->data);
    free(held);
}
