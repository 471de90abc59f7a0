//! A warp's width.

pub(crate) use crate::clocks::LANES;

/// One value per lane.
pub(crate) type Lanes = [u64; LANES];

/// One value of up to 32 bits per lane.
pub(crate) type Words = [u32; LANES];

/// The lanes that a warp of a block of `threads` begins with.
pub(crate) fn lanes_of(threads: usize, warp: usize) -> u32 {
    match (threads - warp * LANES).min(LANES) {
        LANES => u32::MAX,
        lanes => (1 << lanes) - 1,
    }
}
