// elect (PTX ISA 9.7.13.14).
// nvcc -ptx -arch=compute_90a -o ptx/warp_90.ptx warp_90.cu
#include "suite.h"

// How many lanes are elected, and whether the elected lane is the one that is named. Which lane is not specified.
KERNEL(elect_sync) {
    ROWS(1, 2);
    u32 lane, p;
    asm volatile("{.reg .pred p;\nelect.sync %0|p, -1;\nselp.u32 %1, 1, 0, p;}" : "=r"(lane), "=r"(p));
    u32 all = __ballot_sync(~0u, p);
    out[0] = __popc(all), out[1] = all == 1u << lane;
}
