// 64x64x64: C = A * B in bf16 with f32 accumulators; four warps, each 32x32 of C.
#include <cstdint>

template <int STRIDE>
__device__ void multiply(const uint4 *a, const uint4 *b, float *c) {
    __shared__ __align__(16) uint16_t left[64 * STRIDE], right[64 * STRIDE];
    for (int i = threadIdx.x; i < 512; i += 128) {
        *reinterpret_cast<uint4 *>(left + i / 8 * STRIDE + i % 8 * 8) = a[i];
        *reinterpret_cast<uint4 *>(right + i / 8 * STRIDE + i % 8 * 8) = b[i];
    }
    __syncthreads();
    int lane = threadIdx.x % 32, top = threadIdx.x / 64 * 32, start = threadIdx.x / 32 % 2 * 32;
    float sum[2][4][4] = {};
    for (int k = 0; k < 64; k += 16) {
        uint32_t x[2][4], y[2][4];
        for (int i = 0; i < 2; i++) {
            uint32_t row = __cvta_generic_to_shared(left + (top + 16 * i + lane % 16) * STRIDE + k + lane / 16 * 8);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3]) : "r"(row));
            row = __cvta_generic_to_shared(right + (k + lane % 16) * STRIDE + start + 16 * i + lane / 16 * 8);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(y[i][0]), "=r"(y[i][1]), "=r"(y[i][2]), "=r"(y[i][3]) : "r"(row));
        }
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 4; j++) {
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                             : "+f"(sum[i][j][0]), "+f"(sum[i][j][1]), "+f"(sum[i][j][2]), "+f"(sum[i][j][3])
                             : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]), "r"(y[j / 2][j % 2 * 2]),
                               "r"(y[j / 2][j % 2 * 2 + 1]));
            }
        }
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++) {
            for (int e = 0; e < 4; e++) {
                int row = top + 16 * i + lane / 4 + e / 2 * 8, column = start + 8 * j + lane % 4 * 2 + e % 2;
                c[row * 64 + column] = sum[i][j][e];
            }
        }
    }
}

extern "C" __global__ void padded(const uint4 *a, const uint4 *b, float *c) { multiply<72>(a, b, c); }
extern "C" __global__ void dense(const uint4 *a, const uint4 *b, float *c) { multiply<64>(a, b, c); }
