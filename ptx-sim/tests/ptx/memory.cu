// Variables: constant, global, shared and local ones, initial values, pointers, arrays; atomics and conversions.
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

struct Node {
    const Node *next;
    float value;
    short kind;
};

__constant__ float table[5] = {1.0f, -2.5f, 3e-8f, __builtin_inff()};
__constant__ double doubles[2] = {1.0, -0.0};
__device__ int grid[2][3] = {{1, -2, 3}, {4, 5, -6}};
__device__ unsigned long long big = 0xffffffffffffffffull;
__device__ short shorts[4] = {-1, 2};
__device__ Node last = {nullptr, 0.5f, 3};
__device__ Node ring[2] = {{nullptr, 1.0f, 1}, {&last, 2.0f, -2}};
__device__ int *second = &grid[1][1];
__device__ const char *text = "two\twords";
__device__ float4 vectors[3];
__device__ bool flag = true;
__managed__ int managed = 4;

__global__ void memory(float *x, const __half *h, __nv_bfloat16 *b, __nv_fp8_e4m3 *f8, double *d, int n) {
    extern __shared__ float dynamic[];
    __shared__ __align__(128) unsigned char tile[3][40];
    __shared__ int counter;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) counter = 0;
    tile[threadIdx.x % 3][threadIdx.x % 40] = (unsigned char)text[threadIdx.x & 3];
    dynamic[threadIdx.x] = x[i] * table[i % 5] + ring[i & 1].next->value;
    __syncthreads();
    atomicAdd(&counter, grid[i % 2][i % 3]);
    atomicAdd(&vectors[0].x, 1.0f);
    atomicMax(&big, 3ull);
    atomicCAS((int *)second, 1, 2);
    float s = dynamic[threadIdx.x ^ 1];
    for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(0xffffffff, s, o);
    s += __half2float(h[i]) + __bfloat162float(b[i]) + tile[i % 3][i % 40] + shorts[i & 3] + flag + managed;
    __half2 p = __hfma2(__float2half2_rn(s), __half2(h[0], h[1]), __half2(h[2], h[3]));
    b[i] = __hadd(__float2bfloat16(s), __float2bfloat16(__low2float(p)));
    f8[i] = __nv_fp8_e4m3(s);
    if (__any_sync(0xffffffff, s > 3.0f) && i < n) x[i] = expf(s) / sqrtf(fabsf(s)) + sinf(s);
    d[i] = doubles[i & 1] * 0.1 + fma((double)s, d[i], exp(d[i]));
    vectors[i % 3] = make_float4(s, s + 1, s * 2, __int_as_float(counter));
    __stcs(&x[i + n], __ldg(&x[i]));
}
