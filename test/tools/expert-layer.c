/* expert-layer: the routed experts of one layer, in NVFP4, as st-eval --arithmetic engine computes
 * them; for test/clients/arithmetic.py, which compares them with an engine's own emulation.
 *
 * EXPERTS is a safetensors file of the matrices of all experts, expert.N.a (gate), .b (up) and .c
 * (down): in the order of use, which is that of their names. ROWS is one of `x` BF16 [rows, dim],
 * and `expert` I32 and `weight` F32 [rows, used]. Writes the output, F32 [rows, dim], to standard
 * output. */
#include "../unit/expert_layer.h"

#include <stdio.h>

/* A tensor of the file, which the caller frees; *dim = its dimensions. */
static void *read_tensor(const char *path, const char *name, enum dtype dtype, uint64_t *dim)
{
    struct ts_in *in = ts_open(path, NULL);
    void *data = NULL;
    for (const struct tensor *tensor; (tensor = ts_next(in));)
        if (!strcmp(tensor->name, name) && tensor->dtype == dtype && tensor->rank == 2) {
            memcpy(dim, tensor->dim, 2 * sizeof *dim);
            data = ts_read_all(in);
        }
    ts_close(in);
    if (!data)
        die("%s: no matrix %s of %s in it", path, name, dtype_name(dtype));
    return data;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die_usage("expert-layer EXPERTS ROWS NUMBER INNER LIMIT: how many experts, the columns of "
                  "their last "
                  "matrix, the limit of their SwiGLU");
    uint64_t dim[2], used[2];
    uint16_t *x = read_tensor(argv[2], "x", DTYPE_BF16, dim);
    int32_t *expert = read_tensor(argv[2], "expert", DTYPE_I32, used);
    float *weight = read_tensor(argv[2], "weight", DTYPE_F32, used);
    float *y = xalloc((size_t)(dim[0] * dim[1]), sizeof *y);
    const struct expert_layer layer = {.path = argv[1],
                                       .pieces = {.count = strtoull(argv[3], NULL, 10),
                                                  .used = used[1],
                                                  .name = "expert.",
                                                  .matrix = {"a", "b", "c"},
                                                  .dim = dim[1],
                                                  .inner = strtoull(argv[4], NULL, 10),
                                                  .limit = strtof(argv[5], NULL)},
                                       .dim = dim[1],
                                       .rows = dim[0],
                                       .x = x,
                                       .expert = expert,
                                       .weight = weight};
    struct device *device = device_cpu(0);
    expert_layer_run(&layer, device, ARITHMETIC_ENGINE, y, NULL);
    device->close(device);
    if (fwrite(y, sizeof *y, (size_t)(dim[0] * dim[1]), stdout) != dim[0] * dim[1] ||
        fflush(stdout))
        die_errno("standard output");
    free(x);
    free(expert);
    free(weight);
    free(y);
    return 0;
}
