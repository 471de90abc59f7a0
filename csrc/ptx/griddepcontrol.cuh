// `griddepcontrol`: kernels that are launched before the one in front of them has ended (PTX ISA, "Control Flow
// Instructions: griddepcontrol"). GPUs before Hopper have no such launches, and nothing to wait for.
#pragma once

// Waits until the kernel in front has ended and what it wrote is seen; then lets the kernel behind begin, which waits here
// for this one's end, as soon as all blocks of this one have begun. So whatever kernels wait for is done: that of the
// kernel in front, and of all before that. The first thing that a kernel does that is launched with
// `LaunchConfig::programmatic`: before it other kernels may still read and write any memory.
__device__ inline void wait_for_kernel_in_front() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
