// Loads and stores of every space, addresses, hints (PTX ISA 9.7.9); constant tables, static and dynamic shared memory,
// local arrays.
// nvcc -ptx -arch=compute_80 -o ptx/memory.ptx memory.cu
#include "suite.h"

// Loads the first bytes of the row.
#define LOAD(name, text, W)                                                       \
    KERNEL(name) {                                                                \
        ROWS(2, 1);                                                               \
        T_##W d;                                                                  \
        asm volatile(text " %0, [%1];" : "=" #W(d) : "l"(in) : "memory");         \
        out[0] = d;                                                               \
    }
LOAD(ld_global_u8, "ld.global.u8", r) LOAD(ld_global_s8, "ld.global.s8", r) LOAD(ld_global_u16, "ld.global.u16", h)
LOAD(ld_global_s16, "ld.global.s16", r) LOAD(ld_global_b32, "ld.global.b32", r) LOAD(ld_global_f32, "ld.global.f32", r)
LOAD(ld_global_b64, "ld.global.b64", l) LOAD(ld_global_s32, "ld.global.s32", l) LOAD(ld_u32, "ld.u32", l)
LOAD(ld_global_nc_u32, "ld.global.nc.u32", r) LOAD(ld_global_ca_u32, "ld.global.ca.u32", r)
LOAD(ld_global_cg_u32, "ld.global.cg.u32", r) LOAD(ld_global_cs_u32, "ld.global.cs.u32", r)
LOAD(ld_global_lu_u32, "ld.global.lu.u32", r) LOAD(ld_global_cv_u32, "ld.global.cv.u32", r)
LOAD(ld_volatile_global_u32, "ld.volatile.global.u32", r) LOAD(ld_relaxed_gpu_global_u32, "ld.relaxed.gpu.global.u32", r)
LOAD(ld_acquire_sys_global_u64, "ld.acquire.sys.global.u64", l) LOAD(ldu_global_u32, "ldu.global.u32", r)
LOAD(ld_global_nc_L1__no_allocate_L2__128B_b64, "ld.global.nc.L1::no_allocate.L2::128B.b64", l)
#define LOAD2(name, text, W)                                                                           \
    KERNEL(name) {                                                                                     \
        ROWS(2, 2);                                                                                    \
        T_##W x, y;                                                                                    \
        asm volatile(text " {%0, %1}, [%2];" : "=" #W(x), "=" #W(y) : "l"(in) : "memory");             \
        out[0] = x, out[1] = y;                                                                        \
    }
LOAD2(ld_global_v2_u8, "ld.global.v2.u8", r) LOAD2(ld_global_v2_s16, "ld.global.v2.s16", r)
LOAD2(ld_global_v2_b32, "ld.global.v2.b32", r) LOAD2(ld_global_v2_u64, "ld.global.v2.u64", l)
#define LOAD4(name, text, W)                                                                           \
    KERNEL(name) {                                                                                     \
        ROWS(2, 4);                                                                                    \
        T_##W x, y, z, w;                                                                              \
        asm volatile(text " {%0, %1, %2, %3}, [%4];"                                                   \
                     : "=" #W(x), "=" #W(y), "=" #W(z), "=" #W(w) : "l"(in) : "memory");               \
        out[0] = x, out[1] = y, out[2] = z, out[3] = w;                                                \
    }
LOAD4(ld_global_v4_u8, "ld.global.v4.u8", r) LOAD4(ld_global_v4_u16, "ld.global.v4.u16", h)
LOAD4(ld_global_v4_f32, "ld.global.v4.f32", r) LOAD4(ld_global_nc_v4_u32, "ld.global.nc.v4.u32", r)

// Stores over ones.
#define STORE(name, text, W)                                                      \
    KERNEL(name) {                                                                \
        ROWS(2, 2);                                                               \
        out[0] = out[1] = ~0ull;                                                  \
        asm volatile(text " [%0], %1;" ::"l"(out), ARG(W, 0) : "memory");         \
    }
STORE(st_global_u8, "st.global.u8", r) STORE(st_global_b16, "st.global.b16", h) STORE(st_global_f32, "st.global.f32", r)
STORE(st_global_b64, "st.global.b64", l) STORE(st_u32, "st.u32", r) STORE(st_global_wb_u32, "st.global.wb.u32", r)
STORE(st_global_cg_u32, "st.global.cg.u32", r) STORE(st_global_cs_u32, "st.global.cs.u32", r)
STORE(st_global_wt_u32, "st.global.wt.u32", r) STORE(st_volatile_global_u32, "st.volatile.global.u32", r)
STORE(st_release_gpu_global_u32, "st.release.gpu.global.u32", r) STORE(st_relaxed_sys_global_u64, "st.relaxed.sys.global.u64", l)
KERNEL(st_global_v2_b64) {
    ROWS(2, 2);
    asm volatile("st.global.v2.b64 [%0], {%1, %2};" ::"l"(out), ARG(l, 1), ARG(l, 0) : "memory");
}
KERNEL(st_global_v4_b32) {
    ROWS(2, 2);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(out), ARG(r, 1), "r"((u32)(in[1] >> 32)), ARG(r, 0),
                 "r"((u32)(in[0] >> 32)) : "memory");
}
KERNEL(st_global_v4_u8) {
    ROWS(2, 2);
    asm volatile("st.global.v4.u8 [%0], {%1, %2, %3, %4};" ::"l"(out), ARG(r, 0), ARG(r, 1), "r"((u32)(in[0] >> 8)),
                 "r"((u32)(in[1] >> 8)) : "memory");
}

// Static and dynamic shared memory: the block's words reversed, then shifted by one.
extern __shared__ u64 dynamic[];
KERNEL(shared_static_and_dynamic) {
    __shared__ u64 fixed[128];
    ROWS(1, 1);
    fixed[threadIdx.x] = in[0];
    __syncthreads();
    dynamic[threadIdx.x] = fixed[127 - threadIdx.x];
    __syncthreads();
    out[0] = dynamic[(threadIdx.x + 1) % 128];
}
KERNEL(ld_shared_v2_u32) {
    __shared__ __align__(16) u64 cell[128];
    ROWS(1, 1);
    u32 address = (u32)__cvta_generic_to_shared(cell + threadIdx.x), x, y;
    asm volatile("st.shared.b64 [%0], %1;" ::"r"(address), ARG(l, 0) : "memory");
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(x), "=r"(y) : "r"(address) : "memory");
    out[0] = (u64)x << 32 | y;
}

__constant__ u32 squares[8] = {0, 1, 4, 9, 16, 25, 36, 49};
__constant__ double reals[4] = {0.5, -0.0, 1e300, -3.0};
__device__ short shorts[5] = {-1, 2, -32768};
__device__ const u32 *pointer = squares + 2;
KERNEL(constant_tables) {
    ROWS(1, 4);
    out[0] = squares[in[0] & 7];
    out[1] = __double_as_longlong(reals[in[0] & 3]);
    out[2] = (u32)shorts[in[0] % 5];
    asm volatile("ld.const.u32 %0, [squares+12];" : "=r"(((u32 *)out)[6]));
}
// An array that is indexed dynamically lies in local memory.
KERNEL(local_array) {
    ROWS(4, 2);
    u32 list[32];
    for (int k = 0; k < 32; k++) list[k] = (u32)(in[k & 3] >> k);
    for (int k = 0; k < 16; k++) {
        u32 at = (u32)(in[0] + k * in[1]) & 31, to = (u32)(in[2] ^ k) & 31, x = list[at];
        list[at] = list[to], list[to] = x + k;
    }
    u64 low = 0, high = 0;
    for (int k = 0; k < 32; k++) low = low * 31 + list[k], high ^= (u64)list[k] << (k & 31);
    out[0] = low, out[1] = high;
}

// Conversions of addresses there and back, and which space an address is of.
KERNEL(cvta) {
    __shared__ u32 cell[128];
    ROWS(1, 1);
    u32 mine[2] = {(u32)in[0], 0}, d;
    cell[threadIdx.x] = (u32)in[0];
    u64 shared = (u64)(cell + threadIdx.x), local = (u64)mine, back, bits;
    asm volatile("{.reg .pred p;\nisspacep.shared p, %1;\nselp.u64 %0, 1, 0, p;}" : "=l"(bits) : "l"(shared));
    u64 all = bits;
    asm volatile("{.reg .pred p;\nisspacep.global p, %1;\nselp.u64 %0, 2, 0, p;}" : "=l"(bits) : "l"(in));
    all |= bits;
    asm volatile("{.reg .pred p;\nisspacep.local p, %1;\nselp.u64 %0, 4, 0, p;}" : "=l"(bits) : "l"(local));
    all |= bits;
    asm volatile("{.reg .pred p;\nisspacep.global p, %1;\nselp.u64 %0, 8, 0, p;}" : "=l"(bits) : "l"(shared));
    all |= bits;
    asm volatile("cvta.to.shared.u64 %0, %1;" : "=l"(back) : "l"(shared));
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(d) : "r"((u32)back) : "memory");
    all |= (u64)(d == (u32)in[0]) << 4;
    asm volatile("cvta.shared.u64 %0, %1;" : "=l"(back) : "l"(back));
    all |= (u64)(back == shared) << 5;
    asm volatile("cvta.to.global.u64 %0, %1;\ncvta.global.u64 %0, %0;" : "=l"(back) : "l"(in));
    all |= (u64)(back == (u64)in) << 6;
    asm volatile("cvta.to.local.u64 %0, %1;\nld.local.u32 %2, [%0];" : "=&l"(back), "+l"(local), "=r"(d) : : "memory");
    all |= (u64)(d == (u32)in[0]) << 7;
    out[0] = all;
}
// Hints change no value.
__device__ __align__(128) u64 scratch[16];
KERNEL(hints) {
    ROWS(1, 1);
    asm volatile("prefetch.global.L1 [%0];\nprefetch.global.L2 [%0];\nprefetch.L2 [%0];\nprefetchu.L1 [%0];\n" ::"l"(in));
    asm volatile("prefetch.global.L2::evict_last [%0];\napplypriority.global.L2::evict_normal [%1], 128;\n"
                 "discard.global.L2 [%1], 128;" ::"l"(in), "l"(scratch));
    out[0] = in[0];
}
