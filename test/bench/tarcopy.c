/* tarcopy: what libarchive alone needs for a stream: reads a tar from standard input and writes it
 * to standard output, in the blocks that ts uses, and nothing else. The yardstick for stages. */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <unistd.h>

#include "base/die.h"

enum { BLOCK = 1 << 20 };

static void check(struct archive *archive, la_ssize_t result)
{
    if (result < 0)
        die("%s", archive_error_string(archive));
}

static void copy_data(struct archive *out, struct archive *in, char *buffer)
{
    la_ssize_t got;
    while ((got = archive_read_data(in, buffer, BLOCK)) > 0)
        check(out, archive_write_data(out, buffer, (size_t)got));
    check(in, got);
}

int main(void)
{
    static char buffer[BLOCK];
    struct archive *in = archive_read_new(), *out = archive_write_new();
    struct archive_entry *entry;
    int code;
    setlocale(LC_CTYPE, "C.UTF-8");
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, BLOCK);
    fcntl(STDOUT_FILENO, F_SETPIPE_SZ, BLOCK);
    check(in, archive_read_support_format_tar(in));
    check(in, archive_read_open_fd(in, STDIN_FILENO, BLOCK));
    check(out, archive_write_set_format_pax_restricted(out));
    check(out, archive_write_set_bytes_per_block(out, BLOCK));
    check(out, archive_write_set_bytes_in_last_block(out, 1));
    check(out, archive_write_open_fd(out, STDOUT_FILENO));
    while ((code = archive_read_next_header(in, &entry)) == ARCHIVE_OK) {
        check(out, archive_write_header(out, entry));
        if (archive_entry_filetype(entry) == AE_IFREG)
            copy_data(out, in, buffer);
    }
    if (code != ARCHIVE_EOF)
        die("%s", archive_error_string(in));
    check(out, archive_write_close(out));
    archive_write_free(out);
    archive_read_free(in);
    return 0;
}
