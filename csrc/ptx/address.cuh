// Addresses: within a state space by `cvta` (PTX ISA, "Data Movement and Conversion Instructions: cvta"), and stepped on.
#pragma once

#include <stdint.h>

// The 32-bit address within shared memory, as `ldmatrix` and `cp.async` take it: one register instead of two.
__device__ inline uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The T that is `bytes` behind `base`.
template <typename T>
__device__ const T &at(const void *base, unsigned bytes) {
    return *reinterpret_cast<const T *>(static_cast<const unsigned char *>(base) + bytes);
}

// The same pointer, of which the compiler does not know where it comes from: it steps on from it instead of multiplying for
// each address.
template <typename T>
__device__ inline T *stepped(T *pointer) {
    asm("" : "+l"(pointer));
    return pointer;
}
