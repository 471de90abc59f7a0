// mma.sync of every shape and type that compute capability 8.0 has (PTX ISA 9.7.14.5.14).
// nvcc -ptx -arch=compute_80 -o ptx/mma.ptx mma.cu
#include "suite.h"
#include "mma.h"

M16F32(mma_m16n8k8_f32_f16, "m16n8k8.row.col.f32.f16.f16.f32", 2, 1) M16F32(mma_m16n8k16_f32_f16, "m16n8k16.row.col.f32.f16.f16.f32", 4, 2)
M16F32(mma_m16n8k8_f32_bf16, "m16n8k8.row.col.f32.bf16.bf16.f32", 2, 1) M16F32(mma_m16n8k16_f32_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32", 4, 2)
M16F32(mma_m16n8k4_f32_tf32, "m16n8k4.row.col.f32.tf32.tf32.f32", 2, 1) M16F32(mma_m16n8k8_f32_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32", 4, 2)
M16F16(mma_m16n8k8_f16_f16, "m16n8k8.row.col.f16.f16.f16.f16", 2, 1) M16F16(mma_m16n8k16_f16_f16, "m16n8k16.row.col.f16.f16.f16.f16", 4, 2)
#define INTEGERS(a, b)                                                                          \
    M16F32(mma_m16n8k16_##a##8_##b##8, "m16n8k16.row.col.s32." #a "8." #b "8.s32", 2, 1)        \
    M16F32(mma_m16n8k32_##a##8_##b##8, "m16n8k32.row.col.s32." #a "8." #b "8.s32", 4, 2)        \
    M16F32(mma_m16n8k32_##a##4_##b##4, "m16n8k32.row.col.s32." #a "4." #b "4.s32", 2, 1)        \
    M16F32(mma_m16n8k64_##a##4_##b##4, "m16n8k64.row.col.s32." #a "4." #b "4.s32", 4, 2)        \
    M16F32(mma_m16n8k32_satfinite_##a##8_##b##8, "m16n8k32.row.col.satfinite.s32." #a "8." #b "8.s32", 4, 2)
INTEGERS(s, s) INTEGERS(s, u) INTEGERS(u, s) INTEGERS(u, u)
M8(mma_m8n8k16_s8_s8, "m8n8k16.row.col.s32.s8.s8.s32") M8(mma_m8n8k16_u8_s8, "m8n8k16.row.col.s32.u8.s8.s32")
KERNEL(mma_m8n8k4_f64) {
    ROWS(12, 4);
    u64 x, y;
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%4, %5};"
                 : "=l"(x), "=l"(y) : ARG(l, 0), ARG(l, 4), ARG(l, 8), ARG(l, 9));
    out[0] = x, out[1] = y, out[2] = out[3] = 0;
}
