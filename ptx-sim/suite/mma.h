// Kernels of one mma: a row has four words of A, four of B, four of C, of which as many count as the form has registers.
#pragma once

#define A_2 "{%4, %5}"
#define A_4 "{%4, %5, %6, %7}"
#define B_1 "{%8}"
#define B_2 "{%8, %9}"
// With two registers of results the operands' numbers begin at 2.
#define A16_2 "{%2, %3}"
#define A16_4 "{%2, %3, %4, %5}"
#define B16_1 "{%6}"
#define B16_2 "{%6, %7}"
#define OPERANDS ARG(r, 0), ARG(r, 1), ARG(r, 2), ARG(r, 3), ARG(r, 4), ARG(r, 5), ARG(r, 8), ARG(r, 9), ARG(r, 10), ARG(r, 11)

// Four accumulators of 32 bits.
#define M16F32(name, text, a, b)                                                                                   \
    KERNEL(name) {                                                                                                 \
        ROWS(12, 4);                                                                                               \
        u32 x, y, z, w;                                                                                            \
        asm volatile("mma.sync.aligned." text " {%0, %1, %2, %3}, " A_##a ", " B_##b ", {%10, %11, %12, %13};"     \
                     : "=r"(x), "=r"(y), "=r"(z), "=r"(w) : OPERANDS);                                             \
        out[0] = x, out[1] = y, out[2] = z, out[3] = w;                                                            \
    }
// Accumulators of 16 bits, in two registers.
#define M16F16(name, text, a, b)                                                                                   \
    KERNEL(name) {                                                                                                 \
        ROWS(12, 4);                                                                                               \
        u32 x, y;                                                                                                  \
        asm volatile("mma.sync.aligned." text " {%0, %1}, " A16_##a ", " B16_##b ", {%8, %9};"                      \
                     : "=r"(x), "=r"(y) : OPERANDS);                                                               \
        out[0] = x, out[1] = y, out[2] = out[3] = 0;                                                               \
    }
// Eight rows: one register of A and of B, two of C.
#define M8(name, text)                                                                                             \
    KERNEL(name) {                                                                                                 \
        ROWS(12, 4);                                                                                               \
        u32 x, y;                                                                                                  \
        asm volatile("mma.sync.aligned." text " {%0, %1}, {%2}, {%3}, {%4, %5};"                                   \
                     : "=r"(x), "=r"(y) : ARG(r, 0), ARG(r, 4), ARG(r, 8), ARG(r, 9));                             \
        out[0] = x, out[1] = y, out[2] = out[3] = 0;                                                               \
    }
