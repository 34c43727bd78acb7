/* usage.h: what --help prints, from the same table that command lines are parsed by. */
#ifndef USAGE_H
#define USAGE_H

#include "base/args.h"

/* Print on standard output, at most 80 columns wide but for examples: "usage: " and each form of
 * the command line (in the order of a SYNOPSIS: flags with a letter, what is required, what is
 * not, by name, and operands), what the program does, a line for each option, examples. `args` is
 * the table of all options, shared ones too. */
void usage_print(const struct program *program, const struct arg *args);

#endif
