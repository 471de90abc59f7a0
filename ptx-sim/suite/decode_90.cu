// Attention over a latent cache of 4-bit codes, warp-specialised: one warp copies tiles of tokens and signals mbarriers,
// two warpgroups multiply by wgmma with the codes in registers, as f16 subnormals (16ths of nibbles are masked in place).
// Scores S = C Q have tokens on M, outputs O = C^T P latents on M, and heads on N. A value is scale * code + min, both per
// token. Softmax has a maximum that is given, so weights are 2^(x - maximum), and a weight that f16 cannot hold is a trap.
// One block. `in` has the codes [token][latent], the pairs of scale and minimum in f16 [token], the query in f16
// [head][latent], and in f32 each head's sum of the query and its maximum. `out` has a row for each thread.
// nvcc -ptx -arch=compute_90a -o ptx/decode_90.ptx decode_90.cu
#include "suite.h"

constexpr int LATENTS = 512, STAGES = 4;
// Bytes of a token's codes, and from token to token in shared memory: eight lie in different banks.
constexpr int CODES = LATENTS / 2, PITCH = CODES + 32;
// What the scores are multiplied by, to the base 2. Subnormals of codes are 2^-24.
constexpr float FACTOR = 0.0625f, UNIT = 16777216.0f;

#define DEVICE static __device__ __forceinline__

DEVICE void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define A4 "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
// D = A B, or D += A B: A in registers, B by descriptor.
DEVICE void product(float (&d)[8], const u32 *a, u64 b, u32 accumulate) {
    asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %13, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, "
                 "{%8, %9, %10, %11}, %12, p, 1, 1, 0;}"
                 : D4(0), D4(4) : A4, "l"(b), "r"(accumulate));
}
DEVICE void product(float (&d)[16], const u32 *a, u64 b, u32 accumulate) {
    asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "
                 "%12, %13, %14, %15}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;}"
                 : D4(0), D4(4), D4(8), D4(12) : A4, "l"(b), "r"(accumulate));
}
DEVICE void product(float (&d)[32], const u32 *a, u64 b, u32 accumulate) {
    asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "
                 "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0;}"
                 : D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28) : A4, "l"(b), "r"(accumulate));
}

