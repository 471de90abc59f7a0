// bf16 arithmetic of compute capability 9.0 (PTX ISA 9.7.4).
// nvcc -ptx -arch=compute_90a -o ptx/half_90.ptx half_90.cu
#include "suite.h"

#define BOTH2(op, text) FORM2(op##_bf16, text ".bf16", h, h, h) FORM2(op##_bf16x2, text ".bf16x2", r, r, r)
BOTH2(add, "add") BOTH2(sub, "sub") BOTH2(mul, "mul") BOTH2(sub_rn, "sub.rn")
FORM2(min_xorsign_abs_f16, "min.xorsign.abs.f16", h, h, h) FORM2(max_xorsign_abs_bf16x2, "max.xorsign.abs.bf16x2", r, r, r)
FORM1(tanh_approx_bf16, "tanh.approx.bf16", h, h) FORM1(tanh_approx_bf16x2, "tanh.approx.bf16x2", r, r)
FORM1(ex2_approx_ftz_bf16, "ex2.approx.ftz.bf16", h, h) FORM1(ex2_approx_ftz_bf16x2, "ex2.approx.ftz.bf16x2", r, r)
TEST2(setp_lt_bf16, "setp.lt.bf16", h) TEST2(setp_neu_bf16, "setp.neu.bf16", h)
