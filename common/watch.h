/* watch.h: a thread that sees to it that no process of a run waits for one that is gone.
 *
 * Connected processes say every now and then that they live: a byte. One whose connection ends
 * before it said good-bye, or that is silent for too long, is lost, and that ends this process.
 * What rank 0 ends for, it tells the others first. */
#ifndef WATCH_H
#define WATCH_H

#include "meet.h"

struct watch;

/* Begin; `silence` is how many seconds are too long. The meeting must last as long. */
struct watch *watch_begin(const struct meeting *meeting, unsigned silence);

/* This process begins to read some bytes of a tensor, which counts as lost, too, if it takes as
 * long as a silence; the name must live until NULL tells that it is done. */
void watch_reading(struct watch *watch, const char *tensor);

/* End this process, and the others with it, for what the text says. */
_Noreturn void watch_give_up(struct watch *watch, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The connection with a peer broke: leave it to the thread to say why, which ends the process. */
_Noreturn void watch_lost(struct watch *watch, unsigned rank);

/* Say good-bye, and end. */
void watch_end(struct watch *watch);

#endif
