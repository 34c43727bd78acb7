/* cufile.h: cuFile, which reads files directly into the GPU's memory (GPUDirect Storage), loaded at
 * run time (see library.h).
 *
 * It needs nvidia-fs in the kernel. Without that, cuFile reads through buffers of its own, which is
 * no faster than reading without it; so it is then used only if $SEEKPIPE_CUFILE is "compat". With
 * "no", it is never used. */
#ifndef CUFILE_H
#define CUFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Load and open cuFile. False if it is not to be used. Ends the process if the user asked for it
 * and it cannot be opened, or if $SEEKPIPE_CUFILE has any other value. */
bool cufile_open(void);

/* Register memory of the current GPU to read into: whole pages, from a page's start on. False if
 * that fails. */
bool cufile_memory(void *memory, size_t size);
void cufile_memory_end(void *memory);

/* Register a file opened with O_DIRECT, until cufile_file_end(); NULL if cuFile cannot read it. */
void *cufile_file(int fd);
void cufile_file_end(void *file);

/* Read `size` bytes, whole pages, from `offset` of the file to `at` of registered memory. Returns
 * the number of bytes read, fewer at the file's end, or a negative error. The memory must be on the
 * thread's current GPU. */
int64_t cufile_read(void *file, uint64_t offset, size_t size, void *memory, uint64_t at);

#ifdef __cplusplus
}
#endif

#endif