DEVICE void mbarrier_init(u32 at, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
DEVICE void mbarrier_arrive(u32 at) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory"); }
DEVICE void mbarrier_wait(u32 at, u32 parity) {
    asm volatile("{.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;}"
                 ::"r"(at), "r"(parity) : "memory");
}
DEVICE uint2 load64(u32 at) {
    uint2 r;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "r"(at));
    return r;
}
DEVICE u32 load32(u32 at) {
    u32 r;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(at));
    return r;
}
DEVICE float2 halves(u32 word) {
    float2 r;
    asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;}" : "=f"(r.x), "=f"(r.y) : "r"(word));
    return r;
}
DEVICE u32 pack(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
DEVICE float exp2_approx(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// Descriptor of rows of 128 bytes with the 128-byte swizzle, one for each head.
DEVICE u64 descriptor(u32 at) { return (u64)1 << 62 | (u64)64 << 32 | (u64)1 << 16 | (at & 0x3FFFF) >> 4; }

// The place of eight bytes or less in such rows.
DEVICE u32 swizzled(u32 head, u32 byte) { return 128 * head + (byte ^ head % 8 * 16); }

// Four fragments of A of a word of eight codes, of either eight rows: bits 0 to 3 of each half, and bits 4 to 7 there,
// which count 16 times, then the bits eight further up.
DEVICE void spread(u32 (&a)[16], int at, u32 first, u32 second) {
    a[at] = first & 0x000F000F, a[at + 1] = second & 0x000F000F;
    a[at + 2] = first & 0x00F000F0, a[at + 3] = second & 0x00F000F0;
}

template <int HEADS, int TOKENS, int TILES> struct Decode {
    static constexpr int ACCUMULATORS = HEADS / 2, PAIRS = HEADS / 8, P = HEADS * 128;
    // Whether both warpgroups work on each tile, with half of the latents each, or each has its own tiles.
    static constexpr bool SHARED = TOKENS == 128;
    // Matrices of 64 latents that a warpgroup accumulates.
    static constexpr int MATRICES = SHARED ? 4 : 8;
    static constexpr int STAGE = TOKENS * (PITCH + 4);
    static constexpr int EMPTY = 64, P_AT = 1024, Q_AT = P_AT + 2 * P, STAGES_AT = Q_AT + HEADS * 1024;
    static constexpr int WORDS = MATRICES * ACCUMULATORS + 4 * PAIRS;

    // A warp copies all tiles.
    DEVICE void produce(u32 base, const char *codes, const char *affine) {
        const int lane = threadIdx.x % 32;
        for (int tile = 0; tile < TILES; ++tile) {
            const int slot = tile % STAGES;
            const u32 stage = base + STAGES_AT + slot * STAGE;
            mbarrier_wait(base + EMPTY + 8 * slot, tile / STAGES % 2 ^ 1);
            #pragma unroll 1
            for (int i = lane; i < TOKENS * CODES / 16; i += 32) {
                const int token = i / (CODES / 16), unit = i % (CODES / 16);
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(stage + token * PITCH + 16 * unit),
                             "l"(codes + (tile * TOKENS + token) * CODES + 16 * unit) : "memory");
            }
            #pragma unroll 1
            for (int token = lane; token < TOKENS; token += 32)
                asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(stage + TOKENS * PITCH + 4 * token),
                             "l"(affine + 4 * (tile * TOKENS + token)) : "memory");
            asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(base + 8 * slot) : "memory");
        }
        asm volatile("cp.async.wait_all;" ::: "memory");
    }

    // The query as the fragments of codes need it: 64 latents of each head are a row of 128 bytes. Of a lane's 16 latents
    // of 64 the nibbles of a word go to two steps of 16 values of k.
    DEVICE void query(u32 base, const u16 *q, int thread) {
        #pragma unroll 1
        for (int i = thread; i < HEADS * LATENTS; i += 256) {
            const int head = i / LATENTS, latent = i % LATENTS, block = latent / 64, t = latent % 64 / 16;
            const int word = latent / 8 % 2, nibble = latent % 8;
            const int k = 16 * (2 * word + nibble % 4 / 2) + 2 * t + nibble / 4 + 8 * (nibble % 2);
            float x;
            asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(q[i]));
            const u32 half = pack(nibble % 2 ? x / 16 : x, 0);
            asm volatile("st.shared.u16 [%0], %1;" ::"r"(base + Q_AT + block * P + swizzled(head, 2 * k)), "h"((u16)half)
                         : "memory");
        }
        asm volatile("fence.proxy.async;" ::: "memory");
        asm volatile("bar.sync 3, 256;" ::: "memory");
    }

    DEVICE void consume(u32 base, const u64 *in, u64 *out) {
        const u16 *q = (const u16 *)((const char *)in + TILES * TOKENS * (CODES + 4));
        const float *heads = (const float *)(q + HEADS * LATENTS);
        const u32 group = threadIdx.x / 128, w = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        query(base, q, threadIdx.x);
        float o[MATRICES][ACCUMULATORS], sum[2 * PAIRS], minima[2 * PAIRS], qsum[2 * PAIRS], most[2 * PAIRS];
        #pragma unroll
        for (int i = 0; i < MATRICES; ++i)
            #pragma unroll
            for (int j = 0; j < ACCUMULATORS; ++j) o[i][j] = 0;
        #pragma unroll
        for (int i = 0; i < 2 * PAIRS; ++i) {
            const int head = 8 * (i / 2) + 2 * t + i % 2;
            sum[i] = minima[i] = 0, qsum[i] = heads[head], most[i] = heads[HEADS + head];
        }
        // Rows of scores are tokens in the order in which the outputs' fragments have them along k.
        const u32 row = (SHARED ? 64 * group : 0) + 16 * w + 4 * (g / 2) + g % 2;
        const u32 p_own = base + P_AT + group * P;
        const u64 dq = descriptor(base + Q_AT), dp = descriptor(SHARED ? base + P_AT : p_own);
        const u32 store = p_own + swizzled(lane % 8, 16 * (2 * w + lane / 8 % 2)) + lane / 16 * 1024;
        #pragma unroll 1
        for (int tile = SHARED ? 0 : group; tile < TILES; tile += SHARED ? 1 : 2) {
            const int slot = tile % STAGES;
            const u32 stage = base + STAGES_AT + slot * STAGE;
            mbarrier_wait(base + 8 * slot, tile / STAGES % 2);
            float s[ACCUMULATORS];
            u32 a[2][16];
            #pragma unroll
            for (int c = 0; c < LATENTS / 64; ++c) {
                uint2 x = load64(stage + row * PITCH + 32 * c + 8 * t), y = load64(stage + (row + 2) * PITCH + 32 * c + 8 * t);
                if (c >= 2) wait<1>();
                spread(a[c % 2], 0, x.x, y.x), spread(a[c % 2], 4, x.x >> 8, y.x >> 8);
                spread(a[c % 2], 8, x.y, y.y), spread(a[c % 2], 12, x.y >> 8, y.y >> 8);
                fence();
                #pragma unroll
                for (int k = 0; k < 4; ++k) product(s, a[c % 2] + 4 * k, dq + c * (P / 16) + 2 * k, c + k != 0);
                commit();
            }
            const float2 first = halves(load32(stage + TOKENS * PITCH + 4 * row));
            const float2 second = halves(load32(stage + TOKENS * PITCH + 4 * (row + 2)));
            wait<0>();
            u32 weights[2 * PAIRS], greatest = 0;
            #pragma unroll
            for (int n = 0; n < 2 * PAIRS; n += 2) {
                float x[2][2];
                #pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float2 affine = i ? second : first;
                    #pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const float offset = FACTOR * affine.y * qsum[n + j] - most[n + j];
                        const float weight = exp2_approx(FACTOR * UNIT * affine.x * s[2 * n + 2 * i + j] + offset);
                        sum[n + j] += weight, minima[n + j] += weight * affine.y;
                        x[i][j] = weight * affine.x;
                    }
                    weights[n + i] = pack(x[i][0], x[i][1]);
                    asm("max.f16x2 %0, %0, %1;" : "+r"(greatest) : "r"(weights[n + i]));
                }
            }
            if (__any_sync(~0u, (greatest & 0x7C00) == 0x7C00 || (greatest >> 16 & 0x7C00) == 0x7C00)) __trap();
            #pragma unroll
            for (int n = 0; n < PAIRS; n += 2)
                asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(store + n * 1024),
                             "r"(weights[2 * n]), "r"(weights[2 * n + 1]), "r"(weights[2 * n + 2]), "r"(weights[2 * n + 3])
                             : "memory");
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            if (SHARED) asm volatile("bar.sync 1, 256;" ::: "memory");
            else asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
            #pragma unroll
            for (int k = 0; k < TOKENS / 16; ++k) {
                // Of each of four tokens eight codes at a time, which are rows of four matrices.
                const u32 at = stage + (16 * k + 4 * t) * PITCH + (SHARED ? 128 * group + 32 * w + 4 * g : 64 * w + 8 * g);
                #pragma unroll
                for (int h = 0; h < MATRICES / 4; ++h) {
                    const u32 x0 = load32(at + 4 * h), x1 = load32(at + PITCH + 4 * h);
                    const u32 x2 = load32(at + 2 * PITCH + 4 * h), x3 = load32(at + 3 * PITCH + 4 * h);
                    const u32 low0 = __byte_perm(x0, x1, 0x5410), high0 = __byte_perm(x0, x1, 0x7632);
                    const u32 low1 = __byte_perm(x2, x3, 0x5410), high1 = __byte_perm(x2, x3, 0x7632);
                    u32(&b)[16] = a[(k * (MATRICES / 4) + h) % 2];
                    wait<1>();
                    #pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const u32 mask = 0x000F000F << j % 2 * 4, shift = j / 2 * 8;
                        b[4 * j] = low0 >> shift & mask, b[4 * j + 1] = high0 >> shift & mask;
                        b[4 * j + 2] = low1 >> shift & mask, b[4 * j + 3] = high1 >> shift & mask;
                    }
                    fence();
                    #pragma unroll
                    for (int j = 0; j < 4; ++j)
                        product(o[4 * h + j], b + 4 * j, dp + (k / 4) * (P / 16) + 2 * (k % 4), 1);
                    commit();
                }
            }
            wait<0>();
            mbarrier_arrive(base + EMPTY + 8 * slot);
            // The weights of the other warpgroup are read, too.
            if (SHARED) asm volatile("bar.sync 2, 256;" ::: "memory");
        }
        out += threadIdx.x * WORDS;
        #pragma unroll
        for (int i = 0; i < MATRICES; ++i)
            #pragma unroll
            for (int j = 0; j < ACCUMULATORS; ++j)
                out[i * ACCUMULATORS + j] = __float_as_uint(o[i][j] * (i % 2 ? UNIT / 16 : UNIT));
        #pragma unroll
        for (int i = 0; i < 2 * PAIRS; ++i) {
            out[MATRICES * ACCUMULATORS + i] = __float_as_uint(sum[i]);
            out[MATRICES * ACCUMULATORS + 2 * PAIRS + i] = __float_as_uint(minima[i]);
        }
    }

    DEVICE void run(const u64 *in, u64 *out) {
        extern __shared__ __align__(1024) unsigned char memory[];
        const u32 base = (u32)__cvta_generic_to_shared(memory);
        if (threadIdx.x == 0)
            for (int slot = 0; slot < STAGES; ++slot) {
                mbarrier_init(base + 8 * slot, 32);
                mbarrier_init(base + EMPTY + 8 * slot, SHARED ? 256 : 128);
            }
        __syncthreads();
        const char *codes = (const char *)in;
        // 168 registers each at the launch.
        if (threadIdx.x >= 256) {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
            if (threadIdx.x < 288) produce(base, codes, codes + TILES * TOKENS * CODES);
        } else {
            asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
            consume(base, in, out);
        }
    }
};

// With as many registers as a block of 384 threads can have.
#define DECODE(name, heads, tokens, tiles)                                                                        \
    extern "C" __global__ void __launch_bounds__(384, 1) name(const u64 *in, u64 *out, int n) {                   \
        if (n == 384) Decode<heads, tokens, tiles>::run(in, out);                                                 \
    }
// Tiles of 64 tokens, of which the warpgroups have every other one.
DECODE(decode_16, 16, 64, 5)
DECODE(decode_32, 32, 64, 11)
// Tiles of 128 tokens: each warpgroup scores half of them, and accumulates half of the latents.
DECODE(decode_64, 64, 128, 3)
