// f16 and bf16 arithmetic that compute capability 8.0 has (PTX ISA 9.7.4).
// nvcc -ptx -arch=compute_80 -o ptx/half.ptx half.cu
#include "suite.h"

#define BOTH2(op, text) FORM2(op##_f16, text ".f16", h, h, h) FORM2(op##_f16x2, text ".f16x2", r, r, r)
BOTH2(add, "add") BOTH2(sub, "sub") BOTH2(mul, "mul") BOTH2(add_rn, "add.rn") BOTH2(add_sat, "add.sat") BOTH2(mul_sat, "mul.sat")
BOTH2(add_ftz, "add.ftz") BOTH2(mul_ftz, "mul.ftz")
FORM3(fma_rn_f16, "fma.rn.f16", h, h, h, h) FORM3(fma_rn_f16x2, "fma.rn.f16x2", r, r, r, r)
FORM3(fma_rn_sat_f16, "fma.rn.sat.f16", h, h, h, h) FORM3(fma_rn_relu_f16x2, "fma.rn.relu.f16x2", r, r, r, r)
FORM3(fma_rn_bf16, "fma.rn.bf16", h, h, h, h) FORM3(fma_rn_bf16x2, "fma.rn.bf16x2", r, r, r, r)
FORM3(fma_rn_relu_bf16, "fma.rn.relu.bf16", h, h, h, h) FORM3(fma_rn_ftz_f16, "fma.rn.ftz.f16", h, h, h, h)
#define SIGN(op) FORM1(op##_f16, #op ".f16", h, h) FORM1(op##_f16x2, #op ".f16x2", r, r) FORM1(op##_bf16, #op ".bf16", h, h) \
    FORM1(op##_bf16x2, #op ".bf16x2", r, r)
SIGN(abs) SIGN(neg)
#define EXTREME(op) \
    FORM2(op##_f16, #op ".f16", h, h, h) FORM2(op##_f16x2, #op ".f16x2", r, r, r) FORM2(op##_NaN_f16, #op ".NaN.f16", h, h, h) \
    FORM2(op##_bf16, #op ".bf16", h, h, h) FORM2(op##_bf16x2, #op ".bf16x2", r, r, r) FORM2(op##_NaN_bf16x2, #op ".NaN.bf16x2", r, r, r)
EXTREME(min) EXTREME(max)
