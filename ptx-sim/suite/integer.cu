// Integer arithmetic, carries and bit fields (PTX ISA 9.7.1-2).
// nvcc -ptx -arch=compute_80 -o ptx/integer.ptx integer.cu
#include "suite.h"

#define TYPES2(op, text) \
    FORM2(op##_u16, text ".u16", h, h, h) FORM2(op##_s16, text ".s16", h, h, h) FORM2(op##_u32, text ".u32", r, r, r) \
    FORM2(op##_s32, text ".s32", r, r, r) FORM2(op##_u64, text ".u64", l, l, l) FORM2(op##_s64, text ".s64", l, l, l)
TYPES2(add, "add") TYPES2(sub, "sub") TYPES2(min, "min") TYPES2(max, "max") TYPES2(div, "div") TYPES2(rem, "rem")
TYPES2(mul_lo, "mul.lo") TYPES2(mul_hi, "mul.hi")
FORM2(add_sat_s32, "add.sat.s32", r, r, r) FORM2(sub_sat_s32, "sub.sat.s32", r, r, r)
FORM2(mul_wide_u16, "mul.wide.u16", r, h, h) FORM2(mul_wide_s16, "mul.wide.s16", r, h, h)
FORM2(mul_wide_u32, "mul.wide.u32", l, r, r) FORM2(mul_wide_s32, "mul.wide.s32", l, r, r)
FORM1(abs_s16, "abs.s16", h, h) FORM1(abs_s32, "abs.s32", r, r) FORM1(abs_s64, "abs.s64", l, l)
FORM1(neg_s16, "neg.s16", h, h) FORM1(neg_s32, "neg.s32", r, r) FORM1(neg_s64, "neg.s64", l, l)

#define TYPES3(op, text) \
    FORM3(op##_u16, text ".u16", h, h, h, h) FORM3(op##_s16, text ".s16", h, h, h, h) \
    FORM3(op##_u32, text ".u32", r, r, r, r) FORM3(op##_s32, text ".s32", r, r, r, r) \
    FORM3(op##_u64, text ".u64", l, l, l, l) FORM3(op##_s64, text ".s64", l, l, l, l)
TYPES3(mad_lo, "mad.lo") TYPES3(mad_hi, "mad.hi") TYPES3(sad, "sad")
FORM3(mad_hi_sat_s32, "mad.hi.sat.s32", r, r, r, r)
FORM3(mad_wide_u16, "mad.wide.u16", r, h, h, r) FORM3(mad_wide_s16, "mad.wide.s16", r, h, h, r)
FORM3(mad_wide_u32, "mad.wide.u32", l, r, r, l) FORM3(mad_wide_s32, "mad.wide.s32", l, r, r, l)
FORM2(mul24_lo_u32, "mul24.lo.u32", r, r, r) FORM2(mul24_lo_s32, "mul24.lo.s32", r, r, r)
FORM2(mul24_hi_u32, "mul24.hi.u32", r, r, r) FORM2(mul24_hi_s32, "mul24.hi.s32", r, r, r)
FORM3(mad24_lo_u32, "mad24.lo.u32", r, r, r, r) FORM3(mad24_lo_s32, "mad24.lo.s32", r, r, r, r)
FORM3(mad24_hi_u32, "mad24.hi.u32", r, r, r, r) FORM3(mad24_hi_s32, "mad24.hi.s32", r, r, r, r)
FORM3(mad24_hi_sat_s32, "mad24.hi.sat.s32", r, r, r, r)
#define DOTS(a, b) \
    FORM3(dp4a_##a##_##b, "dp4a." #a "." #b, r, r, r, r) \
    FORM3(dp2a_lo_##a##_##b, "dp2a.lo." #a "." #b, r, r, r, r) \
    FORM3(dp2a_hi_##a##_##b, "dp2a.hi." #a "." #b, r, r, r, r)
DOTS(u32, u32) DOTS(u32, s32) DOTS(s32, u32) DOTS(s32, s32)

// Sums and differences of three words, carried through.
#define CARRY(name, first, middle, last, W)                                                                     \
    KERNEL(name) {                                                                                              \
        ROWS(6, 3);                                                                                             \
        T_##W x, y, z;                                                                                          \
        asm volatile("{" first " %0, %3, %4;\n" middle " %1, %5, %6;\n" last " %2, %7, %8;}"                    \
                     : "=&" #W(x), "=&" #W(y), "=" #W(z)                                                        \
                     : ARG(W, 0), ARG(W, 1), ARG(W, 2), ARG(W, 3), ARG(W, 4), ARG(W, 5));                       \
        out[0] = x, out[1] = y, out[2] = z;                                                                     \
    }
CARRY(add_cc_u32, "add.cc.u32", "addc.cc.u32", "addc.u32", r) CARRY(sub_cc_u32, "sub.cc.u32", "subc.cc.u32", "subc.u32", r)
CARRY(add_cc_u64, "add.cc.u64", "addc.cc.u64", "addc.u64", l) CARRY(sub_cc_u64, "sub.cc.u64", "subc.cc.u64", "subc.u64", l)
// a * b + (c, d) with one word carried.
#define MADC(name, T, W)                                                                                      \
    KERNEL(name) {                                                                                            \
        ROWS(4, 2);                                                                                           \
        T_##W x, y;                                                                                           \
        asm volatile("{mad.lo.cc." #T " %0, %2, %3, %4;\nmadc.hi." #T " %1, %2, %3, %5;}"                      \
                     : "=&" #W(x), "=" #W(y) : ARG(W, 0), ARG(W, 1), ARG(W, 2), ARG(W, 3));                   \
        out[0] = x, out[1] = y;                                                                               \
    }
MADC(mad_lo_cc_u32, u32, r) MADC(mad_lo_cc_s32, s32, r) MADC(mad_lo_cc_u64, u64, l)

FORM1(popc_b32, "popc.b32", r, r) FORM1(popc_b64, "popc.b64", r, l) FORM1(clz_b32, "clz.b32", r, r)
FORM1(clz_b64, "clz.b64", r, l) FORM1(brev_b32, "brev.b32", r, r) FORM1(brev_b64, "brev.b64", l, l)
FORM1(bfind_u32, "bfind.u32", r, r) FORM1(bfind_s32, "bfind.s32", r, r) FORM1(bfind_u64, "bfind.u64", r, l)
FORM1(bfind_s64, "bfind.s64", r, l) FORM1(bfind_shiftamt_u32, "bfind.shiftamt.u32", r, r)
FORM1(bfind_shiftamt_s64, "bfind.shiftamt.s64", r, l)
FORM3(bfe_u32, "bfe.u32", r, r, r, r) FORM3(bfe_s32, "bfe.s32", r, r, r, r) FORM3(bfe_u64, "bfe.u64", l, l, r, r)
FORM3(bfe_s64, "bfe.s64", l, l, r, r) FORM4(bfi_b32, "bfi.b32", r, r, r, r, r) FORM4(bfi_b64, "bfi.b64", l, l, l, r, r)
FORM3(fns_b32, "fns.b32", r, r, r, r) FORM2(bmsk_clamp_b32, "bmsk.clamp.b32", r, r, r)
FORM2(bmsk_wrap_b32, "bmsk.wrap.b32", r, r, r) FORM2(szext_clamp_u32, "szext.clamp.u32", r, r, r)
FORM2(szext_wrap_s32, "szext.wrap.s32", r, r, r)
