// `lop3`: any function of three words' bits (PTX ISA, "Logic and Shift Instructions: lop3").
#pragma once

#include <stdint.h>

// x & Mask | Bits in one instruction. Written in C++, nvcc makes two instructions of it where both are constants.
template <uint32_t Mask, uint32_t Bits>
__device__ inline uint32_t mask_and_set(uint32_t x) {
    uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(x), "n"(Mask), "n"(Bits));
    return result;
}
