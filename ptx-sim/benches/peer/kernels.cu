// Plain kernels that old interpreters of PTX know too: no tensor cores, no asynchronous copies, no warp-wide exchange.
// Products and sums are not fused: gpuocelot rounds `fma` twice, and both are to leave the same bytes.
// nvcc -ptx -arch=compute_75 -fmad=false -o kernels.ptx kernels.cu
#include <cstdint>

// Integers and f32 in registers.
extern "C" __global__ void alu(uint32_t *out, int rounds) {
    uint32_t a = threadIdx.x, b = blockIdx.x + 1, c = 0x9E3779B9;
    float x = (float)threadIdx.x, y = 1.0f;
    for (int i = 0; i < rounds; i++) {
        a = a * 1664525u + b;
        b = (b << 5 ^ b) + c;
        c = c >> 3 | a;
        x = x * 0.999f + y;
        y = y * 0.5f - x;
        a += c > b ? b : c;
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = a ^ b ^ c ^ __float_as_uint(x + y);
}

// Branches that lanes of a warp take differently: steps of the Collatz sequence.
extern "C" __global__ void branches(uint32_t *out, int rounds) {
    uint32_t steps = 0;
    for (int i = 0; i < rounds; i++) {
        uint32_t n = blockIdx.x * blockDim.x + threadIdx.x + i + 1;
        while (n != 1) {
            if (n & 1) n = 3 * n + 1;
            else n >>= 1;
            steps++;
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = steps;
}

// Shared memory with barriers: a tile is transposed again and again.
extern "C" __global__ void shared(uint32_t *out, int rounds) {
    __shared__ uint32_t tile[16][17];
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    uint32_t value = threadIdx.x + blockIdx.x;
    for (int i = 0; i < rounds; i++) {
        tile[y][x] = value;
        __syncthreads();
        value = tile[x][y] * 3 + i;
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

// Global memory: every thread reads and writes words that lie side by side.
extern "C" __global__ void stream(uint32_t *out, int rounds) {
    uint32_t *own = out + blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = 0; i < rounds; i++) *own = *own * 5 + i;
}

// A product of two matrices of 16 columns and rows per block, `rounds` times, by way of shared memory.
extern "C" __global__ void matmul(float *out, int rounds) {
    __shared__ float a[16][16], b[16][16];
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        a[y][x] = (float)((x + y + i) % 7) - 3.0f;
        b[y][x] = (float)((x * y + i) % 5) - 2.0f;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; k++) sum += a[y][k] * b[k][x];
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
