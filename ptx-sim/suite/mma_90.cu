// mma.sync of 8-bit floats, which compute capability 8.9 has (PTX ISA 9.7.14.5.14).
// nvcc -ptx -arch=compute_90a -o ptx/mma_90.ptx mma_90.cu
#include "suite.h"
#include "mma.h"

#define EIGHT(a, b)                                                                             \
    M16F32(mma_m16n8k32_f32_##a##_##b, "m16n8k32.row.col.f32." #a "." #b ".f32", 4, 2)          \
    M16F16(mma_m16n8k32_f16_##a##_##b, "m16n8k32.row.col.f16." #a "." #b ".f16", 4, 2)          \
    M16F32(mma_m16n8k16_f32_##a##_##b, "m16n8k16.row.col.f32." #a "." #b ".f32", 2, 1)
EIGHT(e4m3, e4m3) EIGHT(e4m3, e5m2) EIGHT(e5m2, e4m3) EIGHT(e5m2, e5m2)
