// Approximations (PTX ISA 9.7.3.8, 9.7.3.13-22, 9.7.4.9-10).
// nvcc -ptx -arch=compute_80 -o ptx/approximate.ptx approximate.cu
#include "suite.h"

#define BOTH(op) FORM1(op##_approx_f32, #op ".approx.f32", r, r) FORM1(op##_approx_ftz_f32, #op ".approx.ftz.f32", r, r)
BOTH(ex2) BOTH(lg2) BOTH(rcp) BOTH(sqrt) BOTH(rsqrt) BOTH(sin) BOTH(cos)
FORM1(tanh_approx_f32, "tanh.approx.f32", r, r) FORM1(tanh_approx_f16, "tanh.approx.f16", h, h)
FORM1(ex2_approx_f16, "ex2.approx.f16", h, h) FORM1(rsqrt_approx_f64, "rsqrt.approx.f64", l, l)
FORM1(rcp_approx_ftz_f64, "rcp.approx.ftz.f64", l, l) FORM1(rsqrt_approx_ftz_f64, "rsqrt.approx.ftz.f64", l, l)
FORM2(div_approx_f32, "div.approx.f32", r, r, r) FORM2(div_approx_ftz_f32, "div.approx.ftz.f32", r, r, r)
FORM2(div_full_f32, "div.full.f32", r, r, r) FORM2(div_full_ftz_f32, "div.full.ftz.f32", r, r, r)
