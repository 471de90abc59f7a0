// y = a x + y, and a sum of each block that is wrong in two ways.
extern "C" __global__ void saxpy(int n, float a, const float *x, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

extern "C" __global__ void broken(int n, const float *x, float *sums) {
    __shared__ float tile[128];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < n ? x[i] : 0.0f;
    for (int half = 64; half > 0; half /= 2) {
        // A barrier is missing here.
        if (threadIdx.x < half) tile[threadIdx.x] += tile[threadIdx.x + half];
    }
    // The block's index was meant.
    if (threadIdx.x == 0) sums[i] = tile[0];
}
