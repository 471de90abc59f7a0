// Inline assembly of compute capability 9.0a: mbarrier, bulk and tensor copies, clusters, wgmma, setmaxnreg.
#include <cstdint>
#include <cuda.h>

__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(256, 1)
hopper(const __grid_constant__ CUtensorMap map, float *out, const void *src) {
    extern __shared__ __align__(1024) uint8_t smem[];
    __shared__ uint64_t full;
    uint32_t bar = (uint32_t)__cvta_generic_to_shared(&full);
    uint32_t dst = (uint32_t)__cvta_generic_to_shared(smem);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(1));
        asm volatile("fence.mbarrier_init.release.cluster;");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(4096) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                     " [%0], [%1, {%3, %4}], [%2];"
                     ::"r"(dst), "l"(&map), "r"(bar), "r"(0), "r"(64) : "memory");
        asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                     ".L2::cache_hint [%0], [%1, {%3, %3, %4}], [%2], %5, %6;"
                     ::"r"(dst), "l"(&map), "r"(bar), "r"(0), "r"(64), "h"((uint16_t)3), "l"(0x14F0000000000000ull)
                     : "memory");
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                     ::"r"(dst), "l"(src), "r"(128), "r"(bar) : "memory");
        asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(240));
    asm volatile("{\n"
                 ".reg .pred P1;\n"
                 "LAB_WAIT:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n"
                 "@P1 bra DONE;\n"
                 "bra LAB_WAIT;\n"
                 "DONE:\n"
                 "}" ::"r"(bar), "r"(0) : "memory");
    float d[4] = {0, 0, 0, 0};
    uint64_t da = (dst >> 4) | (1ull << 62), db = da + 64;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, -1, 0, 1;\n}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(da), "l"(db), "r"(0));
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
    uint32_t remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, 1;" : "=r"(remote) : "r"(bar));
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(remote) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %2}], [%1];"
                 ::"l"(&map), "r"(dst), "r"(0) : "memory");
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
    asm volatile("{\n.reg .pred p;\nbar.sync 1, 128;\nelect.sync _|p, -1;\n@p griddepcontrol.wait;\n}" ::: "memory");
    out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
