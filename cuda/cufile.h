/* cufile.h: cuFile, which reads files right into the GPU's memory (GPUDirect Storage), found when
 * it is needed (see library.h).
 *
 * It needs nvidia-fs in the kernel. Without that it reads into memory of its own first, which is no
 * better than what is done without cuFile; so it is only used then if $SEEKPIPE_CUFILE is "compat".
 * With "no", it never is. */
#ifndef CUFILE_H
#define CUFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Find and open it, for memory of the present GPU that bytes are read into: whole pages, from the
 * beginning of one on. False if it is not to be used; the process ends if that is what the user
 * asked for, or if $SEEKPIPE_CUFILE is something else. */
bool cufile_open(void);
bool cufile_memory(void *memory, size_t size);
void cufile_memory_end(void *memory);

/* A file that is open for O_DIRECT, until it is given back; NULL if cuFile cannot read it. */
void *cufile_file(int fd);
void cufile_file_end(void *file);

/* `size` bytes, whole pages, from `offset` of the file on, to `at` of that memory; how many came,
 * which may be fewer at the file's end, or below 0. The thread's GPU is the memory's. */
int64_t cufile_read(void *file, uint64_t offset, size_t size, void *memory, uint64_t at);

#ifdef __cplusplus
}
#endif

#endif
