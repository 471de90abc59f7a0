// Comparison and selection (PTX ISA 9.7.6-7), testp and copysign (9.7.3.1-2), mov (9.7.9.3-4).
// nvcc -ptx -arch=compute_80 -o ptx/compare.ptx compare.cu
#include "suite.h"

#define SETP(op, T, W) TEST2(setp_##op##_##T, "setp." #op "." #T, W)
#define SIGNED(T, W) SETP(eq, T, W) SETP(ne, T, W) SETP(lt, T, W) SETP(le, T, W) SETP(gt, T, W) SETP(ge, T, W)
#define UNSIGNED(T, W) SIGNED(T, W) SETP(lo, T, W) SETP(ls, T, W) SETP(hi, T, W) SETP(hs, T, W)
#define FLOAT(T, W) SIGNED(T, W) SETP(equ, T, W) SETP(neu, T, W) SETP(ltu, T, W) SETP(leu, T, W) SETP(gtu, T, W) \
    SETP(geu, T, W) SETP(num, T, W) SETP(nan, T, W)
SIGNED(s16, h) SIGNED(s32, r) SIGNED(s64, l) UNSIGNED(u16, h) UNSIGNED(u32, r) UNSIGNED(u64, l)
SETP(eq, b16, h) SETP(ne, b32, r) SETP(eq, b64, l)
FLOAT(f32, r) FLOAT(f64, l) FLOAT(f16, h)
TEST2(setp_lt_ftz_f32, "setp.lt.ftz.f32", r) TEST2(setp_eq_ftz_f16, "setp.eq.ftz.f16", h)

// Two results and a third predicate: bit 0 is (a < b) op c, bit 1 is !(a < b) op c.
#define SETP3(op)                                                                                                    \
    KERNEL(setp_lt_##op##_s32) {                                                                                     \
        ROWS(3, 1);                                                                                                  \
        u32 d;                                                                                                       \
        asm volatile("{.reg .pred p, q, c;\n.reg .b32 t;\nsetp.ne.u32 c, %3, 0;\n"                                   \
                     "setp.lt." #op ".s32 p|q, %1, %2, c;\nselp.b32 %0, 1, 0, p;\nselp.b32 t, 2, 0, q;\n"            \
                     "or.b32 %0, %0, t;}" : "=&r"(d) : ARG(r, 0), ARG(r, 1), "r"((u32)(in[2] & 1)));                 \
        out[0] = d;                                                                                                  \
    }
SETP3(and) SETP3(or) SETP3(xor)

FORM2(set_lt_u32_s32, "set.lt.u32.s32", r, r, r) FORM2(set_ge_s32_u32, "set.ge.s32.u32", r, r, r)
FORM2(set_lt_f32_f32, "set.lt.f32.f32", r, r, r) FORM2(set_geu_u32_f64, "set.geu.u32.f64", r, l, l)
FORM2(set_eq_u32_b64, "set.eq.u32.b64", r, l, l) FORM2(set_gt_f16x2_f16x2, "set.gt.f16x2.f16x2", r, r, r)
FORM3(slct_b32_s32, "slct.b32.s32", r, r, r, r) FORM3(slct_u64_s32, "slct.u64.s32", l, l, l, r)
FORM3(slct_f32_f32, "slct.f32.f32", r, r, r, r) FORM3(slct_ftz_b16_f32, "slct.ftz.b16.f32", h, h, h, r)
#define SELP(T, W)                                                                                                  \
    KERNEL(selp_##T) {                                                                                              \
        ROWS(3, 1);                                                                                                 \
        T_##W d;                                                                                                    \
        asm volatile("{.reg .pred p;\nsetp.ne.u32 p, %3, 0;\nselp." #T " %0, %1, %2, p;}"                           \
                     : "=" #W(d) : ARG(W, 0), ARG(W, 1), "r"((u32)(in[2] & 1)));                                    \
        out[0] = d;                                                                                                 \
    }
SELP(b16, h) SELP(s32, r) SELP(f32, r) SELP(b64, l) SELP(f64, l)
#define TESTP(k, W) TEST1(testp_finite_##k, "testp.finite." #k, W) TEST1(testp_infinite_##k, "testp.infinite." #k, W) \
    TEST1(testp_number_##k, "testp.number." #k, W) TEST1(testp_notanumber_##k, "testp.notanumber." #k, W) \
    TEST1(testp_normal_##k, "testp.normal." #k, W) TEST1(testp_subnormal_##k, "testp.subnormal." #k, W)
TESTP(f32, r) TESTP(f64, l)
FORM2(copysign_f32, "copysign.f32", r, r, r) FORM2(copysign_f64, "copysign.f64", l, l, l)
FORM1(mov_u16, "mov.u16", h, h) FORM1(mov_f32, "mov.f32", r, r) FORM1(mov_b64, "mov.b64", l, l)
// Packing and unpacking: the halves of a word change places.
KERNEL(mov_b32) {
    ROWS(1, 1);
    u32 d;
    asm volatile("{.reg .b16 x, y;\nmov.b32 {x, y}, %1;\nmov.b32 %0, {y, x};}" : "=r"(d) : ARG(r, 0));
    out[0] = d;
}
KERNEL(mov_b64_halves) {
    ROWS(1, 1);
    u64 d;
    asm volatile("{.reg .b32 x, y;\nmov.b64 {x, y}, %1;\nmov.b64 %0, {y, x};}" : "=l"(d) : ARG(l, 0));
    out[0] = d;
}
