// Inline assembly of compute capability 8.0: cp.async, ldmatrix, mma, cache hints, scopes and predicates.
#include <cstdint>

__global__ void ampere(const uint4 *a, const uint4 *b, float *c, int n) {
    __shared__ __align__(16) uint4 tile[256];
    uint32_t s = (uint32_t)__cvta_generic_to_shared(&tile[threadIdx.x]);
    int ok = threadIdx.x < n;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(s), "l"(a + threadIdx.x));
    asm volatile("{\n"
                 "  .reg .pred p;\n"
                 "  setp.ne.b32 p, %0, 0;\n"
                 "  @p cp.async.ca.shared.global [%1], [%2], 16, %3; // guarded\n"
                 "}\n" ::"r"(ok),
                 "r"(s + 2048), "l"(b + threadIdx.x), "r"(ok ? 16 : 0));
    asm volatile("cp.async.commit_group;\ncp.async.wait_group %0;\n" ::"n"(0) : "memory");
    __syncthreads();
    uint32_t x[4], y[2];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(s));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2 + 2048];"
                 : "=r"(y[0]), "=r"(y[1])
                 : "r"(s));
    float d[4] = {0, 0, 0, 0};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    uint32_t lane, lop, q;
    uint64_t policy;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    asm("lop3.b32 %0, %1, %2, %3, 0b11101010;" : "=r"(lop) : "r"(lane), "r"(x[0]), "r"(y[0]));
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("{ .reg .pred %%p, q; /* a pair\n of predicates */\n"
                 " setp.lt.and.u32 %%p|q, %1, 0x1fU, q;\n selp.u32 %0, 1, 017, !%%p;\n"
                 " @!q bra.uni $end_%=;\n add.s32 %0, %0, -(1 << 4) + 3*2;\n$end_%=: }" : "=r"(q) : "r"(lane));
    asm volatile("st.global.L2::cache_hint.f32 [%0], %1, %2;" ::"l"(c + lane), "f"(d[0] + d[1] + d[2] + d[3]), "l"(policy));
    asm volatile("{\n .reg .b32 t<4>;\n mov.b64 {t0, t1}, %1;\n shfl.sync.bfly.b32 t2|_, t0, 0x10, 31, -1;\n"
                 " add.u32 %0, t2, t1;\n}" : "+r"(lop) : "l"(policy));
    asm volatile("st.release.gpu.global.u32 [%0+-4], %1;" ::"l"(c + n), "r"(lop + q) : "memory");
}
