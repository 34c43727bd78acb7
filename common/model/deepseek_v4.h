/* deepseek_v4.h: the names that DeepSeek-V4 and V4.1 have in common. Only files in model/ include
 * it. */
#ifndef DEEPSEEK_V4_NAMES_H
#define DEEPSEEK_V4_NAMES_H

#include "model/family.h"

/* The matrices of an expert and of attention, for struct part_name. */
extern const struct matrix_name deepseek_v4_mlp[], deepseek_v4_attention[];

/* What all layers and drafts have, for struct family. */
extern const struct layer_names deepseek_v4_layer_has[];

/* Their shapes. */
extern const struct shape_name deepseek_v4_shapes[];

#endif
