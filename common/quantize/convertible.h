/* convertible.h: which matrices of a table become NVFP4, and inputs that a plan refuses because of
 * it: nothing to convert, and routed experts that would end up in different formats. */
#ifndef CONVERTIBLE_H
#define CONVERTIBLE_H

#include "model/weights.h"
#include "quantize/recipe.h"
#include "stream/ts.h"

/* By matrix: true for those that are data, to which the recipe gives NVFP4, and whose format
 * `convertible` (indexed by enum format) allows. The caller frees it.
 *
 * Ends the process, saying what was found and what to do, if the recipe does not fit the table (see
 * recipe_check()) or wants a format that these programs do not make; if a matrix does not divide
 * into NVFP4's blocks; if routed experts of one section that the recipe names would not all be
 * NVFP4 (engines take one format for all of them; MTP's may have another); or if there is no such
 * matrix at all in a stream of a whole checkpoint. A part may have none. */
bool *convertible_select(struct ts_in *in, const struct weights *weights,
                         const struct recipe *recipe, const bool *convertible);

/* End the process for a whole checkpoint of which the recipe names no matrix: with what names it
 * expects, and what they are like. */
_Noreturn void convertible_refuse_names(struct ts_in *in, const struct weights *weights,
                                        const struct recipe *recipe);

#endif
