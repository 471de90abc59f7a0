//! `prepare`: what a step does to its tokens before they attend.

use super::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, RopeAppend, RopeAppendArgs, RopeAppendConfig};
use crate::cache::RangeSetting;
use crate::device::{Device, Kernel, LaunchConfig, Stream};
use crate::error::{Error, Result};
use crate::sys;

/// [`AbsorbQuery`] and [`RopeAppend`], with the same bits: of few query tokens, as in decoding, in one launch.
///
/// Neither may read what the other writes.
#[derive(Clone, Debug)]
pub struct Prepare {
    absorb: AbsorbQuery,
    rope_append: RopeAppend,
    /// Both, for few rows.
    few: Kernel,
}

impl Prepare {
    /// Loads the kernels.
    ///
    /// # Errors
    /// As [`AbsorbQuery::new`] and [`RopeAppend::new`].
    pub fn new(device: &Device, absorb: AbsorbConfig, rope_append: RopeAppendConfig) -> Result<Self> {
        let name = match (absorb.batch_invariant, rope_append.layout.format().range) {
            (false, RangeSetting::MinMax) => "prepare",
            (false, RangeSetting::Mse) => "prepare_mse",
            (true, RangeSetting::MinMax) => "prepare_ordered",
            (true, RangeSetting::Mse) => "prepare_ordered_mse",
        };
        let shared_bytes = if absorb.batch_invariant { sys::ABSORB_ORDERED_SHARED_BYTES as usize } else { 0 };
        Ok(Self {
            absorb: AbsorbQuery::new(device, absorb)?,
            rope_append: RopeAppend::new(device, rope_append)?,
            few: device.kernel("prepare", name, shared_bytes)?,
        })
    }

    /// Projects queries, and takes in tokens. Nothing is launched unless all arguments fit.
    ///
    /// # Errors
    /// As [`AbsorbQuery::run`] and [`RopeAppend::run`].
    pub fn run(&self, stream: &Stream, absorb: AbsorbQueryArgs, append: RopeAppendArgs) -> Result<()> {
        let (absorb, append) = (self.absorb.params(&absorb)?, self.rope_append.params(&append)?);
        let Some(([x, y, z], shared_bytes)) = self.absorb.few(&absorb) else {
            // SAFETY: the tensors are as large as the parameters say and on the kernels' device; frequencies are within
            // the tables, and positions and slots are checked by the kernel.
            unsafe { self.absorb.launch(stream, &absorb)? };
            // SAFETY: as above.
            return unsafe { self.rope_append.launch(stream, &append) };
        };
        let [append_blocks, append_runs] = self.rope_append.grid(&append)?;
        let blocks = |sizes: &[u32]| sizes.iter().map(|&n| u64::from(n)).product::<u64>();
        let all = blocks(&[append_blocks, append_runs]).saturating_add(blocks(&[x, y, z]));
        let grid =
            u32::try_from(all).ok().filter(|&all| i32::try_from(all).is_ok()).ok_or_else(|| Error::Capacity {
                what: format!("prepare of {} tokens", append.tokens),
                why: format!("{all} blocks in a launch, which has room for less than 2^31"),
            })?;
        let params = sys::PrepareParams { absorb, append, append_blocks, append_runs, absorb_x: x, absorb_y: y };
        let config = LaunchConfig::new([grid, 1, 1], [sys::ABSORB_FEW_THREADS, 1, 1])
            .with_shared(shared_bytes)
            .with_programmatic();
        // SAFETY: as above.
        unsafe { self.few.launch(stream, &config, &params) }
    }
}
