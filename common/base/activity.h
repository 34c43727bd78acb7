/* activity.h: what a process spends its time on. */
#ifndef ACTIVITY_H
#define ACTIVITY_H

struct activity {
    double cpu;  /* seconds of processors so far */
    double disk; /* seconds in which one of its threads waited for a disk, as seen in samples */
};

/* Look, `seconds` after the last look: samples are taken to be of that time. */
void activity_sample(struct activity *activity, double seconds);

#endif
