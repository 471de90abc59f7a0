// `rope_append`: rotates, normalises, quantises and stores the new tokens of a batch; `src/reference/rope_append.rs` on
// the device, to the bit.
//
//     grid: x over tokens, 4 to a block; y over the runs of a token
//     each warp, for its token and run of up to 512 values of the latent, the rotated keys or the queries:
//         load the run into registers            of each lane two chunks of 8 values: LanePlace says which
//         load position and slot; stop if the token is refused, or has no slot and is not a query
//         if queries:  rotate; write
//         if keys:     normalise, if keys are; rotate; quantise; store codes and (scale, min) pairs in the slot
//         if latent:   with a norm, sum the squares of the whole latent over the lanes (shuffles)
//                      for the run (with a norm, for all runs of the latent):
//                          multiply by norm and gain; add the bias; quantise; store in the slot
//                      with its first run, store the factors of normalised keys
//         count saturated values and refused tokens by atomic additions
//     keys of up to 256 values do not fill a warp: one takes those of two tokens of the block, or of up to 128 values
//     those of all four
//     no shared memory, no barriers: warps share nothing
//
// One token already keeps as many multiprocessors busy as it has runs, and thousands of tokens keep all of them busy.
// Rotation and quantisation are those of rope_append/rotate.cuh and cache/quantize.cuh.
//
// Per token, in bytes: reads 2 L + 2 Gr R + 2 H R, and position and slot in each warp. Each number is read once, save
//     two kinds that are read twice: latents past the first 512 if there is a norm, and keys of heads that are not
//     rotated in chunks. Writes the token's record once, 2 L + 2 Gr R in bf16 and about a quarter of that in int4, and
//     2 H R. Tables, gain and bias serve many tokens and come from L1 and L2: 12 bytes of index, cosine and sine for a
//     pair of dimensions.
// FLOPs: 3 per rotated value, 3 and 6 comparisons per quantised one, less than 3 per byte. Memory-bound with many
//     tokens, as counted (docs/measurements.md, "Taking in many tokens"); latency-bound with few tokens, by a chain of
//     three loads.
//
// `rope_append_mse` is for caches of `RangeSetting::Mse`. It reads and writes as much, but tries four ranges for int4
// groups of at least 96 values, most of whose instructions are the values' errors, the rest scales, sums over lanes and
// the choice (docs/measurements.md, "Ranges of int4 groups"). A kernel of its own leaves the other its registers and
// instructions.
//
// Queries are left out where the parameters have none, and so is the rotation, which an engine may have done before.
//
// Values are accessed 16 bytes at a time where addresses and strides allow it, else one by one. A token's record is
// written without touching its neighbours'.

#include "params.h"
#include "ptx/griddepcontrol.cuh"
#include "rope_append/append.cuh"

// The numbers of blocks are those that a multiprocessor holds with the registers that the kernels need: without one ptxas
// spills for more blocks of its own choice (sm_120).
extern "C" __global__ void __launch_bounds__(ROPE_APPEND_THREADS, 8)
    rope_append(const __grid_constant__ RopeAppendParams params) {
    wait_for_kernel_in_front();
    append_run<RangeSetting::MinMax>(params, blockIdx.x, blockIdx.y);
}

extern "C" __global__ void __launch_bounds__(ROPE_APPEND_THREADS, 5)
    rope_append_mse(const __grid_constant__ RopeAppendParams params) {
    wait_for_kernel_in_front();
    append_run<RangeSetting::Mse>(params, blockIdx.x, blockIdx.y);
}
