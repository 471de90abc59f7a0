// Logic, shifts and byte permutation (PTX ISA 9.7.8, 9.7.9.7).
// nvcc -ptx -arch=compute_80 -o ptx/logic.ptx logic.cu
#include "suite.h"

FORM2(and_b16, "and.b16", h, h, h) FORM2(and_b32, "and.b32", r, r, r) FORM2(and_b64, "and.b64", l, l, l)
FORM2(or_b16, "or.b16", h, h, h) FORM2(or_b32, "or.b32", r, r, r) FORM2(or_b64, "or.b64", l, l, l)
FORM2(xor_b16, "xor.b16", h, h, h) FORM2(xor_b32, "xor.b32", r, r, r) FORM2(xor_b64, "xor.b64", l, l, l)
FORM1(not_b16, "not.b16", h, h) FORM1(not_b32, "not.b32", r, r) FORM1(not_b64, "not.b64", l, l)
FORM1(cnot_b16, "cnot.b16", h, h) FORM1(cnot_b32, "cnot.b32", r, r) FORM1(cnot_b64, "cnot.b64", l, l)
FORM2(shl_b16, "shl.b16", h, h, r) FORM2(shl_b32, "shl.b32", r, r, r) FORM2(shl_b64, "shl.b64", l, l, r)
FORM2(shr_u16, "shr.u16", h, h, r) FORM2(shr_u32, "shr.u32", r, r, r) FORM2(shr_u64, "shr.u64", l, l, r)
FORM2(shr_s16, "shr.s16", h, h, r) FORM2(shr_s32, "shr.s32", r, r, r) FORM2(shr_s64, "shr.s64", l, l, r)
FORM2(shr_b32, "shr.b32", r, r, r)
FORM3(shf_l_clamp_b32, "shf.l.clamp.b32", r, r, r, r) FORM3(shf_l_wrap_b32, "shf.l.wrap.b32", r, r, r, r)
FORM3(shf_r_clamp_b32, "shf.r.clamp.b32", r, r, r, r) FORM3(shf_r_wrap_b32, "shf.r.wrap.b32", r, r, r, r)
FORM3(prmt_b32, "prmt.b32", r, r, r, r) FORM3(prmt_b32_f4e, "prmt.b32.f4e", r, r, r, r)
FORM3(prmt_b32_b4e, "prmt.b32.b4e", r, r, r, r) FORM3(prmt_b32_rc8, "prmt.b32.rc8", r, r, r, r)
FORM3(prmt_b32_ecl, "prmt.b32.ecl", r, r, r, r) FORM3(prmt_b32_ecr, "prmt.b32.ecr", r, r, r, r)
FORM3(prmt_b32_rc16, "prmt.b32.rc16", r, r, r, r)

// All 256 functions of three bits.
#define LUT1(k) asm volatile("lop3.b32 %0, %1, %2, %3, " #k ";" : "=r"(d) : ARG(r, 0), ARG(r, 1), ARG(r, 2)); out[k] = d;
#define LUT16(h) LUT1(0x##h##0) LUT1(0x##h##1) LUT1(0x##h##2) LUT1(0x##h##3) LUT1(0x##h##4) LUT1(0x##h##5) LUT1(0x##h##6) \
    LUT1(0x##h##7) LUT1(0x##h##8) LUT1(0x##h##9) LUT1(0x##h##a) LUT1(0x##h##b) LUT1(0x##h##c) LUT1(0x##h##d) LUT1(0x##h##e) \
    LUT1(0x##h##f)
KERNEL(lop3_b32) {
    ROWS(3, 256);
    u32 d;
    LUT16(0) LUT16(1) LUT16(2) LUT16(3) LUT16(4) LUT16(5) LUT16(6) LUT16(7)
    LUT16(8) LUT16(9) LUT16(a) LUT16(b) LUT16(c) LUT16(d) LUT16(e) LUT16(f)
}

// Logic of predicates: bits of the result are and, or, xor, not, and a moved predicate.
KERNEL(pred_logic) {
    ROWS(2, 1);
    u32 d;
    asm volatile("{.reg .pred p, q, x;\n.reg .b32 t;\nsetp.ne.u32 p, %1, 0;\nsetp.ne.u32 q, %2, 0;\n"
                 "and.pred x, p, q;\nselp.b32 %0, 1, 0, x;\n"
                 "or.pred x, p, q;\nselp.b32 t, 2, 0, x;\nor.b32 %0, %0, t;\n"
                 "xor.pred x, p, q;\nselp.b32 t, 4, 0, x;\nor.b32 %0, %0, t;\n"
                 "not.pred x, p;\nselp.b32 t, 8, 0, x;\nor.b32 %0, %0, t;\n"
                 "mov.pred x, q;\nselp.b32 t, 16, 0, x;\nor.b32 %0, %0, t;}"
                 : "=&r"(d) : "r"((u32)(in[0] & 1)), "r"((u32)(in[1] & 1)));
    out[0] = d;
}
