// setmaxnreg (PTX ISA 9.7.19.5): a block whose warpgroups share out registers computes what it would without.
// nvcc -ptx -arch=compute_90a -o ptx/registers_90.ptx registers_90.cu
#include "suite.h"

// The first of three warpgroups gives registers away and hands its values over, the others take them.
extern "C" __global__ void __launch_bounds__(384, 1) setmaxnreg(const u64 *in, u64 *out, int n) {
    __shared__ u64 words[128];
    ROWS(1, 1);
    u32 t = threadIdx.x;
    if (t < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        words[t] = in[0];
        asm volatile("bar.arrive 1, 384;" ::: "memory");
        out[0] = 0;
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        asm volatile("bar.sync 1, 384;" ::: "memory");
        out[0] = in[0] ^ words[(t + 5) & 127];
    }
}
