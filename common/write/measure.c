#include "write/measure.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/die.h"
#include "base/progress.h"
#include "base/temporary.h"
#include "write/copy.h"

/* Bytes between two looks at the clock; and those that the disk may be behind, as in a run that is
 * much longer. */
enum { PIECE = 16 << 20, BEHIND = 256 << 20 };

struct measuring {
    struct ts_in *in;
    struct copier copier;
    int fd;
    uint64_t at, synced; /* in the file */
    char *piece;
    double waiting;
};

/* Have the disk begin with a piece, and wait until it is no more than BEHIND. An error comes back
 * in the end. */
static void write_back(struct measuring *m, uint64_t from, uint64_t size)
{
    sync_file_range(m->fd, (off_t)from, (off_t)size, SYNC_FILE_RANGE_WRITE);
    if (m->at < m->synced + BEHIND + PIECE)
        return;
    uint64_t to = m->at - BEHIND;
    sync_file_range(m->fd, (off_t)m->synced, (off_t)(to - m->synced),
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                        SYNC_FILE_RANGE_WAIT_AFTER);
    m->synced = to;
}

/* `size` bytes of the current tensor from `done` on. */
static void write_piece(struct measuring *m, uint64_t done, uint64_t size)
{
    const char *what = ts_present(m->in)->name;
    size_t source;
    uint64_t from;
    if (ts_ref(m->in, &source, &from)) {
        int file = sources_acquire(ts_sources(m->in), source);
        if (!share_range(&m->copier, file, from + done, m->fd, m->at, size, what))
            copy_range(&m->copier, file, from + done, m->fd, m->at, size, what);
        sources_release(ts_sources(m->in), source);
    } else {
        double begin = now();
        ts_read(m->in, m->piece, (size_t)size);
        m->waiting += now() - begin;
        write_at(m->fd, m->at, m->piece, size, what);
    }
    m->at += size;
    write_back(m, m->at - size, size);
}

static bool next_tensor(struct measuring *m)
{
    double begin = now();
    bool any = ts_next(m->in);
    m->waiting += now() - begin;
    return any;
}

struct measured measure_writing(struct ts_in *in, const char *folder, double seconds, uint64_t most)
{
    enum { PAGE = 4096 };
    struct measuring m = {.in = in, .fd = temporary_file(folder), .piece = xaligned(PIECE, 1)};
    if (m.fd < 0)
        die_errno("%s", folder);
    struct measured measured = {0};
    bool any = next_tensor(&m);
    double begin = now(), end = begin + seconds; /* the start of the stages is not its speed */
    m.waiting = 0;
    for (; any && now() < end && measured.bytes < most; any = next_tensor(&m)) {
        const struct tensor *tensor = ts_present(in);
        size_t source;
        uint64_t from = 0, size;
        ts_ref(in, &source, &from);
        m.at += (from % PAGE + PAGE - m.at % PAGE) % PAGE; /* as st-write lays them out */
        for (uint64_t done = 0; done < tensor->size && now() < end; done += size) {
            size = at_most(tensor->size - done, PIECE);
            write_piece(&m, done, size);
            measured.bytes += size;
        }
    }
    if (fdatasync(m.fd))
        die_errno("%s", folder);
    measured.seconds = now() - begin;
    measured.waiting = m.waiting;
    close(m.fd);
    free(m.piece);
    return measured;
}
