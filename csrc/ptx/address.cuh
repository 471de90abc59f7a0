// `cvta`: addresses within a state space (PTX ISA, "Data Movement and Conversion Instructions: cvta").
#pragma once

#include <stdint.h>

// The 32-bit address within shared memory, as `ldmatrix` and `cp.async` take it: one register instead of two.
__device__ inline uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
