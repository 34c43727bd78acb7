/* side_files.h: what becomes of the stream's side files in the checkpoint that is written. */
#ifndef SIDE_FILES_H
#define SIDE_FILES_H

#include "write/config.h"

/* The source's card, beside that of a converted checkpoint (card.h). */
#define SOURCE_CARD "README.source.md"

/* The page about a converted checkpoint (report/report.h). A source that was converted before has
 * one of that conversion, which is left out. */
#define REPORT_FILE "quant-report.html"

/* The name that a side file of the stream gets; NULL if it is left out, since st-write makes a file
 * of that name itself, or since it is code that does not read the formats that are written. Static,
 * or `name`. */
const char *side_file_name(struct ts_in *in, const char *name, const struct configs *configs);

/* The code that is left out, a folder; NULL if the stream has none. */
const char *side_files_left_out(const struct ts_in *in, const struct configs *configs);

#endif
