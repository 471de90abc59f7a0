// Conversions of compute capability 8.9 and 9.0: fp8, bf16, tf32 (PTX ISA 9.7.9.21).
// nvcc -ptx -arch=compute_90a -o ptx/convert_90.ptx convert_90.cu
#include "suite.h"

FORM2(cvt_rn_satfinite_e4m3x2_f32, "cvt.rn.satfinite.e4m3x2.f32", h, r, r)
FORM2(cvt_rn_satfinite_e5m2x2_f32, "cvt.rn.satfinite.e5m2x2.f32", h, r, r)
FORM2(cvt_rn_satfinite_relu_e4m3x2_f32, "cvt.rn.satfinite.relu.e4m3x2.f32", h, r, r)
FORM1(cvt_rn_satfinite_e4m3x2_f16x2, "cvt.rn.satfinite.e4m3x2.f16x2", h, r)
FORM1(cvt_rn_satfinite_e5m2x2_f16x2, "cvt.rn.satfinite.e5m2x2.f16x2", h, r)
FORM1(cvt_rn_f16x2_e4m3x2, "cvt.rn.f16x2.e4m3x2", r, h) FORM1(cvt_rn_f16x2_e5m2x2, "cvt.rn.f16x2.e5m2x2", r, h)
FORM1(cvt_f32_bf16, "cvt.f32.bf16", r, h) FORM1(cvt_rn_tf32_f32, "cvt.rn.tf32.f32", r, r) FORM1(cvt_rz_tf32_f32, "cvt.rz.tf32.f32", r, r)
FORM1(cvt_rni_bf16_bf16, "cvt.rni.bf16.bf16", h, h) FORM1(cvt_rn_bf16_s32, "cvt.rn.bf16.s32", h, r)
FORM1(cvt_rzi_s32_bf16, "cvt.rzi.s32.bf16", r, h)
