// What the benchmark runs: arithmetic, tensor cores, shared memory.
#include <cstdint>

extern "C" __global__ void alu(uint32_t *out, int rounds) {
    uint32_t a = threadIdx.x, b = blockIdx.x + 1, c = 0x9E3779B9;
    float x = (float)threadIdx.x, y = 1.0f;
    for (int i = 0; i < rounds; i++) {
        a = a * 1664525u + b;
        b = (b << 5 ^ b) + c;
        c = c >> 3 | a;
        x = x * 0.999f + y;
        y = y * x - 0.5f;
        a += c > b ? b : c;
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = a ^ b ^ c ^ __float_as_uint(x + y);
}

extern "C" __global__ void tensor(float *out, int rounds) {
    uint32_t a[4] = {0x3F803F80u + threadIdx.x, 0x3F003F80u, 0x3F803E80u, 0x3D803F80u}, b[2] = {0x3F803F00u, 0x3E803F80u};
    float c[4] = {};
    for (int i = 0; i < rounds; i++) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = c[0] + c[1] + c[2] + c[3];
}

extern "C" __global__ void shared(float *out, int rounds) {
    __shared__ float tile[32][33];
    int x = threadIdx.x % 32, y = threadIdx.x / 32;
    for (int row = y; row < 32; row += 8) tile[row][x] = row + x;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        for (int row = y; row < 32; row += 8) sum += tile[x][row];
        __syncthreads();
        for (int row = y; row < 32; row += 8) tile[row][x] = sum + row;
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Tiles of 64 x 64 bf16 as a kernel of a library multiplies them: written by all threads, read by ldmatrix, multiplied.
extern "C" __global__ void tiles(float *out, int rounds) {
    __shared__ __align__(16) uint16_t a[64][72], b[64][72];
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int top = warp / 2 * 16, left = warp % 2 * 32;
    uint32_t word = 0x3F803F00u + thread;
    float c[4][4] = {};
    for (int i = 0; i < rounds; i++) {
        for (int part = thread; part < 64 * 8; part += 256) {
            uint4 bits = {word, word ^ 0x80u, word + 1, word ^ 0x800000u};
            *(uint4 *)&a[part / 8][part % 8 * 8] = bits;
            *(uint4 *)&b[part / 8][part % 8 * 8] = bits;
        }
        __syncthreads();
        for (int k = 0; k < 64; k += 16) {
            uint32_t x[4], y[8];
            uint32_t at = (uint32_t)__cvta_generic_to_shared(&a[top + lane % 16][k + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
            for (int half = 0; half < 2; half++) {
                at = (uint32_t)__cvta_generic_to_shared(&b[k + lane % 16][left + 16 * half + lane / 16 * 8]);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(y[4 * half]), "=r"(y[4 * half + 1]), "=r"(y[4 * half + 2]), "=r"(y[4 * half + 3])
                             : "r"(at));
            }
            for (int n = 0; n < 4; n++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                             : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
                             : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * n]), "r"(y[2 * n + 1]));
        }
        __syncthreads();
    }
    float sum = 0;
    for (int n = 0; n < 4; n++) sum += c[n][0] + c[n][1] + c[n][2] + c[n][3];
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Many short blocks with registers and shared memory: what a block costs before it has done anything.
extern "C" __global__ void blocks(float *out, int rounds) {
    __shared__ float tile[8192];
    float values[64];
    for (int i = 0; i < 64; i++) values[i] = threadIdx.x * i + rounds;
    tile[threadIdx.x] = values[7];
    __syncthreads();
    float sum = tile[threadIdx.x ^ 1];
    for (int i = 0; i < 64; i++) sum += values[i] * sum;
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
