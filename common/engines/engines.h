/* engines.h: what serving engines make of a checkpoint. */
#ifndef ENGINES_H
#define ENGINES_H

#include "engines/rule.h"

struct engine {
    const char *name;    /* "vllm" */
    const char *title;   /* "vLLM" */
    const char *version; /* the one that the rules were read from */
    const char *serve; /* the command that serves the folder it is run in; NULL: it is no server */
    const char *speculate; /* what that needs to speculate with one draft layer; NULL: not known */
};

/* All engines, ended by one without a name. */
extern const struct engine engines[];

/* The engine of that name, or NULL. */
const struct engine *engine_find(const char *name);

/* True if the rules are of such a checkpoint: it has NVFP4 matrices, or unquantized experts. */
bool engines_know(const struct evidence *evidence);

/* What the engine makes of a checkpoint, with speculation by its drafts or without. *rule = the
 * rule that decides, or NULL if it loads. */
enum verdict engine_judge(const struct engine *engine, const struct evidence *evidence, bool drafts,
                          const struct rule **rule);

/* The command that serves the folder it is run in, with speculation or without; the caller frees
 * it. NULL if the engine does not load it so, or no command is known. */
char *engine_command(const struct engine *engine, const struct evidence *evidence, bool drafts);

/* "loads", "refuses", "loads silently wrong", "not known"; static. */
const char *verdict_name(enum verdict verdict);

/* Both verdicts and their rules as a line for people: "vLLM 0.33.0: loads; with speculation:
 * refuses: …". The caller frees it. */
char *engine_line(const struct engine *engine, const struct evidence *evidence);

#endif
