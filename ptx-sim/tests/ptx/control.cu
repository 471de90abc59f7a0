// Control flow and calls: jump table, device functions, function pointers, recursion, structures by value, printf.
#include <cassert>
#include <cstdio>

struct Pair {
    int a;
    double b;
    char tag[5];
};

typedef int (*Operation)(int, int);

__device__ __noinline__ int add(int a, int b) { return a + b; }
__device__ __noinline__ int mul(int a, int b) { return a * b; }
__device__ Operation operations[2] = {add, mul};

__device__ __noinline__ Pair swap(Pair p) {
    Pair q = p;
    q.a = (int)p.b;
    q.b = p.a;
    return q;
}

__device__ __noinline__ unsigned fibonacci(unsigned n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

__device__ __noinline__ __attribute__((noreturn)) void stop() { __trap(); }

extern "C" __global__ void __launch_bounds__(128, 2) control(int *out, int which, Pair p, float4 v) {
    int r;
    switch (which) {
    case 0: r = add(p.a, 1); break;
    case 1: r = mul(p.a, 3); break;
    case 2: r = __float2int_rn(v.x * 0.1f); break;
    case 3: r = __clz(p.a); break;
    case 4: r = operations[threadIdx.x & 1](p.a, 7); break;
    case 5: r = (int)fibonacci(threadIdx.x); break;
    case 6: printf("%d %f\n", p.a, p.b); r = 6; break;
    case 7: r = swap(p).a; break;
    case 8: stop(); r = -1; break;
    default: r = 0x7fffffff;
    }
    int local[16];
    for (int i = 0; i < 16; i++) local[i] = out[i] ^ r;
    r += local[which & 15];
    if (isnan(v.y) || (v.z > 1.5f && v.w < -2.0f)) r = -r;
    assert(r != 5);
    out[blockIdx.x * blockDim.x + threadIdx.x] = r;
}
