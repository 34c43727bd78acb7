/* python_json.h: values as Python's json.dumps(value, ensure_ascii=False) writes them, the
 * format of tool schemas and arguments in the prompts of DeepSeek's releases. */
#ifndef PYTHON_JSON_H
#define PYTHON_JSON_H

#include <jansson.h>
#include <stdio.h>

/* Write any value, in one line, members in insertion order: {"a": [1, 1e-05, 1.0, -0.0]}. */
void python_json_put(const json_t *value, FILE *out);

#endif
