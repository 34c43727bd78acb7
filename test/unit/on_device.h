/* on_device.h: groups of tests that run on every device: the CPU, then the GPU. SEEKPIPE_DEVICE=cpu
 * or cuda keeps to one of them. Where there is no GPU its tests are skipped. */
#ifndef ON_DEVICE_H
#define ON_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forward/device.h"

/* Skip a test without a device. */
static inline void need_device(const struct device *device)
{
    const char *why;
    if (device)
        return;
    (void)device_cuda(0, &why);
    print_message("no GPU: %s\n", why);
    skip();
}

/* Run a group of tests with *device set, to NULL if it is not there; setup and teardown may be
 * NULL. Returns how many failed. */
static inline int run_on(const char *name, struct device **device, const struct CMUnitTest *tests,
                         size_t count, CMFixtureFunction setup, CMFixtureFunction teardown)
{
    const char *only = getenv("SEEKPIPE_DEVICE"), *why;
    if (only && strcmp(only, name) != 0)
        return 0;
    *device = strcmp(name, "cpu") ? device_cuda(0, &why) : device_cpu(0);
    int failed = _cmocka_run_group_tests(name, tests, count, setup, teardown);
    if (*device)
        (*device)->close(*device);
    return failed;
}

#define run_on_devices(device, tests, setup, teardown)                                             \
    (run_on("cpu", device, tests, sizeof(tests) / sizeof *(tests), setup, teardown) +              \
     run_on("cuda", device, tests, sizeof(tests) / sizeof *(tests), setup, teardown))

#endif
