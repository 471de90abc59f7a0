// Fences that need compute capability 9.0 (PTX ISA 9.7.13.4). None of them changes what one thread sees.
// nvcc -ptx -arch=compute_90a -o ptx/fence_90.ptx fence_90.cu
#include "suite.h"

#define FENCE(text) asm volatile(text ::: "memory"); out[0] += 1

KERNEL(fences_90) {
    ROWS(1, 1);
    out[0] = in[0];
    FENCE("fence.acq_rel.cluster;");
    FENCE("fence.acquire.cta;");
    FENCE("fence.release.gpu;");
    FENCE("fence.sc.cluster;");
    FENCE("fence.acquire.sync_restrict::shared::cluster.cluster;");
    FENCE("fence.release.sync_restrict::shared::cta.cluster;");
    FENCE("fence.mbarrier_init.release.cluster;");
    FENCE("fence.proxy.alias;");
    FENCE("fence.proxy.async;");
    FENCE("fence.proxy.async.global;");
    FENCE("fence.proxy.async.shared::cta;");
    FENCE("fence.proxy.async.shared::cluster;");
    FENCE("fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;");
    FENCE("fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster;");
    FENCE("fence.proxy.tensormap::generic.release.gpu;");
}

__device__ __align__(128) u64 map[16];
KERNEL(fence_tensormap) {
    ROWS(1, 1);
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
    out[0] = in[0];
}
