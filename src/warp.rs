//! What a warp's order of operations comes to, on the host.

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// The sum of the lanes' numbers: for a distance of 16, 8, 4, 2, 1, every lane adds the sum of the lane at that
/// distance (butterfly), so that all lanes get the same bits. `reduce_warp` of `csrc/common/reduce.cuh`.
pub(crate) fn sum(mut lanes: [f32; LANES]) -> f32 {
    for distance in [16, 8, 4, 2, 1] {
        let before = lanes;
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += before[lane ^ distance];
        }
    }
    lanes[0]
}

/// One over the root of the values' mean square plus `epsilon`, as `reference::rms_norm` states it, to the bit.
pub(crate) fn inverse_rms(values: &[f32], epsilon: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (i, value) in values.iter().enumerate() {
        lanes[i / 8 % LANES] += value * value;
    }
    1.0 / (sum(lanes) / values.len() as f32 + epsilon).sqrt()
}
