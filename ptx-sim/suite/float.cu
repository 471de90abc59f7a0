// f32 and f64 arithmetic (PTX ISA 9.7.3).
// nvcc -ptx -arch=compute_80 -o ptx/float.ptx float.cu
#include "suite.h"

#define MODES2(op) \
    FORM2(op##_rn_f32, #op ".rn.f32", r, r, r) FORM2(op##_rz_f32, #op ".rz.f32", r, r, r) \
    FORM2(op##_rm_f32, #op ".rm.f32", r, r, r) FORM2(op##_rp_f32, #op ".rp.f32", r, r, r) \
    FORM2(op##_rn_ftz_f32, #op ".rn.ftz.f32", r, r, r) \
    FORM2(op##_rn_f64, #op ".rn.f64", l, l, l) FORM2(op##_rz_f64, #op ".rz.f64", l, l, l) \
    FORM2(op##_rm_f64, #op ".rm.f64", l, l, l) FORM2(op##_rp_f64, #op ".rp.f64", l, l, l)
MODES2(add) MODES2(sub) MODES2(mul) MODES2(div)
FORM2(add_rn_sat_f32, "add.rn.sat.f32", r, r, r) FORM2(sub_rn_sat_f32, "sub.rn.sat.f32", r, r, r)
FORM2(mul_rn_sat_f32, "mul.rn.sat.f32", r, r, r) FORM2(add_f32, "add.f32", r, r, r)

FORM3(fma_rn_f32, "fma.rn.f32", r, r, r, r) FORM3(fma_rz_f32, "fma.rz.f32", r, r, r, r) FORM3(fma_rm_f32, "fma.rm.f32", r, r, r, r)
FORM3(fma_rp_f32, "fma.rp.f32", r, r, r, r) FORM3(fma_rn_ftz_f32, "fma.rn.ftz.f32", r, r, r, r)
FORM3(fma_rn_sat_f32, "fma.rn.sat.f32", r, r, r, r) FORM3(mad_rn_f32, "mad.rn.f32", r, r, r, r)
FORM3(fma_rn_f64, "fma.rn.f64", l, l, l, l) FORM3(fma_rz_f64, "fma.rz.f64", l, l, l, l) FORM3(fma_rm_f64, "fma.rm.f64", l, l, l, l)
FORM3(fma_rp_f64, "fma.rp.f64", l, l, l, l) FORM3(mad_rn_f64, "mad.rn.f64", l, l, l, l)

#define MODES1(op) \
    FORM1(op##_rn_f32, #op ".rn.f32", r, r) FORM1(op##_rz_f32, #op ".rz.f32", r, r) FORM1(op##_rm_f32, #op ".rm.f32", r, r) \
    FORM1(op##_rp_f32, #op ".rp.f32", r, r) FORM1(op##_rn_ftz_f32, #op ".rn.ftz.f32", r, r) \
    FORM1(op##_rn_f64, #op ".rn.f64", l, l) FORM1(op##_rz_f64, #op ".rz.f64", l, l) FORM1(op##_rm_f64, #op ".rm.f64", l, l) \
    FORM1(op##_rp_f64, #op ".rp.f64", l, l)
MODES1(rcp) MODES1(sqrt)
FORM1(abs_f32, "abs.f32", r, r) FORM1(abs_ftz_f32, "abs.ftz.f32", r, r) FORM1(abs_f64, "abs.f64", l, l)
FORM1(neg_f32, "neg.f32", r, r) FORM1(neg_ftz_f32, "neg.ftz.f32", r, r) FORM1(neg_f64, "neg.f64", l, l)
#define EXTREME(op) FORM2(op##_f32, #op ".f32", r, r, r) FORM2(op##_ftz_f32, #op ".ftz.f32", r, r, r) \
    FORM2(op##_NaN_f32, #op ".NaN.f32", r, r, r) FORM2(op##_f64, #op ".f64", l, l, l)
EXTREME(min) EXTREME(max)
