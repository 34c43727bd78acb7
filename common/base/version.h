/* version.h: the version of all that is built, installed and packed. The Makefile reads it from
 * here. */
#ifndef VERSION_H
#define VERSION_H

#define SEEKPIPE_VERSION "0.1.0"

#endif
