/* chat_dsml.h: tool calls in DSML, the markup of DeepSeek-V3.2, V4 and V4.1. */
#ifndef CHAT_DSML_H
#define CHAT_DSML_H

#include "text/chat_writer.h"

#define DSML "｜DSML｜"

/* What a release calls the parts of a tool call. */
struct dsml_tags {
    const char *calls, *invoke, *parameter;
    bool arguments_twice; /* see chat_arguments() */
};

/* Write an assistant's calls. */
void dsml_put_calls(struct chat_writer *w, const struct dsml_tags *tags, const json_t *calls);

/* Write the schemas of tools, one a line. */
void dsml_put_schemas(struct chat_writer *w, const json_t *tools);

#endif
