#include "cufile.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/die.h"
#include "base/library.h"

#define NVIDIA_FS "/proc/driver/nvidia-fs/version"

/* The part of CUDA's cufile.h that is needed; not every toolkit has that header. A result is 0 or
 * an error number, with the CUDA driver's; a file is a descriptor, type 1. */
struct result {
    int error, driver;
};
enum { DESCRIPTOR = 1, ALREADY_OPEN = 5026 };
struct opened {
    int type;
    union {
        int descriptor;
        void *other;
    } file;
    const void *functions;
};
struct properties {
    unsigned major, minor; /* of nvidia-fs; 0 without it */
    size_t poll_threshold, direct_size;
    unsigned others[32]; /* more than there are */
};
static struct {
    struct result (*driver_open)(void);
    struct result (*properties)(struct properties *properties);
    struct result (*memory)(const void *memory, size_t size, int flags);
    struct result (*memory_end)(const void *memory);
    struct result (*file)(void **file, struct opened *opened);
    void (*file_end)(void *file);
    ssize_t (*read)(void *file, void *memory, size_t size, off_t offset, off_t at);
} cufile;

static bool load(char **why)
{
    const struct library_function functions[] = {
        {"cuFileDriverOpen", &cufile.driver_open},
        {"cuFileDriverGetProperties", &cufile.properties},
        {"cuFileBufRegister", &cufile.memory},
        {"cuFileBufDeregister", &cufile.memory_end},
        {"cuFileHandleRegister", &cufile.file},
        {"cuFileHandleDeregister", &cufile.file_end},
        {"cuFileRead", &cufile.read},
        {NULL, NULL},
    };
    return library_load("libcufile.so.0", functions, why);
}

/* Open the driver, which stays open like the library. Returns NULL, or an error text. */
static char *open_driver(bool compat)
{
    char *why;
    struct properties properties = {0};
    if (!load(&why))
        return why;
    int error = cufile.driver_open().error;
    if (error == ALREADY_OPEN)
        error = 0;
    if (!error)
        error = cufile.properties(&properties).error;
    if (error)
        return xprintf("cuFile cannot be opened: its error %d; cufile.log may say more", error);
    return compat || properties.major ? NULL : xstrdup("cuFile does not find nvidia-fs");
}

bool cufile_open(void)
{
    const char *wish = getenv("SEEKPIPE_CUFILE");
    bool compat = wish && !strcmp(wish, "compat");
    if (wish && !compat && strcmp(wish, "no") != 0)
        die("SEEKPIPE_CUFILE: wanted no or compat, got '%s'", wish);
    if (!compat && (wish || access(NVIDIA_FS, F_OK)))
        return false;
    char *why = open_driver(compat);
    if (why && compat)
        die("SEEKPIPE_CUFILE=compat: %s", why);
    free(why);
    return !why;
}

bool cufile_memory(void *memory, size_t size)
{
    return !cufile.memory(memory, size, 0).error;
}

void cufile_memory_end(void *memory)
{
    (void)cufile.memory_end(memory); /* cufile_memory()'s caller frees it in any case */
}

void *cufile_file(int fd)
{
    struct opened opened = {.type = DESCRIPTOR, .file = {.descriptor = fd}};
    void *file;
    return cufile.file(&file, &opened).error ? NULL : file;
}

void cufile_file_end(void *file)
{
    cufile.file_end(file);
}

int64_t cufile_read(void *file, uint64_t offset, size_t size, void *memory, uint64_t at)
{
    return cufile.read(file, memory, size, (off_t)offset, (off_t)at);
}
