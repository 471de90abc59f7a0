// Small, for tests that try every byte of it. With -G nvcc writes debug sections and a label for every line.
__device__ __noinline__ int twice(int x) { return 2 * x; }

extern "C" __global__ void branch(int *out, int n) {
    if (n > 3) out[0] = twice(n);
}
