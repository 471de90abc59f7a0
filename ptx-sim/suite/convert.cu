// Conversions that compute capability 8.0 has (PTX ISA 9.7.9.21-22).
// nvcc -ptx -arch=compute_80 -o ptx/convert.ptx convert.cu
#include "suite.h"

// Bytes lie in 32-bit registers: PTX has no smaller ones that arithmetic takes.
#define TO_INT(mode, T, F, D, A) FORM1(cvt_##mode##_##T##_##F, "cvt." #mode "." #T "." #F, D, A)
#define MODES(T, F, D, A) TO_INT(rni, T, F, D, A) TO_INT(rzi, T, F, D, A) TO_INT(rmi, T, F, D, A) TO_INT(rpi, T, F, D, A)
#define ALL_INTS(F, A) \
    MODES(u8, F, r, A) MODES(s8, F, r, A) MODES(u16, F, h, A) MODES(s16, F, h, A) MODES(u32, F, r, A) MODES(s32, F, r, A) \
    MODES(u64, F, l, A) MODES(s64, F, l, A)
ALL_INTS(f32, r) ALL_INTS(f64, l) ALL_INTS(f16, h)
FORM1(cvt_rzi_ftz_s32_f32, "cvt.rzi.ftz.s32.f32", r, r) FORM1(cvt_rpi_ftz_u32_f32, "cvt.rpi.ftz.u32.f32", r, r)

#define FROM_INT(mode, F, T, D, A) FORM1(cvt_##mode##_##F##_##T, "cvt." #mode "." #F "." #T, D, A)
#define FROM_MODES(F, T, D, A) FROM_INT(rn, F, T, D, A) FROM_INT(rz, F, T, D, A) FROM_INT(rm, F, T, D, A) FROM_INT(rp, F, T, D, A)
#define ALL_FROM(F, D) \
    FROM_INT(rn, F, u8, D, r) FROM_INT(rn, F, s8, D, r) FROM_INT(rn, F, u16, D, h) FROM_INT(rn, F, s16, D, h) \
    FROM_MODES(F, u32, D, r) FROM_MODES(F, s32, D, r) FROM_MODES(F, u64, D, l) FROM_MODES(F, s64, D, l)
ALL_FROM(f32, r) ALL_FROM(f64, l) ALL_FROM(f16, h)

#define INTS(T, F, D, A) FORM1(cvt_##T##_##F, "cvt." #T "." #F, D, A)
INTS(u8, u32, r, r) INTS(s8, s32, r, r) INTS(u16, u32, h, r) INTS(s16, s32, h, r) INTS(u32, u8, r, r) INTS(s32, s8, r, r)
INTS(u32, u16, r, h) INTS(s32, s16, r, h) INTS(u64, u32, l, r) INTS(s64, s32, l, r) INTS(u32, u64, r, l) INTS(s16, s8, h, r)
INTS(s32, u16, r, h) INTS(u64, s8, l, r) INTS(s64, u16, l, h)
#define SAT(T, F, D, A) FORM1(cvt_sat_##T##_##F, "cvt.sat." #T "." #F, D, A)
SAT(u8, s32, r, r) SAT(s8, s32, r, r) SAT(s8, u32, r, r) SAT(u16, s32, h, r) SAT(s16, s64, h, l) SAT(u32, s64, r, l) SAT(s32, s64, r, l)
SAT(s32, u64, r, l) SAT(u64, s64, l, l) SAT(u32, s32, r, r) SAT(s32, u32, r, r)

#define NARROW(T, F, D, A) FROM_MODES(T, F, D, A)
NARROW(f16, f32, h, r) NARROW(f16, f64, h, l) NARROW(f32, f64, r, l)
FORM1(cvt_rn_bf16_f32, "cvt.rn.bf16.f32", h, r) FORM1(cvt_rz_bf16_f32, "cvt.rz.bf16.f32", h, r)
FORM1(cvt_rn_relu_bf16_f32, "cvt.rn.relu.bf16.f32", h, r) FORM1(cvt_rn_relu_f16_f32, "cvt.rn.relu.f16.f32", h, r)
FORM1(cvt_f32_f16, "cvt.f32.f16", r, h) FORM1(cvt_f64_f16, "cvt.f64.f16", l, h) FORM1(cvt_f64_f32, "cvt.f64.f32", l, r)
FORM1(cvt_rna_tf32_f32, "cvt.rna.tf32.f32", r, r) FORM1(cvt_rn_sat_f16_f32, "cvt.rn.sat.f16.f32", h, r)
FORM1(cvt_sat_f32_f32, "cvt.sat.f32.f32", r, r) FORM1(cvt_rn_ftz_f32_f64, "cvt.rn.ftz.f32.f64", r, l)
FORM1(cvt_ftz_f64_f32, "cvt.ftz.f64.f32", l, r)
#define INTEGRAL(T, W) FORM1(cvt_rni_##T##_##T, "cvt.rni." #T "." #T, W, W) FORM1(cvt_rzi_##T##_##T, "cvt.rzi." #T "." #T, W, W) \
    FORM1(cvt_rmi_##T##_##T, "cvt.rmi." #T "." #T, W, W) FORM1(cvt_rpi_##T##_##T, "cvt.rpi." #T "." #T, W, W)
INTEGRAL(f32, r) INTEGRAL(f64, l) INTEGRAL(f16, h)
FORM2(cvt_rn_f16x2_f32, "cvt.rn.f16x2.f32", r, r, r) FORM2(cvt_rz_f16x2_f32, "cvt.rz.f16x2.f32", r, r, r)
FORM2(cvt_rn_bf16x2_f32, "cvt.rn.bf16x2.f32", r, r, r) FORM2(cvt_rz_bf16x2_f32, "cvt.rz.bf16x2.f32", r, r, r)
FORM2(cvt_rn_relu_f16x2_f32, "cvt.rn.relu.f16x2.f32", r, r, r)
FORM2(cvt_pack_sat_u16_s32, "cvt.pack.sat.u16.s32", r, r, r) FORM2(cvt_pack_sat_s16_s32, "cvt.pack.sat.s16.s32", r, r, r)
#define PACK(T) FORM3(cvt_pack_sat_##T##_s32_b32, "cvt.pack.sat." #T ".s32.b32", r, r, r, r)
PACK(u8) PACK(s8) PACK(u4) PACK(s4) PACK(u2) PACK(s2)
