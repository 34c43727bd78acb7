/* Replaces the CPU device in a build without oneDNN (make DNNL=0). */
#include "base/die.h"
#include "forward/device.h"

struct device *device_cpu(unsigned threads)
{
    (void)threads;
    die("this build has no CPU device: it was made without oneDNN (DNNL=0); compute on a GPU with "
        "--device cuda, or build with oneDNN");
}
