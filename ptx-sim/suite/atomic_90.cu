// Atomics of compute capability 9.0: bf16, vectors, 128 bits (PTX ISA 9.7.13.5-6).
// nvcc -ptx -arch=compute_90a -o ptx/atomic_90.ptx atomic_90.cu
#include "suite.h"

#define ATOM(name, text, W)                                                                    \
    KERNEL(name) {                                                                             \
        ROWS(2, 2);                                                                            \
        T_##W old;                                                                             \
        out[1] = (T_##W)in[0];                                                                 \
        asm volatile(text " %0, [%1], %2;" : "=" #W(old) : "l"(out + 1), ARG(W, 1) : "memory"); \
        out[0] = old;                                                                          \
    }
ATOM(atom_global_add_noftz_bf16, "atom.global.add.noftz.bf16", h)
ATOM(atom_global_add_noftz_bf16x2, "atom.global.add.noftz.bf16x2", r)
// Two pairs of f32: old in the first two words, new in the last.
KERNEL(atom_global_v2_f32_add) {
    ROWS(2, 2);
    u32 x, y;
    out[1] = in[0];
    asm volatile("atom.global.v2.f32.add {%0, %1}, [%2], {%3, %4};"
                 : "=r"(x), "=r"(y) : "l"(out + 1), ARG(r, 1), "r"((u32)(in[1] >> 32)) : "memory");
    out[0] = (u64)y << 32 | x;
}
KERNEL(red_global_v2_f32_add) {
    ROWS(2, 1);
    out[0] = in[0];
    asm volatile("red.global.v2.f32.add [%0], {%1, %2};" ::"l"(out), ARG(r, 1), "r"((u32)(in[1] >> 32)) : "memory");
}
// A cell of 128 bits is exchanged: old, then new. The operand has been moved between registers.
KERNEL(atom_global_exch_b128) {
    ROWS(4, 4);
    out[2] = in[0], out[3] = in[1];
    asm volatile("{.reg .b128 d, b, c;\nmov.b128 b, {%3, %4};\nmov.b128 c, b;\n"
                 "atom.global.exch.b128 d, [%2], c;\nmov.b128 {%0, %1}, d;}"
                 : "=l"(out[0]), "=l"(out[1]) : "l"(out + 2), ARG(l, 2), ARG(l, 3) : "memory");
}
// Compared as a whole: half of the rows change one word of what is expected.
KERNEL(atom_global_cas_b128) {
    ROWS(4, 4);
    out[2] = in[0], out[3] = in[1];
    asm volatile("{.reg .b128 d, b, c;\nmov.b128 b, {%3, %4};\nmov.b128 c, {%5, %6};\n"
                 "atom.global.cas.b128 d, [%2], b, c;\nmov.b128 {%0, %1}, d;}"
                 : "=l"(out[0]), "=l"(out[1])
                 : "l"(out + 2), ARG(l, 0), "l"(in[1] ^ (in[3] & 1)), ARG(l, 2), ARG(l, 3) : "memory");
}
