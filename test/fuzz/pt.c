/* PyTorch's files: the zip, and the tensors whose bytes lie in it. */
#include "stream/pt.h"

#include <archive.h>
#include <stdlib.h>

#include "fuzz.h"

enum { FILE_FD = 10 };

/* In the place of libarchive's function: without checksums, which no changed input would have. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) names of the linker */
int __real_archive_read_support_format_zip_seekable(struct archive *zip);
int __wrap_archive_read_support_format_zip_seekable(struct archive *zip);
int __wrap_archive_read_support_format_zip_seekable(struct archive *zip)
{
    int result = __real_archive_read_support_format_zip_seekable(zip);
    fuzz_must(archive_read_set_options(zip, "zip:ignorecrc32") == ARCHIVE_OK, "no such option");
    return result;
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pt pt;
    struct toc *toc = toc_new();
    unsigned sum = 0;
    fuzz_file(FILE_FD, data, size);
    if (!fuzz_refused(pt_read(&pt, "/proc/self/fd/10", toc, toc_shard(toc, "s")))) {
        fuzz_must(pt.tensors == toc->count, "a table of another length");
        for (size_t i = 0; i < pt.tensors; i++)
            for (uint64_t j = 0; j < toc->tensor[i].size; j++)
                sum += (unsigned char)pt.data[i][j]; /* all of it is there */
    }
    fuzz_must(sum < UINT32_MAX, "a sum");
    pt_free(&pt);
    toc_free(toc);
    return 0;
}
