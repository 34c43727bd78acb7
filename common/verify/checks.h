/* checks.h: the checks of an opened folder. Each adds what it finds to `facts`. */
#ifndef CHECKS_H
#define CHECKS_H

#include "stream/checkpoint.h"
#include "tensor/weight.h"
#include "verify/folder.h"

/* An NVFP4 matrix whose tensors are all there, in forms that can be read. */
struct nvfp4 {
    struct weight weight;
    float scale_2, input_scale;
    bool sampled; /* its block scales are checked, and some rows compared, also without --values */
};

/* In stream order. */
struct nvfp4s {
    struct nvfp4 *of;
    size_t count;
};

/* What tensors there are: all layers and experts, each matrix with its scales, in the right forms.
 * Finds the NVFP4 matrices; nvfp4s_free() frees them. One expert of each layer, and every matrix
 * that is none of an expert, is sampled. */
void check_tensors(const struct folder *folder, struct nvfp4s *nvfp4s, struct facts *facts);
void nvfp4s_free(struct nvfp4s *nvfp4s);

/* The values of scales: second-level and input scales of all matrices, which it sets, and block
 * scales of the sampled ones, or of `every` one. */
void check_values(struct folder *folder, struct nvfp4s *all, bool every, struct facts *facts);

/* config.json and hf_quant_config.json against the formats that are there, and each other. */
void check_configs(const struct folder *folder, const struct nvfp4s *all, struct facts *facts);

/* The side files that a server needs. `source` may be NULL. */
void check_side_files(const struct folder *folder, struct checkpoint *source, struct facts *facts);

/* The tensors that the source has, too: the same bytes, of each a sample or `every` one. NVFP4
 * matrices: rows of the sampled ones, or of `every` one, have about the source's values. A source
 * that lacks a scale ends the process. */
void check_source(struct folder *folder, const struct nvfp4s *all, struct checkpoint *source,
                  bool every, struct facts *facts);

#endif
