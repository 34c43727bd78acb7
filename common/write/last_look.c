#include "write/last_look.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/die.h"
#include "write/parts.h"

/* What st-write itself counts, beside the counts of earlier stages. */
static void add_zeros(json_t **counts, uint64_t zeros, const char *first)
{
    if (!*counts)
        *counts = json_array();
    if (zeros && json_array_append_new(*counts, json_pack("{s:s, s:I, s:s}", "program", "st-write",
                                                          "zero_weights", (json_int_t)zeros,
                                                          "zero_first", first)))
        die("out of memory");
}

/* The files of all shards in DST.partial. */
static void check_files(struct shards *shards, struct output_dir *output, struct ts_in *in,
                        json_t **counts)
{
    struct shard_file file;
    const char *first = NULL;
    uint64_t zeros = 0;
    for (size_t i = 0; i < shards_count(shards); i++)
        if (shards_file(shards, i, &file)) {
            int fd = output_dir_open(output, file.name, false);
            char *difference = shards_file_difference(shards, i, fd, in, false);
            if (difference)
                die("%s/%s: %s; remove the folder (rm -r), and run it again where nothing else "
                    "writes to it",
                    output->partial, file.name, difference);
            zeros += shards_zeros(shards, i, fd, &first);
            output_dir_close(fd, file.name, false);
        }
    add_zeros(counts, zeros, first);
}

void last_look(struct shards *shards, struct output_dir *output, struct ts_in *in, bool part,
               json_t **counts)
{
    check_files(shards, output, in, counts);
    output_dir_refuse_foreign(output, part ? parts_own : NULL);
}

void last_look_at_parts(struct shards *shards, const char *partial, struct ts_in *in, bool read,
                        json_t **counts)
{
    struct shard_file file;
    const char *first = NULL;
    uint64_t zeros = 0;
    for (size_t i = 0; i < shards_count(shards); i++) {
        char *folder;
        if (!shards_file(shards, i, &file))
            continue;
        int fd = parts_open(partial, file.name, &folder);
        if (fd < 0)
            die("%s: %s is not there; remove its part, and run that again", partial, file.name);
        char *difference = shards_file_difference(shards, i, fd, in, read);
        if (difference)
            die("%s/%s: %s; remove the folder of its part, and run that again%s", folder, file.name,
                difference, read ? "" : ", or compare its bytes (--verify)");
        zeros += shards_zeros(shards, i, fd, &first);
        close(fd);
        free(folder);
    }
    add_zeros(counts, zeros, first);
}
