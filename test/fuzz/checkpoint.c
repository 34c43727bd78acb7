/* A checkpoint's model.safetensors.index.json and config.json, with a NUL between them, beside one
 * good shard. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "forward/network.h"
#include "fuzz.h"
#include "stream/ts.h"
#include "write/config.h"

enum { INDEX_FD = 10, CONFIG_FD = 11, SHARD_FD = 12 };
static const char header[] =
    "{\"layers.0.ffn.experts.0.w1.weight\":{\"dtype\":\"U8\",\"shape\":[2,8]"
    ",\"data_offsets\":[0,16]},\"layers.0.ffn.experts.0.w1.weight_scale\":"
    "{\"dtype\":\"F8_E4M3\",\"shape\":[2,1],\"data_offsets\":[16,18]}}";
static char folder[] = "/tmp/fuzz-checkpoint-XXXXXX";

static void link_file(const char *name, int fd)
{
    char to[64], path[128];
    snprintf(to, sizeof to, "/proc/self/fd/%d", fd);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    fuzz_must(symlink(to, path) == 0, "no link");
}

static void remove_folder(void)
{
    static const char *const names[] = {"model.safetensors.index.json", "config.json",
                                        "m.safetensors"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* The folder's files are links to files in memory, but for the shard, whose path is resolved. */
static void make_folder(void)
{
    char path[128];
    fuzz_must(mkdtemp(folder), "no folder");
    atexit(remove_folder);
    link_file("model.safetensors.index.json", INDEX_FD);
    link_file("config.json", CONFIG_FD);
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    FILE *file = fopen(path, "we");
    uint64_t length = sizeof header - 1;
    fuzz_must(file && fwrite(&length, 1, 8, file) == 8 &&
                  fwrite(header, 1, length, file) == length &&
                  fwrite("0123456789abcdefgh", 1, 18, file) == 18 && fclose(file) == 0,
              "no shard");
}

static void read_checkpoint(void *context)
{
    struct configs configs;
    struct ts_in *in = ts_open(context, NULL);
    while (ts_next(in))
        continue;
    configs_derive(&configs, in, ts_toc(in));
    configs_free(&configs);
    network_close(network_open(in));
    ts_close(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    if (!made)
        make_folder();
    made = true;
    const uint8_t *config;
    size_t index_size = fuzz_cut(data, size, &config);
    fuzz_file(INDEX_FD, data, index_size);
    fuzz_file(CONFIG_FD, config, (size_t)(data + size - config));
    fuzz_survives(read_checkpoint, folder);
    return 0;
}
