/* usage.h: what --help prints, from the table that parses the command line. */
#ifndef USAGE_H
#define USAGE_H

#include "base/args.h"

/* Print on standard output, at most 80 columns wide except for examples: "usage: " and each form of
 * the command line (in SYNOPSIS order: flags with a letter, required options, other options by
 * name, operands), what the program does, a line for each option, and examples. `args` is the table
 * of all options, including shared ones. */
void usage_print(const struct program *program, const struct arg *args);

#endif
