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
