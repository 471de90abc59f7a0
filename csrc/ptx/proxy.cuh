// `fence.proxy`: order between ways to memory (PTX ISA, "Parallel Synchronization and Communication Instructions:
// membar, fence").
#pragma once

// What the thread has written to shared memory is there for asynchronous readers, as products by `wgmma` are.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
