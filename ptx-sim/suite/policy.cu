// createpolicy (PTX ISA 9.7.9.18): loads and stores with a policy move what they would without one.
// nvcc -ptx -arch=compute_80 -o ptx/policy.ptx policy.cu
#include "suite.h"

// Copies a word with the policy that `text` makes.
#define POLICY(name, text, ...)                                                                                     \
    KERNEL(name) {                                                                                                  \
        ROWS(2, 1);                                                                                                 \
        float fraction = (1 + (u32)in[1] % 64) / 64.0f;                                                             \
        u32 total = (u32)in[1], primary = total / 2;                                                                \
        u64 policy, property = 0x10F0000000000000, word;                                                            \
        asm volatile(text : "=l"(policy) : "f"(fraction), "l"(in), "r"(primary), "r"(total), "l"(property));        \
        asm volatile("ld.global.L2::cache_hint.b64 %0, [%1], %2;" : "=l"(word) : "l"(in), "l"(policy));             \
        asm volatile("st.global.L2::cache_hint.b64 [%0], %1, %2;" ::"l"(out), "l"(word), "l"(policy) : "memory");   \
    }

POLICY(createpolicy_fractional_L2__evict_last_b64, "createpolicy.fractional.L2::evict_last.b64 %0;")
POLICY(createpolicy_fractional_L2__evict_first_L2__evict_unchanged_b64,
       "createpolicy.fractional.L2::evict_first.L2::evict_unchanged.b64 %0, %1;")
POLICY(createpolicy_range_L2__evict_normal_b64, "createpolicy.range.L2::evict_normal.b64 %0, [%2], %3, %4;")
POLICY(createpolicy_range_global_L2__evict_last_L2__evict_first_b64,
       "createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %0, [%2], %3, %4;")
// The property is what CUDA's headers have for accesses without a preference.
POLICY(createpolicy_cvt_L2_b64, "createpolicy.cvt.L2.b64 %0, %5;")
